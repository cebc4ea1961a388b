/* What the guest programs share: the protocol, checks that name what differs, helpers for threads and children.
 *
 * A guest sets one kind of state up, says "ready", blocks in a read of its channel, and checks itself whenever it is
 * asked to. Between "ready" and "check" the engine may have checkpointed and restored it, any number of times. A
 * guest knows nothing of that: whatever it checks must hold for a process that was never touched, too. (A connection
 * to outside is the exception, see `told_restored`.)
 *
 * Deliberately absent: knowledge of the engine, of sandboxes and of how often a guest was restored. */
#ifndef GUEST_H
#define GUEST_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define PAGE_BYTES 4096
#define HOUR_S 3600
/* How long a check waits for something that should happen at once; long, for loaded machines. */
#define PATIENCE_MS 20000

/* TREE: several processes. REFUSABLE: an engine may refuse this state by name, but must never restore it wrong.
 * OUTSIDER: state outside of the tree of the guest (a process whose parent is not in it, a peer on the network).
 * APART: in no list, only to be asked for by name. */
enum traits { PLAIN = 0, TREE = 1, REFUSABLE = 2, OUTSIDER = 4, APART = 8 };

struct item {
    const char *name;
    void (*set_up)(void);
    void (*check)(void);
    /* Writes values that two clones must not share; absent where there are none. */
    void (*unique)(char *line, size_t size_bytes);
    unsigned traits;
};

/* The table of all items, closed by an entry without a name (items.c). */
extern const struct item *const items[];
const struct item *find_item(const char *name);

/* Ends set-up or check with "bad: ...". For the thread that serves the channel only. */
_Noreturn void bad(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same from any other thread or from a signal handler's loop: the next check reports it. The first one counts. */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Ends set-up with "skip: ...": this machine lacks what the item needs. */
_Noreturn void skip(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Result of a system call that has to succeed; ends the check with its error otherwise. */
long must(long result, const char *what);
/* The same for functions of pthread, which return their error. */
void must_thread(int error, const char *what);
void expect(long expected, long got, const char *what, ...) __attribute__((format(printf, 3, 4)));
void expect_between(long low, long high, long got, const char *what);
void expect_text(const char *expected, const char *got, const char *what);
void expect_bytes(const void *expected, const void *got, size_t size_bytes, const char *what);
/* Expects a call to have failed with `error`; to be used right behind the call. */
void expect_error(int error, long result, const char *what);

/* A pattern that differs in every word and for every seed. */
void fill(void *memory, size_t size_bytes, uint64_t seed);
/* First place where memory differs from its pattern, or -1; for threads, which may not end a check. */
long first_difference(const void *memory, size_t size_bytes, uint64_t seed);
void expect_filled(const void *memory, size_t size_bytes, uint64_t seed, const char *what);

/* Path of a file in the guest's own directory under /tmp, which "end" removes. Never freed. */
const char *scratch(const char *name);
/* Makes "end" remove one file elsewhere. The path must stay valid. */
void remove_later(const char *path);
/* Reads a whole small file, such as one of /proc; returns the length and closes the text with a zero. */
size_t read_file(const char *path, char *text, size_t size_bytes);
/* Value of a line "Name:\tvalue" of /proc/self/status. */
void status_value(const char *name, char *value, size_t size_bytes);
/* Reads as many bytes as asked for and compares; a shorter answer is a failure. */
void expect_read(int descriptor, const void *expected, size_t size_bytes, const char *what);
void expect_written(int descriptor, const void *bytes, size_t size_bytes, const char *what);
/* Puts `descriptor` at the number `wanted`, with the flags it has. */
void move_descriptor(int descriptor, int wanted);

int64_t clock_ns(clockid_t clock);
void sleep_ms(long duration_ms);
/* Waits until `*value` is at least `wanted`. */
void await(_Atomic int *value, int wanted, const char *what);
/* State letter of one of this process's threads, or of a process, as /proc shows it. */
char thread_state(pid_t tid);
char process_state(pid_t pid);
void await_state(char (*state_of)(pid_t), pid_t id, char wanted, const char *what);

/* The connection to GUEST_CONNECT, or -1. */
extern int channel_descriptor;
/* Whether the command "restored" came. */
extern bool told_restored;
/* Answers commands on a channel until "end" or its close. */
void serve(const struct item *item, int in, int out);

/* sitter.c: a thread that sits in one blocking call, over and over. */
struct sitter {
    const char *what;
    /* Makes the call once and returns its result; errno counts when the result is negative. */
    long (*sit)(struct sitter *);
    /* Lets the call return; called by the check. Absent when time does it. */
    void (*wake)(struct sitter *);
    /* What the call must give: a result, or -1 and this errno. */
    long result;
    int error;
    /* What the two functions need. */
    int descriptor, other;
    void *memory;
    /* Kept by sitter.c. */
    pthread_t thread;
    long call;
    _Atomic int tid, begun, done;
};
void sitters_start(struct sitter *sitters, size_t count);
/* Wakes each sitter, expects its result, and sees it sit again. */
void sitters_check(struct sitter *sitters, size_t count);

/* child.c: a child process that serves an item of its own over two pipes. */
struct child {
    pid_t pid;
    int to, from;
};
void child_start(struct child *child, const struct item *item);
/* The same, with a fresh program image: executes this program with the item's name. */
void child_execute(struct child *child, const char *item);
void child_ask(const struct child *child, const char *command, char *reply, size_t size_bytes);
void child_check(const struct child *child, const char *what);
/* Sends "end" and expects the exit status zero. */
void child_end(struct child *child);

#endif
