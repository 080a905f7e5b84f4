use std::collections::HashSet;
use std::fmt;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{WaitId, WaitIdOptions, waitid};
use tokio::io::Interest;

use crate::execute::{
    Background, Cancel, Command, Execute, ExecuteError, Exit, Output, Recover, Stdin,
};
use crate::local::PtyHost;
use crate::local::launch::Host;
use crate::local::pty_host::Cgroup;
use crate::local::stdio::{Attended, OutputPipe, attend};
use crate::os::{ExitStatus, LimitKind, Signal};
use crate::process::{self, Group, OomCounter, Tag, kill_tagged};
use crate::quota::{CallerPlace, CallerPlaces, PlaceError};
use crate::terminal::{Orphan, Reattached, Size, Terminal};
use crate::user_name::UserName;

/// Runs commands as child processes of this one, on Linux 5.11 or newer.
///
/// ```
/// use splengine_core::{Caller, Engine, LocalExecutor, Request};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let root = tempfile::tempdir()?;
/// # let root = root.path();
/// std::fs::create_dir(root.join("reports"))?;
/// let engine = Engine::builder(LocalExecutor::new(root)?).build()?;
/// let alice = Caller::new("alice")?.with_all_scopes();
/// let request = Request::new("touch today.txt").workdir("reports");
/// assert!(engine.execute(&alice, request).await?.capture().await.end.success());
/// assert!(root.join("reports/today.txt").exists());
/// # Ok(())
/// # }
/// ```
pub struct LocalExecutor {
    pub(super) host: Arc<Host>,
    pub(super) oom: OomCounter,
    /// Places for runs that leave processes behind which print.
    /// None where no run may keep anything.
    pub(super) kept: Option<CallerPlaces>,
    pub(super) pty_host: Option<(PtyHost, Cgroup)>,
}

impl LocalExecutor {
    /// A place for a run whose background processes are to be kept.
    fn keeping(&self, user: &UserName) -> Result<Arc<CallerPlace>, ExecuteError> {
        let none = PlaceError::OfAll { limit: 0 };
        let taken = self.kept.as_ref().ok_or(none).and_then(|places| places.take(user));
        taken.map(Arc::new).map_err(|error| {
            let (limit, of_caller) = match error {
                PlaceError::OfCaller { limit } | PlaceError::OfGuests { limit } => (limit, true),
                PlaceError::OfAll { limit } => (limit, false),
            };
            let retry_after = Duration::from_secs(10);
            ExecuteError::TooManyKept { limit, of_caller, retry_after }
        })
    }
}

/// Has what background processes that were kept still print thrown away: a closed pipe would kill them
/// at their next line, a full one stop them. A process apart does it, since they may outlive this one.
async fn discard(pipe: OutputPipe, place: Arc<CallerPlace>) -> io::Result<()> {
    if !pipe.has_writer() {
        return Ok(());
    }
    let pipe = pipe.into_fd()?;
    let started = tokio::task::spawn_blocking(move || process::start_discarder(pipe.as_fd())).await;
    let pidfd = process::watch(started.map_err(io::Error::other)??, Interest::READABLE)?;
    tokio::spawn(async move {
        if pidfd.readable().await.is_ok() {
            let _ = waitid(WaitId::PidFd(pidfd.get_ref().as_fd()), WaitIdOptions::EXITED);
        }
        drop(place);
    });
    Ok(())
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
        let place = keep.then(|| self.keeping(&command.user)).transpose()?;
        let (host, feed) = (Arc::clone(&self.host), !stdin.is_null());
        // Loading a program from a slow file system takes its time, and holds the thread.
        let started = tokio::task::spawn_blocking(move || host.start(&command, feed)).await;
        let (leader, pipes) = started.map_err(ExecuteError::internal)??;
        output.started();
        let attended = attend(&leader, pipes, stdin, &output, &cancel, grace, keep).await;
        let attended = attended.map_err(ExecuteError::internal)?;
        let (status, usage) = leader.reap().map_err(ExecuteError::internal)?;
        let Attended { stopped, killed, tree, pipes } = attended;
        if let (Some(group), true) = (&leader.tree().group, keep && !stopped)
            && let Err(error) = group.keep()
        {
            tracing::warn!(%error, "the next engine will end what this run left running");
        }
        for pipe in pipes {
            pipe.drain(&output);
            if let Some(place) = &place
                && let Err(error) = discard(pipe, Arc::clone(place)).await
            {
                tracing::warn!(%error, "what is left of this run has no output any more");
            }
        }
        let mut exit = Exit::new(status).usage(usage).tree(tree.swept, tree.leftovers);
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
        if let Some((pty_host, cgroup)) = &self.pty_host {
            let held = host.open_held(pty_host, cgroup.clone(), command, size).await?;
            return Ok(Terminal::new(held));
        }
        let opened = tokio::task::spawn_blocking(move || host.open(&command, size)).await;
        Ok(Terminal::new(opened.map_err(ExecuteError::internal)??))
    }

    fn recovery(&self) -> Option<&impl Recover> {
        Some(self)
    }

    fn root(&self) -> Option<&Path> {
        Some(self.host.root.given())
    }

    fn has_terminals(&self) -> bool {
        true
    }

    fn enforces(&self, limit: LimitKind) -> bool {
        match limit {
            LimitKind::CpuTime
            | LimitKind::OpenFiles
            | LimitKind::FileSize
            | LimitKind::AddressSpace => true,
            // The address space of each process is no bound of the memory that a run uses.
            LimitKind::Memory => {
                self.host.cgroups.as_ref().is_some_and(|cgroups| cgroups.bounds_memory())
            }
            // RLIMIT_NPROC counts all processes of a user, and does not bind root: no bound of a run.
            LimitKind::Processes => {
                self.host.cgroups.as_ref().is_some_and(|cgroups| cgroups.bounds_processes())
            }
        }
    }
}

impl Recover for LocalExecutor {
    async fn adopt(&self, left: Vec<Orphan>) -> Vec<Option<Reattached>> {
        let mut adopted = Vec::new();
        let mut kept = Vec::new();
        let mut abandoned = HashSet::new();
        for one in left {
            let terminal = match &self.pty_host {
                Some((pty_host, _)) => {
                    let root = self.host.root.path().to_owned();
                    let id = one.session_id.to_string();
                    let held = pty_host.adopt(id, one.read, root).await.unwrap_or_else(|error| {
                        tracing::warn!(%error, session = %one.session_id, "a session can't be had");
                        None
                    });
                    held.map(|(held, lost)| Reattached::new(Terminal::new(held)).lost(lost))
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
        if let Some((pty_host, _)) = &self.pty_host
            && let Err(error) = pty_host.keep_only(kept).await
        {
            tracing::warn!(%error, "sessions that nobody knows any more can't be ended");
        }
        end_abandoned(abandoned).await;
        adopted
    }

    fn mark(&self) -> String {
        Tag::new().to_string()
    }

    async fn sweep(&self, marks: Vec<String>) {
        end_abandoned(marks.iter().filter_map(|mark| mark.parse().ok()).collect()).await;
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
