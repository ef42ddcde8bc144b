/* The least an echo server can be: one thread, epoll with a blocking wait, bytes back as they came.
 *
 *   echo_server HOST PORT
 *
 * PORT 0 lets the kernel choose. Prints the port on a line of its own, then serves until it is
 * killed. What a peer does not take at once is kept (up to one read) and sent when there is room;
 * until then nothing more is read from that peer.
 */
#define _GNU_SOURCE
#include "common.h"
#include <sys/epoll.h>

#define READ_BYTES 65536
#define EVENTS 256

struct peer {
    int fd;
    size_t begin, end;
    char kept[READ_BYTES];
};

static int epoll;

static void watch(struct peer *p, uint32_t events, int operation) {
    struct epoll_event e = {.events = events, .data.ptr = p};
    if (epoll_ctl(epoll, operation, p->fd, &e)) die("epoll_ctl");
}

static void drop(struct peer *p) {
    close(p->fd);
    free(p);
}

/* Sends what is kept; returns 0 when the peer is gone. */
static int flush(struct peer *p, int was_full) {
    while (p->begin < p->end) {
        ssize_t n = send(p->fd, p->kept + p->begin, p->end - p->begin, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) {
            if (!was_full) watch(p, EPOLLOUT, EPOLL_CTL_MOD);
            return 1;
        }
        if (n <= 0) return 0;
        p->begin += (size_t)n;
    }
    if (was_full) watch(p, EPOLLIN, EPOLL_CTL_MOD);
    return 1;
}

static void serve(struct peer *p, uint32_t events) {
    if (events & EPOLLOUT) {
        if (!flush(p, 1)) drop(p);
        return;
    }
    ssize_t n = recv(p->fd, p->kept, sizeof p->kept, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
        drop(p);
        return;
    }
    p->begin = 0;
    p->end = (size_t)n;
    if (!flush(p, 0)) drop(p);
}

static void accept_all(int listener) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct peer *p = malloc(sizeof *p);
        if (!p) die("malloc");
        p->fd = fd;
        no_delay(fd);
        watch(p, EPOLLIN, EPOLL_CTL_ADD);
    }
    if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) die("accept4");
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: echo_server HOST PORT\n");
        return 2;
    }
    int listener = listening(argv[1], argv[2]);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0) die("epoll_create1");
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &e)) die("epoll_ctl");
    for (;;) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        if (ready < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < ready; i++) {
            if (events[i].data.ptr)
                serve(events[i].data.ptr, events[i].events);
            else
                accept_all(listener);
        }
    }
}
