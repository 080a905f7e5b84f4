use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::net::peer::Peer;
use crate::net::stats::Counters;
use crate::quota::EngineMemory;

/// Bounds on the connections of one server, for [`serve_connections`](crate::net::serve_connections).
///
/// A connection is *unauthenticated* until [`ConnectionHandle::set_authenticated`] is called: until then it has a time
/// to send a request, and is closed when others need its place. When the server is full, connections beyond their
/// caller's share of [all](Self::max_connections) are closed first, then unauthenticated ones; an authenticated
/// connection within the share never is.
///
/// ```
/// use std::time::Duration;
/// use splengine_core::net::ConnectionLimits;
///
/// let limits = ConnectionLimits::new()
///     .max_connections(256)
///     .max_unauthenticated_per_address(8)
///     .unauthenticated_timeout(Duration::from_secs(5));
/// ```
///
/// [`ConnectionHandle::set_authenticated`]: crate::net::ConnectionHandle::set_authenticated
#[derive(Clone)]
#[must_use]
pub struct ConnectionLimits {
    max_connections: usize,
    max_unauthenticated: Option<usize>,
    pub(crate) max_unauthenticated_per_address: usize,
    pub(crate) max_unauthenticated_requests: usize,
    pub(crate) max_http2_bytes: usize,
    pub(crate) unauthenticated_timeout: Duration,
    pub(crate) write_timeout: Duration,
    pub(crate) unauthenticated_write_timeout: Duration,
    pub(crate) busy_timeout: Duration,
    refuse: Option<Arc<dyn Fn(IpAddr) -> bool + Send + Sync>>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) engine_memory: Option<EngineMemory>,
}

impl ConnectionLimits {
    /// Makes limits with the defaults.
    pub fn new() -> Self {
        Self {
            max_connections: 1024,
            max_unauthenticated: None,
            max_unauthenticated_per_address: 32,
            max_unauthenticated_requests: 8,
            max_http2_bytes: 32 << 20,
            unauthenticated_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_mins(5),
            unauthenticated_write_timeout: Duration::from_secs(30),
            busy_timeout: Duration::from_secs(1),
            refuse: None,
            counters: Arc::default(),
            engine_memory: None,
        }
    }

    /// Sets the maximum number of connections served at once, at least 1, default 1024. At the maximum, a connection
    /// is closed for the next one, the first of these that there is:
    ///
    /// 1. A connection beyond its caller's share with no request in progress.
    /// 2. A connection beyond its caller's share with a request in progress, if the next one comes from another
    ///    address, or has waited for [`busy_timeout`](Self::busy_timeout): one of the same address may be the same
    ///    caller's. Up to 64 wait so, accepted.
    /// 3. An unauthenticated connection.
    ///
    /// While there is none of them, the next one waits unaccepted. A caller's share is as many as others leave free
    /// (half of all for one caller alone, a third for two), so that no caller keeps all others out. A connection that
    /// was upgraded counts no more once it is authenticated: whatever serves it then has a bound of its own.
    pub fn max_connections(mut self, count: usize) -> Self {
        self.max_connections = count.max(1);
        self
    }

    /// Sets the maximum number of unauthenticated connections in all, at least 1, default as many as
    /// [`max_connections`](Self::max_connections). For one more, a connection of the address that has most of them
    /// is closed at once: the oldest that is silent, or the oldest. Addresses of IPv6 are compared first by their
    /// networks of 48 bits. Of several addresses with as many, up to 32 are compared, and the connection that has
    /// sent nothing for the longest time is closed.
    pub fn max_unauthenticated(mut self, count: usize) -> Self {
        self.max_unauthenticated = Some(count.max(1));
        self
    }

    /// Sets the maximum number of silent unauthenticated connections of one address, or one network of 64
    /// bits of IPv6, or one uid of a UNIX socket, at least 1, default 32. Of more the oldest are closed.
    /// A connection is silent if its client has sent nothing for a second while the server waits for it, or if it is
    /// still unauthenticated after 30 s: many clients of one address may connect at the same moment, if they
    /// authenticate at once.
    pub fn max_unauthenticated_per_address(mut self, count: usize) -> Self {
        self.max_unauthenticated_per_address = count.max(1);
        self
    }

    /// Sets the maximum number of requests in progress at once on one unauthenticated connection of a
    /// protocol that multiplexes them (HTTP/2), at least 1, default 8. Further requests wait until one of
    /// these is over and its answer written, or a client has authenticated on the connection.
    pub fn max_unauthenticated_requests(mut self, count: usize) -> Self {
        self.max_unauthenticated_requests = count.max(1);
        self
    }

