/* Settings of prctl: `prctls`, one table (kept capabilities, timer slack, huge pages, no new privileges, subreaper,
 * signal at the parent's death) and the priority of I/O; `not-dumpable` apart, because it hides a process from those
 * who would look into it. Absent: the policies on memory errors and speculation, which an engine need not keep. */
#include "guest.h"

#include <linux/ioprio.h>
#include <sys/prctl.h>

/* How a setting is told: by the result, or at a place that the call writes to. */
enum reading { BY_RESULT, BY_PLACE };

static const struct {
    const char *what;
    int set, get;
    enum reading reading;
    long value;
} settings[] = {
    {"keep capabilities", PR_SET_KEEPCAPS, PR_GET_KEEPCAPS, BY_RESULT, 1},
    {"timer slack", PR_SET_TIMERSLACK, PR_GET_TIMERSLACK, BY_RESULT, 123456},
    {"no huge pages", PR_SET_THP_DISABLE, PR_GET_THP_DISABLE, BY_RESULT, 1},
    {"no new privileges", PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS, BY_RESULT, 1},
    {"child subreaper", PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER, BY_PLACE, 1},
    {"signal at the parent's death", PR_SET_PDEATHSIG, PR_GET_PDEATHSIG, BY_PLACE, SIGUSR2},
};

static void set_up(void)
{
    must(signal(SIGUSR2, SIG_IGN) == SIG_ERR ? -1 : 0, "signal");
    for (size_t i = 0; i < COUNT(settings); i++)
        must(prctl(settings[i].set, settings[i].value, 0, 0, 0), settings[i].what);
    must(syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, 6)), "ioprio_set");
}

static void check(void)
{
    for (size_t i = 0; i < COUNT(settings); i++) {
        int place = -1;
        long result = must(prctl(settings[i].get, settings[i].reading == BY_PLACE ? (long)&place : 0, 0, 0, 0),
                           settings[i].what);
        expect(settings[i].value, settings[i].reading == BY_PLACE ? place : result, "%s", settings[i].what);
    }
    expect(IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, 6), syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0), "priority of I/O");
}

const struct item item_prctls = {.name = "prctls", .set_up = set_up, .check = check};

static void set_up_dumpable(void)
{
    must(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "PR_SET_DUMPABLE");
}

static void check_dumpable(void)
{
    expect(0, prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), "dumpable");
}

const struct item item_not_dumpable = {.name = "not-dumpable", .set_up = set_up_dumpable, .check = check_dumpable};
