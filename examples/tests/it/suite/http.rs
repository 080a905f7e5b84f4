//! A client of HTTP.

use serde_json::{Value, json};
use splengine_core::net::ListenAddr;
use splengine_core::testing::conformance::{ClientError, Outcome, ServerClient, TestUser};
use splengine_core::{ErrorKind, Reason};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::conformance::base64;
use crate::server::split_answer;

pub(super) struct HttpClient {
    pub(super) addr: ListenAddr,
    /// What the paths begin with.
    pub(super) prefix: &'static str,
    /// A user's header; none for a user whom the server can't know.
    pub(super) login: fn(TestUser) -> Option<String>,
}

impl HttpClient {
    /// The body of an answer of success.
    async fn ask(
        &self,
        user: TestUser,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> Result<Vec<u8>, ClientError> {
        let login = (self.login)(user).ok_or(ClientError::Unsupported)?;
        let mut stream = connect(&self.addr).await.map_err(ClientError::failed)?;
        let (prefix, length) = (self.prefix, body.len());
        let head = format!(
            "{method} {prefix}{path} HTTP/1.1\r\nHost: test\r\n{login}Content-Length: {length}\r\n\
             Content-Type: application/json\r\nConnection: close\r\n\r\n"
        );
        // Who is refused at once is told so, whatever else was to be sent.
        let _ = stream.write_all(&[head.as_bytes(), body].concat()).await;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.map_err(ClientError::failed)?;
        let (head, body) = split_answer(&answer).map_err(ClientError::failed)?;
        let status = head.split(' ').nth(1).unwrap_or_default();
        match status.parse().map_err(ClientError::failed)? {
            200..300 => Ok(body),
            status => Err(refusal(status, &String::from_utf8_lossy(&body))),
        }
    }

    async fn ask_json(
        &self,
        user: TestUser,
        path: &str,
        body: &Value,
    ) -> Result<Value, ClientError> {
        let body = self.ask(user, "POST", path, body.to_string().as_bytes()).await?;
        serde_json::from_slice(&body).map_err(ClientError::failed)
    }
}

impl ServerClient for HttpClient {
    async fn execute(
        &self,
        user: TestUser,
        argv: &[&str],
        stdin: &[u8],
    ) -> Result<Outcome, ClientError> {
        let body = json!({
            "command": argv[0], "args": argv[1..], "outputEncoding": "base64",
            "stdin": encoded(stdin), "stdinEncoding": "base64",
        });
        let answer = self.ask_json(user, "/api/v1/execute", &body).await?;
        let bytes = |name: &str| base64(answer[name].as_str().unwrap_or_default());
        let reason = Reason::ALL.iter().find(|reason| answer["reason"] == reason.name());
        let outcome = Outcome::new(code(&answer)).stdout(bytes("stdout")).stderr(bytes("stderr"));
        Ok(outcome.reason(*reason.ok_or_else(|| ClientError::failed("no reason"))?))
    }

    async fn write_file(&self, user: TestUser, path: &str, data: &[u8]) -> Result<(), ClientError> {
        self.ask(user, "PUT", &format!("/api/v1/files/{path}"), data).await.map(drop)
    }

    async fn read_file(&self, user: TestUser, path: &str) -> Result<Vec<u8>, ClientError> {
        self.ask(user, "GET", &format!("/api/v1/files/{path}"), b"").await
    }

    async fn batch(&self, user: TestUser, steps: &[&[&str]]) -> Result<Outcome, ClientError> {
        let steps = steps.iter().map(|argv| json!({"command": argv[0], "args": argv[1..]}));
        let body = json!({"steps": steps.collect::<Vec<_>>()});
        let answer = self.ask_json(user, "/api/v1/batches?wait=true", &body).await?;
        Ok(Outcome::new(code(&answer)).stdout(answer["stdout"].as_str().unwrap_or_default()))
    }
}

trait Stream: AsyncRead + AsyncWrite {}

impl<S: AsyncRead + AsyncWrite> Stream for S {}

async fn connect(addr: &ListenAddr) -> std::io::Result<Box<dyn Stream + Send + Unpin>> {
    Ok(match addr {
        ListenAddr::Tcp(addr) => Box::new(TcpStream::connect(addr).await?),
        ListenAddr::Unix(path) => Box::new(UnixStream::connect(path).await?),
        _ => return Err(std::io::ErrorKind::Unsupported.into()),
    })
}

fn code(answer: &Value) -> i32 {
    answer["exitCode"].as_i64().and_then(|code| i32::try_from(code).ok()).unwrap_or(-1)
}

/// What a status stands for.
pub(super) fn refusal(status: u16, message: &str) -> ClientError {
    let kind = match status {
        400 => ErrorKind::Malformed,
        401 => ErrorKind::Unauthenticated,
        403 => ErrorKind::Forbidden,
        404 => ErrorKind::NotFound,
        409 => ErrorKind::Conflict,
        422 => ErrorKind::Impossible,
        429 => ErrorKind::CallerLimit,
        500 => ErrorKind::Internal,
        503 => ErrorKind::Unavailable,
        507 => ErrorKind::NoRoom,
        status => return ClientError::failed(format!("status {status}: {message}")),
    };
    ClientError::refused([kind], message)
}

fn encoded(bytes: &[u8]) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |group: &[u8]| {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        let letter = |at: usize| match at <= group.len() {
            true => char::from(ALPHABET[(bits >> (18 - 6 * at)) as usize & 63]),
            false => '=',
        };
        [0, 1, 2, 3].map(letter)
    };
    bytes.chunks(3).flat_map(group).collect()
}
