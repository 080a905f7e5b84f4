use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::watch;

use crate::batch::Batches;
use crate::budget::{CallerBudgets, held_with};
use crate::caller::{Caller, Scope, UserName};
use crate::disk::DiskReserve;
use crate::engine::admission::{Admission, Offered, Permit, RunPermit};
use crate::engine::builder::{EngineBuilder, Policy};
use crate::engine::executions::{Admitted, Control, ExecutionState, Executions, Listed, QueuedRun};
use crate::engine::guessing::Guessing;
use crate::engine::stats::{Counters, EngineStats};
use crate::engine::supervise::{self, RunGuard, Shutdown};
use crate::engine::terms::{Terms, check_env};
use crate::execute::cancel::CancelSource;
use crate::execute::capture::CaptureBudget;
use crate::execute::output::Queue;
use crate::execute::stdin::Source;
use crate::execute::{
    Command, DynExecute, End, Execute, ExecuteError, HeadTail, LimitKind, Reading, Reason, Request,
    Run, SlowReader, Stdin,
};
use crate::files::Files;
use crate::input_budget::{InputBudget, MIN_COUNTED_BYTES};
use crate::session::Sessions;
use crate::session::registry::Registry;

/// Runs commands for callers: checks their rights, lets them in one after the other, keeps limits,
/// counts, and drains. Adapters hold a clone, which is cheap.
///
/// ```
/// use splengine_core::{Caller, Engine, LocalExecutor, Request};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
/// let alice = Caller::with_all_scopes("alice".parse()?);
/// let run = engine.execute(&alice, Request::new("echo 'hello world'")).await?;
/// let captured = run.capture().await;
/// assert_eq!(&captured.stdout[..], b"hello world\n");
/// assert!(captured.end.success());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Engine(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) executor: Arc<dyn DynExecute>,
    pub(crate) policy: Policy,
    pub(crate) admission: Arc<Admission>,
    pub(crate) counters: Counters,
    pub(crate) executions: Arc<Executions>,
    /// Of all servers.
    pub(crate) connections: Arc<crate::net::Counters>,
    pub(crate) max_running: usize,
    pub(crate) shutdown: watch::Sender<Shutdown>,
    pub(crate) sessions: Registry,
    pub(crate) batches: Option<crate::batch::registry::Registry>,
    pub(crate) files: Option<Arc<crate::files::Shared>>,
    pub(crate) reserve: DiskReserve,
    pub(crate) guessing: Guessing,
    /// What executions that run or wait hold in memory.
    pub(crate) inputs: InputBudget,
    /// What is kept in memory of executions' output.
    pub(crate) captures: CallerBudgets,
}

/// Work that an engine [goes on with](Engine::resume).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resumed {
    /// Number of sessions.
    pub sessions: usize,
    /// Number of batches.
    pub batches: usize,
    /// `true` if the store of batches could not be read. Then no batch is gone on with, though some
    /// may be left; the cause is in the log. Whoever serves had better end: the store needs repair
    /// (see [`salvage_batches`](crate::salvage_batches)).
    pub has_failed: bool,
}

impl Engine {
    /// Begins an engine that runs commands with `executor`.
    pub fn builder(executor: impl Execute) -> EngineBuilder {
        EngineBuilder::new(executor)
    }

    /// Runs a command for `caller`: checks it, waits in the queue for a place, and returns once the
    /// program runs. Must be called within a tokio runtime with I/O and time enabled.
    ///
    /// # Errors
    ///
    /// [`ExecuteError`] when the command did not start. Then nothing of it is left.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in the queue, or cancels the run.
    pub async fn execute(&self, caller: &Caller, request: Request) -> Result<Run, ExecuteError> {
        match self.admit(caller, request).await? {
            Admitted::Running(run) => Ok(run),
            Admitted::Queued(queued) => Box::pin(queued.started()).await,
        }
    }

    /// Asks for the same, and does not wait for a place: for adapters that tell their client that its
    /// command waits. Returns once the program runs, or has been checked and waits.
    ///
    /// # Errors
    ///
    /// [`ExecuteError`] when the command did not start, or never could.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in the queue, or cancels the run.
    pub async fn admit(&self, caller: &Caller, request: Request) -> Result<Admitted, ExecuteError> {
        // What is not needed beyond the first wait is not kept in the future, which is moved about.
        let admitted = match self.enter(caller, request) {
            Ok(Admitted::Running(run)) => self.started(run).await.map(Admitted::Running),
            Ok(Admitted::Queued(queued)) => {
                let checked = self.0.executor.check_boxed(&queued.waiting().terms.command).await;
                checked.map(|()| Admitted::Queued(queued))
            }
            Err(error) => Err(error),
        };
        admitted.inspect_err(|error| self.count_failed_start(caller.user(), error))
    }

    pub(crate) fn count_failed_start(&self, user: &UserName, error: &ExecuteError) {
        self.0.counters.count_refusal(error.kind());
        if let ExecuteError::Internal(source) = error {
            tracing::error!(%user, %source, "an execution failed to start");
        }
    }

