/* An HTTP/1.1 server that remembers when each request came: who sends punctually is seen here,
 * whatever a client says of itself.
 *
 *   arrival_log HOST PORT
 *
 * PORT 0 lets the kernel choose; the port is printed on a line of its own. One thread, blocking
 * epoll. Every request without a body is answered with `ok`; it counts when the read that ends it
 * returns. A connection that says `LOG` is sent all instants so far (CLOCK_MONOTONIC, ns, int64 of
 * this machine), is closed, and the log starts anew.
 */
#define _GNU_SOURCE
#include "common.h"
#include <sys/epoll.h>

#define EVENTS 256
#define READ_BYTES 65536
#define ARRIVALS_MAX (1u << 22)
#define ASK "LOG"

static const char REPLY[] = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n";
static const char END[] = "\r\n\r\n";

struct peer {
    int fd;
    unsigned matched; /* bytes of END at the end of what was read */
};

static int64_t arrivals[ARRIVALS_MAX];
static uint32_t arrivals_count;

static void drop(struct peer *p) {
    close(p->fd);
    free(p);
}

static void tell(struct peer *p) {
    send_all(p->fd, (const char *)arrivals, arrivals_count * sizeof *arrivals);
    arrivals_count = 0;
    drop(p);
}

static void serve(struct peer *p) {
    static char in[READ_BYTES];
    ssize_t n = recv(p->fd, in, sizeof in, 0);
    int64_t now = now_ns();
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
        drop(p);
        return;
    }
    if ((size_t)n == sizeof ASK - 1 && !memcmp(in, ASK, sizeof ASK - 1)) {
        tell(p);
        return;
    }
    for (ssize_t i = 0; i < n; i++) {
        p->matched = in[i] == END[p->matched] ? p->matched + 1 : in[i] == END[0];
        if (p->matched < sizeof END - 1) continue;
        p->matched = 0;
        if (arrivals_count == ARRIVALS_MAX) fail("too many requests for the log");
        arrivals[arrivals_count++] = now;
        if (send(p->fd, REPLY, sizeof REPLY - 1, MSG_NOSIGNAL) != sizeof REPLY - 1) {
            drop(p);
            return;
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: arrival_log HOST PORT\n");
        return 2;
    }
    int listener = listening(argv[1], argv[2]), epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &e)) die("epoll");
    for (;;) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(epoll, events, EVENTS, -1), fd;
        if (ready < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < ready; i++) {
            if (events[i].data.ptr) {
                serve(events[i].data.ptr);
                continue;
            }
            while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
                struct peer *p = calloc(1, sizeof *p);
                if (!p) die("calloc");
                p->fd = fd;
                no_delay(fd);
                e.data.ptr = p;
                if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e)) die("epoll_ctl");
            }
        }
    }
}
