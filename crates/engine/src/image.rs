//! The saved form of a checkpoint: numbered fields, so that later versions can read earlier ones.
//!
//! An image describes one process; its memory pages lie beside it in a stream that [`PageRun::offset`] points into.
//! These are saved types: nothing in the engine runs on them without having gone through [`decode`], which bounds
//! every count. Deliberately absent: anything of Lambda, and the bytes of pages and files.

use prost::Message;

/// The version of this format that this engine writes, and the only one that it reads.
pub const FORMAT: u32 = 1;
/// The most mappings, threads, descriptors and page runs that an image may have.
const COUNT_MAX: usize = 1 << 20;

/// A checkpointed process.
#[derive(Clone, PartialEq, Message)]
pub struct Image {
    /// [`FORMAT`].
    #[prost(uint32, tag = "1")]
    pub format: u32,
    /// What a host must have to restore it.
    #[prost(message, required, tag = "2")]
    pub host: Host,
    /// Process ID inside its PID namespace.
    #[prost(int32, tag = "3")]
    pub pid: i32,
    /// Whether it led its session (a runtime started by a sandbox does).
    #[prost(bool, tag = "4")]
    pub session_leader: bool,
    /// Working directory.
    #[prost(string, tag = "5")]
    pub cwd: String,
    /// Path of the executable.
    #[prost(string, tag = "6")]
    pub executable: String,
    /// File mode creation mask.
    #[prost(uint32, tag = "7")]
    pub umask: u32,
    /// `prctl(PR_GET_DUMPABLE)`.
    #[prost(bool, tag = "8")]
    pub dumpable: bool,
    /// Boundaries that the kernel keeps for the address space.
    #[prost(message, required, tag = "9")]
    pub layout: Layout,
    /// Mappings, ascending.
    #[prost(message, repeated, tag = "10")]
    pub mappings: Vec<Mapping>,
    /// Saved pages, ascending by address.
    #[prost(message, repeated, tag = "11")]
    pub runs: Vec<PageRun>,
    /// Threads; the first is the main thread.
    #[prost(message, repeated, tag = "12")]
    pub threads: Vec<Thread>,
    /// Open descriptors, ascending.
    #[prost(message, repeated, tag = "13")]
    pub descriptors: Vec<Descriptor>,
    /// Signal actions that are not the default.
    #[prost(message, repeated, tag = "14")]
    pub signal_actions: Vec<SignalAction>,
    /// Resource limits, by resource number.
    #[prost(message, repeated, tag = "15")]
    pub limits: Vec<Limit>,
    /// Interval timers that were armed.
    #[prost(message, repeated, tag = "16")]
    pub interval_timers: Vec<IntervalTimer>,
    /// Bits of `MEMBARRIER_CMD_GET_REGISTRATIONS`.
    #[prost(uint64, tag = "17")]
    pub membarrier: u64,
    /// Functions to call in each clone before anything is released: `RAND_poll` of each OpenSSL.
    #[prost(fixed64, repeated, tag = "18")]
    pub reseed_functions: Vec<u64>,
    /// Files that mappings refer to, by index.
    #[prost(message, repeated, tag = "19")]
    pub files: Vec<MappedFile>,
    /// `CLOCK_MONOTONIC` at the checkpoint, in nanoseconds.
    #[prost(uint64, tag = "20")]
    pub monotonic_ns: u64,
    /// `CLOCK_BOOTTIME` at the checkpoint, in nanoseconds.
    #[prost(uint64, tag = "21")]
    pub boottime_ns: u64,
    /// User and group of the process.
    #[prost(uint32, tag = "22")]
    pub uid: u32,
    /// Group of the process.
    #[prost(uint32, tag = "23")]
    pub gid: u32,
    /// Writable files of the sandbox (`/tmp`), with their content in the second stream.
    #[prost(message, repeated, tag = "24")]
    pub tree: Vec<TreeEntry>,
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
    /// Shared anonymous memory or a memfd: each clone gets its own.
    SharedAnonymous = 2,
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
    /// Index into [`Image::files`].
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
    /// Where in memory.
    #[prost(uint64, tag = "1")]
    pub address: u64,
    /// How many bytes.
    #[prost(uint64, tag = "2")]
    pub bytes: u64,
    /// Where in the page stream.
    #[prost(uint64, tag = "3")]
    pub offset: u64,
}

/// One thread, stopped.
#[derive(Clone, PartialEq, Message)]
pub struct Thread {
    /// Thread ID inside the PID namespace.
    #[prost(int32, tag = "1")]
    pub tid: i32,
    /// `struct user_regs_struct` in its order, with an interrupted call already set back to be made again.
    #[prost(uint64, repeated, tag = "2")]
    pub registers: Vec<u64>,
    /// The XSAVE area in standard form.
    #[prost(bytes = "vec", tag = "3")]
    pub xsave: Vec<u8>,
    /// Blocked signals.
    #[prost(fixed64, tag = "4")]
    pub signal_mask: u64,
    /// Alternate signal stack: address, size, flags.
    #[prost(uint64, repeated, tag = "5")]
    pub alternate_stack: Vec<u64>,
    /// Robust list: head, length.
    #[prost(uint64, repeated, tag = "6")]
    pub robust_list: Vec<u64>,
    /// Restartable sequence: address, size, signature; empty when none is registered.
    #[prost(uint64, repeated, tag = "7")]
    pub rseq: Vec<u64>,
    /// `clear_child_tid`.
    #[prost(uint64, tag = "8")]
    pub tid_address: u64,
    /// Name.
    #[prost(string, tag = "9")]
    pub name: String,
}

