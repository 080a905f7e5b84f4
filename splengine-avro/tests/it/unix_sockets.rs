//! Over a UNIX socket: who comes is known by their uid.

use std::path::PathBuf;
use std::time::Duration;

use splengine_avro::AvroServer;
use splengine_core::Engine;
use splengine_core::auth::Authenticator;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::by_uid::{ByUid, unix_listener};
use crate::client::{Actor, Client, eventually, execute, message, within};

struct Local {
    engine: Engine,
    path: PathBuf,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
    _directory: TempDir,
}

async fn open(authenticator: impl Authenticator) -> Local {
    let engine = Engine::builder(Actor).build().expect("built");
    let (directory, path, listener) = unix_listener().await;
    let builder = AvroServer::builder(engine.clone()).authenticate(authenticator);
    let server = builder.listen(listener).expect("bound");
    assert_eq!(server.local_addr().unix_path(), Some(&*path));
    let (stop, stopped) = oneshot::channel::<()>();
    let draining = engine.clone();
    let ended = tokio::spawn(server.run_until(async move {
        drop(stopped.await);
        draining.drain(Duration::ZERO).await;
    }));
    Local { engine, path, stop, ended, _directory: directory }
}

async fn connect(local: &Local) -> UnixStream {
    UnixStream::connect(&local.path).await.expect("connects")
}

/// A call over HTTP, and the whole answer.
async fn over_http(local: &Local, word: &str) -> Vec<u8> {
    let mut stream = connect(local).await;
    let body = message(&execute(word));
    let head = format!(
        "POST /avro HTTP/1.1\r\nHost: localhost\r\nContent-Type: avro/binary\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), &body].concat()).await.expect("sent");
    let mut answer = Vec::new();
    within("an answer", stream.read_to_end(&mut answer)).await.expect("read");
    answer
}

#[tokio::test]
async fn a_user_of_the_host_makes_calls_until_the_server_ends() {
    let local = open(ByUid::own()).await;
    let mut client = Client::new(connect(&local).await);
    client.shake_hands().await;
    client.execute(1, "word").await;
    assert_eq!(client.result().await.1.stdout, "word");
    let answer = over_http(&local, "another").await;
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with("HTTP/1.1 200 ") && text.contains("another"), "{text}");
    client.execute(2, "wait").await;
    eventually("it runs", || local.engine.stats().running == 1).await;
    local.stop.send(()).expect("it serves");
    assert_eq!(client.answer().await.0, 2, "it is told how it ended");
    assert!(client.is_closed().await);
    timeout(Duration::from_secs(60), local.ended).await.expect("in time").expect("no panic");
    assert!(!local.path.exists());
}

#[tokio::test]
async fn others_are_refused() {
    let local = open(ByUid::other()).await;
    let mut client = Client::new(connect(&local).await);
    client.shake_hands().await;
    client.execute(1, "word").await;
    let (_, answer) = client.answer().await;
    assert!(String::from_utf8_lossy(&answer).contains("UNAUTHENTICATED"), "{answer:?}");
    let answer = over_http(&local, "word").await;
    let text = String::from_utf8_lossy(&answer);
    assert!(text.contains("UNAUTHENTICATED"), "{text}");
    assert_eq!(local.engine.stats().started, 0);
}

#[tokio::test]
async fn what_runs_ends_with_its_client() {
    let local = open(ByUid::own()).await;
    let mut client = Client::new(connect(&local).await);
    client.shake_hands().await;
    client.execute(1, "wait").await;
    eventually("it runs", || local.engine.stats().running == 1).await;
    drop(client);
    eventually("it is cancelled", || local.engine.stats().running == 0).await;
}
