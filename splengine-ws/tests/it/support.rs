use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use splengine_core::auth::{Secret, SharedAuthenticator, StaticTokens};
use splengine_core::session::SessionPolicy;
use splengine_core::{Caller, Engine, LocalExecutor};
use splengine_ws::{WsServer, WsServerBuilder};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async};

pub(crate) const ALICE: &str = "Bearer alices-very-long-token";
pub(crate) const BOB: &str = "Bearer bobs-very-long-token-too";

/// A server on a free port, with an engine of its own.
pub(crate) struct TestServer {
    pub(crate) addr: SocketAddr,
    pub(crate) engine: Engine,
    pub(crate) alice: Caller,
    pub(crate) stop: Option<oneshot::Sender<()>>,
    pub(crate) ended: JoinHandle<()>,
    _root: TempDir,
}

pub(crate) async fn server() -> TestServer {
    server_with(|policy| policy, |server| server).await
}

pub(crate) async fn server_with(
    sessions: impl FnOnce(SessionPolicy) -> SessionPolicy,
    configure: impl FnOnce(WsServerBuilder<SharedAuthenticator>) -> WsServerBuilder<SharedAuthenticator>,
) -> TestServer {
    open(sessions, configure, |server| server).await
}

/// A server whose connections are served as `configure` says.
pub(crate) async fn server_on(configure: impl FnOnce(WsServer) -> WsServer) -> TestServer {
    open(|policy| policy, |server| server, configure).await
}

async fn open(
    sessions: impl FnOnce(SessionPolicy) -> SessionPolicy,
    configure: impl FnOnce(WsServerBuilder<SharedAuthenticator>) -> WsServerBuilder<SharedAuthenticator>,
    configure_server: impl FnOnce(WsServer) -> WsServer,
) -> TestServer {
    let root = tempfile::tempdir().expect("a directory");
    let executor = LocalExecutor::new(root.path()).expect("set up");
    let policy =
        SessionPolicy::new().shell(["/bin/sh"]).store(root.path().join("runtime/sessions"));
    let engine = Engine::builder(executor)
        .grace(Duration::from_millis(500))
        .sessions(sessions(policy))
        .build()
        .expect("built");
    let mut tokens = StaticTokens::new();
    let alice = Caller::new("alice").expect("a name").with_all_scopes();
    let bob = Caller::new("bob").expect("a name").with_all_scopes();
    for (token, caller) in [(ALICE, &alice), (BOB, &bob)] {
        let token = Secret::new(token.trim_start_matches("Bearer "));
        tokens.insert(&token, caller.clone()).expect("long enough");
    }
    let builder = configure(WsServer::builder(engine.clone()).authenticate(tokens));
    let server = configure_server(builder.bind("127.0.0.1:0").await.expect("bound"));
    let addr = server.local_addr().tcp().expect("of TCP");
    let (stop, stopped) = oneshot::channel::<()>();
    let ended = tokio::spawn(server.run_until(async {
        let _ = stopped.await;
    }));
    TestServer { addr, engine, alice, stop: Some(stop), ended, _root: root }
}

/// How a client opens its WebSocket.
#[derive(Clone, Default)]
pub(crate) struct How<'a> {
    pub(crate) query: &'a str,
    pub(crate) v1: bool,
    pub(crate) headers: &'a [(&'static str, &'a str)],
}

impl TestServer {
    pub(crate) async fn open(&self, how: How<'_>) -> Result<Client, Error> {
        let mut request =
            format!("ws://{}/terminal{}", self.addr, how.query).into_client_request()?;
        let headers = request.headers_mut();
        for (name, value) in how.headers {
            headers.insert(*name, HeaderValue::from_str(value).expect("a header"));
        }
        if how.v1 {
            headers.insert("sec-websocket-protocol", HeaderValue::from_static("spl.term.v1"));
        }
        // A kernel may keep tens of megabytes for one who does not read.
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(64 << 10).expect("a size");
        let stream = socket.connect(self.addr).await.expect("connects");
        let (socket, _) = client_async(request, MaybeTlsStream::Plain(stream)).await?;
        Ok(Client { socket, typed: 0 })
    }

    /// As alice, in the plain protocol.
    pub(crate) async fn plain(&self, query: &str) -> Client {
        let headers = &[("authorization", ALICE)];
        self.open(How { query, headers, ..How::default() }).await.expect("opens")
    }

    /// As alice, in `spl.term.v1`.
    pub(crate) async fn v1(&self) -> Client {
        let headers = &[("authorization", ALICE)];
        self.open(How { v1: true, headers, ..How::default() }).await.expect("opens")
    }

