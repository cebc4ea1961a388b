/* Code made at run time: `jit` (pages both writable and executable), `jit-switched` (written, then made executable,
 * then written again). It must run after a restore, and it must still be possible to change it. */
#include "guest.h"

#include <sys/mman.h>

/* mov eax, imm32; ret: answers the number at byte 1. */
static const unsigned char template[] = {0xb8, 0, 0, 0, 0, 0xc3};
enum { SLOT_BYTES = 16, SLOTS = 4 * PAGE_BYTES / SLOT_BYTES };

static unsigned char *code;

static void compile(int slot, int answer)
{
    memcpy(code + slot * SLOT_BYTES, template, sizeof template);
    memcpy(code + slot * SLOT_BYTES + 1, &answer, sizeof answer);
}

static void expect_answers(void)
{
    for (int slot = 0; slot < SLOTS; slot++) {
        int (*function)(void) = (int (*)(void))(code + slot * SLOT_BYTES);
        expect(slot * 3 + 1, function(), "answer of function %d", slot);
    }
}

static void make(int protection)
{
    code = mmap(NULL, SLOTS * SLOT_BYTES, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (code == MAP_FAILED)
        skip("mmap of code: %s", strerror(errno));
    for (int slot = 0; slot < SLOTS; slot++)
        compile(slot, slot * 3 + 1);
}

static void set_up(void)
{
    make(PROT_READ | PROT_WRITE | PROT_EXEC);
}

static void check(void)
{
    int (*last)(void) = (int (*)(void))(code + (SLOTS - 1) * SLOT_BYTES);
    expect_answers();
    compile(SLOTS - 1, 4242);
    expect(4242, last(), "answer of a function that was compiled anew");
    compile(SLOTS - 1, (SLOTS - 1) * 3 + 1);
}

const struct item item_jit = {.name = "jit", .set_up = set_up, .check = check};

static void set_up_switched(void)
{
    make(PROT_READ | PROT_WRITE);
    must(mprotect(code, SLOTS * SLOT_BYTES, PROT_READ | PROT_EXEC), "mprotect");
}

static void check_switched(void)
{
    int (*first)(void) = (int (*)(void))code;
    expect_answers();
    must(mprotect(code, PAGE_BYTES, PROT_READ | PROT_WRITE), "mprotect");
    compile(0, 777);
    must(mprotect(code, PAGE_BYTES, PROT_READ | PROT_EXEC), "mprotect");
    expect(777, first(), "answer of a function that was compiled anew");
    must(mprotect(code, PAGE_BYTES, PROT_READ | PROT_WRITE), "mprotect");
    compile(0, 1);
    must(mprotect(code, PAGE_BYTES, PROT_READ | PROT_EXEC), "mprotect");
}

const struct item item_jit_switched = {.name = "jit-switched", .set_up = set_up_switched, .check = check_switched};
