/* A robust mutex that a thread holds: when the thread ends, the kernel has to walk its robust list and hand the mutex
 * on. A restore has to register that list anew, or the next one to lock waits for ever. */
#include "guest.h"

#include <semaphore.h>

static pthread_mutex_t robust;
static pthread_t owner;
static _Atomic int owned;
static sem_t end_owner;

static void *own(void *argument)
{
    (void)argument;
    if (pthread_mutex_lock(&robust) != 0)
        complain("robust mutex: expected the lock, got none");
    atomic_store(&owned, 1);
    while (sem_wait(&end_owner) < 0)
        continue;
    return NULL;
}

static void give_owner(void)
{
    owned = 0;
    must_thread(pthread_create(&owner, NULL, own, NULL), "pthread_create");
    await(&owned, 1, "owner of the robust mutex");
}

static void set_up_robust(void)
{
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    must_thread(pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST), "pthread_mutexattr_setrobust");
    must_thread(pthread_mutex_init(&robust, &attributes), "pthread_mutex_init");
    must(sem_init(&end_owner, 0, 0), "sem_init");
    give_owner();
}

static void check_robust(void)
{
    struct timespec limit = {clock_ns(CLOCK_REALTIME) / 1000000000 + PATIENCE_MS / 1000, 0};
    expect(EBUSY, pthread_mutex_trylock(&robust), "robust mutex while its owner lives");
    must(sem_post(&end_owner), "sem_post");
    expect(EOWNERDEAD, pthread_mutex_timedlock(&robust, &limit), "robust mutex after its owner ended");
    must_thread(pthread_mutex_consistent(&robust), "pthread_mutex_consistent");
    must_thread(pthread_mutex_unlock(&robust), "pthread_mutex_unlock");
    must_thread(pthread_join(owner, NULL), "pthread_join");
    give_owner();
}

const struct item item_mutex_robust = {.name = "mutex-robust", .set_up = set_up_robust, .check = check_robust};
