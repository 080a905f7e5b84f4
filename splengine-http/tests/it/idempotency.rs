//! Requests under an `Idempotency-Key` are done once.

use serde_json::json;

use crate::support::*;

const KEY: &str = "Idempotency-Key: one\r\n";

fn runs(server: &TestServer) -> usize {
    std::fs::read_to_string(server.root.path().join("ran")).map_or(0, |ran| ran.lines().count())
}

#[tokio::test]
async fn a_command_is_run_once() {
    let server = complete_server().await;
    let body = sh("echo x >> ran; echo $$; exit 3");
    let first = server.ask_with("POST", "/execute", KEY, Some(&body)).await;
    assert_eq!((first.status, first.header("idempotency-replayed")), (200, None));
    let second = server.ask_with("POST", "/execute", KEY, Some(&body)).await;
    assert_eq!(second.header("idempotency-replayed"), Some("true"));
    assert_eq!((first.json(), runs(&server)), (second.json(), 1));
    // Another request is another one, and so is the same of another key or of none.
    let other = server.ask_with("POST", "/execute", KEY, Some(&sh("true"))).await;
    assert!(other.problem(422).contains("Idempotency-Key"));
    server.ask_with("POST", "/execute", "Idempotency-Key: two\r\n", Some(&body)).await;
    server.ask("POST", "/execute", Some(&body)).await;
    assert_eq!(runs(&server), 3);
    // The status that a failure was answered under is kept with it.
    let path = "/execute?failStatus=500";
    for _ in 0..2 {
        let failed = server.ask_with("POST", path, "Idempotency-Key: three\r\n", Some(&body)).await;
        assert_eq!(failed.status, 500);
    }
    assert_eq!(runs(&server), 4);
}

#[tokio::test]
async fn a_repetition_waits_for_a_command_whose_client_has_left() {
    let server = complete_server().await;
    let body = sh("echo x >> ran; while [ ! -e go ]; do sleep 0.02; done; echo well");
    let mut first = server.connect().await;
    let header = KEY.trim_end();
    first.post("/execute", &[TOKEN, JSON, header], body.to_string().as_bytes()).await;
    eventually("it runs", || runs(&server) == 1).await;
    let mut second = server.connect().await;
    second.post("/execute", &[TOKEN, JSON, header], body.to_string().as_bytes()).await;
    // By the time within which a client that leaves is noticed.
    drop(first);
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    std::fs::write(server.root.path().join("go"), "").expect("made");
    assert_eq!(second.response().await.json()["stdout"], "well\n");
    assert_eq!(runs(&server), 1);
}

#[tokio::test]
async fn what_was_refused_was_not_done() {
    let server = complete_server().await;
    let missing = json!({"command": "./later"});
    server.ask_with("POST", "/execute", KEY, Some(&missing)).await.problem(422);
    let program = server.root.path().join("later");
    std::fs::write(&program, "#!/bin/sh\necho well\n").expect("written");
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("set");
    let done = server.ask_with("POST", "/execute", KEY, Some(&missing)).await;
    assert_eq!(done.json()["stdout"], "well\n");
}

#[tokio::test]
async fn sessions_files_and_batches_are_made_once() {
    let server = complete_server().await;
    let session = json!({"command": "cat"});
    let mut ids = Vec::new();
    for _ in 0..2 {
        let made = server.ask_with("POST", "/api/v1/sessions", KEY, Some(&session)).await;
        assert_eq!(made.status, 201, "{}", made.text());
        assert!(made.header("location").is_some());
        ids.push(made.json()["sessionId"].clone());
    }
    assert_eq!(ids[0], ids[1]);
    let session = format!("/api/v1/sessions/{}", ids[0].as_str().expect("an id"));
    let mut saved = Vec::new();
    for _ in 0..2 {
        let path = format!("{session}/input");
        let typed = server.post(&path, &[TOKEN, "Idempotency-Key: type"], b"once\n").await;
        assert_eq!(typed.status, 204, "{}", typed.text());
        let path = format!("{session}/save");
        let kept = server.ask_with("POST", &path, "Idempotency-Key: save\r\n", None).await;
        assert_eq!(kept.status, 201, "{}", kept.text());
        saved.push(kept.json()["savedId"].clone());
    }
    assert_eq!(saved[0], saved[1]);
    for _ in 0..2 {
        let path = "/api/v1/files/a?copy=b";
        let copied = server.ask_with("POST", path, "Idempotency-Key: copy\r\n", None).await;
        assert_eq!(copied.status, 201, "{}", copied.text());
    }
    let batch = json!({"steps": [{"command": "true"}]});
    let made = server.ask("POST", "/api/v1/batches?wait=true", Some(&batch)).await.json();
    let path = format!("/api/v1/batches/{}/rerun", made["batchId"].as_str().expect("text"));
    let mut ids = Vec::new();
    for _ in 0..2 {
        let again = server.ask_with("POST", &path, KEY, None).await;
        assert_eq!(again.status, 202, "{}", again.text());
        ids.push(again.json()["batchId"].clone());
    }
    assert_eq!(ids[0], ids[1]);
    let other = server.ask_with("POST", &format!("{path}?only=failed"), KEY, None).await;
    other.problem(422);
}

#[tokio::test]
async fn a_key_that_can_not_be_heeded_is_refused() {
    let server = complete_server().await;
    let body = sh("echo x >> ran").to_string();
    let key = KEY.trim_end();
    let input = "Content-Type: application/octet-stream";
    for (path, headers) in [
        ("/execute", [TOKEN, JSON, key, "Accept: text/event-stream"]),
        ("/execute?command=sh", [TOKEN, input, key, "Accept: */*"]),
        ("/execute", [TOKEN, JSON, key, "Idempotency-Key: two"]),
        ("/execute", [TOKEN, JSON, "Idempotency-Key: a b", "Accept: */*"]),
    ] {
        let refused = server.post(path, &headers, body.as_bytes()).await.problem(400);
        assert!(refused.contains("Idempotency-Key"), "{refused}");
    }
    for (method, path) in [
        ("PUT", "/api/v1/files/c"),
        ("DELETE", "/api/v1/files/a"),
        ("POST", "/api/v1/tickets"),
        ("POST", "/api/v1/sessions/s/shares"),
        ("DELETE", "/api/v1/batches/b"),
    ] {
        let refused = server.ask_with(method, path, KEY, None).await.problem(400);
        assert!(refused.contains("Idempotency-Key"), "{method} {path}: {refused}");
    }
    assert_eq!(runs(&server), 0);
    assert_eq!(server.ask_with("GET", "/health", KEY, None).await.status, 200);
}
