//! Tags: numbers that tell which run a process belongs to.
//!
//! A tag is the pair of two hard limits, `RLIMIT_LOCKS` and `RLIMIT_RSS` (getrlimit(2)), neither of
//! which the kernel enforces. fork and exec hand them down, and no unprivileged process can raise
//! them back, whatever it does to its environment, its session and its parent.
//!
//! It can lower them, which gives nothing away but that it did. The first limit is the number, the
//! second its complement: of two tags the one that is higher in the first limit is lower in the
//! second. A process that lowers one limit to another run's value would have to raise the other to
//! match. So an intact pair is always the one that its bearer was born with, and a pair that is not
//! intact still shows that its bearer comes from a run.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rustix::process::{Pid, Resource, getrlimit};

use crate::process::sys;

/// The mark of one run, on all its processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Tag(u64);

/// The two hard limits of a process that make its tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marks {
    locks: u64,
    rss: u64,
}

/// What the limits of a process tell of where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It carries the tag of a run.
    Run(Tag),
    /// It comes from a run, but its limits no longer tell which one.
    SomeRun,
    /// Its limits are above those of any run.
    Elsewhere,
    /// There is no such process.
    Gone,
    /// Its limits may not be read: it runs as another user.
    Unreadable,
}

/// Why this process can't tag its children.
#[derive(Debug)]
pub(crate) enum TagError {
    /// Its own limits are too low to stand for no limit.
    Limited,
    Unreadable(io::Error),
}

impl Tag {
    /// A tag that no other run of this process has; another process has it only by a chance of one
    /// in a billion.
    pub(crate) fn new() -> Self {
        Self(prefix() | u64::from(NEXT.fetch_add(1, Relaxed)))
    }

    /// The limits to start a process with.
    pub(crate) fn limits(self) -> [(libc::c_int, u64, u64); 2] {
        [(LOCKS, self.0, self.0), (RSS, self.seal(), self.seal())]
    }

    /// The value of the second limit: all bits below the highest one reversed.
    fn seal(self) -> u64 {
        reversed(self.0)
    }

    /// The tag that these limits are, of whatever engine.
    fn on(marks: Marks) -> Option<Self> {
        // Only with privileges can a limit be raised; then the other still tells.
        let by_locks = Self::from_number(marks.locks).filter(|tag| marks.rss >= tag.seal());
        let by_rss = || {
            let tag = Self::from_number(reversed(marks.rss))?;
            (marks.locks >= tag.0).then_some(tag)
        };
        by_locks.or_else(by_rss)
    }

    /// The number that it is, never 0.
    pub(crate) fn number(self) -> u64 {
        self.0
    }

    pub(crate) fn from_number(number: u64) -> Option<Self> {
        // Lower limits, and none, are found on processes that nobody tagged.
        (1 << LOWEST_BIT..1 << (HIGHEST_BIT + 1)).contains(&number).then_some(Self(number))
    }

    /// Whether a process with these limits may once have carried this tag.
    fn may_be_lost_by(self, marks: Marks) -> bool {
        marks.locks <= self.0 && marks.rss <= self.seal()
    }
}

impl Marks {
    fn read(pid: Pid) -> io::Result<Self> {
        Ok(Self { locks: sys::hard_limit(pid, LOCKS)?, rss: sys::hard_limit(pid, RSS)? })
    }
}

impl Origin {
    /// What a process's limits tell of the runs of this engine's process.
    pub(crate) fn of(pid: Pid) -> Self {
        let locks = match sys::hard_limit(pid, LOCKS) {
            Ok(locks) => locks,
            Err(error) => return Self::unreadable(&error),
        };
        // Most processes of a host: nothing more is read of them.
        if locks > prefix() | SERIAL && !may_raise_limits() {
            return Self::Elsewhere;
        }
        match sys::hard_limit(pid, RSS) {
            Ok(rss) => Self::told_by(Marks { locks, rss }, prefix()),
            Err(error) => Self::unreadable(&error),
        }
    }

