/* Files with names: `files` (offsets, flags, an offset shared by dup, two descriptions of one file, append, O_PATH,
 * a high number and gaps in the table), `files-devices` (/dev/null and its like), `files-proc` (one of /proc). What
 * must come back: offsets, sharing, flags, numbers, and of /proc the process itself, not the one that it is a copy
 * of. */
#include "guest.h"

enum { HIGH_NUMBER = 1000, BYTES = 20000 };

static int first, second, shared, appender, path_only, high;
static char content[BYTES];

static void set_up(void)
{
    fill(content, sizeof content, 3);
    first = must(open(scratch("data"), O_RDWR | O_CREAT | O_CLOEXEC, 0640), "open");
    expect_written(first, content, sizeof content, "file");
    must(lseek(first, 1234, SEEK_SET), "lseek");
    shared = must(dup(first), "dup");
    second = must(open(scratch("data"), O_RDONLY), "open");
    must(lseek(second, 9999, SEEK_SET), "lseek");
    appender = must(open(scratch("log"), O_WRONLY | O_CREAT | O_APPEND | O_SYNC, 0600), "open");
    expect_written(appender, "line\n", 5, "log");
    path_only = must(open(scratch("data"), O_PATH), "open");
    high = must(fcntl(second, F_DUPFD_CLOEXEC, HIGH_NUMBER), "F_DUPFD_CLOEXEC");
}

static void check_offsets(void)
{
    expect(1234, lseek(first, 0, SEEK_CUR), "offset");
    expect(9999, lseek(second, 0, SEEK_CUR), "offset of the second description");
    expect_read(first, content + 1234, 100, "file");
    expect(1334, lseek(shared, 0, SEEK_CUR), "offset of the copy after a read");
    expect(9999, lseek(second, 0, SEEK_CUR), "offset of the other description after a read");
    expect_read(high, content + 9999, 10, "file at a high number");
    expect(10009, lseek(second, 0, SEEK_CUR), "offset behind a read at the high number");
    must(lseek(second, 9999, SEEK_SET), "lseek");
    must(lseek(shared, 1234, SEEK_SET), "lseek");
}

static void check_flags(void)
{
    expect(FD_CLOEXEC, fcntl(first, F_GETFD), "close-on-exec");
    expect(0, fcntl(shared, F_GETFD), "close-on-exec of the copy");
    expect(FD_CLOEXEC, fcntl(high, F_GETFD), "close-on-exec at the high number");
    expect(O_RDWR, fcntl(first, F_GETFL) & (O_ACCMODE | O_APPEND), "flags");
    const int log_flags = O_WRONLY | O_APPEND | O_SYNC;
    expect(log_flags, fcntl(appender, F_GETFL) & (O_ACCMODE | log_flags), "flags of the log");
    expect(O_PATH, fcntl(path_only, F_GETFL) & O_PATH, "path-only flag");
    expect(high, HIGH_NUMBER, "high number");
    expect_error(EBADF, fcntl(HIGH_NUMBER - 1, F_GETFD), "descriptor in the gap");
}

static void check(void)
{
    char got[BYTES];
    struct stat status, named;
    check_offsets();
    check_flags();
    expect(BYTES, pread(second, got, BYTES, 0), "size of the file");
    expect_filled(got, BYTES, 3, "file");
    /* A write through one description is seen by the other: they are one file. */
    must(pwrite(first, "changed", 7, 5000), "pwrite");
    expect(7, pread(second, got, 7, 5000), "read of a change");
    expect_bytes("changed", got, 7, "change seen by the other description");
    must(pwrite(first, content + 5000, 7, 5000), "pwrite");
    must(fstat(path_only, &status), "fstat");
    must(stat(scratch("data"), &named), "stat");
    expect(named.st_ino, status.st_ino, "inode of the path-only descriptor");
    expect(0640, status.st_mode & 0777, "mode of the file");

    must(ftruncate(appender, 5), "ftruncate");
    expect_written(appender, "more\n", 5, "log");
    must(stat(scratch("log"), &status), "stat");
    expect(10, status.st_size, "size of the log");
}

const struct item item_files = {.name = "files", .set_up = set_up, .check = check};

static int null, zero, random_source;

static void set_up_devices(void)
{
    null = must(open("/dev/null", O_RDWR), "/dev/null");
    zero = must(open("/dev/zero", O_RDONLY | O_CLOEXEC), "/dev/zero");
    random_source = must(open("/dev/urandom", O_RDONLY), "/dev/urandom");
}

static void check_devices(void)
{
    char got[8] = "1234567", other[8];
    expect(0, read(null, got, 1), "/dev/null");
    expect_written(null, got, 8, "/dev/null");
    expect_read(zero, "\0\0\0\0\0\0\0", 8, "/dev/zero");
    expect(FD_CLOEXEC, fcntl(zero, F_GETFD), "close-on-exec");
    expect(8, read(random_source, got, 8), "/dev/urandom");
    expect(8, read(random_source, other, 8), "/dev/urandom");
    if (memcmp(got, other, 8) == 0)
        bad("/dev/urandom: expected different bytes, got the same twice");
}

const struct item item_files_devices = {.name = "files-devices", .set_up = set_up_devices, .check = check_devices};

static int proc;

static void set_up_proc(void)
{
    proc = must(open("/proc/self/status", O_RDONLY), "/proc/self/status");
}

static void check_proc(void)
{
    char got[4096], line[40];
    snprintf(line, sizeof line, "\nPid:\t%d\n", getpid());
    got[must(pread(proc, got, sizeof got - 1, 0), "/proc/self/status")] = 0;
    if (!strstr(got, line))
        bad("/proc/self/status by an old descriptor: expected Pid %d, got another process", getpid());
    expect(0, lseek(proc, 0, SEEK_CUR), "offset");
}

const struct item item_files_proc = {.name = "files-proc", .set_up = set_up_proc, .check = check_proc};
