//! A client, as small as can be, and the servers that it calls.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use splengine_avro::{AvroServer, AvroServerBuilder, ExecutionResult};
use splengine_core::auth::{SharedAuthenticator, StaticTokens};
use splengine_core::execute::{Cancel, Command, Exit, ExitStatus, Output, Signal, Stdin, Stream};
use splengine_core::{Caller, Engine, Execute, ExecuteError};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// `hold` and `wait` run until they are stopped, and the first are counted; everything else prints its first word and ends at once.
#[derive(Debug, Default)]
pub(crate) struct Actor;

pub(crate) static HOLDING: AtomicUsize = AtomicUsize::new(0);

impl Execute for Actor {
    async fn execute(
        &self,
        command: Command,
        _: Stdin,
        output: Output,
        cancel: Cancel,
    ) -> Result<Exit, ExecuteError> {
        output.started();
        let argv = command.text_argv()?;
        let word = if argv[0] == "print" { argv[1] } else { argv[0] }.to_owned();
        if word == "wait" {
            cancel.stop_requested().await;
            return Ok(Exit::new(ExitStatus::Signal(Signal::TERM)).stopped());
        }
        if word == "hold" {
            HOLDING.fetch_add(1, Relaxed);
            cancel.stop_requested().await;
            HOLDING.fetch_sub(1, Relaxed);
            return Ok(Exit::new(ExitStatus::Signal(Signal::TERM)).stopped());
        }
        let _ = output.write(Stream::Stdout, word.into_bytes().into()).await;
        Ok(Exit::new(ExitStatus::Code(0)))
    }
}

pub(crate) struct TestServer {
    pub(crate) addr: SocketAddr,
    close: Option<tokio::sync::oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

impl TestServer {
    pub(crate) async fn open(
        configure: impl FnOnce(
            AvroServerBuilder<SharedAuthenticator>,
        ) -> AvroServerBuilder<SharedAuthenticator>,
    ) -> Self {
        let engine = Engine::builder(Actor).max_running(64).build().expect("built");
        Self::open_to(engine, configure).await
    }

    /// One whose connections are served as `configure` says.
    pub(crate) async fn on(configure: impl FnOnce(AvroServer) -> AvroServer) -> Self {
        let engine = Engine::builder(Actor).max_running(64).build().expect("built");
        Self::with(engine, |server| server, configure).await
    }

    pub(crate) async fn open_to(
        engine: Engine,
        configure: impl FnOnce(
            AvroServerBuilder<SharedAuthenticator>,
        ) -> AvroServerBuilder<SharedAuthenticator>,
    ) -> Self {
        Self::with(engine, configure, |server| server).await
    }

    pub(crate) async fn with(
        engine: Engine,
        configure: impl FnOnce(
            AvroServerBuilder<SharedAuthenticator>,
        ) -> AvroServerBuilder<SharedAuthenticator>,
        configure_server: impl FnOnce(AvroServer) -> AvroServer,
    ) -> Self {
        let everyone = Caller::new("guest").expect("a user name").with_all_scopes();
        let builder =
            AvroServer::builder(engine).authenticate(StaticTokens::new().allow_anonymous(everyone));
        let server = configure(builder).bind("127.0.0.1:0").await.expect("bound");
        let server = configure_server(server);
        let addr = server.local_addr().tcp().expect("of TCP");
        let (close, closed) = tokio::sync::oneshot::channel();
        let server = tokio::spawn(server.run_until(async {
            let _ = closed.await;
        }));
        Self { addr, close: Some(close), server }
    }

    pub(crate) async fn connect(&self) -> Client<TcpStream> {
        Client::new(TcpStream::connect(self.addr).await.expect("connects"))
    }

    pub(crate) fn close(&mut self) {
        self.close.take();
    }

    pub(crate) async fn ended(self) {
        self.server.await.expect("no panic");
    }
}

/// Waits for what comes by itself, for a minute at most.
pub(crate) async fn within<T>(what: &str, comes: impl Future<Output = T>) -> T {
    let came = tokio::time::timeout(Duration::from_secs(60), comes).await;
    came.unwrap_or_else(|_| panic!("{what} never came"))
}

/// Waits for a condition that nothing announces, for a minute at most.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let met = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    within(what, met).await;
}

