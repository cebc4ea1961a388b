//! Round trips, damage and forgery of manifests, in memory.

use proptest::prelude::*;

use super::*;
use crate::keys::ScopeKeys;

fn keys(seed: u8) -> ScopeKeys {
    ScopeKeys { id: [seed; 32], seal: [seed + 1; 32], wrap: [seed + 2; 32], name: [seed; 16] }
}

fn id(text: &str) -> SnapshotId {
    text.parse().unwrap()
}

fn body(head: &[u8]) -> Body {
    let stream =
        Stream { name: "pages".into(), bytes: CHUNK_BYTES as u64 + 1, chunks: vec![ChunkId([9; 32]); 2] };
    Body { head: head.to_vec(), streams: vec![stream] }
}

fn open(bytes: &[u8], snapshot: &str, keys: &ScopeKeys) -> Result<Body, ManifestError> {
    let sealed = decode(bytes)?;
    sealed.scope(&id(snapshot))?;
    sealed.open(keys)
}

/// Mends the plain hash, as one who forges would.
fn mend(bytes: &mut [u8]) {
    let hash = blake3::Hasher::new().update(&bytes[..24]).update(&bytes[56..]).finalize();
    bytes[24..56].copy_from_slice(hash.as_bytes());
}

#[test]
fn what_was_encoded_opens_for_its_snapshot_and_key_only() {
    let bytes = encode(&id("a"), &Scope::local(), &keys(1), body(b"head")).unwrap();
    assert_eq!(open(&bytes, "a", &keys(1)).unwrap(), body(b"head"));
    assert_eq!(open(&bytes, "b", &keys(1)), Err(ManifestError::OtherSnapshot { found: "a".into() }));
    assert_eq!(open(&bytes, "a", &keys(2)), Err(ManifestError::WrongKey { scope: "local".into() }));
    let liar = ScopeKeys { name: [1; 16], ..keys(2) };
    assert_eq!(open(&bytes, "a", &liar), Err(ManifestError::Forged));
}

#[test]
fn every_changed_bit_and_every_cut_is_found_even_behind_a_mended_hash() {
    let bytes = encode(&id("a"), &Scope::local(), &keys(1), body(b"head")).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&bad).is_err(), "bit {bit}");
        mend(&mut bad);
        let hash_only = (24 * 8..56 * 8).contains(&bit);
        assert_eq!(open(&bad, "a", &keys(1)).is_ok(), hash_only, "bit {bit} behind a mended hash");
    }
    for len in 0..bytes.len() {
        assert!(matches!(decode(&bytes[..len]), Err(ManifestError::Length { .. })), "cut at {len}");
    }
}

#[test]
fn a_manifest_renamed_by_forging_its_envelope_does_not_open() {
    let bytes = encode(&id("a"), &Scope::local(), &keys(1), body(b"head")).unwrap();
    let mut forged = bytes.clone();
    assert_eq!(&forged[56..59], b"\x0a\x01a", "the envelope starts with the snapshot's name");
    forged[58] = b'b';
    mend(&mut forged);
    assert_eq!(open(&forged, "b", &keys(1)), Err(ManifestError::Forged));
}

#[test]
fn sizes_are_refused_before_memory_is_taken() {
    let mut bytes = encode(&id("a"), &Scope::local(), &keys(1), body(b"head")).unwrap();
    bytes[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(decode(&bytes), Err(ManifestError::TooLarge { part: "body", .. })));

    let many_streams = [0x12, 0x00].repeat(1_000_000);
    assert_eq!(Body::decode(&many_streams), Err(malformed("it has too many streams")));

    let long = Stream { name: "pages".into(), bytes: u64::MAX, chunks: Vec::new() };
    let saved = Body { head: Vec::new(), streams: vec![long] }.save().encode_to_vec();
    assert_eq!(Body::decode(&saved), Err(malformed("a stream's length does not fit its chunks")));

    let large = Body { head: vec![0; HEAD_BYTES_MAX + 1], streams: Vec::new() };
    assert!(matches!(encode(&id("a"), &Scope::local(), &keys(1), large), Err(LimitError::Head { .. })));
}

#[test]
fn the_largest_manifest_is_within_its_limit() {
    let chunks = vec![ChunkId([9; 32]); (IMAGE_BYTES_MAX / CHUNK_BYTES as u64) as usize];
    let stream = Stream { name: "x".repeat(STREAM_NAME_BYTES_MAX), bytes: IMAGE_BYTES_MAX, chunks };
    let body = Body { head: vec![7; HEAD_BYTES_MAX], streams: vec![stream] };
    let name = id(&"n".repeat(64));
    let scope: Scope = "s".repeat(2048).parse().unwrap();
    let bytes = encode(&name, &scope, &keys(1), body.clone()).unwrap();
    assert!(bytes.len() <= MANIFEST_BYTES_MAX);
    assert!(decode(&bytes).unwrap().open(&keys(1)).unwrap() == body);
}

proptest! {
    #[test]
    fn bodies_come_back(
        head in proptest::collection::vec(any::<u8>(), 0..500),
        sizes in proptest::collection::vec(0u64..2_000_000, 0..8),
    ) {
        let stream = |(index, &bytes): (usize, &u64)| Stream {
            name: format!("stream-{index}"),
            bytes,
            chunks: (0..bytes.div_ceil(CHUNK_BYTES as u64)).map(|n| ChunkId([n as u8; 32])).collect(),
        };
        let body = Body { head, streams: sizes.iter().enumerate().map(stream).collect() };
        let bytes = encode(&id("a"), &Scope::local(), &keys(1), body.clone()).unwrap();
        prop_assert_eq!(open(&bytes, "a", &keys(1)).unwrap(), body);
    }

    #[test]
    fn no_bytes_make_a_parser_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..300),
        dress in any::<bool>(),
    ) {
        let _ = Body::decode(&bytes);
        if dress && bytes.len() >= START_BYTES {
            bytes[..8].copy_from_slice(MAGIC);
            bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
            let envelope_bytes = (bytes.len() - START_BYTES) as u32;
            bytes[12..16].copy_from_slice(&envelope_bytes.to_le_bytes());
            bytes[16..24].fill(0);
            mend(&mut bytes);
        }
        let _ = decode(&bytes);
    }
}
