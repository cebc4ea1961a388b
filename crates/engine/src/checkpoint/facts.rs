//! What the kernel keeps for the process as a whole.

use std::fs;
use std::io;

use procfs_core::FromRead;
use procfs_core::process::Stat;

use super::remote::Remote;
use super::smaps::Map;
use super::{CheckpointError, Doing};
use crate::image::{Host, Image, IntervalTimer, Layout, Limit, SignalAction};

const MEMBARRIER_GET_REGISTRATIONS: u64 = 1 << 9;
const SIGNALS: u32 = 64;

/// What `/proc/PID/status` says.
#[derive(Debug, Default)]
pub struct Status {
    umask: u32,
    uid: u32,
    gid: u32,
    caught: u64,
    ignored: u64,
    /// Mode of seccomp: zero is none.
    pub seccomp: u32,
}

impl Status {
    /// Reads it.
    pub fn read(pid: i32) -> Result<Self, CheckpointError> {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).doing("read the status", pid)?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|line| line.split_whitespace().next()).unwrap_or_default()
        };
        let decimal = |name| field(name).parse().unwrap_or(0);
        let hexadecimal = |name| u64::from_str_radix(field(name), 16).unwrap_or(0);
        Ok(Self {
            umask: u32::from_str_radix(field("Umask"), 8).unwrap_or(0o022),
            uid: decimal("Uid"),
            gid: decimal("Gid"),
            caught: hexadecimal("SigCgt"),
            ignored: hexadecimal("SigIgn"),
            seccomp: decimal("Seccomp"),
        })
    }
}

/// Fills in everything that is neither thread, memory nor descriptor.
pub fn save(
    pid: i32,
    status: &Status,
    remote: &Remote<'_>,
    maps: &[Map],
    image: &mut Image,
) -> Result<(), CheckpointError> {
    refuse_posix_timers(pid)?;
    let stat_file = fs::File::open(format!("/proc/{pid}/stat")).doing("read the status", pid)?;
    let stat = Stat::from_read(stat_file).map_err(io::Error::other).doing("read the status", pid)?;
    image.pid = image.threads[0].tid;
    image.session_leader = stat.session == pid;
    image.cwd = link(pid, "cwd")?;
    image.executable = link(pid, "exe")?;
    image.umask = status.umask;
    (image.uid, image.gid) = (status.uid, status.gid);
    let dumpable = [libc::PR_GET_DUMPABLE as u64];
    image.dumpable = remote.call(libc::SYS_prctl, &dumpable, "ask whether it is dumpable")? == 1;
    image.layout = layout(pid, &stat, remote)?;
    image.signal_actions = signal_actions(status, remote)?;
    image.limits = limits(pid)?;
    image.interval_timers = interval_timers(remote)?;
    let registrations = [MEMBARRIER_GET_REGISTRATIONS, 0, 0];
    // A kernel before 6.3 cannot tell; then nothing is known to be registered.
    let asked = remote.call(libc::SYS_membarrier, &registrations, "read the membarrier registrations");
    image.membarrier = asked.unwrap_or(0) as u64;
    (image.monotonic_ns, image.boottime_ns) = clocks(pid);
    image.host = host(pid, maps, image)?;
    Ok(())
}

fn link(pid: i32, name: &'static str) -> Result<String, CheckpointError> {
    let target = fs::read_link(format!("/proc/{pid}/{name}")).doing("read a link", pid)?;
    target.into_os_string().into_string().map_err(|_| CheckpointError::Unsupported {
        what: format!("the {name} link of process {pid}, which is not UTF-8,"),
        remedy: "use a path in UTF-8",
    })
}

fn layout(pid: i32, stat: &Stat, remote: &Remote<'_>) -> Result<Layout, CheckpointError> {
    let known = |value: Option<u64>| value.unwrap_or(0);
    Ok(Layout {
        start_code: stat.startcode,
        end_code: stat.endcode,
        start_data: known(stat.start_data),
        end_data: known(stat.end_data),
        start_brk: known(stat.start_brk),
        brk: remote.call(libc::SYS_brk, &[0], "read the end of the heap")? as u64,
        start_stack: stat.startstack,
        arg_start: known(stat.arg_start),
        arg_end: known(stat.arg_end),
        env_start: known(stat.env_start),
        env_end: known(stat.env_end),
        auxv: fs::read(format!("/proc/{pid}/auxv")).doing("read the auxiliary vector", pid)?,
    })
}

