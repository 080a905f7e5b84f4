//! Over a UNIX socket: who comes is known by their uid.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use splengine_core::auth::Authenticator;
use splengine_core::{Engine, LocalExecutor};
use splengine_http::HttpServer;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::by_uid::{ByUid, unix_listener};
use crate::support::{eventually, sh};

const PATIENCE: Duration = Duration::from_secs(60);

struct Local {
    engine: Engine,
    path: std::path::PathBuf,
    root: TempDir,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
    _directory: TempDir,
}

async fn open(
    authenticator: impl Authenticator,
    configure: impl FnOnce(HttpServer) -> HttpServer,
) -> Local {
    let root = tempfile::tempdir().expect("a directory");
    let executor = LocalExecutor::new(root.path()).expect("set up");
    let engine = Engine::builder(executor).build().expect("built");
    let (directory, path, listener) = unix_listener().await;
    let builder = HttpServer::builder(engine.clone()).authenticate(authenticator);
    let server = configure(builder.listen(listener).expect("bound"));
    assert_eq!(server.local_addr().unix_path(), Some(&*path));
    let (stop, stopped) = oneshot::channel::<()>();
    let draining = engine.clone();
    let ended = tokio::spawn(server.run_until(async move {
        drop(stopped.await);
        draining.drain(PATIENCE).await;
    }));
    Local { engine, path, root, stop, ended, _directory: directory }
}

async fn begin(path: &Path, host: &str, body: &Value) -> UnixStream {
    let mut stream = UnixStream::connect(path).await.expect("connects");
    let body = body.to_string();
    let request = format!(
        "POST /execute HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    stream
}

async fn answer(mut stream: UnixStream) -> (u16, String) {
    let mut answer = String::new();
    let read = timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("in time");
    read.expect("an answer");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no status: {answer}")), answer)
}

#[tokio::test]
async fn a_user_of_the_host_runs_commands() {
    let local = open(ByUid::own(), |server| server).await;
    // As curl names the host, and those who name none.
    for host in ["localhost", "engine", ""] {
        let stream = begin(&local.path, host, &json!({"command": "echo hi"})).await;
        let (status, text) = answer(stream).await;
        assert_eq!(status, 200, "{host}: {text}");
        assert!(text.contains(r#""stdout":"hi\n""#), "{text}");
    }
    let mut stream = UnixStream::connect(&local.path).await.expect("connects");
    let request = b"GET /api/v1/whoami HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.expect("sent");
    assert!(answer(stream).await.1.contains(r#""user":"alice""#));
    // A page behind anybody's name could come through a proxy that this user runs.
    let stream = begin(&local.path, "rebind.example.org", &json!({"command": "echo hi"})).await;
    assert_eq!(answer(stream).await.0, 403);
}

#[tokio::test]
async fn others_are_refused() {
    let local = open(ByUid::other(), |server| server).await;
    let stream = begin(&local.path, "localhost", &json!({"command": "echo hi"})).await;
    let (status, text) = answer(stream).await;
    assert_eq!(status, 401, "{text}");
    assert_eq!(local.engine.stats().started, 0);
}

#[tokio::test]
async fn silent_connections_of_a_user_are_bounded() {
    use splengine_core::net::ConnectionLimits;
    let limits = ConnectionLimits::new().max_unauthenticated_per_address(1);
    let local = open(ByUid::own(), |server| server.connection_limits(limits)).await;
    let mut silent = Vec::new();
    for _ in 0..2 {
        silent.push(UnixStream::connect(&local.path).await.expect("connects"));
    }
    let read = timeout(PATIENCE, silent[0].read(&mut [0; 1])).await.expect("closed in time");
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    assert_eq!(local.engine.stats().connections.evicted, 1);
    let stream = begin(&local.path, "localhost", &json!({"command": "echo hi"})).await;
    assert_eq!(answer(stream).await.0, 200);
}

#[tokio::test]
async fn what_runs_ends_with_its_client() {
    let local = open(ByUid::own(), |server| server).await;
    let stream = begin(&local.path, "localhost", &sh("exec sleep 600")).await;
    eventually("it runs", || local.engine.stats().running == 1).await;
    drop(stream);
    eventually("it is cancelled", || local.engine.stats().running == 0).await;
}

#[tokio::test]
async fn what_runs_is_answered_while_the_server_ends() {
    let local = open(ByUid::own(), |server| server).await;
    let script = sh("touch begun; while [ ! -e go ]; do sleep 0.02; done; echo whole");
    let stream = begin(&local.path, "localhost", &script).await;
    let root = local.root.path().to_owned();
    eventually("it runs", || root.join("begun").exists()).await;
    local.stop.send(()).expect("it serves");
    local.engine.closed().await;
    std::fs::write(root.join("go"), "").expect("written");
    let (status, text) = answer(stream).await;
    assert!(status == 200 && text.contains(r#""stdout":"whole\n""#), "{text}");
    timeout(PATIENCE, local.ended).await.expect("in time").expect("no panic");
    assert!(!local.path.exists());
}
