//! The stages in which the first process of a sandbox makes itself a sandbox, in the order in which they run.
//!
//! The order is the security argument, so it is one list that is walked, not a sequence of calls spread over files.
//! A stage that fails is reported by its name, and the sandbox is given up: there is no half-made sandbox.

use serde::{Deserialize, Serialize};

/// A stage of making a sandbox. `ALL` has them in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Die with the host role, block every signal, be unreadable for others.
    ///
    /// First, so that from here on neither an end of the host role nor a stray signal leaves a half-made sandbox.
    Guard,
    /// Where the host role has only one user: map it to the function's user in the fresh user namespace.
    ///
    /// Before anything that is checked against the credentials, which is all that follows.
    Identity,
    /// Take every mount out of its peer group.
    ///
    /// Before the first mount, so that nothing mounted below shows up on the host.
    Propagation,
    /// Mount an empty tmpfs to become the root, and stand in it.
    Root,
    /// Bind the system directories (`/usr` and its companions) read-only, nosuid, nodev.
    ///
    /// Before the runtime's binds, some of which may lie below them.
    System,
    /// Write or bind the few files of `/etc`. No other file of the host's `/etc` exists inside.
    Files,
    /// Make `/dev`: five harmless devices, the links to descriptors, `/dev/shm`, and a `/dev/sysgenid` of its own.
    Devices,
    /// Mount a `/proc` that shows a user only its own processes, with what tells of the host or steers it covered.
    ///
    /// Before the host's `/proc` is gone: in a user namespace the kernel only allows a new one beside a full one.
    Processes,
    /// Mount `/tmp`.
    Temporary,
    /// Bind the runtime's directories read-only and make the empty places for code and layers.
    Runtime,
    /// Make the new root the root, detach the host's, and make the root itself read-only.
    ///
    /// After everything that needs a path of the host; from here on none can be named any more.
    Pivot,
    /// Set the host name.
    HostName,
    /// Bring loopback up, listen for the Runtime API and make the connection that a restored environment goes on with.
    ///
    /// Loopback is the whole network of a sandbox. A link to the outside would be a stage of its own after this one.
    Network,
    /// Make the pipes of standard output and error.
    Logs,
    /// Hand every descriptor to the host role and keep none but the channel.
    ///
    /// Last: a sandbox that has announced itself is whole.
    Announce,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Self; 15] = [
        Self::Guard,
        Self::Identity,
        Self::Propagation,
        Self::Root,
        Self::System,
        Self::Files,
        Self::Devices,
        Self::Processes,
        Self::Temporary,
        Self::Runtime,
        Self::Pivot,
        Self::HostName,
        Self::Network,
        Self::Logs,
        Self::Announce,
    ];
}
