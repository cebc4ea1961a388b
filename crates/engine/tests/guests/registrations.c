/* What a process once told the kernel and relies on: `rseq` (restartable sequences, as glibc registers them, in every
 * thread), `membarrier` (the expedited kinds, without which the call fails). */
#include "guest.h"

#include <linux/membarrier.h>
#include <linux/rseq.h>
#include <sched.h>
#include <sys/rseq.h>

static struct rseq *area(void)
{
    return (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
}

/* Returns what is wrong with the calling thread's registration, or NULL. */
static const char *rseq_fault(void)
{
    cpu_set_t all, one;
    struct rseq *mine = area();
    if (sched_getaffinity(0, sizeof all, &all) < 0)
        return "sched_getaffinity failed";
    for (int i = 0; i < CPU_SETSIZE; i++) {
        if (!CPU_ISSET(i, &all))
            continue;
        CPU_ZERO(&one);
        CPU_SET(i, &one);
        if (sched_setaffinity(0, sizeof one, &one) < 0)
            return "sched_setaffinity failed";
        if (__atomic_load_n(&mine->cpu_id, __ATOMIC_SEQ_CST) != (unsigned)i)
            return "the processor in the area is not the one that it runs on";
    }
    sched_setaffinity(0, sizeof all, &all);
    /* A second registration of the same area is refused as busy, but only where there is a first one. */
    size_t size_bytes = __rseq_size < 32 ? 32 : __rseq_size;
    if (syscall(SYS_rseq, mine, size_bytes, 0, RSEQ_SIG) != -1 || errno != EBUSY)
        return "it is not registered with the kernel";
    return NULL;
}

static long sit(struct sitter *sitter)
{
    char byte;
    long result = read(sitter->descriptor, &byte, 1);
    const char *fault = rseq_fault();
    if (fault)
        complain("rseq of a thread: %s", fault);
    return result;
}

static void wake(struct sitter *sitter)
{
    expect_written(sitter->other, "w", 1, "pipe");
}

static struct sitter sitters[4];

static void set_up_rseq(void)
{
    if (__rseq_size == 0)
        skip("this C library registers no restartable sequences");
    for (size_t i = 0; i < COUNT(sitters); i++) {
        int ends[2];
        must(pipe(ends), "pipe");
        sitters[i] = (struct sitter){.what = "thread", .sit = sit, .wake = wake, .result = 1,
                                     .descriptor = ends[0], .other = ends[1]};
    }
    sitters_start(sitters, COUNT(sitters));
}

static void check_rseq(void)
{
    const char *fault = rseq_fault();
    if (fault)
        bad("rseq: %s", fault);
    sitters_check(sitters, COUNT(sitters));
}

const struct item item_rseq = {.name = "rseq", .set_up = set_up_rseq, .check = check_rseq};

#define MEMBARRIER_GET_REGISTRATIONS (1 << 9)
static const struct {
    int registration, command;
    const char *what;
} barriers[] = {
    {MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, MEMBARRIER_CMD_PRIVATE_EXPEDITED, "private barrier"},
    {MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, "core barrier"},
    {MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ, MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ, "rseq barrier"},
    {MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, MEMBARRIER_CMD_GLOBAL_EXPEDITED, "global barrier"},
};
static bool registered[COUNT(barriers)];
static long registrations;

static void set_up_membarrier(void)
{
    for (size_t i = 0; i < COUNT(barriers); i++)
        registered[i] = syscall(SYS_membarrier, barriers[i].registration, 0, 0) == 0;
    if (!registered[0])
        skip("membarrier: %s", strerror(errno));
    registrations = syscall(SYS_membarrier, MEMBARRIER_GET_REGISTRATIONS, 0, 0);
}

static void check_membarrier(void)
{
    for (size_t i = 0; i < COUNT(barriers); i++)
        if (registered[i])
            must(syscall(SYS_membarrier, barriers[i].command, 0, 0), barriers[i].what);
    expect(registrations, syscall(SYS_membarrier, MEMBARRIER_GET_REGISTRATIONS, 0, 0), "registrations");
}

const struct item item_membarrier = {
    .name = "membarrier", .set_up = set_up_membarrier, .check = check_membarrier};
