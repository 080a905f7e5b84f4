//! What SFTP clients send, served from a directory.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| splengine_ssh::fuzzing::sftp_server(bytes));
