//! Where the interpreter lies in the address space of a template, and how its room is divided.
//!
//! One block of private memory: code, context, stacks, words to wait on, data, operations; and in front of it a
//! scratch range where copies of shared mappings are made before they are moved to their places. The block stays in
//! every clone: a thread cannot unmap the code that it leaves by `rt_sigreturn`.

use crate::image::{Backing, Image};
use crate::ops::{Context, Op};

/// Room for the interpreter's code, in bytes.
pub const CODE_BYTES: u64 = 16 * 1024;
const CONTEXT_BYTES: u64 = 4096;
const STACK_BYTES: u64 = 16 * 1024;
const PAGE: u64 = 4096;

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
/// Free space around the block, so that no mapping of the function grows into it.
const MARGIN: u64 = 1 << 28;

/// The division of the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// First byte of the scratch range.
    pub scratch: u64,
    /// Bytes of the scratch range: as long as the longest shared mapping.
    pub scratch_bytes: u64,
    /// First byte of the block: the interpreter's entry.
    pub start: u64,
    threads: u64,
}

impl Area {
    /// The block for `image` with its scratch range at `address`.
    #[must_use]
    pub fn at(address: u64, image: &Image) -> Self {
        let shared = image.mappings.iter().filter(|mapping| mapping.backing() == Backing::SharedAnonymous);
        let scratch_bytes = shared.map(|mapping| mapping.end - mapping.start).max().unwrap_or(0);
        Self {
            scratch: address,
            scratch_bytes,
            start: address + scratch_bytes,
            threads: image.threads.len() as u64,
        }
    }

    /// The interpreter's [`Context`].
    #[must_use]
    pub fn context(&self) -> u64 {
        self.start + CODE_BYTES
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

    /// Start and length of the stack of child `index`: zero for the process between template and clone, then one for
    /// each thread but the main one.
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

    /// Bytes of scratch range and block together.
    #[must_use]
    pub fn bytes(&self, data_bytes: usize, ops: usize) -> u64 {
        (self.ops(data_bytes) + (ops * size_of::<Op>()) as u64).next_multiple_of(PAGE) - self.scratch
    }
}

/// A hole of `bytes` that neither the image nor the loading process uses.
#[must_use]
pub fn find_hole(image: &Image, occupied: &[(u64, u64)], bytes: u64) -> Option<u64> {
    let taken = || {
        let mappings = image.mappings.iter().map(|mapping| (mapping.start, mapping.end));
        mappings.chain(occupied.iter().copied())
    };
    (LOWEST..HIGHEST).step_by(STEP as usize).find(|&start| {
        let (from, to) = (start - MARGIN, start + bytes + MARGIN);
        taken().all(|(used_from, used_to)| used_to <= from || used_from >= to)
    })
}
