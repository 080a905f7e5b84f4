use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use serde_json::json;
use splengine_core::Reason;
use splengine_core::batch::BatchPolicy;
use splengine_core::execute::LimitKind;
use splengine_core::session::SessionPolicy;
use splengine_core::store::{Change, MemoryStore, Rows, Store, StoreFault};
use tokio::time::Instant;

use crate::client::Connection;
use crate::support::*;

#[tokio::test]
async fn health_and_readiness() {
    let server = server().await;
    assert_eq!(server.get("/health").await.json(), json!({"status": "healthy"}));
    assert_eq!(server.get("/ready").await.json(), json!({"status": "ready"}));
    let mut connection = server.connect().await;
    connection.send(b"HEAD /health HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(connection.head().await.0, 200);
    // An answer from a cache would tell of a server that is no more.
    for path in ["/health", "/ready", "/metrics"] {
        assert_eq!(server.get(path).await.header("cache-control"), Some("no-store"), "{path}");
    }
}

/// A store that can't be written as long as it is broken.
#[derive(Debug, Clone, Default)]
struct Breakable {
    rows: Arc<MemoryStore>,
    is_broken: Arc<AtomicBool>,
}

impl Store for Breakable {
    fn commit(&self, changes: &[Change]) -> Result<(), StoreFault> {
        match self.is_broken.load(Relaxed) {
            true => Err(StoreFault::Io(std::io::Error::other("at /secret/place"))),
            false => self.rows.commit(changes),
        }
    }
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        self.rows.get(key)
    }
    fn scan(&self, from: &[u8], to: &[u8], back: bool, most: usize) -> Result<Rows, StoreFault> {
        self.rows.scan(from, to, back, most)
    }
}

