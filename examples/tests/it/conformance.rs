//! One table of executions, run through every server: by whichever protocol a client asks, it is told the same.

mod ssh;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use splengine_avro::{AvroServer, ExecutionResult};
use splengine_core::auth::StaticTokens;
use splengine_core::execute::{Cancel, Command, Exit, ExitStatus, Output, Signal, Stdin, Stream};
use splengine_core::{Caller, Engine, Execute, ExecuteError, Request};
use splengine_http::HttpServer;

use self::ssh::Ssh;
pub(crate) use self::ssh::Trusting;
use crate::server::http;

/// Ends in every way that there is, and prints whatever there can be.
struct Actor;

impl Execute for Actor {
    async fn execute(
        &self,
        command: Command,
        _: Stdin,
        output: Output,
        cancel: Cancel,
    ) -> Result<Exit, ExecuteError> {
        let code = |code| Ok(Exit::new(ExitStatus::Code(code)));
        let signal = |number| {
            Ok(Exit::new(ExitStatus::Signal(Signal::from_number(number).expect("in range"))))
        };
        let word = command.text_argv()?[0];
        if word == "missing" {
            return Err(ExecuteError::ProgramNotFound(word.to_owned()));
        }
        if word == "astray" {
            let (workdir, problem) = ("up".to_owned(), "is outside root");
            return Err(ExecuteError::Workdir { workdir, problem });
        }
        if word == "broken" {
            return Err(ExecuteError::internal("a secret of the inside"));
        }
        output.started();
        let print = async |stream, data: &'static [u8]| {
            let _ = output.write(stream, Bytes::from_static(data)).await;
        };
        match word {
            "fine" => {
                print(Stream::Stdout, "gr\u{fc}\u{df}e\n".as_bytes()).await;
                print(Stream::Stderr, b"aside").await;
                code(0)
            }
            "fails" => code(7),
            "not-text" => {
                print(Stream::Stdout, b"a\xffb\xe2\x82").await;
                print(Stream::Stderr, b"\xed\xa0\x80 \0 \xf0\x9f").await;
                code(0)
            }
            "floods" => {
                for _ in 0..40 {
                    let _ = output.write(Stream::Stdout, "\u{20ac}".repeat(20_000).into()).await;
                }
                code(0)
            }
            "crashes" => signal(11),
            "hangs" => {
                print(Stream::Stdout, b"before").await;
                cancel.stop_requested().await;
                signal(15).map(Exit::stopped)
            }
            "swells" => signal(9).map(Exit::out_of_memory),
            _ => panic!("`lost` is what becomes of it"),
        }
    }
}

