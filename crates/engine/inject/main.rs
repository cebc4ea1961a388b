//! The injected interpreter: walks a plan inside the process that is being made.
//!
//! It runs where no library is mapped: position-independent, without a heap, without relocations, without a byte of
//! writable data of its own. A template reads requests from its control socket, runs the list that each names, and
//! reports. It stops a list at the first result that the plan does not expect and reports that operation's index and
//! result. Deliberately absent: every decision. Which calls are made, in which order and with which operands is the
//! plan's alone.

#![no_std]
#![no_main]

use core::arch::{asm, naked_asm};

#[path = "../src/ops.rs"]
#[allow(dead_code)]
mod ops;

use ops::{
    Code, Context, DESCRIPTOR_SLOTS, DONE, Expect, NO_SLOT, Op, Report, Reporter, Request, SLOTS,
};

const SYS_RECVMSG: u64 = 47;
const SYS_SENDTO: u64 = 44;
const SYS_SCHED_YIELD: u64 = 24;
const SYS_EXIT: u64 = 60;
const SYS_EXIT_GROUP: u64 = 231;
const SYS_FUTEX: u64 = 202;
const SYS_CLONE3: u64 = 435;
const SYS_RT_SIGRETURN: u64 = 15;
const FUTEX_WAIT_PRIVATE: u64 = 128;
const FUTEX_WAKE_PRIVATE: u64 = 129;
const MSG_NOSIGNAL: u64 = 0x4000;
const EINTR: i64 = -4;

/// Where the loader jumps to, on the interpreter's own stack. `context` is the start of the interpreter's data.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.entry")]
extern "C" fn entry(context: *mut Context) -> ! {
    // SAFETY: the loader maps the context, the operations it points to and this stack before it jumps here, and
    // nothing else runs in this address space.
    unsafe { serve(context) }
}

/// Reads requests and carries them out until the host closes its end.
unsafe fn serve(context: *mut Context) -> ! {
    loop {
        let mut request = core::mem::MaybeUninit::<Request>::uninit();
        // SAFETY: `request` is writable for its size, and `context` is valid (see `entry`).
        let received = unsafe { receive(context, request.as_mut_ptr()) };
        if received == EINTR {
            continue;
        }
        if received != size_of::<Request>() as i64 {
            exit_group();
        }
        // SAFETY: the kernel has filled the whole structure; its fields are plain integers.
        unsafe {
            let request = request.assume_init_ref();
            (*context).sequence = request.sequence;
            let mut slot = DESCRIPTOR_SLOTS;
            while slot < SLOTS {
                *slot_of(context, slot) = *(&raw const request.values).cast::<u64>().add(slot - DESCRIPTOR_SLOTS);
                slot += 1;
            }
            let (index, result) = run(context, request.start, request.start.wrapping_add(request.count));
            report(context, Reporter::Template, index, result);
        }
    }
}

/// Walks the operations from `index` up to `end`. Gives [`DONE`], or the operation that surprised and its result.
unsafe fn run(context: *mut Context, mut index: u32, end: u32) -> (u32, i64) {
    while index < end {
        // SAFETY: the host lays out `end` operations at `context.ops`.
        let op = unsafe { &*((*context).ops as *const Op).add(index as usize) };
        let mut args = op.args;
        let operands = args.as_mut_ptr();
        let mut operand = 0;
        while operand < 6 {
            if op.slots & (1 << operand) != 0 {
                // SAFETY: six operands; the plan names slots below SLOTS only.
                unsafe { *operands.add(operand) = *slot_of(context, *operands.add(operand) as usize) };
            }
            operand += 1;
        }
        // SAFETY: what an operation does to memory is the plan's contract, checked by the host's tests.
        let result = unsafe { carry_out(context, op, index, &args) };
        if op.out != NO_SLOT {
            // SAFETY: as above.
            unsafe { *slot_of(context, op.out as usize) = result as u64 };
        }
        let good = match op.expect {
            Expect::Any => true,
            Expect::NotNegative => result >= 0,
            Expect::Exactly => result == op.expected,
        };
        if !good {
            return (index, result);
        }
        index = index.wrapping_add(1);
        if let Code::Clone = op.code {
            index = index.wrapping_add(op.count);
        }
    }
    (DONE, 0)
}

