/* Memory files: `memfd` (content, offset, hole, size), `memfd-double` (one page seen through two mappings with other
 * rights, as runtimes that separate writing from executing do), `memfd-partial` (views of parts), `memfd-sealed`.
 * What one view writes, the other views and the descriptor must see, in every clone by itself. */
#include "guest.h"

#include <sys/mman.h>

enum { PAGES = 64, BYTES = PAGES * PAGE_BYTES };

static char *view(int descriptor, int first_page, int pages, int protection)
{
    char *memory = mmap(NULL, pages * PAGE_BYTES, protection, MAP_SHARED, descriptor, first_page * PAGE_BYTES);
    if (memory == MAP_FAILED)
        bad("mmap of a memfd: expected success, got %s", strerror(errno));
    return memory;
}

static int create(const char *name, unsigned flags)
{
    char pattern[BYTES];
    int descriptor = must(memfd_create(name, flags), "memfd_create");
    fill(pattern, BYTES, 50);
    expect_written(descriptor, pattern, BYTES, "memfd");
    return descriptor;
}

static int plain, second;

static void set_up_plain(void)
{
    char path[64];
    plain = create("guest plain", MFD_CLOEXEC);
    must(ftruncate(plain, 100 << 20), "ftruncate");
    must(pwrite(plain, "end", 3, (100 << 20) - 3), "pwrite");
    must(fallocate(plain, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4 * PAGE_BYTES, 4 * PAGE_BYTES), "fallocate");
    must(lseek(plain, 555, SEEK_SET), "lseek");
    snprintf(path, sizeof path, "/proc/self/fd/%d", plain);
    second = must(open(path, O_RDONLY), "open of a memfd by its descriptor");
}

static void check_plain(void)
{
    static char got[BYTES], expected[BYTES];
    char target[64] = {0}, path[64];
    struct stat status;
    fill(expected, BYTES, 50);
    memset(expected + 4 * PAGE_BYTES, 0, 4 * PAGE_BYTES);
    expect(BYTES, pread(plain, got, BYTES, 0), "bytes");
    expect_bytes(expected, got, BYTES, "memfd");
    expect(555, lseek(plain, 0, SEEK_CUR), "offset");
    expect(0, lseek(second, 0, SEEK_CUR), "offset of the second description");
    expect(3, pread(second, got, 100, (100 << 20) - 3), "bytes at the end");
    expect_bytes("end", got, 3, "end of the memfd");
    must(fstat(plain, &status), "fstat");
    expect(100 << 20, status.st_size, "size");
    /* The holes must not have been filled: in use are 64 pages less 4, and one at the end. */
    expect_between((PAGES - 4 + 1) * PAGE_BYTES, 4 << 20, status.st_blocks * 512, "bytes in use");
    expect(FD_CLOEXEC, fcntl(plain, F_GETFD), "close-on-exec");
    expect(O_RDONLY, fcntl(second, F_GETFL) & O_ACCMODE, "flags of the second description");
    snprintf(path, sizeof path, "/proc/self/fd/%d", plain);
    must(readlink(path, target, sizeof target - 1), "readlink");
    expect_text("/memfd:guest plain (deleted)", target, "name");
    must(pwrite(plain, "own", 3, 0), "pwrite");
    expect(3, pread(second, got, 3, 0), "bytes");
    expect_bytes("own", got, 3, "write seen by the second description");
    must(pwrite(plain, expected, 3, 0), "pwrite");
}

const struct item item_memfd = {.name = "memfd", .set_up = set_up_plain, .check = check_plain};

static int doubled;
static char *writable, *executable, *once_more;
/* mov eax, imm32; ret: answers the number at byte 1. */
static const unsigned char code[] = {0xb8, 7, 0, 0, 0, 0xc3};

static void set_up_double(void)
{
    doubled = create("guest code", 0);
    writable = view(doubled, 0, PAGES, PROT_READ | PROT_WRITE);
    executable = view(doubled, 0, PAGES, PROT_READ | PROT_EXEC);
    once_more = view(doubled, 0, PAGES, PROT_READ | PROT_WRITE);
    memcpy(writable + 3 * PAGE_BYTES, code, sizeof code);
}

