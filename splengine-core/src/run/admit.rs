//! Requests that are checked, and started or given a place in the queue.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::auth::Caller;
use crate::execute::cancel::CancelSource;
use crate::execute::stdin::StdinSource;
use crate::execute::{CommandParts, ExecuteError, Request, Run};
use crate::ids::{ExecutionId, SessionId};
use crate::quota::{MIN_COUNTED_BYTES, held_with};
use crate::run::admission::{Offered, QueueSlot, RunPermit};
use crate::run::executions::{ExecutionState, Executions, Listed};
use crate::run::resolve::{SessionPlace, Terms};
use crate::run::rights::may_execute;
use crate::run::runner::Runner;
use crate::run::start::Control;

/// Result of asking for an execution: it runs, or waits for a place. Given by
/// [`Engine::admit`](crate::Engine::admit).
#[derive(Debug)]
#[non_exhaustive]
pub enum Admitted {
    /// The execution runs.
    Running(Run),
    /// The execution waits.
    Queued(QueuedRun),
}

/// An execution that was checked, and waits for a place. Dropping it leaves the queue.
pub struct QueuedRun(Box<Waiting>);

pub(crate) struct Waiting {
    runner: Arc<Runner>,
    pub(crate) terms: Terms,
    request: Request,
    place: QueueSlot,
    since: Instant,
    control: Control,
    listed: Listed,
}

/// A request that was checked.
pub(crate) struct Checked {
    terms: Terms,
    request: Request,
    /// Its command and its arguments, as they are listed.
    shown: (String, Vec<String>),
}

impl Runner {
    /// Checks a request. For a large one that takes time.
    pub(crate) fn check(
        &self,
        caller: &Caller,
        session: Option<SessionPlace>,
        mut request: Request,
    ) -> Result<Checked, ExecuteError> {
        may_execute(caller)?;
        let shown = Executions::shown(&request);
        let mut terms = self.resolve(caller, session, &mut request)?;
        self.hold_input(caller, &mut terms, &mut request)?;
        // What is left of them takes memory, and time to drop.
        (request.command, request.permit) = (CommandParts::default(), None);
        Ok(Checked { terms, request, shown })
    }

    /// Starts a request that was checked, or gives it a place in the queue.
    pub(crate) fn enter(
        self: &Arc<Self>,
        caller: &Caller,
        checked: Checked,
    ) -> Result<Admitted, ExecuteError> {
        let Checked { terms, mut request, shown } = checked;
        let offered = self.admission.offer(caller.user(), || self.retry_after())?;
        let control = CancelSource::new();
        let source = control.0.clone();
        let list = |state| self.executions.enter(caller.user(), shown, state, source);
        match offered {
            Offered::Now(permit) => {
                self.counters.queue_wait.observe(Duration::ZERO);
                let listed = list(ExecutionState::Running);
                let held = RunPermit::Alone(permit);
                Ok(Admitted::Running(self.run(terms, &mut request, held, control, Some(listed))))
            }
            Offered::Later(place) => {
                let listed = list(ExecutionState::Queued);
                let queued = QueuedRun::new(self, terms, request, place, control, listed);
                Ok(Admitted::Queued(queued))
            }
        }
    }

    /// Reserves the memory of what a request brings, until that is needed no more.
    fn hold_input(
        &self,
        caller: &Caller,
        terms: &mut Terms,
        request: &mut Request,
    ) -> Result<(), ExecuteError> {
        let given = match &mut request.stdin.0 {
            StdinSource::Bytes(bytes) => Some(bytes),
            StdinSource::Null | StdinSource::Reader(_) => None,
        };
        let stdin = given.as_ref().map_or(0, |bytes| bytes.len());
        let all = terms.command.bytes().saturating_add(stdin);
        if all < MIN_COUNTED_BYTES {
            return Ok(());
        }
        let mut held = self.inputs.reserve(caller.accounted_user(), all)?;
        if let Some(bytes) = given {
            *bytes = held_with(std::mem::take(bytes), held.split(stdin));
        }
        terms.held = Some(held);
        Ok(())
    }
}

impl QueuedRun {
    pub(crate) fn new(
        runner: &Arc<Runner>,
        terms: Terms,
        request: Request,
        place: QueueSlot,
        control: Control,
        listed: Listed,
    ) -> Self {
        let (runner, since) = (Arc::clone(runner), Instant::now());
        Self(Box::new(Waiting { runner, terms, request, place, since, control, listed }))
    }

    pub(crate) fn waiting(&self) -> &Waiting {
        &self.0
    }

    /// Returns its id in the [list](crate::Engine::executions).
    #[must_use]
    pub fn execution_id(&self) -> &ExecutionId {
        &self.0.listed.id
    }

    /// Returns the session that the command will be told it belongs to.
    #[must_use]
    pub fn session_id(&self) -> &SessionId {
        &self.0.terms.command.session_id
    }

    /// Waits for a place, and returns once the program runs; or, when it is
    /// [cancelled](crate::Engine::cancel_execution) before, at once, with a run that is over.
    ///
    /// # Errors
    ///
    /// [`ExecuteError`] when the command did not start, such as [`ExecuteError::Draining`] when the
    /// engine shuts down before its turn. Then nothing of it is left.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in the queue, or cancels the run.
    pub async fn started(self) -> Result<Run, ExecuteError> {
        let Waiting { runner, terms, mut request, place, since, control, listed } = *self.0;
        let user = listed.user.clone();
        let turn = tokio::select! {
            biased;
            permit = place.turn() => permit,
            () = control.1.stop_requested() => {
                return Ok(runner.never_run(terms, control.0, &listed));
            }
        };
        let started = match turn {
            Ok(permit) => {
                runner.counters.queue_wait.observe(since.elapsed());
                listed.begin();
                let held = RunPermit::Alone(permit);
                runner.started(runner.run(terms, &mut request, held, control, Some(listed))).await
            }
            Err(error) => Err(error),
        };
        started.inspect_err(|error| runner.count_failed_start(&user, error))
    }
}

impl fmt::Debug for QueuedRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuedRun").field("id", self.execution_id()).finish_non_exhaustive()
    }
}
