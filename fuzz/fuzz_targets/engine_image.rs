//! Image descriptions of the process engine, as they come out of the head of a snapshot.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = engine::image::decode(bytes);
});
