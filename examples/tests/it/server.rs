use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, LazyLock, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use russh::keys::key::safe_rng;
use russh::keys::{Algorithm, PrivateKey};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// The binary of an example; cargo builds examples before it runs tests.
pub(crate) fn example(name: &str) -> Command {
    let mut path: PathBuf =
        std::env::current_exe().expect("this test").canonicalize().expect("is there");
    path.pop();
    path.pop();
    let mut command = Command::new(path.join("examples").join(name));
    // Where it is started is its root, unless it is told another.
    command.current_dir(empty_directory());
    // Whatever the environment of this test sets.
    for (name, _) in std::env::vars() {
        if name.starts_with("SPLENGINE_") {
            command.env_remove(name);
        }
    }
    // Many of them run at once, and their addresses are no free ones unless they are told.
    command.env("SPLENGINE_AVRO", "off").env("SPLENGINE_SSH", "off");
    command.env("RUST_LOG", "warn");
    command
}

/// A new key of SSH, whose public half is written to this file.
pub(crate) fn ssh_key(file: impl AsRef<Path>) -> Arc<PrivateKey> {
    let key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).expect("a key");
    let text = key.public_key().to_openssh().expect("a text");
    std::fs::write(file, text).expect("written");
    Arc::new(key)
}

/// An example that runs, and has said that it is ready.
pub(crate) struct Server {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
    /// What it has printed on standard error so far, and who reads that.
    log: Arc<Mutex<String>>,
    logging: Option<JoinHandle<()>>,
    /// The first line on standard output.
    pub(crate) ready: String,
}

impl Server {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("was piped"));
        let mut ready = String::new();
        let overdue = KillOverdue::new(&child);
        stdout.read_line(&mut ready).expect("a line");
        overdue.cancel("it says that it is ready");
        if ready.is_empty() {
            panic!("it ended: {:?}", child.wait_with_output());
        }
        let log = Arc::<Mutex<String>>::default();
        let (read, written) = (child.stderr.take().expect("was piped"), Arc::clone(&log));
        let logging = std::thread::spawn(move || {
            for line in BufReader::new(read).lines() {
                let line = line.expect("a line") + "\n";
                written.lock().expect("no panic").push_str(&line);
            }
        });
        Self { child, stdout, log, logging: Some(logging), ready }
    }

    /// Waits until standard error has had `count` lines with these words.
    pub(crate) fn logs(&self, count: usize, words: &str) {
        eventually(words, || self.log.lock().expect("no panic").matches(words).count() >= count);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it is there");
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Its exit code, and what it printed since it was ready.
    pub(crate) fn wait(mut self) -> (Option<i32>, String, String) {
        let mut out = String::new();
        let overdue = KillOverdue::new(&self.child);
        self.stdout.read_to_string(&mut out).expect("reads");
        self.logging.take().expect("it is read once").join().expect("no panic");
        let err = std::mem::take(&mut *self.log.lock().expect("no panic"));
        let status = self.child.wait().expect("ends");
        overdue.cancel(&format!("it ends; it logged {err}"));
        (status.code(), out, err)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Kills a process that is waited for longer than a minute, so that the reader of its output continues.
struct KillOverdue {
    is_over: mpsc::Sender<()>,
    killing: JoinHandle<bool>,
}

impl KillOverdue {
    fn new(child: &Child) -> Self {
        let pid = Pid::from_child(child);
        let (is_over, over) = mpsc::channel();
        let killing = std::thread::spawn(move || {
            let is_overdue = over.recv_timeout(MAX_WAIT) == Err(mpsc::RecvTimeoutError::Timeout);
            is_overdue && kill_process(pid, Signal::KILL).is_ok()
        });
        Self { is_over, killing }
    }

    /// Fails if the process was killed.
    fn cancel(self, what: &str) {
        drop(self.is_over);
        assert!(!self.killing.join().expect("no panic"), "never: {what}");
    }
}

/// Waits for what comes by itself, for a minute at most.
pub(crate) async fn within<T>(what: &str, comes: impl Future<Output = T>) -> T {
    let came = tokio::time::timeout(MAX_WAIT, comes).await;
    came.unwrap_or_else(|_| panic!("never: {what}"))
}

const MAX_WAIT: Duration = Duration::from_secs(60);

/// The all-in-one server on a free port, with a token for alice and a root of its own.
pub(crate) struct AllInOne {
    pub(crate) server: Server,
    pub(crate) root: TempDir,
    pub(crate) addr: String,
}

pub(crate) const ALICE: &str = "alices-very-long-token";

pub(crate) fn all_in_one(arguments: &[&str]) -> AllInOne {
    let root = tempfile::tempdir().expect("a directory");
    let mut command = example("all-in-one");
    command.arg("--root").arg(root.path()).args(["--http", "127.0.0.1:0", "--ws", "127.0.0.1:0"]);
    command.args(["--token", &format!("alice={ALICE}")]).args(arguments);
    let server = Server::start(&mut command);
    let addr = addr_of(&server.ready);
    AllInOne { server, root, addr }
}

pub(crate) fn addr_of(ready: &str) -> String {
    let line: Value = serde_json::from_str(ready).unwrap_or_else(|_| panic!("not JSON: {ready}"));
    line["http"].as_str().expect("an address").to_owned()
}

/// What came back from a server that did not start.
pub(crate) fn refusal(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("runs")
}

/// A request, and its answer's status and body.
pub(crate) fn http(addr: &str, request: &str) -> std::io::Result<(u16, String)> {
    let (head, body) = exchange(addr, request)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or_else(|| std::io::Error::other("no status"))?, body))
}

