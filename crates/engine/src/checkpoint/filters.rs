//! Seccomp filters.
//!
//! Each thread has its own, though most have those of their process. A sandbox's own filter is one of them: a snapshot
//! holds it, and so every clone has it.

use super::family::{Member, Task};
use super::{CheckpointError, Doing};
use crate::image::Filter;

/// The value of `Seccomp` in `/proc/PID/status` for a process with filters.
const MODE_FILTER: u64 = 2;
/// As many instructions as all filters of a process may have in the kernel together.
const INSTRUCTIONS_MAX: usize = 32 * 1024;

/// Lets calls that are made on behalf of the checkpoint pass the filters.
pub fn suspend(member: &Member) -> Result<(), CheckpointError> {
    for task in member.threads.iter().filter(|task| task.status.number("Seccomp", 10) != 0) {
        if task.tracee.suspend_filters().is_err() {
            return Err(refused(member, "a seccomp filter"));
        }
    }
    Ok(())
}

/// Reads the filters of a thread, the oldest first.
pub fn save(member: &Member, task: &Task) -> Result<Vec<Filter>, CheckpointError> {
    match task.status.number("Seccomp", 10) {
        0 => return Ok(Vec::new()),
        MODE_FILTER => {}
        _ => return Err(refused(member, "the strict mode of seccomp")),
    }
    let mut filters = Vec::new();
    let mut instructions = 0;
    for index in 0.. {
        let read = task.tracee.filter(index);
        let program = match read {
            Ok(Some(program)) => program,
            Ok(None) => break,
            Err(error) if [libc::EACCES, libc::EMEDIUMTYPE].contains(&error.raw_os_error().unwrap_or(0)) => {
                return Err(refused(member, "a seccomp filter"));
            }
            Err(error) => return Err(error).doing("read a seccomp filter", member.host_pid),
        };
        instructions += program.len() / 8;
        if instructions > INSTRUCTIONS_MAX {
            return Err(refused(member, "seccomp filters beyond the kernel's limit"));
        }
        let flags = task.tracee.filter_flags(index).unwrap_or(0);
        filters.push(Filter { program, flags });
    }
    Ok(filters)
}

fn refused(member: &Member, what: &str) -> CheckpointError {
    CheckpointError::Unsupported {
        what: format!("{what} of {}", member.title()),
        remedy: "install it after the snapshot, in an after-restore hook",
    }
}
