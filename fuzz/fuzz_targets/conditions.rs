//! Headers of conditional requests.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| splengine_http::fuzzing::conditions(bytes));
