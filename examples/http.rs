//! The HTTP server alone: commands and sessions as JSON, for clients that have Alice's token.
//!
//!     ALICE_TOKEN=a-long-and-random-text cargo run --example http
//!     curl -H 'Authorization: Bearer a-long-and-random-text' --json '{"command": "echo hi"}' http://ADDRESS/execute
//!
//! It prints its address, and runs until ctrl-c.

use std::io::Write as _;
use std::time::Duration;

use splengine_core::auth::{Secret, StaticTokens};
use splengine_core::engine::Servers;
use splengine_core::{Caller, Engine, LocalExecutor};
use splengine_http::HttpServer;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // What runs commands, and how many at once. All of them start below this directory.
    let engine = Engine::builder(LocalExecutor::new(".")?).max_running(8).build()?;

    // Who may come in, and what they may do.
    let mut tokens = StaticTokens::new();
    let token = Secret::new(std::env::var("ALICE_TOKEN")?);
    tokens.insert(&token, Caller::new("alice")?.with_all_scopes())?;

    let server =
        HttpServer::builder(engine.clone()).authenticate(tokens).bind("127.0.0.1:0").await?;

    // Signals belong to the program: no server installs a handler of its own.
    let mut interrupt = signal(SignalKind::interrupt())?;
    writeln!(std::io::stdout(), "{}", server.local_addr())?;
    // No new work; what runs has 30 s to end by itself, and its clients are told how it ended.
    let signal = async {
        interrupt.recv().await;
    };
    Servers::new().add(server).run_until(signal, &engine, Duration::from_secs(30)).await;
    Ok(())
}
