/* What the workers of the stress program share: steps that stop at a gate, draws from a seed, interrupted calls.
 *
 * A worker makes steps all the time and checks what it sees in each. A driver stands still at the gate between two
 * steps while a check looks at everything; a follower answers a driver and has nothing left to do by then, so it sits
 * in its blocking call. Deliberately absent: any hint to a worker that something is about to happen to it. */
#ifndef STRESS_H
#define STRESS_H

#include "guest.h"

struct worker {
    const char *name;
    void (*step)(struct worker *);
    /* For the serving thread: called before the first step, and while every driver stands still. */
    void (*prepare)(struct worker *);
    void (*verify)(struct worker *);
    bool follows;
    bool blocks_any;
    /* What distinguishes workers with the same functions. */
    int kind;
    /* Kept by stress.c. */
    uint64_t random;
    pthread_t thread;
    _Atomic int tid;
    _Atomic long steps;
    long steps_seen;
    /* Kept by the worker. */
    void *state;
};

/* All workers, closed by one without a name (stress.c). */
extern struct worker workers[];

/* Signal handlers that have run in this thread. */
extern __thread volatile unsigned long handled;

/* The signal that is sent to the process and taken by any thread. The kernel may wake a thread for one that another
 * takes, and epoll_wait is not made again then: who uses that blocks it. */
#define SIGNAL_ANY (SIGRTMIN + 1)

uint64_t draw(struct worker *worker, uint64_t below);
uint64_t mix(uint64_t value);
/* Waits until `*value` is `wanted`; for `verify`. */
void await_equal(_Atomic uint64_t *value, uint64_t wanted, const char *what);

/* Makes a call again that a handler has interrupted. EINTR in a thread in which no handler ran is an error: the
 * process was told of something that is none of its business. */
#define RETRY(call)                                                                                                \
    ({                                                                                                             \
        long result_;                                                                                              \
        for (;;) {                                                                                                 \
            unsigned long before_ = handled;                                                                       \
            result_ = (long)(call);                                                                                \
            if (result_ >= 0 || errno != EINTR)                                                                    \
                break;                                                                                             \
            if (handled == before_)                                                                                \
                complain("%s: interrupted without a signal", #call);                                               \
        }                                                                                                          \
        result_;                                                                                                   \
    })

/* stress_memory.c: `kind` is which file there is to map. */
enum { MAPS_OF_PROGRAM, MAPS_OF_FILE };
void maps_prepare(struct worker *worker);
void maps_step(struct worker *worker);
void maps_verify(struct worker *worker);
void heap_prepare(struct worker *worker);
void heap_step(struct worker *worker);
void heap_verify(struct worker *worker);
void files_prepare(struct worker *worker);
void files_step(struct worker *worker);

/* stress_queues.c: `kind` of a stream. A follower stands behind its driver in the table. */
enum { STREAM_PIPE, STREAM_UNIX, STREAM_TCP };
void stream_prepare(struct worker *worker);
void stream_write(struct worker *worker);
void stream_read(struct worker *worker);
void stream_verify(struct worker *worker);
void events_prepare(struct worker *worker);
void events_send(struct worker *worker);
void events_receive(struct worker *worker);
void events_verify(struct worker *worker);

/* stress_tasks.c: `kind` of a token is what its pair waits with, that of a tally the protocol of its mutex. */
enum { TOKEN_FUTEX, TOKEN_CONDITION };
void token_prepare(struct worker *worker);
void token_pass(struct worker *worker);
void token_return(struct worker *worker);
void tally_step(struct worker *worker);
void tally_verify(struct worker *worker);
void signals_prepare(struct worker *worker);
void signals_send(struct worker *worker);
void signals_sit(struct worker *worker);
void signals_verify(struct worker *worker);
void fork_prepare(struct worker *worker);
void fork_step(struct worker *worker);
void spawn_step(struct worker *worker);
void sleep_step(struct worker *worker);
void compute_prepare(struct worker *worker);
void compute_step(struct worker *worker);

#endif
