/* Clocks, and waiting for something to come about, with a limit. */
#include "guest.h"

int64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    must(clock_gettime(clock, &now), "clock_gettime");
    return now.tv_sec * 1000000000ll + now.tv_nsec;
}

void sleep_ms(long duration_ms)
{
    struct timespec left = {duration_ms / 1000, duration_ms % 1000 * 1000000};
    while (nanosleep(&left, &left) < 0 && errno == EINTR)
        continue;
}

void await(_Atomic int *value, int wanted, const char *what)
{
    for (int waited_ms = 0; atomic_load(value) < wanted; waited_ms++) {
        if (waited_ms > PATIENCE_MS)
            bad("%s: expected to come, got nothing in %d ms", what, PATIENCE_MS);
        sleep_ms(1);
    }
}

static char state_in(const char *path)
{
    char text[1024];
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = descriptor < 0 ? 0 : read(descriptor, text, sizeof text - 1);
    close(descriptor);
    text[length < 0 ? 0 : length] = 0;
    /* The name in parentheses may hold anything, so the state is what follows the last one. */
    char *end = strrchr(text, ')');
    return end ? end[2] : '?';
}

char thread_state(pid_t tid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid);
    return state_in(path);
}

char process_state(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    return state_in(path);
}

void await_state(char (*state_of)(pid_t), pid_t id, char wanted, const char *what)
{
    char state = 0;
    for (int waited_ms = 0; waited_ms < PATIENCE_MS; waited_ms++) {
        state = state_of(id);
        if (state == wanted)
            return;
        sleep_ms(1);
    }
    bad("%s: expected state %c, got %c", what, wanted, state);
}
