//! Stopping threads and reading and writing their state (`ptrace(2)`).
//!
//! A [`Tracee`] is one thread, seized and stopped. Its registers, extended state, signal mask and restartable
//! sequence are read while it stands still, and it can be made to carry out single system calls, which is the only
//! way to learn what the kernel tells a thread about itself alone. Deliberately absent: running it on. A checkpointed
//! process is killed, or let go by dropping its tracees.

use std::cell::RefCell;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::time::{Duration, Instant};

use libc::{c_long, c_void, iovec, pid_t, user_regs_struct};

/// Words of `struct user_regs_struct`.
pub const REGISTERS: usize = size_of::<user_regs_struct>() / 8;
/// Bytes of a `siginfo_t`.
pub const SIGNAL_INFO_BYTES: usize = 128;
const NT_X86_XSTATE: usize = 0x202;
const PTRACE_GET_RSEQ_CONFIGURATION: u32 = 0x420f;
const PTRACE_GETSIGMASK: u32 = 0x420a;
const PTRACE_SETSIGMASK: u32 = 0x420b;
const PTRACE_SECCOMP_GET_FILTER: u32 = 0x420c;
const PTRACE_SECCOMP_GET_METADATA: u32 = 0x420d;
const PTRACE_PEEKSIGINFO: u32 = 0x4209;
const PTRACE_PEEKSIGINFO_SHARED: u32 = 1;
const PTRACE_O_SUSPEND_SECCOMP: usize = 1 << 21;
const PTRACE_EVENT_STOP: i32 = 128;
/// More than any processor's extended state.
const XSAVE_BYTES_MAX: usize = 64 * 1024;
/// Signals that one look reads, and the most that may wait: beyond the kernel's default for a user.
const SIGNALS_AT_ONCE: usize = 16;
const SIGNALS_MAX: usize = 1 << 16;
/// How long a thread may take to stop: one that the kernel holds uninterruptibly would be waited for without end.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// How often a look is taken without a pause in between.
const LOOKS_WITHOUT_PAUSE: u32 = 100;
/// How often one injected call is begun anew when the thread is held up before it.
const ATTEMPTS_MAX: u32 = 100;

