//! The examples of one server each, used as their clients use them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use russh::ChannelMsg;
use russh::keys::PrivateKey;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::conformance::{CODES, avro_call, text};
use crate::reload::login;
use crate::server::*;

/// Runs until there is a file `go`, and prints a word then.
const WAITING: &str = "sh -c 'touch begun; while [ ! -e go ]; do sleep 0.02; done; echo whole'";

fn lines_of(source: &str) -> usize {
    source.lines().count()
}

fn root() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

/// Ends a server by the key for it while it runs [`WAITING`], which `run` asks for. `is_refused` tries
/// something new; what `run` was told.
fn ended_while_it_runs(
    server: Server,
    root: &Path,
    run: impl FnOnce() -> String + Send,
    mut is_refused: impl FnMut() -> bool,
) -> String {
    let told = std::thread::scope(|scope| {
        let run = scope.spawn(run);
        eventually("it runs", || root.join("begun").exists());
        server.signal(Signal::INT);
        eventually("nothing new is taken", &mut is_refused);
        std::fs::write(root.join("go"), "").expect("written");
        run.join().expect("no panic")
    });
    let (code, _, log) = server.wait();
    assert_eq!(code, Some(0), "{log}");
    told
}

#[test]
fn http() {
    let root = root();
    let server = Server::start(example("http").current_dir(root.path()).env("ALICE_TOKEN", ALICE));
    let addr = server.ready.trim().to_owned();
    let run = |command: &str| {
        post(&addr, ALICE, &json!({ "command": command }).to_string()).expect("an answer")
    };
    assert!(run("echo hi").1.contains("\"stdout\":\"hi\\n\""));
    assert_eq!(post(&addr, "another-very-long-token", "{}").expect("an answer").0, 401);
    let told = ended_while_it_runs(server, root.path(), || run(WAITING).1, || run("true").0 == 503);
    assert!(told.contains("\"stdout\":\"whole\\n\""), "{told}");
    assert!(lines_of(include_str!("../../http.rs")) < 60);
}

