//! How a run ends.

use std::fmt;
use std::time::Duration;

use crate::os::{ExitStatus, Signal, Usage};

/// Reason for which a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The program exited by itself.
    Exited,
    /// The program was killed by something other than the engine.
    Signaled,
    /// The time limit passed.
    TimedOut,
    /// The caller cancelled the run or went away, or the engine was shut down.
    Cancelled,
    /// The kernel killed the program for memory.
    OutOfMemory,
    /// The executor failed or the engine was killed while the command ran: how it ended is not known.
    /// For output that is lost see [`Event::Lost`](crate::Event::Lost).
    Lost,
}

impl Reason {
    /// Every reason, for metrics and for the test of an adapter's table.
    pub const ALL: &[Self] = &[
        Self::Exited,
        Self::Signaled,
        Self::TimedOut,
        Self::Cancelled,
        Self::OutOfMemory,
        Self::Lost,
    ];

    /// Returns the name of the reason, which is the same on all servers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exited => "exited",
            Self::Signaled => "signaled",
            Self::TimedOut => "timedOut",
            Self::Cancelled => "cancelled",
            Self::OutOfMemory => "outOfMemory",
            Self::Lost => "lost",
        }
    }

    /// Returns the exit code of a run that has none of its own, as shells and `timeout` have it: 124
    /// for a time limit, 130 for a cancellation, 137 for a kill by the kernel for memory, and 125 where
    /// nothing more is known.
    ///
    /// ```
    /// assert_eq!(splengine_core::Reason::TimedOut.exit_code(), 124);
    /// ```
    #[must_use]
    pub const fn exit_code(self) -> i32 {
        match self {
            Self::TimedOut => 124,
            Self::Cancelled => 130,
            Self::OutOfMemory => 137,
            Self::Exited | Self::Signaled | Self::Lost => 125,
        }
    }
}

/// A part of an output stream that was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// Place of the gap, as the number of bytes that are kept before it. Where several parts are
    /// missing, the first.
    pub at: u64,
    /// Number of bytes that are missing; where several parts are, of all of them.
    pub bytes: u64,
}

impl Gap {
    /// The gap of a stream of which parts were `lost` before it was captured, and a part was left out of
    /// what was captured.
    pub(crate) fn of_both(lost: Option<Self>, left_out: Option<Self>) -> Option<Self> {
        match (lost, left_out) {
            (Some(lost), Some(left_out)) => {
                Some(Self { at: lost.at.min(left_out.at), bytes: lost.bytes + left_out.bytes })
            }
            (lost, left_out) => lost.or(left_out),
        }
    }
}

/// What stands in the place of the part that was left out, where output is shown as text; a line of
/// its own.
impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--- {} bytes left out ---", self.bytes)
    }
}

/// The end record of a run: exactly one, always last.
///
/// ```
/// use splengine_core::{Caller, Engine, LocalExecutor, Reason, Request};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
/// # let alice = Caller::new("alice")?.with_all_scopes();
/// let end = engine.execute(&alice, Request::new("sh -c 'exit 3'")).await?.capture().await.end;
/// assert_eq!((end.reason, end.exit_code), (Reason::Exited, 3));
/// assert!(!end.success());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct End {
    /// Reason for which it ended.
    pub reason: Reason,
    /// Exit code of the run: the program's own after [`Reason::Exited`], or 1 where the program exited
    /// with 0 but its output matched a [failure pattern](crate::execute::Program::failure_in_stdout);
    /// else 128 + the signal's number, 124 timed out, 130 cancelled, 137 out of memory, 125 lost.
    pub exit_code: i32,
    /// Signal that killed the program, if any.
    pub signal: Option<Signal>,
    /// Time from its start to its end; time in the queue is not in it.
    pub duration: Duration,
    /// All that it wrote to standard output, in bytes, kept or not.
    pub stdout_bytes: u64,
    /// All that it wrote to standard error, in bytes, kept or not.
    pub stderr_bytes: u64,
    /// `true` if a part of standard output was left out: over the output limit, or lost to a slow
    /// reader that asked for it.
    pub stdout_truncated: bool,
    /// `true` if a part of standard error was left out.
    pub stderr_truncated: bool,
    /// Part of standard output that was left out, if one was. Parts that are left out over the
    /// output limit begin and end at line ends, where there is one within 64 KiB.
    pub stdout_gap: Option<Gap>,
    /// Part of standard error that was left out, if one was.
    pub stderr_gap: Option<Gap>,
    /// Resources that it used.
    pub usage: Usage,
}