    /// The same of the runs with these tags, whoever started them.
    pub(crate) fn among(tags: &std::collections::HashSet<Tag>, pid: Pid) -> Self {
        let marks = match Marks::read(pid) {
            Ok(marks) => marks,
            Err(error) => return Self::unreadable(&error),
        };
        match Tag::on(marks) {
            Some(tag) if tags.contains(&tag) => Self::Run(tag),
            _ if tags.iter().any(|tag| tag.may_be_lost_by(marks)) => Self::SomeRun,
            _ => Self::Elsewhere,
        }
    }

    fn told_by(marks: Marks, prefix: u64) -> Self {
        match Tag::on(marks) {
            Some(tag) if tag.0 & !SERIAL == prefix => Self::Run(tag),
            // The highest first limit that any run of this prefix has, and the highest second one.
            _ if marks.locks <= prefix | SERIAL && marks.rss <= Tag(prefix).seal() => Self::SomeRun,
            _ => Self::Elsewhere,
        }
    }

    fn unreadable(error: &io::Error) -> Self {
        if error.raw_os_error() == Some(libc::ESRCH) { Self::Gone } else { Self::Unreadable }
    }
}

/// Whether a process comes from a run, of whatever engine, given that this one does not: its first
/// limit is lower than ours then, whatever it did to lose its tag. Yes, where it can't be known.
pub(crate) fn comes_from_a_run(pid: Pid) -> bool {
    let own = sys::hard_limit(rustix::process::getpid(), LOCKS).unwrap_or(u64::MAX);
    sys::hard_limit(pid, LOCKS).map_or(true, |locks| locks < own)
}

/// Whether this process, and with it the runs that it starts, may raise hard limits.
pub(crate) fn may_raise_limits() -> bool {
    use rustix::thread::{CapabilitySet, capabilities};
    static MAY: OnceLock<bool> = OnceLock::new();
    *MAY.get_or_init(|| {
        capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_RESOURCE))
    })
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl FromStr for Tag {
    type Err = NoTag;

    fn from_str(text: &str) -> Result<Self, NoTag> {
        u64::from_str_radix(text, 16).ok().and_then(Self::from_number).ok_or(NoTag)
    }
}

/// A text that is no tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoTag;

/// Whether processes can be tagged here.
pub(crate) fn check() -> Result<(), TagError> {
    Marks::read(rustix::process::getpid()).map_err(TagError::Unreadable)?;
    if highest_bit() < LOWEST_BIT { Err(TagError::Limited) } else { Ok(()) }
}

/// One bit that makes the limits high, then random bits that part this process's tags from those
/// of any other, then room for a serial number.
fn prefix() -> u64 {
    static PREFIX: OnceLock<u64> = OnceLock::new();
    *PREFIX.get_or_init(|| {
        let mut random = [0u8; 8];
        getrandom::fill(&mut random).expect("the kernel's random source never fails once seeded");
        let top = 1u64 << highest_bit().max(LOWEST_BIT);
        top | (u64::from_ne_bytes(random) & (top - 1) & !SERIAL)
    })
}

/// An engine may itself be run by an engine, and its tags must then lie below the one it carries.
fn highest_bit() -> u32 {
    let below = |resource| match getrlimit(resource).maximum {
        None => HIGHEST_BIT,
        Some(limit) => limit.checked_ilog2().unwrap_or(0).saturating_sub(1),
    };
    below(Resource::Locks).min(below(Resource::Rss))
}

/// With all bits below its highest one reversed.
fn reversed(number: u64) -> u64 {
    number.checked_ilog2().map_or(0, |top| number ^ ((1 << top) - 1))
}

