//! What runs or waits: seen, waited for and cancelled.

use serde_json::{Value, json};

use crate::client::Connection;
use crate::support::*;

const STREAM: &str = "Accept: application/x-ndjson";

/// A server with one place, which is taken.
async fn full() -> (TestServer, Connection) {
    let server = server_with(|engine| engine.max_running(1), |http| http).await;
    let mut connection = server.connect().await;
    let body = sh("while [ ! -e go ]; do sleep 0.02; done").to_string();
    connection.post("/execute", &[TOKEN, JSON], body.as_bytes()).await;
    eventually("it runs", || server.engine.stats().running == 1).await;
    (server, connection)
}

async fn event(connection: &mut Connection) -> Value {
    told(connection, false).await
}

/// The next event in either form. Its name is a member of the data, too.
async fn told(connection: &mut Connection, is_sse: bool) -> Value {
    let find = |text: &str| {
        let lines = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name))
                .map(|value| value.trim().to_owned())
        };
        let data = if is_sse { lines("data:") } else { Some(text.trim().to_owned()) };
        // A sign of life is an empty line, or a comment.
        let data = data.filter(|data| !data.is_empty())?;
        let event: Value = serde_json::from_str(&data).expect("one event");
        if is_sse {
            assert_eq!(Some(&json!(lines("event:"))), Some(&event["event"]), "{text}");
        }
        Some(event)
    };
    connection.find_chunk(find).await.expect("an event")
}

async fn executions(server: &TestServer) -> Vec<Value> {
    let list = server.ask("GET", "/api/v1/executions", None).await;
    assert_eq!(list.status, 200, "{}", list.text());
    list.json()["executions"].as_array().expect("a list").clone()
}

#[tokio::test]
async fn who_waits_is_told_so_at_once() {
    let (server, mut first) = full().await;
    let mut waiting = server.connect().await;
    let body = sh("echo well").to_string();
    waiting.post("/execute", &[TOKEN, JSON, STREAM], body.as_bytes()).await;
    assert_eq!(waiting.head().await.0, 200, "before there is a place");
    let queued = event(&mut waiting).await;
    assert_eq!((&queued["event"], &queued["seq"]), (&json!("queued"), &json!(0)));
    assert!(queued["executionId"].is_string() && queued["sessionId"].is_string());
    // And is never left in silence for long.
    let begun = tokio::time::Instant::now();
    assert_eq!(waiting.chunk().await.expect("a sign of life"), b"\n");
    assert!(begun.elapsed().as_secs() < 30, "a sign of life within 30 s");

    std::fs::write(server.root.path().join("go"), "").expect("made");
    assert_eq!(first.response().await.status, 200);
    let mut names = Vec::new();
    for seq in 1..=3 {
        let event = event(&mut waiting).await;
        assert_eq!(event["seq"], seq);
        names.push(event["event"].clone());
    }
    assert_eq!(names, ["started", "stdout", "exit"]);
    assert_eq!(waiting.chunk().await, None);
}

