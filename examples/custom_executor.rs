//! An executor of one's own: commands run on a worker, which is reached over a socket, as they
//! might in a container or on a cluster.
//!
//!     cargo run --example custom-executor
//!
//! The worker here is a task of the same process. It knows three commands: `upper` (its input in
//! upper case), `count N` and `sleep SECONDS`. It prints the address of an HTTP door that takes
//! anybody.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use splengine_core::{
    Caller, Cancel, Command, Engine, Execute, ExecuteError, Exit, ExitStatus, Output, Signal,
    StaticTokens, Stdin, Stream,
};
use splengine_http::HttpServer;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

/// Runs commands on the worker behind this socket.
struct Remote(std::path::PathBuf);

impl Execute for Remote {
    async fn execute(
        &self,
        command: Command,
        stdin: Stdin,
        output: Output,
        cancel: Cancel,
    ) -> Result<Exit, ExecuteError> {
        let socket = UnixStream::connect(&self.0).await.map_err(ExecuteError::internal)?;
        let (from_worker, mut to_worker) = socket.into_split();
        let line = command.argv.join("\t") + "\n";
        to_worker.write_all(line.as_bytes()).await.map_err(ExecuteError::internal)?;
        output.started();

        let feed = async {
            let _ = tokio::io::copy(&mut stdin.into_reader(), &mut to_worker).await;
            let _ = to_worker.shutdown().await;
            std::future::pending().await
        };
        tokio::select! {
            exit = relay(from_worker, &output) => exit,
            // Never ready: it only goes on beside the other two.
            never = feed => never,
            // Closing the connection ends what runs on the worker.
            () = cancel.stop_requested() => Ok(Exit::new(ExitStatus::Signal(Signal::TERM)).stopped()),
        }
    }

    async fn check(&self, command: &Command) -> Result<(), ExecuteError> {
        match command.argv[0].as_str() {
            "upper" | "count" | "sleep" => Ok(()),
            unknown => Err(ExecuteError::ProgramNotFound(unknown.to_owned())),
        }
    }
}

/// The worker sends frames: the length of what it prints and the bytes; last a length of 0 and the
/// exit code.
async fn relay(
    mut from_worker: impl tokio::io::AsyncRead + Unpin,
    output: &Output,
) -> Result<Exit, ExecuteError> {
    loop {
        let length = from_worker.read_u32().await.map_err(ExecuteError::internal)?;
        if length == 0 {
            let code = from_worker.read_i32().await.map_err(ExecuteError::internal)?;
            return Ok(Exit::new(ExitStatus::Code(code)));
        }
        let mut data = vec![0; length as usize];
        from_worker.read_exact(&mut data).await.map_err(ExecuteError::internal)?;
        // Waits for a slow reader, and the worker with it.
        let _ = output.write(Stream::Stdout, Bytes::from(data)).await;
    }
}

async fn work(listener: UnixListener) {
    while let Ok((socket, _)) = listener.accept().await {
        tokio::spawn(async move {
            let (reader, mut writer) = socket.into_split();
            let mut reader = BufReader::new(reader);
            let code = perform(&mut reader, &mut writer).await.unwrap_or(1);
            let _ = writer.write_u32(0).await;
            let _ = writer.write_i32(code).await;
        });
    }
}

async fn perform(
    reader: &mut (impl tokio::io::AsyncBufRead + Unpin),
    writer: &mut (impl tokio::io::AsyncWrite + Unpin),
) -> std::io::Result<i32> {
    let mut line = String::new();
    reader.read_line(&mut line).await?;
    let words: Vec<&str> = line.trim_end().split('\t').collect();
    let number = words.get(1).and_then(|word| word.parse().ok());
    let mut print = async |text: &[u8]| {
        writer.write_u32(u32::try_from(text.len()).unwrap_or(0)).await?;
        writer.write_all(text).await
    };
    match (words[0], number) {
        ("upper", _) => {
            let mut buffer = [0; 4096];
            loop {
                match reader.read(&mut buffer).await? {
                    0 => return Ok(0),
                    length => print(&buffer[..length].to_ascii_uppercase()).await?,
                }
            }
        }
        ("count", Some(last)) => {
            for i in 1..=last {
                print(format!("{i}\n").as_bytes()).await?;
            }
            Ok(0)
        }
        ("sleep", Some(seconds)) => {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            Ok(0)
        }
        _ => {
            print(b"no such command, or it lacks its number\n").await?;
            Ok(127)
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("worker");
    tokio::spawn(work(UnixListener::bind(&socket)?));

    let engine = Engine::builder(Remote(socket)).build()?;
    let everyone = StaticTokens::new().allow_anonymous(Caller::with_all_scopes("guest".parse()?));
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
