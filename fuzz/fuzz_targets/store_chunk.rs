//! Headers of chunks of the snapshot store: whatever the bytes, an error or a header.
#![no_main]

use libfuzzer_sys::fuzz_target;
use store::chunk::Header;

fuzz_target!(|bytes: &[u8]| {
    let _ = Header::decode(bytes);
});
