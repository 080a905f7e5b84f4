use super::*;
use crate::users::testing::{Dir, key, text};

#[test]
fn revoked_keys_are_keys_or_fingerprints() {
    let dir = Dir::new();
    let (one, other) = (key(), key());
    let fingerprint = other.fingerprint(HashAlg::Sha256);
    let file = format!("# gone\n{} once\n{fingerprint} of b\n", text(&one));
    let revoked = revoked_keys(&dir.write("r", &file)).expect("well-formed");
    assert_eq!(revoked, [one.fingerprint(HashAlg::Sha256), fingerprint].into());
    for bad in
        ["SHA256:x", "MD5:00:11", "ssh-ed25519", "SSHKRL\n", &format!("no-pty {}", text(&one))]
    {
        let error = revoked_keys(&dir.write("r", bad)).expect_err(bad).to_string();
        assert!(error.contains("/r`, line 1: it is neither"), "{error}");
    }
}

#[test]
fn the_keys_of_authorities_stand_alone() {
    let one = text(&key());
    let file = format!("{one}\ncert-authority {one}\nssh-ed25519 x\n");
    let read: Vec<_> =
        authorities(file.as_bytes()).map(|(line, key)| (line, key.map(drop))).collect();
    let malformed = key::KeyError::Malformed.into();
    assert_eq!(read, [(1, Ok(())), (2, Err(LineError::Options)), (3, Err(malformed))]);
}
