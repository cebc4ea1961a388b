//! Reading and writing the memory of another process, and asking which of its pages hold anything.
//!
//! `PAGEMAP_SCAN` (Linux 6.7) tells pages by what backs them; contents go through `/proc/PID/mem`, which does not mind
//! a mapping's protection, and `process_vm_writev(2)`, which does and is fast.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Which pages [`scan`] looks for, as the bits of `struct pm_scan_arg`.
pub mod page {
    /// The page belongs to a file or shared memory.
    pub const FILE: u64 = 1 << 2;
    /// The page is in memory.
    pub const PRESENT: u64 = 1 << 3;
    /// The page is in swap.
    pub const SWAPPED: u64 = 1 << 4;
    /// The page is the kernel's page of zeros.
    pub const ZERO: u64 = 1 << 5;
    /// The page is part of a huge one.
    pub const HUGE: u64 = 1 << 6;
    /// The page is a guard (`MADV_GUARD_INSTALL`, Linux 6.15).
    pub const GUARD: u64 = 1 << 8;
}

/// A question to [`scan`]: pages that have all of `all`, any of `any` (unless zero) and none of `none`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Query {
    /// All of these.
    pub all: u64,
    /// At least one of these.
    pub any: u64,
    /// None of these.
    pub none: u64,
}

#[repr(C)]
#[derive(Default)]
struct ScanArgument {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

/// `_IOWR('f', 16, struct pm_scan_arg)`.
const PAGEMAP_SCAN: libc::c_ulong = 0xc060_6610;
const REGIONS: usize = 512;

/// Ranges of pages between `start` and `end` that meet `query`, ascending. `pagemap` is `/proc/PID/pagemap`.
///
/// # Errors
/// As `ioctl(PAGEMAP_SCAN)`: `ENOTTY` on a kernel before 6.7.
pub fn scan(pagemap: &File, start: u64, end: u64, query: Query) -> io::Result<Vec<(u64, u64)>> {
    let mut found: Vec<(u64, u64)> = Vec::new();
    let mut from = start;
    while from < end {
        let mut regions = [Region::default(); REGIONS];
        let mut argument = ScanArgument {
            size: size_of::<ScanArgument>() as u64,
            start: from,
            end,
            vec: regions.as_mut_ptr() as u64,
            vec_len: REGIONS as u64,
            category_inverted: query.none,
            category_mask: query.all | query.none,
            category_anyof_mask: query.any,
            return_mask: query.all | query.any,
            ..ScanArgument::default()
        };
        // SAFETY: `argument` is the structure of this request and lives through the call; `vec` and `vec_len`
        // describe `regions`, which nothing else refers to meanwhile.
        let count = unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN, &raw mut argument) };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        for region in &regions[..(count as usize).min(REGIONS)] {
            match found.last_mut() {
                Some(last) if last.1 == region.start => last.1 = region.end,
                _ => found.push((region.start, region.end)),
            }
        }
        if argument.walk_end <= from {
            break;
        }
        from = argument.walk_end;
    }
    Ok(found)
}

/// Reads memory of the process `pid` at `address` and gives how many bytes came before the first page that cannot be
/// read (`process_vm_readv(2)`). A page whose protection forbids reading is such a page.
///
/// # Errors
/// As `process_vm_readv(2)`: `EFAULT` when the first page already cannot be read.
pub fn read(pid: i32, address: u64, into: &mut [u8]) -> io::Result<usize> {
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let remote = libc::iovec { iov_base: address as *mut _, iov_len: into.len() };
    // SAFETY: `local` describes `into`, which is borrowed for the call and which the kernel writes no further than;
    // `remote` lies in the other process, and the kernel checks it against that process's mappings.
    let count = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    if count < 0 { Err(io::Error::last_os_error()) } else { Ok(count as usize) }
}

/// Writes `bytes` at `address` of the process `pid`, whose mapping there must be writable.
///
/// # Errors
/// As `process_vm_writev(2)`; a short write is `UnexpectedEof`.
pub fn write(pid: i32, address: u64, bytes: &[u8]) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        let local = libc::iovec { iov_base: bytes[done..].as_ptr() as *mut _, iov_len: bytes.len() - done };
        let remote = libc::iovec { iov_base: (address + done as u64) as *mut _, iov_len: bytes.len() - done };
        // SAFETY: `local` describes the rest of `bytes`, which is only read; `remote` lies in the other process, and
        // the kernel checks it against that process's mappings.
        let written = unsafe { libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0) };
        match written {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            1.. => done += written as usize,
            _ => return Err(io::Error::last_os_error()),
        }
    }
    Ok(())
}
