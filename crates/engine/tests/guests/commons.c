/* Memory that processes share: `tree-memory` (anonymous, inherited by a child), `tree-memfd` (one memory file that
 * parent and child map at different places and one of them closed). What one writes the other sees, within one clone
 * only. */
#include "guest.h"

#include <sys/mman.h>

enum { SHARED_BYTES = 16 * PAGE_BYTES };

static char *common;

static void *share(int descriptor, size_t size_bytes)
{
    void *memory = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE,
                        MAP_SHARED | (descriptor < 0 ? MAP_ANONYMOUS : 0), descriptor, 0);
    if (memory == MAP_FAILED)
        bad("mmap of shared memory: expected success, got %s", strerror(errno));
    return memory;
}

static struct child writer;
static _Atomic int *counter;

static void set_up_writer(void)
{
    fill(common + SHARED_BYTES / 2, SHARED_BYTES / 2, 411);
}

static void check_writer(void)
{
    expect_filled(common, SHARED_BYTES / 2, 410, "half that the parent wrote");
    atomic_fetch_add(counter, 1);
}

static const struct item writer_item = {.set_up = set_up_writer, .check = check_writer};

static void set_up_shared(void)
{
    common = share(-1, SHARED_BYTES);
    counter = share(-1, PAGE_BYTES);
    fill(common, SHARED_BYTES / 2, 410);
    child_start(&writer, &writer_item);
}

static void check_shared(void)
{
    int before = *counter;
    expect_filled(common + SHARED_BYTES / 2, SHARED_BYTES / 2, 411, "half that the child wrote");
    child_check(&writer, "child with shared memory");
    expect(before + 1, *counter, "counter that the child raised");
}

const struct item item_tree_memory = {
    .name = "tree-memory", .set_up = set_up_shared, .check = check_shared, .traits = TREE};

static struct child mapper;
static int memory_file;
static char *own_view;

static void set_up_mapper(void)
{
    /* The parent's view is a copy in the child too; it goes, and one elsewhere takes its place. */
    char *parents = own_view;
    own_view = share(memory_file, SHARED_BYTES);
    must(munmap(parents, SHARED_BYTES), "munmap");
    close(memory_file);
    fill(own_view + PAGE_BYTES, PAGE_BYTES, 421);
}

static void check_mapper(void)
{
    expect_filled(own_view, PAGE_BYTES, 420, "page of the memory file that the parent wrote");
    own_view[2 * PAGE_BYTES]++;
}

static const struct item mapper_item = {.set_up = set_up_mapper, .check = check_mapper};

static void set_up_memfd(void)
{
    memory_file = must(memfd_create("guest commons", 0), "memfd_create");
    must(ftruncate(memory_file, SHARED_BYTES), "ftruncate");
    own_view = share(memory_file, SHARED_BYTES);
    fill(own_view, PAGE_BYTES, 420);
    child_start(&mapper, &mapper_item);
}

static void check_memfd(void)
{
    char byte;
    char before = own_view[2 * PAGE_BYTES];
    expect_filled(own_view + PAGE_BYTES, PAGE_BYTES, 421, "page of the memory file that the child wrote");
    child_check(&mapper, "child with a memory file");
    expect((char)(before + 1), own_view[2 * PAGE_BYTES], "byte that the child raised, in the view");
    expect(1, pread(memory_file, &byte, 1, 2 * PAGE_BYTES), "bytes");
    expect((char)(before + 1), byte, "byte that the child raised, in the file");
}

const struct item item_tree_memfd = {
    .name = "tree-memfd", .set_up = set_up_memfd, .check = check_memfd, .traits = TREE};
