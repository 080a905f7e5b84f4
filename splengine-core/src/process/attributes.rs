//! Attributes that a process hands down to its children besides resource limits, and those that runs
//! get instead.

use std::fs;

use rustix::process::{Resource, getpriority_process, getrlimit};
use serde::{Deserialize, Serialize};

use crate::process::sys::{self, ChildAttributes};

/// The attributes that a run's leader is given. What this process has less of than usual (it may run
/// at a low priority, and be the first to be killed for memory), its runs have less of, too; what it
/// has more of stays its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attributes {
    /// The file mode creation mask; as this process has it at the time for `None`.
    pub(crate) umask: Option<u32>,
    /// The soft limit of open files, at most the hard one.
    pub(crate) open_files: u64,
    /// What `/proc/self/oom_score_adj` is to be, where it must not be inherited.
    pub(crate) oom_score_adj: Option<i32>,
    /// The nice value, where it must not be inherited.
    pub(crate) nice: Option<i32>,
    /// The policy is to be `SCHED_OTHER`.
    pub(crate) reset_scheduling: bool,
    /// The class for disk access is to follow from the nice value.
    pub(crate) reset_io_priority: bool,
}

impl Attributes {
    /// For children of this process as it is now.
    pub(crate) fn of_this_process() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let status = text("/proc/self/status");
        let umask = status
            .lines()
            .find_map(|line| u32::from_str_radix(line.strip_prefix("Umask:")?.trim(), 8).ok());
        let mut attributes = Self {
            umask,
            open_files: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
            oom_score_adj: None,
            nice: None,
            reset_scheduling: sys::is_real_time(),
            reset_io_priority: is_preferred(sys::io_priority()),
        };
        attributes.raise_oom_score_adj(0);
        attributes.raise_nice(0);
        attributes
    }

    pub(crate) fn raise_oom_score_adj(&mut self, at_least: u16) {
        let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
        self.oom_score_adj = raised(own.trim().parse().unwrap_or(0), at_least.min(1000).into());
    }

    pub(crate) fn raise_nice(&mut self, at_least: u8) {
        self.nice = raised(getpriority_process(None).unwrap_or(0), at_least.min(19).into());
    }

    /// The soft limits that a child gets, of what it could have.
    pub(crate) fn limits(&self) -> impl Iterator<Item = (libc::c_int, u64, u64)> {
        let soft = |resource, number: libc::__rlimit_resource_t, wanted: u64| {
            let own = getrlimit(resource);
            let hard = own.maximum.unwrap_or(u64::MAX);
            let wanted = wanted.min(hard);
            (own.current.unwrap_or(u64::MAX) != wanted).then_some((
                number as libc::c_int,
                wanted,
                hard,
            ))
        };
        // A memory image may hold secrets, and takes disk: who wants one raises the limit.
        [
            soft(Resource::Nofile, libc::RLIMIT_NOFILE, self.open_files),
            soft(Resource::Core, libc::RLIMIT_CORE, 0),
        ]
        .into_iter()
        .flatten()
    }
}

impl From<&Attributes> for ChildAttributes {
    fn from(attributes: &Attributes) -> Self {
        let digits = |value: i32| {
            let text = value.to_string();
            let mut digits = [0; 12];
            digits[..text.len()].copy_from_slice(text.as_bytes());
            (digits, text.len())
        };
        Self {
            umask: attributes.umask.map(|mask| mask & 0o777),
            nice: attributes.nice,
            oom_score_adj: attributes.oom_score_adj.map(digits),
            reset_scheduling: attributes.reset_scheduling,
            reset_io_priority: attributes.reset_io_priority,
            drop_ambient: true,
        }
    }
}

/// What a child gets where it must not inherit `own`, which is less than it is to have at least.
fn raised(own: i32, at_least: i32) -> Option<i32> {
    (own < at_least).then_some(at_least)
}

/// Whether a value of ioprio_get(2) means the real-time class, or the upper half of the usual one.
fn is_preferred(io_priority: i64) -> bool {
    const CLASS_SHIFT: u32 = 13;
    let (class, level) = (io_priority >> CLASS_SHIFT, io_priority & 7);
    class == 1 || class == 2 && level < 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_engine_has_less_of_its_runs_have_less_of() {
        for (own, at_least, given) in [
            (-100, 0, Some(0)),
            (-1000, 300, Some(300)),
            (0, 300, Some(300)),
            (0, 0, None),
            (400, 300, None),
        ] {
            assert_eq!(raised(own, at_least), given, "{own}, at least {at_least}");
        }
    }

    #[test]
    fn only_a_better_access_to_disks_is_taken_back() {
        let value = |class: i64, level: i64| class << 13 | level;
        assert!(is_preferred(value(1, 7)) && is_preferred(value(2, 0)));
        for usual in [0, value(2, 4), value(2, 7), value(3, 0), -1] {
            assert!(!is_preferred(usual), "{usual}");
        }
    }
}
