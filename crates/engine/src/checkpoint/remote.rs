//! Asking a stopped thread questions that only it can put to the kernel.
//!
//! Each switch to a thread and back is slow, more so on a busy host. So a list of system calls is written into a page
//! of the process, a few instructions beside it carry them all out, and the answers are read at once.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use linux::ptrace::{Borrowed, Tracee};

use super::smaps::Map;
use super::{CheckpointError, Doing};

const PAGE: u64 = 4096;
/// A call in the list: number, then six arguments; the result replaces the number.
const CALL_WORDS: usize = 7;
/// Where the room for answers begins; the list of calls lies before it.
const ANSWERS: u64 = 2048;
/// Bytes of answers that calls may be given.
pub const ANSWER_BYTES: u64 = PAGE - ANSWERS;
/// The most calls in a list.
pub const CALLS_MAX: usize = ANSWERS as usize / 8 / CALL_WORDS;
const VDSO_BYTES_MAX: u64 = 1 << 20;
/// Positions of `r12` and `r13` among the registers.
const LIST: usize = 3;
const COUNT: usize = 2;
/// Position of the code segment, and its value in 64-bit user code.
const CODE_SEGMENT: usize = 17;
const CODE_SEGMENT_64: u64 = 0x33;
/// Carries out the `r13` calls at `r12`.
const CODE: &[u8] = &[
    0x49, 0x8b, 0x04, 0x24, // mov rax, [r12]
    0x49, 0x8b, 0x7c, 0x24, 0x08, // mov rdi, [r12 + 8]
    0x49, 0x8b, 0x74, 0x24, 0x10, // mov rsi, [r12 + 16]
    0x49, 0x8b, 0x54, 0x24, 0x18, // mov rdx, [r12 + 24]
    0x4d, 0x8b, 0x54, 0x24, 0x20, // mov r10, [r12 + 32]
    0x4d, 0x8b, 0x44, 0x24, 0x28, // mov r8, [r12 + 40]
    0x4d, 0x8b, 0x4c, 0x24, 0x30, // mov r9, [r12 + 48]
    0x0f, 0x05, // syscall
    0x49, 0x89, 0x04, 0x24, // mov [r12], rax
    0x49, 0x83, 0xc4, 0x38, // add r12, 56
    0x49, 0xff, 0xcd, // dec r13
    0x75, 0xcf, // jnz to the beginning
    0xcc, // int3
];

/// The means to make system calls in a process: code, and a page for calls and answers.
pub struct Remote<'a> {
    main: &'a Tracee,
    /// A `syscall` instruction of the process itself.
    instruction: u64,
    /// A page of code, then a page of data.
    pages: u64,
    memory: File,
}

impl<'a> Remote<'a> {
    /// Finds a `syscall` instruction in the vDSO and maps the two pages. It is made after the mappings have been read,
    /// so the pages are not part of the image.
    pub fn new(main: &'a Tracee, maps: &[Map]) -> Result<Self, CheckpointError> {
        let pid = main.tid();
        let registers = main.registers().doing("read the registers", pid)?;
        if registers[CODE_SEGMENT] != CODE_SEGMENT_64 {
            return Err(CheckpointError::Unsupported {
                what: format!("process {pid}, which runs 32-bit code,"),
                remedy: "run a 64-bit program",
            });
        }
        let memory = File::options().read(true).write(true).open(format!("/proc/{pid}/mem"));
        let memory = memory.doing("open the memory", pid)?;
        let vdso = maps.iter().find(|map| map.name == "[vdso]" && map.end - map.start <= VDSO_BYTES_MAX);
        let vdso = vdso.ok_or_else(|| CheckpointError::Unsupported {
            what: format!("process {pid}, which has no vDSO,"),
            remedy: "boot the host without vdso=0",
        })?;
        let mut code = vec![0; (vdso.end - vdso.start) as usize];
        memory.read_exact_at(&mut code, vdso.start).doing("read the vDSO", pid)?;
        let position = code.windows(2).position(|pair| pair == [0x0f, 0x05]);
        let position = position.ok_or(io::ErrorKind::NotFound).map_err(io::Error::from);
        let instruction = vdso.start + position.doing("find a system call in the vDSO", pid)? as u64;
        let mut remote = Self { main, instruction, pages: 0, memory };
        remote.map()?;
        Ok(remote)
    }

