/* Signal descriptors: two masks, a signal that waits to be read through each, and an epoll set that watches one. */
#include "guest.h"

#include <sys/epoll.h>
#include <sys/signalfd.h>

static int users, realtime, epoll;

static void send_both(void)
{
    union sigval value = {.sival_int = 4711};
    must(kill(getpid(), SIGUSR1), "kill");
    must(sigqueue(getpid(), SIGRTMIN + 3, value), "sigqueue");
}

static void set_up(void)
{
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    sigaddset(&mask, SIGUSR2);
    users = must(signalfd(-1, &mask, SFD_NONBLOCK), "signalfd");
    must(sigprocmask(SIG_BLOCK, &mask, NULL), "sigprocmask");
    sigemptyset(&mask);
    sigaddset(&mask, SIGRTMIN + 3);
    realtime = must(signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC), "signalfd");
    must(sigprocmask(SIG_BLOCK, &mask, NULL), "sigprocmask");
    epoll = must(epoll_create1(0), "epoll_create1");
    must(epoll_ctl(epoll, EPOLL_CTL_ADD, users, &(struct epoll_event){EPOLLIN, {.u64 = 5}}), "epoll_ctl");
    send_both();
}

static void check(void)
{
    struct signalfd_siginfo got;
    struct epoll_event event;
    expect(1, must(epoll_wait(epoll, &event, 1, 0), "epoll_wait"), "signals ready in the epoll set");
    expect(sizeof got, must(read(users, &got, sizeof got), "read of the signalfd"), "bytes");
    expect(SIGUSR1, got.ssi_signo, "signal");
    expect(getpid(), got.ssi_pid, "sender");
    expect_error(EAGAIN, read(users, &got, sizeof got), "second read of the signalfd");
    expect(0, must(epoll_wait(epoll, &event, 1, 0), "epoll_wait"), "signals ready after the read");
    expect(sizeof got, must(read(realtime, &got, sizeof got), "read of the signalfd"), "bytes");
    expect(SIGRTMIN + 3, got.ssi_signo, "real-time signal");
    expect(4711, got.ssi_int, "value of the real-time signal");
    expect(FD_CLOEXEC, fcntl(realtime, F_GETFD), "close-on-exec");

    /* A descriptor reads only what its own mask holds. */
    must(kill(getpid(), SIGUSR2), "kill");
    expect_error(EAGAIN, read(realtime, &got, sizeof got), "read of a signal outside of the mask");
    expect(sizeof got, must(read(users, &got, sizeof got), "read of the signalfd"), "bytes");
    expect(SIGUSR2, got.ssi_signo, "second signal");
    send_both();
}

const struct item item_signalfds = {.name = "signalfds", .set_up = set_up, .check = check};
