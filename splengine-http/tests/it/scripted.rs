//! What the server makes of executors and authenticators, which here do as they are told.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use splengine_core::auth::{AuthError, Authenticator, CredentialSource, Credentials};
use splengine_core::execute::{Cancel, Command, Exit, ExitStatus, Output, Signal, Stdin, Stream};
use splengine_core::{Caller, Engine, Execute, ExecuteError};
use splengine_http::HttpServer;
use tokio::io::AsyncReadExt as _;
use tokio::sync::{mpsc, oneshot};

use crate::support::*;

/// Does what the command's first word says.
#[derive(Default)]
struct Actor {
    /// Hears of what a run does.
    told: Option<mpsc::UnboundedSender<&'static str>>,
}

impl Actor {
    fn new() -> (Self, mpsc::UnboundedReceiver<&'static str>) {
        let (told, heard) = mpsc::unbounded_channel();
        (Self { told: Some(told) }, heard)
    }

    fn tell(&self, what: &'static str) {
        if let Some(told) = &self.told {
            let _ = told.send(what);
        }
    }
}

impl Execute for Actor {
    async fn execute(
        &self,
        command: Command,
        stdin: Stdin,
        output: Output,
        cancel: Cancel,
    ) -> Result<Exit, ExecuteError> {
        let fine = Ok(Exit::new(ExitStatus::Code(0)));
        match command.text_argv()?[0] {
            // Something of it could not be ended.
            "clings" => {
                output.started();
                Ok(Exit::new(ExitStatus::Code(0)).tree(1, 2))
            }
            "missing" => Err(ExecuteError::ProgramNotFound("missing".to_owned())),
            "broken" => Err(ExecuteError::internal("the inside of the engine")),
            "exhausted" => Err(ExecuteError::Exhausted {
                retry_after: Duration::from_millis(2500),
                source: io::Error::other("the inside of the host"),
            }),
            "panics" => panic!("as it was told"),
            "panics-late" => {
                output.started();
                let _ = output.write(Stream::Stdout, Bytes::from_static(b"so far\n")).await;
                panic!("as it was told")
            }
            "floods" => {
                output.started();
                let one = Bytes::from(vec![b'x'; 1 << 20]);
                output.push(Stream::Stdout, one).expect("it is read");
                fine
            }
            // Prints until a reader that does not read has lost something.
            "outruns" => {
                output.started();
                for _ in 0..1024 {
                    let piece = Bytes::from(vec![b'x'; 64 << 10]);
                    output.push(Stream::Stdout, piece).expect("it is read");
                }
                self.tell("printed");
                fine
            }
            "alternates" => {
                output.started();
                for i in 0..50 {
                    let stream = if i % 2 == 0 { Stream::Stdout } else { Stream::Stderr };
                    let data = Bytes::from(format!("{i} "));
                    output.write(stream, data).await.expect("it is read");
                }
                fine
            }
            "reads" => {
                output.started();
                let mut stdin = stdin.into_reader();
                let mut first = [0; 1];
                stdin.read_exact(&mut first).await.expect("a byte");
                self.tell("began");
                cancel.stop_requested().await;
                self.tell("cancelled");
                Ok(Exit::new(ExitStatus::Signal(Signal::TERM)).stopped())
            }
            // Leaves its input alone until it is told to end.
            _ => {
                output.started();
                self.tell("began");
                cancel.stop_requested().await;
                self.tell("cancelled");
                drop(stdin);
                Ok(Exit::new(ExitStatus::Signal(Signal::TERM)).stopped())
            }
        }
    }
}

async fn hears(heard: &mut mpsc::UnboundedReceiver<&'static str>, what: &str) {
    let next = tokio::time::timeout(Duration::from_secs(30), heard.recv()).await;
    assert_eq!(next.expect("in time"), Some(what));
}

