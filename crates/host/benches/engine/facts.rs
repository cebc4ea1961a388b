//! What `/proc` tells of processes: who descends from whom, and what memory is whose.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};

const PAGE: u64 = 4096;
const PRESENT: u64 = 1 << 63;
const FILE_OR_SHARED: u64 = 1 << 61;

/// The processes of all sandboxes of a role: the children of its children, which are the sandboxes' inits.
pub fn guests(role: u32) -> Result<BTreeSet<u32>> {
    let inits = children(role)?;
    let guests = inits.iter().map(|init| children(*init).unwrap_or_default());
    Ok(guests.flatten().collect())
}

fn children(pid: u32) -> Result<Vec<u32>> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    Ok(list.split_whitespace().filter_map(|word| word.parse().ok()).collect())
}

/// Bytes of the private pages of a process that hold anything but zeros.
pub fn nonzero_private_bytes(pid: u32) -> Result<u64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let pagemap = File::open(format!("/proc/{pid}/pagemap"))?;
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let mut pages = 0;
    for line in maps.lines().filter(|line| !line.contains("[v")) {
        let mut words = line.split_whitespace();
        let (range, permissions) = (words.next().context("a range")?, words.next().context("permissions")?);
        if permissions.ends_with('p') {
            let (start, end) = range.split_once('-').context("a range")?;
            let range = (u64::from_str_radix(start, 16)?, u64::from_str_radix(end, 16)?);
            pages += nonzero_pages(&pagemap, &memory, range);
        }
    }
    Ok(pages * PAGE)
}

/// Pages between two addresses that are the process's own and hold something.
fn nonzero_pages(pagemap: &File, memory: &File, (start, end): (u64, u64)) -> u64 {
    const STEP: u64 = 512 * PAGE;
    let mut count = 0;
    let mut at = start;
    while at < end {
        let until = (at + STEP).min(end);
        let mut entries = vec![0; ((until - at) / PAGE * 8) as usize];
        if pagemap.read_exact_at(&mut entries, at / PAGE * 8).is_err() {
            return count;
        }
        for (index, entry) in entries.chunks_exact(8).enumerate() {
            let bits = u64::from_ne_bytes(entry.try_into().unwrap_or_default());
            let mut page = [0; PAGE as usize];
            if bits & PRESENT != 0 && bits & FILE_OR_SHARED == 0 {
                let read = memory.read_exact_at(&mut page, at + index as u64 * PAGE);
                count += u64::from(read.is_ok() && page.iter().any(|byte| *byte != 0));
            }
        }
        at = until;
    }
    count
}

/// Private, resident and proportional memory of a process in bytes.
pub fn memory(pid: u32) -> Result<(u64, u64, u64)> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let private = field(&rollup, "Private_Clean:") + field(&rollup, "Private_Dirty:");
    Ok((private, field(&rollup, "Rss:"), field(&rollup, "Pss:")))
}

/// Memory that the machine has to give, in bytes.
pub fn available() -> Result<u64> {
    Ok(field(&fs::read_to_string("/proc/meminfo")?, "MemAvailable:"))
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib: u64 = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse().ok()).unwrap_or(0);
    kib << 10
}
