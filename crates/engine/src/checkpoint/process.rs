//! What the kernel keeps for a process as a whole.

use std::fs;
use std::io;

use procfs_core::process::Stat;

use super::family::{Family, Member};
use super::remote::{CALLS_MAX, Remote};
use super::smaps::Map;
use super::threads::Surroundings;
use super::{CheckpointError, Doing, credentials, fields, filters, host, rseq, threads, timers};
use crate::image::{Credentials, IntervalTimer, Layout, Process, SignalAction};

const MEMBARRIER_GET_REGISTRATIONS: u64 = 1 << 9;
const PR_GET_CHILD_SUBREAPER: u64 = 37;
const SIGNALS: u32 = 64;
/// Words of `struct kernel_sigaction`.
const ACTION_WORDS: u64 = 4;
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// Describes a process but for its memory and its descriptors.
pub fn save(family: &Family, member: &Member, maps: &[Map]) -> Result<Process, CheckpointError> {
    let kin = Process {
        pid: member.pid,
        parent: member.parent,
        group: family.leader_inside(member.host_group),
        session: family.leader_inside(member.host_session),
        ended: member.ended,
        ..Process::default()
    };
    if member.ended.is_some() {
        return Ok(kin);
    }
    filters::suspend(member)?;
    rseq::settle(member)?;
    let pid = member.host_pid;
    let remote = Remote::new(member.main(), maps)?;
    let pending = member.main().pending_signals(true).doing("read the pending signals", pid)?;
    let mut pending_signals: Vec<Vec<u8>> = pending.iter().map(|signal| signal.to_vec()).collect();
    let actions = signal_actions(member, &remote)?;
    let surroundings =
        Surroundings { affinity_default: &affinity_default(&family.members[0]), actions: &actions };
    let saved_threads = threads::save(member, &remote, &surroundings, &mut pending_signals)?;
    pending_signals.extend(member.main().halted_by().map(stop_signal));
    let own = OwnSettings::ask(member, &remote)?;
    let credentials = credentials::read(&member.status);
    Ok(Process {
        cwd: link(member, "cwd")?,
        executable: link(member, "exe")?,
        umask: member.status.number("Umask", 8) as u32,
        dumpable: own.dumpable,
        layout: layout(pid, &member.stat, own.brk)?,
        threads: saved_threads,
        signal_actions: actions,
        limits: host::limits(pid)?,
        interval_timers: own.interval_timers,
        timers: timers::posix(family, member, &remote)?,
        membarrier: own.membarrier,
        credentials: Credentials { secure_bits: own.secure_bits, ..credentials },
        pending_signals,
        oom_score_adjustment: small_number(pid, "oom_score_adj", 10)? as i32,
        child_subreaper: own.child_subreaper,
        huge_pages_disabled: member.status.get("THP_enabled") == Some("0"),
        personality: small_number(pid, "personality", 16)? as u32,
        shares_directory: family.shares_directory(member)?,
        ..kin
    })
}

/// What only the process itself can ask for.
struct OwnSettings {
    brk: u64,
    dumpable: bool,
    secure_bits: u32,
    child_subreaper: bool,
    membarrier: u64,
    interval_timers: Vec<IntervalTimer>,
}

impl OwnSettings {
    fn ask(member: &Member, remote: &Remote<'_>) -> Result<Self, CheckpointError> {
        let timer = |which: u64| [which, remote.place(8 + 32 * which)];
        let answers = remote.calls(
            member.main(),
            &[
                (libc::SYS_brk, &[0]),
                (libc::SYS_prctl, &[libc::PR_GET_DUMPABLE as u64]),
                (libc::SYS_prctl, &[libc::PR_GET_SECUREBITS as u64]),
                (libc::SYS_prctl, &[PR_GET_CHILD_SUBREAPER, remote.place(0)]),
                (libc::SYS_membarrier, &[MEMBARRIER_GET_REGISTRATIONS, 0, 0]),
                (libc::SYS_getitimer, &timer(0)),
                (libc::SYS_getitimer, &timer(1)),
                (libc::SYS_getitimer, &timer(2)),
            ],
        )?;
        answers.result(3, "ask whether it adopts orphans")?;
        for index in 5..8 {
            answers.result(index, "read an interval timer")?;
        }
        Ok(Self {
            brk: answers.result(0, "read the end of the heap")? as u64,
            dumpable: answers.result(1, "ask whether it is dumpable")? == 1,
            secure_bits: answers.result(2, "read the secure bits")? as u32,
            child_subreaper: answers.words::<1>(0)[0] as u32 != 0,
            // A kernel before 6.3 cannot tell; then nothing is known to be registered.
            membarrier: answers.result(4, "read the membarrier registrations").unwrap_or(0) as u64,
            interval_timers: timers::interval(&answers.words::<12>(8)),
        })
    }
}

