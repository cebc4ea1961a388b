/* Processes that share more than memory: `tree-files` (one table of descriptors, by CLONE_FILES), `tree-place` (one
 * working directory and umask, by CLONE_FS). Rare, so an engine may refuse them. */
#include "guest.h"

#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>

static int ends[2];
static pid_t sharer;
static char stack[64 * 1024] __attribute__((aligned(16)));

/* Takes commands of one byte from the parent: opens, closes or looks in what it shares, and answers with a byte. */
static int obey(void *argument)
{
    char command, answer;
    (void)argument;
    /* Its channel's other end is in its own table, so no end of file tells it that the parent is gone. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (read(ends[1], &command, 1) == 1) {
        answer = command == 'o'   ? (char)open("/dev/null", O_RDWR)
                 : command == 'u' ? (char)umask(077)
                                  : (char)chdir("/proc");
        if (write(ends[1], &answer, 1) != 1)
            break;
    }
    return 0;
}

static int ask(char command)
{
    char answer;
    expect_written(ends[0], &command, 1, "command to the sharer");
    expect(1, must(read(ends[0], &answer, 1), "answer of the sharer"), "bytes");
    return answer;
}

static void start(int flags)
{
    must(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), "socketpair");
    /* The child gets a copy of the memory, so that the stack is its own. */
    sharer = must(clone(obey, stack + sizeof stack, flags | SIGCHLD, NULL), "clone");
    await_state(process_state, sharer, 'S', "sharer");
}

static void set_up_files(void)
{
    start(CLONE_FILES);
}

static void check_files(void)
{
    /* What one opens, the other may use and close. */
    int opened = ask('o');
    must(fcntl(opened, F_GETFD), "descriptor that the sharer opened");
    must(close(opened), "close");
    int own = must(open("/dev/null", O_RDWR), "open");
    expect(opened, own, "number that was free again");
    expect(own + 1, ask('o'), "number that the sharer gets next");
    close(own + 1);
    close(own);
}

const struct item item_tree_files = {
    .name = "tree-files", .set_up = set_up_files, .check = check_files, .traits = TREE | REFUSABLE};

static void set_up_place(void)
{
    start(CLONE_FS);
    umask(022);
    must(chdir("/tmp"), "chdir");
}

static void check_place(void)
{
    char directory[64];
    expect(022, ask('u'), "umask that the sharer found");
    expect(077, umask(022), "umask that the sharer left");
    expect(0, ask('c'), "chdir of the sharer");
    if (!getcwd(directory, sizeof directory))
        bad("getcwd: %s", strerror(errno));
    expect_text("/proc", directory, "working directory that the sharer chose");
    must(chdir("/tmp"), "chdir");
}

const struct item item_tree_place = {
    .name = "tree-place", .set_up = set_up_place, .check = check_place, .traits = TREE | REFUSABLE};
