/* The yardstick of the launcher: the least a C program can do to start commands and see them live.
 *
 *   spawn_wait CONCURRENCY (-- CGROUPS CHANNEL COMMAND...)...
 *
 * Each `--` begins one start: a comma-separated list of cgroup.procs files to join (may be empty),
 * a channel, and a command whose guest says HELLO on the channel and ends when it reads a STOP
 * there. The channel is `-`, a socket that the command inherits as descriptor 3, or the path of a
 * socket on which the guest calls, listening before the release. CONCURRENCY of them are started one after another without waiting (vfork, the child joins and executes),
 * then one epoll loop sees their first bytes and, through pidfds, their ends; then the next group.
 * Prints one line a start: nanoseconds from the group's release to the first byte and to the end
 * (-1: it ended without a word). Needs Linux 5.3.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STARTS_MAX 4096
#define GROUPS_MAX 16
#define CHANNEL_FD 3
#define TIMEOUT_MS 60000

extern char **environ;

struct start {
    char **argv;
    const char *path;
    char *groups[GROUPS_MAX];
    int groups_count, channel, is_listening, pidfd;
    pid_t pid;
    int64_t first_byte_at_ns, exit_seen_at_ns;
};

static struct start starts[STARTS_MAX];
static const unsigned char STOP[] = {2, 0, 0, 0, 1, 0x13};

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

/* As the launcher does: `tasks` of a version 1 hierarchy spares the child a global lock. */
static char *cheapest_join_file(char *path) {
    static const char procs[] = "/cgroup.procs";
    size_t length = strlen(path), tail = sizeof procs - 1;
    if (length > tail && strcmp(path + length - tail, procs) == 0) {
        char *tasks = strndup(path, length - tail + sizeof "/tasks");
        if (!tasks) die("strndup");
        strcpy(tasks + length - tail, "/tasks");
        if (access(tasks, F_OK) == 0) return tasks;
        free(tasks);
    }
    return path;
}

static int parse(int argc, char **argv) {
    int count = 0;
    for (int i = 2; i < argc;) {
        if (strcmp(argv[i], "--") || i + 3 >= argc || count == STARTS_MAX) {
            fprintf(stderr, "usage: spawn_wait CONCURRENCY (-- CGROUPS CHANNEL COMMAND...)...\n");
            exit(2);
        }
        struct start *s = &starts[count++];
        for (char *p = strtok(argv[i + 1], ","); p && s->groups_count < GROUPS_MAX;
             p = strtok(NULL, ","))
            s->groups[s->groups_count++] = cheapest_join_file(p);
        s->path = strcmp(argv[i + 2], "-") ? argv[i + 2] : NULL;
        int first = i + 3;
        for (i = first; i < argc && strcmp(argv[i], "--"); i++) {
        }
        s->argv = calloc((size_t)(i - first) + 1, sizeof *s->argv);
        if (!s->argv) die("calloc");
        memcpy(s->argv, &argv[first], (size_t)(i - first) * sizeof *s->argv);
    }
    return count;
}

/* Between vfork and execve: system calls only, in the parent's memory. */
static void become(const struct start *s, int channel, int null) {
    setsid();
    for (int g = 0; g < s->groups_count; g++) {
        int file = open(s->groups[g], O_WRONLY | O_CLOEXEC);
        if (file < 0 || write(file, "0", 1) != 1) _exit(126);
        close(file);
    }
    for (int fd = 0; fd < 3; fd++) dup2(null, fd);
    if (channel >= 0) dup2(channel, CHANNEL_FD);
    execve(s->argv[0], s->argv, environ);
    _exit(127);
}

static void watch(int epoll, int fd, struct start *s, int is_exit) {
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uintptr_t)s | (unsigned)is_exit};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event)) die("epoll_ctl");
}

static void launch(struct start *s, int channel, int null, int epoll) {
    s->pid = vfork();
    if (s->pid == 0) become(s, channel, null);
    if (s->pid < 0) die("vfork");
    if (channel >= 0) close(channel);
    s->pidfd = (int)syscall(SYS_pidfd_open, s->pid, 0);
    if (s->pidfd < 0) die("pidfd_open");
    watch(epoll, s->pidfd, s, 1);
}

