//! Messages of one connection.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| splengine_avro::fuzzing::handshake(bytes));
