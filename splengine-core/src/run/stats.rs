//! Counters of runs.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::error::ErrorKind;
use crate::execute::Reason;

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
    pub(crate) cpu_micros: AtomicU64,
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
}

fn count_of<T: PartialEq>(all: &[T], counters: &[AtomicU64], which: T) {
    if let Some(index) = all.iter().position(|one| *one == which) {
        counters[index].fetch_add(1, Relaxed);
    }
}

pub(crate) fn counts<T: Copy>(all: &[T], counters: &[AtomicU64]) -> Vec<(T, u64)> {
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

    pub(crate) fn snapshot(&self) -> HistogramStats {
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
