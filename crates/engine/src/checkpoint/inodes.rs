//! Memory files, shared memory, and files that have no name any more: what lives as long as somebody holds it.
//!
//! Each is saved once, however many descriptors and mappings of however many processes refer to it. Its content is
//! read from the file itself where the checkpoint may open it; a page of it may be in no view that can be read.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{MemfdFlags, SeekFrom};

use super::family::Member;
use super::pages::{Memory, PAGE, Pages, Source};
use super::smaps::Map;
use super::{CheckpointError, Doing};
use crate::image::{Inode, PageRun, SEALS_NONE};

const DELETED: &str = " (deleted)";
/// Where POSIX shared memory has its names.
const SHARED_MEMORY: &str = "/dev/shm/";
/// File systems whose files hold more than bytes, or bytes that nobody else may read (include/uapi/linux/magic.h).
const REFUSED: [(u64, &str); 4] = [
    (0x9584_58f6, "a file in huge pages of their own file system"),
    (0x1980_0202, "a message queue"),
    (0x5345_434d, "secret memory"),
    (0x9fa0, "a file of /proc about a process that is gone"),
];
/// How many extents of a file are told apart; what follows is read whole.
const EXTENTS_MAX: usize = 1 << 18;

/// What tells one inode from another: device and number.
type Identity = (u64, u64);

/// The inodes of an image.
pub struct Inodes {
    memory_device: u64,
    /// Whether the processes live in a sandbox of the platform's.
    sandboxed: bool,
    found: Vec<Found>,
    by_identity: HashMap<Identity, u32>,
}

struct Found {
    inode: Inode,
    /// Path below `/proc` through which the file can be opened.
    path: Option<String>,
    views: Vec<View>,
    pid: i32,
}

/// A piece of an inode that a process has mapped.
struct View {
    pid: i32,
    start: u64,
    end: u64,
    offset: u64,
}

impl Inodes {
    /// Learns which device memory files live on, from one of its own.
    pub fn new(sandboxed: bool) -> io::Result<Self> {
        let own = rustix::fs::memfd_create("rekindle", MemfdFlags::CLOEXEC)?;
        let memory_device = rustix::fs::fstat(&own)?.st_dev;
        Ok(Self { memory_device, sandboxed, found: Vec::new(), by_identity: HashMap::new() })
    }

    /// Whether this device is the kernel's own, on which memory files and shared memory live.
    pub fn is_memory(&self, device: u64) -> bool {
        device == self.memory_device
    }

    /// Whether a file of this name must be made anew in each clone, though it still has its name: it lies in a directory
    /// of the sandbox's own that is not saved as a whole.
    pub fn is_kept_by_name(&self, path: &str) -> bool {
        self.sandboxed && path.starts_with(SHARED_MEMORY) && !path.ends_with(DELETED)
    }

    /// The index of the inode behind a descriptor, whose link under `/proc` reads `link`.
    pub fn of_descriptor(&mut self, path: &str, link: &str, pid: i32) -> Result<u32, CheckpointError> {
        let file = File::open(path).doing("open a file without a name", pid)?;
        let metadata = file.metadata().doing("look at a file without a name", pid)?;
        self.add((metadata.dev(), metadata.ino()), link, pid, Some((path.to_owned(), file, metadata)))
    }

    /// The index of the inode behind a shared mapping.
    pub fn of_mapping(&mut self, member: &Member, map: &Map) -> Result<u32, CheckpointError> {
        let pid = member.host_pid;
        let told = (map.device, map.inode);
        let index = match self.by_identity.get(&told) {
            Some(&index) if self.found[index as usize].path.is_some() => index,
            _ => {
                // Some file systems tell one device in a list of mappings and another when asked for the file.
                let path = map_file(pid, map);
                let opened = File::open(&path).and_then(|file| Ok((file.metadata()?, file)));
                let opened = opened.ok().map(|(metadata, file)| (path, file, metadata));
                let identity =
                    opened.as_ref().map_or(told, |(_, _, metadata)| (metadata.dev(), metadata.ino()));
                self.add(identity, &map.name, pid, opened)?
            }
        };
        let view = View { pid, start: map.start, end: map.end, offset: map.offset };
        self.found[index as usize].views.push(view);
        Ok(index)
    }

