//! The manifest: what a snapshot consists of. **A snapshot exists when, and only when, its manifest has its
//! name.**
//!
//! ```text
//!  0  magic "RKSNAP\r\n"     8  version u32 = 1    12  envelope bytes u32    16  sealed body bytes u64
//! 24  blake3 of bytes 0..24 and of everything from 56 on
//! 56  envelope (protobuf, in the clear): snapshot, scope, name of the wrapping key, wrapped data key
//!     sealed body (protobuf): streams with their chunk ids, and the head
//! ```
//!
//! Integers are little-endian. The version is read before anything else is looked at. The plain hash tells
//! damage from a wrong key; it protects nothing. Protection is the seal: the wrapped key is bound to the
//! snapshot and the scope, the body to every byte from 0 to the envelope's end but the hash, so that a
//! manifest moved to another name or put together from two does not open.
//!
//! [`decode`] and [`Body::decode`] are pure and safe on any bytes: every size is checked before memory is
//! taken for it. Saved types ([`Envelope`], `SavedBody`) are not the running ones ([`Body`]).
//!
//! Deliberately absent: files, and what the head means.

use prost::Message;
use prost::encoding::{DecodeContext, decode_key, skip_field};

use crate::chunk::ChunkId;
use crate::error::LimitError;
use crate::keys::ScopeKeys;
use crate::limits::{
    BODY_BYTES_MAX, CHUNK_BYTES, ENVELOPE_BYTES_MAX, HEAD_BYTES_MAX, IMAGE_BYTES_MAX, STREAM_NAME_BYTES_MAX,
    STREAMS_MAX,
};
use crate::names::{Scope, SnapshotId};
use crate::seal::{self, KEY_BYTES, Key, NONCE_BYTES, TAG_BYTES};

/// Largest manifest in bytes.
pub const MANIFEST_BYTES_MAX: usize = START_BYTES + ENVELOPE_BYTES_MAX + BODY_BYTES_MAX + TAG_BYTES;

/// The version this program writes, and the only one it reads.
pub const VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"RKSNAP\r\n";
const HASHED_START_BYTES: usize = 24;
const START_BYTES: usize = 56;
const WRAPPED_KEY_BYTES: usize = NONCE_BYTES + KEY_BYTES + TAG_BYTES;
/// The data key seals one message in its life, so its nonce needs no choice.
const BODY_NONCE: [u8; NONCE_BYTES] = [0; NONCE_BYTES];

/// The clear part of a manifest. Field numbers are never used again for something else.
#[derive(Clone, PartialEq, Message)]
pub struct Envelope {
    /// The snapshot this manifest belongs to.
    #[prost(string, tag = "1")]
    pub snapshot: String,
    /// Its key scope.
    #[prost(string, tag = "2")]
    pub scope: String,
    /// Which key wrapped the data key, 16 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub key_name: Vec<u8>,
    /// Nonce, sealed data key, tag: 60 bytes.
    #[prost(bytes = "vec", tag = "4")]
    pub wrapped_key: Vec<u8>,
}

/// The sealed part as it is saved.
#[derive(Clone, PartialEq, Message)]
struct SavedBody {
    #[prost(bytes = "vec", tag = "1")]
    head: Vec<u8>,
    #[prost(message, repeated, tag = "2")]
    streams: Vec<SavedStream>,
}

#[derive(Clone, PartialEq, Message)]
struct SavedStream {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "2")]
    bytes: u64,
    /// Ids of the stream's chunks of [`CHUNK_BYTES`], 32 bytes each, the last chunk being what remains.
    #[prost(bytes = "vec", tag = "3")]
    chunks: Vec<u8>,
}

/// What a snapshot consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// The image description, opaque here.
    pub head: Vec<u8>,
    /// The byte streams; names are unique.
    pub streams: Vec<Stream>,
}

/// One byte stream of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// Its name, such as `pages`.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its chunks in order; exactly as many as its length needs.
    pub chunks: Vec<ChunkId>,
}