impl End {
    /// Makes the end record of a run that never began, for this reason.
    #[must_use]
    pub fn never_begun(reason: Reason) -> Self {
        Self {
            reason,
            exit_code: reason.exit_code(),
            signal: None,
            duration: Duration::ZERO,
            stdout_bytes: 0,
            stderr_bytes: 0,
            stdout_truncated: false,
            stderr_truncated: false,
            stdout_gap: None,
            stderr_gap: None,
            usage: Usage::default(),
        }
    }

    /// Returns whether the run exited by itself with code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.reason == Reason::Exited && self.exit_code == 0
    }
}

/// Report of an [`Execute`](crate::Execute) at the end of a run.
///
/// ```
/// use std::time::Duration;
/// use splengine_core::execute::{Exit, ExitStatus, Usage};
///
/// let mut usage = Usage::default();
/// usage.cpu_time = Some(Duration::from_millis(20));
/// // A program that obeyed a request to stop.
/// let exit = Exit::new(ExitStatus::Code(143)).stopped().usage(usage);
/// // What wraps an executor sees how its runs ended.
/// assert_eq!((exit.status(), exit.is_stopped()), (ExitStatus::Code(143), true));
/// assert_eq!(exit.used().cpu_time, Some(Duration::from_millis(20)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exit {
    pub(crate) status: ExitStatus,
    pub(crate) stopped: bool,
    pub(crate) out_of_memory: bool,
    pub(crate) killed: bool,
    pub(crate) swept: u32,
    pub(crate) leftovers: u32,
    pub(crate) usage: Usage,
}

impl Exit {
    /// Makes the report of a run that ended like this by itself.
    #[must_use]
    pub fn new(status: ExitStatus) -> Self {
        Self {
            status,
            stopped: false,
            out_of_memory: false,
            killed: false,
            swept: 0,
            leftovers: 0,
            usage: Usage::default(),
        }
    }

    /// Notes that the run ended because the executor obeyed its [`Cancel`](crate::execute::Cancel).
    #[must_use]
    pub fn stopped(mut self) -> Self {
        self.stopped = true;
        self
    }

    /// Notes that the kernel killed the run for memory.
    #[must_use]
    pub fn out_of_memory(mut self) -> Self {
        self.out_of_memory = true;
        self
    }

    /// Notes that the request to end was not enough, and the run had to be killed.
    #[must_use]
    pub fn killed(mut self) -> Self {
        self.killed = true;
        self
    }

    /// Notes what the run used.
    #[must_use]
    pub fn usage(mut self, usage: Usage) -> Self {
        self.usage = usage;
        self
    }

    /// Notes how many background processes were ended with it, and how many could not be.
    #[must_use]
    pub fn tree(mut self, swept: u32, leftovers: u32) -> Self {
        self.swept = swept;
        self.leftovers = leftovers;
        self
    }

    /// Returns the exit code of the program, or the signal that ended it.
    #[must_use]
    pub fn status(&self) -> ExitStatus {
        self.status
    }

    /// Returns whether the run ended because the executor obeyed its [`Cancel`](crate::execute::Cancel).
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Returns whether the kernel killed the run for memory.
    #[must_use]
    pub fn is_out_of_memory(&self) -> bool {
        self.out_of_memory
    }

    /// Returns whether the run had to be killed, since the request to end was not enough.
    #[must_use]
    pub fn is_killed(&self) -> bool {
        self.killed
    }

    /// Returns what the run used, as far as it is known.
    #[must_use]
    pub fn used(&self) -> Usage {
        self.usage
    }

    /// Returns the number of background processes that were ended with the run.
    #[must_use]
    pub fn swept(&self) -> u32 {
        self.swept
    }

    /// Returns the number of background processes that could not be ended.
    #[must_use]
    pub fn leftovers(&self) -> u32 {
        self.leftovers
    }
}
