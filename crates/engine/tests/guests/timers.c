/* Timers that send signals: `itimers` (real, virtual, profiling), `timer-ticks` (a fast one that goes on ticking),
 * `posix-timers` (numbers with a gap, kinds of notice, an overrun). Time left, intervals and numbers must come back. */
#include "guest.h"

#include <sys/time.h>

static void set_up_itimers(void)
{
    struct itimerval real = {.it_interval = {77, 5000}, .it_value = {HOUR_S, 0}};
    struct itimerval virtual = {.it_interval = {0, 0}, .it_value = {1000, 0}};
    struct itimerval profile = {.it_interval = {33, 0}, .it_value = {2000, 0}};
    must(setitimer(ITIMER_REAL, &real, NULL), "setitimer");
    must(setitimer(ITIMER_VIRTUAL, &virtual, NULL), "setitimer");
    must(setitimer(ITIMER_PROF, &profile, NULL), "setitimer");
}

static void check_itimers(void)
{
    struct itimerval got;
    must(getitimer(ITIMER_REAL, &got), "getitimer");
    expect_between(HOUR_S / 2, HOUR_S, got.it_value.tv_sec, "real timer: seconds left");
    expect(77005000, got.it_interval.tv_sec * 1000000 + got.it_interval.tv_usec, "real timer: interval");
    must(getitimer(ITIMER_VIRTUAL, &got), "getitimer");
    expect_between(900, 1000, got.it_value.tv_sec, "virtual timer: seconds left");
    expect(0, got.it_interval.tv_sec, "virtual timer: interval");
    must(getitimer(ITIMER_PROF, &got), "getitimer");
    expect_between(1900, 2000, got.it_value.tv_sec, "profiling timer: seconds left");
    expect(33, got.it_interval.tv_sec, "profiling timer: interval");
}

const struct item item_itimers = {.name = "itimers", .set_up = set_up_itimers, .check = check_itimers};

static _Atomic int ticks;

static void tick(int number)
{
    (void)number;
    atomic_fetch_add(&ticks, 1);
}

static void set_up_ticks(void)
{
    struct itimerval fast = {.it_interval = {0, 10000}, .it_value = {0, 10000}};
    must(sigaction(SIGALRM, &(struct sigaction){.sa_handler = tick, .sa_flags = SA_RESTART}, NULL), "sigaction");
    must(setitimer(ITIMER_REAL, &fast, NULL), "setitimer");
}

static void check_ticks(void)
{
    struct itimerval got;
    await(&ticks, atomic_load(&ticks) + 20, "twenty ticks");
    must(getitimer(ITIMER_REAL, &got), "getitimer");
    expect(10000, got.it_interval.tv_usec, "interval");
}

const struct item item_timer_ticks = {.name = "timer-ticks", .set_up = set_up_ticks, .check = check_ticks};

/* Raw calls: the numbers of the kernel are what must come back, and glibc hides them. */
static int numbers[6];

static int create(clockid_t clock, struct sigevent *event)
{
    int number = -1;
    must(syscall(SYS_timer_create, clock, event, &number), "timer_create");
    return number;
}

static void arm(int number, int64_t value_ns, int64_t interval_ns)
{
    struct itimerspec spec = {.it_value = {value_ns / 1000000000, value_ns % 1000000000},
                              .it_interval = {interval_ns / 1000000000, interval_ns % 1000000000}};
    must(syscall(SYS_timer_settime, number, 0, &spec, NULL), "timer_settime");
}

static void set_up_posix(void)
{
    struct sigevent to_process = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 4};
    struct sigevent to_thread = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN + 5};
    struct sigevent silent = {.sigev_notify = SIGEV_NONE};
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGRTMIN + 4);
    sigaddset(&mask, SIGRTMIN + 5);
    must(sigprocmask(SIG_BLOCK, &mask, NULL), "sigprocmask");
    to_process.sigev_value.sival_ptr = (void *)0x1122334455667788;
    to_thread.sigev_value.sival_int = 99;
    to_thread._sigev_un._tid = gettid();
    for (int i = 0; i < 6; i++)
        numbers[i] = create(i == 2 ? CLOCK_REALTIME : CLOCK_MONOTONIC,
                            i == 3   ? &to_thread
                            : i == 5 ? &silent
                                     : &to_process);
    must(syscall(SYS_timer_delete, numbers[0]), "timer_delete");
    must(syscall(SYS_timer_delete, numbers[4]), "timer_delete");
    arm(numbers[1], HOUR_S * 1000000000ll, 0);
    arm(numbers[2], HOUR_S * 1000000000ll, 5000000000);
    arm(numbers[3], 20000000, 20000000);
    arm(numbers[5], HOUR_S * 1000000000ll, 0);
}

static struct itimerspec left(int number)
{
    struct itimerspec spec;
    must(syscall(SYS_timer_gettime, number, &spec), "timer_gettime");
    return spec;
}

static void expect_notice(int signal_number, siginfo_t *info, const char *what)
{
    sigset_t mask;
    struct timespec patience = {PATIENCE_MS / 1000, 0};
    sigemptyset(&mask);
    sigaddset(&mask, signal_number);
    expect(signal_number, sigtimedwait(&mask, info, &patience), "%s", what);
    expect(SI_TIMER, info->si_code, "%s: code", what);
}

static void check_posix(void)
{
    struct itimerspec spec;
    siginfo_t info;
    expect_error(EINVAL, syscall(SYS_timer_gettime, numbers[0], &spec), "timer_gettime of a deleted timer");
    expect_error(EINVAL, syscall(SYS_timer_gettime, numbers[4], &spec), "timer_gettime of a deleted timer");
    expect_between(HOUR_S / 2, HOUR_S, left(numbers[1]).it_value.tv_sec, "first timer: seconds left");
    expect_between(HOUR_S / 2, HOUR_S, left(numbers[2]).it_value.tv_sec, "second timer: seconds left");
    expect(5, left(numbers[2]).it_interval.tv_sec, "second timer: interval");
    expect_between(HOUR_S / 2, HOUR_S, left(numbers[5]).it_value.tv_sec, "silent timer: seconds left");

    /* The fast one goes on with its signal blocked: one signal is queued, the rest are overruns. */
    expect_notice(SIGRTMIN + 5, &info, "notice to the thread");
    sleep_ms(200);
    expect_notice(SIGRTMIN + 5, &info, "notice to the thread");
    expect(99, info.si_int, "value of the notice to the thread");
    expect(numbers[3], info.si_timerid, "timer of the notice to the thread");
    expect_between(3, 10000, info.si_overrun, "overruns in 200 ms");
    expect_between(3, 10000, syscall(SYS_timer_getoverrun, numbers[3]), "overruns by the call");

    arm(numbers[1], 1000000, 0);
    expect_notice(SIGRTMIN + 4, &info, "notice to the process");
    expect(0x1122334455667788, (long)info.si_ptr, "value of the notice to the process");
    expect(numbers[1], info.si_timerid, "timer of the notice to the process");
    arm(numbers[1], HOUR_S * 1000000000ll, 0);
    /* A new timer must not be given a number that is in use. */
    int fresh = create(CLOCK_MONOTONIC, NULL);
    for (int i = 1; i < 6; i++)
        if (i != 4 && fresh == numbers[i])
            bad("number of a new timer: expected an unused one, got %d", fresh);
    must(syscall(SYS_timer_delete, fresh), "timer_delete");
}

const struct item item_posix_timers = {.name = "posix-timers", .set_up = set_up_posix, .check = check_posix};
