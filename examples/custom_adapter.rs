//! A server of one's own. A client sends a line with its token, and a line with a command behind the number
//! of bytes of its input, which follow. Rights, the queue, limits, guesses and the drain are the engine's.
//!
//!     TOKEN=a-long-and-random-token cargo run --example custom-adapter
//!     printf 'Bearer a-long-and-random-token\n5 tr a-z A-Z\nhello' | nc 127.0.0.1 PORT

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use splengine_core::auth::{self, Credentials, SharedAuthenticator};
use splengine_core::engine::Servers;
use splengine_core::execute::Stdin;
use splengine_core::net::{self, Connection, ListenAddr, Server, serve_connections};
use splengine_core::{Caller, Engine, ErrorKind, Event, LocalExecutor, Request};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
    let mut tokens = auth::StaticTokens::new();
    let alice = Caller::new("alice")?.with_scopes(auth::Scopes::USER);
    tokens.insert(&auth::Secret::new(std::env::var("TOKEN")?), alice)?;
    let (listener, local_addr) = net::bind("127.0.0.1:0").await?;
    writeln!(io::stdout(), "{local_addr}")?;
    let (users, limits) = (SharedAuthenticator::new(tokens), net::ConnectionLimits::new());
    let server = TextServer { listener, local_addr, engine: engine.clone(), users, limits };
    let end = async { drop(tokio::signal::ctrl_c().await) };
    Servers::new().add(server).run_until(end, &engine, Duration::from_secs(30)).await;
    Ok(())
}

pub(crate) struct TextServer {
    pub(crate) listener: TcpListener,
    pub(crate) local_addr: SocketAddr,
    pub(crate) engine: Engine,
    pub(crate) users: SharedAuthenticator,
    pub(crate) limits: net::ConnectionLimits,
}

impl Server for TextServer {
    fn local_addr(&self) -> ListenAddr {
        self.local_addr.into()
    }

    async fn run_until(self, shutdown: impl Future<Output = ()> + Send + 'static) {
        let Self { listener, engine, users, limits, .. } = self;
        serve_connections(listener, limits, Duration::from_secs(5), shutdown, |client, end| {
            (!end.is_closing()).then(|| serve(client, engine.clone(), users.clone()))
        })
        .await;
    }
}

/// Serves one client. If it leaves, this future is dropped, and with it the run, which ends the command.
async fn serve(it: Connection, engine: Engine, users: SharedAuthenticator) -> io::Result<()> {
    let source = it.peer()?.credential_source("text");
    let (handle, (read, mut write)) = (it.handle(), tokio::io::split(it));
    let mut read = tokio::io::BufReader::new(read);
    // What a page has its browser send begins with a line of HTTP, which shows no token.
    let shown = Credentials::parse_bearer(&line(&mut read).await?).unwrap_or(Credentials::None);
    let caller = match engine.authenticate(&users, shown, &source).await {
        Ok(caller) => caller,
        Err(error) => return write.write_all(&refusal(error.kind(), &error.to_string())).await,
    };
    handle.set_authenticated(&caller);
    let asked = line(&mut read).await?;
    let (length, command) = asked.split_once(' ').unwrap_or_default();
    let stdin = Stdin::reader(read.take(length.parse().map_err(io::Error::other)?));
    let mut run = match engine.execute(&caller, Request::new(command).stdin(stdin)).await {
        Ok(run) => run,
        Err(error) => return write.write_all(&refusal(error.kind(), &error.to_string())).await,
    };
    // Nothing is told any more once the token was taken back.
    while let Some(event) = caller.unless_revoked(run.next()).await.flatten() {
        let (head, data) = match event {
            Event::Output { stream, data } => (format!("{} {}\n", stream.name(), data.len()), data),
            Event::End(end) => (format!("{} {}\n", end.reason.name(), end.exit_code), "".into()),
            _ => continue,
        };
        write.write_all(&[head.as_bytes(), &data].concat()).await?;
    }
    Ok(())
}

/// Half a line, because the client hung up or says too much, is none.
async fn line(it: &mut (impl AsyncBufRead + Unpin)) -> io::Result<String> {
    let mut line = String::new();
    it.take(64 << 10).read_line(&mut line).await?;
    line.strip_suffix('\n').map(str::to_owned).ok_or(io::ErrorKind::InvalidData.into())
}

fn refusal(kind: ErrorKind, text: &str) -> Vec<u8> {
    format!("refused {} {text}\n", code(kind)).into_bytes()
}

/// Of codes from 500 on a request never succeeds; of others it may later.
pub(crate) fn code(kind: ErrorKind) -> u16 {
    match kind {
        ErrorKind::Unavailable => 421,
        ErrorKind::CallerLimit | ErrorKind::NoRoom => 452,
        ErrorKind::Malformed => 501,
        ErrorKind::Impossible => 504,
        ErrorKind::Unauthenticated => 530,
        ErrorKind::Forbidden => 550,
        _ => 554,
    }
}
