//! Terminal sessions over the end of their server.

use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::server::*;

#[test]
fn a_killed_server_leaves_its_sessions_to_be_found() {
    let all = all_in_one(&["--shell", "/bin/sh"]);
    let (status, made) = ask(&all.addr, "POST /api/v1/sessions", "{}");
    assert_eq!(status, 201, "{made}");
    let made: Value = serde_json::from_str(&made).expect("JSON");
    let id = made["sessionId"].as_str().expect("an id");
    let input = format!("POST /api/v1/sessions/{id}/input");
    assert_eq!(ask(&all.addr, &input, "echo re''member\n").0, 204);
    let screen = format!("GET /api/v1/sessions/{id}/screen");
    eventually("it is said", || ask(&all.addr, &screen, "").1.contains("remember"));
    let state = all.root.path().join(format!("runtime/sessions/{id}/state"));
    eventually("it is kept", || {
        let kept = std::fs::read(&state).unwrap_or_default();
        String::from_utf8_lossy(&kept).contains("remember")
    });
    all.server.signal(Signal::KILL);
    let AllInOne { server, root, .. } = all;
    assert_eq!(server.wait().0, None);

    let mut command = example("all-in-one");
    command.arg("--root").arg(root.path()).args(["--http", "127.0.0.1:0", "--ws", "off"]);
    command.args(["--token", &format!("alice={ALICE}")]);
    let server = Server::start(&mut command);
    let addr = addr_of(&server.ready);
    let (_, found) = ask(&addr, &format!("GET /api/v1/sessions/{id}"), "");
    let found: Value = serde_json::from_str(&found).expect("JSON");
    assert_eq!(found["state"], "lost");
    assert!(ask(&addr, &screen, "").1.contains("remember"));
    let (status, recording) = ask(&addr, &format!("GET /api/v1/sessions/{id}/recording"), "");
    assert!(status == 200 && recording.contains("remember"), "{recording}");
    let (status, loaded) = ask(&addr, "POST /api/v1/sessions", &json!({"from": id}).to_string());
    assert_eq!(status, 201, "{loaded}");
    let loaded: Value = serde_json::from_str(&loaded).expect("JSON");
    assert_eq!(loaded["restored"], true);
    let again =
        format!("GET /api/v1/sessions/{}/screen", loaded["sessionId"].as_str().expect("an id"));
    assert!(ask(&addr, &again, "").1.contains("remember"));
    assert_eq!(ask(&addr, &format!("DELETE /api/v1/sessions/{id}"), "").0, 204);
    assert_eq!(ask(&addr, &format!("GET /api/v1/sessions/{id}"), "").0, 404);
}

#[test]
fn told_twice_it_ends_sessions_that_do_not_want_to() {
    let all = all_in_one(&["--shell", "/bin/sh"]);
    let stubborn = "trap '' HUP TERM INT; echo $$ > pid; while :; do sleep 1; done";
    let request = json!({"command": "sh -c", "args": [stubborn]});
    let made: Value =
        serde_json::from_str(&ask(&all.addr, "POST /api/v1/sessions", &request.to_string()).1)
            .expect("JSON");
    assert!(made["sessionId"].is_string(), "{made}");
    let file = all.root.path().join("pid");
    let pid = || std::fs::read_to_string(&file).ok()?.trim().parse::<u32>().ok();
    eventually("it runs", || pid().is_some());
    let pid = pid().expect("it runs");
    all.server.signal(Signal::TERM);
    eventually("it drains", || get(&all.addr, "/ready").0 == 503);
    all.server.signal(Signal::TERM);
    assert!(all.server.wait().0.is_some());
    eventually("it is gone", || !lives(pid));
}

/// The same server again, below the same root.
fn restarted(root: &std::path::Path, config: Option<&std::path::Path>) -> (Server, String) {
    let mut command = example("all-in-one");
    command.arg("--root").arg(root).args(["--http", "127.0.0.1:0", "--ws", "off"]);
    command.args(["--token", &format!("alice={ALICE}"), "--shell", "/bin/sh"]);
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    let server = Server::start(&mut command);
    let addr = addr_of(&server.ready);
    (server, addr)
}

fn state_of(addr: &str, id: &str) -> Value {
    let found = ask(addr, &format!("GET /api/v1/sessions/{id}"), "").1;
    serde_json::from_str::<Value>(&found).expect("JSON")["state"].take()
}

/// The number that a session's program has written to the file `pid`, once the session is kept.
fn pid_once_kept(root: &Path, id: &str) -> u32 {
    let file = root.join("pid");
    let pid = || std::fs::read_to_string(&file).ok()?.trim().parse::<u32>().ok();
    eventually("it runs", || pid().is_some());
    let state = root.join(format!("runtime/sessions/{id}/state"));
    eventually("it is kept", || state.exists());
    pid().expect("it runs")
}

