/* What a parent holds of its children: `pidfds` (descriptors of one that lives and of one that ended), `tree-stopped`
 * (a child stopped by a signal), `tree-notices` (a SIGCHLD that waits to be taken). */
#include "guest.h"

#include <poll.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static pid_t living, ended;
static int living_descriptor, ended_descriptor;

/* A child that blocks until its parent ends or lets it go. */
static pid_t make_child(int *hold)
{
    int ends[2];
    char byte;
    must(pipe2(ends, O_CLOEXEC), "pipe2");
    pid_t child = must(fork(), "fork");
    if (child == 0) {
        close_range(3, ends[0] - 1, 0);
        close_range(ends[0] + 1, ~0u, 0);
        _exit(read(ends[0], &byte, 1) == 1 ? 9 : 1);
    }
    close(ends[0]);
    *hold = ends[1];
    return child;
}

static int hold_living, hold_ended;

static bool is_over(int descriptor)
{
    return must(poll(&(struct pollfd){.fd = descriptor, .events = POLLIN}, 1, 0), "poll of a pidfd") == 1;
}

static void set_up_pidfds(void)
{
    living = make_child(&hold_living);
    living_descriptor = must(pidfd_open(living, PIDFD_NONBLOCK), "pidfd_open");
    ended = make_child(&hold_ended);
    ended_descriptor = must(pidfd_open(ended, 0), "pidfd_open");
    expect_written(hold_ended, "e", 1, "pipe");
    await_state(process_state, ended, 'Z', "child that ended");
}

static void check_pidfds(void)
{
    siginfo_t information = {0};
    char path[64], text[512], line[32];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", living_descriptor);
    snprintf(line, sizeof line, "Pid:\t%d\n", living);
    read_file(path, text, sizeof text);
    if (!strstr(text, line))
        bad("process of the pidfd: expected %d, got another", living);
    expect(O_NONBLOCK, fcntl(living_descriptor, F_GETFL) & O_NONBLOCK, "flags of the pidfd");
    expect(FD_CLOEXEC, fcntl(living_descriptor, F_GETFD), "close-on-exec of the pidfd");
    expect(0, is_over(living_descriptor), "living child over");
    expect(1, is_over(ended_descriptor), "ended child over");
    must(pidfd_send_signal(living_descriptor, 0, NULL, 0), "signal 0 by the pidfd");
    expect_error(EAGAIN, waitid(P_PIDFD, living_descriptor, &information, WEXITED), "wait for the living child");
    must(waitid(P_PIDFD, ended_descriptor, &information, WEXITED | WNOWAIT), "wait for the ended child");
    expect(9, information.si_status, "status of the ended child");

    /* The living one ends now; its descriptor tells. Another takes its place under the same number. */
    must(pidfd_send_signal(living_descriptor, SIGKILL, NULL, 0), "SIGKILL by the pidfd");
    await_state(process_state, living, 'Z', "child that was killed");
    expect(1, is_over(living_descriptor), "killed child over");
    must(waitid(P_PIDFD, living_descriptor, &information, WEXITED), "wait for the killed child");
    expect(SIGKILL, information.si_status, "signal of the killed child");
    close(hold_living);
    living = make_child(&hold_living);
    move_descriptor(must(pidfd_open(living, PIDFD_NONBLOCK), "pidfd_open"), living_descriptor);
}

const struct item item_pidfds = {.name = "pidfds", .set_up = set_up_pidfds, .check = check_pidfds, .traits = TREE};

static pid_t stopped;

/* A stopped child does not see the end of a pipe, so the end of its parent has to kill it. */
static pid_t make_stoppable_child(void)
{
    pid_t child = must(fork(), "fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close_range(0, ~0u, 0);
        for (;;)
            pause();
    }
    await_state(process_state, child, 'S', "child that waits");
    return child;
}

static void set_up_stopped(void)
{
    stopped = make_stoppable_child();
    must(kill(stopped, SIGSTOP), "kill");
    await_state(process_state, stopped, 'T', "stopped child");
}

static void check_stopped(void)
{
    int status;
    sleep_ms(20);
    expect('T', process_state(stopped), "state of the stopped child");
    must(kill(stopped, SIGCONT), "kill");
    await_state(process_state, stopped, 'S', "child that goes on");
    expect(stopped, must(waitpid(stopped, &status, WCONTINUED), "waitpid"), "notice of a child that goes on");
    expect(1, WIFCONTINUED(status), "child goes on");
    must(kill(stopped, SIGSTOP), "kill");
    await_state(process_state, stopped, 'T', "stopped child");
}

const struct item item_tree_stopped = {
    .name = "tree-stopped", .set_up = set_up_stopped, .check = check_stopped, .traits = TREE | REFUSABLE};

static pid_t noticed;

static void make_notice(void)
{
    int hold;
    noticed = make_child(&hold);
    expect_written(hold, "e", 1, "pipe");
    await_state(process_state, noticed, 'Z', "child that ended");
    close(hold);
}

static void set_up_notices(void)
{
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGCHLD);
    must(sigprocmask(SIG_BLOCK, &mask, NULL), "sigprocmask");
    make_notice();
}

static void check_notices(void)
{
    sigset_t mask;
    siginfo_t information;
    int status;
    struct timespec none = {0, 0};
    sigemptyset(&mask);
    sigaddset(&mask, SIGCHLD);
    expect(SIGCHLD, sigtimedwait(&mask, &information, &none), "notice");
    expect(noticed, information.si_pid, "process of the notice");
    expect(CLD_EXITED, information.si_code, "code of the notice");
    expect(9, information.si_status, "status in the notice");
    /* Exactly once: no second notice for the same child. */
    expect_error(EAGAIN, sigtimedwait(&mask, &information, &none), "second notice");
    expect(noticed, must(waitpid(-1, &status, 0), "waitpid"), "waitpid");
    make_notice();
}

const struct item item_tree_notices = {
    .name = "tree-notices", .set_up = set_up_notices, .check = check_notices, .traits = TREE};
