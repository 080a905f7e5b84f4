use std::fmt;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::engine::Engine;
use crate::net::{ListenAddr, Server};

type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Servers of one engine, which are run together and end together.
///
/// ```no_run
/// use std::time::Duration;
/// use splengine_core::engine::Servers;
/// use splengine_core::net::Server;
/// use splengine_core::{Engine, LocalExecutor};
///
/// # async fn example(http: impl Server, ssh: impl Server) -> Result<(), Box<dyn std::error::Error>> {
/// let engine = Engine::builder(LocalExecutor::new("/srv/work")?).build()?;
/// let signal = async { drop(tokio::signal::ctrl_c().await) };
/// let servers = Servers::new().add(http).add(ssh);
/// servers.run_until(signal, &engine, Duration::from_secs(30)).await;
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
#[must_use = "servers do nothing unless they are run"]
pub struct Servers(Vec<Box<dyn DynServer>>);

impl Servers {
    /// Makes an empty set of servers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a server.
    #[expect(clippy::should_implement_trait, reason = "it adds to a set, and sums up nothing")]
    pub fn add(mut self, server: impl Server) -> Self {
        self.0.push(Box::new(server));
        self
    }

    /// Returns the addresses that they listen on, in the order in which they were added.
    pub fn local_addrs(&self) -> impl Iterator<Item = ListenAddr> {
        self.0.iter().map(|server| server.local_addr())
    }

    /// Serves until `signal` resolves, then drains `engine` with `grace`, and at last ends the servers.
    ///
    /// While the engine is drained the servers continue: clients are told how what runs ends, and that
    /// nothing new is accepted. When it is drained each server ends as its own `run_until` says. Each
    /// is run in a task of its own; a panic of one is a panic of this. [`Engine::kill`] shortens the
    /// drain. Without servers this waits for the signal, and drains.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes all listeners and connections soon after, and leaves the engine as it is: open
    /// for work, or drained as far as it has come.
    pub async fn run_until(
        self,
        signal: impl Future<Output = ()>,
        engine: &Engine,
        grace: Duration,
    ) {
        let (end, ended) = watch::channel(false);
        let mut serving = JoinSet::new();
        for server in self.0 {
            let mut ended = ended.clone();
            serving.spawn(server.run_boxed(Box::pin(async move {
                // Where the sender is gone, so are the servers.
                let _ = ended.wait_for(|ended| *ended).await;
            })));
        }
        let draining = async {
            signal.await;
            engine.drain(grace).await;
            end.send_replace(true);
        };
        let serving = async {
            while let Some(served) = serving.join_next().await {
                if let Err(error) = served
                    && let Ok(panic) = error.try_into_panic()
                {
                    resume_unwind(panic);
                }
            }
        };
        tokio::join!(draining, serving);
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.local_addrs()).finish()
    }
}

/// The dyn-compatible counterpart of [`Server`].
trait DynServer: Send {
    fn local_addr(&self) -> ListenAddr;

    fn run_boxed(self: Box<Self>, shutdown: BoxFuture) -> BoxFuture;
}

impl<S: Server> DynServer for S {
    fn local_addr(&self) -> ListenAddr {
        Server::local_addr(self)
    }

    fn run_boxed(self: Box<Self>, shutdown: BoxFuture) -> BoxFuture {
        Box::pin((*self).run_until(shutdown))
    }
}
