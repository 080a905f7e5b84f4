//! What the benchmarks share: two sides measured in turn, and their ratio.
//!
//! The sides take turns in short rounds within one run, so that whatever else the machine does
//! falls on both.

pub mod terminals;
pub mod ws;

use std::hint::black_box;
use std::time::Duration;

use tokio::time::Instant;

/// The times of one side, sorted.
#[derive(Debug, Clone)]
pub struct Times(Vec<Duration>);

impl Times {
    /// Sorts `times`, of which there must be some.
    #[must_use]
    pub fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// The time that the share `of` (0 to 1) of all stay within.
    #[must_use]
    pub fn quantile(&self, of: f64) -> Duration {
        let last = self.0.len() - 1;
        self.0[(last as f64 * of).round() as usize]
    }

    /// The time that half of all stay within.
    #[must_use]
    pub fn median(&self) -> Duration {
        self.quantile(0.5)
    }
}

/// Prints one figure: ours, theirs, and the ratio held against its aim.
#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
pub fn report(what: &str, ours: f64, theirs: f64, unit: &str, aim: &str) {
    println!(
        "{what:<58} ours {ours:>10.2} {unit:<6} theirs {theirs:>10.2} {unit:<6} ratio {:>6.2}x  (aim {aim})",
        ours / theirs
    );
}

/// Times one call.
pub fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let begun = Instant::now();
    black_box(work());
    begun.elapsed()
}

/// The resident memory of this process, in bytes.
///
/// # Panics
///
/// When `/proc` does not tell.
#[must_use]
pub fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages: u64 =
        statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("the second field");
    pages * 4096
}
