/* The yardstick of the open loop: how punctual a C program can send, and what it then sees.
 *
 *   open_loop HOST PORT BYTES SECONDS WARM_UP CONNECTIONS RATE fixed|poisson spin|hybrid|block SEED
 *
 * One thread sends RATE requests a second to an echo server, over the connections in turn, each at
 * its intended instant or as soon after it as it can, whatever came back. `late` is sent -
 * intended, `response` is received - intended. `spin` polls; `block` sleeps in epoll_pwait2 until
 * the next instant; `hybrid` sleeps until 60 us before it and polls from there. The first WARM_UP
 * seconds are not counted. After the end replies are waited for (at most 5 s). Prints one line of
 * JSON.
 */
#define _GNU_SOURCE
#include "common.h"
#include <math.h>
#include <sys/epoll.h>
#include <sys/prctl.h>

#define READ_BYTES 65536
#define EVENTS 256
/* In flight on one connection at most: a second at the highest rate, when the server stands. */
#define RING 65536u
/* Before the instant; a sleep ends late by less than this, mostly. */
#define GUARD_NS 60000
#define DRAIN_NS (5 * NS_PER_S)

enum wait { SPIN, HYBRID, BLOCK };

struct connection {
    int fd;
    uint32_t head, tail;
    size_t partial;
    int64_t *intended_at_ns;
};

static struct histogram late, response;
static size_t request_bytes;
static int64_t begin_ns;
static uint64_t flying, received;

/* splitmix64: Steele, Lea and Flood, OOPSLA 2014. */
static uint64_t random_bits(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static double gap_ns(double mean, int is_poisson, uint64_t *state) {
    if (!is_poisson) return mean;
    return -mean * log(((double)(random_bits(state) >> 11) + 1) * 0x1p-53);
}

static void take(struct connection *c) {
    static char in[READ_BYTES];
    ssize_t n = recv(c->fd, in, sizeof in, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) die("recv");
    int64_t now = now_ns();
    size_t bytes = c->partial + (size_t)n;
    c->partial = bytes % request_bytes;
    for (size_t count = bytes / request_bytes; count > 0; count--) {
        if (c->head == c->tail) fail("more bytes came back than were sent");
        int64_t intended = c->intended_at_ns[c->head++ & (RING - 1)];
        if (intended >= begin_ns) record(&response, now - intended);
        flying--;
        received++;
    }
}

static void poll_once(int epoll, int64_t sleep_ns) {
    struct epoll_event events[EVENTS];
    struct timespec t = {.tv_sec = sleep_ns / NS_PER_S, .tv_nsec = sleep_ns % NS_PER_S};
    int ready = epoll_pwait2(epoll, events, EVENTS, &t, NULL);
    if (ready < 0 && errno != EINTR) die("epoll_pwait2");
    for (int i = 0; i < ready; i++) take(events[i].data.ptr);
}

static int64_t sleep_before(int64_t intended, enum wait wait) {
    int64_t ahead = intended - now_ns() - (wait == HYBRID ? GUARD_NS : 0);
    return wait == SPIN || ahead < 0 ? 0 : ahead;
}

static void offer(struct connection *c, int64_t intended, const char *request) {
    if (c->tail - c->head == RING) fail("too many requests in flight on one connection");
    int64_t sent = now_ns();
    c->intended_at_ns[c->tail++ & (RING - 1)] = intended;
    send_all(c->fd, request, request_bytes);
    flying++;
    if (intended >= begin_ns) record(&late, sent - intended);
}

int main(int argc, char **argv) {
    static const char *const waits[] = {"spin", "hybrid", "block"};
    int wait = 0;
    while (argc == 11 && wait < 3 && strcmp(argv[9], waits[wait])) wait++;
    if (argc != 11 || wait == 3 || (strcmp(argv[8], "fixed") && strcmp(argv[8], "poisson"))) {
        fprintf(stderr, "usage: open_loop HOST PORT BYTES SECONDS WARM_UP CONNECTIONS RATE "
                        "fixed|poisson spin|hybrid|block SEED\n");
        return 2;
    }
    request_bytes = strtoul(argv[3], NULL, 10);
    uint32_t connections = (uint32_t)atoi(argv[6]);
    double mean = 1e9 / atof(argv[7]);
    int is_poisson = !strcmp(argv[8], "poisson");
    uint64_t state = strtoull(argv[10], NULL, 10);
    if (!request_bytes || !connections || !(mean > 0)) fail("BYTES, CONNECTIONS, RATE must be > 0");
    /* Otherwise every sleep is prolonged by 50 us. */
    prctl(PR_SET_TIMERSLACK, 1);
    char *request = calloc(1, request_bytes);
    struct connection *all = calloc(connections, sizeof *all);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!request || !all || epoll < 0) die("set-up");
    for (uint32_t i = 0; i < connections; i++) {
        struct connection *c = &all[i];
        c->fd = connected(argv[1], argv[2]);
        c->intended_at_ns = calloc(RING, sizeof *c->intended_at_ns);
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
        if (!c->intended_at_ns || epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &e)) die("epoll_ctl");
    }
    int64_t start = now_ns() + NS_PER_S / 100;
    begin_ns = start + (int64_t)(atof(argv[5]) * 1e9);
    int64_t end_ns = begin_ns + (int64_t)(atof(argv[4]) * 1e9);
    double next = gap_ns(mean, is_poisson, &state);
    uint64_t sent = 0;
    for (int64_t due = start + (int64_t)next; due < end_ns; due = start + (int64_t)next) {
        while (now_ns() < due) poll_once(epoll, sleep_before(due, (enum wait)wait));
        offer(&all[sent++ % connections], due, request);
        next += gap_ns(mean, is_poisson, &state);
        poll_once(epoll, 0);
    }
    int64_t give_up_ns = now_ns() + DRAIN_NS;
    while (flying && now_ns() < give_up_ns) poll_once(epoll, NS_PER_S / 1000);
    printf("{\"sent_count\": %llu, \"received_count\": %llu, \"rate_rps\": %.3f, \"cpu_ns\": %lld, "
           "\"elapsed_ns\": %lld",
           (unsigned long long)sent, (unsigned long long)received,
           (double)late.total * 1e9 / (double)(end_ns - begin_ns), cpu_ns(),
           (long long)(now_ns() - start));
    print_quantiles("late", &late);
    print_quantiles("response", &response);
    printf("}\n");
    return 0;
}
