//! The life cycle of functions: publish, initialize, snapshot, restore, invoke, freeze, take down.
//!
//! No HTTP, no SQL, no `unsafe`.

pub mod code;
pub mod control;
pub mod fleet;
pub mod host_client;
pub mod invocation;
pub mod logs;
pub mod runtimes;
pub mod session;
pub mod version;
