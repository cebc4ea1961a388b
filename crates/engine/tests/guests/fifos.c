/* Named pipes: one opened for both directions, one with an end for each, one whose name is gone; all with content. */
#include "guest.h"

static int both, reader, writer, nameless;

static void refill(void)
{
    expect_written(both, "both ways", 9, "FIFO");
    expect_written(writer, "one way only", 12, "FIFO");
    expect_written(nameless, "no name", 7, "FIFO");
}

static void set_up(void)
{
    must(mkfifo(scratch("both"), 0600), "mkfifo");
    must(mkfifo(scratch("single"), 0600), "mkfifo");
    must(mkfifo(scratch("nameless"), 0600), "mkfifo");
    both = must(open(scratch("both"), O_RDWR | O_NONBLOCK), "open of a FIFO");
    reader = must(open(scratch("single"), O_RDONLY | O_NONBLOCK | O_CLOEXEC), "open of a FIFO");
    writer = must(open(scratch("single"), O_WRONLY), "open of a FIFO");
    nameless = must(open(scratch("nameless"), O_RDWR | O_NONBLOCK), "open of a FIFO");
    must(unlink(scratch("nameless")), "unlink");
    refill();
}

static void check(void)
{
    struct stat status, named;
    char got[10];
    expect(O_RDWR | O_NONBLOCK, fcntl(both, F_GETFL) & (O_ACCMODE | O_NONBLOCK), "flags of the FIFO");
    expect(FD_CLOEXEC, fcntl(reader, F_GETFD), "close-on-exec of the FIFO");
    must(fstat(reader, &status), "fstat");
    must(stat(scratch("single"), &named), "stat");
    expect(S_IFIFO, status.st_mode & S_IFMT, "kind of the file");
    expect(named.st_ino, status.st_ino, "inode of the FIFO");
    expect_read(both, "both ways", 9, "FIFO for both directions");
    expect_read(reader, "one way only", 12, "FIFO");
    expect_read(nameless, "no name", 7, "FIFO without name");
    expect_error(EAGAIN, read(reader, got, 1), "read of an empty FIFO");

    /* A third opener by name must meet the same FIFO. */
    int third = must(open(scratch("single"), O_WRONLY | O_NONBLOCK), "open of a FIFO");
    expect_written(third, "third", 5, "FIFO");
    close(third);
    expect_read(reader, "third", 5, "FIFO by a third opener");
    expect_error(ENOENT, access(scratch("nameless"), F_OK), "name of the unlinked FIFO");
    refill();
}

const struct item item_fifos = {.name = "fifos", .set_up = set_up, .check = check};
