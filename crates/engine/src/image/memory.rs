//! Memory: mappings, what backs them, and where their pages lie in the page stream.

use prost::Message;

/// `struct prctl_mm_map` without its auxiliary vector and descriptor.
#[derive(Clone, PartialEq, Message)]
pub struct Layout {
    /// Start of the program's text.
    #[prost(uint64, tag = "1")]
    pub start_code: u64,
    /// End of the program's text.
    #[prost(uint64, tag = "2")]
    pub end_code: u64,
    /// Start of the program's data.
    #[prost(uint64, tag = "3")]
    pub start_data: u64,
    /// End of the program's data.
    #[prost(uint64, tag = "4")]
    pub end_data: u64,
    /// Start of the heap.
    #[prost(uint64, tag = "5")]
    pub start_brk: u64,
    /// End of the heap.
    #[prost(uint64, tag = "6")]
    pub brk: u64,
    /// Start of the main stack.
    #[prost(uint64, tag = "7")]
    pub start_stack: u64,
    /// Start of the arguments.
    #[prost(uint64, tag = "8")]
    pub arg_start: u64,
    /// End of the arguments.
    #[prost(uint64, tag = "9")]
    pub arg_end: u64,
    /// Start of the environment.
    #[prost(uint64, tag = "10")]
    pub env_start: u64,
    /// End of the environment.
    #[prost(uint64, tag = "11")]
    pub env_end: u64,
    /// The auxiliary vector as `/proc/PID/auxv` gives it.
    #[prost(bytes = "vec", tag = "12")]
    pub auxv: Vec<u8>,
}

/// What backs a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Backing {
    /// Private anonymous memory.
    Anonymous = 0,
    /// A private mapping of a file that every sandbox of this runtime has.
    File = 1,
    /// A shared view of one of [`Image::inodes`](super::Image::inodes): each clone has its own inode.
    Inode = 2,
    /// The vDSO and its data pages: mapped anew by the kernel.
    Vdso = 3,
    /// A shared mapping of a file that every sandbox has, such as `/dev/sysgenid`: opened anew in each clone.
    SharedFile = 4,
}

/// One mapping.
#[derive(Clone, PartialEq, Message)]
pub struct Mapping {
    /// First byte.
    #[prost(uint64, tag = "1")]
    pub start: u64,
    /// First byte behind it.
    #[prost(uint64, tag = "2")]
    pub end: u64,
    /// `PROT_*`.
    #[prost(uint32, tag = "3")]
    pub protection: u32,
    /// What backs it.
    #[prost(enumeration = "Backing", tag = "4")]
    pub backing: i32,
    /// Index into [`Image::files`](super::Image::files), or for [`Backing::Inode`] into
    /// [`Image::inodes`](super::Image::inodes).
    #[prost(uint32, tag = "5")]
    pub file: u32,
    /// Offset in the file in bytes.
    #[prost(uint64, tag = "6")]
    pub offset: u64,
    /// The bits of [`flags`].
    #[prost(uint32, tag = "7")]
    pub flags: u32,
    /// Guard pages (`MADV_GUARD_INSTALL`) as start and end in turn.
    #[prost(uint64, repeated, tag = "8")]
    pub guards: Vec<u64>,
    /// The name that `PR_SET_VMA_ANON_NAME` gave.
    #[prost(string, tag = "9")]
    pub name: String,
}

/// Properties of a mapping beyond its protection, from `VmFlags` of `/proc/PID/smaps`.
pub mod flags {
    /// Grows down (a main stack).
    pub const GROWS_DOWN: u32 = 1;
    /// `MAP_NORESERVE`.
    pub const NO_RESERVE: u32 = 2;
    /// `MADV_HUGEPAGE`.
    pub const HUGE: u32 = 4;
    /// `MADV_NOHUGEPAGE`.
    pub const NO_HUGE: u32 = 8;
    /// `MADV_DONTFORK`.
    pub const DONT_FORK: u32 = 16;
    /// `MADV_WIPEONFORK`: its content is never saved.
    pub const WIPE_ON_FORK: u32 = 32;
    /// `MAP_DROPPABLE`: its content is never saved.
    pub const DROPPABLE: u32 = 64;
    /// `mlock`ed.
    pub const LOCKED: u32 = 128;
    /// `MADV_DONTDUMP`.
    pub const DONT_DUMP: u32 = 256;
    /// A shared view that could be made writable (`mw`): its file was opened for writing.
    pub const MAY_WRITE: u32 = 512;
}

/// A file that mappings refer to.
#[derive(Clone, PartialEq, Message)]
pub struct MappedFile {
    /// Path inside the sandbox.
    #[prost(string, tag = "1")]
    pub path: String,
    /// Size in bytes; a host whose file differs refuses.
    #[prost(uint64, tag = "2")]
    pub bytes: u64,
    /// Time of last modification, nanoseconds since 1970.
    #[prost(int64, tag = "3")]
    pub modified_ns: i64,
}

/// Saved pages that are adjacent in memory and in the stream.
#[derive(Clone, PartialEq, Message)]
pub struct PageRun {
    /// Where in memory, or in the inode.
    #[prost(uint64, tag = "1")]
    pub address: u64,
    /// How many bytes.
    #[prost(uint64, tag = "2")]
    pub bytes: u64,
    /// Where in the page stream.
    #[prost(uint64, tag = "3")]
    pub offset: u64,
}
