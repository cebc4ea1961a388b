/* stress: a program that does everything at once, for checkpoints that strike at random moments.
 *
 * GUEST_SEED sets what the workers draw. "check" waits until every worker has made a step since the last check, stops
 * them at a gate, looks at every checksum, counter and queue, and lets them go on. The item is APART: it is in no list,
 * because it is never quiescent. */
#include "stress.h"

#define ALTERNATE_STACK_BYTES (64 * 1024)

struct worker workers[] = {
    {.name = "maps", .prepare = maps_prepare, .step = maps_step, .verify = maps_verify, .kind = MAPS_OF_PROGRAM},
    {.name = "maps-2", .prepare = maps_prepare, .step = maps_step, .verify = maps_verify, .kind = MAPS_OF_FILE},
    {.name = "heap", .prepare = heap_prepare, .step = heap_step, .verify = heap_verify},
    {.name = "heap-2", .prepare = heap_prepare, .step = heap_step, .verify = heap_verify},
    {.name = "files", .prepare = files_prepare, .step = files_step},
    {.name = "pipe-out", .prepare = stream_prepare, .step = stream_write, .verify = stream_verify, .kind = STREAM_PIPE},
    {.name = "pipe-in", .step = stream_read, .follows = true},
    {.name = "unix-out", .prepare = stream_prepare, .step = stream_write, .verify = stream_verify, .kind = STREAM_UNIX},
    {.name = "unix-in", .step = stream_read, .follows = true},
    {.name = "tcp-out", .prepare = stream_prepare, .step = stream_write, .verify = stream_verify, .kind = STREAM_TCP},
    {.name = "tcp-in", .step = stream_read, .follows = true},
    {.name = "events-out", .prepare = events_prepare, .step = events_send, .verify = events_verify},
    {.name = "events-in", .step = events_receive, .follows = true, .blocks_any = true},
    {.name = "futex", .prepare = token_prepare, .step = token_pass, .kind = TOKEN_FUTEX},
    {.name = "futex-back", .step = token_return, .follows = true},
    {.name = "condition", .prepare = token_prepare, .step = token_pass, .kind = TOKEN_CONDITION},
    {.name = "condition-back", .step = token_return, .follows = true},
    {.name = "tally", .step = tally_step, .verify = tally_verify, .kind = PTHREAD_PRIO_NONE},
    {.name = "tally-2", .step = tally_step, .kind = PTHREAD_PRIO_NONE},
    {.name = "tally-pi", .step = tally_step, .kind = PTHREAD_PRIO_INHERIT},
    {.name = "tally-pi-2", .step = tally_step, .kind = PTHREAD_PRIO_INHERIT},
    {.name = "signals", .prepare = signals_prepare, .step = signals_send, .verify = signals_verify},
    {.name = "signals-sit", .step = signals_sit, .follows = true},
    {.name = "fork", .prepare = fork_prepare, .step = fork_step},
    {.name = "spawn", .step = spawn_step},
    {.name = "sleep", .step = sleep_step},
    {.name = "compute", .prepare = compute_prepare, .step = compute_step},
    {.name = NULL},
};

__thread volatile unsigned long handled;
static __thread const struct worker *self;

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    _Atomic int closed;
    int standing;
} gate = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

uint64_t mix(uint64_t value)
{
    value += 0x9e3779b97f4a7c15;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
    value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
    return value ^ (value >> 31);
}

uint64_t draw(struct worker *worker, uint64_t below)
{
    worker->random = mix(worker->random);
    return worker->random % below;
}

void await_equal(_Atomic uint64_t *value, uint64_t wanted, const char *what)
{
    int64_t end = clock_ns(CLOCK_MONOTONIC) + PATIENCE_MS * 1000000L;
    while (atomic_load(value) != wanted) {
        if (clock_ns(CLOCK_MONOTONIC) > end)
            bad("%s: expected %lu, got %lu", what, wanted, atomic_load(value));
        sleep_ms(1);
    }
}

