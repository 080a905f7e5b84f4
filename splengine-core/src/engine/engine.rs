use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::auth::{Caller, Scope};
use crate::batch::Batches;
use crate::engine::guessing::Guessing;
use crate::engine::stats::EngineStats;
use crate::error::Field;
use crate::execute::{ExecuteError, LimitKind, Request, Run};
use crate::files::Files;
use crate::quota::{DiskReserve, LargeWork, MemoryBudget};
use crate::run::{Admitted, Runner, SessionPlace, ShutdownStage, check_env, may_execute};
use crate::session::{SessionError, Sessions};

/// Runs commands for callers: checks their rights, queues their requests, enforces limits, counts, and
/// drains. Adapters hold a clone, which is cheap.
///
/// ```
/// use splengine_core::{Caller, Engine, LocalExecutor, Request};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
/// let alice = Caller::new("alice")?.with_all_scopes();
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
    pub(crate) runner: Arc<Runner>,
    pub(crate) sessions: Sessions,
    pub(crate) batches: Batches,
    pub(crate) files: Option<Arc<crate::files::ServedFiles>>,
    /// Of all servers.
    pub(crate) connections: Arc<crate::net::Counters>,
    pub(crate) guessing: Guessing,
}

/// Work that an engine [resumes](Engine::resume).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resumed {
    /// Number of sessions.
    pub sessions: usize,
    /// Number of batches.
    pub batches: usize,
    /// `true` if the store of batches could not be read. Then no batch is resumed, though some may be
    /// left; the cause is in the log. A server should end then: the store needs repair (see
    /// [`salvage_batches`](crate::batch::salvage_batches)).
    pub has_failed: bool,
}

impl Engine {
    /// Runs a command for `caller`: checks it, waits in the queue for a place, and returns once the
    /// program runs. Must be called within a tokio runtime with I/O and time enabled.
    ///
    /// ```
    /// use splengine_core::auth::Scopes;
    /// use splengine_core::{Caller, Engine, ExecuteError, LocalExecutor, Request};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
    /// # let alice = Caller::new("alice")?.with_all_scopes();
    /// let run = engine.execute(&alice, Request::new("echo").arg("two words")).await?;
    /// assert_eq!(run.capture().await.stdout, "two words\n");
    ///
    /// let guest = Caller::new("guest")?.with_scopes(Scopes::NONE);
    /// let refused = engine.execute(&guest, Request::new("echo")).await;
    /// assert!(matches!(refused, Err(ExecuteError::Forbidden { scope: "execute", .. })));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`ExecuteError::Split`], [`ExecuteError::Malformed`], [`ExecuteError::Impossible`] and
    ///   [`ExecuteError::Workdir`] for the request; [`ExecuteError::ProgramNotFound`] and
    ///   [`ExecuteError::ProgramUnusable`] for its program.
    /// - [`ExecuteError::Forbidden`] for a caller without [`Scope::Execute`];
    ///   [`ExecuteError::NoSession`] for a session that is none of the caller's.
    /// - [`ExecuteError::CallerLimit`], [`ExecuteError::Full`], [`ExecuteError::CallerInput`],
    ///   [`ExecuteError::InputFull`], [`ExecuteError::TooManyKept`] and [`ExecuteError::Busy`] at the
    ///   bounds of the engine and its executor; [`ExecuteError::Exhausted`] when the host is short of
    ///   resources; [`ExecuteError::Draining`].
    ///
    /// Then the command did not start, and nothing of it is left.
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

    /// Runs a command as [`execute`](Self::execute) does, without waiting for a place: for adapters
    /// that tell their client that its command waits. Returns once the program runs, or has been
    /// checked and waits.
    ///
    /// ```
    /// use splengine_core::engine::Admitted;
    /// use splengine_core::{Caller, Engine, LocalExecutor, Request};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let engine = Engine::builder(LocalExecutor::new(".")?).max_running(1).build()?;
    /// let alice = Caller::new("alice")?.with_all_scopes();
    /// let first = engine.execute(&alice, Request::new("sleep 600")).await?;
    /// match engine.admit(&alice, Request::new("echo next")).await? {
    ///     Admitted::Queued(queued) => {
    ///         println!("{} waits for its turn", queued.execution_id());
    ///         drop(first);
    ///         assert_eq!(queued.started().await?.capture().await.stdout, "next\n");
    ///     }
    ///     other => panic!("one runs at a time: {other:?}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute), for a command that did not start, or never could.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in the queue, or cancels the run.
    pub async fn admit(&self, caller: &Caller, request: Request) -> Result<Admitted, ExecuteError> {
        let runner = &self.0.runner;
        // What is not needed beyond the first wait is not kept in the future, which is moved about.
        let entered = if request.bytes() < LargeWork::MIN_BYTES {
            self.enter(caller, request)
        } else {
            Box::pin(self.enter_large(caller, request)).await
        };
        let admitted = match entered {
            Ok(Admitted::Running(run)) => runner.started(run).await.map(Admitted::Running),
            Ok(Admitted::Queued(queued)) => {
                let checked = runner.executor.check_boxed(&queued.waiting().terms.command).await;
                checked.map(|()| Admitted::Queued(queued))
            }
            Err(error) => Err(error),
        };
        admitted.inspect_err(|error| runner.count_failed_start(caller.user(), error))
    }

