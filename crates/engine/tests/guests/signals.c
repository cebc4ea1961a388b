/* Signals: `signals-pending` holds queued signals of the process and of a thread, with their values and their order;
 * `signals-handled` holds handlers with flags and masks, ignored signals, the blocked mask and the alternate stack. */
#include "guest.h"

static void queue_all(void)
{
    must(kill(getpid(), SIGUSR1), "kill");
    for (int i = 0; i < 20; i++)
        must(sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = 100 + i}), "sigqueue");
    must(sigqueue(getpid(), SIGRTMIN + 2, (union sigval){.sival_ptr = (void *)0x123456789abcdef0}), "sigqueue");
    must(tgkill(getpid(), gettid(), SIGUSR2), "tgkill");
    must_thread(pthread_sigqueue(pthread_self(), SIGRTMIN + 1, (union sigval){.sival_int = 7}), "pthread_sigqueue");
}

static void set_up_pending(void)
{
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    sigaddset(&mask, SIGUSR2);
    sigaddset(&mask, SIGRTMIN + 1);
    sigaddset(&mask, SIGRTMIN + 2);
    must(sigprocmask(SIG_BLOCK, &mask, NULL), "sigprocmask");
    queue_all();
}

static siginfo_t take(int number, int code)
{
    siginfo_t info;
    sigset_t mask;
    struct timespec none = {0, 0};
    sigemptyset(&mask);
    sigaddset(&mask, number);
    /* The raw call, because glibc turns SI_TKILL into SI_USER. */
    expect(number, syscall(SYS_rt_sigtimedwait, &mask, &info, &none, 8), "pending signal %d", number);
    expect(code, info.si_code, "code of signal %d", number);
    expect(getpid(), info.si_pid, "sender of signal %d", number);
    expect(getuid(), info.si_uid, "user of signal %d", number);
    return info;
}

static void check_pending(void)
{
    char own[64], all[64];
    status_value("SigPnd", own, sizeof own);
    status_value("ShdPnd", all, sizeof all);
    unsigned long common = 1ul << SIGRTMIN; /* Bit of SIGRTMIN + 1. */
    expect(1ul << (SIGUSR2 - 1) | common, strtoul(own, NULL, 16), "signals that wait for the thread");
    expect(1ul << (SIGUSR1 - 1) | common | common << 1, strtoul(all, NULL, 16), "signals that wait for the process");

    take(SIGUSR1, SI_USER);
    take(SIGUSR2, SI_TKILL);
    /* A thread's own queue comes before that of the process. */
    expect(7, take(SIGRTMIN + 1, SI_QUEUE).si_int, "value of the thread's signal");
    for (int i = 0; i < 20; i++)
        expect(100 + i, take(SIGRTMIN + 1, SI_QUEUE).si_int, "value of signal %d in its queue", i);
    expect(0x123456789abcdef0, (long)take(SIGRTMIN + 2, SI_QUEUE).si_ptr, "pointer of the signal");
    status_value("SigPnd", own, sizeof own);
    status_value("ShdPnd", all, sizeof all);
    expect(0, strtoul(own, NULL, 16), "signals left for the thread");
    expect(0, strtoul(all, NULL, 16), "signals left for the process");
    queue_all();
}

const struct item item_signals_pending = {
    .name = "signals-pending", .set_up = set_up_pending, .check = check_pending};

static char stack[64 * 1024];
static volatile sig_atomic_t informed_value, on_stack, nested_blocked, plain_count;

static void informed(int number, siginfo_t *info, void *context)
{
    char here;
    sigset_t mask;
    (void)number, (void)context;
    informed_value = info->si_int;
    on_stack = &here >= stack && &here < stack + sizeof stack;
    sigprocmask(SIG_BLOCK, NULL, &mask);
    nested_blocked = sigismember(&mask, SIGHUP) == 1 && sigismember(&mask, SIGUSR1) == 0;
}

static void plain(int number)
{
    (void)number;
    plain_count++;
}

static void set_up_handled(void)
{
    struct sigaction action = {.sa_sigaction = informed, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    sigset_t mask;
    sigaddset(&action.sa_mask, SIGHUP);
    must(sigaction(SIGUSR1, &action, NULL), "sigaction");
    must(sigaction(SIGUSR2, &(struct sigaction){.sa_handler = plain, .sa_flags = SA_RESTART}, NULL), "sigaction");
    must(sigaction(SIGTERM, &(struct sigaction){.sa_handler = SIG_IGN}, NULL), "sigaction");
    must(sigaction(SIGRTMAX, &(struct sigaction){.sa_handler = plain, .sa_flags = SA_RESTART}, NULL), "sigaction");
    must(sigaltstack(&alternate, NULL), "sigaltstack");
    sigemptyset(&mask);
    sigaddset(&mask, SIGWINCH);
    sigaddset(&mask, SIGRTMIN + 9);
    must(sigprocmask(SIG_SETMASK, &mask, NULL), "sigprocmask");
}

static void check_handled(void)
{
    const int flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    stack_t alternate;
    struct sigaction action;
    sigset_t mask;
    must(sigprocmask(SIG_BLOCK, NULL, &mask), "sigprocmask");
    for (int i = 1; i < NSIG; i++)
        if (i != 32 && i != 33)
            expect(i == SIGWINCH || i == SIGRTMIN + 9, sigismember(&mask, i), "signal %d blocked", i);
    must(sigaltstack(NULL, &alternate), "sigaltstack");
    expect((long)stack, (long)alternate.ss_sp, "place of the alternate stack");
    expect(sizeof stack, alternate.ss_size, "size of the alternate stack");
    must(sigaction(SIGUSR1, NULL, &action), "sigaction");
    expect(flags, action.sa_flags & flags, "flags of the handler");
    must(sigaction(SIGTERM, NULL, &action), "sigaction");
    expect((long)SIG_IGN, (long)action.sa_handler, "SIGTERM ignored");
    must(sigaction(SIGINT, NULL, &action), "sigaction");
    expect((long)SIG_DFL, (long)action.sa_handler, "SIGINT left alone");

    int before = plain_count;
    must(sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 31}), "sigqueue");
    expect(31, informed_value, "value in the handler");
    expect(1, on_stack, "handler on the alternate stack");
    expect(1, nested_blocked, "mask in the handler");
    must(raise(SIGUSR2), "raise");
    must(raise(SIGRTMAX), "raise");
    must(raise(SIGTERM), "raise");
    expect(before + 2, plain_count, "calls of the plain handler");
    informed_value = on_stack = nested_blocked = 0;
}

const struct item item_signals_handled = {
    .name = "signals-handled", .set_up = set_up_handled, .check = check_handled};