    /// The terminal sessions.
    #[must_use]
    pub fn sessions(&self) -> Sessions {
        Sessions::new(self.clone())
    }

    /// The batches. Where there is no [policy](crate::EngineBuilder::batches) for them, all that is
    /// asked of them is refused.
    #[must_use]
    pub fn batches(&self) -> Batches {
        Batches::new(self.clone())
    }

    /// Returns whether batches are kept.
    #[must_use]
    pub fn has_batches(&self) -> bool {
        self.0.batches.is_some()
    }

    /// The files below root. Where there is no [policy](crate::EngineBuilder::files) for them, all
    /// that is asked of them is refused.
    #[must_use]
    pub fn files(&self) -> Files {
        Files::new(self.0.files.clone())
    }

    /// The floor of free space on disks, which [`EngineBuilder::disk_floor`] sets: for adapters that
    /// keep something on disk for a caller.
    #[must_use]
    pub fn disk_reserve(&self) -> DiskReserve {
        self.0.reserve.clone()
    }

    /// Returns whether files are served.
    #[must_use]
    pub fn has_files(&self) -> bool {
        self.0.files.is_some()
    }

    /// Goes on with what an engine before this one left, which used the same stores. To be called
    /// once, before the servers are opened.
    ///
    /// - Sessions that [outlive](crate::Session::outlives) their engine: with the same ids, screens,
    ///   recordings and places in their output, so that clients come back as after a broken
    ///   connection; but without their shares. The other sessions stay listed as lost.
    /// - Batches that are not over. A step that was running has ended as
    ///   [`Reason::Lost`], and is run again where its retries or
    ///   [`Step::rerun_on_restart`](crate::Step::rerun_on_restart) say so.
    ///
    /// However that engine ended: when this returns, nothing of it still runs that is not gone on
    /// with.
    ///
    /// # Cancel safety
    ///
    /// It takes its course when the future is dropped.
    pub async fn resume(&self) -> Resumed {
        let engine = self.clone();
        let resuming = tokio::spawn(async move {
            let sessions = crate::session::adopt_all(&engine).await;
            let batches = crate::batch::resume_all(&engine).await;
            Resumed { sessions, batches: batches.unwrap_or(0), has_failed: batches.is_none() }
        });
        resuming.await.unwrap_or(Resumed { sessions: 0, batches: 0, has_failed: true })
    }

    /// Returns whether the executor can start programs in terminals.
    #[must_use]
    pub fn has_sessions(&self) -> bool {
        self.0.executor.has_terminals()
    }

    /// Returns whether the executor holds runs to this limit.
    #[must_use]
    pub fn enforces(&self, limit: LimitKind) -> bool {
        self.0.executor.enforces(limit)
    }

    /// Returns whether a request may set this variable: for servers whose clients send some
    /// unasked, which are then left out.
    #[must_use]
    pub fn accepts_env(&self, name: &str) -> bool {
        check_env(&[(name.to_owned(), String::new())], self.0.policy.request_env.as_deref()).is_ok()
    }

    /// Returns what is switched on and enforced here, in the words of every server.
    #[must_use]
    pub fn capabilities(&self) -> Vec<String> {
        let mut all = vec!["execute".to_owned()];
        if self.has_batches() {
            all.push("batches".to_owned());
        }
        if self.has_sessions() {
            all.extend(["sessions", "sessions.share"].map(str::to_owned));
            if self.sessions().are_kept() {
                all.extend(["sessions.save", "sessions.recording"].map(str::to_owned));
            }
        }
        if self.has_files() {
            all.push("files".to_owned());
        }
        all.extend(["wallTime", "output"].map(|limit| format!("limits.{limit}")));
        let limits = LimitKind::ALL.iter().filter(|kind| self.enforces(**kind));
        all.extend(limits.map(|kind| format!("limits.{}", kind.name())));
        all
    }

