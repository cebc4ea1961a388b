/* Event counters: an ordinary one, a semaphore, an empty one, and one that is full so that writes would block. */
#include "guest.h"

#include <sys/eventfd.h>

static const uint64_t full_count = UINT64_MAX - 1;
static int counter, semaphore, empty, full;

static void put(int descriptor, uint64_t count)
{
    expect_written(descriptor, &count, 8, "eventfd");
}

static void expect_count(int descriptor, uint64_t expected, const char *what)
{
    uint64_t got = 0;
    expect(8, must(read(descriptor, &got, 8), what), "%s: bytes", what);
    expect(expected, got, "%s", what);
}

static void set_up(void)
{
    counter = must(eventfd(41, EFD_CLOEXEC), "eventfd");
    put(counter, 1);
    semaphore = must(eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK), "eventfd");
    empty = must(eventfd(0, EFD_NONBLOCK), "eventfd");
    full = must(eventfd(0, EFD_NONBLOCK), "eventfd");
    put(full, full_count);
}

static void check(void)
{
    uint64_t one = 1;
    expect_count(counter, 42, "counter");
    put(counter, 42);
    for (int i = 0; i < 3; i++)
        expect_count(semaphore, 1, "semaphore");
    expect_error(EAGAIN, read(semaphore, &one, 8), "read of an exhausted semaphore");
    put(semaphore, 3);
    expect_error(EAGAIN, read(empty, &one, 8), "read of an empty counter");
    expect_error(EAGAIN, write(full, &one, 8), "write to a full counter");
    expect_count(full, full_count, "full counter");
    put(full, full_count);
    expect(FD_CLOEXEC, fcntl(counter, F_GETFD), "close-on-exec");
    expect(0, fcntl(counter, F_GETFL) & O_NONBLOCK, "flags of the counter");
    expect(O_NONBLOCK, fcntl(semaphore, F_GETFL) & O_NONBLOCK, "flags of the semaphore");
}

const struct item item_eventfds = {.name = "eventfds", .set_up = set_up, .check = check};