static void check_double(void)
{
    int (*answer)(void) = (int (*)(void))(executable + 3 * PAGE_BYTES);
    char got;
    expect(7, answer(), "answer of the code");
    writable[3 * PAGE_BYTES + 1] = 8;
    expect(8, answer(), "answer of the code after a write to the other view");
    once_more[3 * PAGE_BYTES + 1] = 7;
    expect(7, answer(), "answer of the code after a write to the third view");
    expect_filled(executable, 3 * PAGE_BYTES, 50, "view before the code");
    writable[BYTES - 1] = 1;
    expect(1, pread(doubled, &got, 1, BYTES - 1), "bytes");
    expect(1, got, "byte of the descriptor after a write to a view");
    must(pwrite(doubled, "\2", 1, BYTES - 1), "pwrite");
    expect(2, executable[BYTES - 1], "byte of a view after a write to the descriptor");
}

const struct item item_memfd_double = {.name = "memfd-double", .set_up = set_up_double, .check = check_double};

static char *low, *high, *overlapping, *private_view;

static void set_up_partial(void)
{
    int descriptor = create("guest parts", 0);
    low = view(descriptor, 0, 10, PROT_READ | PROT_WRITE);
    high = view(descriptor, 40, 24, PROT_READ | PROT_WRITE);
    overlapping = view(descriptor, 8, 34, PROT_READ);
    private_view = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, descriptor, 0);
    if (private_view == MAP_FAILED)
        bad("mmap of a memfd: expected success, got %s", strerror(errno));
    /* No descriptor holds the file any more, only the views do. */
    close(descriptor);
    fill(private_view + 20 * PAGE_BYTES, PAGE_BYTES, 51);
}

static void check_partial(void)
{
    static char expected[BYTES];
    fill(expected, BYTES, 50);
    expect_bytes(expected, low, 10 * PAGE_BYTES, "low view");
    expect_bytes(expected + 40 * PAGE_BYTES, high, 24 * PAGE_BYTES, "high view");
    expect_bytes(expected + 8 * PAGE_BYTES, overlapping, 34 * PAGE_BYTES, "overlapping view");
    expect_filled(private_view + 20 * PAGE_BYTES, PAGE_BYTES, 51, "modified page of the private view");
    low[9 * PAGE_BYTES] ^= 1;
    high[PAGE_BYTES] ^= 1;
    expect(low[9 * PAGE_BYTES], overlapping[PAGE_BYTES], "byte shared by the low and the overlapping view");
    expect(high[PAGE_BYTES], overlapping[33 * PAGE_BYTES], "byte shared by the high and the overlapping view");
    /* Whether the private view sees this POSIX leaves open, so it is not asked. */
    low[9 * PAGE_BYTES] ^= 1;
    high[PAGE_BYTES] ^= 1;
    fill(private_view + 20 * PAGE_BYTES, PAGE_BYTES, 51);
    expect_bytes(expected + 20 * PAGE_BYTES, overlapping + 12 * PAGE_BYTES, PAGE_BYTES, "page behind the private one");
}

const struct item item_memfd_partial = {.name = "memfd-partial", .set_up = set_up_partial, .check = check_partial};

static int sealed;

static void set_up_sealed(void)
{
    sealed = create("guest sealed", MFD_ALLOW_SEALING);
    must(fcntl(sealed, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE), "F_ADD_SEALS");
}

static void check_sealed(void)
{
    char *constant = view(sealed, 0, PAGES, PROT_READ);
    expect(F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE, fcntl(sealed, F_GET_SEALS), "seals");
    expect_filled(constant, BYTES, 50, "sealed memfd");
    must(munmap(constant, BYTES), "munmap");
    expect_error(EPERM, pwrite(sealed, "x", 1, 0), "write to a sealed memfd");
    expect_error(EPERM, ftruncate(sealed, 0), "shrinking of a sealed memfd");
}

const struct item item_memfd_sealed = {.name = "memfd-sealed", .set_up = set_up_sealed, .check = check_sealed};
