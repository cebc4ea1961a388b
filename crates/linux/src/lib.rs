//! Safe, typed wrappers over the Linux system calls that `rustix` does not wrap, and the home of `unsafe`.
//!
//! Each module wraps one family of calls and argues for its `unsafe` blocks where they stand. Deliberately absent:
//! policy. What is mounted where, what is dumped and in which order it is restored is decided by `sandbox` and
//! `engine`.

pub mod channel;
pub mod credential;
pub mod descriptor;
pub mod inject;
pub mod memory;
pub mod mount;
pub mod namespace;
pub mod process;
pub mod ptrace;
pub mod schedule;
pub mod signal;
pub mod socket;
pub mod socket_diag;
pub mod terminal;
