//! The all-in-one server: HTTP, WebSocket, SSH and Avro RPC in one process.
//!
//!     cargo run --release --example all-in-one -- --help
//!
//! What it takes from flags, environment and file is in `args.rs` and `file.rs`, and what the engine
//! and each server are made of in `engine.rs` and `servers/`; this is the wiring, as an integrator's
//! own `main` does it.

mod args;
mod complaint;
mod engine;
mod failure;
mod file;
mod open_files;
mod own_files;
mod ready;
mod reload;
mod repair;
mod servers;
mod settings;
mod signals;
mod token_command;
mod tokens;

use std::process::ExitCode;
use std::time::Duration;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio::time::timeout;
use tracing_subscriber::EnvFilter;

use crate::args::Args;
use crate::failure::Failure;
use crate::reload::Reload;
use crate::settings::{HOLD_TERMINALS, Settings};
use crate::signals::Signals;

fn main() -> ExitCode {
    // Else a command of the same user could read the tokens out of our memory or environment in /proc.
    // It costs core dumps and debuggers; if it fails, the server serves all the same.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        // A log that nobody reads any more is no reason to end.
        .log_internal_errors(false)
        .with_env_filter(log_filter())
        .init();
    let word = std::env::args_os().nth(1);
    // Of this same program, started by the engine: see `PtyHost`.
    let done = if word.as_ref().is_some_and(|word| word == HOLD_TERMINALS) {
        splengine_core::local::run_pty_host().map_err(Failure::start)
    } else if word.as_ref().is_some_and(|word| word == token_command::NAME) {
        token_command::run().map_err(Failure::Usage)
    } else if let Some(done) = repair::run() {
        done.map_err(Failure::Usage)
    } else {
        return run();
    };
    done.map_or_else(|failure| failure.complain(None), |()| ExitCode::SUCCESS)
}

fn run() -> ExitCode {
    let args = Args::gather();
    let config = args.as_ref().ok().and_then(|args| args.config.clone());
    let settings = args.and_then(Settings::gather).map_err(Failure::Usage);
    let served = settings.and_then(|settings| {
        let runtime = tokio::runtime::Runtime::new().map_err(Failure::start)?;
        let served = runtime.block_on(serve(settings));
        // A client that does not read must not hold up the end.
        runtime.shutdown_timeout(Duration::from_secs(1));
        served
    });
    served.map_or_else(|failure| failure.complain(config.as_deref()), |()| ExitCode::SUCCESS)
}

async fn serve(settings: Settings) -> Result<(), Failure> {
    // Before anything else: without it, process 1 of a container gets no signal.
    let signals = Signals::listen().map_err(Failure::start)?;
    let hangups = Reload::hangups().map_err(Failure::start)?;
    let engine = engine::open(&settings).await?;
    let opened = servers::open(&engine, &settings).await?;
    tokio::spawn(Reload::new(&settings, &opened, hangups).run());
    ready::announce(&settings, &opened);

    let grace = settings.grace;
    let told = async {
        signals.have_come(1).await;
        tracing::info!(?grace, "draining");
    };
    let mut serving = std::pin::pin!(opened.servers.run_until(told, &engine, grace));
    tokio::select! {
        () = &mut serving => tracing::info!("drained"),
        () = signals.have_come(2) => {
            tracing::warn!("told twice: ending at once");
            engine.kill();
            // Time for the ends to be told, but not for a client that does not listen.
            let _ = timeout(KILL_TIMEOUT, &mut serving).await;
            if engine.stats().running > 0 {
                return Err(Failure::LeftRunning);
            }
        }
    }
    Ok(())
}

const KILL_TIMEOUT: Duration = Duration::from_secs(1);

/// What `RUST_LOG` asks for, else what an administrator needs. `h2` warns of each client that breaks
/// its rules, each time.
fn log_filter() -> EnvFilter {
    let asked = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|asked| !asked.is_empty());
    let builder = EnvFilter::builder().with_default_directive(tracing::Level::INFO.into());
    builder.parse_lossy(asked.unwrap_or_else(|| "info,h2=error".to_owned()))
}
