//! Is this a zip archive that may be unpacked, and what would be written?
//!
//! Packages come from outside and from careless tools, so nothing in them is believed: names, sizes and types are
//! checked against limits here, before anything is written; contents are counted while they are written (`unpack`).
//!
//! Refused: absolute paths and paths with `..`; names that are not UTF-8; two entries for one path, also by way of a
//! file that is another entry's directory; symbolic links that lead outside; device files; encrypted entries; more
//! entries or bytes than the limits allow.

use std::collections::BTreeMap;
use std::io::{Cursor, Read as _};
use std::path::PathBuf;

use model::limits;
use zip::ZipArchive;
use zip::read::ZipFile;

/// First bytes of an entry of the central directory (APPNOTE.TXT 4.3.12).
const CENTRAL_SIGNATURE: [u8; 4] = *b"PK\x01\x02";
/// Length of the fixed part of such an entry, in bytes.
const CENTRAL_BYTES: usize = 46;
/// The type bits of a Unix mode, and the types that matter here.
const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFLNK: u32 = 0o120_000;
/// Longest file name on Linux, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// Something to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number in the archive.
    pub index: usize,
    /// Relative, without `.` and `..`.
    pub path: PathBuf,
    /// What it is.
    pub kind: EntryKind,
}

/// The kinds of entries that are unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A file; the archive says that it has `bytes`.
    File {
        /// Whether anybody may execute it.
        executable: bool,
        /// Its size as declared.
        bytes: u64,
    },
    /// A symbolic link that stays inside.
    Link {
        /// Its target as written.
        target: String,
    },
}

/// Why an archive is not unpacked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// No bytes at all.
    #[error("package is empty")]
    Empty,
    /// No zip archive, or a broken one.
    #[error("package is not a readable zip archive")]
    Unreadable,
    /// It unpacks to more than the limit.
    #[error("package unpacks to too much")]
    TooLarge,
    /// It holds something that must not be unpacked.
    #[error("{0}")]
    Refused(String),
}

/// Reads the list of contents of a zip archive and checks it against every rule.
///
/// # Errors
/// [`ArchiveError`], which says what is wrong.
pub fn check_archive(zip: &[u8]) -> Result<Vec<Entry>, ArchiveError> {
    if zip.is_empty() {
        return Err(ArchiveError::Empty);
    }
    check_entry_count(zip)?;
    let mut archive = ZipArchive::new(Cursor::new(zip)).map_err(|_| ArchiveError::Unreadable)?;
    if archive.is_empty() {
        return Err(ArchiveError::Empty);
    }
    check_duplicates(zip, &archive)?;
    let mut contents = Contents::default();
    for index in 0..archive.len() {
        let head = Head::read(&archive.by_index_raw(index).map_err(|_| ArchiveError::Unreadable)?)?;
        let target = match head.kind_bits {
            S_IFLNK => Some(link_text(archive.by_index(index).map_err(|_| ArchiveError::Unreadable)?)?),
            _ => None,
        };
        contents.add(index, &head, target)?;
    }
    contents.finish()
}

/// What the archive says of one entry.
struct Head {
    name: String,
    /// The type bits of the mode; 0 when the archive was made without modes.
    kind_bits: u32,
    executable: bool,
    bytes: u64,
}

impl Head {
    fn read<R: std::io::Read>(file: &ZipFile<'_, R>) -> Result<Self, ArchiveError> {
        let name = std::str::from_utf8(file.name_raw())
            .map_err(|_| refused("entry name is not UTF-8", &String::from_utf8_lossy(file.name_raw())))?;
        if file.encrypted() {
            return Err(refused("entry is encrypted", name));
        }
        let mode = file.unix_mode().unwrap_or(0);
        let is_directory = name.ends_with('/');
        Ok(Self {
            name: name.to_owned(),
            kind_bits: if is_directory { S_IFDIR } else { mode & S_IFMT },
            executable: mode & 0o111 != 0,
            bytes: file.size(),
        })
    }
}

/// What was read so far.
#[derive(Default)]
struct Contents {
    entries: BTreeMap<PathBuf, Entry>,
    bytes: u64,
}

