/* Threads in blocking calls on files: read of a pipe, write to a full one, open of a FIFO for reading and for
 * writing, reads of a counter and of a watch, locks. Each call must still wait after a restore and complete properly
 * when its event comes, without an EINTR. */
#include "guest.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>

static long read_byte(struct sitter *sitter)
{
    char byte;
    return read(sitter->descriptor, &byte, 1);
}

static void write_byte(struct sitter *sitter)
{
    expect_written(sitter->other, "b", 1, sitter->what);
}

static long write_page(struct sitter *sitter)
{
    static char page[PAGE_BYTES];
    return write(sitter->other, page, sizeof page);
}

static void read_page(struct sitter *sitter)
{
    char page[PAGE_BYTES];
    expect(sizeof page, must(read(sitter->descriptor, page, sizeof page), sitter->what), "%s: bytes", sitter->what);
}

static long read_count(struct sitter *sitter)
{
    uint64_t count;
    return read(sitter->descriptor, &count, 8) == 8 ? (long)count : -1;
}

static void write_count(struct sitter *sitter)
{
    expect_written(sitter->descriptor, &(uint64_t){6}, 8, sitter->what);
}

/* Whether the thread that opens for reading, or for writing, got through. */
static _Atomic int opened[2];

/* Waits for the other end to close, so that no round finds the one of the round before. */
static long open_for_reading(struct sitter *sitter)
{
    char byte;
    int descriptor = open(sitter->memory, O_RDONLY);
    atomic_store(&opened[0], 1);
    long result = descriptor < 0 ? -1 : read(descriptor, &byte, 1);
    close(descriptor);
    return result;
}

static long open_for_writing(struct sitter *sitter)
{
    int descriptor = open(sitter->memory, O_WRONLY);
    atomic_store(&opened[1], 1);
    if (descriptor < 0)
        return -1;
    long result = poll(&(struct pollfd){.fd = descriptor}, 1, -1);
    close(descriptor);
    return result;
}

static void open_other_end(struct sitter *sitter)
{
    _Atomic int *flag = &opened[sitter->other == O_RDONLY];
    atomic_store(flag, 0);
    int descriptor = must(open(sitter->memory, sitter->other | O_NONBLOCK), sitter->what);
    await(flag, 1, sitter->what);
    close(descriptor);
}

static long read_watch(struct sitter *sitter)
{
    char event[512];
    return read(sitter->descriptor, event, sizeof event);
}

static void change_watched(struct sitter *sitter)
{
    must(utimensat(AT_FDCWD, sitter->memory, NULL, 0), sitter->what);
}

/* Locks: the serving thread holds the first description, the sitter wants the second. `turn` keeps the sitter from
 * locking again before the serving thread has its lock back. */
static _Atomic int turns[2];

static long lock_flock(struct sitter *sitter)
{
    long result = flock(sitter->other, LOCK_EX);
    flock(sitter->other, LOCK_UN);
    for (atomic_store(&turns[0], 1); atomic_load(&turns[0]);)
        sleep_ms(1);
    return result;
}

static void pass_flock(struct sitter *sitter)
{
    must(flock(sitter->descriptor, LOCK_UN), sitter->what);
    await(&turns[0], 1, sitter->what);
    must(flock(sitter->descriptor, LOCK_EX | LOCK_NB), sitter->what);
    atomic_store(&turns[0], 0);
}

static long set_lock(int descriptor, int command, int kind)
{
    return fcntl(descriptor, command, &(struct flock){.l_type = kind, .l_start = 10, .l_len = 5});
}

static long lock_range(struct sitter *sitter)
{
    long result = set_lock(sitter->other, F_OFD_SETLKW, F_WRLCK);
    set_lock(sitter->other, F_OFD_SETLK, F_UNLCK);
    for (atomic_store(&turns[1], 1); atomic_load(&turns[1]);)
        sleep_ms(1);
    return result;
}

static void pass_range(struct sitter *sitter)
{
    must(set_lock(sitter->descriptor, F_OFD_SETLK, F_UNLCK), sitter->what);
    await(&turns[1], 1, sitter->what);
    must(set_lock(sitter->descriptor, F_OFD_SETLK, F_WRLCK), sitter->what);
    atomic_store(&turns[1], 0);
}

enum { PIPE, FULL_PIPE, COUNTER, READER, WRITER, WATCH, FLOCK, RANGE };
static struct sitter sitters[] = {
    [PIPE] = {.what = "read of a pipe", .sit = read_byte, .wake = write_byte, .result = 1},
    [FULL_PIPE] = {.what = "write to a full pipe", .sit = write_page, .wake = read_page, .result = PAGE_BYTES},
    [COUNTER] = {.what = "read of a counter", .sit = read_count, .wake = write_count, .result = 6},
    [READER] = {.what = "open of a FIFO for reading", .sit = open_for_reading, .wake = open_other_end,
                .other = O_WRONLY},
    [WRITER] = {.what = "open of a FIFO for writing", .sit = open_for_writing, .wake = open_other_end,
                .other = O_RDONLY, .result = 1},
    [WATCH] = {.what = "read of a watch", .sit = read_watch, .wake = change_watched, .result = 16},
    [FLOCK] = {.what = "wait for a lock", .sit = lock_flock, .wake = pass_flock},
    [RANGE] = {.what = "wait for the lock of a range", .sit = lock_range, .wake = pass_range},
};

static void set_up(void)
{
    static char page[PAGE_BYTES];
    int ends[2];
    must(pipe(ends), "pipe");
    sitters[PIPE].descriptor = ends[0];
    sitters[PIPE].other = ends[1];
    must(pipe(ends), "pipe");
    sitters[FULL_PIPE].descriptor = ends[0];
    sitters[FULL_PIPE].other = ends[1];
    for (int left = must(fcntl(ends[1], F_GETPIPE_SZ), "F_GETPIPE_SZ"); left > 0; left -= PAGE_BYTES)
        expect_written(ends[1], page, PAGE_BYTES, "pipe");
    sitters[COUNTER].descriptor = must(eventfd(0, 0), "eventfd");
    sitters[READER].memory = (void *)scratch("read");
    sitters[WRITER].memory = (void *)scratch("written");
    must(mkfifo(sitters[READER].memory, 0600), "mkfifo");
    must(mkfifo(sitters[WRITER].memory, 0600), "mkfifo");
    sitters[WATCH].memory = (void *)scratch("watched");
    close(must(open(sitters[WATCH].memory, O_CREAT | O_WRONLY, 0600), "open"));
    sitters[WATCH].descriptor = must(inotify_init1(0), "inotify_init1");
    must(inotify_add_watch(sitters[WATCH].descriptor, sitters[WATCH].memory, IN_ATTRIB), "inotify_add_watch");
    for (int i = FLOCK; i <= RANGE; i++) {
        sitters[i].descriptor = must(open(scratch("locked"), O_RDWR | O_CREAT, 0600), "open");
        sitters[i].other = must(open(scratch("locked"), O_RDWR), "open");
    }
    must(flock(sitters[FLOCK].descriptor, LOCK_EX), "flock");
    must(set_lock(sitters[RANGE].descriptor, F_OFD_SETLK, F_WRLCK), "F_OFD_SETLK");
    sitters_start(sitters, COUNT(sitters));
}

static void check(void)
{
    sitters_check(sitters, COUNT(sitters));
}

const struct item item_blocked_files = {.name = "blocked-files", .set_up = set_up, .check = check};
