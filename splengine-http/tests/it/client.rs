//! A client that hides nothing: it writes bytes and reads bytes.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    /// The detail of a problem, after a look at the rest of it.
    pub(crate) fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let json = self.json();
        assert_eq!(json["status"], status);
        assert_eq!(json["type"], "about:blank");
        assert!(json["title"].is_string());
        assert_eq!(json["detail"], json["error"]);
        let retries = [429, 503].contains(&status);
        let retry_after = self.header("retry-after").map(|seconds| seconds.parse::<u64>());
        assert_eq!(matches!(retry_after, Some(Ok(1..))), retries, "{retry_after:?}");
        json["detail"].as_str().expect("text").to_owned()
    }
}

impl Connection {
    pub(crate) async fn open(addr: SocketAddr) -> Self {
        Self::over(TcpStream::connect(addr).await.expect("connects"))
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// One whose own address is this one of loopback's.
    pub(crate) async fn open_from(source: [u8; 4], addr: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("made");
        socket.bind((source, 0).into()).expect("bound");
        Self { stream: socket.connect(addr).await.expect("connects"), buffer: Vec::new() }
    }

    /// One that keeps little of what it does not read, so that the server soon waits for it.
    pub(crate) async fn open_narrow(addr: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("made");
        socket.set_recv_buffer_size(4096).expect("set");
        Self::over(socket.connect(addr).await.expect("connects"))
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("sent");
    }

    /// Ends this half of the connection.
    pub(crate) async fn end_sending(&mut self) {
        self.stream.shutdown().await.expect("ended");
    }

    /// Whether the server ends the connection, and does not break it off.
    pub(crate) async fn ends_well(&mut self) -> bool {
        let read = self.stream.read_to_end(&mut self.buffer);
        tokio::time::timeout(Duration::from_secs(60), read).await.expect("an end").is_ok()
    }

    /// `POST path` with these header lines and body.
    pub(crate) async fn post(&mut self, path: &str, headers: &[&str], body: &[u8]) {
        let mut request = format!("POST {path} HTTP/1.1\r\nHost: test\r\n");
        for header in headers {
            request += &format!("{header}\r\n");
        }
        request += &format!("Content-Length: {}\r\n\r\n", body.len());
        self.send(request.as_bytes()).await;
        // The server may answer and close before it has taken all of a body that it refuses.
        let _ = self.stream.write_all(body).await;
    }

    pub(crate) async fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes()).await;
        self.response().await
    }

    pub(crate) async fn response(&mut self) -> Response {
        let (status, headers) = self.head().await;
        let mut response = Response { status, headers, body: Vec::new() };
        if response.header("transfer-encoding") == Some("chunked") {
            response.body = self.chunks().await;
        } else {
            let length =
                response.header("content-length").map_or(0, |n| n.parse().expect("a number"));
            response.body = self.take(length).await;
        }
        response
    }

    pub(crate) async fn head(&mut self) -> (u16, Vec<(String, String)>) {
        let status_line = self.line().await;
        let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let mut headers = Vec::new();
        loop {
            let line = self.line().await;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        (status.unwrap_or_else(|| panic!("no status in {status_line:?}")), headers)
    }

    /// One chunk of a chunked body; `None` at its end.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let size = usize::from_str_radix(&self.line().await, 16).expect("a chunk's size");
        let data = self.take(size).await;
        self.take(2).await;
        (size > 0).then_some(data)
    }

    /// What `find` makes of the first chunk of which it makes something; `None` if the body ends before.
    /// Fails after a while, since signs of life may come all the time.
    pub(crate) async fn find_chunk<T>(
        &mut self,
        mut find: impl FnMut(&str) -> Option<T>,
    ) -> Option<T> {
        let mut last = String::new();
        let found = async {
            loop {
                last = String::from_utf8(self.chunk().await?).expect("UTF-8");
                if let Some(found) = find(&last) {
                    return Some(found);
                }
            }
        };
        let found = tokio::time::timeout(MAX_WAIT, found).await;
        found.unwrap_or_else(|_| panic!("what is waited for never came, but last {last:?}"))
    }

    /// The chunks of a body up to its end, which must come within a minute.
    pub(crate) async fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        let all = async {
            while let Some(chunk) = self.chunk().await {
                body.extend(chunk);
            }
        };
        if tokio::time::timeout(MAX_BODY_TIME, all).await.is_err() {
            let begin = String::from_utf8_lossy(&body[..body.len().min(1000)]);
            panic!("the body never ends: {} bytes, {begin:?}", body.len());
        }
        body
    }

    /// Whether the server closes the connection, within a minute.
    pub(crate) async fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        let read = self.stream.read_to_end(&mut rest);
        tokio::time::timeout(Duration::from_secs(60), read).await.is_ok()
    }

    /// All that comes until the server closes the connection, or breaks it off.
    pub(crate) async fn rest(&mut self) -> String {
        let read = self.stream.read_to_end(&mut self.buffer);
        drop(tokio::time::timeout(Duration::from_secs(60), read).await.expect("an end"));
        String::from_utf8_lossy(&self.buffer).into_owned()
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let rest = self.buffer.split_off(end + 2);
                let line = std::mem::replace(&mut self.buffer, rest);
                return String::from_utf8_lossy(&line[..end]).into_owned();
            }
            self.fill().await;
        }
    }

    async fn take(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            self.fill().await;
        }
        let rest = self.buffer.split_off(length);
        std::mem::replace(&mut self.buffer, rest)
    }

    async fn fill(&mut self) {
        let read = self.stream.read_buf(&mut self.buffer);
        let read = tokio::time::timeout(Duration::from_secs(60), read).await.expect("an answer");
        assert!(
            read.expect("reads") > 0,
            "closed after {:?}",
            String::from_utf8_lossy(&self.buffer)
        );
    }
}

/// More than the interval of signs of life.
const MAX_WAIT: Duration = Duration::from_secs(60);
const MAX_BODY_TIME: Duration = Duration::from_secs(60);