    fn enter(&self, caller: &Caller, request: Request) -> Result<Admitted, ExecuteError> {
        let session = self.session_place(caller, &request)?;
        let runner = &self.0.runner;
        runner.enter(caller, runner.check(caller, session, request)?)
    }

    /// The same of a request that takes time to be checked: not on a worker of the runtime.
    async fn enter_large(
        &self,
        caller: &Caller,
        mut request: Request,
    ) -> Result<Admitted, ExecuteError> {
        let session = self.session_place(caller, &request)?;
        let runner = &self.0.runner;
        let (held, user) = (request.permit.take(), caller.accounted_user());
        let permit = runner.large_work.permit_or_own(held, user, request.bytes()).await?;
        let (checker, asker) = (Arc::clone(runner), caller.clone());
        let checked = permit.run(move || checker.check(&asker, session, request)).await??;
        drop(permit);
        runner.enter(caller, checked)
    }

    /// The session that a request names, if it does.
    fn session_place(
        &self,
        caller: &Caller,
        request: &Request,
    ) -> Result<Option<SessionPlace>, ExecuteError> {
        may_execute(caller)?;
        let place = request.session_id.clone().map(|id| self.0.sessions.place_of(caller, id));
        place.transpose().map_err(|error| match error {
            SessionError::NoSession(id) => ExecuteError::NoSession(id),
            SessionError::Forbidden(_) => ExecuteError::Forbidden {
                user: caller.user().to_string(),
                scope: Scope::Sessions.name(),
            },
            SessionError::Start(error) => error,
            SessionError::Ended => ExecuteError::Impossible {
                field: Field::SessionId,
                problem: "names a session that has ended".to_owned(),
            },
            other => ExecuteError::internal(other),
        })
    }

    /// Returns the engine's terminal sessions.
    #[must_use]
    pub fn sessions(&self) -> Sessions {
        self.0.sessions.clone()
    }

    /// Returns the engine's batches. Where there is no [policy](crate::engine::EngineBuilder::batches)
    /// for them, all that is asked of them is refused.
    #[must_use]
    pub fn batches(&self) -> Batches {
        self.0.batches.clone()
    }

    /// Returns whether batches are kept.
    #[must_use]
    pub fn has_batches(&self) -> bool {
        self.0.batches.registry().is_ok()
    }

    /// Returns the files below root. Where there is no [policy](crate::engine::EngineBuilder::files)
    /// for them, all that is asked of them is refused.
    #[must_use]
    pub fn files(&self) -> Files {
        Files::new(self.0.files.clone())
    }

    /// Returns the floor of free space on disks, which
    /// [`EngineBuilder::disk_floor`](crate::engine::EngineBuilder::disk_floor) sets: for adapters that keep
    /// something on disk for a caller.
    #[must_use]
    pub fn disk_reserve(&self) -> DiskReserve {
        self.0.runner.reserve.clone()
    }

    /// Returns a budget of at most `bytes` of the
    /// [memory](crate::engine::EngineBuilder::max_buffered_bytes) of the engine, which all servers and
    /// the engine itself share: for adapters, for what their connections hold.
    #[must_use]
    pub fn memory_budget(&self, bytes: usize) -> MemoryBudget {
        self.0.runner.memory.budget(bytes)
    }

    /// Returns the permits to work on large requests and answers, which all servers of the engine share:
    /// for adapters, to parse what their clients send.
    #[must_use]
    pub fn large_work(&self) -> LargeWork {
        self.0.runner.large_work.clone()
    }

    /// Returns whether files are served.
    #[must_use]
    pub fn has_files(&self) -> bool {
        self.0.files.is_some()
    }

