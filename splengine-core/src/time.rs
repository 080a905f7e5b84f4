//! Times as milliseconds, and those that lie ahead.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Milliseconds since the UNIX epoch; 0 for what was before.
pub(crate) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Time at so many milliseconds after the UNIX epoch.
pub(crate) fn time(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_millis(millis))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Whole milliseconds of a duration.
pub(crate) fn duration_millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Time that lies so far ahead, or 30 years where the clock has none.
pub(crate) fn after(time: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(time).unwrap_or_else(|| now + FAR)
}

const FAR: Duration = Duration::from_hours(24 * 365 * 30);
