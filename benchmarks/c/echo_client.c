/* The yardstick of the closed loop: the least a C program can do for an echo, with a histogram.
 *
 *   echo_client HOST PORT BYTES SECONDS WARM_UP CONNECTIONS DEPTH block|spin
 *
 * DEPTH requests are in flight on each connection; each reply is answered by the next request at
 * once, all replies of one read by one send. One clock reading a read and one a send: what is
 * needed for the time of every request. `block` waits in epoll_wait, `spin` polls it. Counts
 * replies that came within SECONDS after WARM_UP seconds. Prints one line of JSON.
 */
#define _GNU_SOURCE
#include "common.h"
#include <sys/epoll.h>

#define READ_BYTES 65536
#define EVENTS 256

struct connection {
    int fd;
    uint32_t head, tail;   /* of sent_at_ns, counted without wrapping */
    size_t partial;        /* bytes of a reply that is not whole yet */
    int64_t *sent_at_ns;   /* a ring of `ring` instants, oldest first */
};

static struct histogram service;
static size_t request_bytes;
static uint32_t ring;
static char *requests;
static int64_t begin_ns, end_ns;

static void offer(struct connection *c, uint32_t count) {
    int64_t now = now_ns();
    for (uint32_t i = 0; i < count; i++) c->sent_at_ns[c->tail++ & (ring - 1)] = now;
    send_all(c->fd, requests, count * request_bytes);
}

static void take(struct connection *c) {
    static char in[READ_BYTES];
    ssize_t n = recv(c->fd, in, sizeof in, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) die("recv");
    int64_t now = now_ns();
    size_t bytes = c->partial + (size_t)n;
    uint32_t count = (uint32_t)(bytes / request_bytes);
    c->partial = bytes % request_bytes;
    if (count > c->tail - c->head) fail("more bytes came back than were sent");
    for (uint32_t i = 0; i < count; i++) {
        int64_t sent = c->sent_at_ns[c->head++ & (ring - 1)];
        if (now >= begin_ns && now < end_ns) record(&service, now - sent);
    }
    if (count) offer(c, count);
}

int main(int argc, char **argv) {
    if (argc != 9 || (strcmp(argv[8], "block") && strcmp(argv[8], "spin"))) {
        fprintf(stderr, "usage: echo_client HOST PORT BYTES SECONDS WARM_UP CONNECTIONS DEPTH "
                        "block|spin\n");
        return 2;
    }
    request_bytes = strtoul(argv[3], NULL, 10);
    uint32_t connections = (uint32_t)atoi(argv[6]), depth = (uint32_t)atoi(argv[7]);
    int timeout = strcmp(argv[8], "spin") ? -1 : 0;
    if (!request_bytes || !connections || !depth) fail("BYTES, CONNECTIONS and DEPTH must be > 0");
    for (ring = 1; ring < depth; ring *= 2) {
    }
    requests = calloc(depth, request_bytes);
    struct connection *all = calloc(connections, sizeof *all);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!requests || !all || epoll < 0) die("set-up");
    for (uint32_t i = 0; i < connections; i++) {
        struct connection *c = &all[i];
        c->fd = connected(argv[1], argv[2]);
        c->sent_at_ns = calloc(ring, sizeof *c->sent_at_ns);
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
        if (!c->sent_at_ns || epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &e)) die("epoll_ctl");
    }
    begin_ns = now_ns() + (int64_t)(atof(argv[5]) * 1e9);
    end_ns = begin_ns + (int64_t)(atof(argv[4]) * 1e9);
    for (uint32_t i = 0; i < connections; i++) offer(&all[i], depth);
    while (now_ns() < end_ns) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(epoll, events, EVENTS, timeout);
        if (ready < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < ready; i++) take(events[i].data.ptr);
    }
    printf("{\"ok_count\": %llu, \"rate_rps\": %.3f, \"cpu_ns\": %lld",
           (unsigned long long)service.total,
           (double)service.total * 1e9 / (double)(end_ns - begin_ns), cpu_ns());
    print_quantiles("service", &service);
    printf("}\n");
    return 0;
}
