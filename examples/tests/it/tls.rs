//! What the all-in-one server says of settings of TLS.

use std::fs::{Permissions, set_permissions, write};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;

use tempfile::TempDir;

use crate::server::example;
use crate::stores::outcome;

/// What becomes of a server whose settings of Avro are these.
fn started(root: &TempDir, avro: &str) -> Output {
    let config = root.path().join("splengine.toml");
    write(&config, format!("[avro]\naddress = \"127.0.0.1:0\"\n{avro}")).expect("written");
    let mut command = example("all-in-one");
    command.arg("--root").arg(root.path()).arg("--config").arg(&config);
    command.args([
        "--http",
        "127.0.0.1:0",
        "--ws",
        "off",
        "--token",
        "alice=alices-very-long-token",
    ]);
    outcome(&mut command)
}

fn told(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{error}");
    error
}

#[test]
fn a_private_key_that_others_can_read_is_refused() {
    let root = tempfile::tempdir().expect("a directory");
    let key = root.path().join("key.pem");
    write(&key, "no key").expect("written");
    let avro = format!("certificates = {key:?}\nprivate-key = {key:?}\n");
    set_permissions(&key, Permissions::from_mode(0o644)).expect("changed");
    let error = told(&started(&root, &avro));
    assert!(
        error.contains("[avro] private-key") && error.contains("holds a private key"),
        "{error}"
    );
    assert!(error.contains("chmod 600"), "{error}");
    set_permissions(&key, Permissions::from_mode(0o600)).expect("changed");
    let error = told(&started(&root, &avro));
    assert!(!error.contains("chmod"), "{error}");
}

#[test]
fn without_tls_plain_text_is_served() {
    let root = tempfile::tempdir().expect("a directory");
    let error = told(&started(&root, "plain-text = false\n"));
    assert!(error.contains("[avro] plain-text") && error.contains("certificates"), "{error}");
}
