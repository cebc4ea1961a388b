//! The host role: the only process that holds privilege. It makes sandboxes, starts runtimes, checkpoints and restores.
//!
//! It has one thread and one loop ([`role`]), because it forks. What takes longer than a restore (a checkpoint, the
//! making of a template) is done by a forked [`worker`] while the loop goes on. It speaks [`protocol`] with the API
//! role and ends, with everything that it made, when that channel closes.
//!
//! Deliberately absent: HTTP, functions, versions; waiting for function code.

pub mod inspect;
pub mod protocol;
pub mod role;

mod pool;
mod snapshot;
mod template;
mod watch;
mod worker;
