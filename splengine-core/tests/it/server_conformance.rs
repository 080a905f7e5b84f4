//! The conformance suite of servers: what it finds in those that are broken, and that one that is not
//! passes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use splengine_core::auth::{CredentialSource, Credentials, Scopes, Secret};
use splengine_core::execute::{Stdin, Stream};
use splengine_core::net::{
    Connection, ConnectionLimits, ListenAddr, Server, bind, serve_connections,
};
use splengine_core::testing::conformance::{
    ClientError, Outcome, ServerCheck, ServerClient, ServerSetup, ServerSuite, TestUser, TestUsers,
};
use splengine_core::{Caller, Engine, ErrorKind, Event, ExecuteError, Reason, Request};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};

/// What a server does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    EndsWithZero,
    TellsNoSignal,
    LosesStderr,
    MergesStreams,
    MakesText,
    DropsTheTail,
    PassesOverInput,
    SplitsArguments,
    TakesAllForAlice,
    ServesOneAtATime,
    TellsNoTimeLimit,
    KeepsCommandsOfGoneClients,
    LetsAllIn,
    IgnoresScopes,
    RunsBeforeItAsks,
    EndsUnknownProgramsWith127,
    TellsAllAsInternal,
    TellsAllAsUnavailable,
    TellsTheCause,
    EndsAllWhenDrained,
    NeverEnds,
    TellsCancelledAsExited,
    BoundsNothing,
}

/// A server: a frame with a token and words, and one with the input, are a command. Its answer is frames of
/// a kind, a length and bytes.
struct Toy {
    listener: TcpListener,
    local_addr: SocketAddr,
    setup: ServerSetup,
    fault: Fault,
}

impl Server for Toy {
    fn local_addr(&self) -> ListenAddr {
        self.local_addr.into()
    }

    async fn run_until(self, shutdown: impl Future<Output = ()> + Send + 'static) {
        let Self { listener, setup, fault, .. } = self;
        let limits = match fault {
            Fault::BoundsNothing => {
                ConnectionLimits::new().unauthenticated_timeout(Duration::from_hours(1))
            }
            _ => setup.connections,
        };
        let (engine, turn) = (setup.engine, Arc::new(Mutex::new(())));
        let max_linger = Duration::from_millis(100);
        serve_connections(listener, limits, max_linger, shutdown, |connection, _| {
            Some(serve(connection, engine.clone(), fault, Arc::clone(&turn)))
        })
        .await;
        if fault == Fault::NeverEnds {
            std::future::pending().await
        }
    }
}

async fn serve(
    mut it: Connection,
    engine: Engine,
    fault: Fault,
    turn: Arc<Mutex<()>>,
) -> io::Result<()> {
    let asked = String::from_utf8(read_frame(&mut it).await?).map_err(io::Error::other)?;
    let input = read_frame(&mut it).await?;
    let mut words: Vec<&str> = asked.split('\u{1f}').collect();
    let shown = match words.remove(0) {
        "" => Credentials::None,
        token => Credentials::Bearer(Secret::new(token)),
    };
    let alice = Caller::new("alice").expect("a name").with_scopes(Scopes::USER);
    let source = CredentialSource::new("toy", None);
    let caller = match engine.authenticate(&TestUsers::default(), shown, &source).await {
        Ok(_) if fault == Fault::TakesAllForAlice => alice.clone(),
        Ok(caller) if fault == Fault::IgnoresScopes => caller.with_all_scopes(),
        Ok(caller) => caller,
        Err(_) if fault == Fault::LetsAllIn => alice.clone(),
        Err(error) => return refuse(&mut it, fault, error.kind(), &error.to_string()).await,
    };
    it.handle().set_authenticated(&caller);
    if fault == Fault::RunsBeforeItAsks {
        let run = engine.execute(&alice, Request::argv(&words)).await;
        if let Ok(run) = run {
            run.capture().await;
        }
    }
    let turn = turn.lock().await;
    if fault != Fault::ServesOneAtATime {
        drop(turn);
    }
    let request = match fault {
        Fault::SplitsArguments => Request::argv(words.join(" ").split(' ')),
        _ => Request::argv(&words),
    };
    let request = match fault {
        Fault::PassesOverInput => request,
        _ => request.stdin(Stdin::bytes(input)),
    };
    let mut run = match engine.execute(&caller, request).await {
        Ok(run) => run,
        Err(ExecuteError::ProgramNotFound(_)) if fault == Fault::EndsUnknownProgramsWith127 => {
            return frame(&mut it, b'x', b"127 exited").await;
        }
        Err(ExecuteError::Internal(cause)) if fault == Fault::TellsTheCause => {
            return refuse(&mut it, fault, ErrorKind::Internal, &cause.to_string()).await;
        }
        Err(error) => return refuse(&mut it, fault, error.kind(), &error.to_string()).await,
    };
    // By a task in between, which is what one server does wrong.
    let (events, mut next) = mpsc::channel(1);
    let forward = async move {
        while let Some(event) = run.next().await {
            let is_heard = events.send(event).await.is_ok();
            if !is_heard && fault != Fault::KeepsCommandsOfGoneClients {
                return;
            }
        }
    };
    let forward: std::pin::Pin<Box<dyn Future<Output = ()> + Send>> = match fault {
        Fault::KeepsCommandsOfGoneClients => {
            tokio::spawn(forward);
            Box::pin(std::future::pending())
        }
        _ => Box::pin(async move {
            forward.await;
            std::future::pending().await
        }),
    };
    let (drained, is_cut) = (engine.closed(), fault == Fault::EndsAllWhenDrained);
    tokio::select! {
        told = tell(&mut it, &mut next, fault) => told,
        () = forward => Ok(()),
        () = drained, if is_cut => Ok(()),
    }
}

