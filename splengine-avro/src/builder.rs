use std::collections::BTreeMap;
use std::time::Duration;

use splengine_core::Engine;
use splengine_core::auth::{Authenticator, NoAuthenticator, SharedAuthenticator};
use splengine_core::net::{self, BindError, ConnectionLimits};
use tokio::net::{TcpListener, ToSocketAddrs};

use crate::context::Options;
use crate::responder::Responder;
use crate::server::AvroServer;
use crate::service::AvroService;

/// Sets up the Avro RPC server. Made by [`AvroServer::builder`]; it can be opened only after
/// [`authenticate`](Self::authenticate).
///
/// ```no_run
/// use std::time::Duration;
/// use splengine_avro::AvroServer;
/// use splengine_core::Engine;
/// use splengine_core::auth::Authenticator;
///
/// # async fn example(
/// #     engine: Engine,
/// #     authenticator: impl Authenticator,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// let server = AvroServer::builder(engine)
///     .authenticate(authenticator)
///     .interface("rest", "http://engine.example.org:8080")
///     .max_frame(4 << 20)
///     .max_calls(64)
///     .frame_timeout(Duration::from_secs(10))
///     .bind("127.0.0.1:9090")
///     .await?;
/// # server.await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use]
pub struct AvroServerBuilder<A> {
    engine: Engine,
    authenticator: A,
    options: Options,
    limits: ConnectionLimits,
    #[cfg(feature = "tls")]
    tls: Option<crate::server::Tls>,
}

