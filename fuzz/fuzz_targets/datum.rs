//! Records in Avro's binary encoding.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| splengine_avro::fuzzing::datum(bytes));
