//! Over a UNIX socket: who comes is known by their uid.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use splengine_core::auth::Authenticator;
use splengine_core::session::SessionPolicy;
use splengine_core::{Engine, LocalExecutor};
use splengine_ws::WsServer;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::by_uid::{ByUid, unix_listener};

const PATIENCE: Duration = Duration::from_secs(60);

struct Local {
    engine: Engine,
    path: PathBuf,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
    _directories: [TempDir; 2],
}

async fn open(authenticator: impl Authenticator) -> Local {
    let root = tempfile::tempdir().expect("a directory");
    let executor = LocalExecutor::new(root.path()).expect("set up");
    let sessions = SessionPolicy::new().shell(["/bin/sh"]);
    let engine = Engine::builder(executor).sessions(sessions).build().expect("built");
    let (directory, path, listener) = unix_listener().await;
    let server = WsServer::builder(engine.clone()).authenticate(authenticator).listen(listener);
    let server = server.expect("bound");
    assert_eq!(server.local_addr().unix_path(), Some(&*path));
    let (stop, stopped) = oneshot::channel::<()>();
    let draining = engine.clone();
    let ended = tokio::spawn(server.run_until(async move {
        drop(stopped.await);
        draining.drain(Duration::ZERO).await;
    }));
    Local { engine, path, stop, ended, _directories: [root, directory] }
}

async fn attach(path: &Path, origin: &str) -> Result<WebSocketStream<UnixStream>, Error> {
    let stream = UnixStream::connect(path).await.expect("connects");
    let mut request = "ws://localhost/terminal".into_client_request()?;
    if !origin.is_empty() {
        let origin = HeaderValue::from_str(origin).expect("a header");
        request.headers_mut().insert("origin", origin);
    }
    Ok(client_async(request, stream).await?.0)
}

/// The next frame of this type.
async fn frame(socket: &mut WebSocketStream<UnixStream>, kind: &str) -> Option<Value> {
    let comes = async {
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Text(text) = message {
                let frame: Value = serde_json::from_str(&text).expect("JSON");
                if frame["type"] == kind {
                    return Some(frame);
                }
            }
        }
        None
    };
    timeout(PATIENCE, comes).await.expect("in time")
}

#[tokio::test]
async fn a_user_of_the_host_has_a_terminal_until_the_server_ends() {
    let local = open(ByUid::own()).await;
    let mut socket = attach(&local.path, "").await.expect("opens");
    frame(&mut socket, "session").await.expect("a session");
    let typed = json!({"type": "input", "data": "echo $((40+2))\n"}).to_string();
    socket.send(Message::text(typed)).await.expect("sent");
    loop {
        let output = frame(&mut socket, "output").await.expect("output");
        if output["data"].as_str().is_some_and(|data| data.contains("42")) {
            break;
        }
    }
    let alice = splengine_core::Caller::new("alice").expect("a name").with_all_scopes();
    assert_eq!(local.engine.sessions().list(&alice).len(), 1);
    local.stop.send(()).expect("it serves");
    assert!(frame(&mut socket, "never").await.is_none(), "it is closed");
    timeout(PATIENCE, local.ended).await.expect("in time").expect("no panic");
    assert!(!local.path.exists());
}

#[tokio::test]
async fn others_and_foreign_pages_are_refused() {
    let status = |opened: Result<_, Error>| match opened {
        Err(Error::Http(response)) => response.status().as_u16(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it opened"),
    };
    let local = open(ByUid::other()).await;
    assert_eq!(status(attach(&local.path, "").await), 401);
    let local = open(ByUid::own()).await;
    assert_eq!(status(attach(&local.path, "http://page.example.org").await), 403);
}
