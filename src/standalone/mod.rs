//! The process engine as a tool of its own: `rekindle checkpoint`, `rekindle restore`, `rekindle image`.
//!
//! It is for any tree of processes: a game server, a notebook kernel, a test database. A checkpoint is a [`folder`];
//! a restore makes one [`template`] of it and as many [`clones`](clone) as are asked for, each in a PID namespace of
//! its own, so that every process keeps its IDs however often it is restored. Beside that, a clone lives in the host
//! as the original did: same files, same network, same users.
//!
//! **Every process here that forks has one thread**: nothing in this module starts a thread before its last fork.
//! Deliberately absent: Lambda, the store, sandboxes, and control groups; a clone stays in the group of its starter.

mod authority;
mod checkpoint;
mod clone;
mod fit;
mod folder;
mod foreground;
mod init;
mod progress;
mod restore;
mod show;
mod streams;
mod subject;
mod template;
mod terminal;
mod worker;

pub use checkpoint::{CheckpointArguments, run as checkpoint};
pub use restore::{RestoreArguments, run as restore};
pub use show::{ImageCommand, run as image};
