//! What is read again while the server runs.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, Handle};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::conformance::Trusting;
use crate::server::*;

const BOB: &str = "bobs-very-long-token";

/// Replaces a file in one step, so that readers see the old or the new one.
fn write(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("written");
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).expect("set");
    std::fs::rename(new, path).expect("renamed");
}

fn status(addr: &str, token: &str) -> u16 {
    post(addr, token, r#"{"command": "true"}"#).expect("an answer").0
}

fn send(addr: &str, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    stream.write_all(request.as_bytes()).expect("sent");
    stream
}

/// Reads until `needle` has come.
fn until(stream: &mut TcpStream, needle: &[u8]) {
    let (mut came, mut piece) = (Vec::new(), [0; 1024]);
    while !came.windows(needle.len()).any(|part| part == needle) {
        let count = stream.read(&mut piece).expect("more");
        assert_ne!(count, 0, "closed after {:?}", String::from_utf8_lossy(&came));
        came.extend_from_slice(&piece[..count]);
    }
}

#[test]
fn a_hangup_takes_back_what_is_configured_no_longer() {
    let dir = tempfile::tempdir().expect("a directory");
    let tokens = dir.path().join("tokens");
    write(&tokens, &format!("bob={BOB}\n"));
    let all = all_in_one(&["--tokens", tokens.to_str().expect("text")]);
    let ready: Value = serde_json::from_str(&all.server.ready).expect("JSON");
    let ws = ready["ws"].as_str().expect("an address");
    let body = json!({"command": "sh -c", "args": ["touch begun; exec sleep 600"]}).to_string();
    let mut run = send(
        &all.addr,
        &format!(
            "POST /execute HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {BOB}\r\n\
             Accept: application/x-ndjson\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    );
    let mut socket = send(
        ws,
        &format!(
            "GET /terminal HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {BOB}\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ),
    );
    until(&mut socket, b"\"session\"");
    eventually("it runs", || all.root.path().join("begun").exists());

    write(&tokens, "# nobody\n");
    all.server.signal(Signal::HUP);
    let mut rest = Vec::new();
    let _ = run.read_to_end(&mut rest);
    let rest = String::from_utf8_lossy(&rest);
    assert!(rest.contains(" 200 ") && !rest.contains("\"exit\""), "{rest}");
    // The frame of its end: 4401.
    until(&mut socket, b"\x11\x31");
    assert_eq!((status(&all.addr, BOB), status(&all.addr, ALICE)), (401, 200));
    all.server.signal(Signal::TERM);
    assert_eq!(all.server.wait().0, Some(0), "it ran on");
}

#[test]
fn what_changes_is_read_and_what_is_wrong_is_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let [tokens, config] = ["tokens", "config.toml"].map(|name| dir.path().join(name));
    write(&tokens, &format!("bob={BOB}\n"));
    // To the server, a client that tries until it is accepted is guessing.
    let configure = |more: &str| {
        write(&config, &format!("[guessing]\nexempt = [\"127.0.0.0/8\"]\n{more}"));
    };
    configure("");
    let [tokens_flag, config_flag] = [&tokens, &config].map(|path| path.to_str().expect("text"));
    let all = all_in_one(&["--tokens", tokens_flag, "--config", config_flag]);
    assert_eq!(status(&all.addr, BOB), 200);
    // Wider, narrower, other: each is seen without anybody being told.
    configure("[users.bob]\nscopes = [\"files\"]\n[limits]\nmax-running = 3\n");
    eventually("bob may not", || status(&all.addr, BOB) == 403);
    configure("");
    eventually("bob may again", || status(&all.addr, BOB) == 200);
    let carols = "carols-very-long-token";
    write(&tokens, &format!("carol={carols}\n"));
    eventually("carol is there", || status(&all.addr, carols) == 200);
    assert_eq!(status(&all.addr, BOB), 401);

    let unchanged = "users and tokens stay as they were";
    write(&tokens, "carol\n");
    all.server.signal(Signal::HUP);
    all.server.logs(1, unchanged);
    // Whoever tells it has it read what has not changed either.
    all.server.signal(Signal::HUP);
    all.server.logs(2, unchanged);
    std::fs::remove_file(&tokens).expect("removed");
    all.server.signal(Signal::HUP);
    all.server.logs(3, unchanged);
    configure("[users.carol]\nscopes = [\"all\"]\n");
    all.server.signal(Signal::HUP);
    all.server.logs(4, unchanged);
    configure("");
    write(&tokens, &format!("carol={carols}\nbob={BOB}\n"));
    eventually("bob is back", || {
        assert_eq!(status(&all.addr, carols), 200, "what is wrong changes nothing");
        status(&all.addr, BOB) == 200
    });
    all.server.signal(Signal::TERM);
    let (code, _, err) = all.server.wait();
    assert_eq!(code, Some(0));
    assert!(err.contains("limits") && err.contains("from the next start on"), "{err}");
    assert!(!err.contains(BOB) && !err.contains(carols), "{err}");
}

pub(crate) async fn login(addr: &str, key: &Arc<PrivateKey>, user: &str) -> Handle<Trusting> {
    let config = Arc::new(client::Config::default());
    let mut client = client::connect(config, addr, Trusting).await.expect("a handshake");
    let key = PrivateKeyWithHashAlg::new(Arc::clone(key), None);
    let shown = client.authenticate_publickey(user, key).await.expect("an answer");
    assert!(shown.success());
    client
}

#[tokio::test]
async fn who_has_no_key_any_more_is_sent_away() {
    let root = tempfile::tempdir().expect("a directory");
    let keys = root.path().join("keys");
    std::fs::create_dir(&keys).expect("made");
    let key = ssh_key(keys.join("alice"));
    std::fs::copy(keys.join("alice"), keys.join("bob")).expect("copied");
    let mut command = example("all-in-one");
    command.arg("--root").arg(root.path()).arg("--authorized-keys").arg(&keys);
    command.args(["--http", "off", "--ws", "off", "--ssh", "127.0.0.1:0"]);
    let server = Server::start(&mut command);
    let ready: Value = serde_json::from_str(&server.ready).expect("JSON");
    let addr = ready["ssh"].as_str().expect("an address");
    let (alice, bob) = (login(addr, &key, "alice").await, login(addr, &key, "bob").await);
    std::fs::remove_file(keys.join("bob")).expect("removed");
    let is_gone = async {
        while !bob.is_closed() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), is_gone).await.expect("bob is gone");
    assert!(!alice.is_closed());
    server.signal(Signal::TERM);
    let waited = tokio::task::spawn_blocking(|| server.wait().0).await;
    assert_eq!(waited.expect("no panic"), Some(0));
}
