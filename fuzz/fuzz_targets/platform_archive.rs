//! Code packages that a caller uploads: whatever the zip, a list of entries that all lie below the task directory, or an
//! error.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|zip: &[u8]| {
    let _ = platform::code::check_archive(zip);
});
