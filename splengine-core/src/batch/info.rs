//! What callers see of batches: states, records, events.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use crate::batch::record_memory::RecordMemory;
use crate::execute::{Gap, Reason};
use crate::ids::BatchId;
use crate::user_name::UserName;

/// A batch, without its steps.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchInfo {
    /// Id of the batch.
    pub id: BatchId,
    /// User whose batch it is.
    pub user: UserName,
    /// Name that people call it by.
    pub name: Option<String>,
    /// Origin of its steps: `plan`, or a [kind](crate::batch::BatchPolicy::kind).
    pub kind: String,
    /// State of the batch.
    pub state: BatchState,
    /// Time at which it was accepted.
    pub created: SystemTime,
    /// Time at which its first step was started.
    pub started: Option<SystemTime>,
    /// Time at which it was over.
    pub ended: Option<SystemTime>,
    /// Time from the start of its first step to its end, or until now, by a monotonic clock; `None`
    /// before that start.
    pub duration: Option<Duration>,
    /// Labels by which it is found again.
    pub labels: BTreeMap<String, String>,
    /// Time that it may take.
    pub timeout: Option<Duration>,
    /// Number of its steps in each state.
    pub counts: StepCounts,
    /// The exit code of its first step whose failure counts; where there is none 130 if it was
    /// cancelled, 124 if its time was up, else 0.
    pub exit_code: i32,
    /// The batch that it runs again.
    pub rerun_of: Option<BatchId>,
    /// The number of its last event.
    pub last_event: u64,
}

impl BatchInfo {
    /// Returns the number of bytes of its name and its labels together, the only texts of it that may be
    /// long.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        let labels = self.labels.iter().map(|(name, value)| name.len() + value.len());
        self.name.as_ref().map_or(0, String::len) + labels.sum::<usize>()
    }
}

/// State of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum BatchState {
    /// No step was started yet.
    Queued,
    /// The batch runs.
    Running,
    /// The batch is over, and no step failed whose failure counts.
    Succeeded,
    /// The batch is over; a step failed, or its time was up.
    Failed,
    /// The batch is over, since its caller cancelled it.
    Cancelled,
}

/// Number of steps in each state.
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
    /// Ended with success.
    pub succeeded: u64,
    /// Ended without success.
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
    /// Steps of the batch, in their order.
    pub steps: Vec<StepInfo>,
    pub(crate) memory: RecordMemory,
}

impl From<BatchInfo> for BatchRecord {
    /// A record without its steps.
    fn from(info: BatchInfo) -> Self {
        Self { info, steps: Vec::new(), memory: RecordMemory::default() }
    }
}

impl BatchRecord {
    /// Returns about how many bytes of memory it takes, for servers that bound the memory of
    /// answers: its texts of arguments may be long.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.steps.iter().map(StepInfo::memory_bytes).sum()
    }
}

/// A page of batches.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchList {
    /// The batches, the newest first.
    pub batches: Vec<BatchInfo>,
    /// Cursor at which the next page begins; `None` on the last.
    pub next: Option<String>,
}

