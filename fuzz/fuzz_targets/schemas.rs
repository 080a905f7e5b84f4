//! Protocols of clients.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| splengine_avro::fuzzing::schemas(bytes));
