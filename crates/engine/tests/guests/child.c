/* Children of a guest: each serves an item of its own over two pipes, with the protocol of the guest itself. */
#include "guest.h"

#include <sys/wait.h>

/* Ends of the pipes to all children. A new child closes them, or it would keep a sibling's channel open. */
static int held[512];
static size_t held_count;

static void release(int descriptor)
{
    for (size_t i = 0; i < held_count; i++)
        if (held[i] == descriptor)
            held[i--] = held[--held_count];
    close(descriptor);
}

/* In the child: its own two ends become standard input and output, and what belongs to others is closed. */
static void settle_in(int in, int out)
{
    dup2(in, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    close(in);
    close(out);
    for (size_t i = 0; i < held_count; i++)
        close(held[i]);
    held_count = 0;
    if (channel_descriptor >= 0)
        close(channel_descriptor);
}

static void expect_ready(struct child *child)
{
    char line[600];
    child_ask(child, "", line, sizeof line);
    if (strncmp(line, "skip: ", 6) == 0)
        skip("%s", line + 6);
    expect_text("ready", line, "child's set-up");
}

/* Forks; the answer is zero in the child. */
static pid_t begin(struct child *child)
{
    int down[2], up[2];
    must(pipe2(down, O_CLOEXEC), "pipe2");
    must(pipe2(up, O_CLOEXEC), "pipe2");
    child->to = down[1];
    child->from = up[0];
    if (held_count + 2 > COUNT(held))
        bad("more children than child.c has room for");
    held[held_count++] = child->to;
    held[held_count++] = child->from;
    child->pid = must(fork(), "fork");
    if (child->pid == 0) {
        settle_in(down[0], up[1]);
        return 0;
    }
    close(down[0]);
    close(up[1]);
    return child->pid;
}

void child_start(struct child *child, const struct item *item)
{
    if (begin(child) == 0)
        serve(item, STDIN_FILENO, STDOUT_FILENO);
    expect_ready(child);
}

void child_execute(struct child *child, const char *item)
{
    if (begin(child) == 0) {
        unsetenv("GUEST_CONNECT");
        execl("/proc/self/exe", "guest", item, NULL);
        _exit(127);
    }
    expect_ready(child);
}

void child_ask(const struct child *child, const char *command, char *reply, size_t size_bytes)
{
    char line[64];
    int length = snprintf(line, sizeof line, "%s\n", command);
    if (command[0])
        expect_written(child->to, line, length, "command to a child");
    for (size_t i = 0; i < size_bytes; i++) {
        if (must(read(child->from, reply + i, 1), "reply of a child") == 0)
            bad("child %d: expected a reply to '%s', got the end of its channel", child->pid, command);
        if (reply[i] == '\n') {
            reply[i] = 0;
            return;
        }
    }
    bad("child %d: expected a line, got more than %zu bytes", child->pid, size_bytes);
}

void child_check(const struct child *child, const char *what)
{
    char reply[600];
    child_ask(child, "check", reply, sizeof reply);
    if (strcmp(reply, "ok") != 0)
        bad("%s: %.400s", what, reply);
}

void child_end(struct child *child)
{
    int status;
    expect_written(child->to, "end\n", 4, "command to a child");
    expect(child->pid, must(waitpid(child->pid, &status, 0), "waitpid"), "waitpid of a child");
    expect(0, status, "status of a child that ended");
    release(child->to);
    release(child->from);
}
