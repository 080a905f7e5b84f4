use std::convert::Infallible;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use russh::Disconnect;
use russh::server::{Config, run_stream};
use splengine_core::auth::CredentialSource;
use splengine_core::net::{
    Closing, Connection, ConnectionLimits, ListenAddr, Listener, Peer, Server, serve_connections,
};
use tokio::time::{interval, timeout};

use crate::Algorithms;
use crate::context::Context;
use crate::guarded_io::GuardedIo;
use crate::handler::Client;
use crate::login::Login;

/// The SSH server on an address of its own. Serves while it is awaited, or [run](Self::run_until).
///
/// ```no_run
/// use std::time::Duration;
/// use splengine_core::{Engine, LocalExecutor};
/// use splengine_ssh::{HostKeys, SshServer, Users};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let engine = Engine::builder(LocalExecutor::new("/srv/work")?).build()?;
/// let users = Users::new().authorized_keys("/etc/my-server/keys");
/// let keys = HostKeys::open_or_create("/var/lib/my-server/host_ed25519_key")?;
/// let server =
///     SshServer::builder(engine.clone()).users(users).bind("127.0.0.1:2222", &keys).await?;
/// let shutdown = async {
///     drop(tokio::signal::ctrl_c().await);
///     // Commands tell their ends before their connections are closed.
///     engine.drain(Duration::from_secs(30)).await;
/// };
/// server.run_until(shutdown).await;
/// # Ok(())
/// # }
/// ```
#[must_use = "a server does nothing unless it is awaited"]
pub struct SshServer {
    pub(crate) listener: Listener,
    pub(crate) local_addr: ListenAddr,
    pub(crate) config: Arc<Config>,
    pub(crate) limits: ConnectionLimits,
    pub(crate) context: Arc<Context>,
}

impl SshServer {
    /// Returns the address that the server listens on.
    #[must_use]
    pub fn local_addr(&self) -> ListenAddr {
        self.local_addr.clone()
    }

    /// Serves until `shutdown` resolves; then accepts no more connections, notifies the clients, and
    /// closes what is left after the builder's `max_linger`.
    ///
    /// While `shutdown` is pending everything is served. If the engine is drained within it, clients
    /// are told the ends of their runs, and terminals of the restart, before their connections are
    /// closed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the listener and all connections.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) {
        let Self { listener, config, limits, context, .. } = self;
        let max_linger = context.options.max_linger;
        serve_connections(listener, limits, max_linger, shutdown, |connection, closing| {
            // It may be gone again.
            let peer = connection.peer().ok()?;
            let source = peer.credential_source("ssh");
            if let Some(time) = context.engine.blocked_for(&source) {
                tracing::debug!(%peer, ?time, "a connection is refused: its address is blocked");
                return None;
            }
            let (config, context) = (Arc::clone(&config), Arc::clone(&context));
            let entering = Entering { config, context, closing, peer, source };
            Some(entering.serve(connection))
        })
        .await;
    }
}

impl Server for SshServer {
    fn local_addr(&self) -> ListenAddr {
        self.local_addr.clone()
    }

    async fn run_until(self, shutdown: impl Future<Output = ()> + Send + 'static) {
        Self::run_until(self, shutdown).await;
    }
}

impl IntoFuture for SshServer {
    type Output = Infallible;
    type IntoFuture = Pin<Box<dyn Future<Output = Infallible> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(Server::run(self))
    }
}

impl fmt::Debug for SshServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SshServer").field("local_addr", &self.local_addr).finish_non_exhaustive()
    }
}

/// A connection that nobody has logged in on yet.
struct Entering {
    config: Arc<Config>,
    context: Arc<Context>,
    closing: Closing,
    peer: Peer,
    source: CredentialSource,
}

/// Counts a login that failed as a whole, however its connection ends.
struct Attempted {
    context: Arc<Context>,
    source: CredentialSource,
    login: Login,
}

impl Drop for Attempted {
    fn drop(&mut self) {
        if self.login.has_failed_uncounted() {
            self.context.engine.count_failed_login(&self.source);
        }
    }
}

