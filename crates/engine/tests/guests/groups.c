/* Groups, sessions and ends of processes: `tree-groups` (children in groups and sessions of their own, signals to a
 * group), `tree-zombies` (children that ended and were not waited for), `tree-waits` (threads in wait4 and waitid). */
#include "guest.h"

#include <sys/wait.h>

static pid_t group, session;
static _Atomic int signals;

static void count(int number)
{
    (void)number;
    atomic_fetch_add(&signals, 1);
}

static void remember(void)
{
    group = getpgrp();
    session = getsid(0);
    signal(SIGUSR1, count);
}

static void check_remembered(void)
{
    expect(group, getpgrp(), "group of a child");
    expect(session, getsid(0), "session of a child");
}

static void lead_group(void)
{
    must(setpgid(0, 0), "setpgid");
    remember();
}

static void lead_session(void)
{
    must(setsid(), "setsid");
    remember();
}

static pid_t joined;

static void join_group(void)
{
    must(setpgid(0, joined), "setpgid");
    remember();
}

static void unique_signals(char *line, size_t size_bytes)
{
    /* Not unique at all: children answer this way how many signals came. */
    snprintf(line, size_bytes, "%d", signals);
}

static const struct item leader = {.set_up = lead_group, .check = check_remembered, .unique = unique_signals};
static const struct item follower = {.set_up = join_group, .check = check_remembered, .unique = unique_signals};
static const struct item lone = {.set_up = lead_session, .check = check_remembered, .unique = unique_signals};
static struct child members[3];

static void set_up_groups(void)
{
    child_start(&members[0], &leader);
    joined = members[0].pid;
    child_start(&members[1], &follower);
    child_start(&members[2], &lone);
}

static int signals_of(const struct child *child)
{
    char reply[64];
    child_ask(child, "unique", reply, sizeof reply);
    return atoi(reply);
}

static void check_groups(void)
{
    int before[3];
    for (int i = 0; i < 3; i++) {
        child_check(&members[i], "member of a group");
        before[i] = signals_of(&members[i]);
    }
    expect(members[0].pid, getpgid(members[1].pid), "group of the follower");
    expect(members[2].pid, getsid(members[2].pid), "session of the lone child");
    expect(getsid(0), getsid(members[0].pid), "session of the leader");
    must(kill(-members[0].pid, SIGUSR1), "kill of a group");
    expect(before[0] + 1, signals_of(&members[0]), "signals of the leader");
    expect(before[1] + 1, signals_of(&members[1]), "signals of the follower");
    expect(before[2], signals_of(&members[2]), "signals of the lone child");
}

const struct item item_tree_groups = {
    .name = "tree-groups", .set_up = set_up_groups, .check = check_groups, .traits = TREE};

static pid_t exited, killed;

static pid_t make_zombie(int status, int signal_number)
{
    pid_t child = must(fork(), "fork");
    if (child == 0) {
        if (signal_number)
            raise(signal_number);
        _exit(status);
    }
    await_state(process_state, child, 'Z', "child that ended");
    return child;
}

static void set_up_zombies(void)
{
    exited = make_zombie(42, 0);
    killed = make_zombie(0, SIGTERM);
}

static void check_zombies(void)
{
    int status;
    siginfo_t information;
    expect('Z', process_state(exited), "state of the first child");
    /* WNOWAIT leaves the zombie, so the later wait finds it again. */
    must(waitid(P_PID, exited, &information, WEXITED | WNOWAIT), "waitid");
    expect(CLD_EXITED, information.si_code, "how the first child ended");
    expect(42, information.si_status, "status of the first child");
    expect(getuid(), information.si_uid, "user of the first child");
    expect(exited, must(waitpid(exited, &status, 0), "waitpid"), "waitpid");
    expect(1, WIFEXITED(status), "first child exited");
    expect(42, WEXITSTATUS(status), "status of the first child");
    expect(killed, must(waitpid(-1, &status, WNOHANG), "waitpid"), "waitpid for any child");
    expect(1, WIFSIGNALED(status), "second child killed");
    expect(SIGTERM, WTERMSIG(status), "signal of the second child");
    expect_error(ECHILD, waitpid(-1, &status, WNOHANG), "waitpid without children");
    set_up_zombies();
}

const struct item item_tree_zombies = {
    .name = "tree-zombies", .set_up = set_up_zombies, .check = check_zombies, .traits = TREE};

/* Each round makes a child that reads one byte and exits, and waits for it. */
static long wait_for_child(struct sitter *sitter)
{
    int status = 0;
    siginfo_t information;
    char byte;
    pid_t child = fork();
    if (child == 0) {
        /* Without the writing ends, so that the end of the guest ends it too. */
        close_range(3, sitter->descriptor - 1, 0);
        close_range(sitter->descriptor + 1, ~0u, 0);
        _exit(read(sitter->descriptor, &byte, 1) == 1 ? 33 : 1);
    }
    if (sitter->memory)
        return waitid(P_PID, child, &information, WEXITED) < 0 ? -1 : information.si_status;
    return waitpid(child, &status, 0) != child ? -1 : WEXITSTATUS(status);
}

static void let_child_end(struct sitter *sitter)
{
    expect_written(sitter->other, "e", 1, sitter->what);
}

static struct sitter waiters[2] = {
    {.what = "wait4", .sit = wait_for_child, .wake = let_child_end, .result = 33},
    {.what = "waitid", .sit = wait_for_child, .wake = let_child_end, .result = 33, .memory = waiters},
};

static void set_up_waits(void)
{
    for (size_t i = 0; i < COUNT(waiters); i++) {
        int ends[2];
        must(pipe(ends), "pipe");
        waiters[i].descriptor = ends[0];
        waiters[i].other = ends[1];
    }
    sitters_start(waiters, COUNT(waiters));
    /* The fork comes before the wait, and both look the same from here. */
    sleep_ms(20);
}

static void check_waits(void)
{
    sitters_check(waiters, COUNT(waiters));
    sleep_ms(20);
}

const struct item item_tree_waits = {
    .name = "tree-waits", .set_up = set_up_waits, .check = check_waits, .traits = TREE};
