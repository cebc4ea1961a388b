/* Raw futex waits: `futexes` has threads wait without a limit, with an hour to go (relative, absolute by two
 * clocks), by a shared word and for several words at once; `futex-limits` has waits whose time is up every 300 ms.
 * The first must end by being woken and by nothing else, the second by ETIMEDOUT and not early. */
#include "guest.h"

#include <limits.h>
#include <linux/futex.h>

enum { WAITS_MS = 300 };

static long futex(_Atomic int *word, int operation, int value, const struct timespec *limit)
{
    return syscall(SYS_futex, word, operation, value, limit, NULL, FUTEX_BITSET_MATCH_ANY);
}

static struct timespec in_ms(clockid_t clock, long duration_ms)
{
    int64_t end_ns = clock_ns(clock) + duration_ms * 1000000ll;
    return (struct timespec){end_ns / 1000000000, end_ns % 1000000000};
}

static long forever(struct sitter *sitter)
{
    return futex(sitter->memory, FUTEX_WAIT_PRIVATE, 0, NULL);
}

static long shared(struct sitter *sitter)
{
    return futex(sitter->memory, FUTEX_WAIT, 0, NULL);
}

static long relative(struct sitter *sitter)
{
    return futex(sitter->memory, FUTEX_WAIT_PRIVATE, 0, &(struct timespec){HOUR_S, 0});
}

static long monotonic(struct sitter *sitter)
{
    struct timespec limit = in_ms(CLOCK_MONOTONIC, HOUR_S * 1000l);
    return futex(sitter->memory, FUTEX_WAIT_BITSET_PRIVATE, 0, &limit);
}

static long realtime(struct sitter *sitter)
{
    struct timespec limit = in_ms(CLOCK_REALTIME, HOUR_S * 1000l);
    return futex(sitter->memory, FUTEX_WAIT_BITSET_PRIVATE | FUTEX_CLOCK_REALTIME, 0, &limit);
}

static long several(struct sitter *sitter)
{
    static _Atomic int other;
    struct futex_waitv waits[2] = {
        {.uaddr = (uintptr_t)&other, .flags = FUTEX_32 | FUTEX_PRIVATE_FLAG},
        {.uaddr = (uintptr_t)sitter->memory, .flags = FUTEX_32 | FUTEX_PRIVATE_FLAG},
    };
    return syscall(SYS_futex_waitv, waits, 2, 0, NULL, CLOCK_MONOTONIC);
}

static void wake(struct sitter *sitter)
{
    expect(1, futex(sitter->memory, FUTEX_WAKE_PRIVATE, INT_MAX, NULL), "%s: threads woken", sitter->what);
}

static void wake_shared(struct sitter *sitter)
{
    expect(1, futex(sitter->memory, FUTEX_WAKE, INT_MAX, NULL), "%s: threads woken", sitter->what);
}

static _Atomic int words[6];
static struct sitter sitters[] = {
    {.what = "wait without limit", .sit = forever, .wake = wake, .memory = &words[0]},
    {.what = "wait at a shared word", .sit = shared, .wake = wake_shared, .memory = &words[1]},
    {.what = "wait with a relative limit", .sit = relative, .wake = wake, .memory = &words[2]},
    {.what = "wait with a monotonic limit", .sit = monotonic, .wake = wake, .memory = &words[3]},
    {.what = "wait with a real-time limit", .sit = realtime, .wake = wake, .memory = &words[4]},
    {.what = "wait for two words", .sit = several, .wake = wake, .memory = &words[5], .result = 1},
};

static void set_up(void)
{
    sitters_start(sitters, COUNT(sitters));
}

static void check(void)
{
    sitters_check(sitters, COUNT(sitters));
}

const struct item item_futexes = {.name = "futexes", .set_up = set_up, .check = check};

static _Atomic int never;

/* Makes one limited wait and complains if it ended early; late is right when the snapshot is old. */
static long limited_wait(int operation, const struct timespec *limit)
{
    int64_t begin_ns = clock_ns(CLOCK_MONOTONIC);
    long result = futex(&never, operation, 0, limit);
    int error = errno;
    int64_t took_ms = (clock_ns(CLOCK_MONOTONIC) - begin_ns) / 1000000;
    if (took_ms < WAITS_MS - 1)
        complain("limited wait: expected %d ms, got %ld", WAITS_MS, (long)took_ms);
    errno = error;
    return result;
}

static long relative_limit(struct sitter *sitter)
{
    (void)sitter;
    return limited_wait(FUTEX_WAIT_PRIVATE, &(struct timespec){0, WAITS_MS * 1000000});
}

static long absolute_limit(struct sitter *sitter)
{
    (void)sitter;
    struct timespec limit = in_ms(CLOCK_MONOTONIC, WAITS_MS);
    return limited_wait(FUTEX_WAIT_BITSET_PRIVATE, &limit);
}

static struct sitter limited[] = {
    {.what = "relative limit", .sit = relative_limit, .result = -1, .error = ETIMEDOUT},
    {.what = "absolute limit", .sit = absolute_limit, .result = -1, .error = ETIMEDOUT},
};

static void set_up_limits(void)
{
    sitters_start(limited, COUNT(limited));
}

static void check_limits(void)
{
    sitters_check(limited, COUNT(limited));
}

const struct item item_futex_limits = {.name = "futex-limits", .set_up = set_up_limits, .check = check_limits};
