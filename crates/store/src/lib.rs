//! The snapshot store: where snapshots lie durably, sealed, and once.
//!
//! A snapshot is a small *head* (opaque here: the engine's description of an image) and a few named byte
//! *streams* (memory pages, writable files). Streams are cut into chunks of 256 KiB; a chunk is named by a
//! keyed hash of its content, compressed, sealed, and stored once per key scope, so that the pages which
//! every environment of a runtime has in common take their place once. The *manifest* lists the chunks and
//! holds the head.
//!
//! ```text
//! <store>/format                     one line that says which format this is
//! <store>/manifests/<snapshot>       a snapshot exists when this file does
//! <store>/chunks/<2 hex>/<62 hex>    sealed chunks, named by content
//! <store>/writers/<uuid>/            what a living writer has made so far, locked by it
//! <store>/gate                       the lock between committing (shared) and collecting (exclusive)
//! <keys>/snapshots.key               the local master key, mode 0600
//! ```
//!
//! # Invariants
//!
//! 1. **The manifest is the commit.** It gets its name last, in one step, when everything it refers to is
//!    durable. A power cut, a kill or a full disk before that leaves no snapshot; after that, a whole one.
//! 2. **No manifest refers to a chunk that is not there.** A writer holds a link of its own to every chunk
//!    that it uses, so collecting cannot take one from it; committing puts the links in place with the gate
//!    held shared, and chunks are removed only with the gate held exclusively. Nothing depends on clocks or
//!    grace periods ([`Store::collect`]).
//! 3. **Bytes that come back are the bytes that were written, or an error that names the snapshot and the
//!    chunk.** Everything is authenticated, and bound to the place where it belongs.
//! 4. **A stored chunk is verified before a new snapshot relies on it**, and made anew when it is damaged: a
//!    torn file from a power cut, or a rotten sector, is never inherited.
//!
//! # Processes, threads, forks
//!
//! Any number of processes of one host may use one store at a time. Writers and bulk reads start threads; all
//! of them have ended when the call, or the drop of the [`Writer`], returns. **Do not fork while a [`Writer`]
//! lives** or another thread is inside the store: a child that keeps the writer's descriptors keeps its lock,
//! and what a killed writer left behind is then removed only when that child has ended too. (Nothing worse:
//! locks that stay too long delay collecting, they corrupt nothing.)
//!
//! Deliberately absent: processes and Lambda; remote tiers; keys from a key management service; a cache of
//! clear pages (the only place where pages are in the clear is the memory of a template).

pub mod chunk;
mod collect;
mod dir;
mod error;
mod keys;
pub mod limits;
pub mod manifest;
mod names;
mod pool;
mod reader;
mod seal;
mod store;
mod writer;

pub use collect::{Collected, Usage};
pub use error::{CollectError, FileError, LimitError, OpenError, ReadError, WriteError};
pub use names::{NameError, Scope, SnapshotId};
pub use reader::Reader;
pub use store::Store;
pub use writer::{Stored, StreamWriter, Writer};
