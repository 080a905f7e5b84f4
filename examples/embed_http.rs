//! The smallest server: the core and its HTTP server, in an integrator's own `main`.
//!
//!     ALICE_TOKEN=a-long-and-random-text cargo run --example embed-http

use std::io::Write as _;
use std::time::Duration;

use splengine_core::auth::{Secret, StaticTokens};
use splengine_core::{Caller, Engine, LocalExecutor};
use splengine_http::HttpServer;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let engine = Engine::builder(LocalExecutor::new(".")?).max_running(8).build()?;
    let mut tokens = StaticTokens::new();
    let token = Secret::new(std::env::var("ALICE_TOKEN")?);
    tokens.insert(&token, Caller::with_all_scopes("alice".parse()?))?;

    let server =
        HttpServer::builder(engine.clone()).authenticate(tokens).bind("127.0.0.1:0").await?;
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
