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
    /// User who owns the batch.
    pub user: UserName,
    /// Name of the batch, for people.
    pub name: Option<String>,
    /// Origin of the steps: `plan`, or a [kind](crate::batch::BatchPolicy::kind).
    pub kind: String,
    /// State of the batch.
    pub state: BatchState,
    /// Time at which the batch was accepted.
    pub created: SystemTime,
    /// Time at which the first step was started.
    pub started: Option<SystemTime>,
    /// Time at which the batch was over.
    pub ended: Option<SystemTime>,
    /// Time from the start of the first step to the end of the batch, or until now, by a monotonic
    /// clock; `None` before that start.
    pub duration: Option<Duration>,
    /// Labels of the batch, by which [`BatchFilter::label`](crate::batch::BatchFilter::label) selects.
    pub labels: BTreeMap<String, String>,
    /// Maximum duration of the batch; `None` is without a limit.
    pub timeout: Option<Duration>,
    /// Number of steps in each state.
    pub counts: StepCounts,
    /// Exit code of the batch: that of the first step whose failure counts; where there is none, 130
    /// if the batch was cancelled, 124 if its time was up, else 0.
    pub exit_code: i32,
    /// Id of the batch whose steps this one runs again.
    pub rerun_of: Option<BatchId>,
    /// Number of the batch's last event.
    pub last_event: u64,
}

impl BatchInfo {
    /// Returns the number of bytes of the name and the labels together, the only texts of a batch that
    /// may be long.
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
    /// The caller has cancelled the batch, and it is over.
    Cancelled,
}

/// Number of steps in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepCounts {
    /// Number of all steps.
    pub total: u64,
    /// Number of steps not started yet.
    pub queued: u64,
    /// Number of steps that run.
    pub running: u64,
    /// Number of steps waiting to be run again.
    pub retrying: u64,
    /// Number of steps that exited with code 0.
    pub succeeded: u64,
    /// Number of steps that failed, or whose end is not known.
    pub failed: u64,
    /// Number of steps that were left out.
    pub skipped: u64,
    /// Number of steps that were stopped.
    pub cancelled: u64,
}

/// A batch with its steps.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchRecord {
    /// Description of the batch.
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
    /// Returns about how many bytes of memory the record takes, for servers that bound the memory of
    /// answers: texts of arguments may be long.
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
    /// Further arguments of the command, as they were given.
    pub args: Vec<String>,
    /// Directory in which the step runs; `None` is root.
    pub workdir: Option<String>,
    /// Names of the variables that the step is given, without their values.
    pub env: Vec<String>,
    /// `true` if the batch goes on after a failure of the step as after a success.
    pub allow_failure: bool,
    /// Ids of the steps that the step waits for.
    pub depends_on: Vec<String>,
    /// State of the step.
    pub state: StepState,
    /// Number of times that the step was started.
    pub attempt: u32,
    /// Reason for which the step's last run ended.
    pub reason: Option<Reason>,
    /// Explanation why the step was left out, could not be started, or why a part of its output is
    /// not kept; for people.
    pub problem: Option<String>,
    /// Exit code of the step's last run, as [`End::exit_code`](crate::execute::End::exit_code); of a
    /// step that could not be started 127 (no such program), 126 (not executable) or 125 (another
    /// reason).
    pub exit_code: Option<i32>,
    /// Signal that ended the step's last run.
    pub signal: Option<String>,
    /// Time at which the step's last run began.
    pub started: Option<SystemTime>,
    /// Time at which the step's last run ended.
    pub ended: Option<SystemTime>,
    /// Duration of the step's last run.
    pub duration: Option<Duration>,
    /// Number of bytes that the last run wrote to standard output, kept or not.
    pub stdout_bytes: u64,
    /// Number of bytes that the last run wrote to standard error, kept or not.
    pub stderr_bytes: u64,
    /// Part of the standard output that was left out, if any: over the output limit, or since it
    /// could not be kept.
    pub stdout_gap: Option<Gap>,
    /// Part of the standard error that was left out, if any; as for [`stdout_gap`](Self::stdout_gap).
    pub stderr_gap: Option<Gap>,
    /// Processor time of the last run; see [`Usage`](crate::execute::Usage).
    pub cpu_time: Option<Duration>,
    /// Maximum memory that a process of the last run had, in bytes; see
    /// [`Usage`](crate::execute::Usage).
    pub peak_memory: Option<u64>,
    /// Maximum number of processes and threads that the last run had at once; see
    /// [`Usage`](crate::execute::Usage).
    pub processes: Option<u64>,
}

impl StepInfo {
    /// Returns about how many bytes of memory the state takes: texts of arguments may be long.
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
    /// The step was not started yet.
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
    /// Number of the event in its batch, from 1 and without a gap.
    pub seq: u64,
    /// Time of the event.
    pub time: SystemTime,
    /// Kind of the event, with its details.
    pub what: BatchEventKind,
}

/// Kind of event in the course of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BatchEventKind {
    /// The batch was accepted.
    Queued,
    /// The engine has begun to run the batch.
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
    /// All states of a batch, for filters and for the test of an adapter's table.
    pub const ALL: &[Self] =
        &[Self::Queued, Self::Running, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// Returns the state's name, which is the same on all servers.
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
    /// All states of a step.
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

    /// Returns the state's name, which is the same on all servers.
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
