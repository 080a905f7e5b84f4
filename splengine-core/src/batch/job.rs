use std::time::Duration;

use crate::batch::Step;
use crate::execute::Reason;

/// Decides what a batch does next. A job is pure, without clock or I/O: the engine passes it the
/// events, performs the actions that it returns, and stores both. After a crash it makes the job again
/// and passes it the same events in the same order. So the same events must give the same actions.
///
/// A list or graph of steps needs no job: that is a [`BatchRequest`](crate::BatchRequest). A job is for
/// steps that are not known beforehand: generated ones, or those of some other source. It is made by
/// the [kind](crate::batch::BatchPolicy::kind) that it was submitted as.
///
/// ```
/// use splengine_core::{BatchJob, Step};
/// use splengine_core::batch::{JobAction, JobEvent, Outcome};
///
/// /// Runs a command again and again until it succeeds.
/// struct Until(Vec<Step>);
///
/// impl BatchJob for Until {
///     fn steps(&self) -> &[Step] {
///         &self.0
///     }
///     fn on_event(&mut self, event: JobEvent) -> Vec<JobAction> {
///         match event {
///             JobEvent::Begun | JobEvent::Ended { outcome: Outcome::Failed, .. } => {
///                 self.0.push(Step::new("make test"));
///                 vec![JobAction::Start { step: self.0.len() - 1 }]
///             }
///             _ => vec![JobAction::Finish],
///         }
///     }
/// }
/// ```
pub trait BatchJob: Send + 'static {
    /// Returns the steps known so far, to which further ones may be added later. An action names a step
    /// by its index.
    fn steps(&self) -> &[Step];

    /// Returns what to do after this event. An impossible action (of a step that does not exist, is
    /// running or has ended) ends the batch as failed, with an error in the log.
    fn on_event(&mut self, event: JobEvent) -> Vec<JobAction>;
}

/// Event to which a batch's job reacts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobEvent {
    /// The engine has begun to run the batch. Always first, once.
    Begun,
    /// A step that was started has ended.
    Ended {
        /// Index of the step.
        step: usize,
        /// Outcome of the step's run.
        outcome: Outcome,
        /// Exit code of the run; `None` where there is none.
        exit_code: Option<i32>,
        /// Reason for the end of the run; `None` where it could not be started.
        reason: Option<Reason>,
    },
    /// The wait for a step that [`JobAction::Wait`] asked for is over.
    Due {
        /// Index of the step.
        step: usize,
    },
    /// The caller wants the batch to end: nothing more is to be started but steps that clean up, and
    /// what is not to continue is to be [stopped](JobAction::Stop).
    Cancelled,
    /// The caller wants the batch to end for the second time: nothing more is to be started, and all
    /// that runs is to be stopped. Comes once, after [`Cancelled`](Self::Cancelled).
    Aborted,
    /// The [time](crate::BatchRequest::timeout) of the batch is up: nothing more is to be started but
    /// steps that clean up, and what is not to continue is to be stopped. Comes once; the batch has
    /// failed then.
    TimedOut,
}

/// End of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The step exited with code 0.
    Succeeded,
    /// The step failed, or could not be started.
    Failed,
    /// The step was stopped, by [`JobAction::Stop`] or its caller; or withdrawn.
    Cancelled,
    /// The engine ended while it ran: how it ended is not known. Nothing of it runs any more.
    Lost,
}

/// Instruction for the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobAction {
    /// Run this step, as soon as its caller's turn comes. A step that has ended may be run again.
    Start {
        /// Index of the step.
        step: usize,
    },
    /// Pass [`JobEvent::Due`] to the job after `delay`.
    Wait {
        /// Index of the step.
        step: usize,
        /// Time to wait.
        delay: Duration,
    },
    /// Leave this step out: it will not be run; or, if it has failed and waits for that, not again.
    Skip {
        /// Index of the step.
        step: usize,
        /// Reason, for people.
        reason: String,
    },
    /// Leave this step out if it has not begun, since it waits for its caller's turn: it ends as
    /// [`Outcome::Cancelled`]. One that has begun continues.
    Withdraw {
        /// Index of the step.
        step: usize,
        /// Reason, for people.
        reason: String,
    },
    /// Stop this step, which runs or is to; it ends as [`Outcome::Cancelled`].
    Stop {
        /// Index of the step.
        step: usize,
    },
    /// Tolerate the failure of this step, whose last run has ended: it does not make the batch fail,
    /// until the step is started again.
    Tolerate {
        /// Index of the step.
        step: usize,
    },
    /// End the batch: as succeeded, unless a step's last run has failed and that is not tolerated. No
    /// step may run or be waited for.
    Finish,
}
