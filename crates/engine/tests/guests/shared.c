/* Shared memory within one process: `shared-anonymous`, `shared-deleted` (a file without a name), `shared-tmpfs`
 * (one in /dev/shm), `shared-file` (a file in /tmp that keeps its name). Content must come back, writes must reach
 * the file, and two clones must not see each other's. */
#include "guest.h"

#include <sys/mman.h>

enum { PAGES = 32, BYTES = PAGES * PAGE_BYTES };

static char *map(int descriptor, int flags)
{
    char *memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | flags, descriptor, 0);
    if (memory == MAP_FAILED)
        bad("mmap of shared memory: expected success, got %s", strerror(errno));
    return memory;
}

static char *anonymous;

static void set_up_anonymous(void)
{
    anonymous = map(-1, MAP_ANONYMOUS);
    fill(anonymous, BYTES, 60);
}

static void check_anonymous(void)
{
    /* An alias of the same pages, which mremap gives when the old size is zero. */
    char *alias = mremap(anonymous, 0, BYTES, MREMAP_MAYMOVE);
    if (alias == MAP_FAILED)
        bad("mremap of shared memory: expected an alias, got %s", strerror(errno));
    expect_filled(anonymous, BYTES, 60, "shared memory");
    alias[5 * PAGE_BYTES] ^= 1;
    expect(alias[5 * PAGE_BYTES], anonymous[5 * PAGE_BYTES], "byte of shared memory after a write to its alias");
    alias[5 * PAGE_BYTES] ^= 1;
    must(munmap(alias, BYTES), "munmap");
}

const struct item item_shared_anonymous = {
    .name = "shared-anonymous", .set_up = set_up_anonymous, .check = check_anonymous};

static int descriptor;
static char *mapped;

static void open_shared(const char *path)
{
    descriptor = must(open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600), path);
    must(ftruncate(descriptor, BYTES), "ftruncate");
    mapped = map(descriptor, 0);
    fill(mapped, BYTES, 61);
}

static void check_shared(void)
{
    static char got[BYTES];
    expect_filled(mapped, BYTES, 61, "mapped file");
    expect(BYTES, pread(descriptor, got, BYTES, 0), "bytes of the file");
    expect_filled(got, BYTES, 61, "file behind the mapping");
    mapped[100] ^= 1;
    expect(1, pread(descriptor, got, 1, 100), "bytes of the file");
    expect(mapped[100], got[0], "byte of the file after a write to the mapping");
    mapped[100] ^= 1;
    must(pwrite(descriptor, "xyz", 3, 2 * PAGE_BYTES), "pwrite");
    expect_bytes("xyz", mapped + 2 * PAGE_BYTES, 3, "mapping after a write to the file");
    fill(mapped, BYTES, 61);
}

static void set_up_deleted(void)
{
    open_shared(scratch("deleted"));
    must(unlink(scratch("deleted")), "unlink");
}

static void check_deleted(void)
{
    struct stat status;
    must(fstat(descriptor, &status), "fstat");
    expect(0, status.st_nlink, "links");
    check_shared();
}

const struct item item_shared_deleted = {.name = "shared-deleted", .set_up = set_up_deleted, .check = check_deleted};

static void set_up_file(void)
{
    open_shared(scratch("shared"));
}

static void check_file(void)
{
    struct stat status, named;
    must(fstat(descriptor, &status), "fstat");
    must(stat(scratch("shared"), &named), "stat");
    expect(named.st_ino, status.st_ino, "inode behind the name");
    check_shared();
}

const struct item item_shared_file = {.name = "shared-file", .set_up = set_up_file, .check = check_file};

static char name[64];

static void set_up_tmpfs(void)
{
    snprintf(name, sizeof name, "/dev/shm/guest-%d-%lx", getpid(), (long)clock_ns(CLOCK_REALTIME));
    if (access("/dev/shm", W_OK) < 0)
        skip("/dev/shm: %s", strerror(errno));
    open_shared(name);
    remove_later(name);
}

static void check_tmpfs(void)
{
    must(access(name, F_OK), name);
    check_shared();
}

const struct item item_shared_tmpfs = {.name = "shared-tmpfs", .set_up = set_up_tmpfs, .check = check_tmpfs};
