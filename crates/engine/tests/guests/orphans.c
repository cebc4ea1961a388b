/* Grandchildren whose parent ended: `tree-adopted` (the guest is their subreaper and inherited them), `tree-orphan`
 * (the init of the process namespace inherited it, so it is not in the guest's tree: only what saves whole
 * namespaces finds it). They must come back with their parent as it was. */
#include "guest.h"

#include <sys/prctl.h>
#include <sys/wait.h>

static struct child orphan;
static pid_t parent, between;

/* Waits until the child between has ended: the grandchild's parent changes then. */
static void set_up_orphan_itself(void)
{
    setsid();
    for (int waited_ms = 0; getppid() == between; waited_ms++) {
        if (waited_ms > PATIENCE_MS)
            bad("parent: expected to change, got %d still", between);
        sleep_ms(1);
    }
    parent = getppid();
}

static void check_orphan_itself(void)
{
    expect(parent, getppid(), "parent of a grandchild");
    expect(getpid(), getsid(0), "session of a grandchild");
}

static void tell_parent(char *line, size_t size_bytes)
{
    snprintf(line, size_bytes, "%d", getppid());
}

static const struct item orphan_item = {
    .set_up = set_up_orphan_itself, .check = check_orphan_itself, .unique = tell_parent};

static void make_orphan(void)
{
    int down[2], up[2], status;
    must(pipe2(down, O_CLOEXEC), "pipe2");
    must(pipe2(up, O_CLOEXEC), "pipe2");
    between = must(fork(), "fork");
    if (between == 0) {
        between = getpid();
        if (fork() != 0)
            _exit(0);
        close(down[1]);
        close(up[0]);
        if (channel_descriptor >= 0)
            close(channel_descriptor);
        serve(&orphan_item, down[0], up[1]);
    }
    close(down[0]);
    close(up[1]);
    expect(between, must(waitpid(between, &status, 0), "waitpid"), "waitpid");
    orphan = (struct child){.to = down[1], .from = up[0]};
    char reply[600];
    child_ask(&orphan, "", reply, sizeof reply);
    expect_text("ready", reply, "set-up of a grandchild");
}

static int parent_of_orphan(void)
{
    char reply[64];
    child_ask(&orphan, "unique", reply, sizeof reply);
    return atoi(reply);
}

static void set_up_adopted(void)
{
    must(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "PR_SET_CHILD_SUBREAPER");
    make_orphan();
}

static void check_adopted(void)
{
    int status;
    child_check(&orphan, "grandchild");
    expect(getpid(), parent_of_orphan(), "parent of a grandchild");
    expect(0, must(waitpid(-1, &status, WNOHANG), "waitpid"), "grandchild alive");
    expect_written(orphan.to, "end\n", 4, "command to a grandchild");
    must(waitpid(-1, &status, 0), "waitpid for the grandchild");
    expect(0, status, "status of the grandchild");
    close(orphan.to);
    close(orphan.from);
    make_orphan();
}

const struct item item_tree_adopted = {
    .name = "tree-adopted", .set_up = set_up_adopted, .check = check_adopted, .traits = TREE};

static void check_orphan(void)
{
    int status;
    child_check(&orphan, "grandchild");
    expect_error(ECHILD, waitpid(-1, &status, WNOHANG), "wait for a child that is none");
}

const struct item item_tree_orphan = {
    .name = "tree-orphan", .set_up = make_orphan, .check = check_orphan, .traits = TREE | OUTSIDER};
