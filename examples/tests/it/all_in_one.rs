use std::fs::Permissions;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, SystemTime};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::server::*;
use crate::skipped::{Need, skip};

#[test]
fn it_says_once_that_it_is_ready() {
    let all = all_in_one(&[]);
    let ready: Value = serde_json::from_str(&all.server.ready).expect("JSON");
    let ws = ready["ws"].as_str().expect("an address");
    assert_eq!(ready, json!({"ready": true, "http": all.addr, "ws": ws}));
    assert_eq!(get(&all.addr, "/ready").0, 200);
    assert_eq!(all.run(&json!({"command": "echo hi"}))["stdout"], "hi\n");
    all.server.signal(Signal::TERM);
    let (code, out, err) = all.server.wait();
    assert_eq!((code, out.as_str()), (Some(0), ""), "{err}");
}

#[test]
fn it_says_that_all_commands_run_as_one_user() {
    let all = all_in_one(&[]);
    all.server.logs(1, "they all run as this one user");
    all.server.signal(Signal::TERM);
    let (_, _, log) = all.server.wait();
    let line = log.lines().find(|line| line.contains("they all run as this one user"));
    let line = line.expect("it was there");
    let own = format!("uid={}", rustix::process::geteuid().as_raw());
    assert!(line.contains("WARN") && line.contains(&own), "{line}");
    assert!(line.contains("`execute` or `sessions`"), "{line}");
}

#[test]
fn what_an_integrator_has_to_write_is_short() {
    let main = include_str!("../../all_in_one/main.rs");
    assert!(main.lines().count() < 120, "{} lines", main.lines().count());
    let readme = include_str!("../../../README.md");
    let example = readme.split("```rust,no_run\n").nth(1).expect("an example of embedding");
    let example = example.split("```").next().expect("its end");
    assert!(example.contains("Engine::builder") && example.contains("HttpServer"), "{example}");
    assert!(example.lines().count() < 25, "{} lines", example.lines().count());
}

#[test]
fn without_credentials_it_makes_a_token_and_a_link() {
    let root = tempfile::tempdir().expect("a directory");
    let mut command = example("all-in-one");
    command.arg("--root").arg(root.path()).args(["--http", "127.0.0.1:0", "--ws", "127.0.0.1:0"]);
    let server = Server::start(&mut command);
    let ready: Value = serde_json::from_str(&server.ready).expect("JSON");
    let (addr, token) =
        (ready["http"].as_str().expect("text"), ready["token"].as_str().expect("text"));
    assert!(token.len() >= 32);
    let body = r#"{"command": "printenv SPL_SESSION_ID"}"#;
    let (status, answer) = post(addr, token, body).expect("an answer");
    assert_eq!(status, 200);
    assert!(answer.contains("spl-admin-"), "{answer}");
    assert_eq!(post(addr, ALICE, body).expect("an answer").0, 401);
    // The link leads to the console.
    let ws = ready["ws"].as_str().expect("text");
    let (status, page) = get(ws, "/");
    assert_eq!(status, 200);
    assert!(page.contains("<!doctype html>"), "{page}");
    assert_eq!(get(addr, "/info").0, 200);
    // Between the lines of the log it stands by itself, with what it is for.
    let link = format!("\nOpen the console:\nhttp://{ws}/#token={token}\n\n");
    server.signal(Signal::TERM);
    let (code, _, err) = server.wait();
    assert_eq!(code, Some(0));
    assert_eq!(err.matches(&link).count(), 1, "{err}");
    assert_eq!(err.matches(token).count(), 1, "nowhere but in the link");
}

#[test]
fn anonymous_clients_are_somebody_where_asked() {
    let root = tempfile::tempdir().expect("a directory");
    let mut command = example("all-in-one");
    command.arg("--root").arg(root.path()).args([
        "--http",
        "127.0.0.1:0",
        "--ws",
        "off",
        "--anonymous",
        "guest",
    ]);
    let server = Server::start(&mut command);
    assert!(!server.ready.contains("token"));
    let request = "POST /execute HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n\
                   Content-Length: 38\r\nConnection: close\r\n\r\n{\"command\": \"printenv SPL_SESSION_ID\"}";
    let (status, answer) = http(&addr_of(&server.ready), request).expect("an answer");
    assert_eq!(status, 200);
    assert!(answer.contains("spl-guest-"), "{answer}");
}

