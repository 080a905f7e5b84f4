//! The all-in-one server: HTTP, WebSocket, SSH and Avro RPC in one process.
//!
//!     cargo run --release --example all-in-one -- --help
//!
//! What it takes from flags, environment and file is in `args.rs` and `file.rs`; this is the
//! wiring, as an integrator's own `main` does it.

mod args;
mod complaint;
mod file;
mod listeners;
mod open_files;
mod own_files;
mod reload;
mod repair;
mod settings;
mod token_command;
mod tokens;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use futures_util::FutureExt as _;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use splengine_avro::{AvroServer, AvroServerBuilder, Tls, results_container};
use splengine_core::auth::SharedAuthenticator;
use splengine_core::local::LocalExecutorBuilder;
use splengine_core::net::ConnectionLimits;
use splengine_core::{Engine, LocalExecutor};
use splengine_http::{HttpServer, HttpServerBuilder};
use splengine_ssh::{SshServer, SshServerBuilder, Users};
use splengine_ws::{WsServer, WsServerBuilder};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::args::Args;
use crate::file::SignalsWord;
use crate::listeners::Listeners;
use crate::reload::Reload;
use crate::settings::{HOLD_TERMINALS, Settings, UsageError};

fn main() -> ExitCode {
    // Else a command of the same user could read the tokens out of our memory or environment in
    // /proc. It costs core dumps and debuggers; where it can't be had, the server still serves.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        // A log that nobody reads any more is no reason to end.
        .log_internal_errors(false)
        .with_env_filter(
            tracing_subscriber::EnvFilter::builder()
                .with_default_directive(tracing::Level::INFO.into())
                .from_env_lossy(),
        )
        .init();
    // Of this same program, started by the engine: see `PtyHost`.
    if std::env::args_os().nth(1).is_some_and(|word| word == HOLD_TERMINALS) {
        return match splengine_core::local::run_pty_host() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(&error, 1),
        };
    }
    if std::env::args_os().nth(1).is_some_and(|word| word == token_command::NAME) {
        return match token_command::run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(&error, 2),
        };
    }
    if let Some(done) = repair::run() {
        return done.map_or_else(|error| complain(&error, 2), |()| ExitCode::SUCCESS);
    }
    let args = Args::gather();
    let config = args.as_ref().ok().and_then(|args| args.config.clone());
    let settings = args.and_then(Settings::gather);
    let result = settings.map_err(Failure::Usage).and_then(|settings| {
        let runtime =
            tokio::runtime::Runtime::new().map_err(|error| Failure::Start(error.into()))?;
        let result = runtime.block_on(serve(settings));
        // A client that does not read must not hold up the end.
        runtime.shutdown_timeout(Duration::from_secs(1));
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(error)) => complain(&error.of_file(config.as_deref()), 2),
        Err(Failure::Start(error)) => complain(error.as_ref(), 1),
        Err(Failure::LeftRunning) => ExitCode::FAILURE,
    }
}

enum Failure {
    /// Something that was asked for can't be.
    Usage(UsageError),
    /// The host did not let it start.
    Start(Box<dyn std::error::Error + Send + Sync>),
    /// Told to end at once, it left commands that even a kill does not end.
    LeftRunning,
}