#[tokio::test]
async fn a_part_that_fails_is_told_with_its_reason() {
    let (store, outputs) = (Breakable::default(), tempfile::tempdir().expect("a directory"));
    let policy = BatchPolicy::new(store.clone(), outputs.path());
    let server = server_with(|engine| engine.batches(policy), |http| http).await;
    let ready = json!({"status": "ready"});
    let parts = json!({"executions": ready, "sessions": ready, "batches": ready});
    assert_eq!(server.get("/ready?verbose=false").await.json(), json!({"status": "ready"}));
    for query in ["?a=b", "?verbose=perhaps"] {
        server.get(&format!("/ready{query}")).await.problem(400);
    }
    for query in ["?verbose", "?verbose=true"] {
        let told = server.get(&format!("/ready{query}")).await;
        assert_eq!(told.json(), json!({"status": "ready", "parts": parts}), "{query}");
    }
    store.is_broken.store(true, Relaxed);
    let body = json!({"steps": [{"command": "true"}]});
    let submit = async || server.ask("POST", "/api/v1/batches", Some(&body)).await.status;
    assert!(submit().await >= 500);
    let begun = Instant::now();
    let failing = loop {
        let told = server.get("/ready?verbose").await;
        if told.status == 503 {
            break told;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "it is ready still");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(failing.header("retry-after").is_some());
    let reason = "the store of batches can't be written";
    let batches = json!({"status": "failing", "reason": reason});
    let parts = json!({"executions": ready, "sessions": ready, "batches": batches});
    let whole = json!({"status": "failing", "reason": reason, "parts": parts});
    assert_eq!(failing.json(), whole);
    let brief = server.get("/ready").await;
    assert_eq!((brief.status, brief.json()), (503, batches));
    assert_eq!(server.get("/health").await.status, 200);
    store.is_broken.store(false, Relaxed);
    while server.get("/ready").await.status != 200 {
        assert!(begun.elapsed() < Duration::from_secs(30), "it is never ready again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(submit().await, 202);
}

#[tokio::test]
async fn while_draining_it_lives_but_takes_no_work() {
    let server = server().await;
    let mut connection = server.connect().await;
    let script = "echo begun; while [ ! -e go ]; do sleep 0.02; done; echo done";
    connection.post("/execute", &[TOKEN, JSON], sh(script).to_string().as_bytes()).await;
    eventually("it runs", || server.engine.stats().running == 1).await;
    let drained = tokio::spawn({
        let engine = server.engine.clone();
        async move { engine.drain(Duration::from_secs(3600)).await }
    });
    eventually("the gate is shut", || !server.engine.is_open()).await;
    assert_eq!(server.get("/health").await.status, 200);
    let ready = server.get("/ready").await;
    assert_eq!((ready.status, ready.json()), (503, json!({"status": "draining"})));
    let refused = server.execute(&sh("true")).await;
    assert!(refused.header("retry-after").is_some_and(|seconds| seconds.parse::<u64>().is_ok()));
    assert!(refused.problem(503).contains("shutting down"));
    std::fs::write(server.root.path().join("go"), "").expect("made");
    assert_eq!(connection.response().await.json()["stdout"], "begun\ndone\n");
    drained.await.expect("no panic");
}

#[tokio::test]
async fn bounds_are_told_with_a_time_to_come_back() {
    let configure = |engine: splengine_core::engine::EngineBuilder| {
        engine.max_running(1).max_waiting(1).max_waiting_per_caller(0)
    };
    let server = server_with(configure, |http| http).await;
    let mut connection = server.connect().await;
    connection.post("/execute", &[TOKEN, JSON], sh("sleep 60").to_string().as_bytes()).await;
    eventually("it runs", || server.engine.stats().running == 1).await;
    server.execute(&sh("true")).await.problem(429);
    let server = server_with(|engine| engine.max_running(1).max_waiting(0), |http| http).await;
    let mut connection = server.connect().await;
    connection.post("/execute", &[TOKEN, JSON], sh("sleep 60").to_string().as_bytes()).await;
    eventually("it runs", || server.engine.stats().running == 1).await;
    server.execute(&sh("true")).await.problem(503);
}

#[tokio::test]
async fn the_service_tells_only_what_is_enforced() {
    let server =
        server_with(|engine| engine, |http| http.interface("websocket", ":8081/terminal")).await;
    let service = server.get("/api/v1/service").await.json();
    assert_eq!(service, server.get("/info").await.json());
    assert_eq!(service["service"], "splengine");
    assert_eq!(service["interfaces"], json!({"rest": "/api/v1", "websocket": ":8081/terminal"}));
    let capabilities = service["capabilities"].as_array().expect("a list");
    for &kind in LimitKind::ALL {
        let name = json!(format!("limits.{}", kind.name()));
        assert_eq!(capabilities.contains(&name), server.engine.enforces(kind), "{name}");
    }
}

#[tokio::test]
async fn unknown_places_and_methods() {
    let server = server().await;
    server.get("/nowhere").await.problem(404);
    let refused = server.get("/execute").await;
    assert_eq!(refused.header("allow"), Some("POST"));
    refused.problem(405);
}

#[tokio::test]
async fn metrics_count_what_happens() {
    let server = server().await;
    server.run(&sh("echo four; exit 1")).await;
    server.run(&sh("setsid sleep 60 & exit 0")).await;
    server.execute(&json!({"command": "no-such-program"})).await;
    let response = server.get("/metrics").await;
    assert_eq!(
        response.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    let text = response.text();
    for line in [
        "splengine_executions_started_total 2",
        "splengine_executions_ended_total{reason=\"exited\"} 2",
        "splengine_executions_ended_total{reason=\"timedOut\"} 0",
        "splengine_executions_refused_total{kind=\"impossible\"} 1",
        "splengine_executions_running 0",
        "splengine_executions_waiting 0",
        "splengine_execution_queue_wait_seconds_count 3",
        "splengine_execution_spawn_seconds_count 2",
        "splengine_execution_run_seconds_count 2",
        "splengine_execution_run_seconds_bucket{le=\"+Inf\"} 2",
        "splengine_execution_output_bytes_total{stream=\"stdout\"} 5",
        "splengine_executions_killed_total 0",
        "splengine_execution_background_processes_ended_total 1",
        "splengine_execution_surviving_processes_total 0",
        "splengine_http_requests_total{route=\"/execute\",method=\"POST\",status=\"200\"} 2",
        "# UNIT splengine_execution_run_seconds seconds",
        "# UNIT splengine_execution_output_bytes bytes",
    ] {
        assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
    assert!(!text.contains("alice"));
}

#[tokio::test]
async fn the_readme_lists_every_metric() {
    let server = server().await;
    server.get("/health").await;
    let response = server.get("/metrics").await;
    let served: BTreeSet<(String, &str)> = response
        .text()
        .lines()
        .filter_map(|line| {
            let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
            let end = if kind == "counter" { "_total" } else { "" };
            Some((format!("{name}{end}"), kind))
        })
        .collect();
    let listed: BTreeSet<(String, &str)> = include_str!("../../README.md")
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.strip_prefix("| `splengine_")?.split_once("` | ")?;
            let (kind, _) = rest.split_once(" |")?;
            Some((format!("splengine_{name}"), kind))
        })
        .collect();
    assert_eq!(served, listed, "what /metrics has, and the table of README.md");
}

#[tokio::test]
async fn the_document_is_the_one_that_was_agreed_on() {
    let server = server().await;
    let document = server.get("/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let reasons: Vec<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(document["components"]["schemas"]["Reason"]["enum"], json!(reasons));
    // Server-sent events, by what each consists of.
    let path = "/paths/~1api~1v1~1batches~1{id}~1events/get/responses/200/content";
    let events = document.pointer(&format!("{path}/text~1event-stream/schema/properties"));
    let data = &events.expect("described")["data"];
    assert_eq!(data["contentMediaType"], "application/json");
    assert_eq!(data["contentSchema"]["$ref"], "#/components/schemas/BatchEvent");
    insta::assert_json_snapshot!("openapi", document, { ".info.version" => "[version]" });
}

#[tokio::test]
async fn the_service_can_be_nested() {
    use tower::ServiceExt as _;
    let root = tempfile::tempdir().expect("a directory");
    let executor = splengine_core::LocalExecutor::new(root.path()).expect("set up");
    let engine = splengine_core::Engine::builder(executor).build().expect("built");
    let service = splengine_http::HttpServer::builder(engine).authenticate(tokens()).into_service();

    let request = http::Request::get("/health")
        .header("host", "test")
        .body(http_body_util::Empty::new())
        .expect("built");
    let response = service.clone().oneshot(request).await.expect("never fails");
    assert_eq!(response.status(), 200);

    let app = axum::Router::new().nest_service("/spl", service);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let addr = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        let http =
            hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
        let (stream, _) = listener.accept().await.expect("accepted");
        let service = hyper_util::service::TowerToHyperService::new(app);
        let _ = http.serve_connection(hyper_util::rt::TokioIo::new(stream), service).await;
    });
    let mut connection = Connection::open(addr).await;
    connection.post("/spl/execute", &[TOKEN, JSON], sh("echo nested").to_string().as_bytes()).await;
    assert_eq!(connection.response().await.json()["stdout"], "nested\n");
}

/// Anybody may ask for it as often as they like: all are given the same bytes, not only equal ones.
#[tokio::test]
async fn the_document_is_made_once() {
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;
    let engine = splengine_core::LocalExecutor::new(std::env::temp_dir()).expect("set up");
    let engine = splengine_core::Engine::builder(engine).build().expect("built");
    let service = splengine_http::HttpServer::builder(engine).authenticate(tokens()).into_service();
    let ask = async || {
        let request = http::Request::get("/openapi.json").header("host", "test");
        let request = request.body(axum::body::Body::empty()).expect("a request");
        let answer = service.clone().oneshot(request).await.expect("never fails");
        assert_eq!(answer.status(), 200);
        let mut body = answer.into_body();
        body.frame().await.expect("a body").expect("read").into_data().expect("data")
    };
    let (first, second) = (ask().await, ask().await);
    assert!(first.len() > 10_000 && first == second);
    assert_eq!(first.as_ptr(), second.as_ptr());
}

#[tokio::test]
async fn sessions_that_were_damaged_are_told_of() {
    let root = tempfile::tempdir().expect("a directory");
    let damaged = root.path().join("spl-alice-abcdefghijklmnopqrstuvwxyz");
    std::fs::create_dir(&damaged).expect("made");
    std::fs::write(damaged.join("state"), "garbage").expect("written");
    let policy = SessionPolicy::new().store(root.path());
    let server = server_with(|engine| engine.sessions(policy), |http| http).await;
    let told = server.get("/ready?verbose").await;
    let reason = "some of what was kept of sessions can't be read; the log says which";
    let sessions = json!({"status": "degraded", "reason": reason});
    let parts = json!({"executions": {"status": "ready"}, "sessions": sessions});
    assert_eq!((told.status, told.json()), (200, json!({"status": "ready", "parts": parts})));
    assert_eq!(server.get("/ready").await.json(), json!({"status": "ready"}));
    assert!(!root.path().join("spl-alice-abcdefghijklmnopqrstuvwxyz").exists(), "set aside");
}