static void stand_still(void)
{
    pthread_mutex_lock(&gate.mutex);
    gate.standing++;
    pthread_cond_broadcast(&gate.changed);
    while (gate.closed)
        pthread_cond_wait(&gate.changed, &gate.mutex);
    gate.standing--;
    pthread_mutex_unlock(&gate.mutex);
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    self = worker;
    atomic_store(&worker->tid, gettid());
    pthread_setname_np(pthread_self(), worker->name);
    if ((worker - workers) % 2) {
        stack_t stack = {.ss_sp = malloc(ALTERNATE_STACK_BYTES), .ss_size = ALTERNATE_STACK_BYTES};
        if (sigaltstack(&stack, NULL))
            complain("sigaltstack: %s", strerror(errno));
    }
    sigset_t blocked;
    sigemptyset(&blocked);
    if (worker->blocks_any)
        sigaddset(&blocked, SIGNAL_ANY);
    pthread_sigmask(SIG_SETMASK, &blocked, NULL);
    for (;;) {
        worker->step(worker);
        atomic_fetch_add(&worker->steps, 1);
        if (self != worker || atomic_load(&worker->tid) != gettid())
            complain("%s has become another thread", worker->name);
        if (!worker->follows && atomic_load(&gate.closed))
            stand_still();
    }
    return NULL;
}

static void set_up(void)
{
    const char *text = getenv("GUEST_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 10) : (uint64_t)clock_ns(CLOCK_REALTIME);
    fprintf(stderr, "stress: GUEST_SEED=%lu\n", seed);
    sigset_t all;
    sigfillset(&all);
    must_thread(pthread_sigmask(SIG_SETMASK, &all, NULL), "block signals");
    for (struct worker *worker = workers; worker->name; worker++) {
        worker->random = mix(seed + mix(worker - workers));
        if (worker->prepare)
            worker->prepare(worker);
    }
    for (struct worker *worker = workers; worker->name; worker++)
        must_thread(pthread_create(&worker->thread, NULL, work, worker), "pthread_create");
    for (struct worker *worker = workers; worker->name; worker++)
        await(&worker->tid, 1, worker->name);
}

static int drivers(void)
{
    int count = 0;
    for (struct worker *worker = workers; worker->name; worker++)
        count += !worker->follows;
    return count;
}

/* Every worker lives: it has made a step since it was last seen. */
static void expect_steps(void)
{
    int64_t end = clock_ns(CLOCK_MONOTONIC) + PATIENCE_MS * 1000000L;
    for (struct worker *worker = workers; worker->name; worker++) {
        while (atomic_load(&worker->steps) == worker->steps_seen) {
            if (clock_ns(CLOCK_MONOTONIC) > end)
                bad("%s hangs after %ld steps (state %c)", worker->name, worker->steps_seen, thread_state(worker->tid));
            sleep_ms(1);
        }
        worker->steps_seen = atomic_load(&worker->steps);
    }
}

static void close_gate(void)
{
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += PATIENCE_MS / 1000;
    pthread_mutex_lock(&gate.mutex);
    atomic_store(&gate.closed, 1);
    int error = 0;
    while (gate.standing < drivers() && !error)
        error = pthread_cond_clockwait(&gate.changed, &gate.mutex, CLOCK_MONOTONIC, &end);
    int standing = gate.standing;
    pthread_mutex_unlock(&gate.mutex);
    expect(drivers(), standing, "workers at the gate");
}

static void open_gate(void)
{
    pthread_mutex_lock(&gate.mutex);
    atomic_store(&gate.closed, 0);
    pthread_cond_broadcast(&gate.changed);
    pthread_mutex_unlock(&gate.mutex);
}

static void check(void)
{
    expect_steps();
    close_gate();
    for (struct worker *worker = workers; worker->name; worker++)
        if (worker->verify)
            worker->verify(worker);
    open_gate();
}

const struct item item_stress = {"stress", set_up, check, NULL, TREE | APART};
