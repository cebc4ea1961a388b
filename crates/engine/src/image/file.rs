//! Open files: what the descriptors of every process refer to.
//!
//! An [`OpenFile`] is what the kernel calls an open file description. Descriptors of one process or of several may
//! refer to the same one, and a message that waits in a Unix socket may carry it too, so open files belong to the
//! image and not to a process.

use prost::Message;

use super::memory::PageRun;

/// An open file description.
#[derive(Clone, PartialEq, Message)]
pub struct OpenFile {
    /// File status flags (`O_NONBLOCK`, `O_APPEND`, access mode).
    #[prost(uint32, tag = "1")]
    pub status_flags: u32,
    /// Who gets its signals: process ID, or a process group's negated; zero for none (`F_GETOWN`).
    #[prost(int32, tag = "2")]
    pub owner: i32,
    /// The signal that it sends when it becomes ready; zero for `SIGIO` (`F_GETSIG`).
    #[prost(int32, tag = "3")]
    pub owner_signal: i32,
    /// A lease on it: `F_RDLCK` or `F_WRLCK` plus one; zero for none.
    #[prost(uint32, tag = "4")]
    pub lease: u32,
    /// What it is.
    #[prost(oneof = "Kind", tags = "10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26")]
    pub kind: Option<Kind>,
}

/// What an open file is.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Kind {
    /// A file or directory that every sandbox has, or one of the saved tree, opened anew by path.
    #[prost(message, tag = "10")]
    Path(Path),
    /// The platform's own end of something: see [`External`].
    #[prost(enumeration = "External", tag = "11")]
    External(i32),
    /// A memory file or a file without a name, made anew with its content.
    #[prost(message, tag = "12")]
    Inode(InodeFile),
    /// An eventfd.
    #[prost(message, tag = "13")]
    EventFd(EventFd),
    /// An epoll set.
    #[prost(message, tag = "14")]
    Epoll(Epoll),
    /// A further connection to the platform, idle: connected anew.
    #[prost(message, tag = "15")]
    Connection(Connection),
    /// One end of a pipe.
    #[prost(message, tag = "16")]
    Pipe(Pipe),
    /// A Unix socket.
    #[prost(message, tag = "17")]
    Unix(Unix),
    /// A connection to the outside: comes back reset.
    #[prost(message, tag = "18")]
    Closed(Closed),
    /// A timerfd.
    #[prost(message, tag = "19")]
    TimerFd(TimerFd),
    /// A TCP or UDP socket that is not connected: fresh, bound or listening.
    #[prost(message, tag = "20")]
    Socket(Socket),
    /// A TCP connection, or a connected UDP socket, between processes of the image.
    #[prost(message, tag = "21")]
    Loopback(Loopback),
    /// A signalfd: the signals that it takes.
    #[prost(fixed64, tag = "22")]
    SignalFd(u64),
    /// An inotify instance.
    #[prost(message, tag = "23")]
    Inotify(Inotify),
    /// A pidfd of a process of the image, by process ID.
    #[prost(int32, tag = "24")]
    PidFd(i32),
    /// A netlink socket.
    #[prost(message, tag = "25")]
    Netlink(Netlink),
    /// One side of a pseudoterminal.
    #[prost(message, tag = "26")]
    Terminal(Terminal),
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
    /// Standard input of a process that is restored outside a sandbox.
    Stdin = 3,
}

/// See [`Kind::Path`].
#[derive(Clone, PartialEq, Message)]
pub struct Path {
    /// Path inside the sandbox.
    #[prost(string, tag = "1")]
    pub path: String,
    /// File offset in bytes.
    #[prost(uint64, tag = "2")]
    pub offset: u64,
    /// The file is a FIFO: bytes waiting in it, kept with the first open file of the FIFO.
    #[prost(bytes = "vec", optional, tag = "3")]
    pub fifo: Option<Vec<u8>>,
}

/// A memory file, shared memory, or a file that has no name any more.
#[derive(Clone, PartialEq, Message)]
pub struct Inode {
    /// Where it lived: `None` for memory (memfd, shared anonymous, System V), else the directory of the unlinked file.
    #[prost(string, optional, tag = "1")]
    pub directory: Option<String>,
    /// Name of a memory file.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Size in bytes.
    #[prost(uint64, tag = "3")]
    pub bytes: u64,
    /// Seals (`F_GET_SEALS`) of a memory file; bit 31 tells that it can have none.
    #[prost(uint32, tag = "4")]
    pub seals: u32,
    /// `st_mode` permission bits.
    #[prost(uint32, tag = "5")]
    pub mode: u32,
    /// Saved pages; [`PageRun::address`] is the offset in the file. What lies between them is a hole.
    #[prost(message, repeated, tag = "6")]
    pub runs: Vec<PageRun>,
    /// The path of a file that still has a name, in a directory that is each clone's own and not saved as a whole
    /// (`/dev/shm`): it is made there.
    #[prost(string, optional, tag = "7")]
    pub path: Option<String>,
    /// Owner of a file that has a path.
    #[prost(uint32, tag = "8")]
    pub uid: u32,
    /// Group of a file that has a path.
    #[prost(uint32, tag = "9")]
    pub gid: u32,
}