    /// The status that an upgrade is refused with.
    pub(crate) async fn refusal(&self, headers: &[(&'static str, &str)]) -> u16 {
        match self.open(How { headers, ..How::default() }).await {
            Err(Error::Http(response)) => response.status().as_u16(),
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("it opened"),
        }
    }

    /// An HTTP request and its answer.
    pub(crate) async fn http(&self, request: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(self.addr).await.expect("connects");
        let whole = format!(
            "{request}\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.addr,
            body.len()
        );
        stream.write_all(whole.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }
}

/// What came from the server.
#[derive(Debug)]
pub(crate) enum Came {
    Frame(Value),
    Output { offset: u64, data: Vec<u8> },
    Snapshot { offset: u64, data: Vec<u8> },
    Closed(u16),
}

pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub(crate) typed: u64,
}

impl Client {
    pub(crate) async fn send(&mut self, frame: Value) {
        self.socket.send(Message::text(frame.to_string())).await.expect("sent");
    }

    pub(crate) async fn binary(&mut self, data: Vec<u8>) {
        self.socket.send(Message::binary(data)).await.expect("sent");
    }

    /// A message of which nothing comes, and one that is answered by a pong.
    pub(crate) async fn send_large(&mut self, length: usize) {
        self.send(json!({"type": "future", "data": "x".repeat(length)})).await;
        // The connection may be closed already.
        let _ = self.socket.send(Message::text(r#"{"type":"ping"}"#)).await;
    }

    /// A part of a message of which the rest does not come; until the server has taken it.
    pub(crate) async fn send_unfinished(&mut self, length: usize) {
        let frame = Frame::message(vec![b' '; length], OpCode::Data(Data::Text), false);
        self.socket.send(Message::Frame(frame)).await.expect("sent");
        let ping = Message::Ping(b"taken"[..].into());
        self.socket.send(ping).await.expect("sent");
        let until = Instant::now() + MAX_WAIT;
        loop {
            let message = timeout_at(until, self.socket.next()).await;
            if let Some(Ok(Message::Pong(_))) = message.expect("a pong in time") {
                return;
            }
        }
    }

    pub(crate) async fn ack(&mut self, offset: u64) {
        self.binary([&[0x12], &offset.to_be_bytes()[..]].concat()).await;
    }

    /// Types, with numbers.
    pub(crate) async fn input(&mut self, text: &str) {
        self.input_at(self.typed, text).await;
        self.typed += text.len() as u64;
    }

    pub(crate) async fn input_at(&mut self, number: u64, text: &str) {
        self.binary([&[0x11], &number.to_be_bytes()[..], text.as_bytes()].concat()).await;
    }

    pub(crate) async fn next(&mut self) -> Came {
        self.next_before(Instant::now() + MAX_WAIT).await
    }

    async fn next_before(&mut self, until: Instant) -> Came {
        // The server's pings are no sign of what is waited for.
        loop {
            let message = timeout_at(until, self.socket.next()).await;
            match message.expect("something in time") {
                Some(Ok(Message::Text(text))) => {
                    return Came::Frame(serde_json::from_str(&text).expect("JSON"));
                }
                Some(Ok(Message::Binary(data))) => {
                    let offset = u64::from_be_bytes(data[1..9].try_into().expect("8 bytes"));
                    return match data[0] {
                        1 => Came::Output { offset, data: data[9..].to_vec() },
                        2 => Came::Snapshot { offset, data: data[13..].to_vec() },
                        other => panic!("an unknown frame {other}"),
                    };
                }
                Some(Ok(Message::Close(Some(frame)))) => return Came::Closed(frame.code.into()),
                Some(Ok(_)) => {}
                Some(Err(error)) => panic!("{error}"),
                None => panic!("the connection ended without a close frame"),
            }
        }
    }

    /// The next frame of this type.
    pub(crate) async fn frame(&mut self, kind: &str) -> Value {
        // Others may come all the while.
        let until = Instant::now() + MAX_WAIT;
        loop {
            match self.next_before(until).await {
                Came::Frame(frame) if frame["type"] == kind => return frame,
                Came::Closed(code) => panic!("closed with {code} before `{kind}`"),
                _ => {}
            }
        }
    }

    /// The first text frame, whatever its type.
    pub(crate) async fn first_frame(&mut self) -> Value {
        let until = Instant::now() + MAX_WAIT;
        loop {
            match self.next_before(until).await {
                Came::Frame(frame) => return frame,
                Came::Closed(code) => panic!("closed with {code} before a frame"),
                _ => {}
            }
        }
    }

    pub(crate) async fn closed(&mut self) -> u16 {
        let until = Instant::now() + MAX_WAIT;
        loop {
            if let Came::Closed(code) = self.next_before(until).await {
                return code;
            }
        }
    }

    /// Reads until what was printed holds `needle`, and gives all of it.
    pub(crate) async fn until(&mut self, needle: &str) -> String {
        let mut seen = Vec::new();
        let mut searched = 0;
        let until = Instant::now() + MAX_WAIT;
        while !String::from_utf8_lossy(&seen[searched..]).contains(needle) {
            // It may have begun.
            searched = seen.len().saturating_sub(needle.len());
            match self.next_before(until).await {
                Came::Frame(frame) if frame["type"] == "output" => {
                    seen.extend_from_slice(frame["data"].as_str().expect("text").as_bytes());
                }
                Came::Output { data, .. } | Came::Snapshot { data, .. } => seen.extend(data),
                Came::Closed(code) => panic!("closed with {code} before {needle:?}"),
                Came::Frame(_) => {}
            }
        }
        String::from_utf8(seen).expect("UTF-8")
    }
}

/// Longest wait for one thing among others that come.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// A new session that runs `sh -c script`, for a client that has none yet.
pub(crate) fn script(script: &str) -> Value {
    json!({"type": "new_session", "command": "sh -c", "args": [script]})
}
