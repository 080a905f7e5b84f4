//! An adapter of one's own: each line of text is a command, whose output is sent back line by line. The queue,
//! the limits and the drain are the engine's; a protocol needs no more code than this.
//!
//!     cargo run --example custom-adapter, then nc to the address that it prints

use std::io::{self, Write as _};
use std::time::Duration;

use splengine_core::execute::Stream;
use splengine_core::net::{Closing, Connection, ConnectionLimits, serve_connections};
use splengine_core::{Caller, Engine, Event, LocalExecutor, Request};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
    let guest = Caller::new("guest")?.with_all_scopes();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    writeln!(io::stdout(), "{}", listener.local_addr()?)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let shutdown = async {
        terminate.recv().await;
        engine.drain(Duration::from_secs(30)).await;
    };
    let limits = ConnectionLimits::new().max_connections(100);
    serve_connections(listener, limits, Duration::from_secs(5), shutdown, |client, end| {
        Some(serve(client, engine.clone(), guest.clone(), end))
    })
    .await;
    Ok(())
}

async fn serve(it: Connection, engine: Engine, guest: Caller, mut end: Closing) -> io::Result<()> {
    it.handle().set_authenticated(&guest); // Elsewhere: once the client has shown who it is.
    let mut it = BufReader::new(it);
    loop {
        let mut line = String::new();
        let mut bounded = (&mut it).take(64 << 10);
        tokio::select! {
            read = bounded.read_line(&mut line) => read?,
            () = end.closed() => return Ok(()),
        };
        // Half a line, because the client hung up or says too much, is no command.
        let Some(line) = line.strip_suffix('\n') else { return Ok(()) };
        let last = match engine.execute(&guest, Request::new(line)).await {
            Err(refusal) => format!("refused {refusal}\n"),
            Ok(mut run) => loop {
                let event = tokio::select! {
                    event = run.next() => event,
                    // The client hung up; dropping the run cancels it.
                    Ok([]) = it.fill_buf() => return Ok(()),
                };
                match event {
                    Some(Event::Output { stream, data }) => {
                        it.write_all(&lines(stream, &data)).await?;
                    }
                    Some(Event::End(end)) => {
                        break format!("{} {}\n", end.reason.name(), end.exit_code);
                    }
                    _ => {}
                }
            },
        };
        it.write_all(last.as_bytes()).await?;
    }
}

/// A piece that does not end its line has a `+` at its stream's name.
fn lines(stream: Stream, data: &[u8]) -> Vec<u8> {
    let name = stream.name().as_bytes();
    let piece = |bytes: &[u8]| match bytes.strip_suffix(b"\n") {
        Some(line) => [name, b" ", line, b"\n"].concat(),
        None => [name, b"+ ", bytes, b"\n"].concat(),
    };
    data.split_inclusive(|byte| *byte == b'\n').flat_map(piece).collect()
}
