/* Time and the kernel's page of code for it: `clocks` (every clock goes on where it stood, by the fast path and by
 * the call), `vdso-random` (random bytes by the fast path, where the kernel has it; two clones must draw different
 * ones). */
#include "guest.h"

#include <elf.h>
#include <link.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/time.h>

static int64_t last_ns[16];
static unsigned long code;

/* Processor time is that of a new process after a restore, so those clocks are left out. */
static const clockid_t clocks[] = {CLOCK_REALTIME,         CLOCK_REALTIME_COARSE, CLOCK_TAI,      CLOCK_MONOTONIC,
                                   CLOCK_MONOTONIC_COARSE, CLOCK_MONOTONIC_RAW,   CLOCK_BOOTTIME};

static void set_up(void)
{
    code = getauxval(AT_SYSINFO_EHDR);
    if (!code)
        skip("no vDSO");
    for (size_t i = 0; i < COUNT(clocks); i++)
        last_ns[i] = clock_ns(clocks[i]);
}

static void check(void)
{
    struct timeval day;
    struct timespec by_call;
    unsigned processor, node;
    expect_bytes(ELFMAG, (const void *)code, SELFMAG, "start of the vDSO");
    expect(code, getauxval(AT_SYSINFO_EHDR), "place of the vDSO");
    for (size_t i = 0; i < COUNT(clocks); i++) {
        int64_t now_ns = clock_ns(clocks[i]);
        if (now_ns < last_ns[i])
            bad("clock %d: expected at least %ld ns, got %ld", clocks[i], (long)last_ns[i], (long)now_ns);
        /* The first three tell the time of day, which nothing stops. */
        long leap_s = (now_ns - last_ns[i]) / 1000000000;
        if (i >= 3 && leap_s > HOUR_S)
            bad("clock %d: expected to go on, got a leap of %ld s", clocks[i], leap_s);
        must(syscall(SYS_clock_gettime, clocks[i], &by_call), "clock_gettime by the call");
        int64_t call_ns = by_call.tv_sec * 1000000000ll + by_call.tv_nsec;
        if (call_ns < now_ns || call_ns - now_ns > 5000000000)
            bad("clock %d: expected the call to agree with %ld ns, got %ld", clocks[i], (long)now_ns, (long)call_ns);
        last_ns[i] = now_ns;
    }
    must(gettimeofday(&day, NULL), "gettimeofday");
    /* It tells the second of the last tick, which may be the one before. */
    expect_between(day.tv_sec - 1, day.tv_sec + 5, time(NULL), "seconds by time()");
    must(getcpu(&processor, &node), "getcpu");
    expect_between(0, CPU_SETSIZE, processor, "processor");
}

const struct item item_clocks = {.name = "clocks", .set_up = set_up, .check = check};

typedef ssize_t (*draw_function)(void *, size_t, unsigned, void *, size_t);
static draw_function draw;
static void *states;
static size_t state_bytes;

static void *vdso_symbol(const char *name)
{
    const char *base = (const char *)getauxval(AT_SYSINFO_EHDR);
    const ElfW(Ehdr) *header = (const void *)base;
    const ElfW(Phdr) *program = (const void *)(base + header->e_phoff);
    const ElfW(Sym) *symbols = NULL;
    const char *strings = NULL;
    size_t count = 0;
    for (int i = 0; i < header->e_phnum; i++)
        for (const ElfW(Dyn) *dynamic = (const void *)(base + program[i].p_offset);
             program[i].p_type == PT_DYNAMIC && dynamic->d_tag != DT_NULL; dynamic++) {
            if (dynamic->d_tag == DT_SYMTAB)
                symbols = (const void *)(base + dynamic->d_un.d_ptr);
            if (dynamic->d_tag == DT_STRTAB)
                strings = base + dynamic->d_un.d_ptr;
            if (dynamic->d_tag == DT_HASH)
                count = ((const uint32_t *)(base + dynamic->d_un.d_ptr))[1];
            /* Without that table, the strings follow the symbols. */
        }
    if (!count && strings > (const char *)symbols)
        count = (strings - (const char *)symbols) / sizeof *symbols;
    for (size_t i = 0; i < count; i++)
        if (strcmp(strings + symbols[i].st_name, name) == 0)
            return (void *)(base + symbols[i].st_value);
    return NULL;
}

/* What the kernel tells of the states that a caller has to provide. */
struct parameters {
    uint32_t state_bytes, protection, flags, reserved[13];
};

static void set_up_random(void)
{
    struct parameters parameters;
    unsigned char bytes[32];
    draw = (draw_function)vdso_symbol("__vdso_getrandom");
    if (!draw)
        skip("this kernel's vDSO draws no random bytes");
    expect(0, draw(NULL, 0, 0, &parameters, ~0ul), "parameters of the vDSO's random bytes");
    state_bytes = parameters.state_bytes;
    states = mmap(NULL, PAGE_BYTES, parameters.protection, parameters.flags, -1, 0);
    if (states == MAP_FAILED)
        bad("mmap of the state: expected success, got %s", strerror(errno));
    expect(sizeof bytes, draw(bytes, sizeof bytes, 0, states, state_bytes), "bytes drawn");
}

static void check_random(void)
{
    unsigned char first[32], second[32];
    expect(sizeof first, draw(first, sizeof first, 0, states, state_bytes), "bytes drawn");
    expect(sizeof second, draw(second, sizeof second, 0, states, state_bytes), "bytes drawn");
    if (memcmp(first, second, sizeof first) == 0)
        bad("random bytes: expected different ones, got the same twice");
}

static void unique_random(char *line, size_t size_bytes)
{
    unsigned char bytes[16] = {0};
    draw(bytes, sizeof bytes, 0, states, state_bytes);
    for (size_t i = 0; i < sizeof bytes; i++)
        snprintf(line + 2 * i, size_bytes - 2 * i, "%02x", bytes[i]);
}

const struct item item_vdso_random = {
    .name = "vdso-random", .set_up = set_up_random, .check = check_random, .unique = unique_random};
