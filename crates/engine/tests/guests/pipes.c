/* Pipes: `pipes` holds content, sizes, flags, a full pipe, one without writers and one without readers, and a shared
 * end; `pipe-packets` holds packet boundaries (O_DIRECT). All of it must come back, at the same numbers. */
#include "guest.h"

#include <sys/ioctl.h>
#include <sys/uio.h>

enum { SMALL_BYTES = 1000, LARGE_BYTES = 256 * 1024, ORPHAN_NUMBER = 90 };

static int small[2], large[2], mute[2], copy;
static char content[LARGE_BYTES], drained[LARGE_BYTES];

static void fill_full(void)
{
    fill(content, sizeof content, 2);
    expect_written(large[1], content, sizeof content, "full pipe");
    expect_error(EAGAIN, write(large[1], "x", 1), "write to a full pipe");
}

/* A pipe whose writer is gone cannot be filled again, so it is made anew at the same number. */
static void make_without_writer(void)
{
    int ends[2];
    must(pipe(ends), "pipe");
    expect_written(ends[1], "last words", 10, "pipe without writer");
    close(ends[1]);
    move_descriptor(ends[0], ORPHAN_NUMBER);
}

static void set_up(void)
{
    must(pipe2(small, O_CLOEXEC), "pipe2");
    copy = must(dup(small[0]), "dup");
    must(pipe2(large, O_NONBLOCK), "pipe2");
    expect_between(LARGE_BYTES, LARGE_BYTES, must(fcntl(large[1], F_SETPIPE_SZ, LARGE_BYTES), "F_SETPIPE_SZ"), "size");
    must(pipe(mute), "pipe");
    close(mute[0]);
    signal(SIGPIPE, SIG_IGN);
    make_without_writer();
    fill(content, SMALL_BYTES, 1);
    expect_written(small[1], content, SMALL_BYTES, "small pipe");
    fill_full();
}

static void check(void)
{
    int waiting = 0;
    fill(content, SMALL_BYTES, 1);
    must(ioctl(copy, FIONREAD, &waiting), "FIONREAD");
    expect(SMALL_BYTES, waiting, "bytes in the small pipe");
    expect_read(copy, content, 400, "small pipe through its copy");
    expect_read(small[0], content + 400, SMALL_BYTES - 400, "small pipe");
    expect_written(small[1], content, SMALL_BYTES, "small pipe");
    expect(FD_CLOEXEC, fcntl(small[0], F_GETFD), "close-on-exec of the pipe");
    expect(0, fcntl(copy, F_GETFD), "close-on-exec of the copy");
    expect(O_RDONLY, fcntl(small[0], F_GETFL) & (O_ACCMODE | O_NONBLOCK), "flags of the reading end");
    expect(O_WRONLY | O_NONBLOCK, fcntl(large[1], F_GETFL) & (O_ACCMODE | O_NONBLOCK), "flags of the writing end");

    expect(LARGE_BYTES, fcntl(large[0], F_GETPIPE_SZ), "size of the full pipe");
    expect_error(EAGAIN, write(large[1], "x", 1), "write to a full pipe");
    expect(LARGE_BYTES, must(read(large[0], drained, sizeof drained), "full pipe"), "bytes in the full pipe");
    expect_filled(drained, sizeof drained, 2, "full pipe");
    expect_error(EAGAIN, read(large[0], drained, 1), "read of an empty pipe");
    fill_full();

    expect_error(EPIPE, write(mute[1], "x", 1), "write to a pipe without readers");
    expect_read(ORPHAN_NUMBER, "last words", 10, "pipe without writer");
    expect(0, read(ORPHAN_NUMBER, drained, 1), "end of the pipe without writer");
    make_without_writer();
}

const struct item item_pipes = {.name = "pipes", .set_up = set_up, .check = check};

static int packets[2];

static void send_packets(void)
{
    expect_written(packets[1], "one", 3, "packet");
    expect_written(packets[1], "seventeen letters", 17, "packet");
    expect_written(packets[1], "x", 1, "packet");
}

static void set_up_packets(void)
{
    must(pipe2(packets, O_DIRECT | O_NONBLOCK), "pipe2");
    send_packets();
}

static void check_packets(void)
{
    char got[100];
    expect(O_DIRECT, fcntl(packets[1], F_GETFL) & O_DIRECT, "packet mode");
    expect(3, read(packets[0], got, sizeof got), "length of the first packet");
    expect_bytes("one", got, 3, "first packet");
    expect(17, read(packets[0], got, sizeof got), "length of the second packet");
    expect_bytes("seventeen letters", got, 17, "second packet");
    expect(1, read(packets[0], got, sizeof got), "length of the third packet");
    expect_error(EAGAIN, read(packets[0], got, 1), "read behind the last packet");
    send_packets();
}

const struct item item_pipe_packets = {.name = "pipe-packets", .set_up = set_up_packets, .check = check_packets};
