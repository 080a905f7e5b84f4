//! What the engine counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::engine::guessing::AuthenticationCounts;
use crate::error::ErrorKind;
use crate::execute::Reason;
use crate::net::ConnectionStats;

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
    /// Time from asking to being let in.
    pub queue_wait: HistogramStats,
    /// Time from being let in to the program running; none for an executor that starts it without
    /// waiting for anything.
    pub spawn: HistogramStats,
    /// Time from the program running to its end.
    pub run: HistogramStats,
    /// Processor time of executions that ended, as far as it is known.
    pub cpu_time: Duration,
    /// Bytes of standard output, read or not.
    pub stdout_bytes: u64,
    /// Bytes of standard error, read or not.
    pub stderr_bytes: u64,
    /// Runs that did not end at the polite request and had to be killed.
    pub kills: u64,
    /// Background processes ended with their run.
    pub swept: u64,
    /// Processes that outlived their run though they should not.
    pub leftovers: u64,
    /// Authentications that failed, by the name of the server that they were tried on.
    pub authentication_failures: Vec<(&'static str, u64)>,
    /// Authentications and connections refused unchecked, since too many before them failed.
    pub authentications_refused: u64,
    /// Addresses with a penalty for authentications that failed.
    pub penalised_addresses: u64,
    /// Number of them that are shut out.
    pub shut_out_addresses: u64,
    /// Counts of the connections of the engine's servers.
    pub connections: ConnectionStats,
}

/// A snapshot of a histogram of times.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HistogramStats {
    /// Upper bounds in seconds and how many times were at most that and above the bound before;
    /// the last bound is infinite.
    pub buckets: Vec<(f64, u64)>,
    /// The sum of all times, in seconds.
    pub sum: f64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) started: AtomicU64,
    pub(crate) ended: [AtomicU64; Reason::ALL.len()],
    pub(crate) refused: [AtomicU64; ErrorKind::ALL.len()],
    pub(crate) queue_wait: Histogram,
    pub(crate) spawn: Histogram,
    pub(crate) run: Histogram,
    cpu_micros: AtomicU64,
    pub(crate) stdout_bytes: AtomicU64,
    pub(crate) stderr_bytes: AtomicU64,
    pub(crate) kills: AtomicU64,
    pub(crate) swept: AtomicU64,
    pub(crate) leftovers: AtomicU64,
}

impl Counters {
    pub(crate) fn count_end(&self, reason: Reason) {
        count_of(Reason::ALL, &self.ended, reason);
    }

    pub(crate) fn count_cpu_time(&self, time: Duration) {
        self.cpu_micros.fetch_add(u64::try_from(time.as_micros()).unwrap_or(0), Relaxed);
    }

    pub(crate) fn count_refusal(&self, kind: ErrorKind) {
        count_of(ErrorKind::ALL, &self.refused, kind);
    }

    pub(crate) fn snapshot(
        &self,
        (running, waiting): (usize, usize),
        (sessions, session_clients): (usize, usize),
        batches: usize,
        authentications: AuthenticationCounts,
        connections: ConnectionStats,
    ) -> EngineStats {
        EngineStats {
            started: self.started.load(Relaxed),
            ended: counts(Reason::ALL, &self.ended),
            refused: counts(ErrorKind::ALL, &self.refused),
            running: running as u64,
            waiting: waiting as u64,
            sessions: sessions as u64,
            batches: batches as u64,
            session_clients: session_clients as u64,
            queue_wait: self.queue_wait.snapshot(),
            spawn: self.spawn.snapshot(),
            run: self.run.snapshot(),
            cpu_time: Duration::from_micros(self.cpu_micros.load(Relaxed)),
            stdout_bytes: self.stdout_bytes.load(Relaxed),
            stderr_bytes: self.stderr_bytes.load(Relaxed),
            kills: self.kills.load(Relaxed),
            swept: self.swept.load(Relaxed),
            leftovers: self.leftovers.load(Relaxed),
            authentication_failures: authentications.failures,
            authentications_refused: authentications.refused,
            penalised_addresses: authentications.penalised,
            shut_out_addresses: authentications.shut_out,
            connections,
        }
    }
}

fn count_of<T: PartialEq>(all: &[T], counters: &[AtomicU64], which: T) {
    if let Some(index) = all.iter().position(|one| *one == which) {
        counters[index].fetch_add(1, Relaxed);
    }
}

fn counts<T: Copy>(all: &[T], counters: &[AtomicU64]) -> Vec<(T, u64)> {
    all.iter().copied().zip(counters.iter().map(|counter| counter.load(Relaxed))).collect()
}

/// Times from 100 µs to 1,000 s.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    counts: [AtomicU64; BOUNDS.len()],
    sum_nanos: AtomicU64,
}

impl Histogram {
    pub(crate) fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds).min(BOUNDS.len() - 1);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum_nanos.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    fn snapshot(&self) -> HistogramStats {
        HistogramStats {
            buckets: counts(&BOUNDS, &self.counts),
            sum: Duration::from_nanos(self.sum_nanos.load(Relaxed)).as_secs_f64(),
        }
    }

    /// The mean of all times seen; zero before the first.
    pub(crate) fn mean(&self) -> Duration {
        let count: u64 = self.counts.iter().map(|count| count.load(Relaxed)).sum();
        Duration::from_nanos(self.sum_nanos.load(Relaxed) / count.max(1))
    }
}

const BOUNDS: [f64; 17] = [
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.1,
    0.25,
    1.0,
    2.5,
    10.0,
    30.0,
    100.0,
    1000.0,
    f64::INFINITY,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_their_buckets() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_micros(100));
        histogram.observe(Duration::from_secs(5));
        histogram.observe(Duration::from_secs(5000));
        let seen = histogram.snapshot();
        let filled: Vec<f64> =
            seen.buckets.iter().filter(|(_, n)| *n == 1).map(|(bound, _)| *bound).collect();
        assert_eq!(filled, [0.0001, 10.0, f64::INFINITY]);
        assert!((seen.sum - 5005.0001).abs() < 1e-9);
    }
}