async fn events(server: &TestServer, request: Value) -> Vec<Value> {
    let headers = [TOKEN, JSON, "Accept: application/x-ndjson"];
    let response = server.post("/execute", &headers, request.to_string().as_bytes()).await;
    assert_eq!(response.status, 200);
    response.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[tokio::test]
async fn refusals_have_their_status_and_keep_the_inside_in() {
    let server = server_to(Actor::default()).await;
    for (command, status) in
        [("missing", 422), ("broken", 500), ("exhausted", 503), ("panics", 500)]
    {
        for accept in ["Accept: application/json", "Accept: text/event-stream"] {
            let body = json!({"command": command}).to_string();
            let response = server.post("/execute", &[TOKEN, JSON, accept], body.as_bytes()).await;
            let detail = response.problem(status);
            assert!(!detail.contains("inside") && !detail.contains("as it was told"), "{detail}");
            let rounded_up = response.header("retry-after").is_none_or(|seconds| seconds == "3");
            assert!(rounded_up, "{response:?}");
        }
    }
    assert_eq!(server.get("/health").await.status, 200);
}

#[tokio::test]
async fn an_executor_that_panics_late_still_has_an_end() {
    let server = server_to(Actor::default()).await;
    let result = server.run(&json!({"command": "panics-late"})).await;
    assert_eq!((&result["reason"], &result["exitCode"]), (&json!("lost"), &json!(125)));
    assert_eq!(result["stdout"], "so far\n");
    let events = events(&server, json!({"command": "panics-late"})).await;
    assert_eq!(events.last().expect("an end")["reason"], "lost");
}

#[tokio::test]
async fn an_authenticator_that_panics_costs_one_answer() {
    struct Panics;
    impl Authenticator for Panics {
        async fn authenticate(
            &self,
            _: Credentials,
            _: &CredentialSource,
        ) -> Result<Caller, AuthError> {
            panic!("as it was told")
        }
    }
    let engine = Engine::builder(Actor::default()).build().expect("built");
    let server = HttpServer::builder(engine).authenticate(Panics).bind("127.0.0.1:0");
    let server = server.await.expect("bound");
    let mut connection =
        crate::client::Connection::open(server.local_addr().tcp().expect("of TCP")).await;
    tokio::spawn(server.run_until(std::future::pending()));
    for _ in 0..2 {
        connection.post("/execute", &[TOKEN, JSON], b"{\"command\": \"a\"}").await;
        let detail = connection.response().await.problem(500);
        assert!(!detail.contains("as it was told"), "{detail}");
    }
    assert_eq!(connection.get("/health").await.status, 200);
    let text = connection.get("/metrics").await;
    let counted = "route=\"/execute\",method=\"POST\",status=\"500\"} 2";
    assert!(text.text().contains(counted), "{}", text.text());
}

#[tokio::test]
async fn an_authenticator_that_fails_asks_to_come_back() {
    struct Fails;
    impl Authenticator for Fails {
        async fn authenticate(
            &self,
            _: Credentials,
            _: &CredentialSource,
        ) -> Result<Caller, AuthError> {
            Err(AuthError::Unavailable("the inside of the directory".into()))
        }
    }
    let engine = Engine::builder(Actor::default()).build().expect("built");
    let server = HttpServer::builder(engine).authenticate(Fails).bind("127.0.0.1:0");
    let server = server.await.expect("bound");
    let mut connection =
        crate::client::Connection::open(server.local_addr().tcp().expect("of TCP")).await;
    tokio::spawn(server.run_until(std::future::pending()));
    connection.post("/execute", &[TOKEN, JSON], b"{\"command\": \"a\"}").await;
    assert!(!connection.response().await.problem(503).contains("inside"));
}

#[tokio::test]
async fn one_order_over_both_streams() {
    let server = server_to(Actor::default()).await;
    let events = events(&server, json!({"command": "alternates"})).await;
    assert_eq!(events.len(), 52);
    for (seq, event) in events.iter().enumerate() {
        assert_eq!(event["seq"], seq);
    }
    for (i, event) in events[1..51].iter().enumerate() {
        assert_eq!(event["data"], format!("{i} "));
        assert_eq!(event["event"], if i % 2 == 0 { "stdout" } else { "stderr" });
    }
}

#[tokio::test]
async fn no_event_is_longer_than_a_piece() {
    use base64::Engine as _;
    let server = server_to(Actor::default()).await;
    for encoding in ["utf8", "base64"] {
        let request = json!({"command": "floods", "outputEncoding": encoding});
        let events = events(&server, request).await;
        let mut whole = 0;
        for data in events.iter().filter_map(|event| event["data"].as_str()) {
            assert!(data.len() <= 96 << 10, "{} bytes", data.len());
            whole += if encoding == "utf8" {
                data.len()
            } else {
                base64::prelude::BASE64_STANDARD.decode(data).expect("base64").len()
            };
        }
        assert_eq!(whole, 1 << 20);
    }
}

#[tokio::test]
async fn what_a_slow_reader_loses_is_marked() {
    let (actor, mut heard) = Actor::new();
    let server = server_to(actor).await;
    let mut connection = server.connect().await;
    let body = json!({"command": "outruns", "slowReader": "lose"}).to_string();
    let headers = [TOKEN, JSON, "Accept: application/x-ndjson"];
    connection.post("/execute", &headers, body.as_bytes()).await;
    hears(&mut heard, "printed").await;
    let response = connection.response().await;
    let (mut kept, mut lost, mut end) = (0, 0, Value::Null);
    for (seq, line) in response.text().lines().filter(|line| !line.is_empty()).enumerate() {
        let event: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(event["seq"], seq);
        match event["event"].as_str().expect("text") {
            "stdout" => kept += event["data"].as_str().expect("text").len() as u64,
            "lost" => {
                assert_eq!(event["stream"], "stdout");
                lost += event["bytes"].as_u64().expect("a number");
            }
            _ => end = event,
        }
    }
    assert!(lost > 0, "nothing was lost");
    assert_eq!(kept + lost, 64 << 20);
    assert_eq!(end["stdoutBytes"], 64 << 20);
    assert_eq!((&end["stdoutTruncated"], &end["stderrTruncated"]), (&json!(true), &json!(false)));
}

#[tokio::test]
async fn a_whole_answer_has_no_slow_reader() {
    let server = server_to(Actor::default()).await;
    let request = json!({"command": "outruns", "slowReader": "lose", "outputLimit": 64 << 20});
    let result = server.run(&request).await;
    assert_eq!(result["stdoutTruncated"], false);
    assert_eq!(result["stdout"].as_str().expect("text").len(), 64 << 20);
}

#[tokio::test]
async fn a_client_that_leaves_input_unread_behind_ends_its_run() {
    let (actor, mut heard) = Actor::new();
    let server = server_to(actor).await;
    // Never reads, and read a little: the rest of the body lies before the connection's end.
    for command in ["idles", "reads"] {
        for accept in ["application/json", "text/event-stream"] {
            let mut connection = server.connect().await;
            let head = format!(
                "POST /execute?command={command} HTTP/1.1\r\nHost: test\r\n{TOKEN}\r\n\
                 Accept: {accept}\r\nContent-Type: application/octet-stream\r\n\
                 Content-Length: 10000000\r\n\r\n"
            );
            connection.send(head.as_bytes()).await;
            connection.send(&[b'x'; 100_000]).await;
            hears(&mut heard, "began").await;
            drop(connection);
            hears(&mut heard, "cancelled").await;
        }
    }
    // The same of a further request, which is read already.
    for accept in ["application/json", "text/event-stream"] {
        let mut connection = server.connect().await;
        let body = br#"{"command": "idles"}"#;
        let accept = format!("Accept: {accept}");
        let headers = [TOKEN, &accept, "Content-Type: application/json"];
        connection.post("/execute", &headers, body).await;
        hears(&mut heard, "began").await;
        connection.send(b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n").await;
        drop(connection);
        hears(&mut heard, "cancelled").await;
    }
    eventually("the places are free", || server.engine.stats().running == 0).await;
}

#[tokio::test]
async fn over_http_2_a_client_that_goes_away_ends_its_run() {
    use http_body_util::{BodyExt as _, Full};
    let (actor, mut heard) = Actor::new();
    let server = server_to(actor).await;
    let (mut client, _connection) = http_2(server.addr).await;
    for accept in ["application/json", "application/x-ndjson"] {
        let request = http::Request::post(format!("http://{}/execute", server.addr))
            .header("authorization", "Bearer alices-very-long-token")
            .header("content-type", "application/json")
            .header("accept", accept)
            .body(Full::new(Bytes::from_static(b"{\"command\": \"idles\"}")))
            .expect("built");
        let (hang_up, hung_up) = oneshot::channel::<()>();
        let answer = client.send_request(request);
        let waiting = tokio::spawn(async move {
            let whole = async { answer.await.expect("answered").into_body().collect().await };
            tokio::select! { _ = whole => panic!("it idles"), _ = hung_up => {} }
        });
        hears(&mut heard, "began").await;
        hang_up.send(()).expect("it waits");
        waiting.await.expect("no panic");
        // One stream of the connection is reset; the others are not.
        hears(&mut heard, "cancelled").await;
    }
}

#[tokio::test]
async fn a_service_that_is_dropped_half_way_ends_its_run() {
    use tower::ServiceExt as _;
    let (actor, mut heard) = Actor::new();
    let engine = Engine::builder(actor).build().expect("built");
    let service = HttpServer::builder(engine).authenticate(tokens()).into_service();
    let request = |accept: &str| {
        http::Request::post("/execute")
            .header("host", "test")
            .header("authorization", "Bearer alices-very-long-token")
            .header("content-type", "application/json")
            .header("accept", accept)
            .body(http_body_util::Full::new(Bytes::from_static(b"{\"command\": \"idles\"}")))
            .expect("built")
    };
    let whole = tokio::spawn(service.clone().oneshot(request("application/json")));
    hears(&mut heard, "began").await;
    whole.abort();
    hears(&mut heard, "cancelled").await;
    let response = service.oneshot(request("text/event-stream")).await.expect("never fails");
    hears(&mut heard, "began").await;
    drop(response);
    hears(&mut heard, "cancelled").await;
}

#[tokio::test]
async fn a_stream_that_is_refused_has_a_status() {
    let server = server_to(Actor::default()).await;
    let body = json!({"command": "missing"}).to_string();
    for path in ["/execute?failStatus=500", "/execute"] {
        let refused = server.post(path, &[TOKEN, JSON], body.as_bytes()).await;
        refused.problem(422);
    }
}

#[tokio::test]
async fn processes_that_outlive_their_run_are_counted() {
    let server = server_to(Actor::default()).await;
    assert_eq!(server.run(&json!({"command": "clings"})).await["exitCode"], 0);
    let metrics = server.get("/metrics").await;
    for line in [
        "splengine_execution_background_processes_ended_total 1",
        "splengine_execution_surviving_processes_total 2",
    ] {
        assert!(metrics.text().lines().any(|have| have == line), "{line}");
    }
}

#[tokio::test]
async fn limits_that_nobody_enforces_are_neither_told_nor_taken() {
    let server = server_to(Actor::default()).await;
    let service = server.get("/info").await.json();
    assert_eq!(
        service["capabilities"],
        json!([
            "execute",
            "execute.stream",
            "execute.stdin-stream",
            "limits.wallTime",
            "limits.output"
        ])
    );
    let request = json!({"command": "idles", "limits": {"memory": 1 << 20}});
    assert!(server.execute(&request).await.problem(422).contains("memory"));
}