/// A request, and its answer's head and body.
pub(crate) fn exchange(addr: &str, request: &str) -> std::io::Result<(String, String)> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let (head, body) = split_answer(&answer)?;
    Ok((head, String::from_utf8(body).map_err(std::io::Error::other)?))
}

/// The head and the body of a whole answer.
pub(crate) fn split_answer(answer: &[u8]) -> std::io::Result<(String, Vec<u8>)> {
    let part = || std::io::Error::other(format!("a part of an answer: {}", answer.escape_ascii()));
    let end = answer.windows(4).position(|part| part == b"\r\n\r\n").ok_or_else(part)?;
    let (head, body) = (String::from_utf8_lossy(&answer[..end]), &answer[end + 4..]);
    let header = |name: &str| {
        let lower = head.to_ascii_lowercase();
        lower.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned))
    };
    let body = match header("transfer-encoding: ") {
        Some(_) => dechunked(body).ok_or_else(part)?,
        None => body.to_vec(),
    };
    let length: Option<usize> = header("content-length: ").and_then(|length| length.parse().ok());
    if length.is_some_and(|length| length != body.len()) {
        return Err(part());
    }
    Ok((head.into_owned(), body))
}

/// A body in chunks, whose sizes stand on lines of their own; `None` if its end is missing.
fn dechunked(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|part| part == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).ok()?, 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        whole.extend(body.get(end + 2..end + 2 + size)?);
        body = body.get(end + 2 + size + 2..)?;
    }
}

pub(crate) fn get(addr: &str, path: &str) -> (u16, String) {
    http(addr, &format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"))
        .expect("an answer")
}

pub(crate) fn post(addr: &str, token: &str, body: &str) -> std::io::Result<(u16, String)> {
    let length = body.len();
    http(
        addr,
        &format!(
            "POST /execute HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        ),
    )
}

impl AllInOne {
    pub(crate) fn run(&self, body: &Value) -> Value {
        let (status, answer) = post(&self.addr, ALICE, &body.to_string()).expect("an answer");
        assert_eq!(status, 200, "{answer}");
        serde_json::from_str(&answer).expect("JSON")
    }
}

/// A directory of this test process alone, in which no earlier one has left anything: others run at the
/// same time where each test has a process of its own.
fn empty_directory() -> &'static Path {
    static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(|| {
        let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("roots");
        std::fs::create_dir_all(&all).expect("made");
        for left in std::fs::read_dir(&all).expect("read").flatten() {
            let of_process = Path::new("/proc").join(left.file_name());
            if !of_process.exists() {
                let _ = std::fs::remove_dir_all(left.path());
            }
        }
        let path = all.join(std::process::id().to_string());
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).expect("made");
        path
    });
    &DIRECTORY
}

/// Waits for a condition that nothing announces, for a minute at most.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("never: {what}");
}

/// What alice is answered.
pub(crate) fn ask(addr: &str, request: &str, body: &str) -> (u16, String) {
    let length = body.len();
    let whole = format!(
        "{request} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {ALICE}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    http(addr, &whole).expect("an answer")
}

/// Whether a process runs.
pub(crate) fn lives(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')))
}
