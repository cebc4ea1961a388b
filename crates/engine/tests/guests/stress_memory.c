/* Workers of the stress program that hold memory and files: what they wrote is what they must find.
 *
 * Every page of a region is known: its seed (zero for a page of zeros), what lies under it (the file's page), and
 * whether the kernel may have taken it (MADV_FREE). The file is this program for one worker, which nobody can write to.
 * For the other it is a file of its own; a mapping of that may be saved whole, so nothing lies under it any more and
 * MADV_DONTNEED is not for it. */
#include "stress.h"

#include <sys/mman.h>

#define REGIONS 24
#define REGION_PAGES_MAX 64
#define BACKING_PAGES 48
#define BLOCKS 96
#define FILE_BLOCK_BYTES 1024
#define FILE_BLOCKS_MAX 128

enum kind { PRIVATE, SHARED, BACKED };

/* Marks the seed of a page of the program. */
#define PROGRAM (1ul << 63)

static unsigned char program[BACKING_PAGES * PAGE_BYTES];

struct page {
    uint64_t seed, under;
    bool may_be_zero;
};

struct region {
    enum kind kind;
    int protection;
    size_t pages;
    unsigned char *start;
    struct page *page;
};

struct maps {
    struct region regions[REGIONS];
    int file;
    bool of_program;
    uint64_t seeds;
};

static uint64_t backing_seed(const struct maps *maps, size_t page)
{
    return maps->of_program ? PROGRAM | page : 1000 + page;
}

void maps_prepare(struct worker *worker)
{
    struct maps *maps = calloc(1, sizeof *maps);
    unsigned char page[PAGE_BYTES];
    maps->of_program = worker->kind == MAPS_OF_PROGRAM;
    if (maps->of_program) {
        maps->file = must(open("/proc/self/exe", O_RDONLY | O_CLOEXEC), "open the program");
        expect(sizeof program, pread(maps->file, program, sizeof program, 0), "read the program");
    } else {
        maps->file = must(open(scratch("backing"), O_RDWR | O_CREAT | O_CLOEXEC, 0600), "open the file to map");
    }
    for (size_t i = 0; i < BACKING_PAGES && !maps->of_program; i++) {
        fill(page, sizeof page, backing_seed(maps, i));
        expect(sizeof page, write(maps->file, page, sizeof page), "write the file to map");
    }
    maps->seeds = (worker->random & ~PROGRAM) | 1;
    worker->state = maps;
}

static bool page_holds(const unsigned char *memory, const struct page *page)
{
    if (page->seed & PROGRAM)
        return memcmp(memory, program + (page->seed & ~PROGRAM) * PAGE_BYTES, PAGE_BYTES) == 0;
    if (page->seed && first_difference(memory, PAGE_BYTES, page->seed) < 0)
        return true;
    if (page->seed && !page->may_be_zero)
        return false;
    for (size_t i = 0; i < PAGE_BYTES; i++)
        if (memory[i])
            return false;
    return true;
}

static void verify_region(struct worker *worker, struct region *region)
{
    if (!(region->protection & PROT_READ) && mprotect(region->start, region->pages * PAGE_BYTES, PROT_READ))
        complain("%s: mprotect for a look: %s", worker->name, strerror(errno));
    for (size_t i = 0; i < region->pages; i++) {
        const unsigned char *memory = region->start + i * PAGE_BYTES;
        struct page *page = &region->page[i];
        /* The kernel may take a page while it is looked at: the second look sees zeros. */
        if (page_holds(memory, page) || (page->may_be_zero && page_holds(memory, page)))
            continue;
        complain("%s: page %zu of %zu at %p, kind %d, protection %d: seed %lu, under %lu, maybe zero %d; holds %lx",
                 worker->name, i, region->pages, memory, region->kind, region->protection, page->seed, page->under,
                 page->may_be_zero, *(const uint64_t *)memory);
        return;
    }
    if (!(region->protection & PROT_READ) &&
        mprotect(region->start, region->pages * PAGE_BYTES, region->protection))
        complain("%s: mprotect after a look: %s", worker->name, strerror(errno));
}

static struct region *free_region(struct maps *maps)
{
    for (size_t i = 0; i < REGIONS; i++)
        if (!maps->regions[i].pages)
            return &maps->regions[i];
    return NULL;
}

static void map(struct worker *worker, struct maps *maps, struct region *region)
{
    enum kind kind = draw(worker, 3);
    size_t pages = 1 + draw(worker, kind == BACKED ? BACKING_PAGES : REGION_PAGES_MAX);
    size_t first = kind == BACKED ? draw(worker, BACKING_PAGES - pages + 1) : 0;
    int flags = kind == SHARED ? MAP_SHARED | MAP_ANONYMOUS : kind == BACKED ? MAP_PRIVATE : MAP_PRIVATE | MAP_ANONYMOUS;
    int file = kind == BACKED ? maps->file : -1;
    void *start = mmap(NULL, pages * PAGE_BYTES, PROT_READ | PROT_WRITE, flags, file, kind == BACKED ? first * PAGE_BYTES : 0);
    if (start == MAP_FAILED) {
        complain("%s: mmap: %s", worker->name, strerror(errno));
        return;
    }
    struct page *page = calloc(pages, sizeof *page);
    for (size_t i = 0; kind == BACKED && i < pages; i++)
        page[i].seed = page[i].under = backing_seed(maps, first + i);
    *region = (struct region){kind, PROT_READ | PROT_WRITE, pages, start, page};
}

