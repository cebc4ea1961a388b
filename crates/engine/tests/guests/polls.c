/* Threads that wait for descriptors: `polls` (poll, ppoll, select, pselect, epoll_wait, epoll_pwait2, without a limit
 * and with an hour's), `poll-limits` (the same with 300 ms, over and over). What is ready ends the first, time the
 * second; a restore ends neither. */
#include "guest.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>

enum { LIMIT_MS = 300 };

/* Each call waits for its sitter's counter, then empties it. */
static long consume(struct sitter *sitter, long result)
{
    uint64_t count;
    int error = errno;
    if (result > 0 && read(sitter->descriptor, &count, 8) != 8)
        complain("%s: expected a count, got %s", sitter->what, strerror(errno));
    errno = error;
    return result;
}

static long by_poll(struct sitter *sitter, int limit_ms)
{
    return poll(&(struct pollfd){.fd = sitter->descriptor, .events = POLLIN}, 1, limit_ms);
}

static long by_ppoll(struct sitter *sitter, int limit_ms)
{
    sigset_t mask;
    struct timespec limit = {limit_ms / 1000, limit_ms % 1000 * 1000000};
    sigfillset(&mask);
    return ppoll(&(struct pollfd){.fd = sitter->descriptor, .events = POLLIN}, 1, limit_ms < 0 ? NULL : &limit, &mask);
}

static long by_select(struct sitter *sitter, int limit_ms)
{
    fd_set set;
    struct timeval limit = {limit_ms / 1000, limit_ms % 1000 * 1000};
    FD_ZERO(&set);
    FD_SET(sitter->descriptor, &set);
    return select(sitter->descriptor + 1, &set, NULL, NULL, limit_ms < 0 ? NULL : &limit);
}

static long by_epoll(struct sitter *sitter, int limit_ms)
{
    struct epoll_event event;
    return epoll_wait(sitter->other, &event, 1, limit_ms);
}

static long by_epoll_mask(struct sitter *sitter, int limit_ms)
{
    struct epoll_event event;
    sigset_t mask;
    sigfillset(&mask);
    return epoll_pwait(sitter->other, &event, 1, limit_ms, &mask);
}

typedef long (*method)(struct sitter *, int);
static const struct {
    const char *what;
    method wait;
} methods[] = {
    {"poll", by_poll},          {"ppoll", by_ppoll},           {"select", by_select},
    {"epoll_wait", by_epoll}, {"epoll_pwait", by_epoll_mask},
};

static long without_limit(struct sitter *sitter)
{
    return consume(sitter, ((method)sitter->memory)(sitter, -1));
}

static long with_hour(struct sitter *sitter)
{
    return consume(sitter, ((method)sitter->memory)(sitter, HOUR_S * 1000));
}

static long with_limit(struct sitter *sitter)
{
    int64_t begin_ns = clock_ns(CLOCK_MONOTONIC);
    long result = ((method)sitter->memory)(sitter, LIMIT_MS);
    int error = errno;
    int64_t took_ms = (clock_ns(CLOCK_MONOTONIC) - begin_ns) / 1000000;
    if (took_ms < LIMIT_MS - 1)
        complain("%s: expected at least %d ms, got %ld", sitter->what, LIMIT_MS, (long)took_ms);
    errno = error;
    return result;
}

static void raise_counter(struct sitter *sitter)
{
    uint64_t one = 1;
    expect_written(sitter->descriptor, &one, 8, sitter->what);
}

static struct sitter sitters[2 * COUNT(methods)], limited[COUNT(methods)];

static void prepare(struct sitter *sitter, size_t index, long (*sit)(struct sitter *), void (*wake)(struct sitter *))
{
    sitter->what = methods[index].what;
    sitter->memory = (void *)methods[index].wait;
    sitter->sit = sit;
    sitter->wake = wake;
    sitter->result = wake ? 1 : 0;
    sitter->descriptor = must(eventfd(0, 0), "eventfd");
    sitter->other = must(epoll_create1(0), "epoll_create1");
    must(epoll_ctl(sitter->other, EPOLL_CTL_ADD, sitter->descriptor, &(struct epoll_event){EPOLLIN, {.u64 = 1}}),
         "epoll_ctl");
}

static void set_up(void)
{
    for (size_t i = 0; i < COUNT(methods); i++) {
        prepare(&sitters[2 * i], i, without_limit, raise_counter);
        prepare(&sitters[2 * i + 1], i, with_hour, raise_counter);
    }
    sitters_start(sitters, COUNT(sitters));
}

static void check(void)
{
    sitters_check(sitters, COUNT(sitters));
}

const struct item item_polls = {.name = "polls", .set_up = set_up, .check = check};

static void set_up_limits(void)
{
    for (size_t i = 0; i < COUNT(methods); i++)
        prepare(&limited[i], i, with_limit, NULL);
    sitters_start(limited, COUNT(limited));
}

static void check_limits(void)
{
    sitters_check(limited, COUNT(limited));
}

const struct item item_poll_limits = {.name = "poll-limits", .set_up = set_up_limits, .check = check_limits};