/// What a server told: of an execution, or why there was none.
#[derive(Debug, Clone, PartialEq)]
enum Told {
    Ended {
        exit_code: i64,
        /// Where the protocol has members for them.
        reason: Option<String>,
        signal: Option<Value>,
        stdout: Vec<u8>,
        stderr: Vec<u8>,
        truncated: Option<bool>,
    },
    /// What it is about, as core names it, and the text.
    Refused(&'static str, String),
}

struct TestServers {
    engine: Engine,
    caller: Caller,
    http: SocketAddr,
    avro: SocketAddr,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_server_tells_the_same() {
    let engine = Engine::builder(Actor).build().expect("built");
    let caller = Caller::new("guest").expect("a user name").with_all_scopes();
    let tokens = || StaticTokens::new().allow_anonymous(caller.clone());
    let server = HttpServer::builder(engine.clone()).authenticate(tokens());
    let http = server.bind("127.0.0.1:0").await.expect("bound");
    let server = AvroServer::builder(engine.clone()).authenticate(tokens());
    let avro = server.bind("127.0.0.1:0").await.expect("bound");
    let servers = TestServers {
        engine,
        caller: caller.clone(),
        http: http.local_addr().tcp().expect("of TCP"),
        avro: avro.local_addr().tcp().expect("of TCP"),
    };
    tokio::spawn(async { http.await });
    tokio::spawn(async { avro.await });
    let ssh = Ssh::open(&servers.engine).await;

    for (command, timeout, reason) in [
        ("fine", None, Some("exited")),
        ("fails", None, Some("exited")),
        ("not-text", None, Some("exited")),
        ("floods", None, Some("exited")),
        ("crashes", None, Some("signaled")),
        ("hangs", Some(1000), Some("timedOut")),
        ("swells", None, Some("outOfMemory")),
        ("gives up", None, Some("lost")),
        ("missing", None, None),
        ("astray", None, None),
        ("broken", None, None),
        ("an 'open quote", None, None),
        ("fine; fine", None, None),
        ("fine | fine", None, None),
        ("fine", Some(u64::from(u32::MAX) * 1000), None),
    ] {
        let expected = servers.inside(command, timeout).await;
        match &expected {
            Told::Ended { reason: told, .. } => assert_eq!(told.as_deref(), reason, "{command}"),
            Told::Refused(..) => assert_eq!(reason, None, "{command}"),
        }
        let (servers, expected) = (&servers, &expected);
        tokio::task::block_in_place(|| {
            assert_eq!(servers.over_http(command, timeout), *expected, "HTTP: {command}");
            assert_eq!(servers.streamed(command, timeout), *expected, "HTTP, a stream: {command}");
            assert_eq!(servers.run(command, timeout), *expected, "Avro, run: {command}");
            let executed = servers.execute(command, timeout);
            assert_eq!(executed, as_frozen(expected), "Avro, execute: {command}");
        });
        if let Some(told) = ssh.tells(command, timeout).await {
            assert_eq!(told, ssh::as_told_by(expected), "SSH: {command}");
        }
    }
}

/// As much of it as the frozen record of Avro holds.
fn as_frozen(told: &Told) -> Told {
    match told.clone() {
        Told::Ended { exit_code, stdout, stderr, truncated, .. } => {
            // What was left out lies within a character on either side.
            let text = |bytes: Vec<u8>, is_cut: bool| match is_cut {
                true => {
                    let (head, tail) = bytes.split_at(bytes.len() / 2);
                    String::from_utf8_lossy(head).into_owned() + &String::from_utf8_lossy(tail)
                }
                false => String::from_utf8_lossy(&bytes).into_owned(),
            };
            let stdout = text(stdout, truncated == Some(true)).into_bytes();
            let stderr = text(stderr, false).into_bytes();
            Told::Ended { exit_code, reason: None, signal: None, stdout, stderr, truncated: None }
        }
        refused => refused,
    }
}

impl TestServers {
    async fn inside(&self, command: &str, timeout: Option<u64>) -> Told {
        let request = Request::new(command);
        let request = match timeout {
            Some(timeout) => request.timeout(Duration::from_millis(timeout)),
            None => request,
        };
        match self.engine.execute(&self.caller, request).await {
            Ok(run) => {
                let all = run.capture().await;
                Told::Ended {
                    exit_code: i64::from(all.end.exit_code),
                    reason: Some(all.end.reason.name().to_owned()),
                    signal: Some(all.end.signal.map_or(Value::Null, |it| it.to_string().into())),
                    stdout: all.stdout.to_vec(),
                    stderr: all.stderr.to_vec(),
                    truncated: Some(all.end.stdout_truncated),
                }
            }
            Err(error) => {
                let kind = match error {
                    ExecuteError::ProgramNotFound(_) => "no program",
                    ExecuteError::Internal(_) => "inside",
                    ExecuteError::Split(_) => "malformed",
                    _ => "impossible",
                };
                // Whatever went wrong inside is not told.
                let text = if kind == "inside" { String::new() } else { error.to_string() };
                Told::Refused(kind, text)
            }
        }
    }

