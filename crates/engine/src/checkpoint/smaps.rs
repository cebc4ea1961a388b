//! Reading `/proc/PID/smaps`.
//!
//! `procfs-core` reads this file too, but drops the flags that it does not know, and wipe-on-fork and droppable pages
//! are among them: pages whose content must never be saved.

use super::{CheckpointError, Doing};

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
    /// Inode, zero without a file.
    pub inode: u64,
    /// Path or bracketed name, empty for anonymous memory.
    pub name: String,
    /// The two-letter words of `VmFlags`.
    pub flags: Vec<String>,
}

impl Map {
    /// Whether `VmFlags` has this word.
    pub fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|word| word == flag)
    }
}

/// Every mapping of a process, ascending.
pub fn read(pid: i32) -> Result<Vec<Map>, CheckpointError> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps")).doing("read the mappings", pid)?;
    Ok(parse(&text))
}

fn parse(text: &str) -> Vec<Map> {
    let mut maps: Vec<Map> = Vec::new();
    for line in text.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            if let Some(map) = maps.last_mut() {
                map.flags = flags.split_whitespace().map(str::to_owned).collect();
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
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?.as_bytes();
    let offset = u64::from_str_radix(fields.next()?, 16).ok()?;
    let _device = fields.next()?;
    let inode = fields.next()?.parse().ok()?;
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
        inode,
        name: fields.next().unwrap_or_default().trim_start().to_owned(),
        flags: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_keeps_its_path_with_spaces_and_its_flags() {
        let maps = parse(
            "7f0000000000-7f0000002000 r-xp 00001000 fe:00 42    /usr/lib/a b.so\nSize: 8 kB\nVmFlags: rd ex mr wf\n\
             ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]\n",
        );
        assert_eq!(maps.len(), 1);
        assert_eq!((maps[0].name.as_str(), maps[0].offset, maps[0].inode), ("/usr/lib/a b.so", 0x1000, 42));
        assert!(maps[0].has("wf") && !maps[0].shared);
        assert_eq!(maps[0].protection, 5);
    }
}
