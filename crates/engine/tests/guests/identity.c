/* What a process is to the kernel: `credentials` (users, groups, capabilities, as found), `limits`, `surroundings`
 * (working directory, umask, environment, command line, executable, auxiliary vector, name, badness for the killer of
 * memory hogs, personality), `session` (numbers of process, parent, group and session). */
#include "guest.h"

#include <elf.h>
#include <sys/auxv.h>
#include <sys/fsuid.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>

static const char *const kept[] = {"Uid",    "Gid",    "Groups", "CapInh",     "CapPrm",
                                   "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"};
static char found[COUNT(kept)][512];

static void set_up_credentials(void)
{
    for (size_t i = 0; i < COUNT(kept); i++)
        status_value(kept[i], found[i], sizeof found[i]);
}

static void check_credentials(void)
{
    uid_t real, effective, saved;
    char now[512], mine[64];
    for (size_t i = 0; i < COUNT(kept); i++) {
        status_value(kept[i], now, sizeof now);
        expect_text(found[i], now, kept[i]);
    }
    must(getresuid(&real, &effective, &saved), "getresuid");
    snprintf(mine, sizeof mine, "%d\t%d\t%d\t%d", real, effective, saved, setfsuid(-1));
    expect_text(found[0], mine, "users by the calls");
}

const struct item item_credentials = {
    .name = "credentials", .set_up = set_up_credentials, .check = check_credentials};

static struct rlimit limits[RLIM_NLIMITS];

static void set_up_limits(void)
{
    static const int lowered[] = {RLIMIT_NOFILE, RLIMIT_CORE, RLIMIT_STACK, RLIMIT_MEMLOCK, RLIMIT_SIGPENDING};
    static const rlim_t soft[] = {500, 0, 4 << 20, 1 << 20, 333};
    for (size_t i = 0; i < COUNT(lowered); i++) {
        struct rlimit limit;
        must(getrlimit(lowered[i], &limit), "getrlimit");
        limit.rlim_cur = soft[i] < limit.rlim_max ? soft[i] : limit.rlim_max;
        if (lowered[i] == RLIMIT_SIGPENDING)
            limit.rlim_max = limit.rlim_cur;
        must(setrlimit(lowered[i], &limit), "setrlimit");
    }
    for (int i = 0; i < RLIM_NLIMITS; i++)
        must(getrlimit(i, &limits[i]), "getrlimit");
}

static void check_limits(void)
{
    struct rlimit now;
    for (int i = 0; i < RLIM_NLIMITS; i++) {
        must(getrlimit(i, &now), "getrlimit");
        expect(limits[i].rlim_cur, now.rlim_cur, "soft limit %d", i);
        expect(limits[i].rlim_max, now.rlim_max, "hard limit %d", i);
    }
    int null = must(open("/dev/null", O_RDONLY), "/dev/null");
    expect_error(EINVAL, fcntl(null, F_DUPFD, (int)limits[RLIMIT_NOFILE].rlim_cur), "descriptor at the limit");
    close(null);
}

const struct item item_limits = {.name = "limits", .set_up = set_up_limits, .check = check_limits};

static char directory[256], environment[65536], command_line[4096], executable[256], vector[4096], badness[32];
static size_t environment_bytes, command_bytes, vector_bytes;
static unsigned long vector_id;

static void set_up_surroundings(void)
{
    must(mkdir(scratch("work"), 0700), "mkdir");
    must(chdir(scratch("work")), "chdir");
    if (!getcwd(directory, sizeof directory))
        bad("getcwd: %s", strerror(errno));
    umask(027);
    must(prctl(PR_SET_NAME, "odd (name) 1"), "PR_SET_NAME");
    must(personality(ADDR_NO_RANDOMIZE), "personality");
    int score = must(open("/proc/self/oom_score_adj", O_WRONLY), "oom_score_adj");
    expect_written(score, "321\n", 4, "oom_score_adj");
    close(score);
    environment_bytes = read_file("/proc/self/environ", environment, sizeof environment);
    command_bytes = read_file("/proc/self/cmdline", command_line, sizeof command_line);
    vector_bytes = read_file("/proc/self/auxv", vector, sizeof vector);
    vector_id = getauxval(AT_BASE);
    must(readlink("/proc/self/exe", executable, sizeof executable - 1), "readlink");
}

static void check_surroundings(void)
{
    static char now[65536];
    if (!getcwd(now, sizeof now))
        bad("getcwd: %s", strerror(errno));
    expect_text(directory, now, "working directory");
    close(must(open("made-here", O_CREAT | O_WRONLY, 0666), "open in the working directory"));
    struct stat status;
    must(stat(scratch("work/made-here"), &status), "stat");
    expect(0640, status.st_mode & 0777, "mode under the umask");
    must(unlink("made-here"), "unlink");
    expect(environment_bytes, read_file("/proc/self/environ", now, sizeof now), "bytes of the environment");
    expect_bytes(environment, now, environment_bytes, "environment");
    expect(command_bytes, read_file("/proc/self/cmdline", now, sizeof now), "bytes of the command line");
    expect_bytes(command_line, now, command_bytes, "command line");
    expect(vector_bytes, read_file("/proc/self/auxv", now, sizeof now), "bytes of the auxiliary vector");
    expect_bytes(vector, now, vector_bytes, "auxiliary vector");
    expect(vector_id, getauxval(AT_BASE), "base of the loader");
    now[must(readlink("/proc/self/exe", now, sizeof now - 1), "readlink")] = 0;
    expect_text(executable, now, "executable");
    read_file("/proc/self/comm", now, sizeof now);
    expect_text("odd (name) 1\n", now, "name");
    read_file("/proc/self/oom_score_adj", badness, sizeof badness);
    expect_text("321\n", badness, "oom_score_adj");
    expect(ADDR_NO_RANDOMIZE, personality(0xffffffff), "personality");
}

const struct item item_surroundings = {
    .name = "surroundings", .set_up = set_up_surroundings, .check = check_surroundings};

static pid_t process, group, session;

static void set_up_session(void)
{
    /* Fails where the process leads a group already, which is as good. */
    setsid();
    process = getpid();
    group = getpgrp();
    session = getsid(0);
}

static void check_session(void)
{
    char link[64] = {0}, number[32];
    expect(process, syscall(SYS_getpid), "process number");
    expect(process, gettid(), "thread number");
    expect(group, getpgrp(), "process group");
    expect(session, getsid(0), "session");
    must(readlink("/proc/self", link, sizeof link - 1), "readlink");
    snprintf(number, sizeof number, "%d", process);
    expect_text(number, link, "process number in /proc");
}

const struct item item_session = {.name = "session", .set_up = set_up_session, .check = check_session};
