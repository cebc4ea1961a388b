//! The files that a function has written, saved with the snapshot and laid out again for its clones.
//!
//! Saving reads what hostile code has written, so it follows no symbolic link and opens nothing but regular files.
//! Laying out writes into a directory of the host, so every path is checked again and resolved below that directory
//! only.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use linux::descriptor::Held;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};

use super::{CheckpointError, Doing, Sink};
use crate::image::{Image, Kind, TreeEntry};

const BUFFER_BYTES: usize = 1 << 20;
/// How deep a tree may be: deeper ones need more descriptors than a process has.
const DEPTH_MAX: usize = 128;

/// Saves everything below `writable`, as the process sees it.
///
/// # Errors
/// [`CheckpointError`].
pub fn save(
    pid: i32,
    writable: &Path,
    leased: &HashMap<(u64, u64), Held>,
    image: &mut Image,
    sink: &mut dyn Sink,
    warnings: &mut Vec<String>,
) -> Result<(), CheckpointError> {
    let root = format!("/proc/{pid}/root{}", writable.display());
    let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(root, directory, Mode::empty()).doing("open the writable files", pid)?;
    let shown = writable.to_string_lossy().into_owned();
    let sockets = bound_below(image, &shown);
    let mut walk = Walk { pid, shown, sockets, leased, entries: Vec::new(), offset: 0, sink, warnings };
    walk.directory(directory, "", 0)?;
    image.tree = walk.entries;
    Ok(())
}

/// The paths below `writable` that sockets of the image are bound to: they are made when the sockets are.
fn bound_below(image: &Image, writable: &str) -> HashSet<String> {
    let bound = image.open_files.iter().filter_map(|file| match &file.kind {
        Some(Kind::Unix(unix)) => std::str::from_utf8(&unix.name).ok(),
        _ => None,
    });
    bound.filter_map(|path| Some(path.strip_prefix(writable)?.strip_prefix('/')?.to_owned())).collect()
}

/// Our own descriptor of a file that a process has open. It must have it open for reading.
fn copy(held: Held) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(held.pid).ok_or(io::ErrorKind::InvalidInput)?;
    let process = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    Ok(rustix::process::pidfd_getfd(&process, held.number, PidfdGetfdFlags::empty())?)
}

struct Walk<'a> {
    pid: i32,
    /// The directory as messages call it.
    shown: String,
    sockets: HashSet<String>,
    leased: &'a HashMap<(u64, u64), Held>,
    entries: Vec<TreeEntry>,
    offset: u64,
    sink: &'a mut dyn Sink,
    warnings: &'a mut Vec<String>,
}

impl Walk<'_> {
    fn directory(&mut self, directory: OwnedFd, path: &str, depth: usize) -> Result<(), CheckpointError> {
        let reader = rustix::fs::Dir::read_from(&directory).doing("list the writable files", self.pid)?;
        for entry in reader {
            let entry = entry.doing("list the writable files", self.pid)?;
            let Ok(name) = entry.file_name().to_str() else {
                let shown = &self.shown;
                self.warnings
                    .push(format!("a file in {shown}/{path} whose name is not UTF-8 is not in the snapshot"));
                continue;
            };
            if name != "." && name != ".." {
                let path = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
                self.entry(directory.as_fd(), name, path, depth)?;
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &str,
        path: String,
        depth: usize,
    ) -> Result<(), CheckpointError> {
        let pid = self.pid;
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
        let stat = stat.doing("look at a writable file", pid)?;
        let mut entry = TreeEntry {
            path: path.clone(),
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            modified_ns: stat.st_mtime * 1_000_000_000 + stat.st_mtime_nsec as i64,
            ..TreeEntry::default()
        };
        let open = |flags| rustix::fs::openat(directory, name, flags, Mode::empty());
        let safe = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let file = match self.leased.get(&(stat.st_dev, stat.st_ino)) {
                    Some(held) => copy(*held).doing("copy a leased descriptor", pid)?,
                    None => open(safe).doing("open a writable file", pid)?,
                };
                entry.offset = self.offset;
                entry.bytes = self.content(file, &stat)?;
                self.entries.push(entry);
            }
            FileType::Directory if depth < DEPTH_MAX => {
                let below = open(safe | OFlags::DIRECTORY).doing("open a writable directory", pid)?;
                self.entries.push(entry);
                self.directory(below, &path, depth + 1)?;
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(directory, name, Vec::new());
                entry.target = target.doing("read a symbolic link", pid)?.to_string_lossy().into_owned();
                self.entries.push(entry);
            }
            FileType::Fifo => self.entries.push(entry),
            FileType::Socket if self.sockets.contains(&path) => {}
            kind => self.warnings.push(format!("{}/{path} ({kind:?}) is not in the snapshot", self.shown)),
        }
        Ok(())
    }

    fn content(&mut self, file: OwnedFd, stat: &Stat) -> Result<u64, CheckpointError> {
        let file = File::from(file);
        let mut buffer = vec![0; BUFFER_BYTES.min(stat.st_size as usize)];
        let start = self.offset;
        loop {
            // By position: the offset of a copied descriptor belongs to its process.
            let done = self.offset - start;
            let left = (stat.st_size as u64).saturating_sub(done).min(buffer.len() as u64) as usize;
            let count = file.read_at(&mut buffer[..left], done).doing("read a writable file", self.pid)?;
            if count == 0 {
                return Ok(self.offset - start);
            }
            self.sink.files(&buffer[..count]).map_err(CheckpointError::Sink)?;
            self.offset += count as u64;
        }
    }
}

