//! A client of the plain protocol of terminals.

use std::net::SocketAddr;

use serde_json::{Value, json};
use splengine_core::ErrorKind;
use splengine_core::testing::conformance::{ClientError, Outcome, ServerClient, TestUser};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::http::refusal;

pub(super) struct WsClient {
    pub(super) addr: SocketAddr,
    pub(super) path: &'static str,
    /// A user's header; none for a user whom the server can't know.
    pub(super) login: fn(TestUser) -> Option<String>,
}

struct WebSocket(BufReader<TcpStream>);

impl ServerClient for WsClient {
    async fn terminal(&self, user: TestUser, input: &str) -> Result<Outcome, ClientError> {
        let login = (self.login)(user).ok_or(ClientError::Unsupported)?;
        let mut socket = WebSocket::open(self.addr, self.path, &login).await?;
        let (mut shown, mut problem, mut is_typed) = (String::new(), String::new(), false);
        loop {
            let (kind, data) = socket.next().await.map_err(ClientError::failed)?;
            match kind {
                0x81 => {
                    let frame: Value =
                        serde_json::from_slice(&data).map_err(ClientError::failed)?;
                    match frame["type"].as_str().unwrap_or_default() {
                        "session" if !is_typed => {
                            is_typed = true;
                            let frame = json!({"type": "input", "data": input});
                            socket.send(&frame).await.map_err(ClientError::failed)?;
                        }
                        "output" => shown += frame["data"].as_str().unwrap_or_default(),
                        "error" => problem += frame["error"].as_str().unwrap_or_default(),
                        "exit" => {
                            let code = frame["exitCode"].as_i64().unwrap_or(-1);
                            let code = i32::try_from(code).map_err(ClientError::failed)?;
                            return Ok(Outcome::new(code).stdout(shown));
                        }
                        _ => {}
                    }
                }
                0x88 => {
                    let code = data.first_chunk().map_or(0, |code| u16::from_be_bytes(*code));
                    return Err(closed(code, problem));
                }
                _ => {}
            }
        }
    }
}

fn closed(code: u16, problem: String) -> ClientError {
    let kind = match code {
        1001 | 1012 | 1013 => ErrorKind::Unavailable,
        1011 => ErrorKind::Internal,
        4401 => ErrorKind::Unauthenticated,
        4403 => ErrorKind::Forbidden,
        4404 => ErrorKind::NotFound,
        4429 => ErrorKind::CallerLimit,
        code => return ClientError::failed(format!("closed with {code}: {problem}")),
    };
    ClientError::refused([kind], problem)
}

impl WebSocket {
    async fn open(addr: SocketAddr, path: &str, login: &str) -> Result<Self, ClientError> {
        let mut stream = TcpStream::connect(addr).await.map_err(ClientError::failed)?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: test\r\n{login}Connection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.map_err(ClientError::failed)?;
        let (mut it, mut head) = (BufReader::new(stream), String::new());
        while !head.ends_with("\r\n\r\n") {
            if it.read_line(&mut head).await.map_err(ClientError::failed)? == 0 {
                return Err(ClientError::failed("closed before an answer"));
            }
        }
        let status = head.split(' ').nth(1).unwrap_or_default();
        match status.parse().map_err(ClientError::failed)? {
            101 => Ok(Self(it)),
            status => Err(refusal(status, &head)),
        }
    }

    /// Masked by zeros, which change nothing.
    async fn send(&mut self, frame: &Value) -> std::io::Result<()> {
        let text = frame.to_string();
        let length = u8::try_from(text.len()).expect("short");
        assert!(length < 126, "a short frame");
        let head = [0x81, 0x80 | length, 0, 0, 0, 0];
        self.0.get_mut().write_all(&[&head[..], text.as_bytes()].concat()).await
    }

    /// The next frame's kind and what is in it.
    async fn next(&mut self) -> std::io::Result<(u8, Vec<u8>)> {
        let kind = self.0.read_u8().await?;
        let length = match self.0.read_u8().await? {
            126 => u64::from(self.0.read_u16().await?),
            127 => self.0.read_u64().await?,
            length => u64::from(length),
        };
        let mut data = Vec::new();
        (&mut self.0).take(length).read_to_end(&mut data).await?;
        Ok((kind, data))
    }
}