    /// Resumes the work that an engine before this one left, which used the same stores. To be called
    /// before the servers are opened; a further call does nothing, and returns the same result.
    ///
    /// - Sessions that [outlive](crate::Session::outlives) their engine: with the same ids, screens,
    ///   recordings and places in their output, so that clients come back as after a broken
    ///   connection; but without their shares. The other sessions stay listed as lost.
    /// - Batches that are not over. A step that was running has ended as
    ///   [`Reason::Lost`](crate::Reason::Lost). It is run again where it has
    ///   [`Step::rerun_on_restart`](crate::Step::rerun_on_restart), which uses up no retry; else where
    ///   it has retries left and its [`Step::retry_on`](crate::Step::retry_on) accepts the reason `lost`
    ///   or the exit code 125.
    ///
    /// Where this is not called, the first use of [`batches`](Self::batches) resumes the batches, with
    /// a warning in the log; sessions stay listed as lost.
    ///
    /// However that engine ended: when this returns, nothing of it still runs that was not resumed.
    ///
    /// ```
    /// use splengine_core::batch::{BatchPolicy, BatchState};
    /// use splengine_core::store::RedbStore;
    /// use splengine_core::{BatchRequest, Caller, Engine, LocalExecutor, Step};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let directory = directory.path();
    /// let store = RedbStore::open(directory.join("batches.redb"))?;
    /// let engine = Engine::builder(LocalExecutor::new(".")?)
    ///     .batches(BatchPolicy::new(store, directory.join("outputs")))
    ///     .build()?;
    /// let resumed = engine.resume().await;
    /// assert!(!resumed.has_failed, "see the log: the store of batches needs repair");
    /// println!("resumed {} sessions and {} batches", resumed.sessions, resumed.batches);
    /// // Now the servers are opened.
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// The work continues when the future is dropped.
    pub async fn resume(&self) -> Resumed {
        let engine = self.clone();
        let resuming = tokio::spawn(async move {
            let sessions = crate::session::adopt_all(&engine.0.sessions).await;
            let batches = engine.0.batches.resume().await;
            Resumed { sessions, batches: batches.unwrap_or(0), has_failed: batches.is_none() }
        });
        resuming.await.unwrap_or(Resumed { sessions: 0, batches: 0, has_failed: true })
    }

    /// Returns whether the executor can start programs in terminals.
    #[must_use]
    pub fn has_sessions(&self) -> bool {
        self.0.runner.executor.has_terminals()
    }

    /// Returns whether the executor holds runs to this limit.
    #[must_use]
    pub fn enforces(&self, limit: LimitKind) -> bool {
        self.0.runner.executor.enforces(limit)
    }

    /// Returns whether a request may set this variable: for servers whose clients send some
    /// unasked, which are then left out.
    #[must_use]
    pub fn accepts_env(&self, name: &str) -> bool {
        check_env(&[(name.to_owned(), String::new())], self.0.runner.policy.request_env.as_deref())
            .is_ok()
    }

    /// Returns whether commands are given to a [program](crate::engine::EngineBuilder::program), instead of
    /// naming one.
    #[must_use]
    pub fn has_program(&self) -> bool {
        self.0.runner.policy.program.path().is_some()
    }

    /// Returns the shell that [sessions](crate::session::SessionPolicy::shell) begin with, as words.
    #[must_use]
    pub fn shell(&self) -> &[String] {
        self.0.runner.shell()
    }

    /// Returns whether commands of `caller` may be [run by a shell](Request::use_shell): where the
    /// engine allows it, of who may have sessions.
    #[must_use]
    pub fn may_use_shell(&self, caller: &Caller) -> bool {
        self.0.runner.policy.shell_commands && caller.may(Scope::Sessions)
    }

