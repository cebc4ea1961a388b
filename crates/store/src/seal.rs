//! AES-256-GCM and randomness: the only file that calls the cryptographic library.
//!
//! **A key and a nonce never meet two messages.** There are three uses, each safe for its own reason: chunks
//! have a key derived from the chunk's id *and* a random nonce, so a key sees one message, or a handful when
//! an equal chunk is sealed again (another zstd version compresses it to other bytes); the body of a manifest
//! has a fresh random key, used once; wrapping uses one key per scope with random nonces, one per snapshot,
//! far from the 2^32 messages where random nonces of 96 bits become doubtful.
//!
//! Random bytes come from the kernel at each call. A generator kept in memory would repeat itself in a
//! process cloned from this one, and cloning processes is what this product does.
//!
//! Deliberately absent: wiping keys from memory. The process that holds them also holds the clear pages.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustix::rand::{GetRandomFlags, getrandom};

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 12;
/// Bytes that sealing adds.
pub const TAG_BYTES: usize = 16;

/// A key of AES-256-GCM.
pub type Key = [u8; KEY_BYTES];

/// What was opened is not what was sealed: changed, or sealed under another key, or for another place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unauthentic;

/// Encrypts `message[from..]` in place and appends the tag. `place` is authenticated with it: it says where
/// the message belongs.
pub fn seal(key: &Key, nonce: [u8; NONCE_BYTES], place: &[u8], message: &mut Vec<u8>, from: usize) {
    let tag = cipher(key)
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(place),
            &mut message[from..],
        )
        .expect("AES-256-GCM seals any message below 64 GiB, and ours are below 128 MiB");
    message.extend_from_slice(tag.as_ref());
}

/// Checks and decrypts a sealed message in place; gives the clear text, which lies at its start.
pub fn open<'a>(
    key: &Key,
    nonce: [u8; NONCE_BYTES],
    place: &[u8],
    sealed: &'a mut [u8],
) -> Result<&'a mut [u8], Unauthentic> {
    cipher(key)
        .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(place), sealed)
        .map_err(|_| Unauthentic)
}

/// Random bytes from the kernel.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0u8; N];
    let mut filled = 0;
    while filled < N {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("getrandom failed ({error}): without randomness nothing can be sealed"),
        }
    }
    bytes
}

fn cipher(key: &Key) -> LessSafeKey {
    let key = UnboundKey::new(&AES_256_GCM, key).expect("a key of 32 bytes fits AES-256-GCM");
    LessSafeKey::new(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_only_under_its_key_nonce_and_place() {
        let (key, other_key, nonce) = (random(), random(), random());
        let mut sealed = b"headclear text".to_vec();
        seal(&key, nonce, b"place", &mut sealed, 4);
        assert_eq!(sealed.len(), 14 + TAG_BYTES);
        let try_open =
            |key, nonce, place: &[u8]| open(key, nonce, place, &mut sealed.clone()[4..]).map(|b| b.to_vec());
        assert_eq!(try_open(&key, nonce, b"place").unwrap(), b"clear text");
        assert_eq!(try_open(&other_key, nonce, b"place"), Err(Unauthentic));
        assert_eq!(try_open(&key, random(), b"place"), Err(Unauthentic));
        assert_eq!(try_open(&key, nonce, b"other"), Err(Unauthentic));
    }
}
