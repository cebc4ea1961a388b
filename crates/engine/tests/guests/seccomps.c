/* Filters of system calls: two of the serving thread, one of which another thread inherited and added its own to.
 * They deny calls that nobody needs, which must still be denied, to children too, with the right number of filters. */
#include "guest.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static int filters;

/* Denies one call with an error of its own and allows every other. */
static long deny(int number, int error, unsigned flags)
{
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog all = {.len = COUNT(program), .filter = program};
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &all);
}

static int filters_here(void)
{
    char value[32];
    status_value("Seccomp_filters", value, sizeof value);
    return atoi(value);
}

static long sit(struct sitter *sitter)
{
    char byte;
    if (sitter->memory == NULL) {
        if (deny(SYS_getppid, EDOM, 0) != 0)
            complain("filter of a thread: expected success, got %s", strerror(errno));
        sitter->memory = sitter;
    }
    long result = read(sitter->descriptor, &byte, 1);
    errno = 0;
    if (syscall(SYS_getppid) != -1 || errno != EDOM)
        complain("call denied to a thread: expected EDOM, got %s", strerror(errno));
    errno = 0;
    if (syscall(SYS_acct, NULL) != -1 || errno != EXDEV)
        complain("call denied to all, in a thread: expected EXDEV, got %s", strerror(errno));
    return result;
}

static void wake(struct sitter *sitter)
{
    expect_written(sitter->other, "w", 1, "pipe");
}

static struct sitter sitter = {.what = "thread with a filter", .sit = sit, .wake = wake, .result = 1};

static void set_up(void)
{
    int ends[2];
    must(pipe(ends), "pipe");
    sitter.descriptor = ends[0];
    sitter.other = ends[1];
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS");
    int before = filters_here();
    if (deny(SYS_acct, EXDEV, 0) != 0)
        skip("seccomp: %s", strerror(errno));
    sitters_start(&sitter, 1);
    /* The thread now has a filter more, so this one cannot be put on all threads at once. */
    must(deny(SYS_getpgrp, EPERM, 0), "second filter");
    filters = filters_here();
    expect(before + 2, filters, "filters after two were put on");
}

static void check(void)
{
    int status;
    expect(filters, filters_here(), "filters");
    expect(2, prctl(PR_GET_SECCOMP), "mode");
    expect_error(EXDEV, syscall(SYS_acct, NULL), "call denied first");
    expect_error(EPERM, syscall(SYS_getpgrp), "call denied second");
    expect_between(0, INT32_MAX, syscall(SYS_getppid), "call denied to the other thread only");
    pid_t child = must(fork(), "fork");
    if (child == 0)
        _exit(syscall(SYS_getpgrp) == -1 && errno == EPERM ? 0 : 1);
    must(waitpid(child, &status, 0), "waitpid");
    expect(0, status, "status of a child that was denied the call");
    sitters_check(&sitter, 1);
}

const struct item item_seccomp = {.name = "seccomp", .set_up = set_up, .check = check};