    /// Returns the names of what is enabled and enforced here, which are the same on all servers.
    ///
    /// ```
    /// use splengine_core::files::FilePolicy;
    /// use splengine_core::{Engine, LocalExecutor};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let engine = Engine::builder(LocalExecutor::new(".")?).files(FilePolicy::new()).build()?;
    /// let capabilities = engine.capabilities();
    /// for name in ["execute", "sessions", "files", "limits.openFiles"] {
    ///     assert!(capabilities.iter().any(|capability| capability == name), "{name}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
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
        self.0.runner.admission.is_open()
    }

    /// Resolves when no new work is taken any more: for connections that only observe, and would delay
    /// the end of their server.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn closed(&self) {
        let mut shutdown = self.0.runner.shutdown.subscribe();
        // The sender lives as long as this engine.
        let _ = shutdown.wait_for(|shutdown| *shutdown >= ShutdownStage::Closed).await;
    }

    /// Returns what was counted so far.
    ///
    /// ```
    /// use splengine_core::{Caller, Engine, LocalExecutor, Reason, Request};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
    /// # let alice = Caller::new("alice")?.with_all_scopes();
    /// engine.execute(&alice, Request::new("true")).await?.capture().await;
    /// let stats = engine.stats();
    /// assert_eq!((stats.started, stats.running), (1, 0));
    /// assert!(stats.ended.contains(&(Reason::Exited, 1)));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        let batches = self.batches().open_count();
        let (executions, sessions) =
            (self.0.runner.admission.counts(), self.0.sessions.registry.counts());
        let connections = self.0.connections.snapshot();
        let authentications = self.0.guessing.counts();
        let counters = &self.0.runner.counters;
        EngineStats::new(counters, executions, sessions, batches, authentications, connections)
    }

    /// Shuts the engine down: refuses what waits and what comes, gives what runs `grace` to end by
    /// itself, then asks it to end, then kills it. Sessions are saved, if there is a store for them; those whose
    /// shell waits for input end at once; those that [outlive](crate::Session::outlives) this process
    /// are left to the next, and so is what batches have not begun. Returns when nothing else runs.
    /// Calling it again while it works is harmless; [`kill`](Self::kill) hurries it.
    ///
    /// So it takes longer than `grace`: what does not end by itself has the engine's
    /// [grace](crate::engine::EngineBuilder::grace) until it is killed, and some seconds more go by
    /// where what it left behind is hard to find. All sessions together have `grace` to be saved, or
    /// the [`save_timeout`](crate::session::SessionPolicy::save_timeout) if that is longer; where the
    /// disk is slow, or their screens are many and large, those that are not saved by then are logged
    /// by their ids. Where the disk accepts no writes, 20 s more go by for sessions, and as much for
    /// batches: 10 s for each piece of what a step has printed, and 10 s for what is written down of
    /// them all. Those whose output or end is not written by then are logged, too.
    ///
    /// ```
    /// use std::time::Duration;
    /// use splengine_core::{Caller, Engine, ExecuteError, LocalExecutor, Reason, Request};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
    /// # let alice = Caller::new("alice")?.with_all_scopes();
    /// let run = engine.execute(&alice, Request::new("sleep 600")).await?;
    /// // What runs gets 50 ms to end by itself; then it is told to.
    /// engine.drain(Duration::from_millis(50)).await;
    /// assert_eq!(run.capture().await.end.reason, Reason::Cancelled);
    ///
    /// let refused = engine.execute(&alice, Request::new("true")).await;
    /// assert!(matches!(refused, Err(ExecuteError::Draining { .. })));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the engine shut for new work, and what runs running.
    pub async fn drain(&self, grace: Duration) {
        self.close();
        let runs = async {
            if tokio::time::timeout(grace, self.0.runner.admission.idle()).await.is_err() {
                self.0
                    .runner
                    .shutdown
                    .send_if_modified(|shutdown| shutdown.raise(ShutdownStage::Stopping));
                self.0.runner.admission.idle().await;
            }
        };
        tokio::join!(runs, self.0.sessions.registry.drain(grace));
        if let Ok(batches) = self.0.batches.registry() {
            batches.idle().await;
        }
    }

    /// Shuts the engine down at once: refuses all work and kills what runs, sessions' programs too, but
    /// for those that outlive this process. Follow it with [`drain`](Self::drain) to wait for the ends.
    pub fn kill(&self) {
        self.close();
        self.0.runner.shutdown.send_if_modified(|shutdown| shutdown.raise(ShutdownStage::Killing));
        self.0.sessions.registry.kill();
    }

    fn close(&self) {
        self.0.runner.shutdown.send_if_modified(|shutdown| shutdown.raise(ShutdownStage::Closed));
        self.0.runner.admission.close();
        self.0.sessions.registry.close();
        if let Ok(batches) = self.0.batches.registry() {
            batches.closed.send_replace(true);
        }
    }

    /// Refuses a caller who may not run commands, as [`execute`](Self::execute) would: for adapters,
    /// before they read the body of a request.
    ///
    /// # Errors
    ///
    /// [`ExecuteError::Forbidden`] for a caller without [`Scope::Execute`].
    pub fn check_execute(&self, caller: &Caller) -> Result<(), ExecuteError> {
        let checked = may_execute(caller);
        checked.inspect_err(|error| self.0.runner.counters.count_refusal(error.kind()))
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("policy", &self.0.runner.policy).finish_non_exhaustive()
    }
}
