use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Bound on lines of a log that clients can cause: a maximum number of each key in 10 s, by default 20. What it
/// leaves out is counted, for the next line to say.
///
/// ```
/// use splengine_core::net::LogBudget;
///
/// let budget = LogBudget::new(20);
/// for user in ["alice", "alice", "bob"] {
///     if let Some(unlogged) = budget.take(user) {
///         println!("{user} was refused; {unlogged} such lines were left out");
///     }
/// }
/// ```
#[derive(Debug)]
pub struct LogBudget<K = ()> {
    max_lines: u32,
    counts: Mutex<HashMap<K, Count>>,
}

#[derive(Debug)]
struct Count {
    begun: Instant,
    logged: u32,
    unlogged: u64,
}

impl<K: Eq + Hash> LogBudget<K> {
    /// Allows `max_lines` of each key in 10 s.
    #[must_use]
    pub fn new(max_lines: u32) -> Self {
        Self { max_lines, counts: Mutex::default() }
    }

    /// Returns the number of lines of `key` that were left out before this one, or `None` if this one is to be
    /// left out as well: if `key` had its maximum in these 10 s, or if it is a new one while there are 1,024
    /// others.
    pub fn take(&self, key: K) -> Option<u64> {
        let now = Instant::now();
        let is_over = |count: &Count| now.saturating_duration_since(count.begun) >= INTERVAL;
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= MAX_KEYS && !counts.contains_key(&key) {
            counts.retain(|_, count| !is_over(count));
            if counts.len() >= MAX_KEYS {
                return None;
            }
        }
        let count = counts.entry(key).or_insert(Count { begun: now, logged: 0, unlogged: 0 });
        if is_over(count) {
            (count.begun, count.logged) = (now, 0);
        }
        if count.logged >= self.max_lines {
            count.unlogged += 1;
            return None;
        }
        count.logged += 1;
        Some(std::mem::take(&mut count.unlogged))
    }
}

impl<K: Eq + Hash> Default for LogBudget<K> {
    fn default() -> Self {
        Self::new(MAX_LINES)
    }
}

const INTERVAL: Duration = Duration::from_secs(10);
const MAX_LINES: u32 = 20;
const MAX_KEYS: usize = 1024;

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_log_is_bounded_and_says_what_it_left_out() {
        let log = LogBudget::new(20);
        let lines = (0..1000).filter_map(|_| log.take("alice")).count();
        assert_eq!(lines, 20);
        assert_eq!(log.take("bob"), Some(0), "others have lines of their own");
        advance(INTERVAL).await;
        assert_eq!(log.take("alice"), Some(980));
        assert_eq!(log.take("alice"), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_bounded() {
        let log = LogBudget::new(1);
        let lines = (0..2 * MAX_KEYS).filter_map(|key| log.take(key)).count();
        assert_eq!(lines, MAX_KEYS);
        advance(INTERVAL).await;
        assert_eq!(log.take(MAX_KEYS), Some(0), "what is over makes room");
    }
}
