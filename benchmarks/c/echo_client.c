/* The yardstick of the load engine: the least a C program can do for a closed-loop echo.
 *
 *   echo_client HOST PORT BYTES SECONDS
 *
 * One connection, blocking sockets, TCP_NODELAY; two clock readings a request, as the engine needs
 * for its records. Prints one line: requests, nanoseconds, requests a second.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define RECORDS_MAX (1u << 22)

struct record {
    int64_t sent_at_ns, done_at_ns;
};

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: echo_client HOST PORT BYTES SECONDS\n");
        return 2;
    }
    size_t bytes = strtoul(argv[3], NULL, 10);
    int64_t length_ns = (int64_t)(atof(argv[4]) * 1e9);
    char *out = calloc(1, bytes), *in = malloc(bytes);
    struct record *records = malloc(sizeof *records * RECORDS_MAX);
    if (!out || !in || !records) die("malloc");
    memset(records, 0, sizeof *records * RECORDS_MAX);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    if (inet_pton(AF_INET, argv[1], &address.sin_addr) != 1) die("address");
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    if (fd < 0) die("socket");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (struct sockaddr *)&address, sizeof address)) die("connect");
    int64_t begin = now_ns(), end = begin + length_ns;
    uint32_t count = 0;
    while (count < RECORDS_MAX) {
        struct record *r = &records[count];
        r->sent_at_ns = now_ns();
        if (r->sent_at_ns >= end) break;
        if (send(fd, out, bytes, 0) != (ssize_t)bytes) die("send");
        for (size_t got = 0; got < bytes;) {
            ssize_t n = recv(fd, in + got, bytes - got, 0);
            if (n <= 0) die("recv");
            got += (size_t)n;
        }
        r->done_at_ns = now_ns();
        count++;
    }
    int64_t spent = now_ns() - begin;
    printf("%u %lld %.0f\n", count, (long long)spent, count * 1e9 / (double)spent);
    return 0;
}
