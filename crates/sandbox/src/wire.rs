//! What the host role and the first process of a sandbox say to each other: JSON packets with descriptors beside them.
//!
//! The host role asks and waits for the one reply; `Ready`, `Failed` and `Exited` come unasked. Nothing that function
//! code can write ever travels here: the other end is our own process, which function code can neither signal nor read.

use serde::{Deserialize, Serialize};

use crate::layout::{ClockOffsets, ExecSpec};
use crate::stage::Stage;

/// The largest packet in bytes. The largest content is a program with its environment, of which AWS Lambda allows
/// 4 KiB of variables.
pub const PACKET_BYTES_MAX: usize = 64 * 1024;

/// What the host role asks.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToInit {
    /// Add a version's files. Descriptors: the detached trees that are said to be there, in the order of the fields.
    Lease {
        /// Size of `/tmp` in MiB.
        tmp_mib: u32,
        /// Whether a tree for `/var/task` came along.
        task: bool,
        /// Whether a tree for `/opt` came along.
        opt: bool,
        /// Whether a tree to lie below `/tmp` came along.
        tmp_lower: bool,
        /// The clocks of the environment.
        clock: Option<ClockOffsets>,
    },
    /// Execute a program. Descriptors: its standard output, its standard error, then `cgroup.procs` files to join.
    Exec(ExecSpec),
    /// Report the end of this process, which init did not start itself (its number inside the sandbox).
    Watch {
        /// The process.
        pid: i32,
    },
    /// Make fresh connected pairs. The reply's descriptors: server's end and client's end of each.
    Connect {
        /// How many.
        count: u8,
    },
}

/// What init says.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromInit {
    /// The sandbox is whole. Descriptors: listener, the server's end and the client's end of the connection, read end of
    /// standard output, of standard error, write end of standard output, of standard error.
    Ready,
    /// A stage failed; init ends.
    Failed {
        /// Which.
        stage: Stage,
        /// What failed, on what.
        message: String,
    },
    /// Reply: done. With the descriptors that the request promises.
    Done,
    /// Reply: the program runs. Descriptor: its pidfd.
    Started {
        /// Its number inside the sandbox.
        pid: i32,
    },
    /// Reply: it did not work.
    Refused {
        /// What failed, on what.
        message: String,
    },
    /// The watched or executed process ended.
    Exited(Exit),
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// By `exit` with this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
}