/// The same as server-sent events, and where the standard input is streamed in.
#[tokio::test]
async fn who_waits_is_told_so_in_every_form_of_a_stream() {
    const SSE: &str = "Accept: text/event-stream";
    let (server, mut first) = full().await;
    let mut all = Vec::new();
    for (accept, is_streamed) in [(SSE, false), (SSE, true), (STREAM, true)] {
        let mut waiting = server.connect().await;
        if is_streamed {
            let head = format!(
                "POST /execute?command=cat HTTP/1.1\r\nHost: test\r\n{TOKEN}\r\n{accept}\r\n\
                 Content-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            );
            waiting.send(head.as_bytes()).await;
        } else {
            let body = json!({"command": "cat", "stdin": "hi"}).to_string();
            waiting.post("/execute", &[TOKEN, JSON, accept], body.as_bytes()).await;
        }
        assert_eq!(waiting.head().await.0, 200, "before there is a place");
        let queued = told(&mut waiting, accept == SSE).await;
        assert_eq!((&queued["event"], &queued["seq"]), (&json!("queued"), &json!(0)));
        assert!(queued["executionId"].is_string() && queued["sessionId"].is_string(), "{queued}");
        all.push((waiting, accept == SSE, is_streamed));
    }
    for (waiting, is_sse, _) in &mut all {
        let sign = waiting.chunk().await.expect("a sign of life");
        assert!(if *is_sse { sign.starts_with(b":") } else { sign == b"\n" }, "{sign:?}");
    }
    std::fs::write(server.root.path().join("go"), "").expect("made");
    assert_eq!(first.response().await.status, 200);
    for (mut waiting, is_sse, is_streamed) in all {
        if is_streamed {
            waiting.send(b"2\r\nhi\r\n0\r\n\r\n").await;
        }
        let mut names = Vec::new();
        for seq in 1..=3 {
            let event = told(&mut waiting, is_sse).await;
            assert_eq!(event["seq"], seq);
            assert!(event["event"] != "stdout" || event["data"] == "hi", "{event}");
            names.push(event["event"].clone());
        }
        assert_eq!(names, ["started", "stdout", "exit"]);
    }
}

#[tokio::test]
async fn what_can_never_run_is_refused_before_it_waits() {
    let (server, _first) = full().await;
    let body = json!({"command": "no-such-program"}).to_string();
    let refused = server.post("/execute", &[TOKEN, JSON, STREAM], body.as_bytes()).await;
    refused.problem(422);
}

#[tokio::test]
async fn who_waits_at_the_end_of_the_server_is_told_an_end() {
    let (server, _first) = full().await;
    let mut waiting = server.connect().await;
    waiting.post("/execute", &[TOKEN, JSON, STREAM], sh("true").to_string().as_bytes()).await;
    waiting.head().await;
    event(&mut waiting).await;
    server.engine.kill();
    let end = event(&mut waiting).await;
    assert_eq!((&end["event"], &end["reason"]), (&json!("exit"), &json!("cancelled")), "{end}");
    assert!(end["error"].as_str().is_some_and(|error| error.contains("shutting down")), "{end}");
    assert_eq!(waiting.chunk().await, None);
}

#[tokio::test]
async fn what_runs_and_waits_is_listed_and_cancelled() {
    let (server, mut first) = full().await;
    let mut waiting = server.connect().await;
    let body = json!({"command": "echo never", "args": ["a b"]}).to_string();
    waiting.post("/execute", &[TOKEN, JSON], body.as_bytes()).await;
    eventually("the first waits", || server.engine.stats().waiting == 1).await;
    let mut streamed = server.connect().await;
    streamed.post("/execute", &[TOKEN, JSON, STREAM], body.as_bytes()).await;
    streamed.head().await;
    let queued = event(&mut streamed).await;
    eventually("both wait", || server.engine.stats().waiting == 2).await;

    let all = executions(&server).await;
    let states: Vec<&Value> = all.iter().map(|one| &one["state"]).collect();
    assert_eq!(states, ["running", "queued", "queued"]);
    assert_eq!(all[0]["command"], "sh -c");
    assert!(all[0]["started"].is_string() && all[1]["started"].is_null());
    assert_eq!((&all[1]["command"], &all[1]["args"]), (&json!("echo never"), &json!(["a b"])));
    assert_eq!(
        (&all[1]["user"], &all[2]["executionId"]),
        (&json!("alice"), &queued["executionId"])
    );

    let path =
        |one: &Value| format!("/api/v1/executions/{}", one["executionId"].as_str().expect("text"));
    // Nobody else sees or ends them, but who has `admin`.
    let mut other = server.connect().await;
    for (token, listed, list_status, delete_status) in [
        ("bob-may-do-nothing", 0, 403, 403),
        ("carol-may-execute", 0, 200, 404),
        ("dora-may-administer", 3, 200, 204),
    ] {
        let mut ask = async |request: &str| {
            let head = format!("{request} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {token}");
            other.send(format!("{head}\r\n\r\n").as_bytes()).await;
            other.response().await
        };
        let list = ask("GET /api/v1/executions").await;
        assert_eq!(list.status, list_status, "{token}");
        let found = list.json()["executions"].as_array().map_or(0, Vec::len);
        assert_eq!(found, listed, "{token}");
        let delete = ask(&format!("DELETE {}", path(&all[2]))).await;
        assert_eq!(delete.status, delete_status, "{token}");
    }
    server.ask("DELETE", "/api/v1/executions/exec-0", None).await.problem(404);
    server.ask("DELETE", &path(&all[2]), None).await.problem(404);

    for one in [&all[1], &all[0]] {
        let gone = server.ask("DELETE", &path(one), None).await;
        assert_eq!(gone.status, 204, "{}", gone.text());
        server.ask("DELETE", &path(one), None).await.problem(404);
    }
    let end = event(&mut streamed).await;
    assert_eq!((&end["event"], &end["seq"]), (&json!("exit"), &json!(1)), "it never started");
    assert_eq!((&end["reason"], &end["exitCode"]), (&json!("cancelled"), &json!(130)));
    for connection in [&mut waiting, &mut first] {
        let answer = connection.response().await;
        let result = answer.json();
        assert_eq!((answer.status, &result["reason"]), (200, &json!("cancelled")));
        assert_eq!(result["exitCode"], 130);
    }
    assert_eq!(executions(&server).await, Vec::<Value>::new());
}

#[tokio::test]
async fn everybody_may_ask_who_they_are() {
    let server = server().await;
    let alice = server.ask("GET", "/api/v1/whoami", None).await.json();
    let scopes: Vec<&str> = splengine_core::Scope::ALL.iter().map(|scope| scope.name()).collect();
    assert_eq!(alice, json!({"user": "alice", "scopes": scopes, "roles": []}));
    server.get("/api/v1/whoami").await.problem(401);
}
