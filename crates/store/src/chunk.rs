//! One chunk: its id, and its file.
//!
//! ```text
//! 0  magic "RKCH"        4  version u8 = 1     5  coding u8 (0 as it is, 1 zstd)     6  zero u16
//! 8  clear bytes u32    12  sealed bytes u32   16  chunk id, 32 bytes   48  nonce, 12 bytes   60  zero u32
//! 64 the sealed bytes: the coded chunk and its tag; the 64 bytes before are authenticated with it
//! ```
//!
//! Integers are little-endian. The key follows from the id (`keys.rs`) and the id is in the header, so **a
//! chunk that opens is the chunk that was asked for**: one that was swapped, moved between scopes, cut or
//! changed does not open. The clear bytes are therefore not hashed a second time when they are read.
//!
//! The size of a compressed chunk shows how well it compresses, as in every store that compresses before it
//! seals.
//!
//! Deliberately absent: files. This is bytes in, bytes out.

use std::fmt;
use std::io;

use crate::error::FileError;
use crate::keys::ScopeKeys;
use crate::limits::CHUNK_BYTES;
use crate::seal::{self, Key, NONCE_BYTES, TAG_BYTES};

/// Bytes before the sealed part.
pub const HEADER_BYTES: usize = 64;
/// Largest file of a chunk.
pub const FILE_BYTES_MAX: usize = HEADER_BYTES + CHUNK_BYTES + TAG_BYTES;

const MAGIC: &[u8; 4] = b"RKCH";
const VERSION: u8 = 1;
const AS_IT_IS: u8 = 0;
const ZSTD: u8 = 1;
/// The fastest level of zstd that still has an entropy stage: pages of a heap shrink to a third, and a core
/// writes hundreds of MiB per second.
const ZSTD_LEVEL: i32 = 1;

/// The name of a chunk: a keyed hash of its clear bytes. All zero stands for a chunk of zeros, which is not
/// stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkId(pub [u8; 32]);

impl ChunkId {
    /// Stands for a chunk of zeros.
    pub const ZEROS: Self = Self([0; 32]);

    /// The id of these bytes in a scope.
    pub fn of(keys: &ScopeKeys, clear: &[u8]) -> Self {
        Self(*blake3::keyed_hash(&keys.id, clear).as_bytes())
    }

    /// The chunk's file below the directory of chunks: a directory of two letters, and the rest.
    pub fn path(&self) -> String {
        let mut path = self.to_string();
        path.insert(2, '/');
        path
    }

    /// The chunk that has this directory and file name.
    pub fn from_path(dir: &str, name: &str) -> Option<Self> {
        let hex = [dir.as_bytes(), name.as_bytes()].concat();
        if hex.len() != 64 || dir.len() != 2 {
            return None;
        }
        let mut id = [0; 32];
        for (byte, pair) in id.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
        }
        Some(Self(id))
    }
}

impl fmt::Display for ChunkId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// Why a chunk is not usable. Each reads on after "chunk 3f2a…".
#[derive(Debug, thiserror::Error)]
pub enum ChunkError {
    /// There is no file.
    #[error("is missing")]
    Missing,
    /// The file is shorter, or longer, than it says.
    #[error("has {have} bytes instead of {want}: it was cut or overwritten")]
    Length {
        /// Its size in bytes.
        have: usize,
        /// What it should be.
        want: usize,
    },
    /// The file does not start as a chunk does.
    #[error("is not a chunk: its first bytes are wrong")]
    Foreign,
    /// A later version of the format.
    #[error("has format version {version}, and this program reads {VERSION}")]
    Version {
        /// What it says.
        version: u8,
    },
    /// The header holds what no writer writes.
    #[error("is corrupt: its header makes no sense")]
    Header,
    /// The file of another chunk.
    #[error("was replaced by another chunk, {found}")]
    Swapped {
        /// The other chunk.
        found: ChunkId,
    },
    /// The content was changed, or belongs to another key.
    #[error("is corrupt: its content does not match its seal")]
    Corrupt,
    /// It opens, but holds another number of bytes than the manifest says.
    #[error("holds {have} bytes where {want} belong")]
    ClearLength {
        /// What it holds.
        have: usize,
        /// What the manifest says.
        want: usize,
    },
    /// It opens, but does not decompress.
    #[error("is corrupt: it does not decompress ({0})")]
    Decompress(io::Error),
    /// It could not be read.
    #[error("cannot be read: {0}")]
    File(#[from] FileError),
}

/// Seals chunks; keeps its buffers between them.
pub struct Encoder {
    keys: ScopeKeys,
    zstd: zstd::bulk::Compressor<'static>,
    file: Vec<u8>,
}

impl Encoder {
    /// An encoder for chunks of one scope.
    pub fn new(keys: ScopeKeys) -> io::Result<Self> {
        Ok(Self {
            keys,
            zstd: zstd::bulk::Compressor::new(ZSTD_LEVEL)?,
            file: Vec::with_capacity(FILE_BYTES_MAX),
        })
    }