/// [`Inode::seals`] of a file that cannot be sealed.
pub const SEALS_NONE: u32 = 1 << 31;

/// See [`Kind::Inode`].
#[derive(Clone, PartialEq, Message)]
pub struct InodeFile {
    /// Index into [`Image::inodes`](super::Image::inodes).
    #[prost(uint32, tag = "1")]
    pub inode: u32,
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
    /// Expirations that nobody has read yet.
    #[prost(uint64, tag = "4")]
    pub ticks: u64,
    /// When it expires by the wall clock, in nanoseconds since 1970, if it was set to a moment (`TFD_TIMER_ABSTIME`) of
    /// that clock; zero otherwise.
    #[prost(uint64, tag = "5")]
    pub moment_ns: u64,
    /// The flags that it was set with (`TFD_TIMER_*`).
    #[prost(uint32, tag = "6")]
    pub flags: u32,
}

/// See [`Kind::Epoll`].
#[derive(Clone, PartialEq, Message)]
pub struct Epoll {
    /// Members, in the order in which they were added.
    #[prost(message, repeated, tag = "1")]
    pub members: Vec<EpollMember>,
}

/// A member of an epoll set.
#[derive(Clone, PartialEq, Message)]
pub struct EpollMember {
    /// The descriptor's number when it was added; it may be closed or mean another file by now.
    #[prost(int32, tag = "1")]
    pub number: i32,
    /// Events asked for.
    #[prost(uint32, tag = "2")]
    pub events: u32,
    /// User data.
    #[prost(fixed64, tag = "3")]
    pub data: u64,
    /// Index into [`Image::open_files`](super::Image::open_files).
    #[prost(uint32, tag = "4")]
    pub file: u32,
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
    /// What waits in it (kept with the first read end): one piece, or one for each packet of a packet pipe.
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub content: Vec<Vec<u8>>,
    /// Capacity in bytes.
    #[prost(uint32, tag = "4")]
    pub capacity_bytes: u32,
}

/// See [`Kind::Unix`].
#[derive(Clone, PartialEq, Message)]
pub struct Unix {
    /// Identifies this socket within the image.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// The socket that it is connected to; zero for none. A peer that no open file has is closed by now.
    #[prost(uint64, tag = "2")]
    pub peer: u64,
    /// `SOCK_*`.
    #[prost(int32, tag = "3")]
    pub socket_type: i32,
    /// `sun_path` that it is bound to: a path, a zero byte and an abstract name, or empty.
    #[prost(bytes = "vec", tag = "4")]
    pub name: Vec<u8>,
    /// Backlog of a listening socket; zero when it does not listen.
    #[prost(uint32, tag = "5")]
    pub backlog: u32,
    /// What waits to be read from it.
    #[prost(message, repeated, tag = "6")]
    pub queue: Vec<UnixMessage>,
    /// Bit 0: it reads no more; bit 1: it writes no more.
    #[prost(uint32, tag = "7")]
    pub shutdown: u32,
    /// Options that differ from a fresh socket's.
    #[prost(message, repeated, tag = "8")]
    pub options: Vec<SocketOption>,
    /// A connection that was accepted from the listener of this name: comes back as a pair.
    #[prost(bool, tag = "9")]
    pub accepted: bool,
    /// `st_mode` permission bits of the file that it is bound to; zero when there is none.
    #[prost(uint32, tag = "10")]
    pub mode: u32,
    /// Owner of that file.
    #[prost(uint32, tag = "11")]
    pub uid: u32,
    /// Group of that file.
    #[prost(uint32, tag = "12")]
    pub gid: u32,
}

/// A message, or a piece of a stream, in the queue of a Unix socket.
#[derive(Clone, PartialEq, Message)]
pub struct UnixMessage {
    /// Its bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub bytes: Vec<u8>,
    /// The open files that it carries, as indices into [`Image::open_files`](super::Image::open_files).
    #[prost(uint32, repeated, tag = "2")]
    pub files: Vec<u32>,
    /// `sun_path` of the socket that sent it; empty when that has no name.
    #[prost(bytes = "vec", tag = "3")]
    pub sender: Vec<u8>,
}

