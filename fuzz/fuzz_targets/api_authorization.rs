//! `Authorization` headers, which anybody who reaches the port can send.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|header: &[u8]| {
    let _ = api::sigv4::parse_authorization(header);
});