#[test]
fn embed_in_axum() {
    let root = root();
    let server =
        Server::start(example("embed-in-axum").current_dir(root.path()).env("HOME", root.path()));
    let addr = server.ready.trim().to_owned();
    let ask = |request: &str, headers: &str, body: &str| {
        let length = body.len();
        let request = format!(
            "{request} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n{headers}\
             Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        crate::server::http(&addr, &request).expect("an answer")
    };
    let run = |command: &str| {
        let body = json!({ "command": command }).to_string();
        ask("POST /spl/execute", "Cookie: login=alice\r\n", &body)
    };
    assert_eq!(ask("GET /", "", ""), (200, "an application of its own".to_owned()));
    assert!(run("echo hi").1.contains("\"stdout\":\"hi\\n\""));
    // By the application's login alone, and with no more than it gives.
    let body = json!({"command": "true"}).to_string();
    assert_eq!(ask("POST /spl/execute", "", &body).0, 401);
    let bearer = format!("Authorization: Bearer {ALICE}\r\n");
    assert_eq!(ask("POST /spl/execute", &bearer, &body).0, 401);
    let (status, problem) = ask("GET /spl/api/v1/files/", "Cookie: login=alice\r\n", "");
    assert_ne!(status, 200, "{problem}");
    // A terminal, by the same login.
    let path = "/spl/ws/terminal";
    let mut terminal = Terminal::open(&addr, path, "Cookie: login=alice").expect("let in");
    terminal.send(&json!({"type": "input", "data": "echo $((6 * 7))-is-it\n"}));
    assert_eq!(terminal.reads("42-is-it"), None);
    assert!(
        Terminal::open(&addr, path, bearer.trim_end()).is_err_and(|head| head.contains(" 401 "))
    );
    let page = ask("GET /spl/ws/", "Cookie: login=alice\r\n", "");
    assert!(page.0 == 200 && page.1.contains("<title>"), "{page:?}");
    let told = ended_while_it_runs(server, root.path(), || run(WAITING).1, || run("true").0 == 503);
    assert!(told.contains("\"stdout\":\"whole\\n\""), "{told}");
    assert!(lines_of(include_str!("../../embed_in_axum.rs")) < 65);
}

#[test]
fn sandbox() {
    let (root, dir) = (root(), root());
    let keys = dir.path().join("keys");
    std::fs::create_dir(&keys).expect("made");
    let key = ssh_key(keys.join("alice"));
    let mut command = example("sandbox");
    command.current_dir(root.path()).env("ALICE_TOKEN", ALICE);
    command.arg(&keys).arg(dir.path().join("host_key"));
    // Stands for a sandbox: whatever is run has this variable.
    command.args(["env", "INSIDE=yes"]);
    let server = Server::start(&mut command);
    let (http, ssh) = server.ready.trim().split_once(' ').expect("two addresses");
    let run = |command: &str| {
        post(http, ALICE, &json!({ "command": command }).to_string()).expect("an answer")
    };
    let shown = "sh -c 'echo inside: $INSIDE; exit 3'";
    let told = run(shown).1;
    assert!(told.contains("\"stdout\":\"inside: yes\\n\"") && told.contains("\"exitCode\":3"));
    assert_eq!(over_ssh(ssh, &key, shown), ("inside: yes\n".to_owned(), Some(3)));
    let (status, refusal) = run("shutdown now");
    assert!(status == 422 && refusal.contains("not allowed"), "{refusal}");
    assert_ne!(over_ssh(ssh, &key, "shutdown now").1, Some(0));
    server.signal(Signal::INT);
    let (code, _, log) = server.wait();
    assert_eq!(code, Some(0), "{log}");
    for line in ["alice runs [\"sh\", ", "Code(3)", "alice runs [\"shutdown\", \"now\"]: "] {
        assert_eq!(log.matches(line).count(), 2, "{line}: {log}");
    }
    assert!(lines_of(include_str!("../../sandbox.rs")) < 120);
}

#[test]
fn embedded_batches() {
    let root = root();
    let start = || {
        let mut command = example("embedded-batches");
        command.current_dir(root.path()).args(["state", "nightly", "sh -c 'echo one >> ran'"]);
        command.arg("sh -c 'echo two >> ran; while [ ! -e go ]; do sleep 0.02; done'");
        Server::start(command.arg("sh -c 'echo three >> ran'"))
    };
    let ran = || std::fs::read_to_string(root.path().join("ran")).unwrap_or_default();
    let killed = start();
    assert_eq!(killed.ready, "resumed 0\n");
    eventually("the second step runs", || ran() == "one\ntwo\n");
    killed.signal(Signal::KILL);
    assert_eq!(killed.wait().0, None);

    let next = start();
    assert_eq!(next.ready, "resumed 1\n");
    eventually("the second step runs again", || ran() == "one\ntwo\ntwo\n");
    std::fs::write(root.path().join("go"), "").expect("written");
    let (code, out, log) = next.wait();
    assert_eq!(code, Some(0), "{log}");
    assert!(out.contains("step 2 starts, run 2\n") && out.ends_with("succeeded\n"), "{out}");

    // It is over: nothing is run again.
    let (code, out, log) = start().wait();
    assert_eq!((code, ran().as_str()), (Some(0), "one\ntwo\ntwo\nthree\n"), "{log}");
    assert!(out.ends_with("succeeded\n"), "{out}");
    assert!(lines_of(include_str!("../../embedded_batches.rs")) < 120);
}

#[test]
fn avro() {
    let root = root();
    let server = Server::start(example("avro").current_dir(root.path()));
    let addr = server.ready.trim().to_owned();
    let call = |message: &str, command: Option<&str>, empty: usize| {
        let mut call = Vec::new();
        text(message.as_bytes(), &mut call);
        if let Some(command) = command {
            text(command.as_bytes(), &mut call);
        }
        call.resize(call.len() + empty, 0);
        match avro_call(addr.parse().expect("an address"), &[], &call) {
            // Whether it succeeded, the exit code, and what it printed.
            Ok(mut answer) if message == "run" => {
                assert_eq!((answer.long(), answer.long()), (-1, 0));
                Ok(answer.text())
            }
            Ok(_) => Ok(String::new()),
            Err((branch, mut error)) => {
                assert_eq!(branch, 1, "an error that is declared");
                Err(CODES[usize::try_from(error.long()).expect("a symbol")])
            }
        }
    };
    let run = |command: &str| call("run", Some(command), 12);
    assert_eq!(run("echo hi").as_deref(), Ok("hi\n"));
    assert_eq!(run("no-such-program"), Err("UNKNOWN_COMMAND"));
    assert_eq!(call("openSession", None, 7), Err("PERMISSION_DENIED"));
    assert!(get(&addr, "/avro/protocol").1.contains("\"SPlectrumEngine\""));
    let told = ended_while_it_runs(
        server,
        root.path(),
        || run(WAITING).expect("a result"),
        || run("true") == Err("UNAVAILABLE"),
    );
    assert_eq!(told, "whole\n");
    assert!(lines_of(include_str!("../../avro.rs")) < 60);
}

/// What a command over SSH prints, and its code.
fn over_ssh(addr: &str, key: &Arc<PrivateKey>, command: &str) -> (String, Option<u32>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let client = login(addr, key, "alice").await;
        let mut channel = client.channel_open_session().await.expect("a channel");
        channel.exec(true, command).await.expect("sent");
        channel.eof().await.expect("sent");
        let (mut printed, mut code) = (Vec::new(), None);
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::Data { data } => printed.extend_from_slice(&data),
                ChannelMsg::ExitStatus { exit_status } => code = Some(exit_status),
                _ => {}
            }
        }
        (String::from_utf8(printed).expect("text"), code)
    })
}

