use serde_json::{Value, json};

use crate::client::{Connection, Response};
use crate::support::*;

const NDJSON: &str = "Accept: application/x-ndjson";
const SSE: &str = "Accept: text/event-stream";
const INPUT: &str = "Content-Type: application/octet-stream";

fn lines(response: &Response) -> Vec<Value> {
    response
        .text()
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

async fn stream(server: &TestServer, request: &Value) -> Vec<Value> {
    let response =
        server.post("/execute", &[TOKEN, JSON, NDJSON], request.to_string().as_bytes()).await;
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/x-ndjson"));
    lines(&response)
}

/// The text of one stream, put together.
fn joined(events: &[Value], name: &str) -> String {
    events
        .iter()
        .filter(|e| e["event"] == name)
        .map(|e| e["data"].as_str().expect("text"))
        .collect()
}

#[tokio::test]
async fn events_count_from_the_start_to_the_exit() {
    let server = server().await;
    // Each line waits until the one before it was told: of two that lie there none is the first.
    let wait = |file: &str| format!("while [ ! -e {file} ]; do sleep 0.01; done");
    let script =
        format!("echo a; {}; echo b >&2; {}; echo c; exit 4", wait("stdout"), wait("stderr"));
    let mut connection = server.connect().await;
    let body = sh(&script).to_string();
    connection.post("/execute", &[TOKEN, JSON, NDJSON], body.as_bytes()).await;
    let (status, headers) = connection.head().await;
    assert_eq!(status, 200);
    assert!(headers.contains(&("content-type".into(), "application/x-ndjson".into())));
    let mut told = String::new();
    let all = connection.find_chunk(|chunk| {
        told += chunk;
        for name in ["stdout", "stderr"] {
            if told.contains(&format!("\"{name}\"")) {
                std::fs::write(server.root.path().join(name), "").expect("made");
            }
        }
        None::<()>
    });
    all.await;
    let told = told.lines().filter(|line| !line.is_empty());
    let events: Vec<Value> = told.map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let names: Vec<&str> = events.iter().map(|e| e["event"].as_str().expect("text")).collect();
    assert_eq!(names, ["started", "stdout", "stderr", "stdout", "exit"]);
    for (seq, event) in events.iter().enumerate() {
        assert_eq!((&event["seq"], &event["type"]), (&json!(seq), &event["event"]));
    }
    let mut exit = events[4].clone();
    assert_eq!(events[0]["sessionId"], exit["sessionId"].take());
    assert!(exit["duration"].take().is_u64());
    assert!(exit["cpuTime"].take().is_u64() && exit["peakMemory"].is_null());
    // Null where there is no cgroup that counts them.
    let processes = exit["processes"].take();
    assert!(processes.is_u64() || processes.is_null());
    assert_eq!(
        exit,
        json!({
            "event": "exit", "type": "exit", "seq": 4, "success": false, "exitCode": 4,
            "duration": null, "sessionId": null, "reason": "exited", "signal": null,
            "stdoutBytes": 4, "stderrBytes": 2,
            "stdoutTruncated": false, "stderrTruncated": false,
            "stdoutGap": null, "stderrGap": null, "cpuTime": null, "peakMemory": null,
            "processes": null,
        })
    );
}

#[tokio::test]
async fn server_sent_events_have_the_same_content() {
    let server = server().await;
    let body = sh("printf 'a\\nb'").to_string();
    let response = server.post("/execute", &[TOKEN, JSON, SSE], body.as_bytes()).await;
    assert_eq!(response.header("content-type"), Some("text/event-stream"));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert_eq!(response.header("x-accel-buffering"), Some("no"));
    let blocks: Vec<&str> =
        response.text().split("\n\n").filter(|block| !block.is_empty()).collect();
    assert_eq!(blocks.len(), 3);
    for (i, (block, name)) in blocks.iter().zip(["started", "stdout", "exit"]).enumerate() {
        let mut fields = block.lines();
        assert_eq!(fields.next(), Some(format!("event: {name}").as_str()));
        assert_eq!(fields.next(), Some(format!("id: {i}").as_str()));
        let data = fields.next().and_then(|line| line.strip_prefix("data: ")).expect("data");
        let data: Value = serde_json::from_str(data).expect("JSON");
        assert_eq!((&data["event"], &data["seq"]), (&json!(name), &json!(i)));
        assert_eq!(fields.next(), None);
    }
}

#[tokio::test]
async fn events_come_as_they_happen() {
    let server = server().await;
    let mut connection = server.connect().await;
    let body = sh("echo first; while [ ! -e go ]; do sleep 0.02; done; echo second").to_string();
    connection.post("/execute", &[TOKEN, JSON, NDJSON], body.as_bytes()).await;
    connection.head().await;
    let mut seen = String::new();
    let first = connection.find_chunk(|chunk| {
        seen += chunk;
        seen.contains("first").then_some(())
    });
    first.await.expect("an event");
    // The program waits for this very file: the first event came while it ran.
    std::fs::write(server.root.path().join("go"), "").expect("made");
    seen += std::str::from_utf8(&connection.chunks().await).expect("UTF-8");
    assert!(seen.contains("second") && seen.contains("\"exit\""));
}

#[tokio::test]
async fn no_event_ends_inside_a_character() {
    let server = server().await;
    let script = r"printf '\342'; sleep 0.05; printf '\202'; sleep 0.05; printf '\254x\342\202'; \
                   printf '\303' >&2";
    let events = stream(&server, &sh(script)).await;
    assert_eq!(joined(&events, "stdout"), "€x\u{fffd}");
    assert_eq!(joined(&events, "stderr"), "\u{fffd}");
    assert_eq!(events.last().expect("an end")["event"], "exit");

    let text = "ä€😀".repeat(40_000);
    let request = with(json!({"command": "cat"}), json!({"stdin": text}));
    assert!(joined(&stream(&server, &request).await, "stdout") == text);
}

#[tokio::test]
async fn base64_events_decode_one_by_one() {
    use base64::Engine as _;
    let server = server().await;
    let request = with(sh("head -c 200001 /dev/zero"), json!({"outputEncoding": "base64"}));
    let events = stream(&server, &request).await;
    let length: usize = events
        .iter()
        .filter_map(|event| event["data"].as_str())
        .map(|data| base64::prelude::BASE64_STANDARD.decode(data).expect("base64").len())
        .sum();
    assert_eq!(length, 200_001);
}

#[tokio::test]
async fn what_the_limit_leaves_out_is_marked() {
    let server = server().await;
    let request = with(sh("printf abcdefgh"), json!({"outputLimit": 4}));
    let events = stream(&server, &request).await;
    let parts: Vec<(&str, &Value)> = events[1..4]
        .iter()
        .map(|event| {
            let name = event["event"].as_str().expect("text");
            (name, &event[if name == "lost" { "bytes" } else { "data" }])
        })
        .collect();
    assert_eq!(parts, [("stdout", &json!("ab")), ("lost", &json!(4)), ("stdout", &json!("gh"))]);
    assert_eq!(events[2]["stream"], "stdout");
}

#[tokio::test]
async fn a_stream_is_never_silent_for_long() {
    let server = server().await;
    for (accept, sign) in [(NDJSON, "\n"), (SSE, ":\n\n")] {
        let mut connection = server.connect().await;
        let body = sh("sleep 60").to_string();
        connection.post("/execute", &[TOKEN, JSON, accept], body.as_bytes()).await;
        connection.head().await;
        connection.chunk().await.expect("started");
        let begun = tokio::time::Instant::now();
        let chunk = connection.chunk().await.expect("a sign of life");
        assert_eq!(String::from_utf8_lossy(&chunk), sign);
        assert!(begun.elapsed().as_secs() < 30, "a sign of life within 30 s");
    }
}

#[tokio::test]
async fn a_stream_that_broke_off_is_not_run_again() {
    let server = server().await;
    let body = sh("echo x >> ran").to_string();
    let headers = [TOKEN, JSON, SSE, "Last-Event-ID: 1"];
    let refused = server.post("/execute", &headers, body.as_bytes()).await.problem(400);
    assert!(refused.contains("`Last-Event-ID`"), "{refused}");
    assert!(!server.root.path().join("ran").exists());
}

async fn start_input(server: &TestServer, query: &str, accept: &str) -> Connection {
    let mut connection = server.connect().await;
    let head = format!(
        "POST /execute?{query} HTTP/1.1\r\nHost: test\r\n{TOKEN}\r\n{INPUT}\r\n{accept}\r\n\
         Transfer-Encoding: chunked\r\n\r\n"
    );
    connection.send(head.as_bytes()).await;
    connection
}

#[tokio::test]
async fn input_is_read_as_it_arrives() {
    let server = server().await;
    let mut connection =
        start_input(&server, "command=sh+-c&args=cat&outputLimit=1000", NDJSON).await;
    connection.head().await;
    connection.chunk().await.expect("started");
    for word in ["one", "two"] {
        connection.send(format!("3\r\n{word}\r\n").as_bytes()).await;
        let chunk = connection.chunk().await.expect("an echo");
        assert!(String::from_utf8_lossy(&chunk).contains(word));
    }
    connection.send(b"0\r\n\r\n").await;
    let last = connection.chunk().await.expect("the end");
    assert!(String::from_utf8_lossy(&last).contains("\"success\":true"));
}

#[tokio::test]
async fn sixty_four_mebibytes_flow_through() {
    let server = server().await;
    let body = vec![b'x'; 64 << 20];
    let query = "/execute?command=wc&arg=-c";
    let response = server.post(query, &[TOKEN, INPUT], &body).await;
    assert_eq!(response.json()["stdout"], "67108864\n");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_end_of_input() {
    let server = server().await;
    let mut connection =
        start_input(&server, "command=sh&args=-c&args=cat+%3Egot%3B+echo+%3Ewhole", "Accept: */*")
            .await;
    connection.send(b"3\r\none\r\n").await;
    eventually("the program has it", || {
        std::fs::read(server.root.path().join("got")).is_ok_and(|got| got == b"one")
    })
    .await;
    connection.send(b"not a chunk\r\n").await;
    eventually("the run is over", || server.engine.stats().running == 0).await;
    assert!(!server.root.path().join("whole").exists(), "the program took half for the whole");
}