    /// Maximum memory in bytes of what all connections of HTTP/2 hold, default 32 MiB: heads of requests that are
    /// worked at or wait for their [turn](crate::net::Activity::turn), and what the library holds of
    /// [bodies](crate::net::Activity::body) that no one reads, of trailers, of compressed headers and of streams.
    /// One caller may have half of what the others leave, all unauthenticated connections together a quarter, and all
    /// guests another, apart from what those have who invited them.
    ///
    /// Part of it is not counted: 128 KiB and 64 streams with their requests of each of the first 32 connections of a
    /// caller; 4 KiB of each further one, and of each of a guest; 16 KiB and two requests with heads of up to 4 KiB of an
    /// unauthenticated one. Each request beyond these counts as 18.5 KiB, or 8.5 KiB on an unauthenticated connection.
    /// Apart from this maximum, each of these further connections itself counts as 36 KiB of the memory of the engine
    /// that [counts them](Self::counted_by).
    ///
    /// A connection for which there is no memory is not read; after 1 s of that those of its requests are
    /// [refused](crate::net::Activity::refused) that have not begun to read their bodies, and after 10 s it is closed.
    /// A head over 4 KiB for which no memory is free is refused at once. Where the connections are
    /// [counted](Self::counted_by) by an engine, all of this is part of its
    /// [`max_buffered_bytes`](crate::engine::EngineBuilder::max_buffered_bytes).
    pub fn max_http2_bytes(mut self, bytes: usize) -> Self {
        self.max_http2_bytes = bytes;
        self
    }

    /// Sets the time within which a new connection must be authenticated, or must at least have sent its
    /// first whole request (see [`ConnectionHandle::begin`](crate::net::ConnectionHandle::begin)), else
    /// it is closed; default 10 s.
    pub fn unauthenticated_timeout(mut self, time: Duration) -> Self {
        self.unauthenticated_timeout = time;
        self
    }

    /// Lowers the [unauthenticated timeout](Self::unauthenticated_timeout) to `time`, if that is
    /// less.
    pub fn unauthenticated_timeout_at_most(mut self, time: Duration) -> Self {
        self.unauthenticated_timeout = self.unauthenticated_timeout.min(time);
        self
    }

    /// Sets the time for which an authenticated client may read nothing of what is written to it, default
    /// 5 min. Then writing fails with [`TimedOut`](std::io::ErrorKind::TimedOut). A client that reads slowly,
    /// but reads, is never disconnected: the time begins anew with each byte for which the operating
    /// system has room again; of an answer over HTTP/2 with each 16 KiB.
    pub fn write_timeout(mut self, time: Duration) -> Self {
        self.write_timeout = time;
        self
    }

    /// Sets the write timeout for an unauthenticated client, default 30 s.
    pub fn unauthenticated_write_timeout(mut self, time: Duration) -> Self {
        self.unauthenticated_write_timeout = time;
        self
    }

    /// Sets the time for which a new connection that found no place waits before another one from the same
    /// address, with a request in progress, is closed for it, if that is beyond its caller's share of
    /// [all](Self::max_connections); default 1 s. Also the time for which there may be no file
    /// descriptor for a new connection before one with a request in progress is closed for it.
    pub fn busy_timeout(mut self, time: Duration) -> Self {
        self.busy_timeout = time;
        self
    }

    /// Sets which addresses are refused: those for which `refuse` returns true. Their connections are
    /// closed right after they were accepted. `refuse` is called by the accept loop and must not block. Clients of UNIX
    /// sockets have no address, and are not refused. Default: none.
    pub fn refuse(mut self, refuse: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        self.refuse = Some(Arc::new(refuse));
        self
    }

    pub(crate) fn connections(&self) -> usize {
        self.max_connections
    }

    pub(crate) fn unauthenticated(&self) -> usize {
        self.max_unauthenticated.unwrap_or(usize::MAX).min(self.max_connections)
    }

    pub(crate) fn refuses(&self, peer: &Peer) -> bool {
        let refuse = self.refuse.as_ref().zip(peer.ip());
        refuse.is_some_and(|(refuse, ip)| refuse(ip))
    }
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ConnectionLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionLimits")
            .field("max_connections", &self.max_connections)
            .field("max_unauthenticated", &self.unauthenticated())
            .field("max_unauthenticated_per_address", &self.max_unauthenticated_per_address)
            .field("max_unauthenticated_requests", &self.max_unauthenticated_requests)
            .field("max_http2_bytes", &self.max_http2_bytes)
            .field("unauthenticated_timeout", &self.unauthenticated_timeout)
            .field("write_timeout", &self.write_timeout)
            .field("unauthenticated_write_timeout", &self.unauthenticated_write_timeout)
            .field("busy_timeout", &self.busy_timeout)
            .field("refuse", &self.refuse.is_some())
            .finish_non_exhaustive()
    }
}
