use std::ffi::CString;
use std::fmt;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::execute::{
    Background, Cancel, Command, Execute, ExecuteError, Exit, ExitStatus, LimitKind, Output,
    Signal, Stdin,
};
use crate::local::attend::{Attended, OutputPipe, attend};
use crate::local::root::{Root, exhausted_or_internal};
use crate::local::{CgroupMode, Environment, LocalExecutorBuilder, SetupError, lookup};
use crate::process::{
    self, Cgroups, Group, Leader, OomCounter, Pipes, Spawn, SpawnError, TagError,
};

/// Runs commands as child processes of this one, on Linux 5.9 or newer.
pub struct LocalExecutor {
    root: Root,
    environment: Environment,
    null: File,
    cgroups: Option<Arc<Cgroups>>,
    oom: OomCounter,
    kept_pipes: Arc<Semaphore>,
}

impl LocalExecutor {
    /// Runs commands below `root` with the defaults of [`builder`](Self::builder).
    ///
    /// # Errors
    ///
    /// As [`LocalExecutorBuilder::build`].
    pub fn new(root: impl AsRef<Path>) -> Result<Self, SetupError> {
        Self::builder(root).build()
    }

    /// Sets up an executor that runs commands below `root`.
    pub fn builder(root: impl AsRef<Path>) -> LocalExecutorBuilder {
        LocalExecutorBuilder::new(root.as_ref())
    }

    pub(crate) fn from_builder(builder: LocalExecutorBuilder) -> Result<Self, SetupError> {
        let LocalExecutorBuilder { root: path, environment, cgroup, reap_strangers } = builder;
        let root = Root::open(&path).map_err(|source| SetupError::Root { path, source })?;
        let missing = |what| move |source| SetupError::Containment { what, source };
        process::check_tags().map_err(|error| match error {
            TagError::Limited => missing("this process's own RLIMIT_RTTIME is too low")(
                std::io::ErrorKind::Unsupported.into(),
            ),
            TagError::Unreadable(source) => missing("prlimit(2)")(source),
        })?;
        if process::child_exits_are_ignored() {
            let source = std::io::ErrorKind::Unsupported.into();
            return Err(missing("this process ignores SIGCHLD, and with it exit codes")(source));
        }
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|error| missing("PR_SET_CHILD_SUBREAPER")(error.into()))?;
        process::start_reaper(reap_strangers).map_err(missing("a thread"))?;
        let null = File::open("/dev/null").map_err(missing("/dev/null"))?;
        let cgroups = match cgroup {
            CgroupMode::Off => None,
            CgroupMode::Auto => Cgroups::below_own(),
            CgroupMode::At(path) => {
                Some(Cgroups::below(&path).map_err(|source| SetupError::Cgroup { path, source })?)
            }
        };
        let oom = OomCounter::of_this_process();
        let kept_pipes = Arc::new(Semaphore::new(KEPT_PIPES));
        Ok(Self { root, environment, null, cgroups, oom, kept_pipes })
    }

    fn start(&self, command: &Command, feed: bool) -> Result<(Leader, Pipes), ExecuteError> {
        let workdir = self.root.workdir(command.workdir.as_deref())?;
        let path = self.environment.value(&command.env, "PATH");
        let program = lookup::find(&command.argv[0], path, &workdir)?;
        let argv: Vec<CString> = command
            .argv
            .iter()
            .map(|word| CString::new(word.as_str()))
            .collect::<Result<_, _>>()
            .map_err(ExecuteError::internal)?;
        let env = self.environment.block(&command.env);
        let group = match &self.cgroups {
            Some(cgroups) => Some(cgroups.group(&command.limits).map_err(exhausted_or_internal)?),
            None => None,
        };
        let spawn = Spawn {
            program: &program,
            argv: &argv,
            env: &env,
            workdir: workdir.as_fd(),
            null: self.null.as_fd(),
            feed,
            limits: &command.limits,
            group_bounds_memory: self
                .cgroups
                .as_ref()
                .is_some_and(|cgroups| cgroups.bounds_memory()),
            group,
        };
        spawn.start().map_err(|error| refusal(command, error))
    }

    /// Reads and throws away what background processes that were kept still print: a closed pipe
    /// would kill them at their next line. Beyond [`KEPT_PIPES`] the pipe is closed all the same.
    fn discard(&self, pipe: OutputPipe) {
        if let Ok(permit) = Arc::clone(&self.kept_pipes).try_acquire_owned() {
            tokio::spawn(async move {
                pipe.discard().await;
                drop(permit);
            });
        }
    }
}

