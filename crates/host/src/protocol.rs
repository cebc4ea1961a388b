//! What the API role and the host role say to each other.
//!
//! One message is one packet of a `SOCK_SEQPACKET` socket: JSON, at most [`MESSAGE_BYTES_MAX`], with file descriptors
//! beside it (`SCM_RIGHTS`) where the message says so. The API role sends [`Request`]s and gets exactly one
//! [`Reply`] for each, in any order; the host role sends [`Event`]s unasked. The socket's end of file is the death
//! of the other side: the host role then ends every environment and itself.
//!
//! Deliberately absent: HTTP, functions, versions, aliases. The host role knows sandboxes, environments and
//! snapshots only.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The largest message in bytes, either way.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// The port on which every sandbox's own loopback answers the Runtime API. It is baked into the environment variable
/// `AWS_LAMBDA_RUNTIME_API` of every snapshot, so it never changes.
pub const RUNTIME_API_PORT: u16 = 9001;

/// How many services of the host functions may reach: their sockets travel in one message.
pub const EXPOSED_PORTS_MAX: usize = 64;

/// A sandbox: numbered by the host role, never reused while it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SandboxId(pub u64);

/// A snapshot: a UUID that the API role chose.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SnapshotId(pub String);

/// The read-only part of a sandbox's root file system. Sandboxes wait ready in one pool per `RootSpec`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RootSpec {
    /// Name for logs and for `doctor`: the runtime's identifier.
    pub name: String,
    /// Read-only binds beyond the system directories (`/usr`, `/lib*`, `/bin` and a few files of `/etc`).
    pub binds: Vec<Bind>,
    /// Ports of the sandbox's own loopback on which the server listens, besides the Runtime API's: the services of the
    /// host that functions may reach. At most [`EXPOSED_PORTS_MAX`].
    #[serde(default)]
    pub exposed_ports: Vec<u16>,
}

/// One read-only bind mount.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Bind {
    /// A directory of the host.
    pub source: PathBuf,
    /// Where the sandbox sees it, such as `/var/lang`.
    pub target: PathBuf,
}

/// What a function version adds to a sandbox when it is leased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Unpacked code, mounted read-only at `/var/task`.
    pub task_dir: PathBuf,
    /// Unpacked layers, mounted read-only at `/opt`.
    pub opt_dir: Option<PathBuf>,
    /// Size of `/tmp` in MiB (`EphemeralStorage`).
    pub tmp_mib: u32,
    /// Memory limit in MiB (`MemorySize`).
    pub memory_mib: u32,
}

/// How a normal init starts its runtime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitSpec {
    /// Program and arguments, as paths inside the sandbox.
    pub argv: Vec<String>,
    /// The whole environment of the process.
    pub env: BTreeMap<String, String>,
    /// Working directory inside the sandbox (`/var/task`).
    pub cwd: String,
}

/// A request of the API role.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the API role; the reply carries it.
    pub id: u64,
    /// What is asked.
    pub command: Command,
}

/// What the API role can ask for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Command {
    /// Keep this many sandboxes of `root` ready. Each one that becomes ready is announced by
    /// [`Event::SandboxReady`]. Zero takes the pool down. Replied at once with [`Answer::Done`].
    Pool {
        /// Which pool.
        root: RootSpec,
        /// How many sandboxes wait ready.
        ready: u32,
    },
    /// Start a runtime in a ready sandbox. [`Answer::Started`] when the process runs.
    Init {
        /// The ready sandbox to use.
        sandbox: SandboxId,
        /// What the version adds to it.
        lease: Lease,
        /// The process to start.
        init: InitSpec,
    },
    /// Checkpoint the environment in this sandbox and store its snapshot durably. The environment is stopped and does
    /// not run on: kill it afterwards. [`Answer::Checkpointed`] when the snapshot is durable.
    Checkpoint {
        /// The environment.
        sandbox: SandboxId,
        /// The name of the new snapshot.
        snapshot: SnapshotId,
        /// Local port of the function's side of the Runtime API connection on which `restore/next` (or
        /// `invocation/next`) is pending. After a restore that connection is the sandbox's fresh one.
        pending_port: u16,
    },
    /// Make the snapshot's template so that the first restore finds it. [`Answer::Done`] when it stands.
    Prepare {
        /// Which snapshot.
        snapshot: SnapshotId,
    },
    /// Restore a snapshot into a ready sandbox. [`Answer::Restored`] when its threads have been released.
    Restore {
        /// The ready sandbox to use. Its root must equal the one that the snapshot was made in.
        sandbox: SandboxId,
        /// What the version adds to it.
        lease: Lease,
        /// Which snapshot.
        snapshot: SnapshotId,
    },
    /// Init or restore is over: from now on the environment gets only the share of processors that belongs to its
    /// memory size. Until then it has whole processors, as an init on AWS Lambda has. [`Answer::Done`].
    Settled {
        /// The environment.
        sandbox: SandboxId,
    },
    /// Stop every process of the environment from running. [`Answer::Done`].
    Freeze {
        /// The environment.
        sandbox: SandboxId,
    },
    /// Let a frozen environment run. [`Answer::Done`].
    Thaw {
        /// The environment.
        sandbox: SandboxId,
    },
    /// Kill every process of the sandbox and remove it, whatever state it is in. [`Answer::Done`] when the kill is
    /// under way; its removal is finished off the caller's path.
    Kill {
        /// The sandbox.
        sandbox: SandboxId,
    },
    /// Delete a snapshot and its template and free its disk. Unknown names are no error. [`Answer::Done`].
    Delete {
        /// Which snapshot.
        snapshot: SnapshotId,
    },
    /// Delete every snapshot that is not named: what an earlier life left behind. [`Answer::Done`].
    Retain {
        /// The snapshots that the metadata knows.
        snapshots: Vec<SnapshotId>,
    },
    /// Peak memory of the environment. [`Answer::Usage`].
    Usage {
        /// The environment.
        sandbox: SandboxId,
    },
}

