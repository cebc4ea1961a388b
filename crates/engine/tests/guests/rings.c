/* Kernel objects that an engine may refuse by name: `io-uring` (an idle ring), `system-v` (shared memory),
 * `message-queue` (POSIX, with two messages). If they come back, they come back right. */
#include "guest.h"

#include <linux/io_uring.h>
#include <mqueue.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>

static int ring;
static struct io_uring_params parameters;
static char *submissions, *completions;
static struct io_uring_sqe *entries;

static void *map_ring(off_t offset, size_t size_bytes)
{
    void *memory = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, ring, offset);
    if (memory == MAP_FAILED)
        bad("mmap of the ring: expected success, got %s", strerror(errno));
    return memory;
}

static void set_up_ring(void)
{
    ring = syscall(SYS_io_uring_setup, 8, &parameters);
    if (ring < 0)
        skip("io_uring: %s", strerror(errno));
    submissions = map_ring(IORING_OFF_SQ_RING, parameters.sq_off.array + parameters.sq_entries * 4);
    completions = map_ring(IORING_OFF_CQ_RING,
                           parameters.cq_off.cqes + parameters.cq_entries * sizeof(struct io_uring_cqe));
    entries = map_ring(IORING_OFF_SQES, parameters.sq_entries * sizeof *entries);
}

static uint32_t *at(char *memory, uint32_t offset)
{
    return (uint32_t *)(memory + offset);
}

static void check_ring(void)
{
    static uint64_t value;
    uint32_t tail = *at(submissions, parameters.sq_off.tail), mask = *at(submissions, parameters.sq_off.ring_mask);
    memset(&entries[tail & mask], 0, sizeof *entries);
    entries[tail & mask].opcode = IORING_OP_NOP;
    entries[tail & mask].user_data = ++value;
    at(submissions, parameters.sq_off.array)[tail & mask] = tail & mask;
    __atomic_store_n(at(submissions, parameters.sq_off.tail), tail + 1, __ATOMIC_RELEASE);
    expect(1, must(syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0), "io_uring_enter"),
           "entries taken");
    uint32_t head = *at(completions, parameters.cq_off.head);
    struct io_uring_cqe *done = (struct io_uring_cqe *)(completions + parameters.cq_off.cqes);
    done += head & *at(completions, parameters.cq_off.ring_mask);
    expect(value, done->user_data, "entry that was completed");
    expect(0, done->res, "result of the entry");
    __atomic_store_n(at(completions, parameters.cq_off.head), head + 1, __ATOMIC_RELEASE);
}

const struct item item_io_uring = {
    .name = "io-uring", .set_up = set_up_ring, .check = check_ring, .traits = REFUSABLE};

static int memory_number;
static char *attached;

static void set_up_system_v(void)
{
    memory_number = shmget(IPC_PRIVATE, 4 * PAGE_BYTES, IPC_CREAT | 0600);
    if (memory_number < 0)
        skip("System V: %s", strerror(errno));
    attached = shmat(memory_number, NULL, 0);
    /* Goes away with its last user, so nothing is left behind. */
    must(shmctl(memory_number, IPC_RMID, NULL), "IPC_RMID");
    fill(attached, 4 * PAGE_BYTES, 900);
}

static void check_system_v(void)
{
    struct shmid_ds status;
    expect_filled(attached, 4 * PAGE_BYTES, 900, "System V shared memory");
    must(shmctl(memory_number, IPC_STAT, &status), "IPC_STAT");
    expect(4 * PAGE_BYTES, status.shm_segsz, "size of the segment");
    expect(1, status.shm_nattch, "users of the segment");
}

const struct item item_system_v = {
    .name = "system-v", .set_up = set_up_system_v, .check = check_system_v, .traits = REFUSABLE};

static mqd_t queue;

static void send_both(void)
{
    must(mq_send(queue, "later", 5, 1), "mq_send");
    must(mq_send(queue, "urgent", 6, 9), "mq_send");
}

static void set_up_queue(void)
{
    char name[64];
    struct mq_attr attributes = {.mq_maxmsg = 5, .mq_msgsize = 32};
    snprintf(name, sizeof name, "/guest-%d-%lx", getpid(), (long)clock_ns(CLOCK_REALTIME));
    queue = mq_open(name, O_RDWR | O_CREAT | O_NONBLOCK, 0600, &attributes);
    if (queue < 0)
        skip("mq_open: %s", strerror(errno));
    must(mq_unlink(name), "mq_unlink");
    send_both();
}

static void check_queue(void)
{
    char got[32];
    unsigned priority;
    expect(6, must(mq_receive(queue, got, sizeof got, &priority), "mq_receive"), "length of the first message");
    expect_bytes("urgent", got, 6, "first message");
    expect(9, priority, "priority of the first message");
    expect(5, must(mq_receive(queue, got, sizeof got, &priority), "mq_receive"), "length of the second message");
    expect_error(EAGAIN, mq_receive(queue, got, sizeof got, &priority), "receive from an empty queue");
    send_both();
}

const struct item item_message_queue = {
    .name = "message-queue", .set_up = set_up_queue, .check = check_queue, .traits = REFUSABLE};
