/* Workers of the stress program that meet each other: futexes, mutexes, signals, children, threads, clocks, registers. */
#include "stress.h"

#include <linux/futex.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define SIGNAL_ONE (SIGRTMIN + 2)
#define THREADS_AT_ONCE 4
#define SMALL_STACK_BYTES (96 * 1024)

/* A token goes forth (odd) and back (even), with a value that only its last holder can have made. */
struct token {
    _Atomic uint32_t turn;
    uint64_t value;
    pthread_mutex_t mutex;
    pthread_cond_t passed;
    int kind;
};

void token_prepare(struct worker *worker)
{
    struct token *token = calloc(1, sizeof *token);
    must_thread(pthread_mutex_init(&token->mutex, NULL), "pthread_mutex_init");
    must_thread(pthread_cond_init(&token->passed, NULL), "pthread_cond_init");
    token->kind = worker->kind;
    worker->state = worker[1].state = token;
}

/* As the C library's own calls of it: with its number right before the instruction. */
static long futex(_Atomic uint32_t *word, int operation, uint32_t value, const struct timespec *limit)
{
    long result;
    register const struct timespec *fourth __asm__("r10") = limit;
    __asm__ volatile("mov %1, %%eax; syscall"
                     : "=&a"(result)
                     : "i"(SYS_futex), "D"(word), "S"((long)operation), "d"((long)value), "r"(fourth)
                     : "rcx", "r11", "memory");
    if (result >= 0)
        return result;
    errno = -result;
    return -1;
}

static void token_wait(struct worker *worker, struct token *token, uint32_t parity)
{
    if (token->kind == TOKEN_CONDITION) {
        pthread_mutex_lock(&token->mutex);
        while (atomic_load(&token->turn) % 2 != parity)
            pthread_cond_wait(&token->passed, &token->mutex);
        pthread_mutex_unlock(&token->mutex);
        return;
    }
    for (uint32_t seen; (seen = atomic_load(&token->turn)) % 2 != parity;) {
        /* Relative, and rarely long enough to matter: a lost wake shows as a hang of the others. */
        struct timespec limit = {3600, 0};
        bool limited = draw(worker, 2);
        unsigned long before = handled;
        errno = 0;
        long result = futex(&token->turn, FUTEX_WAIT_PRIVATE, seen, limited ? &limit : NULL);
        if (result < 0 && errno == EINTR && handled == before)
            complain("%s: futex: interrupted without a signal", worker->name);
        if (result < 0 && errno != EAGAIN && errno != EINTR)
            complain("%s: futex: %s", worker->name, strerror(errno));
    }
}

static void token_give(struct token *token)
{
    if (token->kind == TOKEN_CONDITION) {
        pthread_mutex_lock(&token->mutex);
        atomic_fetch_add(&token->turn, 1);
        pthread_cond_signal(&token->passed);
        pthread_mutex_unlock(&token->mutex);
        return;
    }
    atomic_fetch_add(&token->turn, 1);
    futex(&token->turn, FUTEX_WAKE_PRIVATE, 1, NULL);
}

void token_pass(struct worker *worker)
{
    struct token *token = worker->state;
    uint64_t value = token->value = worker->random = mix(worker->random);
    token_give(token);
    token_wait(worker, token, 0);
    if (token->value != mix(value))
        complain("%s: the token came back with another value", worker->name);
}

void token_return(struct worker *worker)
{
    struct token *token = worker->state;
    token_wait(worker, token, 1);
    token->value = mix(token->value);
    token_give(token);
}

/* Two sums that are equal whenever nobody holds the mutex. */
static struct tally {
    pthread_mutex_t mutex;
    uint64_t left, right;
} tallies[2];

static pthread_once_t tallies_made = PTHREAD_ONCE_INIT;

static void make_tallies(void)
{
    for (size_t i = 0; i < COUNT(tallies); i++) {
        pthread_mutexattr_t attributes;
        pthread_mutexattr_init(&attributes);
        pthread_mutexattr_setprotocol(&attributes, i ? PTHREAD_PRIO_INHERIT : PTHREAD_PRIO_NONE);
        pthread_mutex_init(&tallies[i].mutex, &attributes);
    }
}

void tally_step(struct worker *worker)
{
    struct tally *tally = &tallies[worker->kind != PTHREAD_PRIO_NONE];
    pthread_once(&tallies_made, make_tallies);
    int error = pthread_mutex_lock(&tally->mutex);
    if (error)
        complain("%s: lock: %s", worker->name, strerror(error));
    uint64_t value = draw(worker, 1000);
    if (tally->left != tally->right)
        complain("%s: two hold the mutex", worker->name);
    tally->left += value;
    if (draw(worker, 64) == 0)
        usleep(draw(worker, 300));
    tally->right += value;
    error = pthread_mutex_unlock(&tally->mutex);
    if (error)
        complain("%s: unlock: %s", worker->name, strerror(error));
}