/// What is wrong with a manifest. Each reads on after "read snapshot x:".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Shorter, or longer, than it says.
    #[error("its manifest has {have} bytes instead of {want}: it was cut or overwritten")]
    Length {
        /// Its size in bytes.
        have: u64,
        /// What it should be.
        want: u64,
    },
    /// It does not start as a manifest does.
    #[error("its manifest is no manifest: the first bytes are wrong")]
    Foreign,
    /// A version of the format that this program cannot read.
    #[error("its manifest has format version {version}, and this program reads {VERSION}")]
    Version {
        /// What it says.
        version: u32,
    },
    /// A part is larger than any writer makes it.
    #[error("its manifest says that its {part} has {bytes} bytes, more than {bytes_max}")]
    TooLarge {
        /// Which part.
        part: &'static str,
        /// What it says.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// Damaged on the disk.
    #[error("its manifest is corrupt: the hash is wrong")]
    Corrupt,
    /// Undamaged, but not what a writer writes.
    #[error("its manifest is malformed: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
    /// The manifest of another snapshot lies under this one's name.
    #[error("its manifest was replaced by that of snapshot {found}")]
    OtherSnapshot {
        /// The other snapshot.
        found: String,
    },
    /// It was sealed under another key than the one at hand.
    #[error("it was sealed under another key of scope {scope}; put the right key file back")]
    WrongKey {
        /// The scope.
        scope: String,
    },
    /// It was changed by someone who knew to mend its hash.
    #[error("its manifest is forged: the content does not match its seal")]
    Forged,
}

/// A manifest whose clear part has been read.
#[derive(Debug, Clone, PartialEq)]
pub struct Sealed<'a> {
    /// The clear part.
    pub envelope: Envelope,
    /// What the body is bound to: the first 24 bytes and the envelope as it was saved.
    place: Vec<u8>,
    body: &'a [u8],
}

/// Reads the clear part of a manifest. Safe on any bytes.
///
/// # Errors
///
/// Everything that can be wrong with a manifest without a key.
pub fn decode(bytes: &[u8]) -> Result<Sealed<'_>, ManifestError> {
    let have = bytes.len() as u64;
    let Some((start, rest)) = bytes.split_first_chunk::<START_BYTES>() else {
        return Err(ManifestError::Length { have, want: START_BYTES as u64 });
    };
    if &start[..8] != MAGIC {
        return Err(ManifestError::Foreign);
    }
    let version = u32::from_le_bytes(array(&start[8..]));
    if version != VERSION {
        return Err(ManifestError::Version { version });
    }
    let envelope_bytes = u64::from(u32::from_le_bytes(array(&start[12..])));
    let body_bytes = u64::from_le_bytes(array(&start[16..]));
    within("envelope", envelope_bytes, ENVELOPE_BYTES_MAX)?;
    within("body", body_bytes, BODY_BYTES_MAX + TAG_BYTES)?;
    let want = START_BYTES as u64 + envelope_bytes + body_bytes;
    if have != want {
        return Err(ManifestError::Length { have, want });
    }
    let hashed_start = &start[..HASHED_START_BYTES];
    if blake3::Hasher::new().update(hashed_start).update(rest).finalize() != start[HASHED_START_BYTES..] {
        return Err(ManifestError::Corrupt);
    }
    let (envelope, body) = rest.split_at(envelope_bytes as usize);
    let place = [hashed_start, envelope].concat();
    let envelope = Envelope::decode(envelope).map_err(|_| malformed("the envelope is no protobuf"))?;
    Ok(Sealed { envelope, place, body })
}