unsafe fn carry_out(context: *mut Context, op: &Op, index: u32, args: &[u64; 6]) -> i64 {
    let &[first, second, third, fourth, fifth, sixth] = args;
    // SAFETY: the plan's contract; see `run`.
    unsafe {
        match op.code {
            Code::Syscall => syscall(op.number as u64, first, second, third, fourth, fifth, sixth),
            Code::Await => {
                let mut tries = 0;
                loop {
                    let result = syscall(op.number as u64, first, second, third, fourth, fifth, sixth);
                    if result == op.expected || tries >= op.count {
                        return result;
                    }
                    tries += 1;
                    syscall(SYS_SCHED_YIELD, 0, 0, 0, 0, 0, 0);
                }
            }
            Code::Clone => start(context, op, index, first, second),
            Code::Signal => {
                let word = &*(first as *const core::sync::atomic::AtomicU32);
                word.fetch_add(second as u32, core::sync::atomic::Ordering::SeqCst);
                syscall(SYS_FUTEX, first, FUTEX_WAKE_PRIVATE, i32::MAX as u64, 0, 0, 0)
            }
            Code::Wait => {
                let word = &*(first as *const core::sync::atomic::AtomicU32);
                loop {
                    let seen = word.load(core::sync::atomic::Ordering::SeqCst);
                    if seen >= second as u32 {
                        return 0;
                    }
                    syscall(SYS_FUTEX, first, FUTEX_WAIT_PRIVATE, seen as u64, 0, 0, 0);
                }
            }
            Code::Copy => {
                copy(first, second, third);
                0
            }
            Code::Call => call_on_stack(first, second),
            Code::Sigreturn => sigreturn(first),
            Code::Report => report(context, Reporter::Child, DONE, 0),
            Code::Exit => {
                syscall(SYS_EXIT, first, 0, 0, 0, 0, 0);
                0
            }
        }
    }
}

/// Starts a process or a thread; in the child, does not return.
unsafe fn start(context: *mut Context, op: &Op, index: u32, arguments: u64, bytes: u64) -> i64 {
    let first = index.wrapping_add(1);
    let end = first.wrapping_add(op.count);
    // SAFETY: `arguments` is a `struct clone_args` of the plan; a child with a stack of its own starts there in
    // `child`, one without continues here on its copy of this stack.
    unsafe {
        let has_stack = *(arguments as *const u64).add(5) != 0;
        if has_stack {
            return clone_on_stack(arguments, bytes, child, context, first, end);
        }
        let result = syscall(SYS_CLONE3, arguments, bytes, 0, 0, 0, 0);
        if result == 0 {
            child(context, first, end);
        }
        result
    }
}

extern "C" fn child(context: *mut Context, index: u32, end: u32) -> ! {
    // SAFETY: the parent was running this plan with this context.
    unsafe {
        let (failed, result) = run(context, index, end);
        if failed != DONE {
            report(context, Reporter::Child, failed, result);
            exit_group();
        }
        syscall(SYS_EXIT, 0, 0, 0, 0, 0, 0);
    }
    exit_group()
}

unsafe fn report(context: *mut Context, reporter: Reporter, index: u32, result: i64) -> i64 {
    // SAFETY: `context` is valid; the kernel only reads `report`.
    unsafe {
        let report = Report { sequence: (*context).sequence, reporter, index, result };
        let address = &raw const report;
        syscall(
            SYS_SENDTO,
            (*context).control,
            address as u64,
            size_of::<Report>() as u64,
            MSG_NOSIGNAL,
            0,
            0,
        )
    }
}

#[repr(C)]
struct Vector {
    base: u64,
    bytes: u64,
}

#[repr(C)]
struct MessageHeader {
    name: u64,
    name_bytes: u64,
    vectors: u64,
    vector_count: u64,
    control: u64,
    control_bytes: u64,
    flags: u64,
}

