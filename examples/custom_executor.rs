//! An executor of one's own: commands run on a worker, which is reached over a socket, as they
//! might in a container or on a cluster.
//!
//!     cargo run --example custom-executor
//!
//! The worker here is a task of the same process. It knows four commands: `upper` (its input in
//! upper case), `count N`, `sleep SECONDS` and `env`, which prints the directory and the variables. It
//! enforces no limits, so the engine refuses them. The example prints the address of an HTTP server
//! that accepts any client.
//!
//! Both sides send frames: a length and that number of bytes. The executor sends the job as JSON, then the
//! command's input; an empty frame ends the input. The worker sends the output, then an empty frame and the
//! exit code. If the connection is closed before, the command is ended.
//!
//! `tests/it/executors.rs` runs the conformance suite on it.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use splengine_core::auth::StaticTokens;
use splengine_core::execute::{Cancel, Command, Exit, ExitStatus, Output, Signal, Stdin, Stream};
use splengine_core::{Bytes, Caller, Engine, Execute, ExecuteError, Field};
use splengine_http::HttpServer;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, duplex};
use tokio::net::{UnixListener, UnixStream};

/// Runs commands on the worker behind this socket.
pub(crate) struct Remote(pub(crate) PathBuf);

/// What the worker is told of a command: words, directory below its root, variables.
type Job = (Vec<String>, PathBuf, Vec<(String, String)>);

impl Execute for Remote {
    async fn execute(
        &self,
        command: Command,
        stdin: Stdin,
        output: Output,
        cancel: Cancel,
    ) -> Result<Exit, ExecuteError> {
        self.check(&command).await?;
        let job = (command.text_argv()?, command.relative_workdir()?, &command.env);
        let job = serde_json::to_vec(&job).map_err(ExecuteError::internal)?;
        if job.len() > MAX_FRAME {
            let problem =
                format!("and `env` are over {MAX_FRAME} bytes as JSON, as a worker takes");
            return Err(ExecuteError::Impossible { field: Field::Args, problem });
        }
        let socket = UnixStream::connect(&self.0).await.map_err(ExecuteError::internal)?;
        let (mut from_worker, mut to_worker) = socket.into_split();
        send(&mut to_worker, &job).await.map_err(ExecuteError::internal)?;
        output.started();

        let feed = async {
            let mut stdin = stdin.into_reader();
            let mut buffer = vec![0; MAX_FRAME];
            loop {
                let length = stdin.read(&mut buffer).await.unwrap_or(0);
                if send(&mut to_worker, &buffer[..length]).await.is_err() || length == 0 {
                    break;
                }
            }
            // Only the worker and the caller end a run.
            std::future::pending().await
        };
        tokio::select! {
            exit = relay(&mut from_worker, &output) => exit.map_err(ExecuteError::internal),
            never = feed => never,
            // Returning closes the connection, and that ends the command.
            () = cancel.stop_requested() => {
                Ok(Exit::new(ExitStatus::Signal(Signal::TERM)).stopped())
            }
        }
    }

    async fn check(&self, command: &Command) -> Result<(), ExecuteError> {
        command.relative_workdir()?;
        match command.text_argv()?[0] {
            "upper" | "count" | "sleep" | "env" => Ok(()),
            unknown => Err(ExecuteError::ProgramNotFound(unknown.to_owned())),
        }
    }
}

/// Gives what the worker sends to the run.
async fn relay(
    from_worker: &mut (impl AsyncRead + Unpin),
    output: &Output,
) -> std::io::Result<Exit> {
    loop {
        let data = receive(from_worker).await?;
        if data.is_empty() {
            return Ok(Exit::new(ExitStatus::Code(from_worker.read_i32().await?)));
        }
        // Waits for a slow reader, and the worker with it. Nobody reading is the caller's business:
        // the engine tells us to stop.
        let _ = output.write(Stream::Stdout, Bytes::from(data)).await;
    }
}

async fn send(to: &mut (impl AsyncWrite + Unpin), data: &[u8]) -> std::io::Result<()> {
    let length = u32::try_from(data.len()).map_err(std::io::Error::other)?;
    to.write_u32(length).await?;
    to.write_all(data).await
}

async fn receive(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let length = from.read_u32().await? as usize;
    if length > MAX_FRAME {
        return Err(std::io::Error::other("a frame is longer than it may be"));
    }
    let mut data = vec![0; length];
    from.read_exact(&mut data).await?;
    Ok(data)
}

/// The worker. Each command holds a clone of `runs` for as long as it runs.
pub(crate) async fn work(listener: UnixListener, runs: Arc<()>) {
    while let Ok((socket, _)) = listener.accept().await {
        let run = Arc::clone(&runs);
        tokio::spawn(async move {
            let _run = run;
            let (mut reader, mut writer) = socket.into_split();
            let job: Job = serde_json::from_slice(&receive(&mut reader).await?)?;
            let (mut to_command, stdin) = duplex(MAX_FRAME);
            let performing = async {
                let code = perform(&job, stdin, &mut writer).await?;
                send(&mut writer, &[]).await?;
                writer.write_i32(code).await
            };
            let listening = async {
                loop {
                    let data = receive(&mut reader).await?;
                    if data.is_empty() {
                        to_command.shutdown().await?;
                    } else {
                        // A command need not read all that it is given.
                        let _ = to_command.write_all(&data).await;
                    }
                }
            };
            tokio::select! {
                performed = performing => performed,
                hung_up = listening => hung_up,
            }
        });
    }
}

async fn perform(
    (words, dir, env): &Job,
    stdin: impl AsyncRead + Unpin,
    writer: &mut (impl AsyncWrite + Unpin),
) -> std::io::Result<i32> {
    // What is not read is let go of: else waiting for room for it would hold up the word to end.
    let stdin = (words[0] == "upper").then_some(stdin);
    let number = words.get(1).and_then(|word| word.parse().ok());
    match (words[0].as_str(), number) {
        ("upper", _) => {
            let mut stdin = stdin.expect("was kept for this");
            let mut buffer = [0; 4096];
            loop {
                match stdin.read(&mut buffer).await? {
                    0 => break,
                    length => send(writer, &buffer[..length].to_ascii_uppercase()).await?,
                }
            }
        }
        ("count", Some(last)) => {
            for i in 1..=last {
                send(writer, format!("{i}\n").as_bytes()).await?;
            }
        }
        ("sleep", Some(seconds)) => tokio::time::sleep(Duration::from_secs(seconds)).await,
        ("env", _) => {
            send(writer, format!("PWD=/{}\n", dir.display()).as_bytes()).await?;
            for (name, value) in env {
                send(writer, format!("{name}={value}\n").as_bytes()).await?;
            }
        }
        _ => {
            send(writer, b"no such command, or it lacks its number\n").await?;
            return Ok(127);
        }
    }
    Ok(0)
}

const MAX_FRAME: usize = 64 << 10;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("worker");
    tokio::spawn(work(UnixListener::bind(&socket)?, Arc::new(())));

    let engine = Engine::builder(Remote(socket)).build()?;
    let everyone = StaticTokens::new().allow_anonymous(Caller::new("guest")?.with_all_scopes());
    let server =
        HttpServer::builder(engine.clone()).authenticate(everyone).bind("127.0.0.1:0").await?;
    writeln!(std::io::stdout(), "{}", server.local_addr())?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    server
        .run_until(async {
            terminate.recv().await;
            engine.drain(Duration::from_secs(30)).await;
        })
        .await;
    Ok(())
}