    /// The file of a chunk of at most [`CHUNK_BYTES`].
    pub fn encode(&mut self, id: ChunkId, clear: &[u8]) -> io::Result<&[u8]> {
        debug_assert!(clear.len() <= CHUNK_BYTES);
        let file = &mut self.file;
        file.clear();
        file.resize(HEADER_BYTES + zstd::zstd_safe::compress_bound(clear.len()), 0);
        let mut coding = ZSTD;
        let mut coded = self.zstd.compress_to_buffer(clear, &mut file[HEADER_BYTES..])?;
        // Decompressing for the sake of a few bytes is not worth its time.
        if coded >= clear.len() - clear.len() / 32 {
            coding = AS_IT_IS;
            coded = clear.len();
            file[HEADER_BYTES..][..coded].copy_from_slice(clear);
        }
        file.truncate(HEADER_BYTES + coded);
        let nonce = seal::random();
        let sealed = coded + TAG_BYTES;
        let header = Header { coding, clear: clear.len(), sealed, id, nonce }.encode();
        file[..HEADER_BYTES].copy_from_slice(&header);
        seal::seal(&chunk_key(&self.keys, id), nonce, &header, file, HEADER_BYTES);
        Ok(file)
    }
}

/// Opens chunks; keeps its buffers between them.
pub struct Decoder {
    keys: ScopeKeys,
    zstd: zstd::bulk::Decompressor<'static>,
}

impl Decoder {
    /// A decoder for chunks of one scope.
    pub fn new(keys: ScopeKeys) -> io::Result<Self> {
        Ok(Self { keys, zstd: zstd::bulk::Decompressor::new()? })
    }

    /// Opens the file of chunk `id` (overwriting it in memory) into `clear`, which it must fill exactly.
    pub fn decode(&mut self, id: ChunkId, file: &mut [u8], clear: &mut [u8]) -> Result<(), ChunkError> {
        let (header, coded) = self.open(id, file)?;
        if header.clear != clear.len() {
            return Err(ChunkError::ClearLength { have: header.clear, want: clear.len() });
        }
        if header.coding == AS_IT_IS {
            clear.copy_from_slice(coded);
            return Ok(());
        }
        let have = self.zstd.decompress_to_buffer(coded, clear).map_err(ChunkError::Decompress)?;
        match have == clear.len() {
            true => Ok(()),
            false => Err(ChunkError::ClearLength { have, want: clear.len() }),
        }
    }

    /// Whether `file` (overwritten in memory) is a sound file of chunk `id`. Its tag says so; it is not
    /// decompressed.
    pub fn verify(&mut self, id: ChunkId, file: &mut [u8]) -> Result<(), ChunkError> {
        self.open(id, file).map(drop)
    }

    fn open<'a>(&self, id: ChunkId, file: &'a mut [u8]) -> Result<(Header, &'a [u8]), ChunkError> {
        let header = Header::decode(file)?;
        if header.id != id {
            return Err(ChunkError::Swapped { found: header.id });
        }
        let (place, sealed) = file.split_at_mut(HEADER_BYTES);
        let coded = seal::open(&chunk_key(&self.keys, id), header.nonce, place, sealed);
        let coded = coded.map_err(|_| ChunkError::Corrupt)?;
        if header.coding == AS_IT_IS && coded.len() != header.clear {
            return Err(ChunkError::ClearLength { have: coded.len(), want: header.clear });
        }
        Ok((header, coded))
    }
}

/// What the first [`HEADER_BYTES`] of a chunk's file say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    coding: u8,
    clear: usize,
    sealed: usize,
    id: ChunkId,
    nonce: [u8; NONCE_BYTES],
}

