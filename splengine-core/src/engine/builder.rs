use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::auth::GuessingPolicy;
use crate::batch::{BatchPolicy, Batches};
use crate::engine::BuildError;
use crate::engine::engine::{Engine, Inner};
use crate::engine::guessing::Guessing;
use crate::engine::opening;
use crate::execute::{DynExecute, Execute, Program};
use crate::files::FilePolicy;
use crate::os::{LimitKind, Limits};
use crate::quota::{CallerBudgets, DiskReserve, EngineMemory, InputBudget, LargeWork};
use crate::run::{Admission, Capacity, Counters, Policy, Runner};
use crate::session::{SessionPolicy, Sessions};

/// Sets up an [`Engine`]. Made by [`Engine::builder`].
///
/// ```
/// use std::time::Duration;
/// use splengine_core::execute::{LimitKind, Limits};
/// use splengine_core::{Engine, LocalExecutor};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let engine = Engine::builder(LocalExecutor::new(".")?)
///     .max_running(16)
///     .max_waiting(256)
///     .default_timeout(Duration::from_secs(60))
///     .max_timeout(Duration::from_secs(3600))
///     .default_output_limit(1 << 20)
///     .max_limits(Limits::default().with(LimitKind::OpenFiles, 1024))
///     .build()?;
/// # drop(engine);
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct EngineBuilder {
    executor: Arc<dyn DynExecute>,
    pub(crate) policy: Policy,
    capacity: Capacity,
    sessions: SessionPolicy,
    batches: Option<BatchPolicy>,
    files: Option<FilePolicy>,
    reserve: DiskReserve,
    guessing: GuessingPolicy,
    max_input_bytes: usize,
    /// Half of what the others leave when left out.
    max_input_bytes_per_caller: Option<usize>,
    max_captured_bytes: usize,
    max_buffered_bytes: usize,
}

impl Engine {
    /// Begins an engine that runs commands with `executor`.
    pub fn builder(executor: impl Execute) -> EngineBuilder {
        EngineBuilder::new(executor)
    }
}

impl EngineBuilder {
    pub(crate) fn new(executor: impl Execute) -> Self {
        Self {
            executor: Arc::new(executor),
            policy: Policy {
                program: Program::any(),
                shell_commands: false,
                shell: Vec::new(),
                request_env: None,
                default_timeout: None,
                max_timeout: Duration::from_hours(24),
                grace: Duration::from_secs(5),
                default_output_limit: 16 * MIB,
                max_output_limit: 64 * MIB,
                default_limits: Limits::default(),
                max_limits: Limits::default(),
            },
            capacity: Capacity {
                running: 64,
                running_per_caller: BY_MAX_RUNNING,
                waiting: 1024,
                waiting_per_caller: 512,
            },
            sessions: SessionPolicy::new(),
            batches: None,
            files: None,
            reserve: DiskReserve::default(),
            guessing: GuessingPolicy::new(),
            max_input_bytes: 64 << 20,
            max_input_bytes_per_caller: None,
            max_captured_bytes: 128 << 20,
            max_buffered_bytes: 192 << 20,
        }
    }

