/* Threads: `threads` holds 64 of them, each with a name, a mask, an alternate stack, thread-local storage, a robust
 * list, an affinity, a nice value, a policy and a timer slack of its own; `threads-end` ends and joins threads that a
 * restore brought back. */
#include "guest.h"

#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>

enum { THREADS = 64, ALTERNATE_BYTES = 16 * 1024 };

static pthread_barrier_t barrier;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turned = PTHREAD_COND_INITIALIZER;
static int round_number;
static _Atomic int ready, finished;
static int processors[CPU_SETSIZE], processor_count;

/* What one thread reads of itself, to be compared with what it read at first. */
struct self {
    char name[16];
    sigset_t mask;
    stack_t alternate;
    pid_t tid;
    pthread_t handle;
    void *robust, *local_place;
    long local;
    cpu_set_t affinity;
    int nice, policy, slack_ns;
};
static __thread long local = 5;

static void look(struct self *self)
{
    size_t size_bytes;
    memset(self, 0, sizeof *self);
    prctl(PR_GET_NAME, self->name);
    pthread_sigmask(SIG_BLOCK, NULL, &self->mask);
    sigaltstack(NULL, &self->alternate);
    self->tid = gettid();
    self->handle = pthread_self();
    syscall(SYS_get_robust_list, 0, &self->robust, &size_bytes);
    self->local_place = &local;
    self->local = local;
    sched_getaffinity(0, sizeof self->affinity, &self->affinity);
    self->nice = getpriority(PRIO_PROCESS, self->tid);
    self->policy = sched_getscheduler(0);
    self->slack_ns = prctl(PR_GET_TIMERSLACK);
}

static void dress(long index, char *alternate)
{
    char name[16];
    sigset_t mask;
    cpu_set_t affinity;
    snprintf(name, sizeof name, "worker %ld", index);
    prctl(PR_SET_NAME, name);
    sigemptyset(&mask);
    for (int bit = 0; bit < 6; bit++)
        if (index >> bit & 1)
            sigaddset(&mask, SIGRTMIN + 5 + bit);
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    sigaltstack(&(stack_t){.ss_sp = alternate, .ss_size = ALTERNATE_BYTES}, NULL);
    local = index * 1000;
    CPU_ZERO(&affinity);
    CPU_SET(processors[index % processor_count], &affinity);
    sched_setaffinity(0, sizeof affinity, &affinity);
    sched_setscheduler(0, index % 4 == 1 ? SCHED_BATCH : index % 4 == 2 ? SCHED_IDLE : SCHED_OTHER,
                       &(struct sched_param){0});
    setpriority(PRIO_PROCESS, gettid(), index % 8);
    prctl(PR_SET_TIMERSLACK, 60000 + index * 1000);
}

static void compare(long index, const struct self *first)
{
    struct self now;
    look(&now);
    char name[16];
    snprintf(name, sizeof name, "worker %ld", index);
    if (strcmp(now.name, name) != 0)
        complain("name of thread %ld: expected %s, got %s", index, name, now.name);
    else if (now.tid != first->tid || syscall(SYS_gettid) != first->tid)
        complain("thread %ld: expected number %d, got %d", index, first->tid, now.tid);
    else if (memcmp(&now.mask, &first->mask, 8) != 0)
        complain("mask of thread %ld: expected what it was, got another", index);
    else if (now.robust != first->robust)
        complain("robust list of thread %ld: expected %p, got %p", index, first->robust, now.robust);
    else if (now.local != index * 1000 || now.local_place != first->local_place || now.handle != first->handle)
        complain("local storage of thread %ld: expected %ld, got %ld", index, index * 1000, now.local);
    else if (now.alternate.ss_sp != first->alternate.ss_sp || now.alternate.ss_size != ALTERNATE_BYTES)
        complain("alternate stack of thread %ld: expected %p, got %p", index, first->alternate.ss_sp,
                 now.alternate.ss_sp);
    else if (!CPU_EQUAL(&now.affinity, &first->affinity))
        complain("affinity of thread %ld: expected what it was, got another", index);
    else if (now.nice != first->nice || now.policy != first->policy)
        complain("thread %ld: expected nice %d and policy %d, got %d and %d", index, first->nice, first->policy,
                 now.nice, now.policy);
    else if (now.slack_ns != first->slack_ns)
        complain("timer slack of thread %ld: expected %d, got %d", index, first->slack_ns, now.slack_ns);
}

static void *work(void *argument)
{
    static char alternates[THREADS][ALTERNATE_BYTES];
    struct self first;
    long index = (long)argument;
    dress(index, alternates[index]);
    look(&first);
    for (int round = 0;; round++) {
        compare(index, &first);
        pthread_mutex_lock(&turn);
        atomic_fetch_add(round ? &finished : &ready, 1);
        while (round_number == round)
            pthread_cond_wait(&turned, &turn);
        pthread_mutex_unlock(&turn);
    }
    return NULL;
}

static void set_up(void)
{
    cpu_set_t affinity;
    pthread_attr_t attributes;
    pthread_t thread;
    must(sched_getaffinity(0, sizeof affinity, &affinity), "sched_getaffinity");
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &affinity))
            processors[processor_count++] = i;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 64 * 1024);
    for (long i = 0; i < THREADS; i++)
        must_thread(pthread_create(&thread, &attributes, work, (void *)i), "pthread_create");
    await(&ready, THREADS, "threads");
}

static void check(void)
{
    int before = finished;
    pthread_mutex_lock(&turn);
    round_number++;
    pthread_cond_broadcast(&turned);
    pthread_mutex_unlock(&turn);
    await(&finished, before + THREADS, "threads that looked at themselves");
}

const struct item item_threads = {.name = "threads", .set_up = set_up, .check = check};

enum { ENDING = 8 };
static pthread_t ending[ENDING];

static void *wait_and_end(void *argument)
{
    pthread_barrier_wait(&barrier);
    return (char *)argument + 1;
}

static void begin_ending(void)
{
    for (long i = 0; i < ENDING; i++)
        must_thread(pthread_create(&ending[i], NULL, wait_and_end, (void *)(i * 10)), "pthread_create");
}

static void set_up_end(void)
{
    pthread_barrier_init(&barrier, NULL, ENDING + 1);
    begin_ending();
}

static void check_end(void)
{
    /* pthread_join waits for the kernel to clear the thread's number, which has to be registered anew in a restore. */
    void *value;
    struct timespec limit = {clock_ns(CLOCK_REALTIME) / 1000000000 + PATIENCE_MS / 1000, 0};
    pthread_barrier_wait(&barrier);
    for (long i = 0; i < ENDING; i++) {
        must_thread(pthread_timedjoin_np(ending[i], &value, &limit), "pthread_timedjoin_np");
        expect(i * 10 + 1, (long)value, "value of thread %ld", i);
    }
    begin_ending();
}

const struct item item_threads_end = {.name = "threads-end", .set_up = set_up_end, .check = check_end};
