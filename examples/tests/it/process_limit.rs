//! A host that makes no further process or thread: servers of a user who has as many as are allowed.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use russh::ChannelMsg;
use russh::client::Handle;
use rustix::process::{Signal, getuid};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::conformance::{CODES, Trusting, avro_call, text};
use crate::reload::login;
use crate::server::*;
use crate::skipped::{Need, skip};

const SHORTAGE: &str = "the host is out of resources at the moment";

/// A user of whom there is nothing yet, and whose processes and threads are bounded.
struct User {
    id: u32,
    limit: usize,
    directory: TempDir,
}

impl User {
    /// Or why there can be none here.
    fn new() -> Result<Self, &'static str> {
        if !getuid().is_root() {
            return Err(
                "only root can start a server as another user, whose processes are counted apart",
            );
        }
        let known = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let known = known.lines().filter_map(|line| line.split(':').nth(2)?.parse().ok());
        let running = fs::read_dir("/proc").expect("read").flatten();
        let running = running.filter_map(|entry| Some(entry.metadata().ok()?.uid()));
        let taken: Vec<u32> = known.chain(running).collect();
        let first = 50_000 + std::process::id() % 9_000;
        // Of those of this test binary nothing may run yet.
        static GIVEN: Mutex<Vec<u32>> = Mutex::new(Vec::new());
        let mut given = GIVEN.lock().expect("no panic");
        let is_free = |id: &u32| !taken.contains(id) && !given.contains(id);
        let id = (first..60_000).find(is_free).expect("a free one");
        given.push(id);
        drop(given);
        let is_there = Command::new("true").uid(id).gid(id).status();
        if !is_there.is_ok_and(|status| status.success()) {
            return Err("there is no such other user here");
        }
        let directory = tempfile::tempdir().expect("a directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("set");
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self { id, limit: 64 + 4 * threads, directory })
    }

    fn directory(&self, name: &str) -> std::path::PathBuf {
        let path = self.directory.path().join(name);
        fs::create_dir(&path).expect("made");
        chown(&path, Some(self.id), Some(self.id)).expect("given");
        path
    }

    /// Runs a command as this user, with all of its limit left.
    fn run(&self, command: &Command, root: &Path) -> Command {
        // Where it lies may be nobody else's to see.
        let program = Path::new(command.get_program());
        let linked = self.directory.path().join(program.file_name().expect("a name"));
        fs::hard_link(program, &linked)
            .or_else(|_| fs::copy(program, &linked).map(drop))
            .expect("a copy");
        let script = "ulimit -u $0 2>/dev/null || ulimit -p $0 || exit 1; exec \"$@\"";
        let mut run = Command::new("sh");
        run.args(["-c", script, &self.limit.to_string()]).arg(linked).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => run.env(name, value),
                None => run.env_remove(name),
            };
        }
        run.current_dir(root).uid(self.id).gid(self.id);
        run
    }

    /// Takes the whole limit; the user who starts these is not bound by it.
    fn fill(&self) -> Filled {
        let idle = || {
            let mut idle = Command::new("sleep");
            idle.arg("600").uid(self.id).gid(self.id).stdin(Stdio::null());
            idle.spawn().expect("started")
        };
        Filled((0..self.limit).map(|_| idle()).collect())
    }
}

struct Filled(Vec<Child>);

impl Drop for Filled {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().expect("it is there");
            child.wait().expect("ends");
        }
    }
}

fn user() -> Option<User> {
    User::new().map_err(|reason| skip(Need::Root, reason)).ok()
}

fn refused(told: (u16, String)) {
    let (status, problem) = told;
    assert_eq!(status, 503, "{problem}");
    assert!(problem.contains(SHORTAGE), "{problem}");
}

/// What a client of SSH is told on standard error, and its exit code.
async fn heard(client: &Handle<Trusting>, in_terminal: bool) -> (String, Option<u32>) {
    let mut channel = client.channel_open_session().await.expect("a channel");
    if in_terminal {
        channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await.expect("sent");
    }
    channel.exec(true, "true").await.expect("sent");
    let (mut told, mut code) = (Vec::new(), None);
    while let Some(message) = within("the end of a channel", channel.wait()).await {
        match message {
            ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. } => {
                told.extend_from_slice(&data);
            }
            ChannelMsg::ExitStatus { exit_status } => code = Some(exit_status),
            _ => {}
        }
    }
    (String::from_utf8(told).expect("text"), code)
}

