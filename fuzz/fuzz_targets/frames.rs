//! Frames of WebSocket clients.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| splengine_ws::fuzzing::frames(bytes));
