/* Files without a name: `files-unlinked` (unlinked while open, twice open), `files-tmpfile` (O_TMPFILE, given a name
 * later), `files-replaced` (another file now has the name). Content, offsets and link counts must come back. */
#include "guest.h"

enum { BYTES = 300000 };

static int unlinked, again;
static char content[BYTES];

static void set_up_unlinked(void)
{
    fill(content, sizeof content, 4);
    unlinked = must(open(scratch("gone"), O_RDWR | O_CREAT | O_EXCL, 0600), "open");
    again = must(open(scratch("gone"), O_RDONLY), "open");
    must(unlink(scratch("gone")), "unlink");
    expect_written(unlinked, content, BYTES, "unlinked file");
    must(lseek(unlinked, 777, SEEK_SET), "lseek");
    must(lseek(again, 88, SEEK_SET), "lseek");
}

static void check_unlinked(void)
{
    static char got[BYTES];
    struct stat status, other;
    must(fstat(unlinked, &status), "fstat");
    must(fstat(again, &other), "fstat");
    expect(0, status.st_nlink, "links");
    expect(BYTES, status.st_size, "size");
    expect(status.st_ino, other.st_ino, "inode of the second description");
    expect(777, lseek(unlinked, 0, SEEK_CUR), "offset");
    expect(88, lseek(again, 0, SEEK_CUR), "offset of the second description");
    expect(BYTES, pread(unlinked, got, BYTES, 0), "bytes");
    expect_filled(got, BYTES, 4, "unlinked file");
    must(pwrite(unlinked, "new", 3, 88), "pwrite");
    expect_read(again, "new", 3, "change seen by the second description");
    must(pwrite(unlinked, content + 88, 3, 88), "pwrite");
    must(lseek(again, 88, SEEK_SET), "lseek");
    expect_error(ENOENT, access(scratch("gone"), F_OK), "name of the unlinked file");
}

const struct item item_files_unlinked = {.name = "files-unlinked", .set_up = set_up_unlinked, .check = check_unlinked};

static int temporary;

static void set_up_tmpfile(void)
{
    const char *inside = scratch("");
    temporary = open(inside, O_TMPFILE | O_RDWR, 0600);
    if (temporary < 0)
        skip("O_TMPFILE in %s: %s", inside, strerror(errno));
    fill(content, sizeof content, 5);
    expect_written(temporary, content, BYTES, "temporary file");
    must(lseek(temporary, 4321, SEEK_SET), "lseek");
}

static void check_tmpfile(void)
{
    static char got[BYTES];
    struct stat status;
    expect(4321, lseek(temporary, 0, SEEK_CUR), "offset");
    expect(BYTES, pread(temporary, got, BYTES, 0), "bytes");
    expect_filled(got, BYTES, 5, "temporary file");
    must(fstat(temporary, &status), "fstat");
    expect(0, status.st_nlink, "links");
    expect(O_RDWR, fcntl(temporary, F_GETFL) & O_ACCMODE, "flags");
}

const struct item item_files_tmpfile = {.name = "files-tmpfile", .set_up = set_up_tmpfile, .check = check_tmpfile};

static int old, new;

static void set_up_replaced(void)
{
    old = must(open(scratch("config"), O_RDWR | O_CREAT, 0600), "open");
    expect_written(old, "old", 3, "old file");
    new = must(open(scratch("config.new"), O_RDWR | O_CREAT, 0600), "open");
    expect_written(new, "new", 3, "new file");
    must(rename(scratch("config.new"), scratch("config")), "rename");
}

static void check_replaced(void)
{
    char got[8] = {0};
    struct stat status, named;
    expect(3, pread(old, got, 8, 0), "bytes of the old file");
    expect_text("old", got, "old file");
    expect(3, pread(new, got, 8, 0), "bytes of the new file");
    expect_text("new", got, "new file");
    must(fstat(new, &status), "fstat");
    must(stat(scratch("config"), &named), "stat");
    expect(named.st_ino, status.st_ino, "inode behind the name");
    must(fstat(old, &status), "fstat");
    expect(0, status.st_nlink, "links of the old file");
}

const struct item item_files_replaced = {.name = "files-replaced", .set_up = set_up_replaced, .check = check_replaced};