void tally_verify(struct worker *worker)
{
    for (size_t i = 0; i < COUNT(tallies); i++)
        expect(tallies[i].left, tallies[i].right, "%s: sum %zu", worker->name, i);
}

static _Atomic uint64_t queued, arrived, queued_sum, arrived_sum;

static void on_signal(int signal, siginfo_t *info, void *context)
{
    (void)context;
    int error = errno;
    uint64_t room[32];
    for (size_t i = 0; i < COUNT(room); i++)
        room[i] = mix(i + signal);
    handled++;
    if (info->si_code == SI_QUEUE) {
        atomic_fetch_add(&arrived_sum, info->si_value.sival_int);
        atomic_fetch_add(&arrived, 1);
    }
    for (size_t i = 0; i < COUNT(room); i++)
        if (room[i] != mix(i + signal))
            complain("signal %d: the handler's own memory differs", signal);
    errno = error;
}

void signals_prepare(struct worker *worker)
{
    (void)worker;
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    must(sigaction(SIGUSR1, &action, NULL), "sigaction");
    must(sigaction(SIGNAL_ONE, &action, NULL), "sigaction");
    action.sa_flags |= SA_RESTART;
    must(sigaction(SIGNAL_ANY, &action, NULL), "sigaction");
}

void signals_send(struct worker *worker)
{
    union sigval value = {.sival_int = draw(worker, 1000)};
    size_t count = 0;
    while (workers[count].name)
        count++;
    struct worker *victim = draw(worker, 2) ? worker + 1 : &workers[draw(worker, count)];
    int result = 0;
    switch (draw(worker, 3)) {
    case 0:
        result = sigqueue(getpid(), SIGNAL_ANY, value) ? errno : 0;
        break;
    case 1:
        result = atomic_load(&victim->tid) ? pthread_sigqueue(victim->thread, SIGNAL_ONE, value) : EAGAIN;
        break;
    default:
        if (atomic_load(&victim->tid))
            pthread_kill(victim->thread, SIGUSR1);
        result = EAGAIN;
    }
    if (result == 0) {
        atomic_fetch_add(&queued_sum, value.sival_int);
        atomic_fetch_add(&queued, 1);
    } else if (result != EAGAIN) {
        complain("%s: sigqueue: %s", worker->name, strerror(result));
    }
    usleep(draw(worker, 400));
}

/* Sits in calls that a signal ends, each with its own rules for what comes after. */
void signals_sit(struct worker *worker)
{
    sigset_t all, none, before_set;
    sigfillset(&all);
    sigemptyset(&none);
    struct timespec limit = {0, 1000 + draw(worker, 3000000)};
    unsigned long before = handled;
    long result = 0;
    errno = 0;
    switch (draw(worker, 4)) {
    case 0: result = poll(NULL, 0, 1 + draw(worker, 4)); break;
    case 1: result = ppoll(NULL, 0, &limit, &none); break;
    case 2: result = nanosleep(&limit, NULL); break;
    default:
        pthread_sigmask(SIG_BLOCK, &all, &before_set);
        before = handled;
        result = ppoll(NULL, 0, &limit, &none);
        int error = errno;
        pthread_sigmask(SIG_SETMASK, &before_set, NULL);
        errno = error;
    }
    if (result < 0 && (errno != EINTR || handled == before))
        complain("%s: %s, with %lu handlers", worker->name, strerror(errno), handled - before);
}

void signals_verify(struct worker *worker)
{
    await_equal(&arrived, atomic_load(&queued), "queued signals");
    await_equal(&arrived_sum, atomic_load(&queued_sum), worker->name);
}

/* Memory that a child shares with its parent, and memory of which it has a copy. */
struct nursery {
    _Atomic uint64_t *shared;
    unsigned char *copied;
    uint64_t sum;
};

void fork_prepare(struct worker *worker)
{
    struct nursery *nursery = calloc(1, sizeof *nursery);
    void *shared = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(shared == MAP_FAILED ? -1 : 0, "mmap");
    nursery->shared = shared;
    nursery->copied = malloc(16 * PAGE_BYTES);
    worker->state = nursery;
}

static _Noreturn void child(struct nursery *nursery, uint64_t seed, uint64_t value, long nap_us)
{
    struct timespec nap = {0, nap_us * 1000};
    atomic_fetch_add(nursery->shared, value);
    while (nanosleep(&nap, &nap) && errno == EINTR)
        continue;
    _exit(first_difference(nursery->copied, 16 * PAGE_BYTES, seed) < 0 ? (int)(seed % 200) : 255);
}

