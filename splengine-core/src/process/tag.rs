//! Tags: numbers that tell which run a process belongs to.
//!
//! A tag is the hard limit of `RLIMIT_RTTIME`, the microseconds that a real-time process may run
//! without a pause (getrlimit(2)). fork and exec hand it down, no unprivileged process can raise it
//! back, and at this height it limits nothing. No other mark is so hard to lose: a program may
//! clear its environment, leave its session and its parent, and still carries it.

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

/// Why this process can't tag its children.
#[derive(Debug)]
pub(crate) enum TagError {
    /// Its own limit is too low to stand for no limit.
    Limited,
    Unreadable(io::Error),
}

impl Tag {
    /// A tag that no other run of this process has; another process has it only by a chance of one
    /// in a billion.
    pub(crate) fn new() -> Self {
        Self(prefix() | u64::from(NEXT.fetch_add(1, Relaxed)))
    }

    /// The tag of a process; `None` when it is gone or has no tag of ours.
    pub(crate) fn of(pid: Pid) -> Option<Self> {
        sys::hard_limit(pid, RESOURCE)
            .filter(|limit| *limit != u64::MAX && limit & !SERIAL == prefix())
            .map(Self)
    }

    /// Whether a process carries this tag; no when it is gone.
    pub(crate) fn is_on(self, pid: Pid) -> bool {
        sys::hard_limit(pid, RESOURCE) == Some(self.0)
    }

    /// The limit to start a process with.
    pub(crate) fn limit(self) -> (libc::c_int, u64, u64) {
        (RESOURCE, self.0, self.0)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl FromStr for Tag {
    type Err = NoTag;

    fn from_str(text: &str) -> Result<Self, NoTag> {
        let tag = u64::from_str_radix(text, 16).map_err(|_| NoTag)?;
        // Lower limits, and none, are found on processes that nobody tagged.
        if tag >= 1 << LOWEST_BIT && tag != u64::MAX { Ok(Self(tag)) } else { Err(NoTag) }
    }
}

/// A text that is no tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoTag;

/// Whether processes can be tagged here.
pub(crate) fn check() -> Result<(), TagError> {
    let own = rustix::process::getpid();
    sys::hard_limit(own, RESOURCE)
        .ok_or_else(io::Error::last_os_error)
        .map_err(TagError::Unreadable)?;
    if highest_bit() < LOWEST_BIT { Err(TagError::Limited) } else { Ok(()) }
}

/// One bit that makes the limit high, then random bits that part this process's tags from those
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
    match getrlimit(Resource::Rttime).maximum {
        None => 62,
        Some(limit) => limit.checked_ilog2().unwrap_or(0).saturating_sub(1),
    }
}

const RESOURCE: libc::c_int = libc::RLIMIT_RTTIME as libc::c_int;
const SERIAL: u64 = 0xffff_ffff;
/// Below it (35 years) a limit would no longer be as good as none.
const LOWEST_BIT: u32 = 50;
static NEXT: AtomicU32 = AtomicU32::new(0);