/// The answer to one request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reply {
    /// The request's `id`.
    pub id: u64,
    /// The outcome.
    pub result: Result<Answer, Failure>,
}

/// A success.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Answer {
    /// Done, with nothing to tell.
    Done,
    /// A runtime process was started.
    Started,
    /// A snapshot is durable.
    Checkpointed(SnapshotFacts),
    /// An environment was restored and runs.
    Restored {
        /// From the host role's receipt of the request until the threads were released, in microseconds.
        restore_us: u64,
    },
    /// Memory figures.
    Usage {
        /// Highest resident memory of the environment's processes so far, in MiB, rounded up.
        memory_peak_mib: u32,
    },
}

/// What is known of a finished snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotFacts {
    /// Bytes of memory pages and writable files in the snapshot.
    pub image_bytes: u64,
    /// Bytes that it takes on disk, after compression; chunks shared with other snapshots are counted once, for the
    /// snapshot that brought them.
    pub stored_bytes: u64,
    /// How long the environment was stopped, in microseconds.
    pub checkpoint_us: u64,
    /// What a user should know: connections that come back closed, hidden generators, and the like.
    pub warnings: Vec<String>,
}

/// A failure, for the log and for the caller's decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What the caller can do about it.
    pub kind: FailureKind,
    /// What failed, on what, and what to do.
    pub message: String,
}

/// The kinds of failure that a caller treats differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// There is no such sandbox or snapshot (any more).
    NotFound,
    /// The environment holds something that cannot be saved; the message names it and a remedy.
    Unsupported,
    /// The snapshot is corrupt, truncated or made for another host: serve the request by a normal init.
    Unusable,
    /// The host is out of a resource (memory, disk, processes).
    Exhausted,
    /// Anything else.
    Internal,
}

/// What the host role says unasked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Event {
    /// A sandbox waits ready. These descriptors come with it, in this order: a listening TCP socket bound to the
    /// sandbox's own `127.0.0.1:9001`; the server's side of the fresh connection that a restored environment's
    /// pending request continues on (already accepted); the read end of the sandbox's stdout; of its stderr;
    /// then a listening TCP socket for each exposed port of the root, in their order.
    SandboxReady {
        /// The new sandbox.
        sandbox: SandboxId,
        /// Its pool.
        root: RootSpec,
        /// A clone of this snapshot waits in it, and it is for that snapshot alone: it belongs to no pool, and a
        /// [`Command::Restore`] of it lets the clone go.
        standby: Option<SnapshotId>,
    },
    /// No sandbox of this root can be made: every invocation of its runtime will fail until it is mended.
    SandboxFailed {
        /// The pool.
        root: RootSpec,
        /// Why, and what to do.
        message: String,
    },
    /// The first process of the environment ended: the runtime exited or was killed.
    Exited {
        /// The environment.
        sandbox: SandboxId,
        /// How.
        exit: Exit,
        /// Whether the kernel killed it for going over its memory limit.
        out_of_memory: bool,
    },
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// By `exit` with this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
}

/// Any packet from the host role.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum FromHost {
    /// The answer to a request.
    Reply(Reply),
    /// Something that happened.
    Event(Event),
}
