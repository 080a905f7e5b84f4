//! What SFTP clients send.

#![no_main]

libfuzzer_sys::fuzz_target!(|stream: &[u8]| splengine_ssh::fuzzing::sftp(stream));
