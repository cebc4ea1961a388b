//! A directory held open, and the few things the store does in one. All paths below it are relative to the
//! descriptor, so that a store keeps working when its process changes its root or its mount namespace.
//!
//! Deliberately absent: policy. What is written in which order stands in [`crate::writer`] and
//! [`crate::collect`].

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::error::FileError;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);
const NEW_FILE: OFlags = OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::CLOEXEC);
const PRIVATE_FILE: Mode = Mode::from_raw_mode(0o600);
const PRIVATE_DIR: Mode = Mode::from_raw_mode(0o700);

/// A directory held open.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

impl Dir {
    /// Makes the directory with mode 0700 if it is not there (its parents too) and opens it.
    pub fn make(path: &Path) -> Result<Self, FileError> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|source| failed("mkdir", parent.into(), source))?;
        }
        match fs::mkdir(path, PRIVATE_DIR) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed("mkdir", path.into(), errno.into())),
        }
        // The last component may be a symbolic link of the operator's: only below it are links refused.
        let flags = DIRECTORY.difference(OFlags::NOFOLLOW);
        let fd =
            fs::openat(CWD, path, flags, Mode::empty()).map_err(|e| failed("open", path.into(), e.into()))?;
        Ok(Self { fd, path: path.into() })
    }

    /// Makes a directory inside with mode 0700 if it is not there, and opens it.
    pub fn make_dir(&self, name: &str) -> Result<Self, FileError> {
        match fs::mkdirat(&self.fd, name, PRIVATE_DIR) {
            Ok(()) | Err(Errno::EXIST) => self.dir(name),
            Err(errno) => Err(self.failed("mkdir", name, errno)),
        }
    }

    /// Opens a directory inside.
    pub fn dir(&self, name: &str) -> Result<Self, FileError> {
        let fd =
            fs::openat(&self.fd, name, DIRECTORY, Mode::empty()).map_err(|e| self.failed("open", name, e))?;
        Ok(Self { fd, path: self.path.join(name) })
    }

    /// Where the directory was when it was opened, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads a whole file of at most `bytes_max` bytes, into `into`, which is cleared first. `None` when
    /// there is no such file. A longer file is read up to one byte more than the limit, for the caller to
    /// refuse.
    pub fn read(&self, name: &str, bytes_max: usize, into: &mut Vec<u8>) -> Result<Option<()>, FileError> {
        let fd = match fs::openat(
            &self.fd,
            name,
            OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
        ) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(self.failed("open", name, errno)),
        };
        let file = File::from(fd);
        let bytes = file.metadata().map_err(|e| failed("stat", self.path.join(name), e))?.len();
        into.clear();
        into.reserve(bytes.min(bytes_max as u64) as usize + 1);
        let read = file.take(bytes_max as u64 + 1).read_to_end(into);
        read.map_err(|e| failed("read", self.path.join(name), e))?;
        Ok(Some(()))
    }

    /// Writes a new file with mode 0600. It must not exist. Not durable until synced.
    pub fn write_new(&self, name: &str, bytes: &[u8]) -> Result<File, FileError> {
        let fd =
            fs::openat(&self.fd, name, NEW_FILE, PRIVATE_FILE).map_err(|e| self.failed("create", name, e))?;
        let mut file = File::from(fd);
        io::Write::write_all(&mut file, bytes).map_err(|e| failed("write", self.path.join(name), e))?;
        Ok(file)
    }

    /// Writes a new file with mode 0600 and makes its content durable, not yet its name.
    pub fn write_new_synced(&self, name: &str, bytes: &[u8]) -> Result<(), FileError> {
        let file = self.write_new(name, bytes)?;
        file.sync_all().map_err(|e| failed("fsync", self.path.join(name), e))
    }

    /// Gives the file `name` a second name in another directory. `false` when that name is taken.
    pub fn link(&self, name: &str, to: &Dir, to_name: &str) -> Result<bool, FileError> {
        match self.try_link(name, to, to_name) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(to.failed("link", to_name, errno)),
        }
    }

    /// Like [`Dir::link`], but leaves judging the error to the caller.
    pub fn try_link(&self, name: &str, to: &Dir, to_name: &str) -> Result<(), Errno> {
        fs::linkat(&self.fd, name, &to.fd, to_name, AtFlags::empty())
    }

    /// Moves a file over whatever has that name in another directory.
    pub fn rename(&self, name: &str, to: &Dir, to_name: &str) -> Result<(), FileError> {
        fs::renameat(&self.fd, name, &to.fd, to_name).map_err(|e| to.failed("rename", to_name, e))
    }

    /// Removes a file. `false` when there was none.
    pub fn remove(&self, name: &str) -> Result<bool, FileError> {
        match fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(self.failed("unlink", name, errno)),
        }
    }

    /// Removes a directory and the files in it (it has no directories in it). It may be gone already.
    pub fn remove_dir(&self, name: &str) -> Result<(), FileError> {
        let dir = match self.dir(name) {
            Ok(dir) => dir,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        };
        for file in dir.names()? {
            dir.remove(&file)?;
        }
        match fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.failed("rmdir", name, errno)),
        }
    }

    /// Size of a file in bytes, `None` when there is no such file.
    pub fn size(&self, name: &str) -> Result<Option<u64>, FileError> {
        match fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat.st_size as u64)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.failed("stat", name, errno)),
        }
    }

    /// Permission bits of a file.
    pub fn mode(&self, name: &str) -> Result<u32, FileError> {
        let stat = fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| self.failed("stat", name, e))?;
        Ok(stat.st_mode & 0o7777)
    }

    /// The names in the directory that are UTF-8 (all of ours are), in no order.
    pub fn names(&self) -> Result<Vec<String>, FileError> {
        let list = fs::Dir::read_from(&self.fd).map_err(|e| self.failed("list", "", e))?;
        let mut names = Vec::new();
        for entry in list {
            let entry = entry.map_err(|e| self.failed("list", "", e))?;
            if let Ok(name) = entry.file_name().to_str()
                && name != "."
                && name != ".."
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Makes the names in the directory durable.
    pub fn sync(&self) -> Result<(), FileError> {
        fs::fsync(&self.fd).map_err(|e| self.failed("fsync", "", e))
    }

    /// Makes everything on the directory's file system durable, and reports any write to it that failed since
    /// the directory was opened (syncfs(2), Linux 5.8).
    pub fn sync_file_system(&self) -> Result<(), FileError> {
        fs::syncfs(&self.fd).map_err(|e| self.failed("syncfs", "", e))
    }

    /// Locks the file `name`, made if it is not there, through a descriptor of its own. `None` when it is
    /// locked and `operation` does not wait. The lock lasts as long as the descriptor and any copy of it in a
    /// forked child.
    pub fn lock_file(&self, name: &str, operation: FlockOperation) -> Result<Option<OwnedFd>, FileError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = fs::openat(&self.fd, name, flags, PRIVATE_FILE).map_err(|e| self.failed("open", name, e))?;
        match flock(fd.as_fd(), operation) {
            Ok(true) => Ok(Some(fd)),
            Ok(false) => Ok(None),
            Err(errno) => Err(self.failed("flock", name, errno)),
        }
    }

    /// Locks the directory itself, for as long as it is open. `false` when it is locked and `operation` does
    /// not wait.
    pub fn lock(&self, operation: FlockOperation) -> Result<bool, FileError> {
        flock(self.fd.as_fd(), operation).map_err(|e| self.failed("flock", "", e))
    }

    fn failed(&self, call: &'static str, name: &str, errno: Errno) -> FileError {
        let path = if name.is_empty() { self.path.clone() } else { self.path.join(name) };
        failed(call, path, errno.into())
    }
}

fn flock(fd: BorrowedFd<'_>, operation: FlockOperation) -> Result<bool, Errno> {
    loop {
        match fs::flock(fd, operation) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn failed(call: &'static str, path: PathBuf, source: io::Error) -> FileError {
    FileError { call, path, source }
}
