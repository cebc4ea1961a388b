//! Executing a program as the function's user: the last steps with privilege, and the loss of it.
//!
//! The order matters: what needs privilege comes first (cgroups, the bounding set, the user), the signals are opened
//! last, and from the change of user to `execve` nothing of the function's has run.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use linux::credential;
use linux::process::{self, Child, Fork, Program};
use rustix::process::{Resource, Rlimit};

use super::{Context, Step};
use crate::layout::{ExecSpec, FUNCTION_GID, FUNCTION_UID};

/// The soft limit of a stack in bytes, the usual one; a larger one of the host would shrink the memory of threads.
const STACK_BYTES: u64 = 8 << 20;

/// What a child that failed before `execve` exits with; nobody sees it but the kernel.
const FAILED_STATUS: i32 = 127;

/// Executes the program. `descriptors` are its standard output and error, then `cgroup.procs` files to join.
/// It returns when the program runs.
pub(super) fn exec(spec: &ExecSpec, descriptors: &[OwnedFd], only_user: bool) -> Step<Child> {
    let [stdout, stderr, groups @ ..] = descriptors else {
        return Err("a program needs standard output and error".to_owned());
    };
    let path = spec.argv.first().ok_or("a program needs a path")?;
    let environment = spec.env.iter().map(|(name, value)| format!("{name}={value}"));
    let program = Program::new(path, spec.argv.iter().map(String::as_str), environment)
        .map_err(|_| "the program's arguments or variables hold a zero byte".to_owned())?;
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("make a pipe")?;
    let child = process::fork(&Fork::default(), || {
        let message = prepare(spec, stdout.as_fd(), stderr.as_fd(), groups, only_user)
            .and_then(|()| program.execute().context(format_args!("execute {path}")))
            .expect_err("execute returns only when it failed");
        let _ = rustix::io::write(&write, message.as_bytes());
        FAILED_STATUS
    })
    .context("fork")?;
    drop(write);
    // The pipe's end of file is the moment of execution: it closes the child's end.
    let mut message = String::new();
    std::fs::File::from(read).read_to_string(&mut message).context("wait for execution")?;
    if message.is_empty() { Ok(child) } else { Err(message) }
}

fn prepare(
    spec: &ExecSpec,
    stdout: BorrowedFd<'_>,
    stderr: BorrowedFd<'_>,
    groups: &[OwnedFd],
    only_user: bool,
) -> Step {
    for group in groups {
        rustix::io::write(group, b"0").context("join a cgroup")?;
    }
    rustix::process::setsid().context("start a session")?;
    rustix::stdio::dup2_stdout(stdout).context("set standard output")?;
    rustix::stdio::dup2_stderr(stderr).context("set standard error")?;
    process::close_all_on_exec().context("close descriptors")?;
    limit(Resource::Nofile, spec.open_files_max, spec.open_files_max)?;
    limit(Resource::Core, 0, 0)?;
    let stack_max = rustix::process::getrlimit(Resource::Stack).maximum;
    limit(
        Resource::Stack,
        stack_max.map_or(STACK_BYTES, |max| max.min(STACK_BYTES)),
        stack_max.unwrap_or(u64::MAX),
    )?;
    credential::refuse_new_privileges().context("refuse new privileges")?;
    credential::empty_bounding_set().context("empty the bounding set")?;
    if !only_user {
        credential::become_user(FUNCTION_UID, FUNCTION_GID).context("become the function's user")?;
    }
    credential::drop_capabilities().context("drop capabilities")?;
    rustix::process::chdir(spec.cwd.as_str()).context(format_args!("enter {}", spec.cwd))?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    super::filter::deny_dangerous_calls()?;
    process::reset_signal_actions();
    process::unblock_signals().context("unblock signals")
}

fn limit(resource: Resource, soft: u64, hard: u64) -> Step {
    let hard = (hard != u64::MAX).then_some(hard);
    rustix::process::setrlimit(resource, Rlimit { current: Some(soft), maximum: hard })
        .context(format_args!("limit {resource:?}"))
}
