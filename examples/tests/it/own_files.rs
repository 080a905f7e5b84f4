//! What the server reads its settings and secrets from, where that lies below root.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use rustix::process::Signal;

use crate::server::*;

fn ask(addr: &str, method: &str, path: &str, body: &str) -> u16 {
    let length = body.len();
    let request = format!(
        "{method} /api/v1{path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\
         Authorization: Bearer {ALICE}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    http(addr, &request).expect("an answer").0
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
}

#[test]
fn what_the_settings_name_is_hidden_and_warned_of() {
    let root = tempfile::tempdir().expect("a directory");
    let at = |path: &str| root.path().join(path);
    for directory in ["keys", "conf", "data"] {
        fs::create_dir(at(directory)).expect("made");
    }
    write(&at("tokens"), &format!("alice={ALICE}\n"), 0o600);
    write(&at("passwords"), "", 0o600);
    let outside = tempfile::tempdir().expect("a directory");
    symlink(root.path(), outside.path().join("link")).expect("linked");
    let config = format!(
        "[ssh]\npasswords = {:?}\nhost-keys = [{:?}, {:?}]\n",
        outside.path().join("link/passwords").display().to_string(),
        at("conf/host_key").display().to_string(),
        outside.path().join("other_key").display().to_string(),
    );
    write(&at("conf/config.toml"), &config, 0o600);
    fs::hard_link(at("tokens"), at("data/second")).expect("linked");

    let mut command = example("all-in-one");
    command.current_dir(root.path()).env("SPLENGINE_SSH", "127.0.0.1:0");
    command.args(["--http", "127.0.0.1:0", "--ws", "off", "--tokens", "tokens"]);
    command.args(["--authorized-keys", "keys", "--config", "conf/config.toml"]);
    let server = Server::start(&mut command);
    let addr = addr_of(&server.ready);

    for path in
        ["tokens", "data/second", "passwords", "conf/config.toml", "conf/host_key", "runtime/ssh"]
    {
        assert_eq!(ask(&addr, "GET", &format!("/files/{path}"), ""), 404, "{path}");
    }
    for path in ["keys/mallory", "tokens", "data/second", "conf/config.toml", "runtime/x"] {
        let status = ask(&addr, "PUT", &format!("/files/{path}"), "x");
        assert!(matches!(status, 403 | 404 | 409), "{path}: {status}");
    }
    assert!(fs::read_dir(at("keys")).expect("read").next().is_none());
    for path in ["keys", "runtime/ssh", "runtime/batches", "runtime/sessions"] {
        let body = format!("{{\"command\":\"pwd\",\"workdir\":\"{path}\"}}");
        assert_eq!(ask(&addr, "POST", "/execute", &body), 422, "{path}");
    }
    assert_eq!(ask(&addr, "PUT", "/files/data/mine", "x"), 201);

    server.signal(Signal::TERM);
    let (_, _, log) = server.wait();
    for setting in
        ["--tokens", "--authorized-keys", "--config", "[ssh] passwords", "[ssh] host-keys"]
    {
        let warned = log.lines().any(|line| line.contains("WARN") && line.contains(setting));
        assert!(warned, "{setting}: {log}");
    }
    assert!(log.contains("move it out of root") && !log.contains(ALICE), "{log}");
    assert!(!log.contains("other_key"), "it does not lie below root: {log}");
}

#[test]
fn root_itself_holds_no_keys() {
    let root = tempfile::tempdir().expect("a directory");
    let mut command = example("all-in-one");
    command.arg("--root").arg(root.path()).arg("--authorized-keys").arg(root.path());
    let output = refusal(command.args(["--http", "127.0.0.1:0", "--ws", "off"]));
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    let named = error.contains("error: --authorized-keys: ");
    assert!(named && error.contains("outside root"), "{error}");
}

#[test]
fn what_the_server_keeps_is_its_own_users_alone() {
    let root = tempfile::tempdir().expect("a directory");
    let runtime = root.path().join("runtime");
    fs::create_dir(&runtime).expect("made");
    fs::set_permissions(&runtime, fs::Permissions::from_mode(0o755)).expect("set");
    let mut command = example("all-in-one");
    command.arg("--root").arg(root.path()).args(["--http", "127.0.0.1:0", "--ws", "off"]);
    let server = Server::start(command.args(["--token", &format!("alice={ALICE}")]));
    let mut left = vec![runtime];
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path).expect("there");
        assert_eq!(metadata.permissions().mode() & 0o077, 0, "{}", path.display());
        if metadata.is_dir() {
            left.extend(fs::read_dir(&path).expect("read").flatten().map(|entry| entry.path()));
        }
    }
    server.signal(Signal::TERM);
    let (_, _, log) = server.wait();
    assert!(log.contains("was open to other users"), "{log}");
}