    fn add(
        &mut self,
        identity: Identity,
        link: &str,
        pid: i32,
        opened: Option<(String, File, Metadata)>,
    ) -> Result<u32, CheckpointError> {
        let known = self.by_identity.get(&identity).copied();
        let in_memory = self.is_memory(identity.0);
        let index = known.unwrap_or(self.found.len() as u32);
        if known.is_none() {
            let inode = self.describe(identity, link);
            self.found.push(Found { inode, path: None, views: Vec::new(), pid });
            self.by_identity.insert(identity, index);
        }
        let found = &mut self.found[index as usize];
        if let (None, Some((path, file, metadata))) = (&found.path, opened) {
            let system = rustix::fs::fstatfs(&file).doing("look at a file without a name", pid)?;
            if let Some((_, what)) = REFUSED.iter().find(|(magic, _)| *magic == system.f_type as u64) {
                return Err(CheckpointError::Unsupported {
                    what: format!("{what}, {link}, held by process {pid},"),
                    remedy: "close and unmap it in a before-snapshot hook and make it again in an after-restore hook",
                });
            }
            found.inode.bytes = metadata.len();
            found.inode.mode = metadata.mode() & 0o7777;
            (found.inode.uid, found.inode.gid) = (metadata.uid(), metadata.gid());
            if in_memory && link.starts_with("/memfd:") {
                let seals = rustix::fs::fcntl_get_seals(&file).doing("read the seals", pid)?;
                found.inode.seals = seals.bits();
            }
            found.path = Some(path);
        }
        Ok(index)
    }

    fn describe(&self, identity: Identity, link: &str) -> Inode {
        let plain = link.strip_suffix(DELETED).unwrap_or(link);
        let in_memory = self.is_memory(identity.0);
        let directory = plain.rsplit_once('/').map_or("", |(directory, _)| directory);
        Inode {
            directory: (!in_memory).then(|| if directory.is_empty() { "/" } else { directory }.to_owned()),
            name: plain.strip_prefix("/memfd:").filter(|_| in_memory).unwrap_or_default().to_owned(),
            seals: SEALS_NONE,
            mode: 0o600,
            path: self.is_kept_by_name(link).then(|| link.to_owned()),
            ..Inode::default()
        }
    }

    /// Saves the content of all of them.
    pub fn save(&mut self, pages: &mut Pages<'_>) -> Result<Vec<Inode>, CheckpointError> {
        let mut saved = Vec::with_capacity(self.found.len());
        for mut found in std::mem::take(&mut self.found) {
            let file = found.path.as_ref().map(File::open).and_then(Result::ok);
            match file {
                Some(file) => {
                    for range in extents(&file, 0, found.inode.bytes) {
                        let source = Source::File(&file);
                        pages.save(&source, range, true, &mut found.inode.runs, found.pid)?;
                    }
                }
                None => from_views(&mut found, pages)?,
            }
            saved.push(found.inode);
        }
        Ok(saved)
    }
}

/// The path under `/proc` of the file behind a mapping.
pub fn map_file(pid: i32, map: &Map) -> String {
    format!("/proc/{pid}/map_files/{:x}-{:x}", map.start, map.end)
}

/// Reads an inode through the mappings of those who share it: without the right to open it there is no other way.
fn from_views(found: &mut Found, pages: &mut Pages<'_>) -> Result<(), CheckpointError> {
    found.views.sort_by_key(|view| (view.offset, view.end));
    let mut done = 0;
    for view in &found.views {
        let end = view.offset + (view.end - view.start);
        let from = done.max(view.offset);
        if from >= end {
            continue;
        }
        let memory = Memory::open(view.pid, false)?;
        let mut runs = Vec::new();
        let start = view.start + (from - view.offset);
        pages.save(&Source::Memory(&memory), (start, view.end), true, &mut runs, view.pid)?;
        let to_file = |run: PageRun| PageRun { address: run.address - view.start + view.offset, ..run };
        found.inode.runs.extend(runs.into_iter().map(to_file));
        done = end;
    }
    found.inode.bytes = found.inode.bytes.max(done);
    Ok(())
}

/// The ranges of whole pages of a file between `start` and `end` that hold data, ascending.
pub fn extents(file: &File, start: u64, end: u64) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    let mut push = |from: u64, to: u64| {
        let (from, to) = (from - from % PAGE, to.next_multiple_of(PAGE));
        match ranges.last_mut() {
            Some(last) if last.1 >= from => last.1 = last.1.max(to),
            _ => ranges.push((from, to)),
        }
    };
    let mut from = start;
    for count in 0.. {
        if from >= end {
            break;
        }
        let data = match rustix::fs::seek(file, SeekFrom::Data(from)) {
            Ok(data) if count < EXTENTS_MAX => data,
            Err(rustix::io::Errno::NXIO) => break,
            // It cannot tell holes, or there are too many to tell.
            _ => {
                push(from, end);
                break;
            }
        };
        let hole = rustix::fs::seek(file, SeekFrom::Hole(data)).unwrap_or(end).min(end);
        if data >= hole {
            break;
        }
        push(data, hole);
        from = hole;
    }
    ranges
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn extents_are_whole_pages_and_leave_holes_out() {
        let file = File::from(rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC).unwrap());
        file.set_len(100 * PAGE).unwrap();
        file.write_all_at(b"x", 3 * PAGE + 5).unwrap();
        file.write_all_at(b"y", 70 * PAGE).unwrap();
        assert_eq!(extents(&file, 0, 100 * PAGE), [(3 * PAGE, 4 * PAGE), (70 * PAGE, 71 * PAGE)]);
        assert_eq!(extents(&file, 50 * PAGE, 60 * PAGE), []);
    }
}
