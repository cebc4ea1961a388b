/* Directories: `directories` stands in the middle of a listing, and the rest must come, each name once, none missing;
 * `directory-deleted` holds one that is gone. The place is an opaque cookie of the file system. */
#include "guest.h"

#include <dirent.h>

enum { FILES = 300 };

static int listing, path_only;
static off_t place;
static char seen[FILES];

/* Marks the names that getdents64 gives from here on; returns how many names it gave. */
static int gather(int descriptor, char *marks, size_t buffer_bytes, bool once)
{
    char buffer[32768] __attribute__((aligned(8)));
    int count = 0;
    for (;;) {
        long got = must(syscall(SYS_getdents64, descriptor, buffer, buffer_bytes), "getdents64");
        for (long at = 0; at < got;) {
            struct dirent64 *entry = (struct dirent64 *)(buffer + at);
            int number;
            if (sscanf(entry->d_name, "entry-%d", &number) == 1 && number >= 0 && number < FILES) {
                expect(0, marks[number], "%s: times listed before", entry->d_name);
                marks[number] = 1;
                count++;
            }
            at += entry->d_reclen;
        }
        if (got == 0 || once)
            return count;
    }
}

static void set_up(void)
{
    char name[32];
    must(mkdir(scratch("many"), 0700), "mkdir");
    int parent = must(open(scratch("many"), O_PATH | O_DIRECTORY), "open");
    for (int i = 0; i < FILES; i++) {
        snprintf(name, sizeof name, "entry-%d", i);
        close(must(openat(parent, name, O_CREAT | O_WRONLY, 0600), "openat"));
    }
    path_only = parent;
    listing = must(open(scratch("many"), O_RDONLY | O_DIRECTORY | O_CLOEXEC), "open");
    gather(listing, seen, 4096, true);
    place = must(lseek(listing, 0, SEEK_CUR), "lseek");
}

static void check(void)
{
    char marks[FILES];
    memcpy(marks, seen, sizeof marks);
    expect(place, lseek(listing, 0, SEEK_CUR), "place in the directory");
    gather(listing, marks, 32768, false);
    for (int i = 0; i < FILES; i++)
        expect(1, marks[i], "entry-%d listed", i);
    must(lseek(listing, place, SEEK_SET), "lseek");
    must(faccessat(path_only, "entry-17", F_OK, 0), "faccessat by a path-only directory");
    expect(O_DIRECTORY, fcntl(listing, F_GETFL) & O_DIRECTORY, "flags");
    expect(FD_CLOEXEC, fcntl(listing, F_GETFD), "close-on-exec");
}

const struct item item_directories = {
    .name = "directories", .set_up = set_up, .check = check, .traits = REFUSABLE};

static int deleted;

static void set_up_deleted(void)
{
    must(mkdir(scratch("brief"), 0700), "mkdir");
    deleted = must(open(scratch("brief"), O_RDONLY | O_DIRECTORY), "open");
    must(rmdir(scratch("brief")), "rmdir");
}

static void check_deleted(void)
{
    struct stat status;
    char buffer[100];
    must(fstat(deleted, &status), "fstat");
    expect(S_IFDIR, status.st_mode & S_IFMT, "kind of the file");
    expect(0, status.st_nlink, "links of the deleted directory");
    expect_error(ENOENT, syscall(SYS_getdents64, deleted, buffer, sizeof buffer), "listing of a deleted directory");
    expect_error(ENOENT, openat(deleted, "new", O_CREAT | O_WRONLY, 0600), "creation in a deleted directory");
}

const struct item item_directory_deleted = {
    .name = "directory-deleted", .set_up = set_up_deleted, .check = check_deleted, .traits = REFUSABLE};
