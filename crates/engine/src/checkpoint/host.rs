//! What an image needs of a host, and what the kernel tells of any process: limits and clocks.

use std::fs;
use std::io;

use super::smaps::Map;
use super::{CheckpointError, Doing};
use crate::image::{Host, Image, Limit};

const VDSO_BYTES_MAX: u64 = 1 << 20;

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
pub fn clocks(pid: i32) -> (u64, u64) {
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

/// What the image needs of a host, as its root has it.
pub fn host(image: &Image, maps: &[Map], pid: i32) -> Result<Host, CheckpointError> {
    Ok(Host {
        vdso: vdso(pid, maps).doing("read the vDSO", pid)?,
        cpu_flags: cpu_flags().doing("read /proc/cpuinfo on behalf", pid)?,
        xsave_bytes: image.root().threads.first().map_or(0, |main| main.xsave.len() as u32),
    })
}

/// The bytes of the vDSO of a process with these mappings.
pub fn vdso(pid: i32, maps: &[Map]) -> io::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let whole = |map: &&Map| map.name == "[vdso]" && map.end - map.start <= VDSO_BYTES_MAX;
    let map = maps.iter().find(whole).ok_or(io::ErrorKind::NotFound)?;
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