/// Speaks the Netty framing.
pub(crate) struct Client<S> {
    pub(crate) stream: S,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream }
    }

    pub(crate) async fn send(&mut self, serial: u32, message: &[u8]) {
        self.stream.write_all(&frame(serial, message)).await.expect("sent");
    }

    pub(crate) async fn answer(&mut self) -> (u32, Vec<u8>) {
        within("an answer", async {
            let serial = self.stream.read_u32().await.expect("a serial");
            assert_eq!(self.stream.read_u32().await.expect("a count"), 1);
            let length = self.stream.read_u32().await.expect("a length");
            let mut answer = vec![0; length as usize];
            self.stream.read_exact(&mut answer).await.expect("an answer");
            (serial, answer)
        })
        .await
    }

    pub(crate) async fn shake_hands(&mut self) {
        let hash = hash();
        let ping = [&hash[..], &[0], &hash[..], &[0, 0, 0]].concat();
        self.send(0, &ping).await;
        assert_eq!(self.answer().await, (0, vec![0; 6]));
    }

    /// As a client with this protocol, which the server need not know.
    pub(crate) async fn shake_hands_as(&mut self, text: &str) {
        use md5::{Digest as _, Md5};
        let length = text.len() << 1;
        assert!((0x80..0x4000).contains(&length), "two bytes");
        let length = [(length & 0x7f) as u8 | 0x80, (length >> 7) as u8];
        let request = [
            &Md5::digest(text)[..],
            &[2],
            &length,
            text.as_bytes(),
            &hash(),
            // No metadata; then a ping.
            &[0, 0, 0],
        ];
        self.send(0, &request.concat()).await;
        assert_eq!(self.answer().await.0, 0);
    }

    pub(crate) async fn execute(&mut self, serial: u32, command: &str) {
        self.send(serial, &execute(command)).await;
    }

    /// Sends these calls in one piece, with their places for serials.
    pub(crate) async fn send_all(&mut self, words: &[String]) {
        let frames = (0..).zip(words).map(|(serial, word)| frame(serial, &execute(word)));
        let frames: Vec<u8> = frames.flatten().collect();
        self.stream.write_all(&frames).await.expect("sent");
        self.stream.flush().await.expect("sent");
    }

    /// The same, and gives the words that they print once all have come.
    pub(crate) async fn execute_all(&mut self, words: &[String]) -> Vec<String> {
        self.send_all(words).await;
        let mut answered = vec![String::new(); words.len()];
        for _ in words {
            let (serial, result) = self.result().await;
            answered[serial as usize] += &result.stdout;
        }
        answered
    }

    pub(crate) async fn result(&mut self) -> (u32, ExecutionResult) {
        let (serial, answer) = self.answer().await;
        assert_eq!(answer[..2], [0, 0], "no error: {}", String::from_utf8_lossy(&answer));
        (serial, ExecutionResult::from_datum(answer[2..].to_vec()).expect("a result"))
    }

    /// Whether nothing more comes, and the connection is closed.
    pub(crate) async fn is_closed(&mut self) -> bool {
        let mut piece = [0; 64];
        let read = within("the end of a connection", self.stream.read(&mut piece));
        matches!(read.await, Ok(0) | Err(_))
    }
}

pub(crate) fn frame(serial: u32, message: &[u8]) -> Vec<u8> {
    let mut frame = [serial.to_be_bytes(), 1_u32.to_be_bytes()].concat();
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(message);
    frame
}

pub(crate) fn execute(command: &str) -> Vec<u8> {
    execute_with(command, Vec::new())
}

/// The same with arguments, which may be longer than a command.
pub(crate) fn execute_with(command: &str, args: Vec<String>) -> Vec<u8> {
    let command = splengine_avro::Command {
        command: command.to_owned(),
        args,
        workdir: None,
        session_id: None,
    };
    let mut call = b"\0\x0eexecute".to_vec();
    call.extend_from_slice(&command.to_datum());
    call
}

/// The protocol of a client whose commands have a field more: an array of records that take no bytes, and
/// 8 KiB of memory each.
pub(crate) fn protocol_with_junk() -> String {
    let name = "n".repeat(250);
    let fields: Vec<String> =
        (10..30).map(|place| format!(r#"{{"name":"{name}{place}","type":"null"}}"#)).collect();
    format!(
        r#"{{"protocol":"Other","namespace":"com.splectrum.rpc","types":[{{"name":"Command",
        "type":"record","fields":[{{"name":"command","type":"string"}},
        {{"name":"args","type":{{"type":"array","items":"string"}}}},
        {{"name":"junk","type":{{"type":"array","items":{{"type":"record","name":"Junk",
        "fields":[{}]}}}}}}]}}],"messages":{{"execute":{{"request":[{{"name":"command",
        "type":"Command"}}],"response":"null"}}}}}}"#,
        fields.join(",")
    )
}

/// The call of `word` in that protocol, with so many of them.
pub(crate) fn execute_with_junk(count: u16) -> Vec<u8> {
    assert!(count < 8192, "at most two bytes");
    let count = count << 1;
    let mut call = b"\0\x0eexecute\x08word\0".to_vec();
    match u8::try_from(count).ok().filter(|count| *count < 0x80) {
        Some(count) => call.push(count),
        None => call.extend_from_slice(&[(count & 0x7f) as u8 | 0x80, (count >> 7) as u8]),
    }
    call.push(0);
    call
}

/// The same call with a token in its metadata, instead of none.
pub(crate) fn with_token(call: &[u8], token: &str) -> Vec<u8> {
    let sized = |text: &str| {
        assert!(text.len() < 64, "one byte");
        [&[(text.len() << 1) as u8], text.as_bytes()].concat()
    };
    let value = format!("Bearer {token}");
    [&[2][..], &sized("spl-authorization"), &sized(&value), &[0], &call[1..]].concat()
}

/// A handshake and a call, in the specification's framing.
pub(crate) fn message(call: &[u8]) -> Vec<u8> {
    let text = splengine_avro::protocol();
    let mut message = vec![0x5a; 16];
    message.push(2);
    let mut length = text.len() << 1;
    while length > 0x7f {
        message.push((length & 0x7f | 0x80) as u8);
        length >>= 7;
    }
    message.push(length as u8);
    message.extend_from_slice(text.as_bytes());
    message.extend_from_slice(&[0x5a; 16]);
    message.push(0);
    message.extend_from_slice(call);
    let length = u32::try_from(message.len()).expect("short").to_be_bytes();
    [&length[..], &message, &[0; 4]].concat()
}

pub(crate) fn hash() -> [u8; 16] {
    use md5::{Digest as _, Md5};
    Md5::digest(splengine_avro::protocol().as_bytes()).into()
}
