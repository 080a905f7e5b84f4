//! SFTP, version 3 (draft-ietf-secsh-filexfer-02), with the extensions that OpenSSH's clients use.

mod handles;
mod longname;
mod ops;
mod packet;
mod server;
mod status;
#[cfg(test)]
mod tests;

pub(crate) use ops::Options;
pub(crate) use server::{MAX_REQUESTS, MIN_REQUESTS, serve};

/// What must hold of any packet: for fuzzers.
#[cfg(any(fuzzing, test))]
pub(crate) fn look_at(packet: bytes::Bytes) {
    let read = packet::read_request(packet.clone());
    let Ok((id, request)) = &read else { return };
    assert_eq!(packet[1..5], id.to_be_bytes());
    // What follows the last member changes nothing.
    if request.is_ok() {
        let longer = [&packet[..], b"more"].concat();
        assert_eq!(packet::read_request(longer.into()), read);
    }
    // A client that begins with a request is no client.
    assert!(packet[0] == 1 || packet::read_init(packet).is_err());
}