void fork_step(struct worker *worker)
{
    struct nursery *nursery = worker->state;
    uint64_t seed = worker->random, value = draw(worker, 1000);
    long nap_us = draw(worker, 2) ? 0 : draw(worker, 3000);
    fill(nursery->copied, 16 * PAGE_BYTES, seed);
    pid_t pid = fork();
    if (pid == 0)
        child(nursery, seed, value, nap_us);
    /* The child has its copy, whatever happens to this one. */
    fill(nursery->copied, 16 * PAGE_BYTES, ~seed);
    if (pid < 0) {
        complain("%s: fork: %s", worker->name, strerror(errno));
        return;
    }
    int status = 0;
    if (RETRY(waitpid(pid, &status, 0)) != pid)
        complain("%s: waitpid: %s", worker->name, strerror(errno));
    else if (!WIFEXITED(status) || WEXITSTATUS(status) != (int)(seed % 200))
        complain("%s: expected exit status %d, got %#x", worker->name, (int)(seed % 200), status);
    nursery->sum += value;
    if (atomic_load(nursery->shared) != nursery->sum)
        complain("%s: expected %lu in shared memory, got %lu", worker->name, nursery->sum, *nursery->shared);
    usleep(draw(worker, 2000));
}

static void *short_life(void *argument)
{
    uint64_t value = (uint64_t)argument;
    unsigned char room[4096];
    fill(room, sizeof room, value);
    if (value % 2) {
        struct timespec nap = {0, value % 1000000};
        while (nanosleep(&nap, &nap) && errno == EINTR)
            continue;
    }
    return first_difference(room, sizeof room, value) < 0 ? (void *)mix(value) : NULL;
}

void spawn_step(struct worker *worker)
{
    pthread_t threads[THREADS_AT_ONCE];
    uint64_t values[THREADS_AT_ONCE], count = 1 + draw(worker, THREADS_AT_ONCE);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    if (draw(worker, 2))
        pthread_attr_setstacksize(&attributes, SMALL_STACK_BYTES);
    for (uint64_t i = 0; i < count; i++) {
        values[i] = worker->random = mix(worker->random);
        int error = pthread_create(&threads[i], &attributes, short_life, (void *)values[i]);
        if (error) {
            complain("%s: pthread_create: %s", worker->name, strerror(error));
            count = i;
        }
    }
    for (uint64_t i = 0; i < count; i++) {
        void *result = NULL;
        int error = pthread_join(threads[i], &result);
        if (error || result != (void *)mix(values[i]))
            complain("%s: a thread came back wrong: %s", worker->name, strerror(error));
    }
    pthread_attr_destroy(&attributes);
    usleep(draw(worker, 1000));
}

/* Sleeps are never too short, and clocks never go back. */
void sleep_step(struct worker *worker)
{
    static const clockid_t clocks[] = {CLOCK_MONOTONIC, CLOCK_BOOTTIME};
    clockid_t clock = clocks[draw(worker, COUNT(clocks))];
    int64_t wanted_ns = draw(worker, 5000000);
    bool absolute = draw(worker, 2);
    struct timespec start, end, wish = {0, wanted_ns};
    clock_gettime(clock, &start);
    if (absolute) {
        wish.tv_sec = start.tv_sec + (start.tv_nsec + wanted_ns) / 1000000000;
        wish.tv_nsec = (start.tv_nsec + wanted_ns) % 1000000000;
    }
    int error;
    do {
        unsigned long before = handled;
        error = clock_nanosleep(clock, absolute ? TIMER_ABSTIME : 0, &wish, absolute ? NULL : &wish);
        if (error == EINTR && handled == before)
            complain("%s: interrupted without a signal", worker->name);
    } while (error == EINTR);
    clock_gettime(clock, &end);
    int64_t slept_ns = (end.tv_sec - start.tv_sec) * 1000000000ll + end.tv_nsec - start.tv_nsec;
    if (error || slept_ns < wanted_ns)
        complain("%s: %s, slept %ld of %ld ns", worker->name, strerror(error), slept_ns, wanted_ns);
}

typedef uint64_t vector __attribute__((vector_size(64)));

struct computed {
    uint64_t whole[8];
    double real;
};

/* In the widest registers that the processor has. */
__attribute__((target_clones("avx512f", "avx2", "default"))) static struct computed compute(uint64_t seed)
{
    vector whole = {seed, seed + 1, seed + 2, seed + 3, seed + 4, seed + 5, seed + 6, seed + 7};
    double real = 1.5;
    for (uint64_t i = 0; i < 20000; i++) {
        whole = (whole ^ (whole << 13)) + i;
        whole ^= whole >> 7;
        real = real * 1.0000001 + 1.0 / (double)(i + 1);
    }
    struct computed computed = {.real = real};
    memcpy(computed.whole, &whole, sizeof whole);
    return computed;
}

void compute_prepare(struct worker *worker)
{
    struct computed *computed = malloc(sizeof *computed);
    *computed = compute(7);
    worker->state = computed;
}

void compute_step(struct worker *worker)
{
    struct computed *expected = worker->state, got = compute(7);
    if (memcmp(expected->whole, got.whole, sizeof got.whole) != 0 || expected->real != got.real)
        complain("%s: a computation in registers came out different", worker->name);
}