/// The code that a call of Avro RPC is refused with, and the words.
fn refused_by_avro(addr: &str, message: &str, empty: usize) -> (&'static str, String) {
    let mut metadata = vec![2];
    text(b"spl-authorization", &mut metadata);
    text(format!("Bearer {ALICE}").as_bytes(), &mut metadata);
    let mut call = Vec::new();
    text(message.as_bytes(), &mut call);
    if message == "run" {
        text(b"true", &mut call);
    }
    call.resize(call.len() + empty, 0);
    match avro_call(addr.parse().expect("an address"), &metadata, &call) {
        Ok(_) => panic!("{message} is done"),
        Err((branch, mut error)) => {
            assert_eq!(branch, 1, "{message}");
            let code = CODES[usize::try_from(error.long()).expect("a symbol")];
            (code, error.text())
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shortage_of_processes_is_told_and_steps_wait_it_out() {
    let Some(user) = user() else { return };
    let root = user.directory("root");
    let keys = user.directory("keys");
    let key = ssh_key(keys.join("alice"));
    let mut command = example("all-in-one");
    command.arg("--root").arg(&root).arg("--authorized-keys").arg(&keys);
    command.args(["--http", "127.0.0.1:0", "--ws", "off", "--ssh", "127.0.0.1:0"]);
    command.args(["--avro", "127.0.0.1:0", "--token", &format!("alice={ALICE}")]);
    let server = Server::start(&mut user.run(&command, &root));
    let ready: Value = serde_json::from_str(&server.ready).expect("JSON");
    let addr = |server: &str| ready[server].as_str().expect("an address");
    let http = addr("http");
    let run = json!({"command": "true"}).to_string();
    assert_eq!(ask(http, "POST /execute", &run).0, 200);

    let filled = user.fill();
    let whole = format!(
        "POST /execute HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {ALICE}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{run}",
        run.len()
    );
    let (head, problem) = exchange(http, &whole).expect("an answer");
    assert!(head.to_ascii_lowercase().contains("\r\nretry-after: 1"), "{head}");
    assert!(head.starts_with("HTTP/1.1 503 ") && problem.contains(SHORTAGE), "{head}: {problem}");
    refused(ask(http, "POST /api/v1/sessions", "{}"));
    assert_eq!(ask(http, "GET /health", "").0, 200);
    for (message, empty) in [("run", 12), ("openSession", 7)] {
        let (code, told) = refused_by_avro(addr("avro"), message, empty);
        assert_eq!(code, "UNAVAILABLE", "{message}: {told}");
        assert!(told.contains(SHORTAGE), "{message}: {told}");
    }
    let client = login(addr("ssh"), &key, "alice").await;
    for in_terminal in [false, true] {
        let (told, code) = heard(&client, in_terminal).await;
        assert!(told.contains(SHORTAGE), "in a terminal: {in_terminal}: {told}");
        assert_eq!(code, Some(255), "in a terminal: {in_terminal}");
    }
    let step = json!({"command": "sh -c 'echo done'", "dependsOn": []});
    let batch = json!({"parallelism": 10, "steps": vec![step; 10]}).to_string();
    let (status, record) = ask(http, "POST /api/v1/batches", &batch);
    assert_eq!(status, 202, "{record}");
    server.logs(10, "a step waits to be started");
    let record: Value = serde_json::from_str(&record).expect("JSON");
    let id = record["id"].as_str().expect("an id");

    drop(filled);
    let mut record = Value::Null;
    eventually("the batch is over", || {
        let (_, told) = ask(http, &format!("GET /api/v1/batches/{id}"), "");
        record = serde_json::from_str(&told).expect("JSON");
        !record["ended"].is_null()
    });
    assert_eq!(record["state"], "succeeded", "{record}");
    for step in record["steps"].as_array().expect("a list") {
        assert_eq!((&step["attempt"], &step["stdoutBytes"]), (&json!(1), &json!(5)), "{step}");
    }
    assert_eq!(ask(http, "POST /execute", &run).0, 200);
    for in_terminal in [false, true] {
        assert_eq!(heard(&client, in_terminal).await.1, Some(0));
    }
    server.signal(Signal::TERM);
    let (code, _, log) = tokio::task::spawn_blocking(|| server.wait()).await.expect("no panic");
    assert!(code == Some(0) && !log.contains("panicked"), "{code:?}: {log}");
}

/// Neither when servers have been idle, so that all threads could have ended that they need not.
#[test]
fn a_shortage_of_threads_ends_nobody() {
    let Some(user) = user() else { return };
    let root = user.directory("root");
    let embedded = Server::start(&mut user.run(example("http").env("ALICE_TOKEN", ALICE), &root));
    let config = user.directory.path().join("config.toml");
    fs::write(&config, "[sessions]\nsurvive = true\n").expect("written");
    let mut command = example("all-in-one");
    command.arg("--root").arg(&root).arg("--config").arg(&config);
    command.args(["--http", "127.0.0.1:0", "--ws", "off", "--token", &format!("alice={ALICE}")]);
    let server = Server::start(&mut user.run(&command, &root));
    let run = json!({"command": "true"}).to_string();
    let execute = || ask(embedded.ready.trim(), "POST /execute", &run);
    let open = || ask(&addr_of(&server.ready), "POST /api/v1/sessions", r#"{"command": "cat"}"#);
    let count = || {
        let (_, list) = ask(&addr_of(&server.ready), "GET /api/v1/sessions", "");
        let list: Value = serde_json::from_str(&list).expect("JSON");
        list["sessions"].as_array().expect("a list").len()
    };
    assert_eq!((execute().0, open().0), (200, 201));
    // For longer than a runtime keeps threads that do nothing.
    std::thread::sleep(Duration::from_secs(11));

    let filled = user.fill();
    refused(execute());
    refused(open());
    drop(filled);
    assert_eq!((execute().0, open().0, count()), (200, 201, 2));
    for server in [embedded, server] {
        server.signal(Signal::INT);
        let (code, _, log) = server.wait();
        assert!(code == Some(0) && !log.contains("panicked"), "{code:?}: {log}");
    }
}
