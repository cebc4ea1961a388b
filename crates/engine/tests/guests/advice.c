/* Memory with advice: `wipe-on-fork`, `dont-fork`, `guard-regions`, `droppable`. The advice must hold after a
 * restore as before it: what a fork wipes or leaves out, it wipes or leaves out then too. Content of wiped and
 * droppable pages may be zero after a restore, but never half of what it was. */
#include "guest.h"

#include <sys/mman.h>
#include <sys/wait.h>

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif
enum { PAGES = 8, BYTES = PAGES * PAGE_BYTES };

static char *region;

static char *map(size_t size_bytes)
{
    char *memory = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        bad("mmap: expected success, got %s", strerror(errno));
    return memory;
}

static bool zero_or_filled(const char *memory, uint64_t seed)
{
    static char zeros[PAGE_BYTES], pattern[PAGE_BYTES];
    fill(pattern, PAGE_BYTES, seed);
    return memcmp(memory, zeros, PAGE_BYTES) == 0 || memcmp(memory, pattern, PAGE_BYTES) == 0;
}

/* What a child finds at a byte: its value, or the negative number of the signal that the read raised. */
static int in_child(volatile char *byte)
{
    int status;
    pid_t child = must(fork(), "fork");
    if (child == 0)
        _exit(*byte & 0x7f);
    must(waitpid(child, &status, 0), "waitpid");
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static void set_up_wipe(void)
{
    region = map(BYTES);
    must(madvise(region + PAGE_BYTES, 4 * PAGE_BYTES, MADV_WIPEONFORK), "MADV_WIPEONFORK");
    memset(region, 5, BYTES);
}

static void check_wipe(void)
{
    static char fives[PAGE_BYTES];
    memset(fives, 5, PAGE_BYTES);
    for (int page = 1; page < 5; page++) {
        char first = region[page * PAGE_BYTES];
        if (first != 0 && first != 5)
            bad("wiped page %d: expected 0 or 5, got %d", page, first);
        for (int i = 0; i < PAGE_BYTES; i++)
            expect(first, region[page * PAGE_BYTES + i], "byte %d of wiped page %d", i, page);
    }
    expect_bytes(fives, region, PAGE_BYTES, "page before the wiped ones");
    expect_bytes(fives, region + 5 * PAGE_BYTES, PAGE_BYTES, "page behind the wiped ones");
    memset(region, 5, BYTES);
    expect(5, in_child(region), "ordinary page in a child");
    expect(0, in_child(region + PAGE_BYTES), "first wiped page in a child");
    expect(0, in_child(region + 4 * PAGE_BYTES), "last wiped page in a child");
    expect(5, in_child(region + 5 * PAGE_BYTES), "page behind the wiped ones in a child");
}

const struct item item_wipe_on_fork = {.name = "wipe-on-fork", .set_up = set_up_wipe, .check = check_wipe};

static void set_up_dont_fork(void)
{
    region = map(BYTES);
    memset(region, 6, BYTES);
    must(madvise(region + 2 * PAGE_BYTES, 2 * PAGE_BYTES, MADV_DONTFORK), "MADV_DONTFORK");
}

static void check_dont_fork(void)
{
    for (int i = 0; i < BYTES; i++)
        expect(6, region[i], "byte %d", i);
    expect(6, in_child(region), "ordinary page in a child");
    expect(-SIGSEGV, in_child(region + 2 * PAGE_BYTES), "left-out page in a child");
    expect(-SIGSEGV, in_child(region + 4 * PAGE_BYTES - 1), "left-out page in a child");
    expect(6, in_child(region + 4 * PAGE_BYTES), "page behind the left-out ones in a child");
}

const struct item item_dont_fork = {.name = "dont-fork", .set_up = set_up_dont_fork, .check = check_dont_fork};

static void set_up_guard(void)
{
    region = map(BYTES);
    memset(region, 7, BYTES);
    if (madvise(region + 3 * PAGE_BYTES, PAGE_BYTES, MADV_GUARD_INSTALL) < 0)
        skip("MADV_GUARD_INSTALL: %s", strerror(errno));
}

static void check_guard(void)
{
    expect(7, in_child(region + 3 * PAGE_BYTES - 1), "page before the guard");
    expect(-SIGSEGV, in_child(region + 3 * PAGE_BYTES), "guard");
    expect(7, in_child(region + 4 * PAGE_BYTES), "page behind the guard");
    /* The guard lies inside of one readable mapping, so the write must fail although the mapping allows it. */
    int zero = must(open("/dev/zero", O_RDONLY), "/dev/zero");
    expect_error(EFAULT, read(zero, region + 3 * PAGE_BYTES, 1), "read into the guard");
    close(zero);
}

const struct item item_guard_regions = {.name = "guard-regions", .set_up = set_up_guard, .check = check_guard};

static void set_up_droppable(void)
{
    region = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);
    if (region == MAP_FAILED)
        skip("MAP_DROPPABLE: %s", strerror(errno));
    fill(region, PAGE_BYTES, 70);
}

static void check_droppable(void)
{
    if (!zero_or_filled(region, 70))
        bad("droppable page: expected zeros or its pattern, got other bytes");
    /* Such memory is wiped by a fork and cannot be locked; that is how its kind shows. */
    memset(region + PAGE_BYTES, 1, PAGE_BYTES);
    expect(0, in_child(region + PAGE_BYTES), "droppable page in a child");
    fill(region, PAGE_BYTES, 70);
}

const struct item item_droppable = {.name = "droppable", .set_up = set_up_droppable, .check = check_droppable};