    /// Never writable and executable at once, which some processes have forbidden themselves.
    fn map(&mut self) -> Result<(), CheckpointError> {
        const DOING: &str = "map a page in the memory";
        let pid = self.main.tid();
        let borrowed = self.main.borrow().doing("borrow the registers", pid)?;
        let code = (libc::PROT_READ | libc::PROT_EXEC) as u64;
        let data = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        let bits = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
        let arguments = [0, 2 * PAGE, code, bits, u64::MAX, 0];
        let mapped = borrowed.system_call(self.instruction, libc::SYS_mmap, &arguments).doing(DOING, pid)?;
        self.pages = result(mapped).doing(DOING, pid)? as u64;
        let arguments = [self.pages + PAGE, PAGE, data];
        let changed =
            borrowed.system_call(self.instruction, libc::SYS_mprotect, &arguments).doing(DOING, pid)?;
        result(changed).doing(DOING, pid)?;
        self.memory.write_all_at(CODE, self.pages).doing("write the memory", pid)
    }

    /// An address in the process for answers; `offset` is in bytes.
    pub fn place(&self, offset: u64) -> u64 {
        self.pages + PAGE + ANSWERS + offset
    }

    /// Has a thread of the process carry out calls, no more than [`CALLS_MAX`].
    pub fn calls(&self, thread: &Tracee, calls: &[Call<'_>]) -> Result<Answers, CheckpointError> {
        let tid = thread.tid();
        let list = self.pages + PAGE;
        let mut bytes = Vec::with_capacity(calls.len() * CALL_WORDS * 8);
        for (number, arguments) in calls {
            let words = arguments.iter().copied().chain([0; CALL_WORDS]).take(CALL_WORDS - 1);
            bytes.extend([*number as u64].into_iter().chain(words).flat_map(u64::to_ne_bytes));
        }
        // Zeros where answers come: some calls write half a word.
        bytes.resize(PAGE as usize, 0);
        self.memory.write_all_at(&bytes, list).doing("write the memory", tid)?;
        let borrowed: Borrowed<'_> = thread.borrow().doing("borrow the registers", tid)?;
        let set = [(LIST, list), (COUNT, calls.len() as u64)];
        let end = self.pages + CODE.len() as u64;
        borrowed.run(self.pages, end, &set).doing("make system calls on behalf", tid)?;
        drop(borrowed);
        self.memory.read_exact_at(&mut bytes, list).doing("read the answers", tid)?;
        Ok(Answers { bytes, tid })
    }
}

impl Drop for Remote<'_> {
    fn drop(&mut self) {
        if self.pages != 0 {
            // It fails only for a process that is gone.
            let arguments = [self.pages, 2 * PAGE];
            let _ = self.main.system_call(self.instruction, libc::SYS_munmap, &arguments);
        }
    }
}

/// A system call: its number and its arguments.
pub type Call<'a> = (i64, &'a [u64]);

/// What calls have given.
pub struct Answers {
    bytes: Vec<u8>,
    tid: i32,
}

impl Answers {
    /// The result of the call with this index.
    pub fn result(&self, index: usize, doing: &'static str) -> Result<i64, CheckpointError> {
        result(self.word(index * CALL_WORDS) as i64).doing(doing, self.tid)
    }

    /// Words that calls have written, from `offset` on in bytes.
    pub fn words<const N: usize>(&self, offset: u64) -> [u64; N] {
        let first = (ANSWERS + offset) as usize / 8;
        std::array::from_fn(|index| self.word(first + index))
    }

    fn word(&self, index: usize) -> u64 {
        let bytes = self.bytes.get(8 * index..8 * index + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_ne_bytes)
    }
}

/// The result of a system call, which tells of failure by a small negative number.
fn result(result: i64) -> io::Result<i64> {
    if (-4095..0).contains(&result) { Err(io::Error::from_raw_os_error(-result as i32)) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_jump_of_the_code_leads_to_its_beginning() {
        let jump = CODE.len() - 3;
        assert_eq!(CODE[jump], 0x75);
        let distance = CODE[jump + 1] as i8;
        assert_eq!((jump + 2) as i64 + i64::from(distance), 0);
    }

    #[test]
    fn a_failure_is_told_from_a_large_result() {
        assert!(result(-22).is_err());
        assert_eq!(result(-4096).unwrap(), -4096);
    }
}