impl AvroServer {
    /// Returns a builder of a server of `engine`, with defaults.
    pub fn builder(engine: Engine) -> AvroServerBuilder<NoAuthenticator> {
        AvroServerBuilder {
            engine,
            authenticator: NoAuthenticator::new(),
            options: Options {
                interfaces: BTreeMap::new(),
                max_frame: 16 << 20,
                max_buffered: 256 << 20,
                max_calls: 1024,
                handshake_timeout: Duration::from_secs(10),
                frame_timeout: Duration::from_secs(30),
                max_linger: Duration::from_secs(5),
                plain_text: true,
            },
            limits: ConnectionLimits::new(),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

impl<A> AvroServerBuilder<A> {
    /// Sets the authenticator, which finds the user behind a call's credentials: its metadata
    /// `spl-authorization`, over HTTP also the header `Authorization`.
    pub fn authenticate(
        self,
        authenticator: impl Authenticator,
    ) -> AvroServerBuilder<SharedAuthenticator> {
        AvroServerBuilder {
            engine: self.engine,
            authenticator: SharedAuthenticator::new(authenticator),
            options: self.options,
            limits: self.limits,
            #[cfg(feature = "tls")]
            tls: self.tls,
        }
    }

    /// Lists a further server in the answer of `describe`, such as `rest` and its address.
    pub fn interface(mut self, name: impl Into<String>, place: impl Into<String>) -> Self {
        self.options.interfaces.insert(name.into(), place.into());
        self
    }

    /// The largest message, in bytes. A connection that announces a larger one is closed, before
    /// any of it is kept; over HTTP it is refused with 413. Default 16 MiB.
    pub fn max_frame(mut self, bytes: usize) -> Self {
        self.options.max_frame = bytes;
        self
    }

    /// Maximum number of bytes that all connections together hold of messages that are not complete or
    /// whose calls are worked at, beyond 64 KiB of each; of one that is the largest message and 1 MiB.
    /// A caller has half of what the others leave, and one message beyond, over all of their
    /// connections; unauthenticated ones, and bodies of HTTP whose credentials may stand within them,
    /// have a quarter. What the values of a message of another schema than the server's take in memory
    /// until they are read as its own counts likewise from 64 KiB on; beyond 4 MiB and 128 times its
    /// bytes, or 64 MiB, the call is refused. At the bound connections wait to be read from. A message
    /// for which there is no memory for as long as [one may take](Self::frame_timeout) is refused, with
    /// `RESOURCE_EXHAUSTED` if the caller's own share is used up, else with `UNAVAILABLE`, and its
    /// connection closed; over HTTP it is refused after 5 s, with 429 or 503 and `Retry-After`. Default
    /// 256 MiB.
    ///
    /// As much again is the maximum memory of answers of more than 64 KiB that are not sent yet, of a
    /// caller half of what the others leave and one answer beyond it. A call that only looks fails at
    /// once with the same codes if its answer finds none; `stepOutput` and `readFile` wait for it
    /// before they read, as long as [a message may take](Self::frame_timeout). The answer to work that
    /// is done waits for up to 5 s, at most 8 of a caller and 64 of all at once; then the call fails
    /// with `INTERNAL` and a text that says that the work was done, so that no client calls it again.
    pub fn max_buffered(mut self, bytes: usize) -> Self {
        self.options.max_buffered = bytes;
        self
    }

    /// Sets the maximum number of calls of one connection that are worked at, at least 1; the next
    /// one is read when one of them is answered. Default 1024. In the specification's framing it is
    /// always one.
    ///
    /// Of one caller 256 are worked at over all connections; the next waits for 30 s at most, and then
    /// fails with `RESOURCE_EXHAUSTED`. `cancel`, `endSession` and `keepAlive` do not wait. The calls of
    /// a connection that wait, or of which it is not known yet whose they are, take 64 KiB at most, 1 KiB
    /// each beside their messages: then no further one is read.
    pub fn max_calls(mut self, count: usize) -> Self {
        self.options.max_calls = count.max(1);
        self
    }

    /// Bounds on connections. Default: those of [`ConnectionLimits::new`]. A connection counts as
    /// authenticated from the first call on that was let in. Until then it may lie idle after its
    /// handshake, but makes room for others. Its unauthenticated timeout is the
    /// [handshake timeout](Self::handshake_timeout), whatever `limits` say.
    pub fn connection_limits(mut self, limits: ConnectionLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Maximum number of connections served at once, at least 1, default 1024; see
    /// [`ConnectionLimits::max_connections`].
    pub fn max_connections(mut self, count: usize) -> Self {
        self.limits = self.limits.max_connections(count);
        self
    }

    /// Sets the maximum time until the first bytes of a connection show its framing, and then for its
    /// first handshake, before it is closed; and for a protocol that is not known yet to be parsed,
    /// before the calls of its client are answered by an error that says so. Default 10 s each.
    ///
    /// Protocols are parsed off the runtime's workers, one at a time; of clients that were not
    /// authenticated one of each address waits for that, and the others behind it. A protocol is
    /// refused, in the answers to its client's calls, beyond 256 KiB of text, 1,000 types and
    /// messages, 64 aliases, 8,192 fields, references and symbols, or types 64 deep in each other;
    /// those that are known are kept within 16 MiB.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.options.handshake_timeout = timeout;
        self
    }

    /// Sets the maximum time for a message from its first byte to its last, and for a client to leave
    /// its answers unread, before its connection is closed. Default 30 s. Between messages a connection
    /// may be idle for any time.
    pub fn frame_timeout(mut self, timeout: Duration) -> Self {
        self.options.frame_timeout = timeout;
        self
    }

    /// Sets the time that connections have, once the server ends, to finish their work. Default
    /// 5 s.
    pub fn max_linger(mut self, time: Duration) -> Self {
        self.options.max_linger = time;
        self
    }

    /// Serves TLS, too, to clients that begin with it: with this chain of certificates and this private
    /// key, both in PEM. Clients without TLS are served as before.
    ///
    /// # Errors
    ///
    /// [`TlsError`](crate::TlsError) when they can't be read or do not fit each other.
    #[cfg(feature = "tls")]
    pub fn tls(
        self,
        certificates: &[u8],
        key: &splengine_core::auth::Secret,
    ) -> Result<Self, crate::TlsError> {
        Ok(self.serve_tls(crate::Tls::new(certificates, key)?))
    }

    /// Sets whether clients that begin without TLS are served, beside those that begin with it.
    /// Default true. Where it is false, a request of HTTP is answered with 400, and everything else
    /// closed.
    #[cfg(feature = "tls")]
    pub fn plain_text(mut self, served: bool) -> Self {
        self.options.plain_text = served;
        self
    }

    /// Serves TLS with a certificate and key that can be [replaced](crate::Tls::replace) while they
    /// are in use.
    #[cfg(feature = "tls")]
    pub fn serve_tls(mut self, tls: crate::Tls) -> Self {
        self.tls = Some(tls);
        self
    }
}

impl AvroServerBuilder<SharedAuthenticator> {
    /// Makes a service of the server over HTTP alone, to be nested in a stack of one's own.
    #[must_use]
    pub fn into_service(self) -> AvroService {
        AvroService::new(Responder::new(self.engine, self.authenticator, self.options))
    }

    /// Binds `address`; port 0 takes a free port. Nothing is served before the server is awaited.
    ///
    /// # Errors
    ///
    /// [`BindError`] when the address is not available.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future releases the address.
    pub async fn bind(
        self,
        address: impl ToSocketAddrs + std::fmt::Debug,
    ) -> Result<AvroServer, BindError> {
        let (listener, _) = net::bind(address).await?;
        self.listen(listener)
    }

    /// Serves on an existing listener, such as an inherited one.
    ///
    /// # Errors
    ///
    /// [`BindError`] when the listener has no address.
    pub fn listen(self, listener: TcpListener) -> Result<AvroServer, BindError> {
        let local_addr = net::local_addr(&listener)?;
        // The time until its framing is known, and then for a handshake.
        let handshakes = self.options.handshake_timeout.saturating_mul(2);
        let limits = self.limits.unauthenticated_timeout(handshakes).counted_by(&self.engine);
        let responder = Responder::new(self.engine, self.authenticator, self.options);
        Ok(AvroServer {
            listener,
            local_addr,
            responder,
            limits,
            #[cfg(feature = "tls")]
            tls: self.tls,
        })
    }
}