impl Sealed<'_> {
    /// The key scope that the manifest says it belongs to, once it is known to be that of `snapshot`.
    ///
    /// # Errors
    ///
    /// The manifest belongs to another snapshot, or names no scope.
    pub fn scope(&self, snapshot: &SnapshotId) -> Result<Scope, ManifestError> {
        if self.envelope.snapshot != snapshot.as_str() {
            let found: SnapshotId =
                self.envelope.snapshot.parse().map_err(|_| malformed("it names no snapshot"))?;
            return Err(ManifestError::OtherSnapshot { found: found.to_string() });
        }
        self.envelope.scope.parse().map_err(|_| malformed("it names no key scope"))
    }

    /// Opens the sealed part with the keys of its scope.
    ///
    /// # Errors
    ///
    /// The keys are not the right ones, or the manifest was changed.
    pub fn open(&self, keys: &ScopeKeys) -> Result<Body, ManifestError> {
        let envelope = &self.envelope;
        if envelope.key_name != keys.name {
            return Err(ManifestError::WrongKey { scope: envelope.scope.clone() });
        }
        let wrapped: &[u8; WRAPPED_KEY_BYTES] = envelope
            .wrapped_key
            .as_slice()
            .try_into()
            .map_err(|_| malformed("its data key has the wrong length"))?;
        let data_key = unwrap_key(keys, &wrap_place(&envelope.snapshot, &envelope.scope), wrapped)?;
        let mut body = self.body.to_vec();
        let body =
            seal::open(&data_key, BODY_NONCE, &self.place, &mut body).map_err(|_| ManifestError::Forged)?;
        Body::decode(body)
    }
}

/// The whole manifest of a snapshot, ready to be written.
///
/// # Errors
///
/// The body is beyond a limit.
pub fn encode(
    snapshot: &SnapshotId,
    scope: &Scope,
    keys: &ScopeKeys,
    body: Body,
) -> Result<Vec<u8>, LimitError> {
    body.check()?;
    let data_key: Key = seal::random();
    let envelope = Envelope {
        snapshot: snapshot.to_string(),
        scope: scope.to_string(),
        key_name: keys.name.to_vec(),
        wrapped_key: wrap_key(keys, &wrap_place(snapshot.as_str(), scope.as_str()), &data_key),
    }
    .encode_to_vec();
    let body = body.save().encode_to_vec();
    let sealed_bytes = body.len() + TAG_BYTES;

    let mut place = MAGIC.to_vec();
    place.extend_from_slice(&VERSION.to_le_bytes());
    place.extend_from_slice(&(envelope.len() as u32).to_le_bytes());
    place.extend_from_slice(&(sealed_bytes as u64).to_le_bytes());
    place.extend_from_slice(&envelope);

    let mut bytes = Vec::with_capacity(START_BYTES + envelope.len() + sealed_bytes);
    bytes.extend_from_slice(&place[..HASHED_START_BYTES]);
    bytes.resize(START_BYTES, 0);
    bytes.extend_from_slice(&envelope);
    bytes.extend_from_slice(&body);
    seal::seal(&data_key, BODY_NONCE, &place, &mut bytes, START_BYTES + envelope.len());
    let hash =
        blake3::Hasher::new().update(&bytes[..HASHED_START_BYTES]).update(&bytes[START_BYTES..]).finalize();
    bytes[HASHED_START_BYTES..START_BYTES].copy_from_slice(hash.as_bytes());
    Ok(bytes)
}

impl Body {
    /// Reads the opened part of a manifest. Safe on any bytes.
    ///
    /// # Errors
    ///
    /// It is not what a writer writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        // An empty stream takes two bytes here and fifty in memory: count them before they are made.
        if count_streams(bytes).ok_or(malformed("the body is no protobuf"))? > STREAMS_MAX {
            return Err(malformed("it has too many streams"));
        }
        let saved = SavedBody::decode(bytes).map_err(|_| malformed("the body is no protobuf"))?;
        let streams = saved.streams.into_iter().map(Stream::load).collect::<Result<_, _>>()?;
        let body = Self { head: saved.head, streams };
        body.check().map_err(|_| malformed("it is beyond a limit"))?;
        Ok(body)
    }

    /// The stream of that name.
    pub fn stream(&self, name: &str) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.name == name)
    }

    /// Every stored chunk of the snapshot.
    pub fn chunks(&self) -> impl Iterator<Item = ChunkId> + '_ {
        self.streams.iter().flat_map(|stream| &stream.chunks).copied().filter(|&id| id != ChunkId::ZEROS)
    }

    fn check(&self) -> Result<(), LimitError> {
        if self.head.len() > HEAD_BYTES_MAX {
            return Err(LimitError::Head { bytes: self.head.len() });
        }
        if self.streams.len() > STREAMS_MAX {
            return Err(LimitError::Streams);
        }
        let mut bytes = 0u64;
        for (index, stream) in self.streams.iter().enumerate() {
            check_stream_name(&stream.name)?;
            if self.streams[..index].iter().any(|other| other.name == stream.name) {
                return Err(LimitError::Streams);
            }
            bytes = bytes.saturating_add(stream.bytes);
        }
        if bytes > IMAGE_BYTES_MAX {
            return Err(LimitError::Image);
        }
        Ok(())
    }

    fn save(self) -> SavedBody {
        let save_stream = |stream: Stream| SavedStream {
            name: stream.name,
            bytes: stream.bytes,
            chunks: stream.chunks.iter().flat_map(|id| id.0).collect(),
        };
        SavedBody { head: self.head, streams: self.streams.into_iter().map(save_stream).collect() }
    }
}