#[test]
fn sessions_survive_their_server_if_told_to() {
    let config = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(config.path(), "[sessions]\nsurvive = true\n").expect("writes");
    let root = tempfile::tempdir().expect("a directory");
    let (server, addr) = restarted(root.path(), Some(config.path()));
    let made = ask(&addr, "POST /api/v1/sessions", "{}").1;
    let made: Value = serde_json::from_str(&made).expect("JSON");
    let id = made["sessionId"].as_str().expect("an id").to_owned();
    let input = format!("POST /api/v1/sessions/{id}/input");
    let screen = format!("GET /api/v1/sessions/{id}/screen");
    assert_eq!(ask(&addr, &input, "x=remembered; echo $$ > pid\n").0, 204);
    let pid = pid_once_kept(root.path(), &id);

    server.signal(Signal::KILL);
    assert_eq!(server.wait().0, None);
    let (server, addr) = restarted(root.path(), Some(config.path()));
    assert_eq!(state_of(&addr, &id), "running");
    assert_eq!(ask(&addr, &input, "echo $$ is $x\n").0, 204);
    let said = format!("{pid} is remembered");
    eventually("it goes on", || ask(&addr, &screen, "").1.contains(&said));

    // And over an orderly end, at which something is running in it.
    assert_eq!(
        ask(&addr, &input, "while [ ! -e go ]; do sleep 0.01; done; echo go''ne on\n").0,
        204
    );
    server.signal(Signal::TERM);
    assert_eq!(server.wait().0, Some(0));
    assert!(lives(pid));
    std::fs::write(root.path().join("go"), "").expect("writes");
    let (server, addr) = restarted(root.path(), Some(config.path()));
    eventually("it has gone on", || ask(&addr, &screen, "").1.contains("gone on"));
    assert_eq!(ask(&addr, &format!("DELETE /api/v1/sessions/{id}"), "").0, 204);
    assert!(!lives(pid));
    server.signal(Signal::TERM);
    assert_eq!(server.wait().0, Some(0));
}

#[test]
fn what_ignores_the_end_of_its_killed_server_is_ended_by_the_next() {
    let root = tempfile::tempdir().expect("a directory");
    let (server, addr) = restarted(root.path(), None);
    let stubborn = "trap '' HUP TERM; echo $$ > pid; while :; do sleep 1; done";
    let request = json!({"command": "sh -c", "args": [stubborn]});
    let made = ask(&addr, "POST /api/v1/sessions", &request.to_string()).1;
    let made: Value = serde_json::from_str(&made).expect("JSON");
    let id = made["sessionId"].as_str().expect("an id").to_owned();
    let pid = pid_once_kept(root.path(), &id);
    server.signal(Signal::KILL);
    assert_eq!(server.wait().0, None);
    assert!(lives(pid));
    let (_server, addr) = restarted(root.path(), None);
    assert!(!lives(pid));
    assert_eq!(state_of(&addr, &id), "lost");
}

#[test]
fn the_time_to_save_sessions_is_configured_and_who_is_not_saved_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("config.toml");
    for (timeout, is_saved) in [(60_000, true), (0, false)] {
        std::fs::write(&config, format!("[sessions]\nsave-timeout = {timeout}\n"))
            .expect("written");
        let config = config.to_str().expect("a name");
        let all = all_in_one(&["--shell", "/bin/sh", "--grace", "0", "--config", config]);
        let (status, made) = ask(&all.addr, "POST /api/v1/sessions", "{}");
        assert_eq!(status, 201, "{made}");
        let made: Value = serde_json::from_str(&made).expect("JSON");
        let id = made["sessionId"].as_str().expect("an id").to_owned();
        all.server.signal(Signal::TERM);
        let AllInOne { server, root, .. } = all;
        let (code, _, err) = server.wait();
        assert_eq!(code, Some(0), "{err}");
        let told = err.lines().any(|line| line.contains("not saved in time") && line.contains(&id));
        assert_eq!(told, !is_saved, "{err}");
        if is_saved {
            let saved = root.path().join("runtime/sessions/saved");
            assert_eq!(std::fs::read_dir(saved).expect("is there").count(), 1, "{err}");
        }
    }
}

/// Of reads at once only one may go beyond the memory, and none waits for it.
#[test]
fn the_memory_of_screens_that_are_read_and_the_wait_for_it_are_configured() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("config.toml");
    std::fs::write(&config, "[sessions]\nmax-read-bytes = 1\nread-timeout = 0\n").expect("written");
    let all = all_in_one(&["--shell", "/bin/sh", "--config", config.to_str().expect("a name")]);
    let (_, made) = ask(&all.addr, "POST /api/v1/sessions", "{}");
    let made: Value = serde_json::from_str(&made).expect("JSON");
    let screen =
        format!("GET /api/v1/sessions/{}/screen", made["sessionId"].as_str().expect("an id"));
    assert_eq!(ask(&all.addr, &screen, "").0, 200);
    eventually("one is refused", || {
        let read = || (0..20).map(|_| ask(&all.addr, &screen, "").0).collect::<Vec<_>>();
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let readers: Vec<_> = (0..8).map(|_| scope.spawn(read)).collect();
            readers.into_iter().flat_map(|reader| reader.join().expect("no panic")).collect()
        });
        assert!(statuses.iter().all(|status| [200, 429, 503].contains(status)), "{statuses:?}");
        statuses.iter().any(|status| *status != 200)
    });
}
