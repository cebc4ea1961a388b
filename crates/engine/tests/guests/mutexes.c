/* Locks of threads: threads wait at a condition, a semaphore and a barrier, over and over, and at a mutex,
 * a priority-inheriting mutex and a lock for readers. Each waiter must come through when it is let in, not before. */
#include "guest.h"

#include <semaphore.h>

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier;
static sem_t semaphore;
static bool flag;

static long wait_condition(struct sitter *sitter)
{
    int error = 0;
    (void)sitter;
    pthread_mutex_lock(&guard);
    while (!flag && !error)
        error = pthread_cond_wait(&condition, &guard);
    flag = false;
    pthread_mutex_unlock(&guard);
    return error;
}

static void wake_condition(struct sitter *sitter)
{
    (void)sitter;
    pthread_mutex_lock(&guard);
    flag = true;
    pthread_cond_signal(&condition);
    pthread_mutex_unlock(&guard);
}

static long wait_semaphore(struct sitter *sitter)
{
    (void)sitter;
    return sem_wait(&semaphore);
}

static void wake_semaphore(struct sitter *sitter)
{
    (void)sitter;
    sem_post(&semaphore);
}

static long wait_barrier(struct sitter *sitter)
{
    (void)sitter;
    int result = pthread_barrier_wait(&barrier);
    return result == PTHREAD_BARRIER_SERIAL_THREAD ? 0 : result;
}

static void wake_barrier(struct sitter *sitter)
{
    wait_barrier(sitter);
}

static struct sitter sitters[] = {
    {.what = "condition", .sit = wait_condition, .wake = wake_condition},
    {.what = "semaphore", .sit = wait_semaphore, .wake = wake_semaphore},
    {.what = "barrier", .sit = wait_barrier, .wake = wake_barrier},
};

/* A lock that the serving thread holds while another waits for it. */
struct contended {
    const char *what;
    void *lock;
    int (*take)(void *), (*give)(void *), (*take_as_waiter)(void *);
    pthread_t waiter;
    _Atomic int tid, inside;
};

static int take_mutex(void *lock)
{
    return pthread_mutex_lock(lock);
}

static int give_mutex(void *lock)
{
    return pthread_mutex_unlock(lock);
}

static int take_written(void *lock)
{
    return pthread_rwlock_wrlock(lock);
}

static int take_read(void *lock)
{
    return pthread_rwlock_rdlock(lock);
}

static int give_read(void *lock)
{
    return pthread_rwlock_unlock(lock);
}

static pthread_mutex_t plain = PTHREAD_MUTEX_INITIALIZER, inheriting;
static pthread_rwlock_t readers = PTHREAD_RWLOCK_INITIALIZER;
static struct contended contended[] = {
    {.what = "mutex", .lock = &plain, .take = take_mutex, .give = give_mutex, .take_as_waiter = take_mutex},
    {.what = "inheriting mutex", .lock = &inheriting, .take = take_mutex, .give = give_mutex,
     .take_as_waiter = take_mutex},
    {.what = "lock for readers", .lock = &readers, .take = take_written, .give = give_read,
     .take_as_waiter = take_read},
};

static void *contend(void *argument)
{
    struct contended *one = argument;
    atomic_store(&one->tid, gettid());
    int error = one->take_as_waiter(one->lock);
    if (error)
        complain("%s: expected success, got %s", one->what, strerror(error));
    atomic_store(&one->inside, 1);
    one->give(one->lock);
    return NULL;
}

static void make_contended(struct contended *one)
{
    one->tid = one->inside = 0;
    must_thread(one->take(one->lock), one->what);
    must_thread(pthread_create(&one->waiter, NULL, contend, one), "pthread_create");
    await(&one->tid, 1, one->what);
    await_state(thread_state, one->tid, 'S', one->what);
}

static void set_up(void)
{
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    must_thread(pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT), "pthread_mutexattr_setprotocol");
    must_thread(pthread_mutex_init(&inheriting, &attributes), "pthread_mutex_init");
    must(sem_init(&semaphore, 0, 0), "sem_init");
    must_thread(pthread_barrier_init(&barrier, NULL, 2), "pthread_barrier_init");
    sitters_start(sitters, COUNT(sitters));
    for (size_t i = 0; i < COUNT(contended); i++)
        make_contended(&contended[i]);
}

static void check(void)
{
    sitters_check(sitters, COUNT(sitters));
    for (size_t i = 0; i < COUNT(contended); i++) {
        struct contended *one = &contended[i];
        expect(0, one->inside, "%s: waiter inside", one->what);
        must_thread(one->give(one->lock), one->what);
        await(&one->inside, 1, one->what);
        must_thread(pthread_join(one->waiter, NULL), "pthread_join");
        make_contended(one);
    }
}

const struct item item_mutexes = {.name = "mutexes", .set_up = set_up, .check = check};