/// What a descriptor is.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Kind {
    /// A file or directory that every sandbox has, or one of the saved tree, opened anew by path.
    #[prost(message, tag = "10")]
    Path(PathDescriptor),
    /// The sandbox's own end of something: see [`External`].
    #[prost(enumeration = "External", tag = "11")]
    External(i32),
    /// The same open file description as this lower descriptor.
    #[prost(int32, tag = "12")]
    Duplicate(i32),
    /// An eventfd: counter and flags.
    #[prost(message, tag = "13")]
    EventFd(EventFd),
    /// An epoll set.
    #[prost(message, tag = "14")]
    Epoll(Epoll),
    /// A further connection to the Runtime API, idle: connected anew.
    #[prost(message, tag = "15")]
    Connection(Connection),
    /// One end of a pipe whose both ends are in the process.
    #[prost(message, tag = "16")]
    Pipe(Pipe),
    /// One end of a connected pair of Unix sockets, both ends in the process.
    #[prost(message, tag = "17")]
    UnixPair(UnixPair),
    /// A connection to the outside: comes back closed.
    #[prost(message, tag = "18")]
    Closed(Closed),
    /// A timerfd.
    #[prost(message, tag = "19")]
    TimerFd(TimerFd),
    /// A listening TCP socket or a bound UDP socket of the sandbox's loopback.
    #[prost(message, tag = "20")]
    Listener(Listener),
}

/// The ends that the platform holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum External {
    /// Write end of the log pipe for standard output.
    Stdout = 0,
    /// Write end of the log pipe for standard error.
    Stderr = 1,
    /// The Runtime API connection on which a request is pending.
    Pending = 2,
}

/// One descriptor.
#[derive(Clone, PartialEq, Message)]
pub struct Descriptor {
    /// Its number.
    #[prost(int32, tag = "1")]
    pub number: i32,
    /// Whether it is closed by `execve`.
    #[prost(bool, tag = "2")]
    pub close_on_exec: bool,
    /// File status flags (`O_NONBLOCK`, `O_APPEND`, access mode).
    #[prost(uint32, tag = "3")]
    pub status_flags: u32,
    /// What it is.
    #[prost(oneof = "Kind", tags = "10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20")]
    pub kind: Option<Kind>,
}

/// See [`Kind::Path`].
#[derive(Clone, PartialEq, Message)]
pub struct PathDescriptor {
    /// Path inside the sandbox.
    #[prost(string, tag = "1")]
    pub path: String,
    /// File offset in bytes.
    #[prost(uint64, tag = "2")]
    pub offset: u64,
}

/// See [`Kind::EventFd`].
#[derive(Clone, PartialEq, Message)]
pub struct EventFd {
    /// Counter.
    #[prost(uint64, tag = "1")]
    pub count: u64,
    /// Whether it is a semaphore.
    #[prost(bool, tag = "2")]
    pub semaphore: bool,
}

/// See [`Kind::TimerFd`].
#[derive(Clone, PartialEq, Message)]
pub struct TimerFd {
    /// Clock ID.
    #[prost(int32, tag = "1")]
    pub clock: i32,
    /// Time to the next expiry in nanoseconds; zero when disarmed.
    #[prost(uint64, tag = "2")]
    pub value_ns: u64,
    /// Interval in nanoseconds.
    #[prost(uint64, tag = "3")]
    pub interval_ns: u64,
}

/// See [`Kind::Epoll`].
#[derive(Clone, PartialEq, Message)]
pub struct Epoll {
    /// Members.
    #[prost(message, repeated, tag = "1")]
    pub members: Vec<EpollMember>,
}

/// A descriptor in an epoll set.
#[derive(Clone, PartialEq, Message)]
pub struct EpollMember {
    /// The descriptor.
    #[prost(int32, tag = "1")]
    pub number: i32,
    /// Events asked for.
    #[prost(uint32, tag = "2")]
    pub events: u32,
    /// User data.
    #[prost(fixed64, tag = "3")]
    pub data: u64,
}

/// See [`Kind::Connection`].
#[derive(Clone, PartialEq, Message)]
pub struct Connection {
    /// Port on 127.0.0.1.
    #[prost(uint32, tag = "1")]
    pub port: u32,
}

/// See [`Kind::Pipe`].
#[derive(Clone, PartialEq, Message)]
pub struct Pipe {
    /// Identifies the pipe within the image.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Whether this is a read end.
    #[prost(bool, tag = "2")]
    pub read: bool,
    /// Bytes waiting in it (kept with the read end).
    #[prost(bytes = "vec", tag = "3")]
    pub content: Vec<u8>,
    /// Capacity in bytes.
    #[prost(uint32, tag = "4")]
    pub capacity_bytes: u32,
}

