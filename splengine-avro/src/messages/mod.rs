//! The implementations of the messages.

pub(crate) mod batch_jobs;
pub(crate) mod batches;
pub(crate) mod files;
pub(crate) mod run;
pub(crate) mod service;
pub(crate) mod sessions;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::datum::Timestamp;
use crate::error::Failure;

pub(crate) fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(millis(since))
}

pub(crate) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

pub(crate) fn long(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn int(number: u64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// A number that must not be below 0.
pub(crate) fn positive(field: &str, number: i64) -> Result<u64, Failure> {
    u64::try_from(number).map_err(|_| Failure::invalid(format!("`{field}` must be at least 0")))
}