    fn ask(&self, command: &str, timeout: Option<u64>, accept: &str) -> (u16, String) {
        let body = json!({"command": command, "timeout": timeout, "outputEncoding": "base64"});
        let body = body.to_string();
        let length = body.len();
        let request = format!(
            "POST /execute HTTP/1.1\r\nHost: test\r\nConnection: close\r\nAccept: {accept}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        http(&self.http.to_string(), &request).expect("an answer")
    }

    fn over_http(&self, command: &str, timeout: Option<u64>) -> Told {
        let (status, body) = self.ask(command, timeout, "application/json");
        let answer: Value = serde_json::from_str(&body).expect("JSON");
        if status != 200 {
            return refused_by_http(status, &answer);
        }
        let bytes = |name: &str| base64(answer[name].as_str().expect("text"));
        ended(&answer, bytes("stdout"), bytes("stderr"))
    }

    fn streamed(&self, command: &str, timeout: Option<u64>) -> Told {
        let (status, body) = self.ask(command, timeout, "application/x-ndjson");
        if status != 200 {
            return refused_by_http(status, &serde_json::from_str(&body).expect("JSON"));
        }
        let (mut stdout, mut stderr, mut exit) = (Vec::new(), Vec::new(), Value::Null);
        for line in body.lines().filter(|line| !line.is_empty()) {
            let event: Value = serde_json::from_str(line).expect("JSON");
            let data = || base64(event["data"].as_str().expect("text"));
            match event["event"].as_str() {
                Some("stdout") => stdout.extend(data()),
                Some("stderr") => stderr.extend(data()),
                Some("exit") => exit = event,
                _ => {}
            }
        }
        ended(&exit, stdout, stderr)
    }

    fn run(&self, command: &str, timeout: Option<u64>) -> Told {
        let mut call = Vec::new();
        text(b"run", &mut call);
        text(command.as_bytes(), &mut call);
        // No arguments, workdir, session, variables or input.
        call.extend_from_slice(&[0; 5]);
        match timeout {
            None => call.push(0),
            Some(timeout) => {
                call.push(2);
                long(timeout as i64, &mut call);
            }
        }
        // No limits and `kill`, no mask and no shell.
        call.extend_from_slice(&[0; 6]);
        let mut answer = match self.call(&[], &call) {
            Ok(answer) => answer,
            Err((1, mut error)) => {
                let code = error.long();
                let text = error.text();
                return refused_by_avro(CODES[usize::try_from(code).expect("a symbol")], &text);
            }
            Err((_, mut error)) => panic!("a string: {}", error.text()),
        };
        let success = answer.byte() == 1;
        let exit_code = answer.long();
        let (stdout, stderr) = (answer.bytes(), answer.bytes());
        answer.long();
        assert!(answer.text().starts_with("spl-guest-"));
        let reason = REASONS[usize::try_from(answer.long()).expect("a symbol")];
        let signal = if answer.long() == 0 { Value::Null } else { answer.text().into() };
        let printed = answer.long();
        answer.long();
        let truncated = answer.byte() == 1;
        assert_eq!(success, reason == "exited" && exit_code == 0);
        assert!(truncated || printed == stdout.len() as i64);
        let (reason, signal, truncated) = (Some(reason.to_owned()), Some(signal), Some(truncated));
        Told::Ended { exit_code, reason, signal, stdout, stderr, truncated }
    }

    fn execute(&self, command: &str, timeout: Option<u64>) -> Told {
        let mut call = Vec::new();
        text(b"execute", &mut call);
        let session_id = None;
        let record = splengine_avro::Command {
            command: command.to_owned(),
            args: Vec::new(),
            workdir: None,
            session_id,
        };
        call.extend(record.to_datum());
        // The frozen record has no place for a time limit; what is over the maximum can't be asked
        // for, so it is asked for in the way of the others.
        let deadline = match timeout {
            Some(timeout) if timeout > 1_000_000 => return self.run(command, Some(timeout)),
            Some(timeout) => format!("{timeout}"),
            None => String::new(),
        };
        let mut metadata = Vec::new();
        if !deadline.is_empty() {
            metadata.push(2);
            text(b"spl-deadline-ms", &mut metadata);
            text(deadline.as_bytes(), &mut metadata);
        }
        match self.call(&metadata, &call) {
            Ok(answer) => {
                let result = ExecutionResult::from_datum(answer.0).expect("a result");
                Told::Ended {
                    exit_code: i64::from(result.exit_code),
                    reason: None,
                    signal: None,
                    stdout: result.stdout.into_bytes(),
                    stderr: result.stderr.into_bytes(),
                    truncated: None,
                }
            }
            Err((0, mut error)) => {
                let text = error.text();
                let (code, text) = text.split_once(": ").expect("a code and a text");
                refused_by_avro(code, text)
            }
            Err(_) => panic!("`execute` declares no errors"),
        }
    }

    fn call(&self, metadata: &[u8], call: &[u8]) -> Result<Datum, (i64, Datum)> {
        avro_call(self.avro, metadata, call)
    }
}

/// A call over the Netty framing: the answer, or the branch of the error and it.
pub(crate) fn avro_call(
    addr: SocketAddr,
    metadata: &[u8],
    call: &[u8],
) -> Result<Datum, (i64, Datum)> {
    let mut stream = TcpStream::connect(addr).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    stream.write_all(&avro_request(metadata, call)).expect("sent");
    let mut head = [0; 12];
    stream.read_exact(&mut head).expect("an answer");
    let length = u32::from_be_bytes([head[8], head[9], head[10], head[11]]);
    let mut answer = vec![0; length as usize];
    stream.read_exact(&mut answer).expect("all of it");
    avro_answer(answer)
}

/// The frame that asks, as the first of a connection.
pub(crate) fn avro_request(metadata: &[u8], call: &[u8]) -> Vec<u8> {
    let protocol = splengine_avro::protocol().as_bytes();
    let hash = [0x5a; 16];
    let mut message = hash.to_vec();
    message.push(2);
    text(protocol, &mut message);
    message.extend_from_slice(&hash);
    message.push(0);
    message.extend_from_slice(metadata);
    message.push(0);
    message.extend_from_slice(call);
    let mut frame = [0, 0, 0, 1, 0, 0, 0, 1].to_vec();
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(&message);
    frame
}

/// What is in the frame that answers it.
pub(crate) fn avro_answer(answer: Vec<u8>) -> Result<Datum, (i64, Datum)> {
    let mut answer = Datum(answer);
    // CLIENT: the server's protocol and its hash, and no metadata.
    assert_eq!((answer.byte(), answer.byte()), (2, 2));
    assert_eq!(answer.bytes(), splengine_avro::protocol().as_bytes());
    answer.0.drain(..18);
    // Metadata: blocks, until an empty one.
    loop {
        match answer.long() {
            0 => break,
            count => (0..count).for_each(|_| {
                answer.text();
                answer.bytes();
            }),
        }
    }
    match answer.byte() {
        0 => Ok(answer),
        _ => Err((answer.long(), answer)),
    }
}

fn refused_by_http(status: u16, problem: &Value) -> Told {
    let text = problem["detail"].as_str().expect("text");
    let kind = match status {
        400 => "malformed",
        422 if text.contains("was not found") => "no program",
        422 => "impossible",
        _ => "inside",
    };
    Told::Refused(kind, if kind == "inside" { String::new() } else { text.to_owned() })
}

fn refused_by_avro(code: &str, text: &str) -> Told {
    let kind = match code {
        "UNKNOWN_COMMAND" => "no program",
        "INVALID_REQUEST" if text.contains("split") => "malformed",
        "INVALID_REQUEST" => "impossible",
        _ => "inside",
    };
    Told::Refused(kind, if kind == "inside" { String::new() } else { text.to_owned() })
}

fn ended(exit: &Value, stdout: Vec<u8>, stderr: Vec<u8>) -> Told {
    Told::Ended {
        exit_code: exit["exitCode"].as_i64().expect("a number"),
        reason: exit["reason"].as_str().map(str::to_owned),
        signal: Some(exit["signal"].clone()),
        stdout,
        stderr,
        truncated: exit["stdoutTruncated"].as_bool(),
    }
}

/// An answer, as it is read from its front.
pub(crate) struct Datum(Vec<u8>);

impl Datum {
    pub(crate) fn byte(&mut self) -> u8 {
        self.0.remove(0)
    }

