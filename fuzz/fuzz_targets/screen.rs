//! Output of programs, as the screen of a terminal takes it in.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| splengine_core::fuzzing::screen(bytes));
