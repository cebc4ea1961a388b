/* Registers: three threads hold a pattern in every general, vector and mask register, in the control words of both
 * floating-point units and in the base of GS: one blocks in a read with them, one spins, one sleeps in a futex with a
 * limit. Nothing but RAX, RCX and R11 may change. AVX-512 and AVX are used where the processor has them. */
#include "guest.h"

#include <asm/prctl.h>
#include <linux/futex.h>
#include <stddef.h>

enum { GENERAL = 11, VECTORS = 32, VECTOR_BYTES = 64, MASKS = 8, CONTROL = 0x1f80 | 0x6000, X87_CONTROL = 0x0f7f };

/* The registers as the code below loads and stores them; the offsets are used there. */
struct registers {
    uint64_t general[GENERAL + 1];                   /* 0: rbx rdx rsi rdi r8 r9 r10 r12 r13 r14 r15 rbp */
    uint64_t masks[MASKS];                           /* 96 */
    unsigned char vectors[VECTORS][VECTOR_BYTES];    /* 160 */
    uint32_t control;                                /* 2208: MXCSR */
    uint16_t x87_control;                            /* 2212 */
    uint16_t unused;
    double x87;                                      /* 2216: top of the x87 stack */
};
_Static_assert(offsetof(struct registers, vectors) == 160 && offsetof(struct registers, x87) == 2216, "layout");

/* hold(loaded, stored, arguments): loads all registers, makes a system call or spins until `*flag` is not zero, and
 * stores all registers. Written apart from C, so that no compiler has a say in what is kept where. */
long hold(const struct registers *loaded, struct registers *stored, long number, const void *flag, int width);

__asm__(
    ".text\n.globl hold\n.type hold, @function\n"
    "hold:\n"
    "  push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n"
    "  push %rsi\n push %rcx\n push %r8\n push %rdx\n" /* stored, flag, width, number */
    "  mov %rdi, %r11\n"
    "  cmp $1, %r8d\n jl 2f\n je 1f\n"
    ".altmacro\n"
    ".macro each_vector operation, count\n .set index, 0\n .rept \\count\n \\operation %index\n"
    "   .set index, index+1\n .endr\n.endm\n"
    ".macro load_zmm i\n vmovdqu64 160+64*\\i(%r11), %zmm\\i\n.endm\n"
    ".macro load_ymm i\n vmovdqu 160+64*\\i(%r11), %ymm\\i\n.endm\n"
    ".macro load_xmm i\n movdqu 160+64*\\i(%r11), %xmm\\i\n.endm\n"
    ".macro store_zmm i\n vmovdqu64 %zmm\\i, 160+64*\\i(%r11)\n.endm\n"
    ".macro store_ymm i\n vmovdqu %ymm\\i, 160+64*\\i(%r11)\n.endm\n"
    ".macro store_xmm i\n movdqu %xmm\\i, 160+64*\\i(%r11)\n.endm\n"
    ".macro load_k i\n kmovq 96+8*\\i(%r11), %k\\i\n.endm\n"
    ".macro store_k i\n kmovq %k\\i, 96+8*\\i(%r11)\n.endm\n"
    "  each_vector load_zmm, 32\n each_vector load_k, 8\n jmp 3f\n"
    "1: each_vector load_ymm, 16\n jmp 3f\n"
    "2: each_vector load_xmm, 16\n"
    "3: ldmxcsr 2208(%r11)\n fldcw 2212(%r11)\n fldl 2216(%r11)\n"
    "  pop %rax\n push %rax\n" /* number; minus one means to spin */
    "  mov 0(%r11), %rbx\n mov 8(%r11), %rdx\n mov 16(%r11), %rsi\n mov 24(%r11), %rdi\n mov 32(%r11), %r8\n"
    "  mov 40(%r11), %r9\n mov 48(%r11), %r10\n mov 56(%r11), %r12\n mov 64(%r11), %r13\n mov 72(%r11), %r14\n"
    "  mov 80(%r11), %r15\n mov 88(%r11), %rbp\n"
    "  cmp $-1, %rax\n je 4f\n syscall\n jmp 5f\n"
    "4: mov 16(%rsp), %rcx\n"
    "6: pause\n cmpl $0, (%rcx)\n je 6b\n"
    "5: mov 24(%rsp), %r11\n"
    "  mov %rbx, 0(%r11)\n mov %rdx, 8(%r11)\n mov %rsi, 16(%r11)\n mov %rdi, 24(%r11)\n mov %r8, 32(%r11)\n"
    "  mov %r9, 40(%r11)\n mov %r10, 48(%r11)\n mov %r12, 56(%r11)\n mov %r13, 64(%r11)\n mov %r14, 72(%r11)\n"
    "  mov %r15, 80(%r11)\n mov %rbp, 88(%r11)\n"
    "  stmxcsr 2208(%r11)\n fnstcw 2212(%r11)\n fstpl 2216(%r11)\n"
    "  mov 8(%rsp), %ecx\n cmp $1, %ecx\n jl 2f\n je 1f\n"
    "  each_vector store_zmm, 32\n each_vector store_k, 8\n vzeroupper\n jmp 3f\n"
    "1: each_vector store_ymm, 16\n vzeroupper\n jmp 3f\n"
    "2: each_vector store_xmm, 16\n"
    "3: push $0x1f80\n ldmxcsr (%rsp)\n movl $0x37f, (%rsp)\n fldcw (%rsp)\n add $40, %rsp\n"
    "  pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n ret\n"
    ".size hold, .-hold\n.noaltmacro\n");