static int listening_at(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        die(path);
    }
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 1)) die(path);
    return fd;
}

/* Gives the end that the command is to inherit; -1: its guest calls by itself. */
static int open_channel(struct start *s) {
    s->is_listening = s->path != NULL;
    if (s->is_listening) {
        s->channel = listening_at(s->path);
        return -1;
    }
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) die("socketpair");
    s->channel = pair[0];
    return pair[1];
}

/* Takes the guest's call; what it says wakes the loop again, as in the launcher. */
static void answer(struct start *s, int epoll) {
    int caller = accept4(s->channel, NULL, NULL, SOCK_CLOEXEC);
    if (caller < 0) return;
    close(s->channel);
    s->channel = caller;
    s->is_listening = 0;
    watch(epoll, caller, s, 0);
}

/* Handles one event; returns 1 when it was an end. */
static int handle(struct start *s, int is_exit, int64_t now, int epoll) {
    char buffer[4096];
    struct rusage usage;
    if (is_exit) {
        if (wait4(s->pid, NULL, WNOHANG, &usage) != s->pid) return 0;
        s->exit_seen_at_ns = now;
        close(s->pidfd);
        close(s->channel);
        return 1;
    }
    if (s->is_listening) {
        answer(s, epoll);
        return 0;
    }
    if (recv(s->channel, buffer, sizeof buffer, MSG_DONTWAIT) > 0) {
        s->first_byte_at_ns = now;
        send(s->channel, STOP, sizeof STOP, MSG_NOSIGNAL);
    }
    epoll_ctl(epoll, EPOLL_CTL_DEL, s->channel, NULL);
    return 0;
}

static void run_group(struct start *group, int count, int null) {
    int theirs[STARTS_MAX], epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0) die("epoll_create1");
    for (int i = 0; i < count; i++) {
        theirs[i] = open_channel(&group[i]);
        group[i].first_byte_at_ns = -1;
        watch(epoll, group[i].channel, &group[i], 0);
    }
    int64_t released_at_ns = now_ns();
    for (int i = 0; i < count; i++) launch(&group[i], theirs[i], null, epoll);
    for (int left = count; left > 0;) {
        struct epoll_event events[64];
        int ready = epoll_wait(epoll, events, 64, TIMEOUT_MS);
        int64_t now = now_ns();
        if (ready < 0 && errno == EINTR) continue;
        if (ready <= 0) {
            fprintf(stderr, "spawn_wait: %d commands did not end in time\n", left);
            for (int i = 0; i < count; i++)
                if (!group[i].exit_seen_at_ns) kill(group[i].pid, SIGKILL);
            exit(1);
        }
        /* First what they said, then their ends: both may have come in one wake-up. */
        for (int is_exit = 0; is_exit < 2; is_exit++)
            for (int i = 0; i < ready; i++)
                if ((int)(events[i].data.u64 & 1) == is_exit)
                    left -= handle((struct start *)(uintptr_t)(events[i].data.u64 & ~1ull),
                                   is_exit, now, epoll);
    }
    close(epoll);
    for (int i = 0; i < count; i++) {
        struct start *s = &group[i];
        int64_t first = s->first_byte_at_ns < 0 ? -1 : s->first_byte_at_ns - released_at_ns;
        printf("%lld %lld\n", (long long)first, (long long)(s->exit_seen_at_ns - released_at_ns));
    }
}

int main(int argc, char **argv) {
    int concurrency = argc > 1 ? atoi(argv[1]) : 0;
    int count = parse(argc, argv);
    if (concurrency < 1 || count < 1) {
        fprintf(stderr, "usage: spawn_wait CONCURRENCY (-- CGROUPS CHANNEL COMMAND...)...\n");
        return 2;
    }
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0) die("/dev/null");
    /* Out of the way of the numbers that children are given. */
    int moved = fcntl(null, F_DUPFD_CLOEXEC, 16);
    int low = open("/dev/null", O_RDWR | O_CLOEXEC);
    while (low >= 0 && low < 16) low = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int first = 0; first < count; first += concurrency)
        run_group(&starts[first], count - first < concurrency ? count - first : concurrency, moved);
    return 0;
}