#[test]
fn commands_see_none_of_the_servers_secrets() {
    let root = tempfile::tempdir().expect("a directory");
    let mut command = example("all-in-one");
    command.arg("--root").arg(root.path()).args(["--http", "127.0.0.1:0", "--ws", "127.0.0.1:0"]);
    command.env("SPLENGINE_TOKEN", format!("alice={ALICE}\nbob=bobs-very-long-token-too"));
    command.env("AWS_SECRET_ACCESS_KEY", "secret");
    let server = Server::start(&mut command);
    let (_, answer) =
        post(&addr_of(&server.ready), ALICE, r#"{"command": "env"}"#).expect("an answer");
    assert!(answer.contains("PATH=") && answer.contains("SPL_SESSION_ID="), "{answer}");
    for secret in [ALICE, "SPLENGINE", "AWS", "CARGO"] {
        assert!(!answer.contains(secret), "{secret}: {answer}");
    }
    let bob = post(&addr_of(&server.ready), "bobs-very-long-token-too", r#"{"command": "true"}"#);
    assert_eq!(bob.expect("an answer").0, 200);
}

#[test]
fn commands_have_the_usual_variables_where_the_server_has_none() {
    let root = tempfile::tempdir().expect("a directory");
    let mut command = example("all-in-one");
    command.arg("--root").arg(root.path()).args(["--http", "127.0.0.1:0", "--ws", "off"]);
    command.env_clear().env("SPLENGINE_TOKEN", format!("alice={ALICE}"));
    command.env("SPLENGINE_AVRO", "off").env("SPLENGINE_SSH", "off");
    let server = Server::start(&mut command);
    let addr = addr_of(&server.ready);
    let has_all = |printed: &str| {
        for name in ["HOME", "USER", "LOGNAME", "LANG", "PATH", "SHELL"] {
            let line = printed.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            assert!(line.is_some_and(|value| !value.trim().is_empty()), "{name}: {printed}");
        }
    };
    let (_, answer) = post(&addr, ALICE, r#"{"command": "env"}"#).expect("an answer");
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    has_all(answer["stdout"].as_str().expect("text"));
    let script = r#"{"command": "sh -c", "args": ["env; echo all; read line"]}"#;
    let (status, session) = ask(&addr, "POST /api/v1/sessions", script);
    assert_eq!(status, 201, "{session}");
    let session: Value = serde_json::from_str(&session).expect("JSON");
    let screen =
        format!("GET /api/v1/sessions/{}/screen", session["sessionId"].as_str().expect("an id"));
    let mut shown = String::new();
    eventually("it has printed all", || {
        shown = ask(&addr, &screen, "").1;
        shown.lines().any(|line| line.trim_end() == "all")
    });
    has_all(&shown);
}

#[test]
fn commands_cannot_read_the_servers_memory_or_environment() {
    // Root can read everything, so the server must run as another user.
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("set");
    let binary = dir.path().join("all-in-one");
    // By another process: what another test starts at this moment would have it open for writing.
    let mut copy = std::process::Command::new("cp");
    let copied = copy.arg(example("all-in-one").get_program()).arg(&binary).status();
    assert!(copied.expect("starts").success());
    let mut command = std::process::Command::new(binary);
    command.arg("--root").arg(dir.path()).args(["--http", "127.0.0.1:0", "--ws", "127.0.0.1:0"]);
    command.env_clear().env("SPLENGINE_TOKEN", format!("alice={ALICE}"));
    if rustix::process::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    let server = Server::start(&mut command);
    let script = "for file in environ mem; do head -c 1 /proc/$PPID/$file && echo $file; done";
    let body = json!({"command": "sh -c", "args": [script]}).to_string();
    let (_, answer) = post(&addr_of(&server.ready), ALICE, &body).expect("an answer");
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    assert_eq!(answer["stdout"], "", "{answer}");
    let denied = answer["stderr"].as_str().expect("text").matches("Permission denied").count();
    assert_eq!(denied, 2, "{answer}");
    server.signal(Signal::TERM);
    assert_eq!(server.wait().0, Some(0));
}

#[test]
fn a_term_lets_the_running_end_and_takes_no_new() {
    let all = all_in_one(&[]);
    let addr = all.addr.clone();
    let running = std::thread::spawn(move || {
        let script = "touch begun; while [ ! -e go ]; do sleep 0.02; done; echo whole";
        post(&addr, ALICE, &json!({"command": "sh -c", "args": [script]}).to_string())
    });
    eventually("it runs", || all.root.path().join("begun").exists());
    all.server.signal(Signal::TERM);
    eventually("it is not ready", || get(&all.addr, "/ready").0 == 503);
    assert_eq!(get(&all.addr, "/health").0, 200);
    let (status, answer) = post(&all.addr, ALICE, r#"{"command": "true"}"#).expect("an answer");
    assert_eq!(status, 503, "{answer}");
    std::fs::write(all.root.path().join("go"), "").expect("made");
    let (status, answer) = running.join().expect("no panic").expect("an answer");
    assert_eq!(status, 200);
    assert!(answer.contains("\"stdout\":\"whole\\n\""), "{answer}");
    assert_eq!(all.server.wait().0, Some(0));
}

#[test]
fn what_outlasts_the_grace_is_ended() {
    let all = all_in_one(&["--grace", "0"]);
    let addr = all.addr.clone();
    let running = std::thread::spawn(move || {
        post(&addr, ALICE, r#"{"command": "sh -c", "args": ["touch begun; exec sleep 600"]}"#)
    });
    eventually("it runs", || all.root.path().join("begun").exists());
    all.server.signal(Signal::TERM);
    let (status, answer) = running.join().expect("no panic").expect("an answer");
    assert_eq!(status, 200);
    assert!(answer.contains("\"reason\":\"cancelled\""), "{answer}");
    assert_eq!(all.server.wait().0, Some(0));
}

#[test]
fn a_second_term_ends_at_once() {
    let all = all_in_one(&["--grace", "600"]);
    let addr = all.addr.clone();
    let running = std::thread::spawn(move || {
        let script = "trap '' TERM; echo $$ > pid.new; mv pid.new pid; while :; do sleep 0.1; done";
        post(&addr, ALICE, &json!({"command": "sh -c", "args": [script]}).to_string())
    });
    let file = all.root.path().join("pid");
    eventually("it runs", || file.exists());
    all.server.signal(Signal::TERM);
    eventually("it drains", || get(&all.addr, "/ready").0 == 503);
    all.server.signal(Signal::TERM);
    let pid = std::fs::read_to_string(file).expect("written");
    assert_eq!(all.server.wait().0, Some(0));
    assert!(!Path::new("/proc").join(pid.trim()).exists(), "its run is over too");
    let _ = running.join().expect("no panic");
}

#[test]
fn a_second_term_waits_for_no_client() {
    // Connections may linger for five seconds. Whatever else this machine does.
    let mut tries = 0..3;
    while ended_by_a_second_term() >= Duration::from_secs(4) {
        tries.next().expect("it waits for its client");
    }
}

/// Returns how long that took.
fn ended_by_a_second_term() -> Duration {
    let all = all_in_one(&["--grace", "600"]);
    let mut client = TcpStream::connect(&all.addr).expect("connects");
    // More than any socket holds, so that its answer is never all on its way.
    let body = r#"{"command": "sh -c 'yes | head -c 15000000'"}"#;
    write!(
        client,
        "POST /execute HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {ALICE}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("sent");
    client.read_exact(&mut [0; 1]).expect("the answer begins");
    all.server.signal(Signal::TERM);
    eventually("it takes no more", || TcpStream::connect(&all.addr).is_err());
    let told = SystemTime::now();
    all.server.signal(Signal::TERM);
    assert_eq!(all.server.wait().0, Some(0));
    told.elapsed().expect("no clock was set")
}

#[test]
fn a_term_under_load_loses_nothing_that_was_answered() {
    let all = all_in_one(&[]);
    let (answered, stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for client in 0..12 {
            let (addr, answered, stopped) = (&all.addr, &answered, &stopped);
            scope.spawn(move || {
                for i in 0..10_000 {
                    let word = format!("{client}-{i}");
                    let body =
                        json!({"command": "sh -c", "args": [format!("echo {word}; exit 3")]});
                    match post(addr, ALICE, &body.to_string()) {
                        Ok((200, answer)) => {
                            let answer: Value = serde_json::from_str(&answer).expect("whole");
                            assert_eq!(answer["stdout"], format!("{word}\n"));
                            assert_eq!(answer["exitCode"], 3);
                            answered.fetch_add(1, SeqCst);
                        }
                        Ok((503, _)) | Err(_) => {
                            assert!(stopped.load(SeqCst), "refused before the signal");
                            return;
                        }
                        Ok(other) => panic!("{other:?}"),
                    }
                }
                panic!("it never ended");
            });
        }
        eventually("the load is on", || answered.load(SeqCst) > 50);
        stopped.store(true, SeqCst);
        all.server.signal(Signal::TERM);
    });
    assert_eq!(all.server.wait().0, Some(0));
}

#[test]
fn the_host_program_of_the_demo() {
    let spl = Path::new(env!("CARGO_MANIFEST_DIR")).join("spl");
    let program = spl.join("spl");
    let config = spl.join("spl.toml");
    let all = all_in_one(&[
        "--program",
        program.to_str().expect("text"),
        "--config",
        config.to_str().expect("text"),
    ]);
    std::fs::copy(spl.join("data/fruit.csv"), all.root.path().join("fruit.csv")).expect("copied");

    // As NiFi sends it, with the file's name filled in, and not.
    let result = all.run(&json!({"command": "data transform", "args": ["--input=fruit.csv"]}));
    assert_eq!(result["success"], true, "{result}");
    let stdout = result["stdout"].as_str().expect("text");
    assert!(
        stdout.contains("NAME,AMOUNT,YEAR\napple,1,2019\nbanana,2,2020\ncherry,3,2021\n"),
        "{stdout}"
    );
    let result = all.run(&json!({"command": "data transform", "args": ["--input=${filename}"]}));
    assert_eq!((&result["exitCode"], &result["reason"]), (&json!(1), &json!("exited")), "{result}");
    assert!(result["stderr"].as_str().expect("text").contains("${filename}"));

    // As Kafka's client does, from a directory below root.
    let below = all.root.path().join("spl/runtime/kafka-session");
    std::fs::create_dir_all(&below).expect("made");
    std::fs::copy(spl.join("data/fruit.csv"), below.join("in.csv")).expect("copied");
    let output = all.root.path().join("processed");
    let result = all.run(&json!({
        "command": "data process",
        "args": ["--input=in.csv", format!("--output={}", output.display())],
        "workdir": "/spl/runtime/kafka-session",
    }));
    assert_eq!(result["success"], true, "{result}");
    assert!(std::fs::read_to_string(output).expect("written").ends_with("0,6,6060\n"));

    let result = all.run(&json!({"command": "console log \"Hello from NiFi\""}));
    assert!(result["stdout"].as_str().expect("text").contains("Hello from NiFi"));
    // Of a write that fails only a line on standard error tells.
    let args = json!(["--input=fruit.csv", "--output=/no/such/dir/file"]);
    let result = all.run(&json!({"command": "data transform", "args": args}));
    assert!(result["stdout"].as_str().expect("text").contains("succesfully"), "{result}");
    assert_eq!(result["exitCode"], 1, "{result}");

    for args in [json!(["x @@ console log y"]), json!(["x\nconsole log y"])] {
        let body = json!({"command": "console log", "args": args}).to_string();
        assert_eq!(post(&all.addr, ALICE, &body).expect("an answer").0, 422);
    }
}

/// A cgroup of its own with little memory, where this host lets us have one.
struct SmallMemory(PathBuf);

impl SmallMemory {
    fn make() -> Option<Self> {
        let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let path = own.lines().find_map(|line| line.split_once(":memory:"))?.1;
        let parent = Path::new("/sys/fs/cgroup/memory").join(path.trim_start_matches('/'));
        let dir = parent.join(format!("splengine-test-{}", std::process::id()));
        std::fs::create_dir(&dir).ok()?;
        let small = Self(dir);
        std::fs::write(small.0.join("memory.limit_in_bytes"), "64000000").ok()?;
        Some(small)
    }
}

impl Drop for SmallMemory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn a_kill_for_memory_is_told_from_any_other() {
    let Some(memory) = SmallMemory::make() else {
        // Without it the kernel would have to run out of memory as a whole.
        return skip(Need::CgroupV1, "there can be no cgroup with little memory here");
    };
    let root = tempfile::tempdir().expect("a directory");
    let server = example("all-in-one");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""]).arg(&memory.0);
    command.arg(server.get_program()).arg("--root").arg(root.path());
    command.args(["--http", "127.0.0.1:0", "--ws", "off", "--token", &format!("alice={ALICE}")]);
    command.args(["--ssh", "off", "--avro", "off"]);
    let server = Server::start(&mut command);
    let addr = addr_of(&server.ready);
    for (command, reason) in [("tail /dev/zero", "outOfMemory"), ("sh -c 'kill -9 $$'", "signaled")]
    {
        let (_, answer) =
            post(&addr, ALICE, &json!({"command": command}).to_string()).expect("an answer");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!(
            (&answer["reason"], &answer["exitCode"], &answer["signal"]),
            (&json!(reason), &json!(137), &json!("SIGKILL"))
        );
    }
    server.signal(Signal::TERM);
    assert_eq!(server.wait().0, Some(0));
}

#[test]
fn failed_authentications_are_logged_without_what_was_shown() {
    let all = all_in_one(&[]);
    for guess in ["a-guess-of-some-length", "another-guess-of-some-length"] {
        assert_eq!(post(&all.addr, guess, r#"{"command": "true"}"#).expect("an answer").0, 401);
    }
    all.server.logs(2, "an authentication failed");
    let (_, metrics) = get(&all.addr, "/metrics");
    let counted = r#"splengine_authentication_failures_total{server="http"} 2"#;
    assert!(metrics.contains(counted), "{metrics}");
    all.server.signal(Signal::TERM);
    let (_, out, err) = all.server.wait();
    assert!(err.contains("address=127.0.0.1") && err.contains("server=\"http\""), "{err}");
    assert!(!err.contains("guess-of") && !out.contains("guess-of"), "{err}");
}
