//! The WebSocket server alone: a terminal for a client of a few lines, and the console in a browser.
//!
//!     ALICE_TOKEN=a-long-and-random-text cargo run --example ws-terminal
//!
//! It prints its address: `http://ADDRESS/` asks for the token and shows the console. A client opens
//! `ws://ADDRESS/terminal` with the header `Authorization: Bearer …`, sends
//! `{"type":"input","data":"date\n"}` and gets `{"type":"output","data":"…"}`. It runs until ctrl-c.

use std::io::Write as _;
use std::time::Duration;

use splengine_core::auth::{Scope, Secret, StaticTokens};
use splengine_core::engine::Servers;
use splengine_core::session::SessionPolicy;
use splengine_core::{Caller, Engine, LocalExecutor};
use splengine_ws::WsServer;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A session goes on while nobody looks at it, so there is a bound on how many there are.
    let engine = Engine::builder(LocalExecutor::new(".")?)
        .sessions(SessionPolicy::new().max_sessions(16))
        .build()?;

    // Alice may have terminals; `Scope::Watch` would let her look on at them, and type nothing.
    let alice = Caller::new("alice")?.with(Scope::Sessions);
    let mut tokens = StaticTokens::new();
    tokens.insert(&Secret::new(std::env::var("ALICE_TOKEN")?), alice)?;

    let server = WsServer::builder(engine.clone()).authenticate(tokens).bind("127.0.0.1:0").await?;

    let mut interrupt = signal(SignalKind::interrupt())?;
    writeln!(std::io::stdout(), "{}", server.local_addr())?;
    // Programs in terminals are asked to end, and killed after the grace of the executor.
    let signal = async {
        interrupt.recv().await;
    };
    Servers::new().add(server).run_until(signal, &engine, Duration::from_secs(30)).await;
    Ok(())
}