    pub(crate) fn long(&mut self) -> i64 {
        let (mut value, mut shift) = (0_u64, 0);
        loop {
            let byte = self.byte();
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return (value >> 1) as i64 ^ -((value & 1) as i64);
            }
            shift += 7;
        }
    }

    pub(crate) fn bytes(&mut self) -> Vec<u8> {
        let length = usize::try_from(self.long()).expect("a length");
        self.0.drain(..length).collect()
    }

    pub(crate) fn text(&mut self) -> String {
        String::from_utf8(self.bytes()).expect("text")
    }
}

pub(crate) fn long(value: i64, to: &mut Vec<u8>) {
    let mut left = (value << 1) as u64;
    while left >= 0x80 {
        to.push(left as u8 | 0x80);
        left >>= 7;
    }
    to.push(left as u8);
}

pub(crate) fn text(value: &[u8], to: &mut Vec<u8>) {
    long(value.len() as i64, to);
    to.extend_from_slice(value);
}

pub(crate) fn base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let values: Vec<u32> = text
        .bytes()
        .filter_map(|byte| ALPHABET.iter().position(|known| *known == byte))
        .map(|value| value as u32)
        .collect();
    let mut bytes = Vec::new();
    for group in values.chunks(4) {
        let bits = group.iter().fold(0, |bits, value| bits << 6 | value);
        let bits = bits << (6 * (4 - group.len()));
        bytes.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    bytes
}

pub(crate) const REASONS: [&str; 7] =
    ["unknown", "exited", "signaled", "timedOut", "cancelled", "outOfMemory", "lost"];
pub(crate) const CODES: [&str; 13] = [
    "UNKNOWN",
    "INVALID_REQUEST",
    "UNKNOWN_COMMAND",
    "SESSION_NOT_FOUND",
    "UNAUTHENTICATED",
    "PERMISSION_DENIED",
    "DEADLINE_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "CANCELLED",
    "UNAVAILABLE",
    "INTERNAL",
    "NOT_FOUND",
    "CONFLICT",
];
