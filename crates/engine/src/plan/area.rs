//! Where the engine's own memory lies in the address space of a template, and how its room is divided.
//!
//! One block of private memory: code, context, stacks, words to wait on, data, operations. Behind it, in the same
//! hole, lies the stash ([`super::stash`]). The block stays in every clone: a thread cannot unmap the code that it
//! leaves by `rt_sigreturn`. The stash does not stay.

use super::template::USER_END;
use crate::image::Image;
use crate::ops::{Context, Op};

/// Room for the interpreter's code, in bytes.
pub const CODE_BYTES: u64 = 16 * 1024;
const CONTEXT_BYTES: u64 = 4096;
const STACK_BYTES: u64 = 16 * 1024;

/// Bytes of a `struct iovec`.
pub const VECTOR_BYTES: u64 = 16;
/// Ranges that one call takes (`UIO_MAXIOV`).
pub const WRITE_SET_RANGES_PER_CALL: u64 = 1024;
/// Calls that populate the write set.
pub const WRITE_SET_CALLS: u64 = 4;
/// Ranges of a write set at most.
pub const WRITE_SET_RANGES: u64 = WRITE_SET_CALLS * WRITE_SET_RANGES_PER_CALL;

/// Where the search for a hole begins: far from where the kernel puts programs, heaps, libraries and stacks.
pub const LOWEST: u64 = 0x2000_0000_0000;
const HIGHEST: u64 = 0x5000_0000_0000;
const STEP: u64 = 1 << 30;
/// Free space around the hole, so that no mapping of the function grows into it.
const MARGIN: u64 = 1 << 28;
/// Room for the block; the stash begins behind it.
pub const BLOCK_BYTES_MAX: u64 = 1 << 28;

/// The division of the hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// First byte of the block: the interpreter's entry.
    pub start: u64,
    stash_bytes: u64,
    threads: u64,
}

impl Area {
    /// A block for `image` at `start`, with a stash of `stash_bytes` behind it.
    #[must_use]
    pub fn at(start: u64, image: &Image, stash_bytes: u64) -> Self {
        let threads = image.processes.iter().map(|process| process.threads.len()).max().unwrap_or(0);
        Self { start, stash_bytes, threads: threads as u64 }
    }

    /// The interpreter's [`Context`].
    #[must_use]
    pub fn context(&self) -> u64 {
        self.start + CODE_BYTES
    }

    /// Where the value of a slot stands.
    #[must_use]
    pub fn slot(&self, slot: u32) -> u64 {
        self.context() + std::mem::offset_of!(Context, slots) as u64 + 8 * u64::from(slot)
    }

    /// A word that counts the threads that wait for their release.
    #[must_use]
    pub fn ready_word(&self) -> u64 {
        self.context() + size_of::<Context>() as u64
    }

    /// A word that turns to one when the threads may go.
    #[must_use]
    pub fn release_word(&self) -> u64 {
        self.ready_word() + 64
    }

    /// End of the stack that the template runs on.
    #[must_use]
    pub fn stack_end(&self) -> u64 {
        self.context() + CONTEXT_BYTES + STACK_BYTES
    }

    /// Start and length of the stack of child `index`: zero for the go-between and the processes that it starts, then
    /// one for each thread but the main one.
    #[must_use]
    pub fn child_stack(&self, index: u64) -> (u64, u64) {
        (self.stack_end() + index * STACK_BYTES, STACK_BYTES)
    }

    /// First byte of the write set: up to [`WRITE_SET_RANGES`] address ranges as `struct iovec`.
    #[must_use]
    pub fn write_set(&self) -> u64 {
        self.child_stack(self.threads.max(1)).0
    }

    /// First byte of the data.
    #[must_use]
    pub fn data(&self) -> u64 {
        self.write_set() + WRITE_SET_RANGES * VECTOR_BYTES
    }

    /// First operation, behind `data_bytes` of data.
    #[must_use]
    pub fn ops(&self, data_bytes: usize) -> u64 {
        (self.data() + data_bytes as u64).next_multiple_of(64)
    }

    /// First byte of the stash, a multiple of a huge page.
    #[must_use]
    pub fn stash(&self) -> u64 {
        self.start + BLOCK_BYTES_MAX
    }

    /// First byte behind everything of the engine's.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.stash() + self.stash_bytes
    }

    /// Whether a block with this much data and so many operations fits.
    #[must_use]
    pub fn holds(&self, data_bytes: usize, ops: usize) -> bool {
        self.ops(data_bytes) + (ops * size_of::<Op>()) as u64 <= self.stash()
    }
}

/// Start of a hole for a block and a stash of `stash_bytes` that neither the image nor the loading process uses.
#[must_use]
pub fn find_hole(image: &Image, occupied: &[(u64, u64)], stash_bytes: u64) -> Option<u64> {
    let bytes = BLOCK_BYTES_MAX.checked_add(stash_bytes)?;
    let mut taken: Vec<(u64, u64)> = image
        .processes
        .iter()
        .flat_map(|process| &process.mappings)
        .map(|mapping| (mapping.start, mapping.end))
        .chain(occupied.iter().copied())
        .collect();
    taken.sort_unstable();
    let mut start = LOWEST;
    for (from, to) in taken {
        if from >= start.checked_add(bytes)?.checked_add(MARGIN)? {
            break;
        }
        if to > start - MARGIN {
            start = to.checked_add(MARGIN)?.next_multiple_of(STEP);
        }
    }
    (start < HIGHEST && start.checked_add(bytes)? < USER_END).then_some(start)
}