enum { IN_READ, SPINNING, IN_FUTEX, HOLDERS };
static struct registers loaded[HOLDERS], stored[HOLDERS];
static int ends[2], flag, width;
static _Atomic int word, held, tids[HOLDERS];
static char byte;

static void describe(struct registers *registers, int index)
{
    static const struct timespec limit = {HOUR_S, 0};
    memset(registers, 0, sizeof *registers);
    fill(registers, offsetof(struct registers, control), 300 + index);
    /* The order of `general`: rdx, rsi, rdi, r8, r9 and r10 carry the arguments of the calls. */
    if (index == IN_READ) {
        registers->general[3] = ends[0];
        registers->general[2] = (uintptr_t)&byte;
        registers->general[1] = 1;
    } else if (index == IN_FUTEX) {
        registers->general[3] = (uintptr_t)&word;
        registers->general[2] = FUTEX_WAIT_PRIVATE;
        registers->general[1] = 0;
        registers->general[6] = (uintptr_t)&limit;
    }
    registers->control = CONTROL;
    registers->x87_control = X87_CONTROL;
    registers->x87 = 1.0 / 3 + index;
}

/* What a width leaves alone is not compared. */
static void forget_unused(struct registers *registers)
{
    if (width < 2)
        memset(registers->masks, 0, sizeof registers->masks);
    for (int i = 0; i < VECTORS; i++) {
        size_t used_bytes = width == 2 ? 64 : i >= 16 ? 0 : width == 1 ? 32 : 16;
        memset(registers->vectors[i] + used_bytes, 0, VECTOR_BYTES - used_bytes);
    }
}

static void *hold_all(void *argument)
{
    static const long numbers[HOLDERS] = {SYS_read, -1, SYS_futex};
    long index = (long)argument;
    unsigned long base = 0x1000 * (index + 1), got = 0;
    describe(&loaded[index], index);
    forget_unused(&loaded[index]);
    syscall(SYS_arch_prctl, ARCH_SET_GS, base);
    atomic_store(&tids[index], gettid());
    hold(&loaded[index], &stored[index], numbers[index], &flag, width);
    syscall(SYS_arch_prctl, ARCH_GET_GS, &got);
    if (got != base)
        complain("base of GS in thread %ld: expected %lx, got %lx", index, base, got);
    /* MXCSR gathers exceptions; its upper half is what was set. */
    stored[index].control &= ~0x3fu;
    loaded[index].control &= ~0x3fu;
    forget_unused(&stored[index]);
    atomic_fetch_add(&held, 1);
    return NULL;
}

static pthread_t threads[HOLDERS];

static void begin(void)
{
    __atomic_store_n(&flag, 0, __ATOMIC_SEQ_CST);
    for (long i = 0; i < HOLDERS; i++) {
        tids[i] = 0;
        must_thread(pthread_create(&threads[i], NULL, hold_all, (void *)i), "pthread_create");
        await(&tids[i], 1, "thread that holds registers");
    }
    await_state(thread_state, tids[IN_READ], 'S', "thread in read");
    await_state(thread_state, tids[IN_FUTEX], 'S', "thread in futex");
    sleep_ms(5);
}

static void set_up(void)
{
    width = __builtin_cpu_supports("avx512bw") ? 2 : __builtin_cpu_supports("avx2") ? 1 : 0;
    must(pipe(ends), "pipe");
    begin();
}

static void check(void)
{
    int before = held;
    expect_written(ends[1], "r", 1, "pipe");
    __atomic_store_n(&flag, 1, __ATOMIC_SEQ_CST);
    /* Behind a restore the thread may still be on its way back into the wait. */
    for (int waited_ms = 0; syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1) != 1; waited_ms++) {
        if (waited_ms > PATIENCE_MS)
            bad("futex: expected a thread to wake, got none");
        sleep_ms(1);
    }
    await(&held, before + HOLDERS, "threads that hold registers");
    for (int i = 0; i < HOLDERS; i++) {
        static const char *const names[] = {"registers across a read", "registers while spinning",
                                            "registers across a futex"};
        must_thread(pthread_join(threads[i], NULL), "pthread_join");
        expect_bytes(&loaded[i], &stored[i], sizeof loaded[i], names[i]);
    }
    begin();
}

const struct item item_registers = {.name = "registers", .set_up = set_up, .check = check};