/// A `siginfo_t` that stops a process again that had been stopped: number, error, code `SI_KERNEL`.
fn stop_signal(signal: i32) -> Vec<u8> {
    const SI_KERNEL: i32 = 0x80;
    let mut info = [signal, 0, SI_KERNEL].iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
    info.resize(linux::ptrace::SIGNAL_INFO_BYTES, 0);
    info
}

/// The sets of processors that a new process in the place of the root may have.
fn affinity_default(root: &Member) -> Vec<Vec<u8>> {
    let parent = linux::schedule::affinity(root.stat.ppid).ok().filter(|_| root.stat.ppid > 0);
    parent.into_iter().chain(online()).collect()
}

fn online() -> Option<Vec<u8>> {
    let text = fields::read("/sys/devices/system/cpu/online", TEXT_BYTES_MAX).ok()?;
    processors(text.trim())
}

/// A set of processors from a list like `0-3,8`.
fn processors(list: &str) -> Option<Vec<u8>> {
    let mut set: Vec<u8> = Vec::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        for number in first..=last.min(8191) {
            set.resize(set.len().max((number / 8 + 1).next_multiple_of(8)), 0);
            set[number / 8] |= 1 << (number % 8);
        }
    }
    Some(set)
}

fn small_number(pid: i32, name: &str, base: u32) -> Result<i64, CheckpointError> {
    let text = fields::read(&format!("/proc/{pid}/{name}"), TEXT_BYTES_MAX).doing("read a setting", pid)?;
    i64::from_str_radix(text.trim(), base).map_err(io::Error::other).doing("read a setting", pid)
}

fn link(member: &Member, name: &'static str) -> Result<String, CheckpointError> {
    let pid = member.host_pid;
    let target = fs::read_link(format!("/proc/{pid}/{name}")).doing("read a link", pid)?;
    let refused = |what: &str, remedy| CheckpointError::Unsupported {
        what: format!("the {name} link of {}, which {what},", member.title()),
        remedy,
    };
    let text = target.into_os_string().into_string();
    let text = text.map_err(|_| refused("is not UTF-8", "use a path in UTF-8"))?;
    if name == "cwd" && text.ends_with(" (deleted)") {
        return Err(refused("has been removed", "change to a directory that exists before the snapshot"));
    }
    Ok(text)
}

fn layout(pid: i32, stat: &Stat, brk: u64) -> Result<Layout, CheckpointError> {
    let known = |value: Option<u64>| value.unwrap_or(0);
    Ok(Layout {
        start_code: stat.startcode,
        end_code: stat.endcode,
        start_data: known(stat.start_data),
        end_data: known(stat.end_data),
        start_brk: known(stat.start_brk),
        brk,
        start_stack: stat.startstack,
        arg_start: known(stat.arg_start),
        arg_end: known(stat.arg_end),
        env_start: known(stat.env_start),
        env_end: known(stat.env_end),
        auxv: fs::read(format!("/proc/{pid}/auxv")).doing("read the auxiliary vector", pid)?,
    })
}

fn signal_actions(member: &Member, remote: &Remote<'_>) -> Result<Vec<SignalAction>, CheckpointError> {
    let ignored = member.status.number("SigIgn", 16);
    let set = member.status.number("SigCgt", 16) | ignored;
    let signals: Vec<u32> = (1..=SIGNALS).filter(|signal| set & (1 << (signal - 1)) != 0).collect();
    let mut actions = Vec::with_capacity(signals.len());
    for part in signals.chunks(CALLS_MAX) {
        let place = |index: usize| index as u64 * ACTION_WORDS * 8;
        let arguments = part.iter().enumerate();
        let arguments: Vec<_> =
            arguments.map(|(index, &signal)| [signal.into(), 0, remote.place(place(index)), 8]).collect();
        let calls: Vec<_> =
            arguments.iter().map(|arguments| (libc::SYS_rt_sigaction, arguments.as_slice())).collect();
        let answers = remote.calls(member.main(), &calls)?;
        for (index, &signal) in part.iter().enumerate() {
            answers.result(index, "read a signal action")?;
            let mut action = answers.words::<4>(place(index)).to_vec();
            if signal == libc::SIGTRAP as u32 && ignored & (1 << (signal - 1)) != 0 {
                // Making the calls has taken this one back to its default.
                action[0] = libc::SIG_IGN as u64;
            }
            actions.push(SignalAction { signal, action });
        }
    }
    Ok(actions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_processors_becomes_a_set() {
        assert_eq!(processors("0-1").unwrap(), [3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(processors("0,9").unwrap()[..2], [1, 2]);
        assert_eq!(processors("64").unwrap().len(), 16);
        assert!(processors("nonsense").is_none());
    }

    #[test]
    fn a_stop_signal_is_whole() {
        let info = stop_signal(libc::SIGSTOP);
        assert_eq!((info.len(), info[0]), (128, libc::SIGSTOP as u8));
    }
}
