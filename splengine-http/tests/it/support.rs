use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use splengine_core::auth::{Secret, SharedAuthenticator, StaticTokens};
use splengine_core::batch::BatchPolicy;
use splengine_core::engine::EngineBuilder;
use splengine_core::files::FilePolicy;
use splengine_core::session::SessionPolicy;
use splengine_core::store::MemoryStore;
use splengine_core::{Caller, Engine, Execute, LocalExecutor, Scope};
use splengine_http::{HttpServer, HttpServerBuilder};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::client::{Connection, Response};

pub(crate) const TOKEN: &str = "Authorization: Bearer alices-very-long-token";
pub(crate) const JSON: &str = "Content-Type: application/json";

/// A server on a free port, with an engine of its own.
pub(crate) struct TestServer {
    pub(crate) addr: SocketAddr,
    pub(crate) engine: Engine,
    pub(crate) root: TempDir,
    pub(crate) stop: Option<oneshot::Sender<()>>,
    pub(crate) ended: JoinHandle<()>,
}

pub(crate) fn tokens() -> StaticTokens {
    let mut tokens = StaticTokens::new();
    let alice = Caller::new("alice").expect("a user name").with_all_scopes();
    tokens.insert(&Secret::new("alices-very-long-token"), alice).expect("long enough");
    let bob = Caller::new("bob").expect("a user name");
    tokens.insert(&Secret::new("bob-may-do-nothing"), bob).expect("long enough");
    for (token, name, scopes) in [
        ("carol-may-execute", "carol", &[Scope::Execute][..]),
        ("dora-may-administer", "dora", &[Scope::Admin]),
        ("erik-has-files-too", "erik", &[Scope::Execute, Scope::Files]),
    ] {
        let caller = Caller::new(name).expect("a user name");
        let caller = caller.with_scopes(scopes.iter().copied().collect());
        tokens.insert(&Secret::new(token), caller).expect("long enough");
    }
    tokens
}

pub(crate) async fn server() -> TestServer {
    server_with(|engine| engine, |http| http).await
}

pub(crate) async fn server_with(
    configure_engine: impl FnOnce(EngineBuilder) -> EngineBuilder,
    configure_http: impl FnOnce(
        HttpServerBuilder<SharedAuthenticator>,
    ) -> HttpServerBuilder<SharedAuthenticator>,
) -> TestServer {
    let root = tempfile::tempdir().expect("a directory");
    let executor = LocalExecutor::new(root.path()).expect("set up");
    open(root, Engine::builder(executor), configure_engine, configure_http, |server| server).await
}

/// A server whose connections are served as `configure` says.
pub(crate) async fn server_on(configure: impl FnOnce(HttpServer) -> HttpServer) -> TestServer {
    server_as(|http| http, configure).await
}

pub(crate) async fn server_as(
    configure_http: impl FnOnce(
        HttpServerBuilder<SharedAuthenticator>,
    ) -> HttpServerBuilder<SharedAuthenticator>,
    configure: impl FnOnce(HttpServer) -> HttpServer,
) -> TestServer {
    let root = tempfile::tempdir().expect("a directory");
    let executor = LocalExecutor::new(root.path()).expect("set up");
    open(root, Engine::builder(executor), |engine| engine, configure_http, configure).await
}

/// A server of one run at a time, whose connections are served as `configure` says.
pub(crate) async fn server_of_one_run(
    configure: impl FnOnce(HttpServer) -> HttpServer,
) -> TestServer {
    let root = tempfile::tempdir().expect("a directory");
    let builder = Engine::builder(LocalExecutor::new(root.path()).expect("set up"));
    open(root, builder, |engine| engine.max_running(1), |http| http, configure).await
}

/// A server of an executor that does what a test tells it to.
pub(crate) async fn server_to(executor: impl Execute) -> TestServer {
    let root = tempfile::tempdir().expect("a directory");
    open(root, Engine::builder(executor), |engine| engine, |http| http, |server| server).await
}

/// A server that runs batches.
pub(crate) async fn batch_server() -> TestServer {
    batch_server_as(|http| http).await
}

pub(crate) async fn batch_server_as(
    configure: impl FnOnce(
        HttpServerBuilder<SharedAuthenticator>,
    ) -> HttpServerBuilder<SharedAuthenticator>,
) -> TestServer {
    let outputs = tempfile::tempdir().expect("a directory");
    let policy = BatchPolicy::new(MemoryStore::new(), outputs.path());
    let server = server_with(|engine| engine.batches(policy), configure).await;
    // Kept as long as the engine may write there.
    std::mem::forget(outputs);
    server
}

/// A server of everything that an engine has: sessions that are kept, batches, and files, one of which is
/// called `a`.
pub(crate) async fn complete_server() -> TestServer {
    let root = tempfile::tempdir().expect("a directory").keep();
    let files = FilePolicy::new().root(&root);
    std::fs::write(root.join("a"), "a").expect("written");
    let batches = BatchPolicy::new(MemoryStore::new(), root.join("batches"));
    let sessions = SessionPolicy::new().store(root.join("sessions"));
    server_with(|engine| engine.files(files).batches(batches).sessions(sessions), |http| http).await
}

