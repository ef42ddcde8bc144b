/* What the yardsticks share: the clock, TCP sockets, and a histogram of nanoseconds. */
#ifndef SEATRIAL_BENCH_COMMON_H
#define SEATRIAL_BENCH_COMMON_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S 1000000000ll
/* Buckets: exact below 2^SUB_BITS ns, above that 2^SUB_BITS a power of two (0.8 % wide). */
#define SUB_BITS 7
#define BUCKETS ((64 - SUB_BITS) << SUB_BITS)

struct histogram {
    uint64_t counts[BUCKETS];
    uint64_t total;
    int64_t max_ns;
};

static inline int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec;
}

static inline void die(const char *what) {
    perror(what);
    exit(1);
}

static inline void fail(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static inline void record(struct histogram *h, int64_t ns) {
    uint64_t value = ns < 0 ? 0 : (uint64_t)ns;
    if (ns > h->max_ns) h->max_ns = ns;
    h->total++;
    if (value < 1u << SUB_BITS) {
        h->counts[value]++;
        return;
    }
    int shift = 63 - __builtin_clzll(value) - SUB_BITS;
    h->counts[((unsigned)(shift + 1) << SUB_BITS) + ((value >> shift) & ((1u << SUB_BITS) - 1))]++;
}

/* The upper edge of the bucket that holds the quantile; -1 when nothing was recorded. */
static inline long long quantile(const struct histogram *h, double q) {
    uint64_t rank = (uint64_t)(q * (double)h->total + 0.999999), seen = 0;
    if (rank < 1) rank = 1;
    for (unsigned i = 0; h->total && i < BUCKETS; i++) {
        seen += h->counts[i];
        if (seen < rank) continue;
        if (i < 1u << SUB_BITS) return i;
        int shift = (int)(i >> SUB_BITS) - 1;
        uint64_t low = ((1ull << SUB_BITS) + (i & ((1u << SUB_BITS) - 1))) << shift;
        long long edge = (long long)(low + (1ull << shift) - 1);
        return edge > h->max_ns ? h->max_ns : edge;
    }
    return -1;
}

static inline void print_quantiles(const char *name, const struct histogram *h) {
    printf(", \"%s_p50_ns\": %lld, \"%s_p90_ns\": %lld, \"%s_p99_ns\": %lld, \"%s_p999_ns\": %lld, "
           "\"%s_max_ns\": %lld",
           name, quantile(h, 0.5), name, quantile(h, 0.9), name, quantile(h, 0.99), name,
           quantile(h, 0.999), name, h->total ? (long long)h->max_ns : -1);
}

/* CPU time of this process, user and kernel. */
static inline long long cpu_ns(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * NS_PER_S +
           (u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1000ll;
}

static inline void no_delay(int fd) {
    int one = 1;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one)) die("TCP_NODELAY");
}

static inline void non_blocking(int fd) {
    if (fcntl(fd, F_SETFL, O_NONBLOCK)) die("O_NONBLOCK");
}

static inline struct sockaddr_in address(const char *host, const char *port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    if (inet_pton(AF_INET, host, &a.sin_addr) != 1) fail("the host must be a numeric IPv4 address");
    return a;
}

/* A socket that does not block on accept4; prints the port it got on a line of its own. */
static inline int listening(const char *host, const char *port) {
    struct sockaddr_in a = address(host, port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    if (fd < 0) die("socket");
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one)) die("SO_REUSEADDR");
    if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 4096)) die("listen");
    socklen_t length = sizeof a;
    if (getsockname(fd, (struct sockaddr *)&a, &length)) die("getsockname");
    printf("%d\n", ntohs(a.sin_port));
    fflush(stdout);
    return fd;
}

static inline int connected(const char *host, const char *port) {
    struct sockaddr_in a = address(host, port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket");
    if (connect(fd, (struct sockaddr *)&a, sizeof a)) die("connect");
    no_delay(fd);
    non_blocking(fd);
    return fd;
}

/* Sends all of it; a full socket buffer is waited for, which small requests never meet. */
static inline void send_all(int fd, const char *bytes, size_t length) {
    while (length > 0) {
        ssize_t n = send(fd, bytes, length, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
        if (n <= 0) die("send");
        bytes += n;
        length -= (size_t)n;
    }
}

#endif
