use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A snapshot of what the servers of an engine counted of their connections since it was built.
/// Part of [`EngineStats`](crate::engine::EngineStats).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// Connections open now, those that became WebSockets among them.
    pub open: u64,
    /// Number of connections open now on which no client has authenticated yet.
    pub unauthenticated: u64,
    /// Connections closed right after they were accepted, since the server
    /// [refuses](crate::net::ConnectionLimits::refuse) their address.
    pub refused: u64,
    /// Number of connections that were closed in favour of others: unauthenticated ones, and those
    /// beyond the share of their caller.
    pub evicted: u64,
    /// Connections closed because they showed nothing in time, or lay idle for too long.
    pub timed_out: u64,
    /// Connections closed because their client read nothing of what was written for too long.
    pub write_timed_out: u64,
}

/// The counters behind [`ConnectionStats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) open: AtomicU64,
    pub(crate) unauthenticated: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) evicted: AtomicU64,
    pub(crate) timed_out: AtomicU64,
    pub(crate) write_timed_out: AtomicU64,
}

impl Counters {
    pub(crate) fn snapshot(&self) -> ConnectionStats {
        ConnectionStats {
            open: self.open.load(Relaxed),
            unauthenticated: self.unauthenticated.load(Relaxed),
            refused: self.refused.load(Relaxed),
            evicted: self.evicted.load(Relaxed),
            timed_out: self.timed_out.load(Relaxed),
            write_timed_out: self.write_timed_out.load(Relaxed),
        }
    }
}
