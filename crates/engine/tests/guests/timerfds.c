/* Timer descriptors: far ones (relative, absolute, periodic), a disarmed one, one with unread expirations, and a fast
 * one. Time left, intervals, clocks and unread counts must come back; monotonic time goes on where it stood. */
#include "guest.h"

#include <sys/timerfd.h>

static int far, absolute, periodic, disarmed, expired, fast;
static int64_t far_end_ns, absolute_end_ns;

static void arm(int descriptor, int flags, int64_t value_ns, int64_t interval_ns)
{
    struct itimerspec spec = {.it_value = {value_ns / 1000000000, value_ns % 1000000000},
                              .it_interval = {interval_ns / 1000000000, interval_ns % 1000000000}};
    must(timerfd_settime(descriptor, flags, &spec, NULL), "timerfd_settime");
}

/* Lets a one-shot timer expire and leaves the expiration unread. */
static void make_expired(void)
{
    arm(expired, 0, 1000000, 0);
    sleep_ms(20);
}

static void set_up(void)
{
    far = must(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC), "timerfd_create");
    absolute = must(timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK), "timerfd_create");
    periodic = must(timerfd_create(CLOCK_BOOTTIME, 0), "timerfd_create");
    disarmed = must(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK), "timerfd_create");
    expired = must(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK), "timerfd_create");
    fast = must(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK), "timerfd_create");
    far_end_ns = clock_ns(CLOCK_MONOTONIC) + HOUR_S * 1000000000ll;
    arm(far, 0, HOUR_S * 1000000000ll, 0);
    absolute_end_ns = clock_ns(CLOCK_REALTIME) + 2 * HOUR_S * 1000000000ll;
    arm(absolute, TFD_TIMER_ABSTIME, absolute_end_ns, 0);
    arm(periodic, 0, HOUR_S * 1000000000ll, 1234567890);
    arm(fast, 0, 20000000, 20000000);
    make_expired();
}

static int64_t left_ns(int descriptor, int64_t *interval_ns)
{
    struct itimerspec spec;
    must(timerfd_gettime(descriptor, &spec), "timerfd_gettime");
    if (interval_ns)
        *interval_ns = spec.it_interval.tv_sec * 1000000000ll + spec.it_interval.tv_nsec;
    return spec.it_value.tv_sec * 1000000000ll + spec.it_value.tv_nsec;
}

static void expect_end(int64_t end_ns, clockid_t clock, int descriptor, const char *what)
{
    int64_t error_ns = clock_ns(clock) + left_ns(descriptor, NULL) - end_ns;
    expect_between(-1000, 1000, error_ns / 1000000, what);
}

static void check(void)
{
    uint64_t count = 0;
    int64_t interval_ns = 0;
    expect_end(far_end_ns, CLOCK_MONOTONIC, far, "far timer: error of its end in ms");
    expect_end(absolute_end_ns, CLOCK_REALTIME, absolute, "absolute timer: error of its end in ms");
    expect_between(HOUR_S / 2, HOUR_S, left_ns(periodic, &interval_ns) / 1000000000, "periodic timer: seconds left");
    expect(1234567890, interval_ns, "periodic timer: interval");
    expect(0, left_ns(disarmed, NULL), "disarmed timer: time left");
    expect_error(EAGAIN, read(disarmed, &count, 8), "read of a disarmed timer");
    expect_error(EAGAIN, read(absolute, &count, 8), "read of a timer that did not expire");
    expect(FD_CLOEXEC, fcntl(far, F_GETFD), "close-on-exec");
    expect(0, fcntl(far, F_GETFL) & O_NONBLOCK, "flags of the far timer");
    expect(O_NONBLOCK, fcntl(fast, F_GETFL) & O_NONBLOCK, "flags of the fast timer");

    expect(8, must(read(expired, &count, 8), "read of an expired timer"), "expired timer: bytes");
    expect(1, count, "expired timer: expirations");
    expect(0, left_ns(expired, NULL), "expired timer: time left");
    make_expired();

    /* Whatever was unread is read first; then the timer must go on ticking. */
    expect(8, must(read(fast, &count, 8), "read of the fast timer"), "fast timer: bytes");
    expect_between(1, HOUR_S * 50l, count, "fast timer: expirations");
    sleep_ms(200);
    expect(8, must(read(fast, &count, 8), "read of the fast timer"), "fast timer: bytes");
    expect_between(5, 1000, count, "fast timer: expirations in 200 ms");
    expect_between(0, 20000000, left_ns(fast, &interval_ns), "fast timer: time left");
    expect(20000000, interval_ns, "fast timer: interval");
    sleep_ms(30);
}

const struct item item_timerfds = {.name = "timerfds", .set_up = set_up, .check = check};