const LOCKS: libc::c_int = libc::RLIMIT_LOCKS as libc::c_int;
const RSS: libc::c_int = libc::RLIMIT_RSS as libc::c_int;
const SERIAL: u64 = 0xffff_ffff;
/// At 2^50 and above a limit is as good as none, should a program look at it.
const LOWEST_BIT: u32 = 50;
/// Below the values that stand for no limit, and below those that C programs take for negative.
const HIGHEST_BIT: u32 = 62;
static NEXT: AtomicU32 = AtomicU32::new(0);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tag() -> impl Strategy<Value = Tag> {
        (LOWEST_BIT..63, any::<u64>()).prop_map(|(top, bits)| {
            let top = 1u64 << top;
            Tag(top | (bits & (top - 1)))
        })
    }

    fn marks(tag: Tag) -> Marks {
        let [(_, _, locks), (_, _, rss)] = tag.limits();
        Marks { locks, rss }
    }

    fn prefix_of(tag: Tag) -> u64 {
        tag.0 & !SERIAL
    }

    proptest! {
        #[test]
        fn nobody_can_lower_his_limits_to_those_of_another_run(
            own in tag(), other: u32, lower_locks: u64, lower_rss: u64, aims: bool,
        ) {
            let prefix = prefix_of(own);
            let other = Tag(prefix | u64::from(other));
            let born = marks(own);
            prop_assert_eq!(Origin::told_by(born, prefix), Origin::Run(own));
            // As low as one likes, or right at the other's values where that is lower.
            let wanted = if aims { marks(other) } else {
                Marks { locks: lower_locks, rss: lower_rss }
            };
            let lowered =
                Marks { locks: wanted.locks.min(born.locks), rss: wanted.rss.min(born.rss) };
            let told = Origin::told_by(lowered, prefix);
            prop_assert!(told == Origin::Run(own) || told == Origin::SomeRun, "{told:?}");
            prop_assert!(own.may_be_lost_by(lowered));
        }

        #[test]
        fn a_limit_that_was_raised_hides_nobody(own in tag(), raised: u64) {
            let born = marks(own);
            for marks in [
                Marks { locks: raised.max(born.locks), ..born },
                Marks { rss: raised.max(born.rss), ..born },
            ] {
                // Unless it is another tag by chance.
                let told = Tag::on(marks);
                prop_assert!(told == Some(own) || told.is_none_or(|tag| tag.0 > own.0), "{told:?}");
            }
            let none = Marks { locks: u64::MAX, ..born };
            prop_assert_eq!(Origin::told_by(none, prefix_of(own)), Origin::Run(own));
            let none = Marks { rss: u64::MAX, ..born };
            prop_assert_eq!(Origin::told_by(none, prefix_of(own)), Origin::Run(own));
        }

        #[test]
        fn who_runs_for_another_engine_of_this_host_is_none_of_ours(own in tag(), random: u64) {
            let top = 1u64 << own.0.ilog2();
            let other = Tag(top | (random & (top - 1)));
            prop_assume!(prefix_of(other) != prefix_of(own));
            prop_assert_eq!(Origin::told_by(marks(other), prefix_of(own)), Origin::Elsewhere);
            prop_assert!(!own.may_be_lost_by(marks(other)));
        }

        #[test]
        fn texts_of_tags_are_read_back(own in tag()) {
            prop_assert_eq!(own.to_string().parse(), Ok(own));
        }
    }

    #[test]
    fn usual_limits_are_no_tags() {
        for (locks, rss) in [(u64::MAX, u64::MAX), (u64::MAX, 4 << 30), (1024, u64::MAX), (0, 0)] {
            assert_eq!(Tag::on(Marks { locks, rss }), None);
        }
        let prefix = 1 << 62;
        for (locks, rss) in [(u64::MAX, u64::MAX), (u64::MAX, 4 << 30), (1024, u64::MAX)] {
            assert_eq!(Origin::told_by(Marks { locks, rss }, prefix), Origin::Elsewhere);
        }
        assert!("0".parse::<Tag>().is_err() && "ffffffffffffffff".parse::<Tag>().is_err());
    }
}