/// A socket option with its value.
#[derive(Clone, PartialEq, Message)]
pub struct SocketOption {
    /// `SOL_*` or `IPPROTO_*`.
    #[prost(int32, tag = "1")]
    pub level: i32,
    /// Its number.
    #[prost(int32, tag = "2")]
    pub option: i32,
    /// Its value as `getsockopt(2)` gives it.
    #[prost(bytes = "vec", tag = "3")]
    pub value: Vec<u8>,
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

/// See [`Kind::Socket`].
#[derive(Clone, PartialEq, Message)]
pub struct Socket {
    /// Address family.
    #[prost(int32, tag = "1")]
    pub family: i32,
    /// `SOCK_*`.
    #[prost(int32, tag = "2")]
    pub socket_type: i32,
    /// `struct sockaddr` as bound; empty when it is not.
    #[prost(bytes = "vec", tag = "3")]
    pub address: Vec<u8>,
    /// Backlog; zero when it does not listen.
    #[prost(uint32, tag = "4")]
    pub backlog: u32,
    /// Options that differ from a fresh socket's.
    #[prost(message, repeated, tag = "5")]
    pub options: Vec<SocketOption>,
    /// `IPPROTO_*`.
    #[prost(int32, tag = "6")]
    pub protocol: i32,
    /// Datagrams that wait in a UDP socket: sender and bytes.
    #[prost(message, repeated, tag = "7")]
    pub queue: Vec<Datagram>,
}

/// A datagram in the queue of a UDP socket.
#[derive(Clone, PartialEq, Message)]
pub struct Datagram {
    /// `struct sockaddr` of its sender.
    #[prost(bytes = "vec", tag = "1")]
    pub sender: Vec<u8>,
    /// Its bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub bytes: Vec<u8>,
}

/// See [`Kind::Loopback`].
#[derive(Clone, PartialEq, Message)]
pub struct Loopback {
    /// The socket as if it were not connected; its address is this end's.
    #[prost(message, required, tag = "1")]
    pub socket: Socket,
    /// `struct sockaddr` of the other end, which an open file of the image has as its own address, unless it is closed.
    #[prost(bytes = "vec", tag = "2")]
    pub peer: Vec<u8>,
    /// Bytes that wait to be read from this end of a TCP connection.
    #[prost(bytes = "vec", tag = "3")]
    pub queue: Vec<u8>,
    /// Whether this end was accepted from a listener; the other one connected.
    #[prost(bool, tag = "4")]
    pub accepted: bool,
    /// Bit 0: it reads no more; bit 1: it writes no more.
    #[prost(uint32, tag = "5")]
    pub shutdown: u32,
}

/// See [`Kind::Inotify`].
#[derive(Clone, PartialEq, Message)]
pub struct Inotify {
    /// Watches, ascending by descriptor.
    #[prost(message, repeated, tag = "1")]
    pub watches: Vec<Watch>,
}

/// One watch.
#[derive(Clone, PartialEq, Message)]
pub struct Watch {
    /// Watch descriptor.
    #[prost(int32, tag = "1")]
    pub descriptor: i32,
    /// `IN_*`.
    #[prost(uint32, tag = "2")]
    pub mask: u32,
    /// What is watched.
    #[prost(string, tag = "3")]
    pub path: String,
}

/// See [`Kind::Netlink`].
#[derive(Clone, PartialEq, Message)]
pub struct Netlink {
    /// `SOCK_*`.
    #[prost(int32, tag = "1")]
    pub socket_type: i32,
    /// `NETLINK_*`.
    #[prost(int32, tag = "2")]
    pub protocol: i32,
    /// Whether it is bound.
    #[prost(bool, tag = "3")]
    pub bound: bool,
    /// Its port when it is bound.
    #[prost(uint32, tag = "4")]
    pub port: u32,
    /// Multicast groups.
    #[prost(uint32, tag = "5")]
    pub groups: u32,
}

/// See [`Kind::Terminal`].
#[derive(Clone, PartialEq, Message)]
pub struct Terminal {
    /// Identifies the pair within the image.
    #[prost(uint32, tag = "1")]
    pub id: u32,
    /// Whether this is the master side.
    #[prost(bool, tag = "2")]
    pub master: bool,
    /// `struct termios` of the kernel (with the master side).
    #[prost(bytes = "vec", tag = "3")]
    pub termios: Vec<u8>,
    /// `struct winsize` (with the master side).
    #[prost(bytes = "vec", tag = "4")]
    pub window: Vec<u8>,
}
