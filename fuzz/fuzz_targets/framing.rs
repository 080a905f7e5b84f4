//! Bytes as a connection brings them.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| splengine_avro::fuzzing::framing(bytes));
