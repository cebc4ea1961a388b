//! Stopping threads and reading and writing their state (`ptrace(2)`).
//!
//! A [`Tracee`] is one thread, seized and stopped. Its registers, extended state, signal mask and restartable
//! sequence are read while it stands still, and it can be made to carry out single system calls, which is the only
//! way to learn what the kernel tells a thread about itself alone. Deliberately absent: running it on. A checkpointed
//! process is killed.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use libc::{c_long, c_void, iovec, pid_t, user_regs_struct};

/// Words of `struct user_regs_struct`.
pub const REGISTERS: usize = size_of::<user_regs_struct>() / 8;
const NT_X86_XSTATE: usize = 0x202;
const PTRACE_GET_RSEQ_CONFIGURATION: u32 = 0x420f;
const PTRACE_GETSIGMASK: u32 = 0x420a;
const PTRACE_SETSIGMASK: u32 = 0x420b;
/// More than any processor's extended state.
const XSAVE_BYTES_MAX: usize = 64 * 1024;

/// General registers in the order of `struct user_regs_struct`.
pub type Registers = [u64; REGISTERS];

/// Positions in [`Registers`] that calls into a thread need.
const ORIG_RAX: usize = 15;
const RAX: usize = 10;
const RIP: usize = 16;
/// Registers of the arguments of a system call, in order.
const ARGUMENTS: [usize; 6] = [14, 13, 12, 7, 9, 8];

/// A thread that this thread has seized and stopped.
#[derive(Debug)]
pub struct Tracee {
    tid: pid_t,
}

/// A registered restartable sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rseq {
    /// Address of the thread's `struct rseq`.
    pub address: u64,
    /// Bytes registered.
    pub bytes: u32,
    /// Signature before abort handlers.
    pub signature: u32,
}

impl Tracee {
    /// Seizes a thread and stops it.
    ///
    /// # Errors
    /// As `ptrace(2)`: `EPERM` without the right to trace it, `ESRCH` when it is gone.
    pub fn stop(tid: i32) -> io::Result<Self> {
        request(libc::PTRACE_SEIZE, tid, 0, ptr::null_mut())?;
        let tracee = Self { tid };
        request(libc::PTRACE_INTERRUPT, tid, 0, ptr::null_mut())?;
        tracee.wait_for_stop()?;
        Ok(tracee)
    }

    /// Its thread ID as this process sees it.
    #[must_use]
    pub fn tid(&self) -> i32 {
        self.tid
    }

    /// Reads the general registers.
    ///
    /// # Errors
    /// As `ptrace(2)`.
    pub fn registers(&self) -> io::Result<Registers> {
        let mut registers = [0; REGISTERS];
        request(libc::PTRACE_GETREGS, self.tid, 0, registers.as_mut_ptr().cast())?;
        Ok(registers)
    }

    /// Writes the general registers.
    ///
    /// # Errors
    /// As `ptrace(2)`.
    pub fn set_registers(&self, registers: &Registers) -> io::Result<()> {
        let mut registers = *registers;
        request(libc::PTRACE_SETREGS, self.tid, 0, registers.as_mut_ptr().cast())?;
        Ok(())
    }

    /// Reads the extended state (`XSAVE`, standard form).
    ///
    /// # Errors
    /// As `ptrace(2)`.
    pub fn xsave(&self) -> io::Result<Vec<u8>> {
        let mut state = vec![0; XSAVE_BYTES_MAX];
        let mut vector = iovec { iov_base: state.as_mut_ptr().cast(), iov_len: state.len() };
        request(libc::PTRACE_GETREGSET, self.tid, NT_X86_XSTATE, (&raw mut vector).cast())?;
        state.truncate(vector.iov_len);
        Ok(state)
    }

    /// Reads the set of blocked signals.
    ///
    /// # Errors
    /// As `ptrace(2)`.
    pub fn signal_mask(&self) -> io::Result<u64> {
        let mut mask = 0_u64;
        request(PTRACE_GETSIGMASK, self.tid, 8, (&raw mut mask).cast())?;
        Ok(mask)
    }

