/* Process trees: `tree` (children and a grandchild that keep memory, descriptors and threads of their own, connected
 * by pipes), `tree-executed` (children with a fresh program image), `tree-many` (twenty). Numbers, parents, memory,
 * pipes and everything that each member checks by itself must come back. */
#include "guest.h"

#include <sys/mman.h>
#include <sys/wait.h>

enum { PRIVATE_BYTES = 1 << 20, MANY = 20 };

static char *inherited, *changed;
static struct child first, second, grandchild;
static pid_t self, parent;
static uint64_t seed;

static void check_member(void)
{
    expect(self, getpid(), "number of a process");
    expect(parent, getppid(), "parent of a process");
    expect_filled(inherited, PRIVATE_BYTES, 400, "memory that children inherited");
    expect_filled(changed, PRIVATE_BYTES, seed, "memory that each process changed");
}

static void become(uint64_t own_seed)
{
    self = getpid();
    parent = getppid();
    seed = own_seed;
    fill(changed, PRIVATE_BYTES, seed);
}

static void set_up_grandchild(void)
{
    become(403);
}

static const struct item grandchild_item = {.set_up = set_up_grandchild, .check = check_member};

static void set_up_first(void)
{
    become(401);
    child_start(&grandchild, &grandchild_item);
}

static void check_first(void)
{
    check_member();
    child_check(&grandchild, "grandchild");
}

static const struct item first_item = {.set_up = set_up_first, .check = check_first};
static struct sitter reader;
static int notes[2];

static long read_note(struct sitter *sitter)
{
    char byte;
    return read(sitter->descriptor, &byte, 1);
}

static void write_note(struct sitter *sitter)
{
    expect_written(sitter->other, "n", 1, sitter->what);
}

static void set_up_second(void)
{
    become(402);
    reader = (struct sitter){.what = "thread of a child", .sit = read_note, .wake = write_note, .result = 1,
                             .descriptor = notes[0], .other = notes[1]};
    sitters_start(&reader, 1);
}

static void check_second(void)
{
    check_member();
    sitters_check(&reader, 1);
}

static const struct item second_item = {.set_up = set_up_second, .check = check_second};

static char *map(size_t size_bytes)
{
    char *memory = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        bad("mmap: expected success, got %s", strerror(errno));
    return memory;
}

static void set_up(void)
{
    inherited = map(PRIVATE_BYTES);
    changed = map(PRIVATE_BYTES);
    fill(inherited, PRIVATE_BYTES, 400);
    must(pipe(notes), "pipe");
    child_start(&first, &first_item);
    child_start(&second, &second_item);
    become(404);
}

static void check(void)
{
    char path[64], text[32];
    check_member();
    child_check(&first, "first child");
    child_check(&second, "second child");
    snprintf(path, sizeof path, "/proc/self/task/%d/children", getpid());
    if (access(path, R_OK) == 0) {
        char expected[32];
        snprintf(expected, sizeof expected, "%d %d ", first.pid, second.pid);
        read_file(path, text, sizeof text);
        expect_text(expected, text, "children, in their order");
    }
    /* The tree still grows and shrinks: a member of this generation comes and goes. */
    struct child brief;
    child_start(&brief, &grandchild_item);
    child_check(&brief, "child of this generation");
    child_end(&brief);
}

const struct item item_tree = {.name = "tree", .set_up = set_up, .check = check, .traits = TREE};

static struct child executed[3];

static void set_up_executed(void)
{
    child_execute(&executed[0], "threads-end");
    child_execute(&executed[1], "clocks");
    child_execute(&executed[2], "memfd-double");
}

static void check_executed(void)
{
    for (size_t i = 0; i < COUNT(executed); i++)
        child_check(&executed[i], "executed child");
}

const struct item item_tree_executed = {
    .name = "tree-executed", .set_up = set_up_executed, .check = check_executed, .traits = TREE};

static struct child many[MANY];

static void set_up_member(void)
{
    become(500 + getpid());
}

static const struct item member_item = {.set_up = set_up_member, .check = check_member};

static void set_up_many(void)
{
    inherited = map(PRIVATE_BYTES);
    changed = map(PRIVATE_BYTES);
    fill(inherited, PRIVATE_BYTES, 400);
    for (int i = 0; i < MANY; i++)
        child_start(&many[i], &member_item);
}

static void check_many(void)
{
    for (int i = 0; i < MANY; i++)
        child_check(&many[i], "one of many children");
}

const struct item item_tree_many = {.name = "tree-many", .set_up = set_up_many, .check = check_many, .traits = TREE};