async fn tell(
    it: &mut Connection,
    events: &mut mpsc::Receiver<Event>,
    fault: Fault,
) -> io::Result<()> {
    while let Some(event) = events.recv().await {
        match event {
            Event::Output { stream, data } => {
                let kind = match (stream, fault) {
                    (Stream::Stderr, Fault::LosesStderr) => continue,
                    (Stream::Stderr, Fault::MergesStreams) | (Stream::Stdout, _) => b'o',
                    _ => b'e',
                };
                match fault {
                    Fault::MakesText => {
                        frame(it, kind, String::from_utf8_lossy(&data).as_bytes()).await?;
                    }
                    Fault::DropsTheTail => frame(it, kind, &data[..data.len() - 1]).await?,
                    _ => frame(it, kind, &data).await?,
                }
            }
            Event::End(end) => {
                let (code, reason) = match (fault, end.reason) {
                    (Fault::EndsWithZero, _)
                    | (Fault::TellsNoTimeLimit, Reason::TimedOut)
                    | (Fault::TellsNoSignal, Reason::Signaled) => (0, end.reason),
                    (Fault::TellsCancelledAsExited, Reason::Cancelled) => {
                        (end.exit_code, Reason::Exited)
                    }
                    (_, reason) => (end.exit_code, reason),
                };
                frame(it, b'x', format!("{code} {}", reason.name()).as_bytes()).await?;
            }
            _ => {}
        }
    }
    Ok(())
}

async fn refuse(it: &mut Connection, fault: Fault, kind: ErrorKind, text: &str) -> io::Result<()> {
    let kind = match fault {
        Fault::TellsAllAsInternal => ErrorKind::Internal,
        Fault::TellsAllAsUnavailable => ErrorKind::Unavailable,
        _ => kind,
    };
    frame(it, b'r', format!("{} {text}", kind.name()).as_bytes()).await
}

async fn frame(it: &mut Connection, kind: u8, data: &[u8]) -> io::Result<()> {
    let length = u32::try_from(data.len()).expect("short").to_be_bytes();
    it.write_all(&[&[kind], &length[..], data].concat()).await
}

async fn read_frame(it: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = it.read_u32().await?;
    let mut data = vec![0; length.min(1 << 20) as usize];
    it.read_exact(&mut data).await?;
    Ok(data)
}

struct ToyClient(SocketAddr);

impl ServerClient for ToyClient {
    async fn execute(
        &self,
        user: TestUser,
        argv: &[&str],
        stdin: &[u8],
    ) -> Result<Outcome, ClientError> {
        let mut stream = TcpStream::connect(self.0).await.map_err(ClientError::failed)?;
        let words: Vec<&str> =
            [user.token().unwrap_or("")].into_iter().chain(argv.iter().copied()).collect();
        let mut asked = Vec::new();
        for part in [words.join("\u{1f}").as_bytes(), stdin] {
            asked.extend(u32::try_from(part.len()).expect("short").to_be_bytes());
            asked.extend(part);
        }
        stream.write_all(&asked).await.map_err(ClientError::failed)?;
        let mut outcome = Outcome::new(0);
        loop {
            let kind = stream.read_u8().await.map_err(ClientError::failed)?;
            let data = read_frame(&mut stream).await.map_err(ClientError::failed)?;
            let text = String::from_utf8_lossy(&data).into_owned();
            let (first, rest) = text.split_once(' ').unwrap_or_default();
            match kind {
                b'o' => outcome.stdout.extend(data),
                b'e' => outcome.stderr.extend(data),
                b'x' => {
                    outcome.exit_code = first.parse().map_err(ClientError::failed)?;
                    outcome.reason =
                        Reason::ALL.iter().copied().find(|reason| reason.name() == rest);
                    return Ok(outcome);
                }
                _ => {
                    let kinds = ErrorKind::ALL.iter().copied().filter(|kind| kind.name() == first);
                    return Err(ClientError::refused(kinds, rest));
                }
            }
        }
    }
}

