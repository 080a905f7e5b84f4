use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;

use super::*;

fn write(dir: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, text).expect("written");
    chmod(&path, 0o600);
    path
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("set");
}

fn dir() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn random(algorithm: Algorithm) -> PrivateKey {
    PrivateKey::random(&mut safe_rng(), algorithm).expect("a key")
}

fn text_of(key: &PrivateKey) -> String {
    key.to_openssh(LineEnding::LF).expect("a text").to_string()
}

#[test]
fn a_key_is_made_once() {
    let dir = dir();
    let path = dir.path().join("key");
    let made = HostKeys::open_or_create(&path).expect("made");
    let metadata = fs::metadata(&path).expect("there");
    assert_eq!(metadata.mode() & 0o7777, 0o600);
    let again = HostKeys::open_or_create(&path).expect("there");
    assert_eq!(again.fingerprints(), made.fingerprints());
    assert!(made.fingerprints()[0].starts_with("SHA256:"));
    assert_eq!(fs::read_dir(dir.path()).expect("read").count(), 1, "nothing else is left");
    assert_eq!(made.private_keys().len(), 1);
    let shown = format!("{made:?}");
    assert_eq!(shown, format!("HostKeys({:?})", made.fingerprints()));
}

#[test]
fn servers_that_start_together_have_one_key() {
    let dir = dir();
    let path = dir.path().join("key");
    let start = std::sync::Barrier::new(8);
    let open = || {
        start.wait();
        HostKeys::open_or_create(&path).expect("made").fingerprints()
    };
    let all: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert!(all.iter().all(|key| *key == all[0]), "{all:?}");
    assert_eq!(fs::read_dir(dir.path()).expect("read").count(), 1);
}

#[test]
fn another_key_stands_beside_it() {
    let dir = dir();
    let (first, second) = (dir.path().join("1"), dir.path().join("2"));
    let keys = HostKeys::open_or_create(&first).and_then(|keys| keys.and(&second)).expect("made");
    assert_eq!(keys.fingerprints().len(), 2);
    let turned =
        HostKeys::open_or_create(&second).and_then(|keys| keys.and(&first)).expect("there");
    assert!(turned.fingerprints().iter().rev().eq(&keys.fingerprints()));
    assert_eq!(keys.and(&first).expect("there").fingerprints().len(), 2, "no key twice");
}

#[test]
fn a_key_of_another_algorithm_and_a_certificate_stand_beside_it() {
    let dir = dir();
    let curve = russh::keys::EcdsaCurve::NistP256;
    let ecdsa = write(&dir, "ecdsa", &text_of(&random(Algorithm::Ecdsa { curve })));
    let path = dir.path().join("key");
    let keys = HostKeys::open_or_create(&path).and_then(|keys| keys.and(ecdsa)).expect("served");
    assert_eq!(keys.fingerprints().len(), 2);
    let key = read(&path, true).expect("there");
    let authority = random(Algorithm::Ed25519);
    for (kind, is_fine) in [(CertType::Host, true), (CertType::User, false)] {
        let mut builder = russh::keys::ssh_key::certificate::Builder::new(
            vec![0; 16],
            key.public_key().key_data().clone(),
            0,
            u64::MAX - 1,
        )
        .expect("a time");
        builder.cert_type(kind).and_then(|builder| builder.valid_principal("host")).expect("fine");
        let text = builder.sign(&authority).expect("signed").to_openssh().expect("text");
        let certified = keys.clone().certificate(write(&dir, "cert", &text));
        assert_eq!(certified.is_ok_and(|keys| keys.certificates().len() == 1), is_fine);
    }
    keys.clone().certificate(&path).expect_err("no certificate");
}

#[test]
fn what_is_wrong_is_told() {
    let dir = dir();
    let told = |path: PathBuf| {
        let error = HostKeys::open_or_create(&path).expect_err("refused").to_string();
        assert!(error.contains(&format!("`{}`", path.display())), "{error}");
        error
    };
    let good = text_of(&random(Algorithm::Ed25519));
    for mode in [0o640, 0o604, 0o620, 0o610] {
        let path = write(&dir, "open", &good);
        chmod(&path, mode);
        let error = told(path);
        assert!(
            error.contains(&format!("(mode {mode:04o}): close it with `chmod 600`")),
            "{error}"
        );
    }
    let curve = russh::keys::EcdsaCurve::NistP256;
    let ecdsa = told(write(&dir, "ecdsa", &text_of(&random(Algorithm::Ecdsa { curve }))));
    assert!(ecdsa.contains("is of ecdsa-sha2-nistp256, and only ssh-ed25519 is served"), "{ecdsa}");
    let encrypted = random(Algorithm::Ed25519).encrypt(&mut safe_rng(), "x").expect("encrypted");
    let encrypted = told(write(&dir, "encrypted", &text_of(&encrypted)));
    assert!(encrypted.contains("is encrypted: take the passphrase off"), "{encrypted}");
    for text in
        ["", "-----BEGIN RSA PRIVATE KEY-----\n", &good[..good.len() / 2], &good.replace('b', "c")]
    {
        assert!(told(write(&dir, "format", text)).contains("is not a private key in OpenSSH's"));
    }
    fs::write(dir.path().join("format"), [0xff]).expect("written");
    assert!(told(dir.path().join("format")).contains("is not a private key"));
    assert!(told(dir.path().to_owned()).contains("is not a private key"));
    assert!(told(dir.path().join("no/key")).contains("failed to create"));
}