/// Lays the saved files out below `directory`, which must be empty. `content` reads the file stream.
///
/// # Errors
/// As the calls that make files; `InvalidData` for a path that leads elsewhere.
pub fn lay_out(
    image: &Image,
    directory: BorrowedFd<'_>,
    content: &mut dyn FnMut(u64, &mut [u8]) -> io::Result<()>,
) -> io::Result<()> {
    for entry in &image.tree {
        let path = checked(&entry.path)?;
        match FileType::from_raw_mode(entry.mode) {
            FileType::Directory => {
                let (parent, name) = parent(directory, path)?;
                rustix::fs::mkdirat(&parent, name, Mode::RWXU)?;
            }
            FileType::RegularFile => regular(entry, path, directory, content)?,
            FileType::Symlink => {
                let (parent, name) = parent(directory, path)?;
                rustix::fs::symlinkat(&entry.target, &parent, name)?;
            }
            FileType::Fifo => {
                let (parent, name) = parent(directory, path)?;
                rustix::fs::mknodat(&parent, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
    // Last, and children before parents: writing into a directory changes its time.
    image.tree.iter().rev().try_for_each(|entry| properties(entry, directory))
}

fn checked(path: &str) -> io::Result<&str> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    if path.split('/').all(plain) { Ok(path) } else { Err(io::ErrorKind::InvalidData.into()) }
}

fn below(directory: BorrowedFd<'_>, path: &str, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    Ok(rustix::fs::openat2(directory, path, flags | OFlags::CLOEXEC, mode, resolve)?)
}

/// The directory that holds `path`, opened, and the last name.
fn parent<'a>(directory: BorrowedFd<'_>, path: &'a str) -> io::Result<(OwnedFd, &'a str)> {
    let (above, name) = path.rsplit_once('/').unwrap_or((".", path));
    Ok((below(directory, above, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?, name))
}

fn regular(
    entry: &TreeEntry,
    path: &str,
    directory: BorrowedFd<'_>,
    content: &mut dyn FnMut(u64, &mut [u8]) -> io::Result<()>,
) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let file = File::from(below(directory, path, flags, Mode::RUSR | Mode::WUSR)?);
    let mut buffer = vec![0; BUFFER_BYTES.min(entry.bytes as usize)];
    let mut done = 0;
    while done < entry.bytes {
        let part = (entry.bytes - done).min(buffer.len() as u64) as usize;
        content(entry.offset + done, &mut buffer[..part])?;
        file.write_all_at(&buffer[..part], done)?;
        done += part as u64;
    }
    Ok(())
}

fn properties(entry: &TreeEntry, directory: BorrowedFd<'_>) -> io::Result<()> {
    let (parent, name) = parent(directory, checked(&entry.path)?)?;
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    rustix::fs::chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(entry.mode) != FileType::Symlink {
        // Set-user-ID bits stay behind: the mount ignores them anyway.
        let mode = Mode::from_raw_mode(entry.mode & 0o1777);
        rustix::fs::chmodat(&parent, name, mode, AtFlags::empty())?;
    }
    let time = Timespec {
        tv_sec: entry.modified_ns.div_euclid(1_000_000_000),
        tv_nsec: entry.modified_ns.rem_euclid(1_000_000_000) as _,
    };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(&parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