impl Execute for LocalExecutor {
    async fn execute(
        &self,
        command: Command,
        stdin: Stdin,
        output: Output,
        cancel: Cancel,
    ) -> Result<Exit, ExecuteError> {
        let oom_before = self.oom.count();
        let (mut leader, pipes) = self.start(&command, !stdin.is_null())?;
        output.started();
        let keep = command.background == Background::Keep;
        let attended = attend(&leader, pipes, stdin, &output, &cancel, command.grace, keep).await;
        let attended = attended.map_err(ExecuteError::internal)?;
        let status = leader.reap().map_err(ExecuteError::internal)?;
        let Attended { stopped, killed, tree, pipes } = attended;
        for pipe in pipes {
            pipe.drain(&output);
            if keep {
                self.discard(pipe);
            }
        }
        let mut exit = Exit::new(status).tree(tree.swept, tree.leftovers);
        if stopped {
            exit = exit.stopped();
            if killed {
                exit = exit.killed();
            }
        } else if status == ExitStatus::Signal(Signal::KILL)
            && (leader.tree().group.as_ref().is_some_and(Group::ran_out_of_memory)
                || self.oom.count() > oom_before)
        {
            exit = exit.out_of_memory();
        }
        Ok(exit)
    }

    async fn check(&self, command: &Command) -> Result<(), ExecuteError> {
        let workdir = self.root.workdir(command.workdir.as_deref())?;
        let path = self.environment.value(&command.env, "PATH");
        lookup::find(&command.argv[0], path, &workdir).map(drop)
    }

    fn enforces(&self, limit: LimitKind) -> bool {
        match limit {
            LimitKind::CpuTime | LimitKind::Memory | LimitKind::OpenFiles | LimitKind::FileSize => {
                true
            }
            // RLIMIT_NPROC counts all processes of a user, and does not bind root: no bound of a run.
            LimitKind::Processes => {
                self.cgroups.as_ref().is_some_and(|cgroups| cgroups.bounds_processes())
            }
        }
    }
}

impl fmt::Debug for LocalExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalExecutor")
            .field("root", &self.root)
            .field("environment", &self.environment)
            .field("cgroups", &self.cgroups)
            .finish_non_exhaustive()
    }
}

fn refusal(command: &Command, error: SpawnError) -> ExecuteError {
    let unusable = |problem| ExecuteError::ProgramUnusable {
        program: lookup::shown(&command.argv[0]),
        problem,
    };
    match error {
        SpawnError::Clone(error) => exhausted_or_internal(error),
        SpawnError::Prepare(error) => match error.raw_os_error() {
            // Root may hand out no more than it has itself.
            Some(libc::EPERM | libc::EINVAL) => ExecuteError::Impossible {
                field: "limits",
                problem: "are over what the engine itself may use".to_owned(),
            },
            Some(libc::EACCES) => ExecuteError::Workdir {
                workdir: lookup::shown(command.workdir.as_deref().unwrap_or_default()),
                problem: "can't be entered",
            },
            _ => exhausted_or_internal(error),
        },
        SpawnError::Exec(error) => match error.raw_os_error() {
            Some(libc::ENOENT) => unusable("the interpreter that it names does not exist"),
            Some(libc::ENOEXEC) => {
                unusable("it is neither a binary for this host nor a script that begins with #!")
            }
            Some(libc::EACCES | libc::EPERM) => unusable("it is not executable"),
            Some(libc::ETXTBSY) => unusable("it is being written at the moment"),
            Some(libc::E2BIG) => ExecuteError::Impossible {
                field: "args",
                problem: "and `env` are together longer than this host lets a program have"
                    .to_owned(),
            },
            _ => exhausted_or_internal(error),
        },
    }
}

/// Background processes that print are few, and each pipe takes a file descriptor.
const KEPT_PIPES: usize = 256;