#[test]
fn ssh() {
    let (root, dir) = (root(), root());
    let keys = dir.path().join("keys");
    std::fs::create_dir(&keys).expect("made");
    let key = ssh_key(keys.join("alice"));
    let usage = refusal(&mut example("ssh"));
    assert!(String::from_utf8_lossy(&usage.stderr).contains("usage: ssh ROOT KEYS HOST_KEY"));
    let mut command = example("ssh");
    command.arg(root.path()).arg(&keys).arg(dir.path().join("host_key"));
    let server = Server::start(&mut command);
    let addr = server.ready.trim().to_owned();
    let run = |command: &str| over_ssh(&addr, &key, command);
    assert_eq!(run("sh -c 'echo hi; exit 3'"), ("hi\n".to_owned(), Some(3)));
    assert_eq!(run("pwd").0.trim_end(), root.path().to_str().expect("text"));
    assert!(dir.path().join("host_key").exists());
    // Who is logged in already asks: new connections are not taken while the server ends.
    let told = ended_while_it_runs(
        server,
        root.path(),
        || run(WAITING).0,
        || match TcpStream::connect(&addr) {
            Ok(_) => run("true").1 == Some(255),
            Err(_) => true,
        },
    );
    assert_eq!(told, "whole\n");
    assert!(lines_of(include_str!("../../ssh.rs")) < 60);
}

/// A WebSocket whose client sends short texts.
struct Terminal(BufReader<TcpStream>);

impl Terminal {
    /// Whether it was let in.
    fn open(addr: &str, path: &str, header: &str) -> Result<Self, String> {
        let mut stream = TcpStream::connect(addr).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: test\r\n{header}\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        .expect("sent");
        let mut it = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(it.read_line(&mut head).expect("a header"), 0, "{head}");
        }
        if head.contains(" 101 ") { Ok(Self(it)) } else { Err(head) }
    }

    fn send(&mut self, frame: &Value) {
        let text = frame.to_string();
        let length = u8::try_from(text.len()).expect("short");
        assert!(length < 126);
        // Masked by zeros, which change nothing.
        let head = [0x81, 0x80 | length, 0, 0, 0, 0];
        self.0.get_mut().write_all(&[&head[..], text.as_bytes()].concat()).expect("sent");
    }

    /// The next frame's kind and what is in it.
    fn next(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).expect("a frame");
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                self.0.read_exact(&mut length).expect("a length");
                usize::from(u16::from_be_bytes(length))
            }
            length => usize::from(length),
        };
        let mut data = vec![0; length];
        self.0.read_exact(&mut data).expect("all of it");
        (head[0], data)
    }

    /// Reads until what the terminal prints has `words`, or the server closes: the code of that.
    fn reads(&mut self, words: &str) -> Option<u16> {
        let mut printed = String::new();
        loop {
            match self.next() {
                (0x81, data) => {
                    let frame: Value = serde_json::from_slice(&data).expect("JSON");
                    printed += frame["data"].as_str().unwrap_or_default();
                    if printed.contains(words) {
                        return None;
                    }
                }
                (0x88, data) => return Some(u16::from_be_bytes([data[0], data[1]])),
                _ => {}
            }
        }
    }
}

#[test]
fn ws_terminal() {
    let root = root();
    let mut command = example("ws-terminal");
    // The shell reads no file of the user who runs the tests.
    command.current_dir(root.path()).env("HOME", root.path()).env("ALICE_TOKEN", ALICE);
    let server = Server::start(&mut command);
    let addr = server.ready.trim().to_owned();
    let open =
        |token: &str| Terminal::open(&addr, "/terminal", &format!("Authorization: Bearer {token}"));
    let head = open("another-very-long-token").err();
    assert!(head.is_some_and(|head| head.contains(" 401 ")));
    let mut terminal = open(ALICE).expect("let in");
    terminal.send(&json!({"type": "input", "data": "echo $((6 * 7))-is-it\n"}));
    assert_eq!(terminal.reads("42-is-it"), None);
    let (status, page) = get(&addr, "/");
    assert!(status == 200 && page.contains("<title>"), "{page}");
    // Its token is good for terminals alone.
    let run = json!({"command": "true"}).to_string();
    assert_eq!(post(&addr, ALICE, &run).expect("an answer").0, 403);
    server.signal(Signal::INT);
    assert!(terminal.reads("never printed").is_some(), "it is told that this is the end");
    let (code, _, log) = server.wait();
    assert_eq!(code, Some(0), "{log}");
    assert!(lines_of(include_str!("../../ws_terminal.rs")) < 60);
}
