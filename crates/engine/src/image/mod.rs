//! The saved form of a checkpoint: numbered fields, so that later versions can read earlier ones.
//!
//! An image describes a tree of processes; its memory pages lie beside it in a stream that [`PageRun::offset`] points
//! into. These are saved types: nothing in the engine runs on them without having gone through [`decode`], which
//! bounds every count and every index. Deliberately absent: anything of Lambda, and the bytes of pages and files.

mod check;
mod file;
mod memory;
mod process;

use prost::Message;

pub use file::*;
pub use memory::*;
pub use process::*;

/// The version of this format that this engine writes, and the only one that it reads.
pub const FORMAT: u32 = 2;

/// A checkpointed tree of processes.
#[derive(Clone, PartialEq, Message)]
pub struct Image {
    /// [`FORMAT`].
    #[prost(uint32, tag = "1")]
    pub format: u32,
    /// What a host must have to restore it.
    #[prost(message, required, tag = "2")]
    pub host: Host,
    /// Processes, parents before their children; the first is the one that the platform started.
    #[prost(message, repeated, tag = "3")]
    pub processes: Vec<Process>,
    /// Memory files and files without a name.
    #[prost(message, repeated, tag = "4")]
    pub inodes: Vec<Inode>,
    /// Open files of all processes.
    #[prost(message, repeated, tag = "5")]
    pub open_files: Vec<OpenFile>,
    /// Files that mappings refer to, by index.
    #[prost(message, repeated, tag = "6")]
    pub files: Vec<MappedFile>,
    /// Writable files of the sandbox (`/tmp`), with their content in the second stream.
    #[prost(message, repeated, tag = "7")]
    pub tree: Vec<TreeEntry>,
    /// `CLOCK_MONOTONIC` at the checkpoint, in nanoseconds.
    #[prost(uint64, tag = "8")]
    pub monotonic_ns: u64,
    /// `CLOCK_BOOTTIME` at the checkpoint, in nanoseconds.
    #[prost(uint64, tag = "9")]
    pub boottime_ns: u64,
}

impl Image {
    /// The process that the platform started.
    ///
    /// # Panics
    /// Never for an image that [`decode`] has given or a checkpoint has made: there is always one.
    #[must_use]
    pub fn root(&self) -> &Process {
        &self.processes[0]
    }

    /// Bytes of the page stream.
    #[must_use]
    pub fn page_bytes(&self) -> u64 {
        let of_processes = self.processes.iter().flat_map(|process| &process.runs);
        let of_inodes = self.inodes.iter().flat_map(|inode| &inode.runs);
        of_processes.chain(of_inodes).map(|run| run.bytes).sum()
    }
}

/// What the image needs of a host.
#[derive(Clone, PartialEq, Message)]
pub struct Host {
    /// The vDSO's bytes: its code is mapped anew, so it must be the same.
    #[prost(bytes = "vec", tag = "1")]
    pub vdso: Vec<u8>,
    /// CPU flags as `/proc/cpuinfo` names them; a host must have them all.
    #[prost(string, repeated, tag = "2")]
    pub cpu_flags: Vec<String>,
    /// Bytes of the extended state that each thread's frame holds.
    #[prost(uint32, tag = "3")]
    pub xsave_bytes: u32,
}

/// A file of the sandbox's writable tree.
#[derive(Clone, PartialEq, Message)]
pub struct TreeEntry {
    /// Path below `/tmp`, without a leading slash.
    #[prost(string, tag = "1")]
    pub path: String,
    /// `st_mode`.
    #[prost(uint32, tag = "2")]
    pub mode: u32,
    /// Owner.
    #[prost(uint32, tag = "3")]
    pub uid: u32,
    /// Group.
    #[prost(uint32, tag = "4")]
    pub gid: u32,
    /// Time of last modification, nanoseconds since 1970.
    #[prost(int64, tag = "5")]
    pub modified_ns: i64,
    /// Size in bytes of a regular file.
    #[prost(uint64, tag = "6")]
    pub bytes: u64,
    /// Where in the file stream.
    #[prost(uint64, tag = "7")]
    pub offset: u64,
    /// Target of a symbolic link.
    #[prost(string, tag = "8")]
    pub target: String,
}

/// Why bytes are no image.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not the encoding.
    #[error("the process image is damaged: {0}")]
    Damaged(#[from] prost::DecodeError),
    /// Written by another version.
    #[error("the process image has format {0}, this engine reads format {FORMAT}; publish the version again")]
    Format(u32),
    /// A count or an order that no checkpoint writes.
    #[error("the process image is damaged: {0}")]
    Nonsense(&'static str),
}

/// Reads an image and checks everything that later code relies on.
///
/// # Errors
/// [`DecodeError`]; never panics, whatever the bytes.
pub fn decode(bytes: &[u8]) -> Result<Image, DecodeError> {
    // The format is read by itself: the body of another one may not decode at all.
    let format = Preamble::decode(bytes)?.format;
    if format != FORMAT {
        return Err(DecodeError::Format(format));
    }
    let image = Image::decode(bytes)?;
    check::image(&image).map_err(DecodeError::Nonsense)?;
    Ok(image)
}

#[derive(Clone, PartialEq, Message)]
struct Preamble {
    #[prost(uint32, tag = "1")]
    format: u32,
}

/// Writes an image.
#[must_use]
pub fn encode(image: &Image) -> Vec<u8> {
    image.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused_and_never_panics() {
        for bytes in
            [&b""[..], b"\xff\xff\xff\xff", b"\x08\x02", &[0x08, 0x01], &[0x52, 0xff, 0xff, 0xff, 0xff, 0x0f]]
        {
            assert!(decode(bytes).is_err());
        }
    }

    #[test]
    fn another_format_is_named() {
        let image = Image { format: 7, ..Image::default() };
        assert!(matches!(decode(&encode(&image)), Err(DecodeError::Format(7))));
    }
}
