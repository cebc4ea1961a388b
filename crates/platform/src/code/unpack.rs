//! Writes a checked archive to disk.
//!
//! Bytes are counted as they come out of the decompressor, whatever the archive declared. Links are made last, so
//! that no write can go through one. Modes are our own: readable for everybody (the sandbox's user is not ours),
//! executable where the archive said so, writable for the owner alone.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Cursor, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use model::limits;
use zip::ZipArchive;

use super::CodeError;
use super::archive::{ArchiveError, Entry, EntryKind};

/// Fills `dir`, which must not exist, with `package.zip` and `task/`, and flushes it to disk.
pub(super) fn unpack(zip: &[u8], entries: &[Entry], dir: &Path) -> Result<(), CodeError> {
    let task = dir.join("task");
    make_directory(dir)?;
    make_directory(&task)?;
    new_file(&dir.join("package.zip"), 0o600)?.write_all(zip)?;
    let mut archive = ZipArchive::new(Cursor::new(zip)).map_err(|_| ArchiveError::Unreadable)?;
    let mut left = limits::CODE_UNZIPPED_BYTES_MAX;
    for entry in entries {
        let path = task.join(&entry.path);
        match &entry.kind {
            EntryKind::Directory => make_directories(&task, &entry.path)?,
            EntryKind::Link { .. } => {}
            EntryKind::File { executable, bytes } => {
                make_directories(&task, entry.path.parent().unwrap_or(Path::new("")))?;
                let mode = if *executable { 0o755 } else { 0o644 };
                let content = archive.by_index(entry.index).map_err(|_| ArchiveError::Unreadable)?;
                let count = copy(content, &mut new_file(&path, mode)?, left)?;
                if count != *bytes {
                    return Err(ArchiveError::Unreadable.into());
                }
                left -= count;
            }
        }
    }
    for entry in entries {
        if let EntryKind::Link { target } = &entry.kind {
            make_directories(&task, entry.path.parent().unwrap_or(Path::new("")))?;
            symlink(target, task.join(&entry.path))?;
        }
    }
    // One flush of the file system instead of one per file: packages hold thousands of small files.
    rustix::fs::syncfs(File::open(dir)?).map_err(io::Error::from)?;
    Ok(())
}

/// Copies at most `left` bytes; returns how many there were.
fn copy(content: impl io::Read, file: &mut File, left: u64) -> Result<u64, CodeError> {
    let mut content = content.take(left + 1);
    let mut buffer = [0; 64 * 1024];
    let mut bytes = 0;
    loop {
        // A failure to read is the package's (bad checksum, broken stream), a failure to write is the disk's.
        let count = content.read(&mut buffer).map_err(|_| ArchiveError::Unreadable)?;
        if count == 0 {
            break;
        }
        bytes += count as u64;
        if bytes > left {
            return Err(ArchiveError::TooLarge.into());
        }
        file.write_all(&buffer[..count])?;
    }
    Ok(bytes)
}

fn make_directories(root: &Path, relative: &Path) -> io::Result<()> {
    let mut path = root.to_owned();
    for part in relative.components() {
        path.push(part);
        match make_directory(&path) {
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {}
            done => done?,
        }
    }
    Ok(())
}

/// The mode is set afterwards, so that the process's umask has no say.
fn make_directory(path: &Path) -> io::Result<()> {
    std::fs::create_dir(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o755))
}

fn new_file(path: &Path, mode: u32) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;
    use crate::code::check_archive;

    #[test]
    fn files_are_readable_and_stay_executable() {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        let with = |mode| SimpleFileOptions::default().unix_permissions(mode);
        writer.start_file("deep/er/run.sh", with(0o700)).expect("in memory");
        writer.start_file("secret.txt", with(0o600)).expect("in memory");
        writer.add_symlink("deep/link", "er/run.sh", with(0o777)).expect("in memory");
        let zip = writer.finish().expect("in memory").into_inner();

        let data = tempfile::tempdir().expect("a directory");
        let dir = data.path().join("x");
        unpack(&zip, &check_archive(&zip).expect("good"), &dir).expect("unpacked");
        let mode = |path: &str| {
            std::fs::metadata(dir.join("task").join(path)).expect("there").permissions().mode() & 0o777
        };
        assert_eq!((mode("deep/er/run.sh"), mode("secret.txt"), mode("deep")), (0o755, 0o644, 0o755));
        assert_eq!(mode("deep/link"), 0o755, "the link leads to the script");
    }

    #[test]
    fn a_bomb_that_lies_about_its_size_is_caught_while_it_unpacks() {
        assert!(matches!(
            copy(io::repeat(0), &mut tempfile::tempfile().expect("a file"), 1000),
            Err(CodeError::Refused(error)) if error.message.contains("Unzipped size")
        ));
    }
}
