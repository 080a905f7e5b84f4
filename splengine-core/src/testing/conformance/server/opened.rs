use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::batch::BatchPolicy;
use crate::engine::{Engine, EngineBuilder};
use crate::execute::{Cancel, Command, Execute, ExecuteError, Exit, Output, Stdin};
use crate::files::FilePolicy;
use crate::local::LocalExecutor;
use crate::net::{ConnectionLimits, ListenAddr, Server};
use crate::session::SessionPolicy;
use crate::store::MemoryStore;
use crate::testing::conformance::server::check::Fail;
use crate::testing::conformance::{
    ClientError, Outcome, ServerCheck, ServerClient, ServerSetup, TestUser, TestUsers,
};

/// Opens the server that is tested.
pub(super) struct Opener<O> {
    pub(super) directory: PathBuf,
    pub(super) open: O,
    pub(super) patience: Duration,
}

/// A server that runs, with its engine and a client.
pub(super) struct Opened<C> {
    pub(super) engine: Engine,
    pub(super) client: C,
    pub(super) addr: ListenAddr,
    pub(super) root: PathBuf,
    pub(super) patience: Duration,
    end: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

impl<O, S, C> Opener<O>
where
    O: AsyncFn(ServerSetup) -> Result<(S, C), Box<dyn std::error::Error + Send + Sync>>,
    S: Server,
    C: ServerClient,
{
    pub(super) async fn open(
        &self,
        check: ServerCheck,
        connections: ConnectionLimits,
        configure: impl FnOnce(EngineBuilder) -> EngineBuilder,
    ) -> Result<Opened<C>, Fail> {
        let root = self.root(check)?;
        let executor = LocalExecutor::new(&root).map_err(not_set_up)?;
        let engine = configure(self.builder(check, executor)?);
        self.serve(engine, connections, root).await
    }

    /// With an engine that fails to run anything.
    pub(super) async fn open_failing(&self, check: ServerCheck) -> Result<Opened<C>, Fail> {
        let root = self.root(check)?;
        let engine = self.builder(check, Failing)?;
        self.serve(engine, ConnectionLimits::new(), root).await
    }

    fn root(&self, check: ServerCheck) -> Result<PathBuf, Fail> {
        let root = self.directory.join(check.name()).join("root");
        std::fs::create_dir_all(&root).map_err(not_set_up)?;
        Ok(root)
    }

    fn builder(&self, check: ServerCheck, executor: impl Execute) -> Result<EngineBuilder, Fail> {
        let own = self.directory.join(check.name());
        let batches = BatchPolicy::new(MemoryStore::new(), own.join("outputs"));
        Ok(Engine::builder(executor)
            .grace(Duration::from_secs(1))
            .sessions(SessionPolicy::new().shell(["/bin/sh"]))
            .files(FilePolicy::new().root(own.join("root")))
            .batches(batches))
    }

    async fn serve(
        &self,
        engine: EngineBuilder,
        connections: ConnectionLimits,
        root: PathBuf,
    ) -> Result<Opened<C>, Fail> {
        let engine = engine.build().map_err(not_set_up)?;
        let setup = ServerSetup { engine: engine.clone(), users: TestUsers, connections };
        let (server, client) = (self.open)(setup).await.map_err(|error| {
            let mut problem = format!("the server does not open, and was expected to: {error}");
            for cause in std::iter::successors(error.source(), |cause| cause.source()) {
                problem.push_str(&format!(": {cause}"));
            }
            Fail::Violation(problem)
        })?;
        let addr = server.local_addr();
        let (end, ended) = oneshot::channel();
        let serving = tokio::spawn(server.run_until(async {
            // A sender that is dropped ends the server, too.
            let _ = ended.await;
        }));
        let (end, patience) = (Some(end), self.patience);
        Ok(Opened { engine, client, addr, root, patience, end, serving })
    }
}

impl<C: ServerClient> Opened<C> {
    /// What a call gives, within the time for it.
    pub(super) async fn within<T>(
        &self,
        call: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let late = |_| ClientError::failed(format!("nothing came within {:?}", self.patience));
        timeout(self.patience, call).await.map_err(late).flatten()
    }

    /// Runs a command that is expected to run.
    pub(super) async fn run(
        &self,
        user: TestUser,
        argv: &[&str],
        stdin: &[u8],
    ) -> Result<Outcome, Fail> {
        let outcome = self.within(self.client.execute(user, argv, stdin)).await;
        outcome.map_err(|error| not_done(&format!("`{}`", argv.join(" ")), user, &error))
    }

    /// Waits for a state that nothing announces.
    pub(super) async fn eventually(
        &self,
        expected: &str,
        mut look: impl FnMut() -> bool,
    ) -> Result<(), Fail> {
        let begun = Instant::now();
        while !look() {
            if begun.elapsed() > self.patience {
                return Fail::violation(format!("expected within {:?}: {expected}", self.patience));
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Waits until there is a file of this name in root, which the command of `call` makes.
    pub(super) async fn begun<T>(
        &self,
        call: &mut (impl Future<Output = Result<T, ClientError>> + Unpin),
        file: &str,
    ) -> Result<(), Fail> {
        let path = self.root.join(file);
        tokio::select! {
            biased;
            begun = self.eventually("a command that runs", || path.exists()) => begun,
            ended = call => match ended {
                Err(ClientError::Unsupported) => Err(Fail::Unsupported),
                Err(error) => Fail::violation(format!("expected a command that runs; {error}")),
                Ok(_) => Fail::violation("a command ended, and was expected to run on"),
            },
        }
    }

    /// Ends the server as after a drain, and waits until it has.
    pub(super) async fn close(mut self) -> Result<(), Fail> {
        drop(self.end.take());
        match timeout(self.patience, &mut self.serving).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Fail::violation(format!("the server failed at its end: {error}")),
            Err(_) => Fail::violation(format!(
                "the server is not over {:?} after its end was asked for, and was expected to be",
                self.patience
            )),
        }
    }
}

impl<C> Drop for Opened<C> {
    fn drop(&mut self) {
        self.engine.kill();
        self.serving.abort();
    }
}

/// Connects to a server as a client that sends nothing.
pub(super) async fn connect(addr: &ListenAddr) -> io::Result<Box<dyn AsyncRead + Send + Unpin>> {
    Ok(match addr {
        ListenAddr::Tcp(addr) => Box::new(TcpStream::connect(addr).await?),
        ListenAddr::Unix(path) => Box::new(UnixStream::connect(path).await?),
    })
}

pub(super) fn not_done(what: &str, user: TestUser, error: &ClientError) -> Fail {
    match error {
        ClientError::Unsupported => Fail::Unsupported,
        error => {
            let user = user.name();
            Fail::Violation(format!("{what} of {user} was expected to be done, but {error}"))
        }
    }
}

fn not_set_up(error: impl std::fmt::Display) -> Fail {
    Fail::Violation(format!("the suite can't set up an engine: {error}"))
}

/// Runs nothing.
struct Failing;

impl Execute for Failing {
    async fn execute(
        &self,
        _: Command,
        _: Stdin,
        _: Output,
        _: Cancel,
    ) -> Result<Exit, ExecuteError> {
        Err(ExecuteError::internal(SECRET_CAUSE))
    }
}

/// Cause of a failure, which no client is to be told.
pub(super) const SECRET_CAUSE: &str = "a cause of the inside";
