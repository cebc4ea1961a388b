/* Sleeping threads: `sleeps` has naps of 400 ms by several calls and clocks, over and over; `sleeps-long` has sleeps
 * of an hour, which must still last, and which a signal ends with the right time left. */
#include "guest.h"

enum { NAP_MS = 400 };

static long nap(struct sitter *sitter)
{
    clockid_t clock = sitter->descriptor;
    int flags = sitter->other;
    int64_t begin_ns = clock_ns(clock), end_ns = NAP_MS * 1000000ll + (flags ? begin_ns : 0);
    struct timespec limit = {end_ns / 1000000000, end_ns % 1000000000};
    int error = clock_nanosleep(clock, flags, &limit, NULL);
    int64_t took_ms = (clock_ns(clock) - begin_ns) / 1000000;
    if (took_ms < NAP_MS - 1)
        complain("%s: expected at least %d ms, got %ld", sitter->what, NAP_MS, (long)took_ms);
    errno = error;
    return error ? -1 : 0;
}

static long old_nap(struct sitter *sitter)
{
    (void)sitter;
    return nanosleep(&(struct timespec){0, NAP_MS * 1000000}, NULL);
}

static struct sitter naps[] = {
    {.what = "nanosleep", .sit = old_nap},
    {.what = "relative sleep", .sit = nap, .descriptor = CLOCK_MONOTONIC},
    {.what = "absolute sleep", .sit = nap, .descriptor = CLOCK_MONOTONIC, .other = TIMER_ABSTIME},
    {.what = "real-time sleep", .sit = nap, .descriptor = CLOCK_REALTIME, .other = TIMER_ABSTIME},
    {.what = "boot-time sleep", .sit = nap, .descriptor = CLOCK_BOOTTIME},
};

static void set_up(void)
{
    sitters_start(naps, COUNT(naps));
}

static void check(void)
{
    sitters_check(naps, COUNT(naps));
}

const struct item item_sleeps = {.name = "sleeps", .set_up = set_up, .check = check};

/* Sleeps for an hour by monotonic time and compares what is left with what the clock says. */
static long sleep_long(struct sitter *sitter)
{
    struct timespec left = {0};
    int64_t begun_ns = clock_ns(CLOCK_MONOTONIC);
    long result = nanosleep(&(struct timespec){HOUR_S, 0}, &left);
    int error = errno;
    long took_ms = (clock_ns(CLOCK_MONOTONIC) - begun_ns) / 1000000;
    long left_ms = left.tv_sec * 1000 + left.tv_nsec / 1000000;
    if (labs(took_ms + left_ms - HOUR_S * 1000l) > 2000)
        complain("%s: expected %ld ms left, got %ld", sitter->what, HOUR_S * 1000l - took_ms, left_ms);
    errno = error;
    return result;
}

static long sleep_absolute(struct sitter *sitter)
{
    (void)sitter;
    int64_t begun_ns = clock_ns(CLOCK_MONOTONIC);
    int error = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME,
                                &(struct timespec){begun_ns / 1000000000 + HOUR_S, 0}, NULL);
    errno = error;
    return error ? -1 : 0;
}

static void interrupt(struct sitter *sitter)
{
    must_thread(pthread_kill(sitter->thread, SIGUSR1), "pthread_kill");
}

static void ignore(int number)
{
    (void)number;
}

static struct sitter sleepers[] = {
    {.what = "sleep of an hour", .sit = sleep_long, .wake = interrupt, .result = -1, .error = EINTR},
    {.what = "absolute sleep of an hour", .sit = sleep_absolute, .wake = interrupt, .result = -1, .error = EINTR},
};

static void set_up_long(void)
{
    must(sigaction(SIGUSR1, &(struct sigaction){.sa_handler = ignore}, NULL), "sigaction");
    sitters_start(sleepers, COUNT(sleepers));
}

static void check_long(void)
{
    sitters_check(sleepers, COUNT(sleepers));
}

const struct item item_sleeps_long = {.name = "sleeps-long", .set_up = set_up_long, .check = check_long};
