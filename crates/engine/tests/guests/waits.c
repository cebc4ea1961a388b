/* Threads that wait for signals: sigwaitinfo, sigtimedwait with an hour, sigsuspend with a mask of its own, pause.
 * Each must still wait after a restore, and end by its signal and by nothing else. */
#include "guest.h"

static long wait_information(struct sitter *sitter)
{
    sigset_t mask;
    siginfo_t information;
    sigemptyset(&mask);
    sigaddset(&mask, sitter->other);
    int number = sitter->descriptor ? sigtimedwait(&mask, &information, &(struct timespec){HOUR_S, 0})
                                    : sigwaitinfo(&mask, &information);
    return number < 0 ? -1 : information.si_value.sival_int;
}

static void send_value(struct sitter *sitter)
{
    union sigval value = {.sival_int = sitter->result};
    must_thread(pthread_sigqueue(sitter->thread, sitter->other, value), sitter->what);
}

static _Atomic int handled;

static void handle(int number)
{
    atomic_store(&handled, number);
}

static long suspend(struct sitter *sitter)
{
    sigset_t mask, before, after;
    pthread_sigmask(SIG_BLOCK, NULL, &before);
    sigfillset(&mask);
    sigdelset(&mask, sitter->other);
    long result = sigsuspend(&mask);
    int error = errno;
    pthread_sigmask(SIG_BLOCK, NULL, &after);
    if (memcmp(&before, &after, 8) != 0)
        complain("%s: expected the mask of before, got another", sitter->what);
    errno = error;
    return result;
}

static long wait_any(struct sitter *sitter)
{
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, sitter->other);
    pthread_sigmask(SIG_UNBLOCK, &mask, NULL);
    return pause();
}

static void send_plain(struct sitter *sitter)
{
    atomic_store(&handled, 0);
    must_thread(pthread_kill(sitter->thread, sitter->other), sitter->what);
    await(&handled, 1, sitter->what);
    expect(sitter->other, handled, "%s: signal handled", sitter->what);
}

static struct sitter sitters[] = {
    {.what = "sigwaitinfo", .sit = wait_information, .wake = send_value, .result = 77},
    {.what = "sigtimedwait", .sit = wait_information, .wake = send_value, .result = 78, .descriptor = 1},
    {.what = "sigsuspend", .sit = suspend, .wake = send_plain, .result = -1, .error = EINTR},
    {.what = "pause", .sit = wait_any, .wake = send_plain, .result = -1, .error = EINTR},
};

static void set_up(void)
{
    sigset_t mask;
    sigemptyset(&mask);
    for (size_t i = 0; i < COUNT(sitters); i++) {
        sitters[i].other = SIGRTMIN + 1 + i;
        sigaddset(&mask, sitters[i].other);
        must(sigaction(sitters[i].other, &(struct sigaction){.sa_handler = handle, .sa_flags = SA_RESTART}, NULL),
             "sigaction");
    }
    /* Threads inherit the mask. */
    must(sigprocmask(SIG_BLOCK, &mask, NULL), "sigprocmask");
    sitters_start(sitters, COUNT(sitters));
}

static void check(void)
{
    sitters_check(sitters, COUNT(sitters));
}

const struct item item_blocked_signals = {.name = "blocked-signals", .set_up = set_up, .check = check};
