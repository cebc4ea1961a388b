/* Threads that sit in a blocking call while their process is checkpointed.
 *
 * A sitter makes its call, keeps the result against what was expected, and makes the call again. A call that returns
 * by itself (an interrupted system call that was not restarted) therefore shows as a wrong result, or as a round that
 * nobody asked for. */
#include "guest.h"

static void *sit(void *argument)
{
    struct sitter *sitter = argument;
    atomic_store(&sitter->tid, gettid());
    for (;;) {
        atomic_fetch_add(&sitter->begun, 1);
        errno = 0;
        long result = sitter->sit(sitter);
        int error = result < 0 ? errno : 0;
        if (result != sitter->result || error != sitter->error)
            complain("%s: expected %ld (%s), got %ld (%s)", sitter->what, sitter->result, strerror(sitter->error),
                     result, strerror(error));
        atomic_fetch_add(&sitter->done, 1);
    }
    return NULL;
}

/* Number of the system call that a thread blocks in, or -1 where /proc does not tell. */
static long call_of(pid_t tid)
{
    char path[64], text[128] = "";
    snprintf(path, sizeof path, "/proc/self/task/%d/syscall", tid);
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor >= 0 && read(descriptor, text, sizeof text - 1) < 0)
        text[0] = 0;
    close(descriptor);
    return text[0] >= '0' && text[0] <= '9' ? strtol(text, NULL, 10) : -1;
}

static void settle(struct sitter *sitter)
{
    await(&sitter->begun, sitter->done + 1, sitter->what);
    await_state(thread_state, sitter->tid, 'S', sitter->what);
}

/* Waits until the sitter is in its call again. Behind a restore it may still be on its way back there, and some ways of
 * waking (a signal to pause) reach only a thread that has arrived. */
static void arrive(const struct sitter *sitter)
{
    for (int waited_ms = 0; waited_ms < PATIENCE_MS; waited_ms++) {
        long call = thread_state(sitter->tid) == 'S' ? call_of(sitter->tid) : -2;
        if (call == sitter->call || call == SYS_restart_syscall)
            return;
        sleep_ms(1);
    }
    bad("%s: expected to sit in call %ld, got %c in call %ld", sitter->what, sitter->call, thread_state(sitter->tid),
        call_of(sitter->tid));
}

void sitters_start(struct sitter *sitters, size_t count)
{
    for (size_t i = 0; i < count; i++)
        must_thread(pthread_create(&sitters[i].thread, NULL, sit, &sitters[i]), "pthread_create");
    for (size_t i = 0; i < count; i++) {
        settle(&sitters[i]);
        sitters[i].call = call_of(sitters[i].tid);
    }
}

void sitters_check(struct sitter *sitters, size_t count)
{
    int wanted[count];
    for (size_t i = 0; i < count; i++) {
        struct sitter *sitter = &sitters[i];
        wanted[i] = sitter->done + 1;
        if (sitter->wake) {
            expect(wanted[i], sitter->begun, "%s: rounds begun", sitter->what);
            arrive(sitter);
            sitter->wake(sitter);
        }
    }
    for (size_t i = 0; i < count; i++) {
        await(&sitters[i].done, wanted[i], sitters[i].what);
        settle(&sitters[i]);
        if (sitters[i].wake)
            expect(wanted[i], sitters[i].done, "%s: rounds", sitters[i].what);
    }
}