fn signal_actions(status: &Status, remote: &Remote<'_>) -> Result<Vec<SignalAction>, CheckpointError> {
    let main = remote.main();
    let set = status.caught | status.ignored;
    let mut actions = Vec::new();
    for signal in (1..=SIGNALS).filter(|signal| set & (1 << (signal - 1)) != 0) {
        let arguments = [u64::from(signal), 0, 0, 8];
        let action: [u64; 4] =
            remote.words(main, libc::SYS_rt_sigaction, &arguments, 2, "read a signal action")?;
        actions.push(SignalAction { signal, action: action.to_vec() });
    }
    Ok(actions)
}

fn interval_timers(remote: &Remote<'_>) -> Result<Vec<IntervalTimer>, CheckpointError> {
    let mut timers = Vec::new();
    for which in 0..3_u32 {
        let arguments = [u64::from(which), 0];
        let value: [u64; 4] =
            remote.words(remote.main(), libc::SYS_getitimer, &arguments, 1, "read an interval timer")?;
        if value[2] != 0 || value[3] != 0 {
            timers.push(IntervalTimer { which, value: value.to_vec() });
        }
    }
    Ok(timers)
}

fn refuse_posix_timers(pid: i32) -> Result<(), CheckpointError> {
    let timers = fs::read_to_string(format!("/proc/{pid}/timers")).unwrap_or_default();
    if timers.trim().is_empty() {
        return Ok(());
    }
    Err(CheckpointError::Unsupported {
        what: format!("a POSIX timer of process {pid}"),
        remedy: "delete it in a before-snapshot hook and create it in an after-restore hook",
    })
}

/// The names of `/proc/PID/limits` in the order of their numbers.
const LIMITS: [&str; 16] = [
    "Max cpu time",
    "Max file size",
    "Max data size",
    "Max stack size",
    "Max core file size",
    "Max resident set",
    "Max processes",
    "Max open files",
    "Max locked memory",
    "Max address space",
    "Max file locks",
    "Max pending signals",
    "Max msgqueue size",
    "Max nice priority",
    "Max realtime priority",
    "Max realtime timeout",
];

/// The resource limits of a process.
pub fn limits(pid: i32) -> Result<Vec<Limit>, CheckpointError> {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).doing("read the limits", pid)?;
    let value = |word: &str| if word == "unlimited" { Some(u64::MAX) } else { word.parse().ok() };
    let limit = |(resource, name): (usize, &&str)| {
        let line = text.lines().find_map(|line| line.strip_prefix(*name))?;
        let mut words = line.split_whitespace();
        let (soft, hard) = (value(words.next()?)?, value(words.next()?)?);
        Some(Limit { resource: resource as u32, soft, hard })
    };
    Ok(LIMITS.iter().enumerate().filter_map(limit).collect())
}

/// Monotonic and boot time as the process sees them.
fn clocks(pid: i32) -> (u64, u64) {
    let offsets = fs::read_to_string(format!("/proc/{pid}/timens_offsets")).unwrap_or_default();
    let offset = |clock: &str| -> i64 {
        let line = offsets.lines().find_map(|line| line.strip_prefix(clock));
        let mut numbers =
            line.unwrap_or_default().split_whitespace().filter_map(|word| word.parse::<i64>().ok());
        numbers.next().unwrap_or(0) * 1_000_000_000 + numbers.next().unwrap_or(0)
    };
    let now = |clock| {
        let time = rustix::time::clock_gettime(clock);
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    };
    (
        now(rustix::time::ClockId::Monotonic).wrapping_add_signed(offset("monotonic")),
        now(rustix::time::ClockId::Boottime).wrapping_add_signed(offset("boottime")),
    )
}

fn host(pid: i32, maps: &[Map], image: &Image) -> Result<Host, CheckpointError> {
    Ok(Host {
        vdso: vdso(pid, maps).doing("read the vDSO", pid)?,
        cpu_flags: cpu_flags().doing("read /proc/cpuinfo on behalf", pid)?,
        xsave_bytes: image.threads[0].xsave.len() as u32,
    })
}

/// The bytes of the vDSO of a process with these mappings.
pub fn vdso(pid: i32, maps: &[Map]) -> io::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let map = maps.iter().find(|map| map.name == "[vdso]").ok_or(io::ErrorKind::NotFound)?;
    let mut bytes = vec![0; (map.end - map.start) as usize];
    fs::File::open(format!("/proc/{pid}/mem"))?.read_exact_at(&mut bytes, map.start)?;
    Ok(bytes)
}

/// The flags of this host's processors.
pub fn cpu_flags() -> io::Result<Vec<String>> {
    let text = fs::read_to_string("/proc/cpuinfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("flags")).unwrap_or_default();
    Ok(line.trim_start_matches([' ', '\t', ':']).split_whitespace().map(str::to_owned).collect())
}
