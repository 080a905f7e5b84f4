//! What is told of batches.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use crate::caller::UserName;
use crate::execute::{Gap, Reason};
use crate::id::BatchId;

/// A batch, without its steps.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchInfo {
    /// Its id.
    pub id: BatchId,
    /// Whose it is.
    pub user: UserName,
    /// What people call it.
    pub name: Option<String>,
    /// What its steps come from: `plan`, or a [kind](crate::BatchPolicy::kind).
    pub kind: String,
    /// Where it stands.
    pub state: BatchState,
    /// When it was accepted.
    pub created: SystemTime,
    /// When its first step was started.
    pub started: Option<SystemTime>,
    /// When it was over.
    pub ended: Option<SystemTime>,
    /// How long it took from the start of its first step to its end, or takes already, by a clock
    /// that does not jump; `None` before that start.
    pub duration: Option<Duration>,
    /// By what it is found again.
    pub labels: BTreeMap<String, String>,
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// How many of its steps are in which state.
    pub counts: StepCounts,
    /// The exit code of its first step whose failure counts; where there is none 130 if it was
    /// cancelled, 124 if its time was up, else 0.
    pub exit_code: i32,
    /// The batch that it runs again.
    pub rerun_of: Option<BatchId>,
    /// The number of its last event.
    pub last_event: u64,
}

/// Where a batch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum BatchState {
    /// No step was started yet.
    Queued,
    /// It runs.
    Running,
    /// Over, and no step failed whose failure counts.
    Succeeded,
    /// Over, and a step failed, or its time was up.
    Failed,
    /// Over, as its caller wished.
    Cancelled,
}

/// How many steps are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepCounts {
    /// All.
    pub total: u64,
    /// Not started.
    pub queued: u64,
    /// Running.
    pub running: u64,
    /// Waiting to be run again.
    pub retrying: u64,
    /// Over, with success.
    pub succeeded: u64,
    /// Over, without.
    pub failed: u64,
    /// Left out.
    pub skipped: u64,
    /// Stopped.
    pub cancelled: u64,
}

/// A batch with its steps.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchRecord {
    /// The batch.
    pub info: BatchInfo,
    /// Its steps, in their order.
    pub steps: Vec<StepInfo>,
}

/// A page of batches.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchList {
    /// The batches, the newest first.
    pub batches: Vec<BatchInfo>,
    /// Where the next page begins; `None` on the last.
    pub next: Option<String>,
}

/// One step of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepInfo {
    /// Its name within the batch.
    pub id: String,
    /// Its command, as it was given.
    pub command: String,
    /// Its further arguments.
    pub args: Vec<String>,
    /// Where it runs; `None` is root.
    pub workdir: Option<String>,
    /// The names of the variables that it is given; their values are not told.
    pub env: Vec<String>,
    /// Whether the batch goes on as if it had succeeded when it fails.
    pub allow_failure: bool,
    /// The ids of the steps that it waits for.
    pub depends_on: Vec<String>,
    /// Where it stands.
    pub state: StepState,
    /// How many times it was started.
    pub attempt: u32,
    /// Why its last run ended.
    pub reason: Option<Reason>,
    /// Why it was left out, could not be started, or why a part of its output is not kept; for people.
    pub problem: Option<String>,
    /// The exit code of its last run.
    pub exit_code: Option<i32>,
    /// The signal that ended its last run.
    pub signal: Option<String>,
    /// When its last run began.
    pub started: Option<SystemTime>,
    /// When it ended.
    pub ended: Option<SystemTime>,
    /// How long that took.
    pub duration: Option<Duration>,
    /// All that its last run wrote to standard output, in bytes, kept or not.
    pub stdout_bytes: u64,
    /// The same of standard error.
    pub stderr_bytes: u64,
    /// Which part of the standard output was left out, if one was: over the output limit, or since it
    /// could not be kept.
    pub stdout_gap: Option<Gap>,
    /// The same of standard error.
    pub stderr_gap: Option<Gap>,
    /// The processor time of its last run; see [`Usage`](crate::Usage).
    pub cpu_time: Option<Duration>,
    /// The most memory that a process of its last run had, in bytes; see [`Usage`](crate::Usage).
    pub peak_memory: Option<u64>,
    /// The most processes and threads that its last run had at once; see [`Usage`](crate::Usage).
    pub processes: Option<u64>,
}

/// Where a step stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StepState {
    /// Not started.
    #[default]
    Queued,
    /// It runs.
    Running,
    /// It failed, and waits to be run again.
    Retrying,
    /// It exited with code 0.
    Succeeded,
    /// It did not, or what became of it isn't known.
    Failed,
    /// It was left out.
    Skipped,
    /// It was stopped.
    Cancelled,
}

/// Something that happened to a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchEvent {
    /// Counts from 1, without a gap.
    pub seq: u64,
    /// When.
    pub time: SystemTime,
    /// What.
    pub what: Happening,
}

/// What happened to a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Happening {
    /// It was accepted.
    Queued,
    /// The engine has begun with it.
    Begun,
    /// A step was started.
    Started {
        /// Its id.
        step: String,
        /// Its how manieth run this is.
        attempt: u32,
    },
    /// A run of a step has ended.
    Ended(Box<StepInfo>),
    /// A step's wait to be run again is over.
    Due {
        /// Its id.
        step: String,
    },
    /// A step was left out.
    Skipped {
        /// Its id.
        step: String,
        /// Why, for people.
        reason: String,
    },
    /// Its caller wants it to end; steps that run always still do.
    Cancelling,
    /// Its caller wants it to end for the second time, those steps included.
    Aborting,
    /// Its time is up.
    TimedOut,
    /// It is over.
    Finished {
        /// How.
        state: BatchState,
        /// As [`BatchInfo::exit_code`].
        exit_code: i32,
    },
}

impl BatchState {
    /// Every state, for filters and for the test of an adapter's table.
    pub const ALL: &[Self] =
        &[Self::Queued, Self::Running, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// The word for it on every door.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

impl StepState {
    /// Every state.
    pub const ALL: &[Self] = &[
        Self::Queued,
        Self::Running,
        Self::Retrying,
        Self::Succeeded,
        Self::Failed,
        Self::Skipped,
        Self::Cancelled,
    ];

    /// The word for it on every door.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Running | Self::Retrying)
    }
}

impl StepCounts {
    pub(crate) fn of_all(steps: &[StepInfo]) -> Self {
        let mut counts = Self { total: steps.len() as u64, ..Self::default() };
        for step in steps {
            *counts.of(step.state) += 1;
        }
        counts
    }

    /// Moves one step from a state to another.
    pub(crate) fn shift(&mut self, from: StepState, to: StepState) {
        let count = self.of(from);
        *count = count.saturating_sub(1);
        *self.of(to) += 1;
    }

    fn of(&mut self, state: StepState) -> &mut u64 {
        match state {
            StepState::Queued => &mut self.queued,
            StepState::Running => &mut self.running,
            StepState::Retrying => &mut self.retrying,
            StepState::Succeeded => &mut self.succeeded,
            StepState::Failed => &mut self.failed,
            StepState::Skipped => &mut self.skipped,
            StepState::Cancelled => &mut self.cancelled,
        }
    }

    /// How many are over.
    #[must_use]
    pub fn over(&self) -> u64 {
        self.succeeded + self.failed + self.skipped + self.cancelled
    }
}