    /// Returns whether new work is taken: until [`drain`](Self::drain) is called.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.admission.is_open()
    }

    /// Resolves when no new work is taken any more: for what only looks on, and would hold up the
    /// end of its server.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn closed(&self) {
        let mut shutdown = self.0.shutdown.subscribe();
        // The sender lives as long as this engine.
        let _ = shutdown.wait_for(|shutdown| *shutdown >= Shutdown::Close).await;
    }

    /// Returns what was counted so far.
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        let batches = self.batches().open_count();
        let (executions, sessions) = (self.0.admission.counts(), self.0.sessions.counts());
        let connections = self.0.connections.snapshot();
        let authentications = self.0.guessing.counts();
        self.0.counters.snapshot(executions, sessions, batches, authentications, connections)
    }

    /// Shuts down: refuses what waits and what comes, gives what runs `grace` to end by itself,
    /// then ends it politely, then by force. Sessions are saved, if there is a store for them; those
    /// whose shell waits for somebody to type end at once; those that
    /// [outlive](crate::Session::outlives) this process are left to the next, and so is what batches
    /// have not begun. Returns when nothing else runs. Calling it again while it works is harmless;
    /// [`kill`](Self::kill) hurries it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the engine shut for new work, and what runs running.
    pub async fn drain(&self, grace: Duration) {
        self.close();
        let runs = async {
            if tokio::time::timeout(grace, self.0.admission.idle()).await.is_err() {
                self.0.shutdown.send_if_modified(|shutdown| shutdown.raise(Shutdown::Stop));
                self.0.admission.idle().await;
            }
        };
        tokio::join!(runs, self.0.sessions.drain(grace));
        if let Some(batches) = &self.0.batches {
            batches.idle().await;
        }
    }

    /// Shuts down at once: refuses all work and kills what runs, sessions' programs too, but for
    /// those that outlive this process. Follow it with [`drain`](Self::drain) to wait for the ends.
    pub fn kill(&self) {
        self.close();
        self.0.shutdown.send_if_modified(|shutdown| shutdown.raise(Shutdown::Kill));
        self.0.sessions.kill();
    }

    fn close(&self) {
        self.0.shutdown.send_if_modified(|shutdown| shutdown.raise(Shutdown::Close));
        self.0.admission.close();
        self.0.sessions.close();
        if let Some(batches) = &self.0.batches {
            batches.closed.send_replace(true);
        }
    }

    /// Refuses a caller who may not run commands, as [`execute`](Self::execute) would: for adapters,
    /// before they read the body of a request.
    ///
    /// # Errors
    ///
    /// [`ExecuteError::Forbidden`].
    pub fn check_execute(&self, caller: &Caller) -> Result<(), ExecuteError> {
        let checked = Self::may_execute(caller);
        checked.inspect_err(|error| self.0.counters.count_refusal(error.kind()))
    }

    pub(crate) fn may_execute(caller: &Caller) -> Result<(), ExecuteError> {
        if caller.may(Scope::Execute) {
            return Ok(());
        }
        Err(ExecuteError::Forbidden {
            user: caller.user().to_string(),
            scope: Scope::Execute.name(),
        })
    }

    fn enter(&self, caller: &Caller, mut request: Request) -> Result<Admitted, ExecuteError> {
        let inner = &self.0;
        Self::may_execute(caller)?;
        let shown = Executions::shown(&request);
        let mut terms = self.terms(caller, &mut request)?;
        self.hold_input(caller, &mut terms, &mut request)?;
        let offered = inner.admission.offer(caller.user(), || self.retry_after())?;
        let control = CancelSource::new();
        let source = control.0.clone();
        let list = |state| inner.executions.enter(caller.user(), shown, state, source);
        match offered {
            Offered::Now(permit) => {
                inner.counters.queue_wait.observe(Duration::ZERO);
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
        let mut held = self.0.inputs.reserve(caller.accounted_user(), all)?;
        if let Some(bytes) = given {
            *bytes = held_with(std::mem::take(bytes), held.split(stdin));
        }
        terms.held = Some(held);
        Ok(())
    }

    /// Runs a command of somebody who waited for the permit elsewhere, and may hold on to it.
    pub(crate) async fn launch(
        &self,
        caller: &Caller,
        mut request: Request,
        permit: Arc<Permit>,
        mark: Option<String>,
    ) -> Result<Run, ExecuteError> {
        let mut terms = self.terms(caller, &mut request)?;
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
        Ok(self.terms(caller, &mut request)?.command)
    }

    pub(crate) fn run(
        &self,
        terms: Terms,
        request: &mut Request,
        permit: RunPermit,
        (source, cancel): Control,
        listed: Option<Listed>,
    ) -> Run {
        let inner = &self.0;
        let Terms { command, times, secrets, held, accounted_user } = terms;
        let memory = CaptureBudget { budgets: inner.captures.clone(), user: accounted_user };
        let scan = inner.policy.program.failure_scan();
        let (output, queue) = Queue::new(request.slow_reader, scan, secrets);
        let run = Run(Box::new(Reading {
            queue: Arc::clone(&queue),
            source: source.clone(),
            session_id: command.session_id.clone(),
            execution_id: listed.as_ref().map(|listed| listed.id.clone()),
            was_begun: true,
            output_limit: request.output_limit,
            default_limit: inner.policy.default_output_limit,
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
        let executor = Arc::clone(&inner.executor);
        let execution = executor.execute_boxed(command, stdin, output, cancel.clone());
        let mut ending = RunGuard::new(self.clone(), queue, source, permit, listed);
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
            default_limit: self.0.policy.default_output_limit,
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
        self.0.counters.started.fetch_add(1, Relaxed);
        Ok(run)
    }

    /// When a place may be free: the time that the present queue takes, between 1 and 60 s.
    fn retry_after(&self) -> Duration {
        let (_, waiting) = self.0.admission.counts();
        let places = u32::try_from(self.0.max_running).unwrap_or(u32::MAX);
        let turns = u32::try_from(waiting).unwrap_or(u32::MAX);
        let wait = self.0.counters.run.mean().saturating_mul(turns) / places;
        wait.clamp(Duration::from_secs(1), Duration::from_mins(1))
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("policy", &self.0.policy).finish_non_exhaustive()
    }
}
