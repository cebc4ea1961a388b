//! Every limit of the store, in one place; all of them are checked before memory is taken.
//!
//! Deliberately absent: a limit on the number of snapshots or on the size of the store as a whole. The disk
//! is that limit, and a full disk is an ordinary error of the writer.

/// Size of a chunk in bytes, before compression. The last chunk of a stream may be shorter.
///
/// 64 pages: small enough that one missing page costs a fraction of a millisecond to bring in and that equal
/// parts of two images are found to be equal, large enough that zstd finds its matches and a 1 GiB image is
/// 4096 files.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// Largest head of a snapshot in bytes.
pub const HEAD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Most streams in one snapshot.
pub const STREAMS_MAX: usize = 8;

/// Longest name of a stream in bytes.
pub const STREAM_NAME_BYTES_MAX: usize = 32;

/// Largest content of all streams of one snapshot together, in bytes: 64 GiB. Lambda's largest function has
/// 10 GiB of memory and 10 GiB of `/tmp`.
pub const IMAGE_BYTES_MAX: u64 = 64 << 30;

/// Longest identifier of a snapshot in bytes.
pub const SNAPSHOT_ID_BYTES_MAX: usize = 64;

/// Longest name of a key scope in bytes: the longest ARN of a KMS key.
pub const SCOPE_BYTES_MAX: usize = 2048;

/// Largest clear part of a manifest in bytes.
pub const ENVELOPE_BYTES_MAX: usize = 4096;

/// Largest sealed part of a manifest in bytes: the head, 32 bytes for each chunk, and names.
pub const BODY_BYTES_MAX: usize =
    HEAD_BYTES_MAX + (IMAGE_BYTES_MAX as usize / CHUNK_BYTES + STREAMS_MAX) * 32 + 4096;

/// Most threads that one writer or one bulk read starts.
pub const THREADS_MAX: usize = 8;
