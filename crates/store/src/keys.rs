//! The local master key and everything derived from it.
//!
//! ```text
//! master key (a file, 32 random bytes)
//!   └─ per scope, by blake3's key derivation, one for each use:
//!        id key    chunk id = keyed hash of the clear chunk
//!        seal key  key of one chunk = keyed hash of its id
//!        wrap key  seals the random data key of each manifest
//! ```
//!
//! Ids are keyed so that they tell nothing: whoever sees the store cannot test whether it holds a known page,
//! and equal chunks of two scopes have different ids. The key of a chunk follows from its id, not from its
//! snapshot, because a chunk belongs to every snapshot of its scope that has the same pages. What is private
//! to a snapshot, its head and its list of chunks, is sealed under a data key of its own, and only that key
//! is wrapped: when a scope's key comes from a key management service later, the service sees 32 bytes per
//! snapshot.
//!
//! Deliberately absent: rotation, and any key that is not local.

use std::path::Path;

use crate::dir::Dir;
use crate::error::OpenError;
use crate::names::Scope;
use crate::seal::{self, KEY_BYTES, Key};

/// File name of the master key in the key directory.
pub const KEY_FILE: &str = "snapshots.key";

const KEY_MAGIC: &[u8; 8] = b"RKKEY\0\0\x01";
const KEY_CHECK_BYTES: usize = 8;
const KEY_FILE_BYTES: usize = KEY_MAGIC.len() + KEY_BYTES + KEY_CHECK_BYTES;

const ID_CONTEXT: &str = "rekindle store v1 chunk id";
const SEAL_CONTEXT: &str = "rekindle store v1 chunk seal";
const WRAP_CONTEXT: &str = "rekindle store v1 data key wrap";
const NAME_CONTEXT: &str = "rekindle store v1 key name";

/// Names a wrapping key without telling anything about it.
pub type KeyName = [u8; 16];

/// The key from which all others follow.
pub struct MasterKey(Key);

impl MasterKey {
    /// Reads the master key, or makes it durably if there is none and `may_make`.
    pub fn open(key_dir: &Path, store: &Path, may_make: bool) -> Result<Self, OpenError> {
        let dir = Dir::make(key_dir)?;
        let path = key_dir.join(KEY_FILE);
        let mut bytes = Vec::new();
        if dir.read(KEY_FILE, KEY_FILE_BYTES, &mut bytes)?.is_none() {
            if !may_make {
                return Err(OpenError::KeyMissing { key: path, store: store.into() });
            }
            make(&dir)?;
            if dir.read(KEY_FILE, KEY_FILE_BYTES, &mut bytes)?.is_none() {
                return Err(OpenError::KeyMissing { key: path, store: store.into() });
            }
        }
        let mode = dir.mode(KEY_FILE)?;
        if mode & 0o077 != 0 {
            return Err(OpenError::KeyExposed { key: path, mode });
        }
        parse(&bytes).map(Self).ok_or(OpenError::KeyMalformed { key: path })
    }

    /// The keys of one scope.
    pub fn scope(&self, scope: &Scope) -> ScopeKeys {
        let material = [&self.0[..], scope.as_str().as_bytes()].concat();
        let wrap = blake3::derive_key(WRAP_CONTEXT, &material);
        let mut name = KeyName::default();
        name.copy_from_slice(&blake3::derive_key(NAME_CONTEXT, &wrap)[..16]);
        ScopeKeys {
            id: blake3::derive_key(ID_CONTEXT, &material),
            seal: blake3::derive_key(SEAL_CONTEXT, &material),
            wrap,
            name,
        }
    }
}

/// The keys of one scope.
#[derive(Clone)]
pub struct ScopeKeys {
    /// Makes ids of chunks.
    pub id: Key,
    /// Makes the keys of chunks.
    pub seal: Key,
    /// Seals data keys.
    pub wrap: Key,
    /// Names the wrapping key.
    pub name: KeyName,
}

/// Of several processes that start at once, one gives the key its name; the others use it.
fn make(dir: &Dir) -> Result<(), OpenError> {
    let key: Key = seal::random();
    let temporary = format!("{KEY_FILE}.{}", uuid::Uuid::new_v4().simple());
    let linked = dir
        .write_new_synced(&temporary, &format_key(&key))
        .and_then(|()| dir.link(&temporary, dir, KEY_FILE).map(drop))
        .and_then(|()| dir.sync());
    dir.remove(&temporary)?;
    Ok(linked?)
}

fn format_key(key: &Key) -> Vec<u8> {
    let mut bytes = [&KEY_MAGIC[..], key].concat();
    let check = blake3::hash(&bytes);
    bytes.extend_from_slice(&check.as_bytes()[..KEY_CHECK_BYTES]);
    bytes
}

fn parse(bytes: &[u8]) -> Option<Key> {
    let key: Key = bytes.strip_prefix(KEY_MAGIC)?.get(..KEY_BYTES)?.try_into().ok()?;
    (format_key(&key) == bytes).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_refused_when_one_bit_of_it_is_wrong() {
        let bytes = format_key(&[7; KEY_BYTES]);
        assert_eq!(parse(&bytes), Some([7; KEY_BYTES]));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse(&bad), None, "bit {bit}");
        }
        assert_eq!(parse(&bytes[..bytes.len() - 1]), None);
    }

    #[test]
    fn scopes_share_no_key() {
        let master = MasterKey([1; KEY_BYTES]);
        let (a, b) = (master.scope(&Scope::local()), master.scope(&"other".parse().unwrap()));
        let all = [a.id, a.seal, a.wrap, b.id, b.seal, b.wrap];
        for (i, x) in all.iter().enumerate() {
            assert!(all[..i].iter().all(|y| x != y));
        }
    }
}
