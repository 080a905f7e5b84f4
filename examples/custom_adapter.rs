//! A door of one's own: a line of text is a command, its output comes back line by line.
//!
//!     cargo run --example custom-adapter, then nc to the address that it prints
//!
//! The queue, the limits and the drain are the engine's; this is all that a protocol takes.

use std::io::Write as _;
use std::time::Duration;

use splengine_core::{Caller, Engine, Event, LocalExecutor, Request, Stream};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
    let guest = Caller::with_all_scopes("guest".parse()?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?)?;
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        tokio::select! {
            Ok((client, _)) = listener.accept() => {
                let (engine, guest) = (engine.clone(), guest.clone());
                tokio::spawn(async move { serve(client, &engine, &guest).await });
            }
            _ = terminate.recv() => break,
        }
    }
    engine.drain(Duration::from_secs(30)).await;
    Ok(())
}

async fn serve(client: TcpStream, engine: &Engine, caller: &Caller) -> std::io::Result<()> {
    let (reader, mut writer) = client.into_split();
    let mut reader = BufReader::new(reader);
    let mut line = String::new();
    // A line is 64 KiB at most: what comes from outside has a bound.
    while (&mut reader).take(64 << 10).read_line(&mut line).await? > 0 {
        match engine.execute(caller, Request::new(std::mem::take(&mut line))).await {
            Err(refusal) => writer.write_all(format!("refused {refusal}\n").as_bytes()).await?,
            Ok(mut run) => {
                while let Some(event) = run.next().await {
                    let text = match event {
                        Event::Output { stream, data } => prefixed(stream, &data),
                        Event::End(end) => format!("{} {}\n", end.reason.name(), end.exit_code),
                        _ => continue,
                    };
                    writer.write_all(text.as_bytes()).await?;
                }
            }
        }
    }
    Ok(())
}

fn prefixed(stream: Stream, data: &[u8]) -> String {
    String::from_utf8_lossy(data)
        .lines()
        .map(|line| format!("{} {line}\n", stream.name()))
        .collect()
}
