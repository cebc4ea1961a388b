//! Becoming something else: a forked process gives itself to a block of injected code.
//!
//! [`spawn`] forks the calling single-threaded process; the child maps the block, closes what it does not need and
//! jumps. What the block does from there is decided by the plan that lies in it. Deliberately absent: knowledge of
//! plans; the block is bytes, an entry at its start, a stack and one argument.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Where a block goes and how it is entered. All addresses are in the child.
#[derive(Debug)]
pub struct Block<'a> {
    /// First byte, page-aligned. The entry point.
    pub start: u64,
    /// The whole content; its first `code_bytes` become executable and read-only, the rest stays writable.
    pub content: &'a [u8],
    /// Bytes of code, a multiple of the page size.
    pub code_bytes: u64,
    /// End of the stack to enter on.
    pub stack_end: u64,
    /// The entry's only argument.
    pub argument: u64,
    /// The control socket's number in the child. Every lower number is occupied by `/dev/null`, every higher one is
    /// free.
    pub control: i32,
    /// A process whose mount, network, IPC and UTS namespaces the child enters first.
    pub namespaces: BorrowedFd<'a>,
    /// Whether the child gives up new privileges and its bounding set of capabilities, and its children with it.
    pub confine: bool,
}

/// Forks this process into `block`. The child is a child of this process's *parent*, has every signal blocked, and
/// dies with that parent. Gives the child's process ID.
///
/// # Errors
/// As `clone3(2)`. A child that cannot set itself up exits with status 120; the control socket then reads as closed.
///
/// # Panics
/// If `block.start` is not page-aligned.
pub fn spawn(block: &Block<'_>, control: BorrowedFd<'_>) -> io::Result<i32> {
    assert!(block.start.is_multiple_of(4096), "the block must be page-aligned");
    let flags = libc::CLONE_PARENT as u64;
    // `struct clone_args`, first version: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls.
    // With CLONE_PARENT the exit signal is that of this process, so none may be named.
    let arguments = [flags, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: without CLONE_VM the child has its own copy of everything and, as the caller is single-threaded, no
    // lock is held by a thread that is missing in it. The child calls `become_block`, which never returns.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, arguments.as_ptr(), size_of_val(&arguments)) };
    match pid {
        0 => become_block(block, control),
        1.. => Ok(pid as i32),
        _ => Err(io::Error::last_os_error()),
    }
}

fn become_block(block: &Block<'_>, control: BorrowedFd<'_>) -> ! {
    // SAFETY: this is the single thread of a forked child that does nothing but this. Every call below either fails,
    // and then the child ends, or changes only this process; nothing of the Rust program is used after the jump.
    unsafe {
        if prepare(block, control.as_raw_fd()).is_none() {
            libc::_exit(120);
        }
        enter(block.argument, block.stack_end, block.start)
    }
}

/// # Safety
/// The caller is the only thread of a process that will run nothing but the block.
unsafe fn prepare(block: &Block<'_>, control: i32) -> Option<()> {
    let checked = |result: libc::c_long| (result >= 0).then_some(result);
    // SAFETY: the caller's promise covers the process-wide changes; buffers are the block's own or locals.
    unsafe {
        let every_signal = u64::MAX;
        let set = &raw const every_signal;
        checked(libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, set, 0, 8))?;
        checked(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL).into())?;
        let namespaces = libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        checked(libc::setns(block.namespaces.as_raw_fd(), namespaces).into())?;
        if block.confine {
            checked(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into())?;
            for capability in 0..64 {
                // Fails beyond the last capability of this kernel, and where the right to drop is missing.
                libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
            }
        }
        reserve_descriptors(block.control, control)?;
        for signal in 1..=64 {
            // Only dispositions that the image names shall differ from the default.
            let default = [0_u64; 4];
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), 0, 8);
        }
        unregister_rseq();
        map_block(block)
    }
}

/// # Safety
/// As [`prepare`].
unsafe fn reserve_descriptors(control_number: i32, control: i32) -> Option<()> {
    // SAFETY: the process's other descriptors are not used again.
    unsafe {
        let parked = libc::fcntl(control, libc::F_DUPFD, control_number + 2);
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        if parked < 0 || null < 0 {
            return None;
        }
        let null = libc::fcntl(null, libc::F_DUPFD, control_number + 2);
        if null < 0 {
            return None;
        }
        for number in 0..control_number {
            if libc::dup2(null, number) < 0 {
                return None;
            }
        }
        if libc::dup2(parked, control_number) < 0 {
            return None;
        }
        (libc::syscall(libc::SYS_close_range, control_number + 1, u32::MAX, 0) == 0).then_some(())
    }
}

/// The C library registered a restartable sequence for this thread. The kernel would go on writing to it after its
/// memory is unmapped.
///
/// # Safety
/// As [`prepare`].
unsafe fn unregister_rseq() {
    const RSEQ_FLAG_UNREGISTER: u64 = 1;
    const RSEQ_SIGNATURE: u64 = 0x5305_3053;
    // SAFETY: `dlsym` only looks names up; the symbols, where the C library has them, are an offset from the thread
    // pointer and a size, and they describe this thread's registration. If they do not, the call fails harmlessly.
    unsafe {
        let offset = libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_offset".as_ptr()).cast::<isize>();
        let size = libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_size".as_ptr()).cast::<u32>();
        if offset.is_null() || size.is_null() || *size == 0 {
            return;
        }
        let thread_pointer: u64;
        std::arch::asm!("mov {}, fs:0", out(reg) thread_pointer, options(nostack, readonly));
        let address = thread_pointer.wrapping_add_signed(*offset as i64);
        // The size that was registered is at least 32, whatever part of it the C library offers.
        for bytes in [32_u64, u64::from(*size)] {
            let flags = RSEQ_FLAG_UNREGISTER;
            if libc::syscall(libc::SYS_rseq, address, bytes, flags, RSEQ_SIGNATURE) == 0 {
                return;
            }
        }
    }
}

/// # Safety
/// As [`prepare`].
unsafe fn map_block(block: &Block<'_>) -> Option<()> {
    let bytes = block.content.len().next_multiple_of(4096);
    let place = block.start as *mut libc::c_void;
    let bits = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    let writable = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: NOREPLACE refuses an occupied place, so the new mapping is nobody else's; the copy stays inside it.
    unsafe {
        if libc::mmap(place, bytes, writable, bits, -1, 0) != place {
            return None;
        }
        std::ptr::copy_nonoverlapping(block.content.as_ptr(), place.cast(), block.content.len());
        let executable = libc::PROT_READ | libc::PROT_EXEC;
        (libc::mprotect(place, block.code_bytes as usize, executable) == 0).then_some(())
    }
}

/// # Safety
/// `entry` is the start of a block mapped by [`map_block`], `stack_end` the end of a stack in it.
unsafe fn enter(argument: u64, stack_end: u64, entry: u64) -> ! {
    // SAFETY: the caller's promise. At a C function's entry the stack is eight bytes off a multiple of sixteen.
    unsafe {
        std::arch::asm!(
            "mov rsp, {stack}",
            "and rsp, -16",
            "push 0",
            "jmp {entry}",
            stack = in(reg) stack_end,
            entry = in(reg) entry,
            in("rdi") argument,
            options(noreturn),
        )
    }
}

/// The bytes of a plain structure that an injected block shares with this process.
pub fn bytes_of<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: `Plain` promises that `T` has no padding and no pointer, so all of its bytes are initialized.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// Structures that are the same bytes in every process.
///
/// # Safety
/// The type is `repr(C)`, holds integers and field-less enums with a fixed representation only, and has no padding.
pub unsafe trait Plain {}
