//! Asking a stopped thread questions that only it can put to the kernel.

use std::fs::File;
use std::os::unix::fs::FileExt;

use linux::ptrace::Tracee;

use super::smaps::Map;
use super::{CheckpointError, Doing};

/// The means to make system calls in the process: an instruction to step over and a page to read results from.
pub struct Remote<'a> {
    main: &'a Tracee,
    instruction: u64,
    scratch: u64,
    memory: File,
}

const SCRATCH_BYTES: u64 = 4096;

impl<'a> Remote<'a> {
    /// Finds a `syscall` instruction in the vDSO and maps a scratch page. It is made after the mappings have been
    /// read, so the page is not part of the image.
    pub fn new(main: &'a Tracee, maps: &[Map]) -> Result<Self, CheckpointError> {
        let pid = main.tid();
        let memory = File::open(format!("/proc/{pid}/mem")).doing("open the memory", pid)?;
        let vdso =
            maps.iter().find(|map| map.name == "[vdso]").ok_or_else(|| CheckpointError::Unsupported {
                what: format!("process {pid}, which has no vDSO,"),
                remedy: "boot the host without vdso=0",
            })?;
        let mut code = vec![0; (vdso.end - vdso.start) as usize];
        memory.read_exact_at(&mut code, vdso.start).doing("read the vDSO", pid)?;
        let position = code.windows(2).position(|pair| pair == [0x0f, 0x05]);
        let position = position.ok_or(std::io::ErrorKind::NotFound).map_err(std::io::Error::from);
        let instruction = vdso.start + position.doing("find a system call in the vDSO", pid)? as u64;
        let mut remote = Self { main, instruction, scratch: 0, memory };
        let protection = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        let bits = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
        let arguments = [0, SCRATCH_BYTES, protection, bits, u64::MAX, 0];
        remote.scratch = remote.checked(main, libc::SYS_mmap, &arguments, "map a page in the memory")? as u64;
        Ok(remote)
    }

    /// The thread that makes the calls of the process.
    pub fn main(&self) -> &Tracee {
        self.main
    }

    /// A system call of the main thread whose result is not negative.
    pub fn call(&self, number: i64, arguments: &[u64], doing: &'static str) -> Result<i64, CheckpointError> {
        self.checked(self.main, number, arguments, doing)
    }

    /// A system call of any thread that writes `N` words to the address that replaces the argument `place`.
    pub fn words<const N: usize>(
        &self,
        thread: &Tracee,
        number: i64,
        arguments: &[u64],
        place: usize,
        doing: &'static str,
    ) -> Result<[u64; N], CheckpointError> {
        let mut arguments = arguments.to_vec();
        arguments[place] = self.scratch;
        self.checked(thread, number, &arguments, doing)?;
        let mut words = [0; N];
        for (index, word) in words.iter_mut().enumerate() {
            let mut bytes = [0; 8];
            let address = self.scratch + 8 * index as u64;
            self.memory.read_exact_at(&mut bytes, address).doing(doing, thread.tid())?;
            *word = u64::from_ne_bytes(bytes);
        }
        Ok(words)
    }

    fn checked(
        &self,
        thread: &Tracee,
        number: i64,
        arguments: &[u64],
        doing: &'static str,
    ) -> Result<i64, CheckpointError> {
        let result = thread.system_call(self.instruction, number, arguments).doing(doing, thread.tid())?;
        let call = if (-4095..0).contains(&result) {
            Err(std::io::Error::from_raw_os_error(-result as i32))
        } else {
            Ok(result)
        };
        call.doing(doing, thread.tid())
    }
}

impl Drop for Remote<'_> {
    fn drop(&mut self) {
        if self.scratch != 0 {
            // The process is about to be killed; a page more in it hurts nobody.
            let _ = self.main.system_call(self.instruction, libc::SYS_munmap, &[self.scratch, SCRATCH_BYTES]);
        }
    }
}