/// A `siginfo_t`.
pub type SignalInfo = [u8; SIGNAL_INFO_BYTES];

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
    halted_by: Option<i32>,
    /// Signals that came up while the thread made calls of the tracer: it gets them when it is let go.
    diverted: RefCell<Vec<SignalInfo>>,
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
    /// As [`Tracee::seize`] and [`Tracee::await_stop`].
    pub fn stop(tid: i32) -> io::Result<Self> {
        let mut tracee = Self::seize(tid)?;
        tracee.await_stop()?;
        Ok(tracee)
    }

    /// Seizes a thread and asks it to stop; [`Tracee::await_stop`] waits until it has.
    ///
    /// # Errors
    /// As `ptrace(2)`: `EPERM` without the right to trace it, `ESRCH` when it is gone.
    pub fn seize(tid: i32) -> io::Result<Self> {
        request(libc::PTRACE_SEIZE, tid, 0, ptr::null_mut())?;
        let tracee = Self { tid, halted_by: None, diverted: RefCell::default() };
        request(libc::PTRACE_INTERRUPT, tid, 0, ptr::null_mut())?;
        Ok(tracee)
    }

    /// Waits until a seized thread stands still. A signal that reaches it first is delivered.
    ///
    /// # Errors
    /// `ESRCH` when it ended meanwhile; `TimedOut` when the kernel does not let go of it.
    pub fn await_stop(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + STOP_PATIENCE;
        let mut looks = 0;
        loop {
            let Some(status) = self.waited(libc::WNOHANG)? else {
                looks += 1;
                if looks > LOOKS_WITHOUT_PAUSE {
                    std::thread::sleep(Duration::from_micros(100));
                } else {
                    std::thread::yield_now();
                }
                if Instant::now() > deadline {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                continue;
            };
            if status >> 16 == PTRACE_EVENT_STOP {
                let signal = libc::WSTOPSIG(status);
                self.halted_by = (signal != libc::SIGTRAP).then_some(signal);
                return Ok(());
            }
            // It stands before a signal: the signal would be lost if it were let go from here.
            let signal = if status >> 16 == 0 { libc::WSTOPSIG(status) } else { 0 };
            request(libc::PTRACE_CONT, self.tid, 0, signal as usize as *mut c_void)?;
        }
    }

    /// Its thread ID as this process sees it.
    #[must_use]
    pub fn tid(&self) -> i32 {
        self.tid
    }

    /// The signal (`SIGSTOP`, `SIGTSTP`, ...) that had stopped its process already, if one had.
    #[must_use]
    pub fn halted_by(&self) -> Option<i32> {
        self.halted_by
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

    /// The signals that wait for the thread, or with `shared` for any thread of its process: each a `siginfo_t`.
    ///
    /// # Errors
    /// As `ptrace(2)`; `InvalidData` when more wait than any limit allows.
    pub fn pending_signals(&self, shared: bool) -> io::Result<Vec<SignalInfo>> {
        #[repr(C)]
        struct Arguments {
            offset: u64,
            flags: u32,
            count: i32,
        }
        let mut found: Vec<SignalInfo> = Vec::new();
        loop {
            let arguments = Arguments {
                offset: found.len() as u64,
                flags: if shared { PTRACE_PEEKSIGINFO_SHARED } else { 0 },
                count: SIGNALS_AT_ONCE as i32,
            };
            let mut signals = [[0_u8; SIGNAL_INFO_BYTES]; SIGNALS_AT_ONCE];
            let place = (&raw const arguments) as usize;
            let count = request(PTRACE_PEEKSIGINFO, self.tid, place, signals.as_mut_ptr().cast())?;
            found.extend_from_slice(&signals[..(count as usize).min(SIGNALS_AT_ONCE)]);
            if (count as usize) < SIGNALS_AT_ONCE {
                if !shared {
                    found.extend_from_slice(&self.diverted.borrow());
                }
                return Ok(found);
            }
            if found.len() > SIGNALS_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }

    /// Lets injected calls pass the thread's seccomp filters until it is let go (`PTRACE_O_SUSPEND_SECCOMP`).
    ///
    /// # Errors
    /// As `ptrace(2)`: `EPERM` without `CAP_SYS_ADMIN`.
    pub fn suspend_filters(&self) -> io::Result<()> {
        let options = PTRACE_O_SUSPEND_SECCOMP as *mut c_void;
        request(libc::PTRACE_SETOPTIONS, self.tid, 0, options).map(drop)
    }

    /// The thread's seccomp filter with this index, the oldest being zero, as `struct sock_filter` after another;
    /// `None` when it has fewer.
    ///
    /// # Errors
    /// As `ptrace(2)`: `EACCES` without `CAP_SYS_ADMIN`, `EMEDIUMTYPE` for a filter that is no classic program.
    pub fn filter(&self, index: usize) -> io::Result<Option<Vec<u8>>> {
        const INSTRUCTION_BYTES: usize = 8;
        let count = match request(PTRACE_SECCOMP_GET_FILTER, self.tid, index, ptr::null_mut()) {
            Ok(count) => count as usize,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            Err(error) => return Err(error),
        };
        // The thread stands still and cannot change its filters between the two requests.
        let mut program = vec![0; count * INSTRUCTION_BYTES];
        request(PTRACE_SECCOMP_GET_FILTER, self.tid, index, program.as_mut_ptr().cast())?;
        Ok(Some(program))
    }

    /// The flags (`SECCOMP_FILTER_FLAG_*`) of that filter.
    ///
    /// # Errors
    /// As `ptrace(2)`.
    pub fn filter_flags(&self, index: usize) -> io::Result<u64> {
        // `struct seccomp_metadata`: index and flags.
        let mut words = [index as u64, 0];
        let bytes = size_of_val(&words);
        request(PTRACE_SECCOMP_GET_METADATA, self.tid, bytes, words.as_mut_ptr().cast())?;
        Ok(words[1])
    }

    /// Makes the thread carry out one system call and gives its result, leaving its registers as they were.
    /// `instruction` is the address of a `syscall` instruction in its memory.
    ///
    /// # Errors
    /// As `ptrace(2)`. The call's own failure is a negative result.
    pub fn system_call(&self, instruction: u64, number: i64, arguments: &[u64]) -> io::Result<i64> {
        self.borrow()?.system_call(instruction, number, arguments)
    }

    /// Borrows the thread's registers for several system calls.
    ///
    /// # Errors
    /// As `ptrace(2)`.
    pub fn borrow(&self) -> io::Result<Borrowed<'_>> {
        let registers = self.registers()?;
        let mask = self.signal_mask()?;
        // No handler may run on the borrowed registers. Only the signal of a step or a breakpoint stays open: the kernel
        // takes the handler away from a process that blocks it.
        self.set_signal_mask(!(1 << (libc::SIGTRAP - 1)))?;
        Ok(Borrowed { tracee: self, registers, mask })
    }

    /// Keeps the signal that a thread stands before.
    fn divert(&self) -> io::Result<()> {
        let mut signal = [0; SIGNAL_INFO_BYTES];
        request(libc::PTRACE_GETSIGINFO, self.tid, 0, signal.as_mut_ptr().cast())?;
        self.diverted.borrow_mut().push(signal);
        Ok(())
    }

    /// The status of a thread that has stopped; `None` when it has not and `options` says not to wait.
    fn waited(&self, options: i32) -> io::Result<Option<i32>> {
        let mut status = 0;
        loop {
            // SAFETY: `status` is a valid place for the kernel to write to; nothing else is touched.
            let waited = unsafe { libc::waitpid(self.tid, &raw mut status, libc::__WALL | options) };
            if waited == 0 {
                return Ok(None);
            }
            if waited == self.tid {
                break;
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        let stopped = libc::WIFSTOPPED(status).then_some(Some(status));
        stopped.ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        let mut signal = 0;
        // Having made calls, it stands before the signal of their end, in whose place it can be given another.
        if let Some(mut diverted) = self.diverted.borrow_mut().pop() {
            signal = i32::from_ne_bytes([0, 1, 2, 3].map(|index| diverted[index]));
            let _ = request(libc::PTRACE_SETSIGINFO, self.tid, 0, diverted.as_mut_ptr().cast());
        }
        // A thread that is gone cannot be let go, and need not be.
        let _ = request(libc::PTRACE_DETACH, self.tid, 0, signal as usize as *mut c_void);
    }
}

/// A stopped thread whose registers serve system calls of the tracer; dropping it gives them back.
#[derive(Debug)]
pub struct Borrowed<'a> {
    tracee: &'a Tracee,
    registers: Registers,
    mask: u64,
}

impl Borrowed<'_> {
    /// Makes the thread carry out one system call and gives its result. `instruction` is the address of a `syscall`
    /// instruction in its memory.
    ///
    /// # Errors
    /// As `ptrace(2)`. The call's own failure is a negative result.
    pub fn system_call(&self, instruction: u64, number: i64, arguments: &[u64]) -> io::Result<i64> {
        let mut borrowed = self.registers;
        borrowed[RIP] = instruction;
        borrowed[RAX] = number as u64;
        // Without this the kernel would take the borrowed registers for an interrupted call and restart it.
        borrowed[ORIG_RAX] = u64::MAX;
        for (register, argument) in ARGUMENTS.iter().zip(arguments) {
            borrowed[*register] = *argument;
        }
        self.tracee.set_registers(&borrowed)?;
        for _ in 0..ATTEMPTS_MAX {
            request(libc::PTRACE_SINGLESTEP, self.tracee.tid, 0, ptr::null_mut())?;
            let status = self.tracee.waited(0)?.unwrap_or(0);
            let registers = self.tracee.registers()?;
            if registers[RIP] != instruction {
                return Ok(registers[RAX] as i64);
            }
            self.held_up(status)?;
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Lets the thread run code from `start` on until it reaches a breakpoint instruction that ends at `end`. `set`
    /// gives registers a value first, by position in [`Registers`].
    ///
    /// # Errors
    /// As `ptrace(2)`; `InvalidData` when it leaves the code.
    pub fn run(&self, start: u64, end: u64, set: &[(usize, u64)]) -> io::Result<()> {
        let mut borrowed = self.registers;
        borrowed[RIP] = start;
        borrowed[ORIG_RAX] = u64::MAX;
        for &(register, value) in set {
            borrowed[register] = value;
        }
        self.tracee.set_registers(&borrowed)?;
        for _ in 0..ATTEMPTS_MAX {
            request(libc::PTRACE_CONT, self.tracee.tid, 0, ptr::null_mut())?;
            let status = self.tracee.waited(0)?.unwrap_or(0);
            let at = self.tracee.registers()?[RIP];
            if at == end {
                return Ok(());
            }
            if !(start..end).contains(&at) {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.held_up(status)?;
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// A change of its process's state may stop a thread on its way, and so may a signal that is none of the tracer's; it
    /// goes on from there.
    fn held_up(&self, status: i32) -> io::Result<()> {
        if status >> 16 == PTRACE_EVENT_STOP { Ok(()) } else { self.tracee.divert() }
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        // Both fail only for a thread that is gone.
        let _ = self.tracee.set_registers(&self.registers);
        let _ = self.tracee.set_signal_mask(self.mask);
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
    // that the request reads or writes; ptrace affects the traced thread alone, which belongs to the caller.
    let result = unsafe { libc::ptrace(what, tid, address as *mut c_void, data) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