/// A step that runs `sh -c script`.
pub(crate) fn step(id: &str, script: &str) -> Value {
    json!({"id": id, "command": "sh -c", "args": [script]})
}

async fn open(
    root: TempDir,
    builder: EngineBuilder,
    configure_engine: impl FnOnce(EngineBuilder) -> EngineBuilder,
    configure_http: impl FnOnce(
        HttpServerBuilder<SharedAuthenticator>,
    ) -> HttpServerBuilder<SharedAuthenticator>,
    configure: impl FnOnce(HttpServer) -> HttpServer,
) -> TestServer {
    let builder = builder.grace(Duration::from_millis(500));
    let engine = configure_engine(builder).build().expect("built");
    let builder = configure_http(HttpServer::builder(engine.clone()).authenticate(tokens()));
    let server = configure(builder.bind("127.0.0.1:0").await.expect("bound"));
    let addr = server.local_addr().tcp().expect("of TCP");
    let (stop, stopped) = oneshot::channel::<()>();
    let ended = tokio::spawn(server.run_until(async {
        let _ = stopped.await;
    }));
    TestServer { addr, engine, root, stop: Some(stop), ended }
}

impl TestServer {
    /// What alice is answered.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Response {
        self.ask_with(method, path, "", body).await
    }

    /// The same with further header lines, each with its end.
    pub(crate) async fn ask_with(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: Option<&Value>,
    ) -> Response {
        let body = body.map(Value::to_string);
        let kind = if body.is_some() { format!("{JSON}\r\n") } else { String::new() };
        let body = body.unwrap_or_default();
        let mut connection = self.connect().await;
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: test\r\n{TOKEN}\r\n{headers}{kind}Content-Length: {length}\r\n\r\n{body}"
        );
        connection.send(request.as_bytes()).await;
        connection.response().await
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection::open(self.addr).await
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.connect().await.get(path).await
    }

    pub(crate) async fn post(&self, path: &str, headers: &[&str], body: &[u8]) -> Response {
        let mut connection = self.connect().await;
        connection.post(path, headers, body).await;
        connection.response().await
    }

    /// `POST /execute` as alice.
    pub(crate) async fn execute(&self, request: &Value) -> Response {
        self.post("/execute", &[TOKEN, JSON], request.to_string().as_bytes()).await
    }

    /// A run's result.
    pub(crate) async fn run(&self, request: &Value) -> Value {
        let response = self.execute(request).await;
        assert_eq!(response.status, 200, "{}", response.text());
        response.json()
    }

    /// Submits a batch; its place.
    pub(crate) async fn submit(&self, request: &Value) -> String {
        let accepted = self.ask("POST", "/api/v1/batches", Some(request)).await;
        assert_eq!(accepted.status, 202, "{}", accepted.text());
        let record = accepted.json();
        let place = format!("/api/v1/batches/{}", record["batchId"].as_str().expect("an id"));
        assert_eq!(accepted.header("location"), Some(place.as_str()));
        place
    }

    /// The record of a batch once it is over.
    pub(crate) async fn over(&self, place: &str) -> Value {
        self.ask("GET", &format!("{place}/events"), None).await;
        self.ask("GET", place, None).await.json()
    }

    /// Runs a batch of this step alone to its end; where its standard output is.
    pub(crate) async fn output_of(&self, step: Value) -> String {
        let batch = self.submit(&json!({"steps": [step]})).await;
        self.over(&batch).await;
        format!("{batch}/steps/{}/stdout", step["id"].as_str().expect("an id"))
    }
}

/// A client's connection of HTTP/2, which answers pings by itself, and the task that drives it.
pub(crate) async fn http_2(
    addr: SocketAddr,
) -> (SendRequest<Full<Bytes>>, JoinHandle<hyper::Result<()>>) {
    let stream = TcpStream::connect(addr).await.expect("connects");
    let (executor, stream) = (TokioExecutor::new(), TokioIo::new(stream));
    let (client, connection) =
        hyper::client::conn::http2::handshake(executor, stream).await.expect("HTTP/2");
    (client, tokio::spawn(connection))
}

/// `sh -c script`.
pub(crate) fn sh(script: &str) -> Value {
    json!({"command": "sh -c", "args": [script]})
}

/// `request` with further members.
pub(crate) fn with(mut request: Value, members: Value) -> Value {
    let Value::Object(members) = members else { panic!("members") };
    request.as_object_mut().expect("an object").extend(members);
    request
}

/// Waits for a condition that nothing announces, for a minute at most.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

/// The same for a condition that is asked for.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let met = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let met = tokio::time::timeout(Duration::from_secs(60), met).await;
    met.unwrap_or_else(|_| panic!("never: {what}"));
}

pub(crate) fn is_alive(pid: u64) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')))
}
