//! Which of its template's pages a clone has written to.
//!
//! A page that a clone has copied is its own alone, and the page map says so (`PM_MMAP_EXCLUSIVE`) to an ordinary user
//! too. Pages that the snapshot does not hold are left out: in the next clone they are not there yet.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const PAGE: u64 = 4096;
const EXCLUSIVE: u64 = 1 << 56;
const FILE: u64 = 1 << 61;
const PRESENT: u64 = 1 << 63;
/// A first request that wrote more than this is not what the next one is helped by.
const PAGES_MAX: u64 = 2048;
/// Snapshots with more memory are not looked through: the caller has more urgent things to do.
const SCANNED_PAGES_MAX: u64 = 1 << 16;

/// Ranges within `runs` (start and end, ascending) that process `pid` has copied, ascending. Empty when there are too
/// many.
///
/// # Errors
/// When the page map cannot be read.
pub fn record(pid: i32, runs: &[(u64, u64)]) -> io::Result<Vec<(u64, u64)>> {
    if runs.iter().map(|(start, end)| (end - start) / PAGE).sum::<u64>() > SCANNED_PAGES_MAX {
        return Ok(Vec::new());
    }
    let pagemap = File::open(format!("/proc/{pid}/pagemap"))?;
    let mut found: Vec<(u64, u64)> = Vec::new();
    let mut entries = Vec::new();
    for &(start, end) in runs {
        entries.resize(((end - start) / PAGE * 8) as usize, 0);
        pagemap.read_exact_at(&mut entries, start / PAGE * 8)?;
        for (index, entry) in entries.chunks_exact(8).enumerate() {
            let bits = u64::from_ne_bytes(entry.try_into().unwrap_or_default());
            if bits & PRESENT != 0 && bits & EXCLUSIVE != 0 && bits & FILE == 0 {
                let address = start + index as u64 * PAGE;
                match found.last_mut() {
                    Some(last) if last.1 == address => last.1 += PAGE,
                    _ => found.push((address, address + PAGE)),
                }
            }
        }
    }
    let pages: u64 = found.iter().map(|(start, end)| (end - start) / PAGE).sum();
    Ok(if pages > PAGES_MAX { Vec::new() } else { found })
}
