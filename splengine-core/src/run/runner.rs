use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::watch;

use crate::auth::{Caller, Scope};
use crate::execute::cancel::CancelSource;
use crate::execute::capture::CaptureBudget;
use crate::execute::output::Queue;
use crate::execute::stdin::Source;
use crate::execute::{
    Command, DynExecute, End, ExecuteError, HeadTail, Reading, Reason, Request, Run, SlowReader,
    Stdin,
};
use crate::quota::{
    CallerBudgets, DiskReserve, EngineMemory, InputBudget, LargeWork, MIN_COUNTED_BYTES, held_with,
};
use crate::run::admission::{Admission, Offered, Permit, RunPermit};
use crate::run::executions::{Admitted, Control, ExecutionState, Executions, Listed, QueuedRun};
use crate::run::policy::Policy;
use crate::run::resolve::{SessionPlace, Terms};
use crate::run::stats::Counters;
use crate::run::supervise::{self, RunGuard, Shutdown};
use crate::user_name::UserName;

/// Runs commands for callers under an engine's policy: what the engine, its sessions and its batches
/// share.
pub(crate) struct Runner {
    pub(crate) executor: Arc<dyn DynExecute>,
    pub(crate) policy: Policy,
    pub(crate) admission: Arc<Admission>,
    pub(crate) counters: Counters,
    pub(crate) executions: Arc<Executions>,
    pub(crate) max_running: usize,
    pub(crate) shutdown: watch::Sender<Shutdown>,
    pub(crate) reserve: DiskReserve,
    /// What executions that run or wait hold in memory.
    pub(crate) inputs: InputBudget,
    pub(crate) memory: EngineMemory,
    /// Permits to look at large requests, and what adapters do with them.
    pub(crate) large_work: LargeWork,
    /// What is kept in memory of executions' output.
    pub(crate) captures: CallerBudgets,
}

/// A request that was checked.
pub(crate) struct Checked {
    terms: Terms,
    request: Request,
    /// Its command and its arguments, as they are listed.
    shown: (String, Vec<String>),
}

/// Refuses a caller who may not run commands.
pub(crate) fn may_execute(caller: &Caller) -> Result<(), ExecuteError> {
    if caller.may(Scope::Execute) {
        return Ok(());
    }
    Err(ExecuteError::Forbidden { user: caller.user().to_string(), scope: Scope::Execute.name() })
}

impl Runner {
    /// Whether new work is taken.
    pub(crate) fn is_open(&self) -> bool {
        self.admission.is_open()
    }

    pub(crate) fn count_failed_start(&self, user: &UserName, error: &ExecuteError) {
        self.counters.count_refusal(error.kind());
        if let ExecuteError::Internal(source) = error {
            tracing::error!(%user, %source, "an execution failed to start");
        }
    }

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
        (request.command, request.permit) = (None, None);
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
            Source::Bytes(bytes) => Some(bytes),
            Source::Null | Source::Reader(_) => None,
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

    /// Runs a command of somebody who waited for the permit elsewhere, and may hold on to it.
    pub(crate) async fn launch(
        self: &Arc<Self>,
        caller: &Caller,
        mut request: Request,
        permit: Arc<Permit>,
        mark: Option<String>,
    ) -> Result<Run, ExecuteError> {
        let mut terms = self.resolve(caller, None, &mut request)?;
        terms.command.mark = mark;
        let control = CancelSource::new();
        let run = self.run(terms, &mut request, RunPermit::Shared(permit), control, None);
        self.started(run).await
    }

    /// What the request comes to, without running it.
    pub(crate) fn command(
        &self,
        caller: &Caller,
        mut request: Request,
    ) -> Result<Command, ExecuteError> {
        Ok(self.resolve(caller, None, &mut request)?.command)
    }

    pub(crate) fn run(
        self: &Arc<Self>,
        terms: Terms,
        request: &mut Request,
        permit: RunPermit,
        (source, cancel): Control,
        listed: Option<Listed>,
    ) -> Run {
        let Terms { command, times, secrets, held, accounted_user } = terms;
        let memory = CaptureBudget { budgets: self.captures.clone(), user: accounted_user };
        let scan = self.policy.program.failure_scan();
        let (output, queue) = Queue::new(request.slow_reader, scan, secrets);
        let run = Run(Box::new(Reading {
            queue: Arc::clone(&queue),
            source: source.clone(),
            session_id: command.session_id.clone(),
            execution_id: listed.as_ref().map(|listed| listed.id.clone()),
            was_begun: true,
            output_limit: request.output_limit,
            default_limit: self.policy.default_output_limit,
            kept: request
                .output_limit
                .map(|limit| [(); 2].map(|()| HeadTail::new(limit, memory.stream()))),
            memory: Some(memory),
            given: [0; 2],
            gaps: [None; 2],
            closing: VecDeque::new(),
            closed: Vec::new(),
            end: None,
            end_told: false,
        }));
        let stdin = std::mem::replace(&mut request.stdin, Stdin::null());
        let executor = Arc::clone(&self.executor);
        let execution = executor.execute_boxed(command, stdin, output, cancel.clone());
        let mut ending = RunGuard::new(Arc::clone(self), queue, source, permit, listed);
        ending.held = held;
        supervise::spawn(ending, execution, cancel, times);
        run
    }

    /// A run that is over before it could begin, since it was cancelled.
    pub(crate) fn never_run(&self, terms: Terms, source: CancelSource, listed: &Listed) -> Run {
        let (_, queue) = Queue::new(SlowReader::Wait, None, None);
        let reason = source.reason().unwrap_or(Reason::Cancelled);
        queue.finish(Ok(End::never_begun(reason)));
        Run(Box::new(Reading {
            queue,
            source,
            session_id: terms.command.session_id,
            execution_id: Some(listed.id.clone()),
            was_begun: false,
            output_limit: None,
            default_limit: self.policy.default_output_limit,
            memory: None,
            kept: None,
            given: [0; 2],
            gaps: [None; 2],
            closing: VecDeque::new(),
            closed: Vec::new(),
            end: None,
            end_told: false,
        }))
    }

    pub(crate) async fn started(&self, run: Run) -> Result<Run, ExecuteError> {
        run.0.queue.wait_started().await?;
        self.counters.started.fetch_add(1, Relaxed);
        Ok(run)
    }

    /// When a place may be free: the time that the present queue takes, between 1 and 60 s.
    fn retry_after(&self) -> Duration {
        let (_, waiting) = self.admission.counts();
        let places = u32::try_from(self.max_running).unwrap_or(u32::MAX);
        let turns = u32::try_from(waiting).unwrap_or(u32::MAX);
        let wait = self.counters.run.mean().saturating_mul(turns) / places;
        wait.clamp(Duration::from_secs(1), Duration::from_mins(1))
    }
}