async fn serve(settings: Settings) -> Result<(), Failure> {
    let start = |error: Box<dyn std::error::Error + Send + Sync>| Failure::Start(error);
    // Before anything else: process 1 of a container does not even hear of a signal without.
    let mut signals = Signals::listen().map_err(|error| start(error.into()))?;
    let hangups = Reload::hangups().map_err(|error| start(error.into()))?;

    own_files::make_private(&settings.root.join("runtime"));
    let pty_host = settings.pty_host().map_err(Failure::Usage)?;
    let executor = LocalExecutor::builder(&settings.root)
        .environment(settings.environment.clone())
        .cgroup(settings.cgroup.clone())
        // No other part of this program starts a process.
        .reap_unknown(true);
    // What lies beside these below `runtime` is whoever's made it, and clients' to work in.
    let executor = ["batches", "logins", "sessions", "ssh"]
        .iter()
        .fold(executor, |all, name| all.protect(settings.root.join("runtime").join(name)));
    let executor = settings.own_files.refuse_as_workdirs(executor);
    let executor = settings.max_kept().into_iter().fold(executor, LocalExecutorBuilder::max_kept);
    let executor = pty_host
        .into_iter()
        .fold(executor, LocalExecutorBuilder::pty_host)
        .build()
        .map_err(|error| Failure::Usage(UsageError::caused("--root or [cgroup]", &error)))?;
    open_files::raise_limit();
    let builder = settings.configure(Engine::builder(executor)).map_err(Failure::Usage)?;
    let engine =
        builder.build().map_err(|error| Failure::Usage(UsageError::caused("[limits]", &error)))?;

    if engine.resume().await.has_failed {
        return Err(Failure::Usage(settings.unreadable_batches()));
    }

    let keys = match &settings.ssh {
        Some(_) => settings.host_keys().map_err(Failure::Usage)?,
        None => None,
    };
    let listeners = Listeners::open(&settings, keys.is_some()).await?;
    let interfaces = listeners.interfaces(&settings);
    let console = settings.public_url.clone().or_else(|| {
        listeners.ws.as_ref().map(|bound| format!("http://{}/", reachable(bound.local_addr)))
    });
    let mut ready = vec!["\"ready\":true".to_owned()];
    for (server, address) in listeners.addresses() {
        ready.push(format!("\"{server}\":\"{address}\""));
    }

    let http_address = listeners.http.as_ref().map(|bound| bound.local_addr);
    let http = match listeners.http {
        None => None,
        Some(bound) => {
            let builder = configured_http(&engine, &settings, &interfaces, console.as_deref())?;
            Some(builder.listen(bound.listener).map_err(|error| start(error.into()))?)
        }
    };
    let ws = match listeners.ws {
        None => None,
        Some(bound) => {
            let api = configured_http(&engine, &settings, &interfaces, console.as_deref())?;
            let mut builder = WsServer::builder(engine.clone())
                .authenticate(settings.accounts.clone())
                .keep_logins(settings.logins())
                .connection_limits(settings.connections.apply(ConnectionLimits::new()))
                .api(api.into_service());
            for origin in &settings.ws_origins {
                builder = builder.allow_origin(origin).map_err(|error| {
                    Failure::Usage(UsageError::caused("[ws] allow-origins", &error))
                })?;
            }
            if let Some(url) = &settings.public_url {
                // Where people find the console, it may be used from.
                let origin = url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
                builder = builder.allow_origin(&origin).map_err(|error| {
                    Failure::Usage(UsageError::caused("[ws] public-url", &error))
                })?;
            }
            builder = settings.ws_clients.into_iter().fold(builder, WsServerBuilder::max_clients);
            Some(builder.listen(bound.listener).map_err(|error| start(error.into()))?)
        }
    };
    let tls = match settings::avro_tls(&settings.file.avro).map_err(Failure::Usage)? {
        Some((certificates, key)) => {
            let tls = Tls::new(&certificates, &key);
            let wrong = |error| Failure::Usage(UsageError::caused("[avro] certificates", &error));
            Some(tls.map_err(wrong)?)
        }
        None => None,
    };
    let avro = match listeners.avro {
        None => None,
        Some(bound) => {
            let mut builder = configured_avro(&engine, &settings, &interfaces);
            if let Some(tls) = &tls {
                builder = builder.serve_tls(tls.clone());
                builder = builder.plain_text(settings.file.avro.plain_text.unwrap_or(true));
            }
            Some(builder.listen(bound.listener).map_err(|error| start(error.into()))?)
        }
    };
    let mut users = None;
    let ssh = match listeners.ssh.zip(keys) {
        None => None,
        Some((bound, keys)) => {
            let builder = configured_ssh(
                &engine,
                &settings,
                users.insert(settings.ssh_users().map_err(Failure::Usage)?),
            )?;
            let server =
                builder.listen(bound.listener, &keys).map_err(|error| start(error.into()))?;
            tracing::info!(fingerprints = ?keys.fingerprints(), "known to SSH clients by");
            Some(server)
        }
    };

    if let Some(token) = &settings.made_token {
        ready.push(format!("\"token\":\"{}\"", token.expose()));
        let page = console.or_else(|| http_address.map(|address| format!("http://{address}/")));
        if let Some(page) = page {
            // Among the lines of the log it would be overlooked.
            let link = format!("\nOpen the console:\n{page}#token={}\n\n", token.expose());
            let _ = std::io::stderr().write_all(link.as_bytes());
        }
    }
    let reload = Reload {
        args: settings.args,
        file: settings.file,
        accounts: settings.accounts,
        made_token: settings.made_token,
        anonymous: settings.anonymous,
        users,
        tls,
        hangups,
    };
    tokio::spawn(reload.run());
    tracing::warn!(
        uid = rustix::process::geteuid().as_raw(),
        "whatever callers with the scopes `execute` or `sessions` run, they all run as this one user: \
         each of them can read and change what the others' programs and files hold"
    );
    tracing::info!(root = %settings.root.display(), "ready");
    let line = format!("{{{}}}\n", ready.join(","));
    let _ = std::io::stdout().write_all(line.as_bytes()).and_then(|()| std::io::stdout().flush());

    let told = Notify::new();
    let drained = async {
        told.notified().await;
        engine.drain(settings.grace).await;
    };
    let drained = drained.shared();
    let mut serving = std::pin::pin!(async {
        let http = async {
            match http {
                Some(server) => server.run_until(drained.clone()).await,
                None => drained.clone().await,
            }
        };
        let ws = async {
            match ws {
                Some(server) => server.run_until(drained.clone()).await,
                None => drained.clone().await,
            }
        };
        let avro = async {
            match avro {
                Some(server) => server.run_until(drained.clone()).await,
                None => drained.clone().await,
            }
        };
        let ssh = async {
            match ssh {
                Some(server) => server.run_until(drained.clone()).await,
                None => drained.clone().await,
            }
        };
        tokio::join!(http, ws, avro, ssh);
    });
    tokio::select! {
        () = &mut serving => {}
        () = signals.next() => {}
    }
    tracing::info!(grace = ?settings.grace, "draining");
    told.notify_one();
    tokio::select! {
        () = &mut serving => tracing::info!("drained"),
        () = signals.next() => {
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

/// An address that a browser can be sent to: all addresses of a host are none.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, address.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, address.port()).into(),
        _ => address,
    }
}

fn configured_http(
    engine: &Engine,
    settings: &Settings,
    interfaces: &BTreeMap<&'static str, String>,
    console: Option<&str>,
) -> Result<HttpServerBuilder<SharedAuthenticator>, Failure> {
    let mut builder = HttpServer::builder(engine.clone())
        .authenticate(settings.accounts.clone())
        .results_as("application/avro", "avro", results_container);
    for origin in &settings.allow_origins {
        builder = builder
            .allow_origin(origin)
            .map_err(|error| Failure::Usage(UsageError::caused("[http] allow-origins", &error)))?;
    }
    builder = builder.connection_limits(settings.connections.apply(ConnectionLimits::new()));
    if let Some(count) = settings.max_connections {
        builder = builder.max_connections(usize::try_from(count.get()).unwrap_or(usize::MAX));
    }
    if let Some(timeout) = settings.header_timeout {
        builder = builder.header_timeout(timeout);
    }
    if let Some(timeout) = settings.keep_alive_timeout {
        builder = builder.keep_alive_timeout(timeout);
    }
    builder = settings.max_buffered.into_iter().fold(builder, HttpServerBuilder::max_buffered);
    if let Some(bytes) = settings.max_body {
        builder = builder.max_body(bytes);
    }
    for (name, place) in interfaces {
        builder = builder.interface(*name, place);
    }
    if settings.avro.is_some() {
        let service = configured_avro(engine, settings, interfaces).into_service();
        builder = builder.mount("/avro", service.clone()).mount("/avro/protocol", service);
    }
    Ok(console.into_iter().fold(builder, HttpServerBuilder::console))
}

fn configured_avro(
    engine: &Engine,
    settings: &Settings,
    interfaces: &BTreeMap<&'static str, String>,
) -> AvroServerBuilder<SharedAuthenticator> {
    let table = &settings.avro_table;
    let mut builder = AvroServer::builder(engine.clone())
        .authenticate(settings.accounts.clone())
        .connection_limits(settings.connections.apply(ConnectionLimits::new()));
    for (name, place) in interfaces {
        builder = builder.interface(*name, place);
    }
    if let Some(count) = table.max_connections {
        builder = builder.max_connections(usize::try_from(count.get()).unwrap_or(usize::MAX));
    }
    if let Some(bytes) = table.max_frame {
        builder = builder.max_frame(bytes);
    }
    builder
}

fn configured_ssh(
    engine: &Engine,
    settings: &Settings,
    users: &Users,
) -> Result<SshServerBuilder<Users>, Failure> {
    let table = &settings.ssh_table;
    let mut builder = SshServer::builder(engine.clone())
        .users(users.clone())
        .connection_limits(settings.connections.apply(SshServer::default_connection_limits()));
    let unread = table.unread_directory.clone();
    builder = builder
        .unread_directory(unread.unwrap_or_else(|| settings.root.join("runtime/ssh/unread")))
        .max_unread(
            table.max_unread_per_caller.unwrap_or(1 << 30),
            table.max_unread.unwrap_or(4 << 30),
        );
    let wrong = |key: &str, error: &dyn std::error::Error| {
        Failure::Usage(UsageError::caused(&format!("[ssh] {key}"), error))
    };
    builder = builder
        .algorithms(settings::algorithms(&table.algorithms).map_err(Failure::Usage)?)
        .signals_as_status(table.signals == SignalsWord::Status)
        .serve_scp(table.scp.unwrap_or(true))
        .permit_open(table.permit_open.iter().map(String::as_str))
        .map_err(|error| wrong("permit-open", &error))?;
    if let Some(names) = &table.accept_env {
        builder = builder.accept_env(names);
    }
    if let Some(count) = table.max_connections {
        builder = builder.max_connections(usize::try_from(count.get()).unwrap_or(usize::MAX));
    }
    if let Some(time) = table.login_grace {
        builder = builder.login_grace(Duration::from_millis(time.get()));
    }
    if let Some(interval) = table.keepalive {
        builder = builder.keepalive(Duration::from_millis(interval.get()), 3);
    }
    Ok(builder)
}

/// SIGTERM, from an orchestrator, and SIGINT, from a keyboard.
struct Signals([Signal; 2]);

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self([signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?]))
    }

    async fn next(&mut self) {
        let [terminate, interrupt] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

/// The error with its causes, on one line: some causes have several.
fn complain(error: &dyn std::error::Error, code: u8) -> ExitCode {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    let _ = writeln!(std::io::stderr(), "error: {}", words.join(" "));
    ExitCode::from(code)
}

const KILL_TIMEOUT: Duration = Duration::from_secs(1);
