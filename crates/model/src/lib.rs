//! The words of the platform as types: names, limits, errors, the function record and its life cycle.
//!
//! Everything here is a value or a rule. **Nothing in this crate does I/O, reads a clock or rolls a die**: time and
//! randomness come in as arguments, so every rule can be tested by calling it. Deliberately absent: HTTP (crate
//! `api`), SQL (crate `meta`), processes and snapshots themselves (crates `platform`, `engine`, `store`).

pub mod alias;
pub mod environment;
pub mod error;
pub mod function;
pub mod lifecycle;
pub mod limits;
pub mod names;
pub mod runtime;
pub mod settings;
pub mod snapshot;
pub mod validation;
pub mod warm_up;