impl Contents {
    fn add(&mut self, index: usize, head: &Head, target: Option<String>) -> Result<(), ArchiveError> {
        let path = safe_path(&head.name)?;
        let kind = match (head.kind_bits, target) {
            (S_IFDIR, _) => EntryKind::Directory,
            (S_IFLNK, Some(target)) => EntryKind::Link { target: safe_target(&head.name, &path, target)? },
            (0 | S_IFREG, _) => EntryKind::File { executable: head.executable, bytes: head.bytes },
            _ => return Err(refused("entry is neither file, directory nor link", &head.name)),
        };
        if kind != EntryKind::Directory {
            self.bytes = self.bytes.saturating_add(head.bytes);
        }
        if self.bytes > limits::CODE_UNZIPPED_BYTES_MAX {
            return Err(ArchiveError::TooLarge);
        }
        if path.as_os_str().is_empty() {
            return Ok(());
        }
        let both_directories =
            |other: &Entry| kind == EntryKind::Directory && other.kind == EntryKind::Directory;
        match self.entries.get(&path) {
            Some(other) if both_directories(other) => return Ok(()),
            Some(_) => return Err(refused("two entries for one path", &head.name)),
            None => {}
        }
        self.entries.insert(path.clone(), Entry { index, path, kind });
        Ok(())
    }

    /// No entry may lie below a file or a link: a link there would lead the write elsewhere.
    fn finish(self) -> Result<Vec<Entry>, ArchiveError> {
        for entry in self.entries.values() {
            for parent in entry.path.ancestors().skip(1) {
                let kind = self.entries.get(parent).map(|parent| &parent.kind);
                if kind.is_some_and(|kind| *kind != EntryKind::Directory) {
                    return Err(refused(
                        "entry lies below one that is no directory",
                        &entry.path.to_string_lossy(),
                    ));
                }
            }
        }
        Ok(self.entries.into_values().collect())
    }
}

/// A name in the archive as a relative path that stays inside. The empty path is the root itself.
fn safe_path(name: &str) -> Result<PathBuf, ArchiveError> {
    if name.starts_with('/') {
        return Err(refused("absolute path", name));
    }
    if name.len() > limits::CODE_PATH_BYTES_MAX || name.contains('\0') {
        return Err(refused("path is too long or holds a NUL", name));
    }
    let mut path = PathBuf::new();
    for part in name.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            return Err(refused("path leads outside", name));
        }
        if part.len() > NAME_BYTES_MAX {
            return Err(refused("file name is too long", name));
        }
        path.push(part);
    }
    Ok(path)
}

/// Reads the target of a link.
fn link_text<R: std::io::Read>(file: ZipFile<'_, R>) -> Result<String, ArchiveError> {
    let mut bytes = Vec::new();
    file.take(limits::CODE_LINK_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|_| ArchiveError::Unreadable)?;
    String::from_utf8(bytes).map_err(|_| ArchiveError::Refused("link target is not UTF-8".into()))
}

/// Makes sure that a link stays inside: first only `..`, at most as many as its directory is deep, then none any more.
/// As no link lies below a link, that holds for chains of links too.
fn safe_target(name: &str, path: &std::path::Path, target: String) -> Result<String, ArchiveError> {
    if target.len() as u64 > limits::CODE_LINK_BYTES_MAX || target.is_empty() || target.contains('\0') {
        return Err(refused("link target is empty, too long or holds a NUL", name));
    }
    let parts: Vec<&str> = target.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let up = parts.iter().take_while(|part| **part == "..").count();
    let depth = path.components().count().saturating_sub(1);
    if target.starts_with('/') || up > depth || parts[up..].contains(&"..") {
        return Err(refused("link leads outside", name));
    }
    Ok(target)
}

/// Bounds what the parser may allocate: no parser can find more entries than there are signatures.
fn check_entry_count(zip: &[u8]) -> Result<(), ArchiveError> {
    let mut count = 0;
    let mut rest = zip;
    while let Some(at) = rest.iter().position(|byte| *byte == CENTRAL_SIGNATURE[0]) {
        rest = &rest[at..];
        count += usize::from(rest.starts_with(&CENTRAL_SIGNATURE));
        if count > limits::CODE_ENTRIES_MAX {
            return Err(ArchiveError::Refused(format!(
                "package has more than {} entries",
                limits::CODE_ENTRIES_MAX
            )));
        }
        rest = &rest[1..];
    }
    Ok(())
}

