//! Manifests of the snapshot store. The clear part is read from the bytes as they are; behind the hash, which no fuzzer
//! guesses, the sealed part is read from them too. What was read must be within its limits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use store::limits::{CHUNK_BYTES, HEAD_BYTES_MAX, IMAGE_BYTES_MAX, STREAMS_MAX};
use store::manifest::{Body, decode};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(sealed) = decode(bytes) {
        let snapshot = "fuzz".parse().expect("a good name");
        let _ = sealed.scope(&snapshot);
    }
    if let Ok(body) = Body::decode(bytes) {
        assert!(body.head.len() <= HEAD_BYTES_MAX && body.streams.len() <= STREAMS_MAX);
        assert!(body.streams.iter().map(|stream| stream.bytes).sum::<u64>() <= IMAGE_BYTES_MAX);
        for stream in &body.streams {
            let bytes: usize = (0..stream.chunks.len()).map(|index| stream.chunk_bytes(index)).sum();
            assert_eq!(bytes as u64, stream.bytes);
            assert!(stream.chunks.len() as u64 * CHUNK_BYTES as u64 >= stream.bytes);
        }
    }
});