    /// Blocks exactly these signals.
    ///
    /// # Errors
    /// As `ptrace(2)`.
    pub fn set_signal_mask(&self, mask: u64) -> io::Result<()> {
        let mut mask = mask;
        request(PTRACE_SETSIGMASK, self.tid, 8, (&raw mut mask).cast())?;
        Ok(())
    }

    /// The thread's restartable sequence, if it has registered one.
    ///
    /// # Errors
    /// As `ptrace(2)`; a kernel before 5.13 has no such request.
    pub fn rseq(&self) -> io::Result<Option<Rseq>> {
        // `struct ptrace_rseq_configuration`: pointer, size, signature, flags, padding.
        let mut words = [0_u64; 3];
        let bytes = size_of_val(&words);
        request(PTRACE_GET_RSEQ_CONFIGURATION, self.tid, bytes, words.as_mut_ptr().cast())?;
        let rseq = Rseq { address: words[0], bytes: words[1] as u32, signature: (words[1] >> 32) as u32 };
        Ok((rseq.address != 0).then_some(rseq))
    }

    /// Makes the thread carry out one system call and gives its result, leaving its registers as they were.
    /// `instruction` is the address of a `syscall` instruction in its memory.
    ///
    /// # Errors
    /// As `ptrace(2)`. The call's own failure is a negative result.
    pub fn system_call(&self, instruction: u64, number: i64, arguments: &[u64]) -> io::Result<i64> {
        let saved = self.registers()?;
        let mask = self.signal_mask()?;
        // No handler may run on the borrowed registers.
        self.set_signal_mask(u64::MAX)?;
        let mut borrowed = saved;
        borrowed[RIP] = instruction;
        borrowed[RAX] = number as u64;
        // Without this the kernel would take the borrowed registers for an interrupted call and restart it.
        borrowed[ORIG_RAX] = u64::MAX;
        for (register, argument) in ARGUMENTS.iter().zip(arguments) {
            borrowed[*register] = *argument;
        }
        self.set_registers(&borrowed)?;
        request(libc::PTRACE_SINGLESTEP, self.tid, 0, ptr::null_mut())?;
        self.wait_for_stop()?;
        let result = self.registers()?[RAX] as i64;
        self.set_registers(&saved)?;
        self.set_signal_mask(mask)?;
        Ok(result)
    }

    fn wait_for_stop(&self) -> io::Result<()> {
        let mut status = 0;
        loop {
            // SAFETY: `status` is a valid place for the kernel to write to; nothing else is touched.
            let waited = unsafe { libc::waitpid(self.tid, &raw mut status, libc::__WALL) };
            if waited == self.tid {
                break;
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        if libc::WIFSTOPPED(status) { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        // A thread that is gone cannot be let go, and need not be.
        let _ = request(libc::PTRACE_DETACH, self.tid, 0, ptr::null_mut());
    }
}

/// The robust futex list of a thread: address of its head and length of the head.
///
/// # Errors
/// As `get_robust_list(2)`.
pub fn robust_list(tid: i32) -> io::Result<(u64, u64)> {
    let (mut head, mut bytes) = (MaybeUninit::<u64>::uninit(), MaybeUninit::<u64>::uninit());
    // SAFETY: both places are valid for the kernel to write one word to, and are read only after it said it did.
    unsafe {
        let result = libc::syscall(libc::SYS_get_robust_list, tid, head.as_mut_ptr(), bytes.as_mut_ptr());
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((head.assume_init(), bytes.assume_init()))
    }
}

fn request(what: u32, tid: pid_t, address: usize, data: *mut c_void) -> io::Result<c_long> {
    // SAFETY: every caller in this file passes, for the request that it makes, either no data or a buffer of the size
    // that the request writes or reads; ptrace affects the traced thread alone, which belongs to the caller.
    let result = unsafe { libc::ptrace(what, tid, address as *mut c_void, data) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
