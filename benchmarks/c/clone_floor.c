/* What the kernel takes to make a process with namespaces of its own, and nothing else.
 *
 *   clone_floor COUNT KINDS
 *
 * KINDS are letters: m mount, p pid, u UTS, i IPC, n network ("-": none). Makes COUNT children, one
 * after another, that share this process's memory while they live, read the clock first and end.
 * Prints one line each: nanoseconds from before the clone to the child's first instruction. Then it
 * waits a little for what the kernel removes behind the last child. Needs root.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STACK_BYTES 65536
#define COUNT_MAX 100000
/* Namespaces are torn down behind a child that has ended; the next one is not to wait for it. */
#define PAUSE_NS 2000000

static _Alignas(16) char stack[STACK_BYTES];

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int child(void *argument) {
    *(volatile int64_t *)argument = now_ns();
    _exit(0);
}

static int flags_of(const char *kinds) {
    static const char letters[] = "mpuin";
    static const int flags[] = {CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWNET};
    int all = 0;
    if (!strcmp(kinds, "-")) return 0;
    for (; *kinds; kinds++) {
        const char *found = strchr(letters, *kinds);
        if (!found) return -1;
        all |= flags[found - letters];
    }
    return all;
}

int main(int argc, char **argv) {
    int count = argc == 3 ? atoi(argv[1]) : 0;
    int flags = argc == 3 ? flags_of(argv[2]) : -1;
    if (count < 1 || count > COUNT_MAX || flags < 0) {
        fprintf(stderr, "usage: clone_floor COUNT KINDS (of mpuin, or -)\n");
        return 2;
    }
    for (int i = 0; i < count; i++) {
        volatile int64_t born_at_ns = 0;
        struct timespec pause = {.tv_nsec = PAUSE_NS};
        int64_t invoked_at_ns = now_ns();
        pid_t pid = clone(child, stack + STACK_BYTES, CLONE_VM | CLONE_VFORK | SIGCHLD | flags,
                          (void *)&born_at_ns);
        if (pid < 0 || waitpid(pid, NULL, 0) != pid) {
            perror("clone_floor");
            return 1;
        }
        printf("%lld\n", (long long)(born_at_ns - invoked_at_ns));
        nanosleep(&pause, NULL);
    }
    return 0;
}
