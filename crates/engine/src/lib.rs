//! The process engine: checkpoints an initialized process and restores it many times, each time within milliseconds.
//!
//! A checkpoint ([`checkpoint`]) stops a process and writes its state down as an [`image`]. A [`plan`] turns the image into a flat
//! list of system calls. A [`template`] carries the plan out once, up to the point where a fork brings everything
//! back, and then forks itself into one sandbox after another.
//!
//! **The engine knows nothing of Lambda**, and nothing of where snapshots are kept.

pub mod abilities;
pub mod checkpoint;
pub mod image;
pub mod ops;
pub mod plan;
pub mod template;
pub mod write_set;
