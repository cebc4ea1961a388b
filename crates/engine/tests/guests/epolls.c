/* Epoll sets: `epolls` (members with their data, masks, a nested set, a timer), `epoll-edges` (edge-triggered,
 * one-shot and exclusive members), `epoll-dead` (a member whose number is closed while a copy of it lives). */
#include "guest.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

static int outer, inner, ready, silent, pipe_ends[2], timer;

static void add(int set, int descriptor, uint32_t mask, uint64_t data)
{
    struct epoll_event event = {mask, {.u64 = data}};
    must(epoll_ctl(set, EPOLL_CTL_ADD, descriptor, &event), "EPOLL_CTL_ADD");
}

/* Expects exactly one event, or none when `data` is zero. */
static void expect_event(int set, uint64_t data, uint32_t mask, const char *what)
{
    struct epoll_event events[8];
    int count = must(epoll_wait(set, events, 8, 0), "epoll_wait");
    expect(data ? 1 : 0, count, "%s: events", what);
    if (data) {
        expect(data, events[0].data.u64, "%s: data", what);
        expect(mask, events[0].events, "%s: mask", what);
    }
}

static void set_up(void)
{
    outer = must(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
    inner = must(epoll_create1(0), "epoll_create1");
    ready = must(eventfd(1, 0), "eventfd");
    silent = must(eventfd(0, EFD_NONBLOCK), "eventfd");
    timer = must(timerfd_create(CLOCK_MONOTONIC, 0), "timerfd_create");
    must(pipe(pipe_ends), "pipe");
    add(outer, inner, EPOLLIN, 0x1111222233334444);
    add(outer, silent, EPOLLIN, 22);
    add(outer, timer, EPOLLIN, 33);
    add(inner, ready, EPOLLIN | EPOLLRDHUP, 0xfeedfacecafebeef);
    add(inner, pipe_ends[0], EPOLLIN | EPOLLPRI, 44);
}

static void check(void)
{
    uint64_t count = 0;
    struct epoll_event event = {EPOLLIN, {.u64 = 1}};
    expect_event(outer, 0x1111222233334444, EPOLLIN, "outer set");
    expect_event(inner, 0xfeedfacecafebeef, EPOLLIN, "inner set");
    must(read(ready, &count, 8), "eventfd");
    expect_event(outer, 0, 0, "outer set with nothing ready");
    expect_written(pipe_ends[1], "x", 1, "pipe");
    expect_event(inner, 44, EPOLLIN, "inner set with a ready pipe");
    expect_event(outer, 0x1111222233334444, EPOLLIN, "outer set with a ready pipe");
    expect_read(pipe_ends[0], "x", 1, "pipe");
    expect_written(silent, &count, 8, "eventfd");
    expect_event(outer, 22, EPOLLIN, "outer set with a ready counter");
    must(read(silent, &count, 8), "eventfd");
    must(timerfd_settime(timer, 0, &(struct itimerspec){.it_value = {0, 1000}}, NULL), "timerfd_settime");
    sleep_ms(5);
    expect_event(outer, 33, EPOLLIN, "outer set with an expired timer");
    must(read(timer, &count, 8), "timerfd");
    /* What is a member cannot be added again, and what is none cannot be changed. */
    expect_error(EEXIST, epoll_ctl(inner, EPOLL_CTL_ADD, ready, &event), "second EPOLL_CTL_ADD");
    expect_error(ENOENT, epoll_ctl(inner, EPOLL_CTL_MOD, silent, &event), "EPOLL_CTL_MOD of no member");
    expect(FD_CLOEXEC, fcntl(outer, F_GETFD), "close-on-exec");
    count = 1;
    expect_written(ready, &count, 8, "eventfd");
}

const struct item item_epolls = {.name = "epolls", .set_up = set_up, .check = check};

static int set, edge[2], spent, once;

static void set_up_edges(void)
{
    set = must(epoll_create1(0), "epoll_create1");
    must(pipe2(edge, O_NONBLOCK), "pipe2");
    spent = must(eventfd(1, 0), "eventfd");
    once = must(eventfd(1, 0), "eventfd");
    add(set, spent, EPOLLIN | EPOLLONESHOT, 55);
    expect_event(set, 55, EPOLLIN, "one-shot member");
    /* Not reported yet when the checkpoint comes, so it must be reported after it, and once. */
    add(set, edge[0], EPOLLIN | EPOLLET, 66);
    expect_written(edge[1], "e", 1, "pipe");
}

static void check_edges(void)
{
    expect_event(set, 66, EPOLLIN, "unreported edge");
    expect_event(set, 0, 0, "edge and one-shot member after their report");
    expect_written(edge[1], "f", 1, "pipe");
    expect_event(set, 66, EPOLLIN, "second edge");
    expect_read(edge[0], "ef", 2, "pipe");
    /* A disabled one-shot member reports again when it is armed again. */
    struct epoll_event event = {EPOLLIN | EPOLLONESHOT, {.u64 = 77}};
    must(epoll_ctl(set, EPOLL_CTL_MOD, spent, &event), "EPOLL_CTL_MOD");
    expect_event(set, 77, EPOLLIN, "one-shot member armed again");
    expect_event(set, 0, 0, "one-shot member after its report");
    expect_written(edge[1], "e", 1, "pipe");
}

const struct item item_epoll_edges = {.name = "epoll-edges", .set_up = set_up_edges, .check = check_edges};

static int grave, corpse, twin;

static void set_up_dead(void)
{
    grave = must(epoll_create1(0), "epoll_create1");
    corpse = must(eventfd(0, EFD_NONBLOCK), "eventfd");
    twin = must(fcntl(corpse, F_DUPFD, 120), "F_DUPFD");
    add(grave, corpse, EPOLLIN, 88);
    close(corpse);
}

static void check_dead(void)
{
    uint64_t count = 1;
    expect_event(grave, 0, 0, "dead member that is not ready");
    expect_written(twin, &count, 8, "eventfd");
    expect_event(grave, 88, EPOLLIN, "dead member that is ready");
    must(read(twin, &count, 8), "eventfd");
    expect_error(EBADF, epoll_ctl(grave, EPOLL_CTL_DEL, corpse, NULL), "EPOLL_CTL_DEL of a dead member");
    /* The copy was never a member under its own number. */
    expect_error(ENOENT, epoll_ctl(grave, EPOLL_CTL_DEL, twin, NULL), "EPOLL_CTL_DEL of the copy");
}

const struct item item_epoll_dead = {.name = "epoll-dead", .set_up = set_up_dead, .check = check_dead};