/* Takes the pages [from, from + count) out of the region, into `rest` when there is one, and closes up. */
static void cut(struct region *region, size_t from, size_t count, struct region *rest)
{
    size_t behind = region->pages - from - count;
    if (rest && behind) {
        struct page *page = calloc(behind, sizeof *page);
        memcpy(page, region->page + from + count, behind * sizeof *page);
        unsigned char *start = region->start + (from + count) * PAGE_BYTES;
        *rest = (struct region){region->kind, region->protection, behind, start, page};
    }
    if (from == 0) {
        free(region->page);
        region->page = NULL;
    }
    region->pages = from;
}

static void unmap(struct worker *worker, struct maps *maps, struct region *region)
{
    struct region *rest = free_region(maps);
    size_t from = draw(worker, 3) ? 0 : draw(worker, region->pages);
    size_t count = rest && draw(worker, 2) ? 1 + draw(worker, region->pages - from) : region->pages - from;
    if (munmap(region->start + from * PAGE_BYTES, count * PAGE_BYTES))
        complain("%s: munmap: %s", worker->name, strerror(errno));
    cut(region, from, count, rest);
}

static void remap(struct worker *worker, struct region *region)
{
    /* A shared mapping has nothing behind its first size. */
    size_t most = region->kind == PRIVATE ? REGION_PAGES_MAX : region->pages;
    size_t pages = 1 + draw(worker, most);
    void *start = mremap(region->start, region->pages * PAGE_BYTES, pages * PAGE_BYTES, MREMAP_MAYMOVE);
    if (start == MAP_FAILED) {
        complain("%s: mremap of %zu pages at %p, kind %d, to %zu: %s", worker->name, region->pages, region->start,
                 region->kind, pages, strerror(errno));
        return;
    }
    region->page = realloc(region->page, pages * sizeof *region->page);
    for (size_t i = region->pages; i < pages; i++)
        region->page[i] = (struct page){0};
    region->start = start;
    region->pages = pages;
}

static void protect(struct worker *worker, struct region *region)
{
    static const int choices[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE,
                                  PROT_READ | PROT_EXEC};
    region->protection = choices[draw(worker, COUNT(choices))];
    if (mprotect(region->start, region->pages * PAGE_BYTES, region->protection))
        complain("%s: mprotect: %s", worker->name, strerror(errno));
}

static void advise(struct worker *worker, const struct maps *maps, struct region *region)
{
    static const int choices[] = {MADV_DONTNEED, MADV_DONTNEED, MADV_FREE, MADV_FREE, MADV_REMOVE,
                                  MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_COLD, MADV_PAGEOUT, MADV_SEQUENTIAL};
    int advice = choices[draw(worker, COUNT(choices))];
    size_t from = 0, count = region->pages;
    if (advice == MADV_DONTNEED || advice == MADV_FREE || advice == MADV_REMOVE) {
        from = draw(worker, region->pages);
        count = 1 + draw(worker, region->pages - from);
    }
    if ((advice == MADV_FREE && region->kind != PRIVATE) ||
        (advice == MADV_DONTNEED && region->kind == BACKED && !maps->of_program) ||
        (advice == MADV_REMOVE && (region->kind != SHARED || !(region->protection & PROT_WRITE))))
        return;
    if (madvise(region->start + from * PAGE_BYTES, count * PAGE_BYTES, advice) && errno != EINVAL) {
        complain("%s: madvise %d: %s", worker->name, advice, strerror(errno));
        return;
    }
    for (size_t i = from; i < from + count; i++) {
        struct page *page = &region->page[i];
        if (advice == MADV_FREE)
            page->may_be_zero = true;
        else if (advice == MADV_REMOVE || (advice == MADV_DONTNEED && region->kind != SHARED))
            *page = (struct page){page->under, page->under, false};
    }
}

static void write_pages(struct worker *worker, struct maps *maps, struct region *region)
{
    if (!(region->protection & PROT_WRITE))
        return;
    for (uint64_t left = 1 + draw(worker, 8); left; left--) {
        size_t at = draw(worker, region->pages);
        uint64_t seed = maps->seeds += 2;
        struct page *page = &region->page[at];
        fill(region->start + at * PAGE_BYTES, PAGE_BYTES, seed);
        *page = (struct page){seed, page->under, false};
    }
}

