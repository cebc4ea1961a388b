/* File locks: `locks` (whole file by flock, ranges by process and by description), `lease` (a promise to be told
 * before another opens the file). Locks must still be held, by the right owner, and keep others out. */
#include "guest.h"

#include <sys/file.h>
#include <sys/wait.h>

static int whole, whole_shared, ranges, described;

static long set_lock(int descriptor, int command, int kind, int start, int length)
{
    return fcntl(descriptor, command, &(struct flock){.l_type = kind, .l_start = start, .l_len = length});
}

static void set_up(void)
{
    whole = must(open(scratch("whole"), O_RDWR | O_CREAT, 0600), "open");
    must(flock(whole, LOCK_EX), "flock");
    whole_shared = must(open(scratch("whole-shared"), O_RDWR | O_CREAT, 0600), "open");
    must(flock(whole_shared, LOCK_SH), "flock");
    ranges = must(open(scratch("ranges"), O_RDWR | O_CREAT, 0600), "open");
    must(set_lock(ranges, F_SETLK, F_WRLCK, 10, 20), "F_SETLK");
    must(set_lock(ranges, F_SETLK, F_RDLCK, 100, 5), "F_SETLK");
    described = must(open(scratch("described"), O_RDWR | O_CREAT, 0600), "open");
    must(set_lock(described, F_OFD_SETLK, F_WRLCK, 7, 3), "F_OFD_SETLK");
}

/* A child asks, because a process does not see its own range locks. Returns an index of what it met, or zero. */
static int look_from_outside(pid_t owner)
{
    struct flock lock = {.l_type = F_WRLCK, .l_start = 0, .l_len = 0};
    int file = open(scratch("ranges"), O_RDWR);
    if (fcntl(file, F_GETLK, &lock) < 0 || lock.l_type != F_WRLCK || lock.l_start != 10 || lock.l_len != 20)
        return 1;
    if (lock.l_pid != owner)
        return 2;
    lock = (struct flock){.l_type = F_WRLCK, .l_start = 50, .l_len = 0};
    if (fcntl(file, F_GETLK, &lock) < 0 || lock.l_type != F_RDLCK || lock.l_start != 100 || lock.l_len != 5)
        return 3;
    if (set_lock(file, F_SETLK, F_RDLCK, 100, 5) < 0)
        return 4;
    return 0;
}

static void check(void)
{
    int status, file = must(open(scratch("whole"), O_RDWR), "open");
    expect_error(EWOULDBLOCK, flock(file, LOCK_SH | LOCK_NB), "lock of a locked file");
    close(file);
    file = must(open(scratch("whole-shared"), O_RDWR), "open");
    must(flock(file, LOCK_SH | LOCK_NB), "second shared lock");
    expect_error(EWOULDBLOCK, flock(file, LOCK_EX | LOCK_NB), "exclusive lock of a shared file");
    close(file);
    file = must(open(scratch("described"), O_RDWR), "open");
    expect_error(EAGAIN, set_lock(file, F_OFD_SETLK, F_RDLCK, 9, 1), "lock of a locked range");
    must(set_lock(file, F_OFD_SETLK, F_WRLCK, 10, 1), "lock of a free range");
    close(file);

    pid_t owner = getpid(), child = must(fork(), "fork");
    if (child == 0)
        _exit(look_from_outside(owner));
    must(waitpid(child, &status, 0), "waitpid");
    expect(0, WEXITSTATUS(status), "what a child met of the range locks");
    /* Who holds a lock may take it again. */
    must(flock(whole, LOCK_EX | LOCK_NB), "own lock again");
    must(set_lock(described, F_OFD_SETLK, F_WRLCK, 7, 3), "own range again");
}

const struct item item_locks = {.name = "locks", .set_up = set_up, .check = check};

static int leased;
static _Atomic int broken;

static void handle(int number)
{
    atomic_store(&broken, number);
}

/* The end of a lease takes its signal with it, so both are asked for each time. */
static long take_lease(void)
{
    must(fcntl(leased, F_SETSIG, SIGRTMIN + 6), "F_SETSIG");
    return fcntl(leased, F_SETLEASE, F_WRLCK);
}

static void set_up_lease(void)
{
    must(sigaction(SIGRTMIN + 6, &(struct sigaction){.sa_handler = handle, .sa_flags = SA_RESTART}, NULL), "sigaction");
    leased = must(open(scratch("leased"), O_RDWR | O_CREAT, 0600), "open");
    if (take_lease() < 0)
        skip("F_SETLEASE: %s", strerror(errno));
}

static void check_lease(void)
{
    expect(F_WRLCK, fcntl(leased, F_GETLEASE), "lease");
    expect(SIGRTMIN + 6, fcntl(leased, F_GETSIG), "signal of the lease");
    expect(getpid(), fcntl(leased, F_GETOWN), "owner of the lease's signal");
    atomic_store(&broken, 0);
    expect_error(EWOULDBLOCK, open(scratch("leased"), O_RDWR | O_NONBLOCK), "open of a leased file");
    await(&broken, 1, "signal of the lease");
    must(fcntl(leased, F_SETLEASE, F_UNLCK), "F_SETLEASE");
    must(take_lease(), "F_SETLEASE");
}

const struct item item_lease = {
    .name = "lease", .set_up = set_up_lease, .check = check_lease, .traits = REFUSABLE};
