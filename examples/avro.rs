//! The Avro RPC server alone, for clients of the protocol `SPlectrumEngine` over sockets or HTTP.
//!
//!     cargo run --example avro
//!     curl http://ADDRESS/avro/protocol
//!
//! Any client that reaches the port may run commands here, and nothing else. It prints its address, and
//! runs until ctrl-c.

use std::io::Write as _;
use std::time::Duration;

use splengine_avro::AvroServer;
use splengine_core::auth::{Scope, StaticTokens};
use splengine_core::engine::Servers;
use splengine_core::{Caller, Engine, LocalExecutor};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Four at once, and no longer than a minute each, whatever clients ask for; 16 more may wait.
    let engine = Engine::builder(LocalExecutor::new(".")?)
        .max_running(4)
        .max_waiting(16)
        .max_timeout(Duration::from_mins(1))
        .build()?;

    // A client without credentials is this guest. One with a token that is wrong is still refused.
    let guest = Caller::new("guest")?.with(Scope::Execute);
    let tokens = StaticTokens::new().allow_anonymous(guest);

    // The Netty framing, the specification's, and HTTP on one port: each connection shows which it speaks.
    let server =
        AvroServer::builder(engine.clone()).authenticate(tokens).bind("127.0.0.1:0").await?;

    let mut interrupt = signal(SignalKind::interrupt())?;
    writeln!(std::io::stdout(), "{}", server.local_addr())?;
    // No new work; what runs has 30 s to end by itself, and its clients are told how it ended.
    let signal = async {
        interrupt.recv().await;
    };
    Servers::new().add(server).run_until(signal, &engine, Duration::from_secs(30)).await;
    Ok(())
}
