//! Runs one command with the core alone, and shows its events as they happen.
//!
//!     cargo run --example local -- 'sh -c "echo out; echo err >&2; exit 3"'

use std::io::Write as _;

use splengine_core::execute::Stream;
use splengine_core::{Caller, Engine, Event, LocalExecutor, Request};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let command = std::env::args().nth(1).unwrap_or_else(|| "echo 'hello world'".to_owned());
    let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
    let me = Caller::new("me")?.with_all_scopes();
    let mut run = engine.execute(&me, Request::new(command)).await?;
    while let Some(event) = run.next().await {
        match event {
            Event::Output { stream: Stream::Stderr, data } => std::io::stderr().write_all(&data)?,
            Event::Output { data, .. } => std::io::stdout().write_all(&data)?,
            Event::End(end) => std::process::exit(end.exit_code),
            _ => {}
        }
    }
    Ok(())
}