    /// Sets the program that commands are given to. Default: any, named by the command.
    ///
    /// ```
    /// use splengine_core::execute::Program;
    /// use splengine_core::{Caller, Engine, LocalExecutor, Request};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// // Callers name the arguments of `echo`, and can run nothing else.
    /// let engine = Engine::builder(LocalExecutor::new(".")?).program(Program::at("echo")).build()?;
    /// let alice = Caller::new("alice")?.with_all_scopes();
    /// let captured = engine.execute(&alice, Request::new("rm -r .")).await?.capture().await;
    /// assert_eq!(captured.stdout, "rm -r .\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn program(mut self, program: Program) -> Self {
        self.policy.program = program;
        self
    }

    /// Sets whether requests may have their command [run by a shell](crate::Request::use_shell):
    /// those of callers who may have sessions, which is a shell as well. Default: no.
    pub fn shell_commands(mut self, are_allowed: bool) -> Self {
        self.policy.shell_commands = are_allowed;
        self
    }

    /// Sets the variables that a request may set; any other is refused. A `*` at the end of a name
    /// stands for any rest. Default: any. With one fixed [`program`](Self::program) that callers
    /// must not get around, name only what that program needs: some variables (`LD_PRELOAD`,
    /// `NODE_OPTIONS`) make a program run other code.
    ///
    /// ```
    /// use splengine_core::{Caller, Engine, ErrorKind, LocalExecutor, Request};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let engine = Engine::builder(LocalExecutor::new(".")?).request_env(["LANG", "APP_*"]).build()?;
    /// let alice = Caller::new("alice")?.with_all_scopes();
    /// engine.execute(&alice, Request::new("true").env("APP_MODE", "test")).await?;
    /// let refused = engine.execute(&alice, Request::new("true").env("LD_PRELOAD", "x.so")).await;
    /// assert_eq!(refused.expect_err("not allowed").kind(), ErrorKind::Impossible);
    /// # Ok(())
    /// # }
    /// ```
    pub fn request_env(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.policy.request_env = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Sets the maximum number of runs at once. Default 64: a command mostly waits, and a host with
    /// few cores still serves many.
    pub fn max_running(mut self, count: usize) -> Self {
        self.capacity.running = count;
        self
    }

    /// Sets the maximum number of one caller's runs at once. Default: seven eighths of all, so that
    /// one caller can't have all places for as long as commands may run.
    pub fn max_running_per_caller(mut self, count: usize) -> Self {
        self.capacity.running_per_caller = count;
        self
    }

    /// Sets the maximum number of runs that wait; the next one is refused. Default 1024. 0 makes no
    /// queue.
    pub fn max_waiting(mut self, count: usize) -> Self {
        self.capacity.waiting = count;
        self
    }

    /// Sets the maximum number of one caller's runs that wait. Default 512, half the queue, so that
    /// one caller can't fill it.
    pub fn max_waiting_per_caller(mut self, count: usize) -> Self {
        self.capacity.waiting_per_caller = count;
        self
    }

    /// Sets the maximum number of bytes of input that the executions that run or wait hold in memory:
    /// arguments, variables, and standard input that is given whole, until their program has read that.
    /// The next one is refused ([`ExecuteError::InputFull`](crate::ExecuteError::InputFull)), but where
    /// there is no other. What has less than 4 KiB does not count, nor do the steps of batches, which
    /// have [a bound of their own](BatchPolicy::max_open_bytes). Default 64 MiB.
    pub fn max_input_bytes(mut self, bytes: usize) -> Self {
        self.max_input_bytes = bytes;
        self
    }

    /// Sets the maximum number of bytes of input that one caller's executions that run or wait hold in
    /// memory; the caller's next one is refused
    /// ([`ExecuteError::CallerInput`](crate::ExecuteError::CallerInput)), but where there is no other.
    /// Default: half of what the others leave of what [all may](Self::max_input_bytes).
    pub fn max_input_bytes_per_caller(mut self, bytes: usize) -> Self {
        self.max_input_bytes_per_caller = Some(bytes);
        self
    }

    /// Sets the maximum number of bytes of output that is kept in memory: by
    /// [`Run::capture`](crate::Run::capture) until what it gave is dropped, and of runs and steps of
    /// batches with an output limit the last half of it, until they end. One caller may have
    /// half of what the others leave.
    /// Nothing is refused at the bound, and nobody waits: a run that would take more keeps no more than it
    /// holds, as if its output limit were that, and its [gap](crate::execute::Gap) tells how much is missing. The
    /// first 16 KiB of each stream are kept, and not counted, in any case. Default 128 MiB, so that a
    /// caller has the 64 MiB of the highest output limit.
    pub fn max_captured_bytes(mut self, bytes: usize) -> Self {
        self.max_captured_bytes = bytes;
        self
    }

    /// Sets the maximum number of bytes of memory that the engine and all of its servers hold together
    /// for what passes through: messages and bodies that are read, answers that are not read yet,
    /// captured output, screens drawn for clients, saved sessions and records of batches that are read.
    /// Each of these has a bound of its own as well. One caller may have half of what the others leave,
    /// of all together. The documentation of each kind says what happens at the bound: reading waits,
    /// work is refused and may be tried again, or output is left out. Input that is held for as long as
    /// its work takes, and screens, have bounds of their own. Default 192 MiB.
    ///
    /// Where the process uses glibc's allocator, building an engine has it keep less memory that is free
    /// (mallopt(3)): `M_MMAP_THRESHOLD` is 256 KiB, and `M_ARENA_MAX` two for each processor.
    pub fn max_buffered_bytes(mut self, bytes: usize) -> Self {
        self.max_buffered_bytes = bytes;
        self
    }

    /// Sets the time limit of runs whose request does not say. Default: the maximum.
    pub fn default_timeout(mut self, timeout: Duration) -> Self {
        self.policy.default_timeout = Some(timeout);
        self
    }

    /// Sets the maximum time limit that is granted. Default 24 hours.
    pub fn max_timeout(mut self, timeout: Duration) -> Self {
        self.policy.max_timeout = timeout;
        self
    }

    /// Sets the time from the request to end (`SIGTERM`) to the kill. Default 5 s.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.policy.grace = grace;
        self
    }

    /// Sets how many bytes of each stream a captured run keeps whose request does not say. Default
    /// 16 MiB.
    pub fn default_output_limit(mut self, bytes: u64) -> Self {
        self.policy.default_output_limit = bytes;
        self
    }

    /// Sets the maximum output limit that is granted. Default 64 MiB.
    pub fn max_output_limit(mut self, bytes: u64) -> Self {
        self.policy.max_output_limit = bytes;
        self
    }

    /// Sets the limits of a run whose request does not say. Default: none.
    pub fn default_limits(mut self, limits: Limits) -> Self {
        self.policy.default_limits = limits;
        self
    }

    /// Sets the maximum limits that are granted. A run whose request and defaults set none gets these.
    /// Default: none.
    pub fn max_limits(mut self, limits: Limits) -> Self {
        self.policy.max_limits = limits;
        self
    }

    /// Sets what is granted to terminal sessions. Default: [`SessionPolicy::new`].
    pub fn sessions(mut self, policy: SessionPolicy) -> Self {
        self.sessions = policy;
        self
    }

    /// Sets where batches are kept, and how many. Default: none are.
    pub fn batches(mut self, policy: BatchPolicy) -> Self {
        self.batches = Some(policy);
        self
    }

    /// Sets which files are served. Default: none are.
    pub fn files(mut self, policy: FilePolicy) -> Self {
        self.files = Some(policy);
        self
    }

    /// Sets the free space, in bytes, that is left on each file system that is written to for callers:
    /// what would take more is refused, be it files or outputs. Default 256 MiB, or 1 % of the file
    /// system where that is less; 0 leaves nothing. See [`DiskReserve`].
    pub fn disk_floor(mut self, bytes: u64) -> Self {
        self.reserve = DiskReserve::new(bytes);
        self
    }

    /// Sets the bounds on guessing credentials, for all servers of the engine together. Default:
    /// [`GuessingPolicy::new`].
    pub fn guessing(mut self, policy: GuessingPolicy) -> Self {
        self.guessing = policy;
        self
    }

    /// Builds the engine. Opens and locks what the policies name: the root of [files](FilePolicy::new),
    /// the directory of [sessions](SessionPolicy::store), the store and the directory of
    /// [batches](BatchPolicy::new). Directories that do not exist are made, but for the root. Blocks:
    /// for up to 2 seconds while another engine uses the directory of sessions, and as long as it takes
    /// to [count](FilePolicy::max_caller_bytes) what callers' files hold.
    ///
    /// # Errors
    ///
    /// [`BuildError`] when settings contradict each other or ask for a limit that the executor does not
    /// enforce here, and when something that a policy names can't be opened. Then nothing is left open
    /// or locked, and another builder can use the same directories; those that were made stay.
    pub fn build(self) -> Result<Engine, BuildError> {
        let Self {
            executor,
            mut policy,
            mut capacity,
            sessions,
            batches,
            files,
            reserve,
            guessing,
            max_input_bytes,
            max_input_bytes_per_caller,
            max_captured_bytes,
            max_buffered_bytes,
        } = self;
        if capacity.running_per_caller == BY_MAX_RUNNING {
            capacity.running_per_caller = capacity.running - capacity.running / 8;
        }
        for (name, value) in [
            ("max running", capacity.running),
            ("max running per caller", capacity.running_per_caller),
        ] {
            if value == 0 {
                return Err(BuildError::Zero(name));
            }
        }
        if policy.max_timeout.is_zero() {
            return Err(BuildError::Zero("max timeout"));
        }
        if policy.default_timeout.is_some_and(|timeout| timeout > policy.max_timeout) {
            return Err(BuildError::DefaultOverMaximum("timeout"));
        }
        if policy.default_output_limit > policy.max_output_limit {
            return Err(BuildError::DefaultOverMaximum("output limit"));
        }
        for &kind in LimitKind::ALL {
            let (default, max) = (policy.default_limits.value(kind), policy.max_limits.value(kind));
            if default.or(max).is_some() && !executor.enforces(kind) {
                return Err(BuildError::NotEnforced(kind));
            }
            if default.zip(max).is_some_and(|(default, max)| default > max) {
                return Err(BuildError::DefaultOverMaximum(kind.name()));
            }
        }
        let opened_files =
            files.as_ref().map(|files| opening::files(files, executor.root())).transpose()?;
        let session_store = opening::sessions(&sessions)?;
        let opened_batches = batches.as_ref().map(opening::batches).transpose()?;
        policy.shell.clone_from(&sessions.shell);
        let memory = EngineMemory::new(max_buffered_bytes);
        if let Some(batches) = &batches {
            let store = Arc::clone(&batches.store);
            reserve.leave_released(move || store.released_space());
        }
        let runner = Arc::new(Runner {
            inputs: InputBudget::new(max_input_bytes, max_input_bytes_per_caller),
            captures: CallerBudgets::new(&memory.budget(max_captured_bytes)),
            memory,
            large_work: LargeWork::new(),
            executor,
            policy,
            admission: Admission::new(capacity),
            counters: Counters::default(),
            executions: Arc::default(),
            max_running: capacity.running,
            shutdown: watch::channel(Default::default()).0,
            reserve: reserve.clone(),
        });
        let sessions = Sessions::new(Arc::clone(&runner), sessions, session_store);
        let batches = batches.zip(opened_batches);
        let batches = Batches::new(Arc::clone(&runner), sessions.clone(), batches)
            .map_err(BuildError::Thread)?;
        let files = files.zip(opened_files);
        let files = files.map(|(policy, opened)| Arc::new(policy.serve(opened, reserve)));
        Ok(Engine(Arc::new(Inner {
            runner,
            sessions,
            batches,
            files,
            connections: Arc::default(),
            guessing: Guessing::new(guessing),
        })))
    }
}

impl std::fmt::Debug for EngineBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineBuilder")
            .field("policy", &self.policy)
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

const MIB: u64 = 1024 * 1024;
/// Stands for the default, which depends on how many run at all.
const BY_MAX_RUNNING: usize = usize::MAX;
