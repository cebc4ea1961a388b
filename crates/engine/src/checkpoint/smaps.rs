//! Reading `/proc/PID/smaps`.
//!
//! `procfs-core` reads this file too, but drops the flags that it does not know, and wipe-on-fork and droppable pages
//! are among them: pages whose content must never be saved.

use super::family::Member;
use super::{CheckpointError, Doing, fields};

/// More than 65,530 mappings (the kernel's default limit) need.
pub const BYTES_MAX: u64 = 256 << 20;

/// One mapping as the kernel tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map {
    /// First byte.
    pub start: u64,
    /// First byte behind it.
    pub end: u64,
    /// `PROT_*`.
    pub protection: u32,
    /// `MAP_SHARED`.
    pub shared: bool,
    /// Offset in the file.
    pub offset: u64,
    /// Device of the file, as `st_dev` has it.
    pub device: u64,
    /// Inode, zero without a file.
    pub inode: u64,
    /// Path or bracketed name, empty for anonymous memory.
    pub name: String,
    /// The two-letter words of `VmFlags`.
    pub flags: Vec<[u8; 2]>,
    /// Protection key.
    pub key: u32,
}

impl Map {
    /// Whether there is a file behind it. A System V segment may have the inode zero.
    pub fn has_file(&self) -> bool {
        self.inode != 0 || self.name.starts_with('/')
    }

    /// Whether `VmFlags` has this word.
    pub fn has(&self, flag: &[u8; 2]) -> bool {
        self.flags.contains(flag)
    }
}

/// Every mapping of a process, ascending.
pub fn read(member: &Member) -> Result<Vec<Map>, CheckpointError> {
    let pid = member.host_pid;
    Ok(parse(&fields::read(&format!("/proc/{pid}/smaps"), BYTES_MAX).doing("read the mappings", pid)?))
}

/// The mappings that a text of this form lists.
pub fn parse(text: &str) -> Vec<Map> {
    let mut maps: Vec<Map> = Vec::new();
    for line in text.lines() {
        // Headers begin with an address in lower case, the lines below them with a capital letter.
        if line.starts_with(|first: char| first.is_ascii_uppercase()) {
            let Some(map) = maps.last_mut() else { continue };
            if let Some(flags) = line.strip_prefix("VmFlags:") {
                map.flags =
                    flags.split_whitespace().filter_map(|word| word.as_bytes().try_into().ok()).collect();
            } else if let Some(key) = line.strip_prefix("ProtectionKey:") {
                map.key = key.trim().parse().unwrap_or(0);
            }
        } else if let Some(map) = header(line) {
            maps.push(map);
        }
    }
    // The page of old system calls is the kernel's, beyond user space.
    maps.retain(|map| map.name != "[vsyscall]");
    maps
}

fn header(line: &str) -> Option<Map> {
    let mut words = line.splitn(6, ' ');
    let (start, end) = words.next()?.split_once('-')?;
    let permissions = words.next()?.as_bytes();
    let offset = u64::from_str_radix(words.next()?, 16).ok()?;
    let (major, minor) = words.next()?.split_once(':')?;
    let number = |text| u32::from_str_radix(text, 16).ok();
    let device = rustix::fs::makedev(number(major)?, number(minor)?);
    let inode = words.next()?.parse().ok()?;
    let bit = |index: usize, letter: u8, bit: i32| {
        if permissions.get(index) == Some(&letter) { bit as u32 } else { 0 }
    };
    Some(Map {
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        protection: bit(0, b'r', libc::PROT_READ)
            | bit(1, b'w', libc::PROT_WRITE)
            | bit(2, b'x', libc::PROT_EXEC),
        shared: permissions.get(3) == Some(&b's'),
        offset,
        device,
        inode,
        name: words.next().unwrap_or_default().trim_start().to_owned(),
        flags: Vec::new(),
        key: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_keeps_its_path_with_spaces_and_its_flags() {
        let maps = parse(
            "7f0000000000-7f0000002000 r-xp 00001000 fe:01 42    /usr/lib/a b.so\nSize: 8 kB\n\
             ProtectionKey:         1\nVmFlags: rd ex mr wf\n\
             ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]\n",
        );
        assert_eq!(maps.len(), 1);
        assert_eq!((maps[0].name.as_str(), maps[0].offset, maps[0].inode), ("/usr/lib/a b.so", 0x1000, 42));
        assert!(maps[0].has(b"wf") && !maps[0].shared);
        assert_eq!((maps[0].protection, maps[0].key), (5, 1));
        assert_eq!(maps[0].device, rustix::fs::makedev(0xfe, 1));
    }
}
