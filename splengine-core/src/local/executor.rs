use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::execute::{
    Background, Cancel, Command, Execute, ExecuteError, Exit, ExitStatus, LimitKind, Output,
    Signal, Stdin,
};
use crate::local::attend::{Attended, OutputPipe, attend};
use crate::local::holder::Cgroup;
use crate::local::host::Host;
use crate::local::root::Root;
use crate::local::{CgroupMode, Holder, LocalExecutorBuilder, SetupError};
use crate::process::{self, Cgroups, Group, OomCounter, Tag, TagError, kill_tagged};
use crate::protected::Protected;
use crate::session::{Adopted, Leftover, Size, Terminal};

/// Runs commands as child processes of this one, on Linux 5.11 or newer.
pub struct LocalExecutor {
    host: Arc<Host>,
    oom: OomCounter,
    kept_pipes: Arc<Semaphore>,
    holder: Option<(Holder, Cgroup)>,
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
        let LocalExecutorBuilder {
            root: path,
            environment,
            cgroup,
            reap_strangers,
            holder,
            protected: protected_paths,
            attributes,
        } = builder;
        let mut protected = Protected::default();
        for path in protected_paths {
            protected.add(&path).map_err(|source| SetupError::Protected { path, source })?;
        }
        let holder = holder.map(|holder| (holder, Cgroup::from(&cgroup)));
        let root = Root::open(&path).map_err(|source| SetupError::Root { path, source })?;
        let missing = |what| move |source| SetupError::Containment { what, source };
        process::check_tags().map_err(|error| match error {
            TagError::Limited => missing(
                "this process's own RLIMIT_LOCKS or RLIMIT_RSS is too low",
            )(std::io::ErrorKind::Unsupported.into()),
            TagError::Unreadable(source) => missing("prlimit(2)")(source),
        })?;
        if !process::proc_is_ours() {
            let source = std::io::ErrorKind::Unsupported.into();
            return Err(missing("/proc is missing or shows another PID namespace")(source));
        }
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
        let host = Arc::new(Host { root, protected, environment, null, cgroups, attributes });
        Ok(Self { host, oom, kept_pipes, holder })
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
        let (grace, keep) = (command.grace, command.background == Background::Keep);
        let (host, feed) = (Arc::clone(&self.host), !stdin.is_null());
        // Loading a program from a slow file system takes its time, and holds the thread.
        let started = tokio::task::spawn_blocking(move || host.start(&command, feed)).await;
        let (leader, pipes) = started.map_err(ExecuteError::internal)??;
        output.started();
        let attended = attend(&leader, pipes, stdin, &output, &cancel, grace, keep).await;
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
        let (host, command) = (Arc::clone(&self.host), command.clone());
        let checked = tokio::task::spawn_blocking(move || host.check(&command)).await;
        checked.map_err(ExecuteError::internal)?
    }

    async fn open(&self, command: Command, size: Size) -> Result<Terminal, ExecuteError> {
        let host = Arc::clone(&self.host);
        if let Some((holder, cgroup)) = &self.holder {
            let held = host.open_held(holder, cgroup.clone(), command, size).await?;
            return Ok(Terminal::new(held));
        }
        let opened = tokio::task::spawn_blocking(move || host.open(&command, size)).await;
        Ok(Terminal::new(opened.map_err(ExecuteError::internal)??))
    }

    async fn adopt(&self, left: Vec<Leftover>) -> Vec<Option<Adopted>> {
        let mut adopted = Vec::new();
        let mut kept = Vec::new();
        let mut abandoned = HashSet::new();
        for one in left {
            let terminal = match &self.holder {
                Some((holder, _)) => {
                    let root = self.host.root.path().to_owned();
                    let id = one.session_id.to_string();
                    let held = holder.adopt(id, one.read, root).await.unwrap_or_else(|error| {
                        tracing::warn!(%error, session = %one.session_id, "a session can't be had");
                        None
                    });
                    held.map(|(held, lost)| Adopted::new(Terminal::new(held)).lost(lost))
                }
                None => None,
            };
            if terminal.is_some() {
                kept.push(one.session_id.to_string());
            } else {
                abandoned.extend(one.mark.and_then(|mark| mark.parse::<Tag>().ok()));
            }
            adopted.push(terminal);
        }
        if let Some((holder, _)) = &self.holder
            && let Err(error) = holder.keep_only(kept).await
        {
            tracing::warn!(%error, "sessions that nobody knows any more can't be ended");
        }
        end_abandoned(abandoned).await;
        adopted
    }

    fn mark(&self) -> Option<String> {
        Some(Tag::new().to_string())
    }

    async fn sweep(&self, marks: Vec<String>) {
        end_abandoned(marks.iter().filter_map(|mark| mark.parse().ok()).collect()).await;
    }

    fn has_terminals(&self) -> bool {
        true
    }

    fn enforces(&self, limit: LimitKind) -> bool {
        match limit {
            LimitKind::CpuTime | LimitKind::Memory | LimitKind::OpenFiles | LimitKind::FileSize => {
                true
            }
            // RLIMIT_NPROC counts all processes of a user, and does not bind root: no bound of a run.
            LimitKind::Processes => {
                self.host.cgroups.as_ref().is_some_and(|cgroups| cgroups.bounds_processes())
            }
        }
    }
}

impl fmt::Debug for LocalExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalExecutor").field("host", &self.host).finish_non_exhaustive()
    }
}

async fn end_abandoned(tags: HashSet<Tag>) {
    let killed = kill_tagged(tags).await;
    if killed > 0 {
        tracing::info!(processes = killed, "ended what an engine before this one had left running");
    }
}

/// Background processes that print are few, and each pipe takes a file descriptor.
const KEPT_PIPES: usize = 256;
