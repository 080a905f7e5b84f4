//! Bodies of whoever logs in or out: nothing is known of them, so they may be small and quick only.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Request, StatusCode};
use splengine_core::auth::StaticTokens;
use splengine_core::{Engine, LocalExecutor};
use splengine_ws::{WsServer, WsService};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;
use tower::ServiceExt as _;

use crate::support::server;

fn service() -> WsService {
    let engine = Engine::builder(LocalExecutor::new(".").expect("set up")).build().expect("built");
    WsServer::builder(engine).authenticate(StaticTokens::new()).into_service()
}

/// A body whose end never comes.
fn endless(begins_with: &'static [u8]) -> Body {
    let begin = stream::iter([Ok::<_, Infallible>(Bytes::from_static(begins_with))]);
    Body::from_stream(begin.chain(stream::pending()))
}

async fn post(path: &str, length: Option<u64>, body: Body) -> StatusCode {
    let mut request = Request::post(path).header("host", "localhost");
    request = request.header("content-type", "application/json");
    if let Some(length) = length {
        request = request.header("content-length", length);
    }
    let request = request.body(body).expect("a request");
    service().oneshot(request).await.expect("never fails").status()
}

#[tokio::test]
async fn a_compressed_body_is_refused() {
    for path in ["/login", "/logout"] {
        let request = Request::post(path).header("host", "localhost");
        let request = request.header("content-type", "application/json");
        let request = request.header("content-encoding", "gzip").body(Body::from("{}"));
        let answer = service().oneshot(request.expect("a request")).await.expect("never fails");
        assert_eq!(answer.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_is_waited_for_ten_seconds() {
    for path in ["/login", "/logout"] {
        let begun = Instant::now();
        assert_eq!(post(path, None, endless(b"{")).await, 408, "{path}");
        assert_eq!(begun.elapsed().as_secs(), 10, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_has_four_kibibytes() {
    static LONG: [u8; 4097] = [b' '; 4097];
    for path in ["/login", "/logout"] {
        let begun = Instant::now();
        assert_eq!(post(path, Some(4097), endless(b"")).await, 413, "{path}, announced");
        assert_eq!(post(path, None, endless(&LONG)).await, 413, "{path}, sent");
        assert!(begun.elapsed() < Duration::from_secs(1), "{path}");
        let fits = post(path, None, Body::from(&LONG[1..])).await;
        assert!(fits != 413 && fits != 408, "{path}: {fits}");
    }
}

#[tokio::test]
async fn one_host_is_named_and_no_more() {
    let server = server().await;
    for (head, status) in [
        ("GET / HTTP/1.1\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n", 400),
        ("POST /login HTTP/1.1\r\nHost: a\r\nHost: b\r\n", 400),
        ("GET /terminal HTTP/1.1\r\nHost: a/b\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a:80\r\n", 200),
    ] {
        let mut stream = tokio::net::TcpStream::connect(server.addr).await.expect("connects");
        let request = format!("{head}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("answered");
        let begin = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(begin.as_bytes()), "{head:?}");
    }
}

/// Each ping is answered: one who reads no answers is not read from either, whoever it is.
#[tokio::test]
async fn pings_of_clients_that_read_no_answers_are_not_taken_for_ever() {
    let server = server().await;
    for credentials in ["", "Authorization: Bearer alices-very-long-token\r\n"] {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(64 << 10).expect("a size");
        let mut client = socket.connect(server.addr).await.expect("connects");
        let addr = server.addr;
        let upgrade = format!(
            "GET /terminal HTTP/1.1\r\nHost: {addr}\r\nOrigin: http://{addr}\r\n{credentials}Connection: upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        client.write_all(upgrade.as_bytes()).await.expect("sent");
        let mut head = [0; 12];
        client.read_exact(&mut head).await.expect("an answer");
        assert_eq!(&head, b"HTTP/1.1 101");
        // Masked by zeros.
        let ping = [&[0x89, 0x80 | 125, 0, 0, 0, 0][..], &[b'p'; 125]].concat();
        let pings = ping.repeat(512);
        let mut sent = 0;
        while let Ok(Ok(())) =
            tokio::time::timeout(Duration::from_secs(2), client.write_all(&pings)).await
        {
            sent += pings.len();
            assert!(sent < 64 << 20, "all of them are taken");
        }
    }
}
