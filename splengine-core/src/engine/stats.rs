//! Statistics of an engine.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::engine::guessing::AuthenticationCounts;
use crate::error::ErrorKind;
use crate::execute::Reason;
use crate::net::ConnectionStats;
use crate::run::{Counters, HistogramStats, counts};

/// A snapshot of what an engine counted since it was built.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EngineStats {
    /// Executions that started.
    pub started: u64,
    /// Executions that ended, by reason, in the order of [`Reason::ALL`].
    pub ended: Vec<(Reason, u64)>,
    /// Executions refused before they started, by kind, in the order of [`ErrorKind::ALL`].
    pub refused: Vec<(ErrorKind, u64)>,
    /// Executions that run now.
    pub running: u64,
    /// Executions that wait now.
    pub waiting: u64,
    /// Sessions whose program runs.
    pub sessions: u64,
    /// Batches that are not over.
    pub batches: u64,
    /// Clients attached to sessions.
    pub session_clients: u64,
    /// Time that requests waited in the queue.
    pub queue_wait: HistogramStats,
    /// Time from the end of the wait to the start of the program; zero for an executor that starts it
    /// without waiting for anything.
    pub spawn: HistogramStats,
    /// Time from the program running to its end.
    pub run: HistogramStats,
    /// Processor time of executions that ended, as far as it is known.
    pub cpu_time: Duration,
    /// Bytes of standard output, read or not.
    pub stdout_bytes: u64,
    /// Bytes of standard error, read or not.
    pub stderr_bytes: u64,
    /// Runs that did not end after the request to end, and had to be killed.
    pub kills: u64,
    /// Background processes ended with their run.
    pub swept: u64,
    /// Processes that outlived their run although they should not have.
    pub leftovers: u64,
    /// Authentications that failed, by the name of the server that they were tried on.
    pub authentication_failures: Vec<(&'static str, u64)>,
    /// Authentications and connections refused unchecked, since too many before them failed.
    pub authentications_refused: u64,
    /// Addresses with a penalty for authentications that failed.
    pub penalised_addresses: u64,
    /// Number of them that are blocked.
    pub blocked_addresses: u64,
    /// Counts of the connections of the engine's servers.
    pub connections: ConnectionStats,
}

impl EngineStats {
    pub(crate) fn new(
        counters: &Counters,
        (running, waiting): (usize, usize),
        (sessions, session_clients): (usize, usize),
        batches: usize,
        authentications: AuthenticationCounts,
        connections: ConnectionStats,
    ) -> Self {
        Self {
            started: counters.started.load(Relaxed),
            ended: counts(Reason::ALL, &counters.ended),
            refused: counts(ErrorKind::ALL, &counters.refused),
            running: running as u64,
            waiting: waiting as u64,
            sessions: sessions as u64,
            batches: batches as u64,
            session_clients: session_clients as u64,
            queue_wait: counters.queue_wait.snapshot(),
            spawn: counters.spawn.snapshot(),
            run: counters.run.snapshot(),
            cpu_time: Duration::from_micros(counters.cpu_micros.load(Relaxed)),
            stdout_bytes: counters.stdout_bytes.load(Relaxed),
            stderr_bytes: counters.stderr_bytes.load(Relaxed),
            kills: counters.kills.load(Relaxed),
            swept: counters.swept.load(Relaxed),
            leftovers: counters.leftovers.load(Relaxed),
            authentication_failures: authentications.failures,
            authentications_refused: authentications.refused,
            penalised_addresses: authentications.penalised,
            blocked_addresses: authentications.blocked,
            connections,
        }
    }
}