/// See [`Kind::UnixPair`].
#[derive(Clone, PartialEq, Message)]
pub struct UnixPair {
    /// Identifies this end within the image.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// The other end.
    #[prost(uint64, tag = "2")]
    pub peer: u64,
    /// `SOCK_*`.
    #[prost(int32, tag = "3")]
    pub socket_type: i32,
}

/// See [`Kind::Closed`].
#[derive(Clone, PartialEq, Message)]
pub struct Closed {
    /// Address family.
    #[prost(int32, tag = "1")]
    pub family: i32,
    /// `SOCK_*`.
    #[prost(int32, tag = "2")]
    pub socket_type: i32,
    /// Where it led, for the log.
    #[prost(string, tag = "3")]
    pub peer: String,
}

/// See [`Kind::Listener`].
#[derive(Clone, PartialEq, Message)]
pub struct Listener {
    /// Address family.
    #[prost(int32, tag = "1")]
    pub family: i32,
    /// `SOCK_*`.
    #[prost(int32, tag = "2")]
    pub socket_type: i32,
    /// `struct sockaddr` as bound.
    #[prost(bytes = "vec", tag = "3")]
    pub address: Vec<u8>,
    /// Backlog; zero when it does not listen.
    #[prost(uint32, tag = "4")]
    pub backlog: u32,
}

/// One signal action.
#[derive(Clone, PartialEq, Message)]
pub struct SignalAction {
    /// Signal number.
    #[prost(uint32, tag = "1")]
    pub signal: u32,
    /// `struct kernel_sigaction`: handler, flags, restorer, mask.
    #[prost(uint64, repeated, tag = "2")]
    pub action: Vec<u64>,
}

/// One resource limit.
#[derive(Clone, PartialEq, Message)]
pub struct Limit {
    /// `RLIMIT_*`.
    #[prost(uint32, tag = "1")]
    pub resource: u32,
    /// Soft limit.
    #[prost(uint64, tag = "2")]
    pub soft: u64,
    /// Hard limit.
    #[prost(uint64, tag = "3")]
    pub hard: u64,
}

/// One armed interval timer.
#[derive(Clone, PartialEq, Message)]
pub struct IntervalTimer {
    /// `ITIMER_*`.
    #[prost(uint32, tag = "1")]
    pub which: u32,
    /// `struct itimerval`.
    #[prost(uint64, repeated, tag = "2")]
    pub value: Vec<u64>,
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
    let image = Image::decode(bytes)?;
    if image.format != FORMAT {
        return Err(DecodeError::Format(image.format));
    }
    check(&image).map_err(DecodeError::Nonsense)?;
    Ok(image)
}

fn check(image: &Image) -> Result<(), &'static str> {
    let counts = [image.mappings.len(), image.runs.len(), image.threads.len(), image.descriptors.len()];
    if counts.iter().any(|&count| count > COUNT_MAX) {
        return Err("it lists too much");
    }
    if !ascending(image.mappings.iter().map(|mapping| (mapping.start, mapping.end))) {
        return Err("its mappings overlap");
    }
    if !ascending(image.runs.iter().map(|run| (run.address, run.address.saturating_add(run.bytes)))) {
        return Err("its page runs overlap");
    }
    if image.mappings.iter().any(|mapping| uses_file(mapping) && mapping.file as usize >= image.files.len()) {
        return Err("a mapping names no file");
    }
    if image.mappings.iter().any(|mapping| mapping.guards.len() % 2 != 0) {
        return Err("a mapping has half a guard range");
    }
    let threads_whole = image.threads.iter().all(|thread| {
        thread.registers.len() == 27
            && thread.tid > 0
            && [0, 3].contains(&thread.alternate_stack.len())
            && [0, 2].contains(&thread.robust_list.len())
            && [0, 3].contains(&thread.rseq.len())
            && (576..=64 * 1024).contains(&thread.xsave.len())
    });
    if !threads_whole || image.threads.first().is_none_or(|main| main.tid != image.pid) {
        return Err("its threads are not whole");
    }
    let mut last = -1;
    let descriptors_whole = image.descriptors.iter().all(|descriptor| {
        let good = descriptor.number > last && descriptor.kind.is_some();
        last = descriptor.number;
        good
    });
    if !descriptors_whole {
        return Err("its descriptors are not in order");
    }
    let records_whole =
        image.signal_actions.iter().all(|action| action.action.len() == 4 && action.signal <= 64)
            && image.interval_timers.iter().all(|timer| timer.value.len() == 4);
    if records_whole { Ok(()) } else { Err("its signal actions or timers are not whole") }
}

/// Whether page-aligned ranges of user space follow each other without overlap.
fn ascending(mut ranges: impl Iterator<Item = (u64, u64)>) -> bool {
    let mut end = 0;
    ranges.all(|(from, to)| {
        let good = from >= end && to > from && from % 4096 == 0 && to % 4096 == 0 && to < 1 << 47;
        end = to;
        good
    })
}

fn uses_file(mapping: &Mapping) -> bool {
    matches!(mapping.backing(), Backing::File | Backing::SharedFile)
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