impl Stream {
    fn load(saved: SavedStream) -> Result<Self, ManifestError> {
        let ids = saved.chunks.chunks_exact(32);
        if !ids.remainder().is_empty() || ids.len() as u64 != saved.bytes.div_ceil(CHUNK_BYTES as u64) {
            return Err(malformed("a stream's length does not fit its chunks"));
        }
        Ok(Self { name: saved.name, bytes: saved.bytes, chunks: ids.map(|id| ChunkId(array(id))).collect() })
    }

    /// Clear bytes of the chunk at `index`.
    pub fn chunk_bytes(&self, index: usize) -> usize {
        let start = index as u64 * CHUNK_BYTES as u64;
        self.bytes.saturating_sub(start).min(CHUNK_BYTES as u64) as usize
    }
}

/// Whether a stream can have this name.
///
/// # Errors
///
/// It cannot.
pub fn check_stream_name(name: &str) -> Result<(), LimitError> {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    if name.is_empty() || name.len() > STREAM_NAME_BYTES_MAX || !name.bytes().all(allowed) {
        return Err(LimitError::StreamName { name: name.chars().take(STREAM_NAME_BYTES_MAX).collect() });
    }
    Ok(())
}

fn wrap_place(snapshot: &str, scope: &str) -> Vec<u8> {
    // A snapshot's name has no zero byte, so the pair cannot be read in two ways.
    [b"data key\0", snapshot.as_bytes(), b"\0", scope.as_bytes()].concat()
}

fn wrap_key(keys: &ScopeKeys, place: &[u8], data_key: &Key) -> Vec<u8> {
    let nonce: [u8; NONCE_BYTES] = seal::random();
    let mut wrapped = [&nonce[..], data_key].concat();
    seal::seal(&keys.wrap, nonce, place, &mut wrapped, NONCE_BYTES);
    wrapped
}

fn unwrap_key(
    keys: &ScopeKeys,
    place: &[u8],
    wrapped: &[u8; WRAPPED_KEY_BYTES],
) -> Result<Key, ManifestError> {
    let mut sealed = wrapped[NONCE_BYTES..].to_vec();
    let key =
        seal::open(&keys.wrap, array(wrapped), place, &mut sealed).map_err(|_| ManifestError::Forged)?;
    Ok(array(key))
}

fn count_streams(mut bytes: &[u8]) -> Option<usize> {
    let mut streams = 0;
    while !bytes.is_empty() {
        let (tag, wire_type) = decode_key(&mut bytes).ok()?;
        skip_field(wire_type, tag, &mut bytes, DecodeContext::default()).ok()?;
        streams += usize::from(tag == 2);
    }
    Some(streams)
}

fn within(part: &'static str, bytes: u64, bytes_max: usize) -> Result<(), ManifestError> {
    let bytes_max = bytes_max as u64;
    if bytes > bytes_max {
        return Err(ManifestError::TooLarge { part, bytes, bytes_max });
    }
    Ok(())
}

fn malformed(what: &'static str) -> ManifestError {
    ManifestError::Malformed { what }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    *bytes.first_chunk().expect("every caller has checked the length")
}

#[cfg(test)]
mod tests;
