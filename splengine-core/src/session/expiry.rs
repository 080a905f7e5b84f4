//! When a session is ended for its idleness or age: a pure rule.

use std::time::Duration;

use crate::session::SessionPolicy;

/// For how long what has been true of a session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ages {
    pub(crate) total: Duration,
    pub(crate) idle: Duration,
    /// `None` while a client is attached.
    pub(crate) detached: Option<Duration>,
    /// A program runs in the foreground of its shell.
    pub(crate) busy: bool,
}

/// How long the session has, if nothing happens; `None` is without end.
pub(crate) fn time_left(policy: &SessionPolicy, ages: Ages) -> Option<Duration> {
    let held_back = ages.busy && policy.busy_stays;
    let idle = policy.idle_timeout.filter(|_| !held_back).map(|limit| (limit, ages.idle));
    let detached = policy.detached_timeout.filter(|_| !held_back).zip(ages.detached);
    let total = policy.max_age.map(|limit| (limit, ages.total));
    [idle, detached, total]
        .into_iter()
        .flatten()
        .map(|(limit, age)| limit.saturating_sub(age))
        .min()
}

/// How often to look, so that no limit is overrun by more than a quarter of it or a second.
pub(crate) fn look_every(policy: &SessionPolicy) -> Duration {
    [policy.idle_timeout, policy.detached_timeout, policy.max_age, Some(policy.ended_retention)]
        .into_iter()
        .flatten()
        .min()
        .map_or(MAX_INTERVAL, |shortest| (shortest / 4).clamp(MIN_INTERVAL, MAX_INTERVAL))
}

const MIN_INTERVAL: Duration = Duration::from_millis(20);
const MAX_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_limit_counts() {
        let seconds = Duration::from_secs;
        let ages = Ages { total: seconds(50), idle: seconds(5), detached: None, busy: false };
        let policy = SessionPolicy::new();
        assert_eq!(time_left(&policy, ages), None);
        let week = Ages { detached: Some(Duration::from_hours(7 * 24)), ..ages };
        assert_eq!(time_left(&policy, week), Some(Duration::ZERO));
        let policy = policy.idle_timeout(seconds(20)).detached_timeout(seconds(8));
        assert_eq!(time_left(&policy, ages), Some(seconds(15)));
        let detached = Ages { detached: Some(seconds(9)), ..ages };
        assert_eq!(time_left(&policy, detached), Some(Duration::ZERO));
        assert_eq!(time_left(&policy, Ages { busy: true, ..detached }), None);
        let aged = policy.max_age(seconds(60));
        assert_eq!(time_left(&aged, Ages { busy: true, ..detached }), Some(seconds(10)));
        assert_eq!(
            time_left(&aged.busy_stays(false), Ages { busy: true, ..detached }),
            Some(Duration::ZERO)
        );
    }
}
