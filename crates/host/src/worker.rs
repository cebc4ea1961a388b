//! Work that takes longer than a restore, done by a forked process that ends with it.
//!
//! The answer comes back as JSON through a pipe; the pipe's end without an answer is the worker's death.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use linux::process::{self, Child, Fork};
use rustix::pipe::PipeFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::protocol::{Failure, FailureKind};

/// The longest answer in bytes.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// A worker at work.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    answer: OwnedFd,
    collected: Vec<u8>,
}

impl Worker {
    /// Forks a worker that does `work`.
    ///
    /// # Errors
    /// As `pipe2(2)` and `clone3(2)`.
    pub fn start<T: Serialize>(work: impl FnOnce() -> Result<T, Failure>) -> io::Result<Self> {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&read, true)?;
        let child = process::fork(&Fork::default(), || {
            // A worker without the host role has nobody to answer to.
            let _ = process::die_with_parent();
            let answer = serde_json::to_vec(&work()).unwrap_or_default();
            match std::fs::File::from(write).write_all(&answer) {
                Ok(()) => 0,
                Err(_) => 1,
            }
        })?;
        Ok(Self { child, answer: read, collected: Vec::new() })
    }

    /// Takes what is there of the answer. `None`: more is to come.
    pub fn answer<T: DeserializeOwned>(&mut self) -> Option<Result<T, Failure>> {
        let mut buffer = [0; 64 * 1024];
        loop {
            match rustix::io::read(&self.answer, &mut buffer) {
                Ok(0) => break,
                Ok(count) => self.collected.extend_from_slice(&buffer[..count]),
                Err(rustix::io::Errno::AGAIN) => return None,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => break,
            }
            if self.collected.len() as u64 > ANSWER_BYTES_MAX {
                break;
            }
        }
        // The pipe is closed by the worker's end, which the kernel completes in a moment.
        let _ = rustix::process::waitid(
            rustix::process::WaitId::PidFd(self.child.pidfd.as_fd()),
            rustix::process::WaitIdOptions::EXITED,
        );
        let lost = || Failure {
            kind: FailureKind::Internal,
            message: "the worker process died before it answered; see the server's log and the kernel's"
                .to_owned(),
        };
        Some(serde_json::from_slice(&self.collected).unwrap_or_else(|_| Err(lost())))
    }
}

impl AsFd for Worker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.answer.as_fd()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = process::signal(&self.child.pidfd, rustix::process::Signal::KILL);
        let _ = process::reap(&self.child.pidfd);
    }
}
