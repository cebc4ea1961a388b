//! Work in a process of its own, which answers once through a pipe.
//!
//! A checkpoint runs in one so that the death of the command cannot leave a process half stopped; the loading of a
//! template runs in one because the template becomes a child of *its* parent.

use std::io::{Read, Write};

use anyhow::{Context, Result, anyhow};
use linux::process::{self, Fork};
use rustix::process::{WaitId, WaitIdOptions};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::os::fd::AsFd;

/// The longest answer in bytes.
const ANSWER_BYTES_MAX: u64 = 256 << 20;

/// Has a forked process do `work` and waits for what it gives.
///
/// # Errors
/// The work's own error; that the process died; as `clone3(2)`.
pub fn answer<T: Serialize + DeserializeOwned>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .context("make a pipe to a helper process")?;
    let child = process::fork(&Fork::default(), || {
        let answer = work().map_err(|error| format!("{error:#}"));
        let bytes = serde_json::to_vec(&answer).unwrap_or_default();
        // A command that has died hears nothing.
        i32::from(std::fs::File::from(write).write_all(&bytes).is_err())
    })
    .context("start a helper process")?;
    let mut bytes = Vec::new();
    std::fs::File::from(read)
        .take(ANSWER_BYTES_MAX)
        .read_to_end(&mut bytes)
        .context("hear the helper process")?;
    let id = WaitId::PidFd(child.pidfd.as_fd());
    rustix::io::retry_on_intr(|| rustix::process::waitid(id.clone(), WaitIdOptions::EXITED))
        .context("wait for the helper process")?;
    let answer: Result<T, String> = serde_json::from_slice(&bytes)
        .map_err(|_| anyhow!("the helper process died before it was done; see the kernel's log (dmesg)"))?;
    answer.map_err(|message| anyhow!(message))
}