/// A suite over a toy, of some checks.
async fn result(fault: Fault, only: &[ServerCheck], patience: Duration) -> Result<String, String> {
    let dir = tempfile::tempdir().expect("a directory");
    let suite = ServerSuite::new(dir.path(), async |setup: ServerSetup| {
        let (listener, local_addr) = bind("127.0.0.1:0").await?;
        Ok((Toy { listener, local_addr, setup, fault }, ToyClient(local_addr)))
    });
    let suite = suite.only(only.iter().copied()).patience(patience);
    let report = suite.run().await.map_err(|violation| violation.to_string())?;
    Ok(report.skipped.iter().map(|check| format!("{check} ")).collect())
}

#[tokio::test]
async fn a_server_without_a_fault_passes() {
    let skipped = result(Fault::None, ServerCheck::ALL, Duration::from_secs(60)).await;
    assert_eq!(skipped.as_deref(), Ok("terminal files batch "));
}

#[tokio::test]
async fn each_fault_is_found() {
    use ServerCheck::*;
    for (fault, check, expected) in [
        (Fault::EndsWithZero, ExitCode, "`exit 7` ended with code 0, expected 7"),
        (Fault::TellsNoSignal, Signal, "`kill -KILL $$` ended with code 0, expected 137"),
        (Fault::LosesStderr, Streams, "standard error is \"\" (0 bytes), expected \"aside\\n\""),
        (Fault::MergesStreams, Streams, "expected \"a\\xffb\\n\\x00c\" (6 bytes)"),
        (Fault::MakesText, Streams, "\"a\\xef\\xbf\\xbdb\\n\\x00c\" (8 bytes), expected"),
        (Fault::DropsTheTail, Streams, "standard output is \"a\\xffb\\n\\x00\" (5 bytes)"),
        (Fault::PassesOverInput, Stdin, "what `cat` read from standard input is \"\" (0 bytes)"),
        (Fault::SplitsArguments, Arguments, "is \"<two><><words><it\\'s>"),
        (Fault::TakesAllForAlice, Identity, "a command of bob ran with the session `spl-alice-"),
        (Fault::TellsNoTimeLimit, TimeLimit, "`sleep` ended with code 0, expected 124"),
        (Fault::LetsAllIn, Unauthenticated, "a command of anonymous was done, expected a refusal"),
        (Fault::IgnoresScopes, MissingScope, "was done, expected a refusal as `forbidden`"),
        (Fault::RunsBeforeItAsks, MissingScope, "had an effect though it was refused"),
        (Fault::EndsUnknownProgramsWith127, UnknownProgram, "expected a refusal as `impossible`"),
        (Fault::TellsAllAsInternal, Unauthenticated, "as `unauthenticated`"),
        (Fault::TellsAllAsInternal, EngineFull, "(internal), expected a refusal as `unavailable`"),
        (Fault::TellsAllAsUnavailable, CallerLimit, "expected a refusal as `caller_limit`"),
        (Fault::TellsAllAsUnavailable, Internal, "expected a refusal as `internal`"),
        (Fault::TellsTheCause, Internal, "expected no cause in it"),
        (Fault::TellsAllAsInternal, Drain, "a command while the engine is drained: "),
        (Fault::EndsAllWhenDrained, Drain, "ended when a drain began, and was expected to run on"),
        (Fault::TellsCancelledAsExited, Cancelled, "for the reason `exited`, expected `cancelled`"),
    ] {
        finds(fault, check, expected, Duration::from_secs(60)).await;
    }
}

// What never happens is found when it was waited for.
#[tokio::test]
async fn what_never_happens_is_found() {
    use ServerCheck::*;
    let patience = Duration::from_secs(5);
    tokio::join!(
        finds(Fault::ServesOneAtATime, Concurrency, "nothing came within 5s", patience),
        finds(
            Fault::KeepsCommandsOfGoneClients,
            ClientLeaves,
            "expected within 5s: the end of a command, and of all that it started",
            patience
        ),
        finds(Fault::NeverEnds, Drain, "the server is not over 5s after its end", patience),
        finds(Fault::BoundsNothing, Connections, "that shows nothing is open after 5s", patience),
    );
}

async fn finds(fault: Fault, check: ServerCheck, expected: &str, patience: Duration) {
    let Err(violation) = result(fault, &[check], patience).await else {
        panic!("{fault:?} is not found");
    };
    let begin = format!("{check}: ");
    assert!(violation.starts_with(&begin), "{fault:?}: {violation}");
    assert!(violation.contains(expected), "{fault:?}: {violation}");
}
