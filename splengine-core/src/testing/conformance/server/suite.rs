use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::net::{ConnectionLimits, Server};
use crate::testing::conformance::server::check::Fail;
use crate::testing::conformance::server::opened::Opener;
use crate::testing::conformance::server::{ends, refusals, rules};
use crate::testing::conformance::{
    ServerCheck, ServerClient, ServerReport, ServerSetup, ServerViolation,
};

/// Conformance tests of a server, by a client of its protocol.
///
/// Each [`ServerCheck`] opens the server anew, on a free port of loopback, for an engine of its own that runs
/// programs of this host in an empty directory. The programs `sh`, `cat`, `printf`, `seq`, `sleep` and
/// `touch` are expected there.
///
/// ```no_run
/// use std::path::Path;
/// use splengine_core::net::Server;
/// use splengine_core::testing::conformance::{ServerClient, ServerSetup, ServerSuite};
/// # use splengine_core::{Engine, auth::Authenticator, net::{BindError, ConnectionLimits, ListenAddr}};
/// # struct MyServer;
/// # impl MyServer {
/// #     async fn bind(_: Engine, _: impl Authenticator, _: ConnectionLimits) -> Result<Self, BindError> {
/// #         Ok(Self)
/// #     }
/// # }
/// # impl Server for MyServer {
/// #     fn local_addr(&self) -> ListenAddr { ListenAddr::Tcp(([127, 0, 0, 1], 0).into()) }
/// #     async fn run_until(self, _: impl Future<Output = ()> + Send + 'static) {}
/// # }
/// # struct MyClient(ListenAddr);
/// # impl ServerClient for MyClient {}
///
/// # async fn conforms(directory: &Path) {
/// let suite = ServerSuite::new(directory, async |setup: ServerSetup| {
///     let server = MyServer::bind(setup.engine, setup.users, setup.connections).await?;
///     let client = MyClient(server.local_addr());
///     Ok((server, client))
/// });
/// let report = suite.run().await.unwrap_or_else(|violation| panic!("{violation}"));
/// assert_eq!(report.skipped, [], "the client supports all that the suite asks for");
/// # }
/// ```
#[must_use]
pub struct ServerSuite<O> {
    opener: Opener<O>,
    checks: Vec<ServerCheck>,
}

impl<O, S, C> ServerSuite<O>
where
    O: AsyncFn(ServerSetup) -> Result<(S, C), Box<dyn std::error::Error + Send + Sync>>,
    S: Server,
    C: ServerClient,
{
    /// Creates a suite that opens the server by `open`, which binds it to a free port of loopback, or to
    /// a path for a UNIX socket that is another each time, and makes a client for it. Engines have their files in folders of `directory`, one for each check, which must
    /// not exist and are not removed.
    pub fn new(directory: impl Into<PathBuf>, open: O) -> Self {
        let patience = Duration::from_secs(60);
        let opener = Opener { directory: directory.into(), open, patience };
        Self { opener, checks: ServerCheck::ALL.to_vec() }
    }

    /// Makes these checks alone. Default: all.
    pub fn only(mut self, checks: impl IntoIterator<Item = ServerCheck>) -> Self {
        self.checks = checks.into_iter().collect();
        self
    }

    /// Leaves out a check whose subject is not the server's own, such as
    /// [`Connections`](ServerCheck::Connections) where another program accepts them. The report lists it as
    /// skipped.
    pub fn without(mut self, check: ServerCheck) -> Self {
        self.checks.retain(|each| *each != check);
        self
    }

    /// Sets how long to wait for an answer, or for the effect of something. Default: 60 s.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.opener.patience = patience;
        self
    }

    /// Makes all checks, one after the other. It needs tokio's I/O and timers, a clock that is not paused,
    /// and processes of this host.
    ///
    /// # Errors
    ///
    /// [`ServerViolation`], the first that is found.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the server and what runs.
    pub async fn run(self) -> Result<ServerReport, ServerViolation> {
        let mut report = ServerReport { passed: Vec::new(), skipped: Vec::new() };
        for &check in ServerCheck::ALL {
            if !self.checks.contains(&check) {
                report.skipped.push(check);
                continue;
            }
            match Box::pin(make(&self.opener, check)).await {
                Ok(()) => report.passed.push(check),
                Err(Fail::Unsupported) => report.skipped.push(check),
                Err(Fail::Violation(problem)) => return Err(ServerViolation { check, problem }),
            }
        }
        Ok(report)
    }
}

async fn make<O, S, C>(opener: &Opener<O>, check: ServerCheck) -> Result<(), Fail>
where
    O: AsyncFn(ServerSetup) -> Result<(S, C), Box<dyn std::error::Error + Send + Sync>>,
    S: Server,
    C: ServerClient,
{
    let limits = ConnectionLimits::new;
    let opened = match check {
        ServerCheck::TimeLimit => {
            let timeout = Duration::from_millis(500);
            opener.open(check, limits(), |engine| engine.default_timeout(timeout)).await?
        }
        ServerCheck::EngineFull => {
            opener.open(check, limits(), |engine| engine.max_running(1).max_waiting(0)).await?
        }
        ServerCheck::CallerLimit => {
            let one = |engine: crate::engine::EngineBuilder| {
                engine.max_running_per_caller(1).max_waiting_per_caller(0)
            };
            opener.open(check, limits(), one).await?
        }
        ServerCheck::Internal => opener.open_failing(check).await?,
        ServerCheck::Connections => {
            let limits = limits()
                .max_connections(ends::MAX_CONNECTIONS)
                .unauthenticated_timeout(Duration::from_secs(1));
            opener.open(check, limits, |engine| engine).await?
        }
        _ => opener.open(check, limits(), |engine| engine).await?,
    };
    match check {
        ServerCheck::ExitCode => rules::exit_code(&opened).await,
        ServerCheck::Signal => rules::signal(&opened).await,
        ServerCheck::Streams => rules::streams(&opened).await,
        ServerCheck::Stdin => rules::stdin(&opened).await,
        ServerCheck::Arguments => rules::arguments(&opened).await,
        ServerCheck::Identity => rules::identity(&opened).await,
        ServerCheck::Concurrency => rules::concurrency(&opened).await,
        ServerCheck::TimeLimit => ends::time_limit(&opened).await,
        ServerCheck::ClientLeaves => ends::client_leaves(&opened).await,
        ServerCheck::Unauthenticated => refusals::unauthenticated(&opened).await,
        ServerCheck::MissingScope => refusals::missing_scope(&opened).await,
        ServerCheck::UnknownProgram => refusals::unknown_program(&opened).await,
        ServerCheck::EngineFull => refusals::engine_full(&opened).await,
        ServerCheck::CallerLimit => refusals::caller_limit(&opened).await,
        ServerCheck::Internal => refusals::internal(&opened).await,
        ServerCheck::Drain => ends::drain(opened).await,
        ServerCheck::Cancelled => ends::cancelled(&opened).await,
        ServerCheck::Connections => ends::connections(&opened).await,
        ServerCheck::Terminal => rules::terminal(&opened).await,
        ServerCheck::Files => rules::files(&opened).await,
        ServerCheck::Batch => rules::batch(&opened).await,
    }
}

impl<O> fmt::Debug for ServerSuite<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerSuite").field("checks", &self.checks).finish_non_exhaustive()
    }
}