impl Entering {
    /// Serves a connection to its end. However this ends, russh's task ends with it: its socket is
    /// cut.
    async fn serve(self, connection: Connection) -> io::Result<()> {
        let Self { config, context, mut closing, peer, source } = self;
        let place = connection.handle();
        // It may be gone again.
        let ours = connection.local_addr()?;
        let (line, abort, traffic) = GuardedIo::new(connection);
        let login = Login::new(place.clone());
        let rechecks = context.users.rechecks();
        let attempted = Attempted {
            context: Arc::clone(&context),
            source: source.clone(),
            login: login.clone(),
        };
        let handler = Client::new(Arc::clone(&context), (peer, ours), source, login.clone());
        let mut closed = std::pin::pin!(closing.closed());
        let starting = run_stream(config, line, handler);
        let mut session = tokio::select! {
            started = starting => started.map_err(|error| failed(&context, peer, error))?,
            () = &mut closed => return Ok(()),
        };
        let handle = session.handle();
        let mut looks = interval(POLL_INTERVAL);
        let mut is_told = false;
        let mut logged_in = std::pin::pin!(login.succeeded());
        loop {
            tokio::select! {
                ended = &mut session => return ended.map_err(|error| failed(&context, peer, error)),
                () = &mut logged_in => break,
                () = &mut closed => return Ok(()),
                // russh does not answer who asks for the service a second time.
                _ = looks.tick() => {
                    let is_idle = login.has_been_tried() && !login.is_checking();
                    let unanswered =
                        if is_idle { traffic.unanswered_for() } else { Duration::ZERO };
                    if is_told && unanswered > UNANSWERED * 2 {
                        return Ok(());
                    }
                    if !is_told && unanswered > UNANSWERED {
                        is_told = true;
                        let words = "one key at a time, please: this server does not take a \
                            second request for the service; try the next key on a new connection";
                        let reason = Disconnect::ProtocolError;
                        drop(handle.disconnect(reason, words.to_owned(), String::new()).await);
                    }
                }
            }
        }
        if let Some(caller) = login.caller() {
            place.set_authenticated(caller);
        }
        drop(attempted);
        let linger = context.options.max_linger;
        tokio::select! {
            ended = &mut session => return ended.map_err(io::Error::other),
            () = login.taken_back(&context.users, rechecks) => {
                tracing::info!(%peer, "a connection is closed: what let it in was taken back");
                let words = "what you logged in with was taken back, or its rights: log in again";
                let telling = async {
                    let reason = Disconnect::ByApplication;
                    drop(handle.disconnect(reason, words.to_owned(), String::new()).await);
                    drop((&mut session).await);
                };
                let in_time = timeout(linger.min(CLOSE_TIMEOUT), telling).await;
                abort.cut();
                return in_time.map_err(io::Error::from);
            }
            () = &mut closed => {}
        }
        let words = "the server is shutting down".to_owned();
        let leaving = async {
            // The engine is done with what ran here, and its client may not have heard of that yet.
            // Who came for that alone goes by themselves. Sent away, they would take what they have
            // just heard for a failure.
            let going = async {
                login.idle().await;
                timeout(CLOSE_TIMEOUT, &mut session).await.is_ok()
            };
            if timeout(linger / 2, going).await.is_ok_and(|is_gone| is_gone) {
                return;
            }
            drop(handle.disconnect(Disconnect::ByApplication, words, String::new()).await);
            drop((&mut session).await);
        };
        let in_time = timeout(linger, leaving).await;
        abort.cut();
        in_time.map_err(io::Error::from)
    }
}

/// Says in the log why a client that has no algorithm in common with the server did not get in.
fn failed(context: &Context, peer: Peer, error: russh::Error) -> io::Error {
    if let russh::Error::NoCommonAlgo { kind, theirs, .. } = &error
        && let Some(unlogged) = context.lines.failed_negotiations.take(())
    {
        let offered: String = theirs.join(",").chars().take(MAX_OFFER_CHARS).collect();
        let set = Algorithms::set_with(theirs);
        tracing::warn!(
            %peer, ?kind, offered, unlogged,
            "a client has no algorithm in common with this server; {}",
            match set {
                Some("default") => "the set `default` of algorithms would let it in",
                Some(_) => "the set `compatible` of algorithms would let it in",
                None => "no set of algorithms would let it in: it needs a newer version",
            }
        );
    }
    io::Error::other(error)
}

/// Of what a client offers, in the log.
const MAX_OFFER_CHARS: usize = 200;
/// How long a client may take to close its connection once nothing runs on it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Longer than any answer takes while nothing is being checked.
const UNANSWERED: Duration = Duration::from_secs(3);
