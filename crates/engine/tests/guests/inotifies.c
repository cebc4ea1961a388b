/* File watches: `inotifies` holds watches with their numbers, one of them removed; `inotify-queued` holds events that
 * nobody has read yet. New events must come with the old numbers. */
#include "guest.h"

#include <sys/inotify.h>

static int watcher, file_watch, directory_watch, file;

static void expect_watched(int descriptor, int watch, uint32_t mask, const char *name)
{
    union {
        struct inotify_event event;
        char bytes[512];
    } got;
    must(read(descriptor, &got, sizeof got), "read of the watch descriptor");
    expect(watch, got.event.wd, "watch number");
    expect(mask, got.event.mask, "event mask of watch %d", watch);
    if (name)
        expect_text(name, got.event.name, "name in the event");
}

static void set_up(void)
{
    watcher = must(inotify_init1(IN_NONBLOCK | IN_CLOEXEC), "inotify_init1");
    file = must(open(scratch("watched"), O_RDWR | O_CREAT, 0600), "open");
    must(mkdir(scratch("directory"), 0700), "mkdir");
    must(mkdir(scratch("removed"), 0700), "mkdir");
    int removed = must(inotify_add_watch(watcher, scratch("removed"), IN_CREATE), "inotify_add_watch");
    file_watch = must(inotify_add_watch(watcher, scratch("watched"), IN_MODIFY | IN_ATTRIB), "inotify_add_watch");
    directory_watch = must(inotify_add_watch(watcher, scratch("directory"), IN_CREATE | IN_DELETE | IN_ONLYDIR),
                           "inotify_add_watch");
    must(inotify_rm_watch(watcher, removed), "inotify_rm_watch");
    expect_watched(watcher, removed, IN_IGNORED, NULL);
}

static void check(void)
{
    char got[64];
    expect_error(EAGAIN, read(watcher, got, sizeof got), "read with no event");
    expect_written(file, "x", 1, "watched file");
    expect_watched(watcher, file_watch, IN_MODIFY, NULL);
    close(must(open(scratch("directory/new"), O_CREAT | O_WRONLY, 0600), "open"));
    expect_watched(watcher, directory_watch, IN_CREATE, "new");
    must(unlink(scratch("directory/new")), "unlink");
    expect_watched(watcher, directory_watch, IN_DELETE, "new");
    /* The removed watch is gone, and a watch that exists gives its number when it is asked for again. */
    close(must(open(scratch("removed/new"), O_CREAT | O_WRONLY, 0600), "open"));
    must(unlink(scratch("removed/new")), "unlink");
    expect_error(EAGAIN, read(watcher, got, sizeof got), "read after a change in a directory no longer watched");
    expect(file_watch, inotify_add_watch(watcher, scratch("watched"), IN_MODIFY | IN_ATTRIB), "number of an old watch");
    expect(FD_CLOEXEC, fcntl(watcher, F_GETFD), "close-on-exec");
}

const struct item item_inotifies = {.name = "inotifies", .set_up = set_up, .check = check};

static int queue, queue_watch;

static void make_events(void)
{
    close(must(open(scratch("queue/first"), O_CREAT | O_WRONLY, 0600), "open"));
    must(unlink(scratch("queue/first")), "unlink");
}

static void set_up_queued(void)
{
    queue = must(inotify_init1(IN_NONBLOCK), "inotify_init1");
    must(mkdir(scratch("queue"), 0700), "mkdir");
    queue_watch = must(inotify_add_watch(queue, scratch("queue"), IN_CREATE | IN_DELETE), "inotify_add_watch");
    make_events();
}

/* Reads event by event, so the buffer fits one only. */
static void expect_next(uint32_t mask)
{
    union {
        struct inotify_event event;
        char bytes[sizeof(struct inotify_event) + 16];
    } got;
    must(read(queue, &got, sizeof got), "read of a queued event");
    expect(queue_watch, got.event.wd, "watch number of a queued event");
    expect(mask, got.event.mask, "mask of a queued event");
    expect_text("first", got.event.name, "name in a queued event");
}

static void check_queued(void)
{
    char got[64];
    expect_next(IN_CREATE);
    expect_next(IN_DELETE);
    expect_error(EAGAIN, read(queue, got, sizeof got), "read behind the queued events");
    make_events();
}

const struct item item_inotify_queued = {
    .name = "inotify-queued", .set_up = set_up_queued, .check = check_queued, .traits = REFUSABLE};
