/* Memory whose kind shows in /proc: `huge-pages` (asked for, and refused), `locked`, `named`. Content must come back,
 * and so must the flags of the mappings. */
#include "guest.h"

#include <sys/mman.h>
#include <sys/prctl.h>

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif
enum { BYTES = 8 * PAGE_BYTES, HUGE_BYTES = 4 << 20 };

static char *region, *plain;

static char *map(size_t size_bytes)
{
    char *memory = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        bad("mmap: expected success, got %s", strerror(errno));
    return memory;
}

/* What follows "VmFlags: " (or the head line of the mapping) in /proc/self/smaps for the mapping at an address. */
static void mapping_line(const void *start, const char *key, char *value, size_t size_bytes)
{
    char line[512], wanted[32];
    bool inside = false;
    FILE *maps = fopen("/proc/self/smaps", "re");
    if (!maps)
        bad("/proc/self/smaps: expected success, got %s", strerror(errno));
    snprintf(wanted, sizeof wanted, "%lx-", (long)start);
    value[0] = 0;
    while (!value[0] && fgets(line, sizeof line, maps)) {
        inside = inside || strncmp(line, wanted, strlen(wanted)) == 0;
        if (inside && strncmp(line, key, strlen(key)) == 0)
            snprintf(value, size_bytes, "%s", strtok(line, "\n"));
        if (inside && !key[0])
            break;
    }
    fclose(maps);
    if (!value[0])
        bad("mapping at %p: expected to start there, got none", start);
}

static void expect_flag(const void *start, const char *flag)
{
    char flags[256];
    mapping_line(start, "VmFlags: ", flags, sizeof flags);
    if (!strstr(flags, flag))
        bad("flags of the mapping at %p: expected %s, got %s", start, flag, flags);
}

static void set_up_huge(void)
{
    region = map(2 * HUGE_BYTES);
    plain = map(HUGE_BYTES);
    if (madvise(region, HUGE_BYTES, MADV_HUGEPAGE) < 0)
        skip("MADV_HUGEPAGE: %s", strerror(errno));
    must(madvise(plain, HUGE_BYTES, MADV_NOHUGEPAGE), "MADV_NOHUGEPAGE");
    fill(region, HUGE_BYTES, 80);
    fill(plain, HUGE_BYTES, 81);
}

static void check_huge(void)
{
    expect_filled(region, HUGE_BYTES, 80, "region with huge pages");
    expect_filled(plain, HUGE_BYTES, 81, "region without huge pages");
    expect_flag(region, "hg");
    expect_flag(plain, "nh");
    must(madvise(region + 5 * PAGE_BYTES, PAGE_BYTES, MADV_DONTNEED), "MADV_DONTNEED");
    expect(0, region[5 * PAGE_BYTES + 9], "dropped page in the middle of a huge one");
    fill(region, HUGE_BYTES, 80);
}

const struct item item_huge_pages = {.name = "huge-pages", .set_up = set_up_huge, .check = check_huge};

static void set_up_locked(void)
{
    region = map(BYTES);
    if (mlock(region, BYTES) < 0)
        skip("mlock: %s", strerror(errno));
    fill(region, BYTES, 90);
}

static void check_locked(void)
{
    char locked[64];
    expect_filled(region, BYTES, 90, "locked region");
    expect_flag(region, "lo");
    status_value("VmLck", locked, sizeof locked);
    expect(BYTES / 1024, strtol(locked, NULL, 10), "locked memory in KiB");
}

const struct item item_locked = {.name = "locked", .set_up = set_up_locked, .check = check_locked};

static void set_up_named(void)
{
    region = map(BYTES);
    if (prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, region, BYTES, "guest heap") < 0)
        skip("PR_SET_VMA_ANON_NAME: %s", strerror(errno));
    fill(region, BYTES, 91);
}

static void check_named(void)
{
    char line[512];
    expect_filled(region, BYTES, 91, "named region");
    mapping_line(region, "", line, sizeof line);
    if (!strstr(line, "[anon:guest heap]"))
        bad("name of the mapping: expected [anon:guest heap], got %s", line);
}

const struct item item_named = {.name = "named", .set_up = set_up_named, .check = check_named};
