//! Waiting for clones in the foreground: signals, the terminal, and the exit code.

use anyhow::{Context, Result};
use linux::signal::{Signals, Taken};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, getpgid, getpgrp, getpid, kill_process, kill_process_group};

use super::clone::Clone;
use super::init::{FromInit, PASSED_ON};
use super::terminal::Terminal;

/// `SIGTTOU`, which a command that takes its terminal back would get.
const TERMINAL_OUTPUT: i32 = 22;

/// Takes the signals that are for the clones. Before they are released, so that none is lost.
///
/// # Errors
/// As `signalfd(2)`.
pub fn signals() -> Result<Signals> {
    let mut taken = PASSED_ON.to_vec();
    taken.push(TERMINAL_OUTPUT);
    Signals::take(&taken).context("take signals")
}

/// Waits until every clone has ended. Gives the first exit code that is not zero, else zero.
///
/// # Errors
/// As `poll(2)`.
pub fn wait(clones: &[Clone], signals: &Signals, terminal: &mut Terminal) -> Result<i32> {
    let mut codes: Vec<Option<i32>> = vec![None; clones.len()];
    while codes.contains(&None) {
        let running: Vec<usize> = (0..clones.len()).filter(|&index| codes[index].is_none()).collect();
        let ready: Vec<bool> = {
            let channels = running.iter().map(|&index| clones[index].channel());
            let mut fds: Vec<_> = channels.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
            fds.push(PollFd::new(signals, PollFlags::IN));
            rustix::io::retry_on_intr(|| poll(&mut fds, None)).context("wait for the clones")?;
            fds.iter().map(|fd| !fd.revents().is_empty()).collect()
        };
        for (&index, _) in running.iter().zip(&ready).filter(|(_, ready)| **ready) {
            match clones[index].news()? {
                FromInit::Ended(code) => codes[index] = Some(code),
                FromInit::Stopped => stop_too(&clones[index], terminal),
                _ => {}
            }
        }
        while let Some(taken) = signals.next()? {
            clones.iter().for_each(|clone| pass_on(clone, taken));
        }
    }
    terminal.take_back();
    clones.iter().for_each(Clone::reap);
    Ok(codes.into_iter().flatten().find(|code| *code != 0).unwrap_or(0))
}

/// What the terminal sends goes to a whole process group, and to this command only when it is in that group: a clone
/// in the same group has it already.
fn pass_on(clone: &Clone, taken: Taken) {
    if taken.number == TERMINAL_OUTPUT {
        return;
    }
    let group = getpgid(Some(clone.pid));
    match (taken.from_kernel, group, Signal::from_named_raw(taken.number)) {
        (true, Ok(group), _) if group == getpgrp() => {}
        (true, Ok(group), Some(signal)) => {
            let _ = kill_process_group(group, signal);
        }
        _ => clone.signal(taken.number),
    }
}

/// The clone was stopped, by Ctrl-Z or because it read in the background: lets the shell know by stopping too, and goes
/// on with it. A clone in this command's own group is the shell's business.
fn stop_too(clone: &Clone, terminal: &mut Terminal) {
    if !terminal.is_for(clone.pid) {
        return;
    }
    if terminal.take_back() || !terminal.is_ours() {
        let _ = kill_process(getpid(), Signal::STOP);
    }
    terminal.lend(clone.pid);
    let _ = kill_process_group(group_of(clone), Signal::CONT);
}

fn group_of(clone: &Clone) -> Pid {
    getpgid(Some(clone.pid)).unwrap_or(clone.pid)
}
