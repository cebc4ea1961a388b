/* Stacks: `stack-deep` (content of a deep frame on the main stack, and room to grow), `stack-grows-down` (a mapping
 * that grows by itself), `stack-guards` (stacks of threads, each above a page that nobody may touch). */
#include "guest.h"

#include <sys/mman.h>
#include <sys/wait.h>

enum { DEEP_BYTES = 1 << 20, FRAME_BYTES = 64 * 1024 };

/* Uses one frame per call; answers whether every frame kept its pattern while the deeper ones were used. */
static __attribute__((noinline)) bool descend(int depth)
{
    volatile char frame[FRAME_BYTES];
    fill((char *)frame, sizeof frame, depth);
    bool deeper = depth == 0 || descend(depth - 1);
    expect_filled((char *)frame, sizeof frame, depth, "frame of the stack");
    return deeper;
}

/* A part of the stack that was used once: it lies below the stack pointer, but it stays mapped. */
static char *below;

static __attribute__((noinline)) void leave_trace(void)
{
    char deep[DEEP_BYTES];
    fill(deep, sizeof deep, 100);
    /* Hides from the compiler that the address outlives its frame, which is the point here. */
    __asm__ volatile("" : "=r"(below) : "0"(deep) : "memory");
}

static void set_up_deep(void)
{
    leave_trace();
}

static void check_deep(void)
{
    volatile char *middle = below + DEEP_BYTES / 2;
    (void)*middle;
    expect(1, descend(FRAME_BYTES / 1024), "4 MiB of frames kept");
}

const struct item item_stack_deep = {.name = "stack-deep", .set_up = set_up_deep, .check = check_deep};

static char *growing;

static void set_up_growing(void)
{
    /* Room below is made by a reservation that is given up again. */
    char *room = mmap(NULL, 4 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(room, 4 << 20);
    growing = mmap(room + (3 << 20), PAGE_BYTES, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1, 0);
    if (growing == MAP_FAILED)
        bad("mmap: expected success, got %s", strerror(errno));
    for (int page = 0; page < 10; page++)
        fill(growing - page * PAGE_BYTES, PAGE_BYTES, 110 + page);
}

static void check_growing(void)
{
    static int depth = 10;
    for (int page = 0; page < 10; page++)
        expect_filled(growing - page * PAGE_BYTES, PAGE_BYTES, 110 + page, "page of a growing mapping");
    /* Every check grows it by one page more; a child tries, so that a fault is a failure and not an end. */
    int status;
    pid_t child = must(fork(), "fork");
    if (child == 0) {
        growing[-depth * PAGE_BYTES] = 1;
        _exit(0);
    }
    must(waitpid(child, &status, 0), "waitpid");
    expect(0, status, "status of a child that grew the mapping by page %d", depth);
    growing[-depth * PAGE_BYTES] = 1;
    depth++;
}

const struct item item_stack_grows_down = {
    .name = "stack-grows-down", .set_up = set_up_growing, .check = check_growing};

enum { THREADS = 8, STACK_BYTES = 256 * 1024, GUARD_BYTES = 2 * PAGE_BYTES };
static char *bottoms[THREADS];
static pthread_barrier_t barrier;
static _Atomic int filled;

static void *occupy(void *argument)
{
    pthread_attr_t attributes;
    size_t size_bytes;
    void *bottom;
    char frame[PAGE_BYTES];
    long index = (long)argument;
    pthread_getattr_np(pthread_self(), &attributes);
    pthread_attr_getstack(&attributes, &bottom, &size_bytes);
    bottoms[index] = bottom;
    for (;;) {
        fill(frame, sizeof frame, 120 + index);
        atomic_fetch_add(&filled, 1);
        pthread_barrier_wait(&barrier);
        if (first_difference(frame, sizeof frame, 120 + index) >= 0)
            complain("frame of thread %ld: expected its pattern, got other bytes", index);
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}

static void set_up_guards(void)
{
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_attr_setguardsize(&attributes, GUARD_BYTES);
    pthread_barrier_init(&barrier, NULL, THREADS + 1);
    for (long i = 0; i < THREADS; i++)
        must_thread(pthread_create(&thread, &attributes, occupy, (void *)i), "pthread_create");
    await(&filled, THREADS, "frames of the threads");
}

static int in_child(volatile char *byte)
{
    int status;
    pid_t child = must(fork(), "fork");
    if (child == 0) {
        *byte = 1;
        _exit(0);
    }
    must(waitpid(child, &status, 0), "waitpid");
    return WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
}

static void check_guards(void)
{
    for (int i = 0; i < THREADS; i++) {
        expect(0, in_child(bottoms[i] + GUARD_BYTES), "write to the end of stack %d", i);
        expect(SIGSEGV, in_child(bottoms[i] - 1), "write below stack %d", i);
    }
    int before = filled;
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    await(&filled, before + THREADS, "frames of the threads");
}

const struct item item_stack_guards = {.name = "stack-guards", .set_up = set_up_guards, .check = check_guards};
