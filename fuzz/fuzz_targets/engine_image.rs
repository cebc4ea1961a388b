//! Image descriptions of the process engine, as they come out of the head of a snapshot: whatever the bytes, an error or
//! an image; and whatever the image, a plan of bounded size or an error.
#![no_main]

use engine::plan::{HostFacts, plan};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(image) = engine::image::decode(bytes) {
        let _ = plan(&image, &HostFacts::default());
    }
});