impl Header {
    /// Reads the header of a whole file. Safe on any bytes.
    ///
    /// # Errors
    ///
    /// Everything that can be wrong with a chunk without looking into it.
    pub fn decode(file: &[u8]) -> Result<Self, ChunkError> {
        let Some((bytes, sealed)) = file.split_first_chunk::<HEADER_BYTES>() else {
            return Err(ChunkError::Length { have: file.len(), want: HEADER_BYTES });
        };
        if &bytes[..4] != MAGIC {
            return Err(ChunkError::Foreign);
        }
        if bytes[4] != VERSION {
            return Err(ChunkError::Version { version: bytes[4] });
        }
        let number = |at: usize| u32::from_le_bytes(array(&bytes[at..])) as usize;
        let header = Self {
            coding: bytes[5],
            clear: number(8),
            sealed: number(12),
            id: ChunkId(array(&bytes[16..])),
            nonce: array(&bytes[48..]),
        };
        if sealed.len() != header.sealed {
            return Err(ChunkError::Length { have: file.len(), want: HEADER_BYTES + header.sealed });
        }
        match header.encode() == *bytes && header.makes_sense() {
            true => Ok(header),
            false => Err(ChunkError::Header),
        }
    }

    fn makes_sense(&self) -> bool {
        let coding = self.coding == AS_IT_IS || self.coding == ZSTD;
        coding
            && self.clear <= CHUNK_BYTES
            && self.sealed >= TAG_BYTES
            && self.sealed <= CHUNK_BYTES + TAG_BYTES
    }

    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(MAGIC);
        bytes[4] = VERSION;
        bytes[5] = self.coding;
        bytes[8..12].copy_from_slice(&(self.clear as u32).to_le_bytes());
        bytes[12..16].copy_from_slice(&(self.sealed as u32).to_le_bytes());
        bytes[16..48].copy_from_slice(&self.id.0);
        bytes[48..60].copy_from_slice(&self.nonce);
        bytes
    }
}

fn chunk_key(keys: &ScopeKeys, id: ChunkId) -> Key {
    *blake3::keyed_hash(&keys.seal, &id.0).as_bytes()
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    *bytes.first_chunk().expect("the header is longer than every field's end")
}

fn hex_digit(letter: u8) -> Option<u8> {
    match letter {
        b'0'..=b'9' => Some(letter - b'0'),
        b'a'..=b'f' => Some(letter - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> ScopeKeys {
        ScopeKeys { id: [1; 32], seal: [2; 32], wrap: [3; 32], name: [4; 16] }
    }

    fn encode(clear: &[u8]) -> (ChunkId, Vec<u8>) {
        let id = ChunkId::of(&keys(), clear);
        (id, Encoder::new(keys()).unwrap().encode(id, clear).unwrap().to_vec())
    }

    fn decode(id: ChunkId, file: &[u8], bytes: usize) -> Result<Vec<u8>, ChunkError> {
        let mut clear = vec![0; bytes];
        Decoder::new(keys()).unwrap().decode(id, &mut file.to_vec(), &mut clear).map(|()| clear)
    }

    #[test]
    fn every_changed_bit_and_every_cut_is_found() {
        let clear = b"some text that compresses, text that compresses, text that compresses".as_slice();
        let (id, file) = encode(clear);
        assert_eq!(decode(id, &file, clear.len()).unwrap(), clear);
        for bit in 0..file.len() * 8 {
            let mut bad = file.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(id, &bad, clear.len()).is_err(), "bit {bit}");
        }
        for len in 0..file.len() {
            assert!(
                matches!(decode(id, &file[..len], clear.len()), Err(ChunkError::Length { .. })),
                "cut at {len}"
            );
        }
    }

    #[test]
    fn a_chunk_does_not_open_as_another_or_at_another_length() {
        let (a, file_a) = encode(&[1; 5000]);
        let (b, _) = encode(&[2; 5000]);
        assert!(matches!(decode(b, &file_a, 5000), Err(ChunkError::Swapped { found }) if found == a));
        let mut relabeled = file_a.clone();
        relabeled[16..48].copy_from_slice(&b.0);
        assert!(matches!(decode(b, &relabeled, 5000), Err(ChunkError::Corrupt)));
        assert!(matches!(decode(a, &file_a, 4999), Err(ChunkError::ClearLength { have: 5000, want: 4999 })));
    }

    #[test]
    fn an_id_has_a_file_name_and_back() {
        let (id, _) = encode(b"x");
        let path = id.path();
        let (dir, name) = path.split_once('/').unwrap();
        assert_eq!(ChunkId::from_path(dir, name), Some(id));
        assert_eq!(ChunkId::from_path(dir, &name[1..]), None);
        assert_eq!(ChunkId::from_path("é", name), None);
    }

    proptest! {
        #[test]
        fn bytes_come_back(clear in proptest::collection::vec(any::<u8>(), 0..10_000), repeat in 1usize..20) {
            let clear = clear.repeat(repeat);
            let (id, file) = encode(&clear);
            prop_assert_eq!(decode(id, &file, clear.len()).unwrap(), clear);
        }

        #[test]
        fn no_bytes_make_the_header_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Header::decode(&bytes);
        }
    }
}