/// State of one step of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepInfo {
    /// Name of the step within the batch.
    pub id: String,
    /// Command of the step, as it was given.
    pub command: String,
    /// Further arguments of the command.
    pub args: Vec<String>,
    /// Directory in which it runs; `None` is root.
    pub workdir: Option<String>,
    /// The names of the variables that it is given, without their values.
    pub env: Vec<String>,
    /// `true` if the batch goes on as if the step had succeeded when it fails.
    pub allow_failure: bool,
    /// The ids of the steps that it waits for.
    pub depends_on: Vec<String>,
    /// State of the step.
    pub state: StepState,
    /// Number of times that it was started.
    pub attempt: u32,
    /// Reason for which its last run ended.
    pub reason: Option<Reason>,
    /// Explanation why it was left out, could not be started, or why a part of its output is not
    /// kept; for people.
    pub problem: Option<String>,
    /// The exit code of its last run.
    pub exit_code: Option<i32>,
    /// The signal that ended its last run.
    pub signal: Option<String>,
    /// Time at which its last run began.
    pub started: Option<SystemTime>,
    /// Time at which its last run ended.
    pub ended: Option<SystemTime>,
    /// Time that its last run took.
    pub duration: Option<Duration>,
    /// All that its last run wrote to standard output, in bytes, kept or not.
    pub stdout_bytes: u64,
    /// Number of bytes of standard error.
    pub stderr_bytes: u64,
    /// Part of the standard output that was left out, if one was: over the output limit, or since
    /// it could not be kept.
    pub stdout_gap: Option<Gap>,
    /// Part of the standard error that was left out, if one was.
    pub stderr_gap: Option<Gap>,
    /// The processor time of its last run; see [`Usage`](crate::execute::Usage).
    pub cpu_time: Option<Duration>,
    /// Maximum memory that a process of the last run had, in bytes; see
    /// [`Usage`](crate::execute::Usage).
    pub peak_memory: Option<u64>,
    /// Maximum number of processes and threads that the last run had at once; see
    /// [`Usage`](crate::execute::Usage).
    pub processes: Option<u64>,
}

impl StepInfo {
    /// Returns about how many bytes of memory it takes: its texts of arguments may be long.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let lists = [&self.args, &self.env, &self.depends_on].into_iter().flatten();
        let texts = lists.map(|text| size_of::<String>() + text.len());
        let optional = [&self.workdir, &self.problem, &self.signal].into_iter().flatten();
        let more = [&self.id, &self.command].into_iter().chain(optional).map(String::len);
        size_of::<Self>() + texts.chain(more).sum::<usize>()
    }
}

/// State of a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StepState {
    /// Not started.
    #[default]
    Queued,
    /// The step runs.
    Running,
    /// The step failed, and waits to be run again.
    Retrying,
    /// The step exited with code 0.
    Succeeded,
    /// The step failed, or its end is not known.
    Failed,
    /// The step was left out.
    Skipped,
    /// The step was stopped.
    Cancelled,
}

/// Event of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchEvent {
    /// Counts from 1, without a gap.
    pub seq: u64,
    /// Time of the event.
    pub time: SystemTime,
    /// Event itself.
    pub what: BatchEventKind,
}

/// Kind of event in the course of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BatchEventKind {
    /// The batch was accepted.
    Queued,
    /// The engine has begun to run it.
    Begun,
    /// A step was started.
    Started {
        /// Id of the step.
        step: String,
        /// Number of this run, from 1.
        attempt: u32,
    },
    /// A run of a step has ended.
    Ended(Box<StepInfo>),
    /// A step's wait to be run again is over.
    Due {
        /// Id of the step.
        step: String,
    },
    /// A step was left out.
    Skipped {
        /// Id of the step.
        step: String,
        /// Reason, for people.
        reason: String,
    },
    /// The caller wants the batch to end; steps that run always still do.
    Cancelling,
    /// The caller wants the batch to end for the second time, those steps included.
    Aborting,
    /// The time of the batch is up.
    TimedOut,
    /// The batch is over.
    Finished {
        /// Final state of the batch.
        state: BatchState,
        /// Exit code of the batch, as in [`BatchInfo::exit_code`].
        exit_code: i32,
    },
}

impl BatchState {
    /// Every state, for filters and for the test of an adapter's table.
    pub const ALL: &[Self] =
        &[Self::Queued, Self::Running, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// The word for it on every server.
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

    /// Returns whether the batch is over.
    #[must_use]
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

impl StepState {
    /// Every state.
    // A stored step holds the index of its state in this list: a new state is appended, and none moves.
    pub const ALL: &[Self] = &[
        Self::Queued,
        Self::Running,
        Self::Retrying,
        Self::Succeeded,
        Self::Failed,
        Self::Skipped,
        Self::Cancelled,
    ];

    /// The word for it on every server.
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

    /// Returns whether the step is over.
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

    /// Returns the number of steps that are over.
    #[must_use]
    pub fn over(&self) -> u64 {
        self.succeeded + self.failed + self.skipped + self.cancelled
    }
}