void maps_step(struct worker *worker)
{
    struct maps *maps = worker->state;
    struct region *region = &maps->regions[draw(worker, REGIONS)];
    if (!region->pages) {
        map(worker, maps, region);
        return;
    }
    switch (draw(worker, 12)) {
    case 0: unmap(worker, maps, region); break;
    case 1: remap(worker, region); break;
    case 2: protect(worker, region); break;
    case 3: case 4: advise(worker, maps, region); break;
    case 5: case 6: verify_region(worker, region); break;
    default: write_pages(worker, maps, region);
    }
}

void maps_verify(struct worker *worker)
{
    struct maps *maps = worker->state;
    for (size_t i = 0; i < REGIONS; i++)
        if (maps->regions[i].pages)
            verify_region(worker, &maps->regions[i]);
}

struct block {
    unsigned char *start;
    size_t size_bytes;
    uint64_t seed;
};

void heap_prepare(struct worker *worker)
{
    worker->state = calloc(BLOCKS, sizeof(struct block));
}

static void verify_block(struct worker *worker, const struct block *block)
{
    long at = block->start ? first_difference(block->start, block->size_bytes, block->seed) : -1;
    if (at >= 0)
        complain("%s: a block of %zu bytes at %p differs at %ld", worker->name, block->size_bytes, block->start, at);
}

void heap_step(struct worker *worker)
{
    struct block *block = (struct block *)worker->state + draw(worker, BLOCKS);
    /* From a few bytes to what malloc maps on its own. */
    size_t size_bytes = 1 + draw(worker, 1ul << draw(worker, 18));
    verify_block(worker, block);
    if (block->start && draw(worker, 3) == 0) {
        free(block->start);
        block->start = NULL;
        return;
    }
    if (block->start && draw(worker, 2)) {
        size_t kept_bytes = size_bytes < block->size_bytes ? size_bytes : block->size_bytes;
        block->start = realloc(block->start, size_bytes);
        block->size_bytes = kept_bytes;
        verify_block(worker, block);
    } else {
        free(block->start);
        block->start = malloc(size_bytes);
    }
    if (!block->start) {
        complain("%s: no memory", worker->name);
        return;
    }
    *block = (struct block){block->start, size_bytes, worker->random};
    fill(block->start, size_bytes, block->seed);
}

void heap_verify(struct worker *worker)
{
    struct block *blocks = worker->state;
    for (size_t i = 0; i < BLOCKS; i++)
        verify_block(worker, &blocks[i]);
}

struct file {
    int descriptor, appending;
    size_t blocks;
    uint64_t seeds[FILE_BLOCKS_MAX];
    unsigned char *mapped;
};

void files_prepare(struct worker *worker)
{
    struct file *file = calloc(1, sizeof *file);
    const char *path = scratch("records");
    file->descriptor = must(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600), "open the file of records");
    file->appending = must(open(path, O_WRONLY | O_APPEND | O_CLOEXEC), "open the file to append");
    void *mapped = mmap(NULL, FILE_BLOCKS_MAX * FILE_BLOCK_BYTES, PROT_READ, MAP_SHARED, file->descriptor, 0);
    file->mapped = mapped == MAP_FAILED ? NULL : mapped;
    worker->state = file;
}

static void verify_record(struct worker *worker, struct file *file, size_t at)
{
    unsigned char bytes[FILE_BLOCK_BYTES];
    off_t offset = (off_t)at * FILE_BLOCK_BYTES;
    if (pread(file->descriptor, bytes, sizeof bytes, offset) != sizeof bytes ||
        first_difference(bytes, sizeof bytes, file->seeds[at]) >= 0)
        complain("%s: record %zu of %zu differs in the file", worker->name, at, file->blocks);
    if (file->mapped && first_difference(file->mapped + offset, sizeof bytes, file->seeds[at]) >= 0)
        complain("%s: record %zu of %zu differs in the mapping", worker->name, at, file->blocks);
}

void files_step(struct worker *worker)
{
    struct file *file = worker->state;
    unsigned char bytes[FILE_BLOCK_BYTES];
    uint64_t seed = worker->random;
    size_t at = file->blocks ? draw(worker, file->blocks) : 0;
    fill(bytes, sizeof bytes, seed);
    switch (draw(worker, 6)) {
    case 0:
        file->blocks = draw(worker, file->blocks + 1);
        if (ftruncate(file->descriptor, (off_t)file->blocks * FILE_BLOCK_BYTES))
            complain("%s: ftruncate: %s", worker->name, strerror(errno));
        return;
    case 1: case 2:
        if (file->blocks < FILE_BLOCKS_MAX) {
            if (write(file->appending, bytes, sizeof bytes) != sizeof bytes)
                complain("%s: append: %s", worker->name, strerror(errno));
            file->seeds[file->blocks++] = seed;
        }
        return;
    case 3:
        if (file->blocks) {
            if (lseek(file->descriptor, (off_t)at * FILE_BLOCK_BYTES, SEEK_SET) < 0 ||
                write(file->descriptor, bytes, sizeof bytes) != sizeof bytes)
                complain("%s: write at an offset: %s", worker->name, strerror(errno));
            file->seeds[at] = seed;
        }
        return;
    default:
        if (file->blocks)
            verify_record(worker, file, at);
    }
}
