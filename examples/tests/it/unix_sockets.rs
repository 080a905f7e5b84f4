//! Servers on UNIX sockets.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::server::*;
use crate::skipped::{Need, skip};

/// A directory with the path of a socket in it.
fn directory() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("set");
    let path = directory.path().join("engine.sock");
    (directory, path)
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Posts to `/execute`, with these further header lines.
fn execute(mut stream: UnixStream, headers: &str, command: &str) -> (u16, String) {
    let body = json!({ "command": command }).to_string();
    let request = format!(
        "POST /execute HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no status: {answer}")), answer)
}

fn connect(path: &Path) -> UnixStream {
    UnixStream::connect(path).expect("connects")
}

/// Connects as another user, which takes being root.
fn connect_as(uid: u32, path: &Path) -> UnixStream {
    let path = path.to_owned();
    let connecting = std::thread::spawn(move || {
        // Of this thread alone.
        let uid = rustix::process::Uid::from_raw(uid);
        rustix::thread::set_thread_res_uid(uid, uid, uid).expect("this is root");
        connect(&path)
    });
    connecting.join().expect("no panic")
}

#[test]
fn users_of_the_host_are_known_by_their_uids() {
    const NOBODY: u32 = 65_534;
    let (directory, path) = directory();
    let mut command = example("unix-socket");
    command.arg(&path).arg(format!("alice={}", own_uid())).current_dir(directory.path());
    let server = Server::start(&mut command);
    assert_eq!(server.ready.trim(), format!("unix:{}", path.display()));
    let (status, text) = execute(connect(&path), "", "echo hi");
    assert!(status == 200 && text.contains("\"stdout\":\"hi\\n\""), "{text}");
    let token = "Authorization: Bearer a-long-and-random-text\r\n";
    assert_eq!(execute(connect(&path), token, "echo hi").0, 401, "there are no tokens");
    if own_uid() == 0 {
        assert_eq!(execute(connect_as(NOBODY, &path), "", "echo hi").0, 401);
    } else {
        skip(Need::Root, "only root can connect as another user");
    }
    server.signal(Signal::INT);
    let (code, _, log) = server.wait();
    assert_eq!(code, Some(0), "{log}");
    assert!(!path.exists());
    assert!(include_str!("../../unix_socket.rs").lines().count() < 120);
}

#[test]
fn the_all_in_one_server_serves_all_of_them_there() {
    let (directory, path) = directory();
    let socket = |name: &str| directory.path().join(name);
    let keys = directory.path().join("keys");
    fs::create_dir(&keys).expect("made");
    let mut command = example("all-in-one");
    command.arg("--root").arg(directory.path()).args(["--token", &format!("alice={ALICE}")]);
    // As a server leaves it that was killed.
    drop(UnixListener::bind(&path).expect("bound"));
    command.arg("--http").arg(format!("unix:{}", path.display()));
    command.arg("--authorized-keys").arg(&keys);
    for name in ["ws", "ssh", "avro"] {
        let address = format!("unix:{},mode=0660", socket(name).display());
        command.arg(format!("--{name}")).arg(address);
    }
    let server = Server::start(&mut command);
    let ready: Value = serde_json::from_str(&server.ready).expect("JSON");
    assert_eq!(ready["http"], format!("unix:{}", path.display()));
    let mode = |path: &Path| fs::metadata(path).expect("there").mode() & 0o7777;
    assert_eq!(mode(&path), 0o600);
    for name in ["ws", "ssh", "avro"] {
        assert_eq!(ready[name], format!("unix:{}", socket(name).display()));
        assert_eq!(mode(&socket(name)), 0o660, "{name}");
    }
    let bearer = format!("Authorization: Bearer {ALICE}\r\n");
    let (status, text) = execute(connect(&path), &bearer, "echo hi");
    assert!(status == 200 && text.contains("\"stdout\":\"hi\\n\""), "{text}");
    assert_eq!(execute(connect(&path), "", "echo hi").0, 401);
    let (status, text) = execute(connect(&socket("ws")), &bearer, "echo hi");
    assert!(status == 200 && text.contains("\"stdout\":\"hi\\n\""), "{text}");
    let mut banner = [0; 8];
    connect(&socket("ssh")).read_exact(&mut banner).expect("it speaks first");
    assert_eq!(&banner, b"SSH-2.0-");

    // Somebody listens there.
    let mut second = example("all-in-one");
    second.args(["--http", &format!("unix:{}", path.display()), "--ws", "off"]);
    let refused = refusal(&mut second);
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    let wanted = format!("--http: can't listen on unix:{}: somebody listens there", path.display());
    assert!(refused.status.code() == Some(1) && error.contains(&wanted), "{error}");

    server.signal(Signal::TERM);
    let (code, _, log) = server.wait();
    assert_eq!(code, Some(0), "{log}");
    for path in [path, socket("ws"), socket("ssh"), socket("avro")] {
        assert!(!path.exists(), "{}", path.display());
    }
}

#[test]
fn what_is_no_socket_is_told() {
    let (directory, _) = directory();
    let file = directory.path().join("file");
    fs::write(&file, "kept").expect("written");
    for (address, code, words) in [
        ("unix:".to_owned(), 2, "--http unix:: has no path; wanted is unix:PATH"),
        ("unix:/run/x,mode=0999".to_owned(), 2, "has no mode of a file, such as `,mode=0660`"),
        ("unix:/run/x,mode=1777".to_owned(), 2, "has no mode of a file, such as `,mode=0660`"),
        (format!("unix:{}", file.display()), 1, "there is a file that is no socket"),
        ("unix:/nowhere/at/all".to_owned(), 1, "--http: can't listen on unix:/nowhere/at/all: "),
        ("localhost".to_owned(), 2, "wanted is HOST:PORT, unix:PATH, or `off`"),
    ] {
        let output = refusal(example("all-in-one").args(["--http", &address, "--ws", "off"]));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{address}: {error}");
        assert!(error.contains(words), "{address}: {error}");
    }
    assert_eq!(fs::read_to_string(&file).expect("there"), "kept");
}