/// The parser keeps the last of several entries with one name; here they are counted as they lie in the directory.
fn check_duplicates(zip: &[u8], archive: &ZipArchive<Cursor<&[u8]>>) -> Result<(), ArchiveError> {
    let start = usize::try_from(archive.central_directory_start()).unwrap_or(usize::MAX);
    let mut rest = zip.get(start..).unwrap_or_default();
    let mut count = 0;
    while rest.starts_with(&CENTRAL_SIGNATURE) && rest.len() >= CENTRAL_BYTES {
        let length = |at: usize| usize::from(u16::from_le_bytes([rest[at], rest[at + 1]]));
        let bytes = CENTRAL_BYTES + length(28) + length(30) + length(32);
        rest = rest.get(bytes..).unwrap_or_default();
        count += 1;
    }
    if count == archive.len() {
        Ok(())
    } else {
        Err(ArchiveError::Refused("package has two entries with one name".into()))
    }
}

fn refused(why: &str, name: &str) -> ArchiveError {
    let shown: String = name.chars().take(200).collect();
    ArchiveError::Refused(format!("{why}: {}", shown.escape_debug()))
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write as _;

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    /// A package with these files.
    pub(crate) fn zip_of(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in files {
            writer.start_file(*name, SimpleFileOptions::default()).expect("in memory");
            writer.write_all(content).expect("in memory");
        }
        writer.finish().expect("in memory").into_inner()
    }

    fn zip_with_link(name: &str, target: &str, beside: &[&str]) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        writer.add_symlink(name, target, SimpleFileOptions::default()).expect("in memory");
        for name in beside {
            writer.start_file(*name, SimpleFileOptions::default()).expect("in memory");
        }
        writer.finish().expect("in memory").into_inner()
    }

    fn check_refused(zip: &[u8], want: &str) {
        let error = check_archive(zip).expect_err(want).to_string();
        assert!(error.contains(want), "got `{error}`, want `{want}`");
    }

    #[test]
    fn names_that_lead_outside_are_refused() {
        for name in ["../evil", "a/../../evil", "a/..", "..", "/etc/passwd", "x/\0y"] {
            assert!(check_archive(&zip_of(&[(name, b"")])).is_err(), "{name}");
        }
        assert!(check_archive(&zip_of(&[("a..b/..c", b"")])).is_ok());
    }

    #[test]
    fn two_entries_for_one_path_are_refused() {
        check_refused(&zip_of(&[("a", b"1"), ("./a", b"2")]), "two entries for one path");
        check_refused(&zip_of(&[("a", b"1"), ("a/b", b"2")]), "no directory");
        let mut zip = zip_of(&[("aa", b"1"), ("ab", b"2")]);
        for at in 0..zip.len() - 1 {
            if &zip[at..at + 2] == b"ab" {
                zip[at + 1] = b'a';
            }
        }
        check_refused(&zip, "two entries with one name");
    }

    #[test]
    fn links_stay_inside() {
        for (name, target) in [("a/l", "../b"), ("l", "b/c"), ("a/b/l", "../../x/y"), ("a/l", "./b")] {
            assert!(check_archive(&zip_with_link(name, target, &[])).is_ok(), "{name} -> {target}");
        }
        for (name, target) in [("l", "../b"), ("a/l", "../../b"), ("l", "/etc"), ("a/b/l", "x/../..")] {
            check_refused(&zip_with_link(name, target, &[]), "link leads outside");
        }
        check_refused(&zip_with_link("l", "b", &["l/x"]), "no directory");
    }

    #[test]
    fn garbage_is_no_archive() {
        assert_eq!(check_archive(b""), Err(ArchiveError::Empty));
        assert_eq!(check_archive(b"PK"), Err(ArchiveError::Unreadable));
        let zip = zip_of(&[("a", b"content")]);
        for length in 0..zip.len() {
            assert!(check_archive(&zip[..length]).is_err());
        }
        assert_eq!(check_archive(&zip_of(&[])), Err(ArchiveError::Empty));
    }

    #[test]
    fn declared_sizes_are_added_up() {
        let mut zip = zip_of(&[("a", &[0; 100])]);
        let central = zip.windows(4).position(|four| four == CENTRAL_SIGNATURE).expect("one entry");
        zip[central + 24..central + 28].copy_from_slice(&300_000_000_u32.to_le_bytes());
        assert_eq!(check_archive(&zip), Err(ArchiveError::TooLarge));
    }
}