/// Receives one request and puts the descriptors that came with it into the first slots.
unsafe fn receive(context: *mut Context, request: *mut Request) -> i64 {
    // A control message header of 16 bytes and room for the descriptors, 8-byte aligned.
    let mut control = core::mem::MaybeUninit::<[u64; 2 + DESCRIPTOR_SLOTS / 2]>::uninit();
    let vector = Vector { base: request as u64, bytes: size_of::<Request>() as u64 };
    let mut header = MessageHeader {
        name: 0,
        name_bytes: 0,
        vectors: &raw const vector as u64,
        vector_count: 1,
        control: control.as_mut_ptr() as u64,
        control_bytes: size_of_val(&control) as u64,
        flags: 0,
    };
    // SAFETY: all buffers are on this stack and as long as the header says; what the kernel wrote is read only as
    // far as it says that it wrote.
    unsafe {
        let received = syscall(SYS_RECVMSG, (*context).control, &raw mut header as u64, 0, 0, 0, 0);
        if received > 0 && header.control_bytes > 16 {
            let bytes = *control.as_ptr().cast::<u64>();
            let descriptors = control.as_ptr().cast::<i32>().add(4);
            let mut index = 0;
            while 16 + 4 * (index + 1) <= bytes && (index as usize) < DESCRIPTOR_SLOTS {
                *slot_of(context, index as usize) = *descriptors.add(index as usize) as u64;
                index += 1;
            }
        }
        received
    }
}

unsafe fn slot_of(context: *mut Context, slot: usize) -> *mut u64 {
    // SAFETY: callers name slots below SLOTS.
    unsafe { (&raw mut (*context).slots).cast::<u64>().add(slot) }
}

fn exit_group() -> ! {
    loop {
        // SAFETY: ends the process.
        unsafe { syscall(SYS_EXIT_GROUP, 1, 0, 0, 0, 0, 0) };
    }
}

unsafe fn syscall(number: u64, a: u64, b: u64, c: u64, d: u64, e: u64, f: u64) -> i64 {
    let result: i64;
    // SAFETY: the x86-64 system call convention; the kernel clobbers rcx and r11 only.
    unsafe {
        asm!("syscall", inlateout("rax") number as i64 => result, in("rdi") a, in("rsi") b, in("rdx") c,
             in("r10") d, in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// `clone3` whose child starts in `child(context, first, end)` on the stack that the arguments name.
#[unsafe(naked)]
unsafe extern "C" fn clone_on_stack(
    arguments: u64,
    bytes: u64,
    child: extern "C" fn(*mut Context, u32, u32) -> !,
    context: *mut Context,
    first: u32,
    end: u32,
) -> i64 {
    naked_asm!(
        "mov r10, rcx",
        "mov eax, {clone3}",
        "syscall",
        "test rax, rax",
        "jz 2f",
        "ret",
        "2:",
        "xor ebp, ebp",
        "mov rcx, rdx",
        "mov rdi, r10",
        "mov rsi, r8",
        "mov rdx, r9",
        "call rcx",
        "ud2",
        clone3 = const SYS_CLONE3,
    )
}

/// Calls a C function without arguments on another stack.
#[unsafe(naked)]
unsafe extern "C" fn call_on_stack(function: u64, stack: u64) -> i64 {
    naked_asm!(
        "push rbp",
        "mov rbp, rsp",
        "mov rsp, rsi",
        "and rsp, -16",
        "call rdi",
        "movsxd rax, eax",
        "mov rsp, rbp",
        "pop rbp",
        "ret",
    )
}

unsafe fn sigreturn(frame: u64) -> ! {
    // SAFETY: the plan built a whole signal frame there; the kernel takes every register from it.
    unsafe {
        asm!("mov rsp, {frame}", "syscall", "ud2", frame = in(reg) frame, in("rax") SYS_RT_SIGRETURN,
             options(noreturn));
    }
}

unsafe fn copy(to: u64, from: u64, bytes: u64) {
    // SAFETY: the plan names two mapped ranges that do not overlap. Written out, because a call of `memcpy` would
    // need a C library.
    unsafe {
        asm!("rep movsb", inout("rcx") bytes => _, inout("rdi") to => _, inout("rsi") from => _,
             options(nostack, preserves_flags));
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit_group()
}

