//! Sandboxes: the isolated, still empty places that environments run in.
//!
//! A sandbox is a pid-1 process of ours in PID, mount, network, IPC and UTS namespaces of its own, with a read-only root,
//! a group of limits and a listening Runtime API socket, waiting ready. [`SandboxMaker`] makes it, [`Sandbox`] steers
//! it, [`Reaper`] clears it away off the caller's path. Function code enters it either by [`Sandbox::exec`] or as a clone
//! that another process makes inside its namespaces ([`Sandbox::watch`]).
//!
//! Invariants, each with a test in `tests/`:
//! - **Function code has no privilege**: no capability, no way to gain one, a user that owns nothing of the host.
//! - **Function code sees nothing of the host** but the directories that its [`RootLayout`] names, read-only.
//! - **A sandbox dies with the host role**, by the kernel's hand, and a killed one leaves nothing.
//! - **The host role waits for our own init only, never for function code.**
//!
//! Deliberately absent: HTTP, functions, snapshots; and networks beyond loopback.

pub mod abilities;
pub mod cgroup;
mod error;
mod init;
pub mod layout;
mod leftovers;
mod maker;
mod reaper;
mod sandbox;
mod stage;
mod wire;

pub use abilities::{Finding, HostAbilities, Privilege};
pub use error::SandboxError;
pub use layout::{ClockOffsets, ExecSpec, Lease, LeaseGrant, RootBind, RootLayout};
pub use maker::{NotReady, SandboxMaker, Starting};
pub use reaper::Reaper;
pub use sandbox::{EnvironmentEnds, ExitReport, Running, Sandbox, ServerEnds};
pub use stage::Stage;
pub use wire::Exit;
