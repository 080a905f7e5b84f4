//! Files in OpenSSH's authorized_keys format.

#![no_main]

libfuzzer_sys::fuzz_target!(|file: &[u8]| splengine_ssh::fuzzing::authorized_keys(file));
