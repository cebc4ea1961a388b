/* Private memory: `memory-anonymous` (patterns, protections, advice that gives zeros), `memory-file-private` (pages
 * of a file, some modified), `brk`, `mappings-many` (1,500 of them), `reservation` (64 GiB without access). Every
 * byte and every protection must come back, and the regions must behave as before. */
#include "guest.h"

#include <setjmp.h>
#include <sys/mman.h>

enum { REGION_BYTES = 8 << 20, FILE_PAGES = 16, MANY = 1500 };

static sigjmp_buf caught;

static void on_fault(int number)
{
    siglongjmp(caught, number);
}

/* Signal that a read (or write) of this byte raises, or zero. */
static int fault_at(volatile char *byte, bool write)
{
    struct sigaction action = {.sa_handler = on_fault}, segv, bus;
    sigaction(SIGSEGV, &action, &segv);
    sigaction(SIGBUS, &action, &bus);
    int number = sigsetjmp(caught, 1);
    if (number == 0) {
        char value = *byte;
        if (write)
            *byte = value;
    }
    sigaction(SIGSEGV, &segv, NULL);
    sigaction(SIGBUS, &bus, NULL);
    return number;
}

static char *map(size_t size_bytes, int protection, int flags)
{
    char *memory = mmap(NULL, size_bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    if (memory == MAP_FAILED)
        bad("mmap of %zu bytes: expected success, got %s", size_bytes, strerror(errno));
    return memory;
}

static char *large, *constant, *hidden, *sparse;

static void set_up_anonymous(void)
{
    large = map(REGION_BYTES, PROT_READ | PROT_WRITE, 0);
    fill(large, REGION_BYTES, 10);
    constant = map(4 * PAGE_BYTES, PROT_READ | PROT_WRITE, 0);
    fill(constant, 4 * PAGE_BYTES, 11);
    must(mprotect(constant, 4 * PAGE_BYTES, PROT_READ), "mprotect");
    hidden = map(4 * PAGE_BYTES, PROT_READ | PROT_WRITE, 0);
    fill(hidden, 4 * PAGE_BYTES, 12);
    must(mprotect(hidden, 4 * PAGE_BYTES, PROT_NONE), "mprotect");
    sparse = map(REGION_BYTES, PROT_READ | PROT_WRITE, MAP_NORESERVE);
    for (size_t at = 0; at < REGION_BYTES; at += 64 * PAGE_BYTES)
        fill(sparse + at, 100, at);
}

static void check_anonymous(void)
{
    static const char zeros[PAGE_BYTES];
    expect_filled(large, REGION_BYTES, 10, "large region");
    expect_filled(constant, 4 * PAGE_BYTES, 11, "read-only region");
    expect(SIGSEGV, fault_at(constant, true), "write to the read-only region");
    expect(SIGSEGV, fault_at(hidden, false), "read of the hidden region");
    must(mprotect(hidden, 4 * PAGE_BYTES, PROT_READ), "mprotect");
    expect_filled(hidden, 4 * PAGE_BYTES, 12, "hidden region");
    must(mprotect(hidden, 4 * PAGE_BYTES, PROT_NONE), "mprotect");
    for (size_t at = 0; at < REGION_BYTES; at += 64 * PAGE_BYTES) {
        expect_filled(sparse + at, 100, at, "sparse region");
        expect_bytes(zeros, sparse + at + PAGE_BYTES, PAGE_BYTES, "hole of the sparse region");
    }
    /* Dropped pages must give zeros, not what the snapshot held. */
    must(madvise(large + 65 * PAGE_BYTES, PAGE_BYTES, MADV_DONTNEED), "MADV_DONTNEED");
    must(madvise(large + 512 * PAGE_BYTES, 600 * PAGE_BYTES, MADV_DONTNEED), "MADV_DONTNEED");
    expect_bytes(zeros, large + 65 * PAGE_BYTES, PAGE_BYTES, "dropped page");
    for (int page = 512; page < 1112; page++)
        expect_bytes(zeros, large + page * PAGE_BYTES, PAGE_BYTES, "dropped pages");
    expect_bytes(zeros, sparse + PAGE_BYTES, PAGE_BYTES, "hole");
    fill(large, REGION_BYTES, 10);
    char *moved = mremap(sparse, REGION_BYTES, REGION_BYTES * 2, MREMAP_MAYMOVE);
    if (moved == MAP_FAILED)
        bad("mremap: expected success, got %s", strerror(errno));
    expect_filled(moved, 100, 0, "region that was moved");
    sparse = mremap(moved, REGION_BYTES * 2, REGION_BYTES, 0);
}

const struct item item_memory_anonymous = {
    .name = "memory-anonymous", .set_up = set_up_anonymous, .check = check_anonymous};

static char *from_file;

static void set_up_file_private(void)
{
    char page[PAGE_BYTES];
    int file = must(open(scratch("mapped"), O_RDWR | O_CREAT, 0600), "open");
    for (int i = 0; i < FILE_PAGES; i++) {
        fill(page, sizeof page, 20 + i);
        expect_written(file, page, sizeof page, "mapped file");
    }
    from_file = mmap(NULL, (FILE_PAGES + 1) * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    if (from_file == MAP_FAILED)
        bad("mmap of a file: expected success, got %s", strerror(errno));
    close(file);
    for (int i = 0; i < FILE_PAGES; i += 3)
        fill(from_file + i * PAGE_BYTES, PAGE_BYTES, 200 + i);
    must(mprotect(from_file + 4 * PAGE_BYTES, PAGE_BYTES, PROT_READ), "mprotect");
}

static void check_file_private(void)
{
    for (int i = 0; i < FILE_PAGES; i++)
        expect_filled(from_file + i * PAGE_BYTES, PAGE_BYTES, i % 3 == 0 ? 200 + i : 20 + i, "page of a private file");
    expect(SIGSEGV, fault_at(from_file + 4 * PAGE_BYTES, true), "write to the read-only page");
    /* POSIX leaves open what a private mapping shows behind the end of its file; an engine may make it memory. */
}

const struct item item_memory_file_private = {
    .name = "memory-file-private", .set_up = set_up_file_private, .check = check_file_private};

static char *heap, *heap_end;

static void set_up_brk(void)
{
    heap = sbrk(64 * PAGE_BYTES);
    heap_end = sbrk(0);
    fill(heap, 64 * PAGE_BYTES, 30);
}

static void check_brk(void)
{
    expect((long)heap_end, (long)sbrk(0), "end of the heap");
    expect_filled(heap, 64 * PAGE_BYTES, 30, "heap");
    char *more = sbrk(8 * PAGE_BYTES);
    expect((long)heap_end, (long)more, "place of the grown part");
    expect(0, more[0] | more[8 * PAGE_BYTES - 1], "grown part of the heap");
    fill(more, 8 * PAGE_BYTES, 31);
    if (sbrk(-8 * PAGE_BYTES) == (void *)-1)
        bad("sbrk: expected the heap to shrink, got %s", strerror(errno));
}

const struct item item_brk = {.name = "brk", .set_up = set_up_brk, .check = check_brk};

static char *many;

static void set_up_many(void)
{
    many = map((size_t)MANY * PAGE_BYTES, PROT_READ | PROT_WRITE, 0);
    for (int i = 0; i < MANY; i++)
        fill(many + i * PAGE_BYTES, PAGE_BYTES, 1000 + i);
    /* Every other page read-only keeps the kernel from joining them. */
    for (int i = 0; i < MANY; i += 2)
        must(mprotect(many + i * PAGE_BYTES, PAGE_BYTES, PROT_READ), "mprotect");
}

static void check_many(void)
{
    for (int i = 0; i < MANY; i++) {
        expect_filled(many + i * PAGE_BYTES, PAGE_BYTES, 1000 + i, "one of many mappings");
        if (i % 50 < 2)
            expect(i % 2 ? 0 : SIGSEGV, fault_at(many + i * PAGE_BYTES, true), "write to mapping %d", i);
    }
}

const struct item item_mappings_many = {.name = "mappings-many", .set_up = set_up_many, .check = check_many};

static char *reserved;

static void set_up_reservation(void)
{
    reserved = map(64ul << 30, PROT_NONE, MAP_NORESERVE);
    must(mprotect(reserved + (40ul << 30), 16 * PAGE_BYTES, PROT_READ | PROT_WRITE), "mprotect");
    fill(reserved + (40ul << 30), 16 * PAGE_BYTES, 40);
}

static void check_reservation(void)
{
    char *next = reserved + (50ul << 30);
    expect_filled(reserved + (40ul << 30), 16 * PAGE_BYTES, 40, "used part of the reservation");
    expect(SIGSEGV, fault_at(reserved, false), "read of the reservation");
    expect(SIGSEGV, fault_at(reserved + (64ul << 30) - 1, false), "read of the reservation's end");
    must(mprotect(next, PAGE_BYTES, PROT_READ | PROT_WRITE), "mprotect");
    expect(0, next[17], "new part of the reservation");
    must(mprotect(next, PAGE_BYTES, PROT_NONE), "mprotect");
}

const struct item item_reservation = {
    .name = "reservation", .set_up = set_up_reservation, .check = check_reservation};
