use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use crate::error::Field;
use crate::execute::{Background, Command, ExecuteError};
use crate::local::pty::{Pair, Pty};
use crate::local::pty_host::{Cgroup, HeldTerminal, Start, StartStage, limits_to_wire};
use crate::local::terminal::LocalTerminal;
use crate::local::{Environment, PtyHost, lookup};
use crate::process::{Attributes, Cgroups, Leader, Pipes, RunFile, Spawn, SpawnError};
use crate::protected::Protected;
use crate::root::{Root, exhausted_or_internal};
use crate::terminal::Size;

/// What every command of an executor finds on this host.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) root: Root,
    pub(crate) protected: Protected,
    pub(crate) environment: Environment,
    pub(crate) null: File,
    pub(crate) cgroups: Option<Arc<Cgroups>>,
    pub(crate) attributes: Attributes,
    pub(crate) runs: Option<Arc<RunFile>>,
}

impl Host {
    /// Whether [`start`](Self::start) could find what it needs. Blocks for the file system.
    pub(crate) fn check(&self, command: &Command) -> Result<(), ExecuteError> {
        self.find(command).map(drop)
    }

    /// Starts a command's first process. Blocks until its program is loaded.
    pub(crate) fn start(
        &self,
        command: &Command,
        feed: bool,
    ) -> Result<(Leader, Pipes), ExecuteError> {
        let env = self.environment.block_of_run(&command.env, command.path_first.as_deref());
        let prepared = self.prepare(command, env)?;
        let spawn = self.spawn(command, &prepared, feed)?;
        spawn.start().map_err(|error| refusal(command, error))
    }

    /// Starts a command's first process in a terminal of its own. Blocks as [`start`](Self::start)
    /// does.
    pub(crate) fn open(
        &self,
        command: &Command,
        size: Size,
    ) -> Result<LocalTerminal, ExecuteError> {
        let env = self.environment.block_of_terminal(&command.env, command.path_first.as_deref());
        let mut prepared = self.prepare(command, env)?;
        let pair = Pair::open(size, &command.terminal_modes).map_err(exhausted_or_internal)?;
        if let Some(name) = &command.tty_variable {
            pair.name_in(&mut prepared.env, name).map_err(exhausted_or_internal)?;
        }
        let Pair { ours, theirs } = pair;
        let spawn = self.spawn(command, &prepared, false)?;
        let pty = Pty::new(ours).map_err(exhausted_or_internal)?;
        let leader = spawn.start_in(theirs.as_fd()).map_err(|error| refusal(command, error))?;
        let root = self.root.path().to_owned();
        let keeps = command.background == Background::Keep;
        Ok(LocalTerminal::new(pty, leader, command.grace, root).keeping_background(keeps))
    }

    /// The same by way of a PTY host.
    pub(crate) async fn open_held(
        self: &Arc<Self>,
        pty_host: &PtyHost,
        cgroup: Cgroup,
        command: Command,
        size: Size,
    ) -> Result<HeldTerminal, ExecuteError> {
        let (host, wanted) = (Arc::clone(self), command.clone());
        let prepared = tokio::task::spawn_blocking(move || {
            let env = &host.environment;
            let env = env.block_of_terminal(&wanted.env, wanted.path_first.as_deref());
            host.prepare(&wanted, env)
        });
        let Prepared { workdir, program, argv, env } =
            prepared.await.map_err(ExecuteError::internal)??;
        let start = Start {
            session: command.session_id.to_string(),
            cols: size.cols(),
            rows: size.rows(),
            modes: command.terminal_modes.0.clone(),
            tty_variable: command.tty_variable.clone(),
            keeps_background: command.background == Background::Keep,
            grace_ms: u64::try_from(command.grace.as_millis()).unwrap_or(u64::MAX),
            words: argv.len(),
            limits: limits_to_wire(&command.limits),
            cgroup,
            attributes: self.attributes.clone(),
        };
        let texts: Vec<CString> = [program].into_iter().chain(argv).chain(env).collect();
        let root = self.root.path().to_owned();
        let opened = pty_host.open(start, &texts, workdir, root).await;
        opened.map_err(exhausted_or_internal)?.map_err(|(step, error)| {
            let error = match step {
                StartStage::Clone => SpawnError::Clone(error),
                StartStage::Prepare => SpawnError::Prepare(error),
                StartStage::Exec => SpawnError::Exec(error),
            };
            refusal(&command, error)
        })
    }

    fn prepare(&self, command: &Command, env: Vec<CString>) -> Result<Prepared, ExecuteError> {
        let (workdir, program) = self.find(command)?;
        let argv = command
            .argv
            .iter()
            .map(|word| CString::new(word.as_bytes()))
            .collect::<Result<_, _>>()
            .map_err(ExecuteError::internal)?;
        Ok(Prepared { workdir, program, argv, env })
    }

    fn spawn<'a>(
        &'a self,
        command: &'a Command,
        prepared: &'a Prepared,
        feed: bool,
    ) -> Result<Spawn<'a>, ExecuteError> {
        let group = match &self.cgroups {
            Some(cgroups) => Some(cgroups.group(&command.limits).map_err(exhausted_or_internal)?),
            None => None,
        };
        Ok(Spawn {
            program: &prepared.program,
            argv: &prepared.argv,
            env: &prepared.env,
            workdir: prepared.workdir.as_fd(),
            null: self.null.as_fd(),
            feed,
            limits: &command.limits,
            attributes: &self.attributes,
            tag: command.mark.as_ref().and_then(|mark| mark.parse().ok()),
            group,
            runs: self.runs.clone(),
        })
    }

    fn find(&self, command: &Command) -> Result<(OwnedFd, CString), ExecuteError> {
        let workdir = self.root.workdir(command.workdir.as_deref(), &self.protected)?;
        let path = self.environment.value(&command.env, "PATH");
        let program = lookup::find(&command.argv[0], path, &workdir)?;
        Ok((workdir, program))
    }
}

/// What starting a command takes, found and put into the kernel's form.
struct Prepared {
    workdir: OwnedFd,
    program: CString,
    argv: Vec<CString>,
    env: Vec<CString>,
}

fn refusal(command: &Command, error: SpawnError) -> ExecuteError {
    let unusable = |problem| ExecuteError::ProgramUnusable {
        program: lookup::shown(&command.argv[0].to_string_lossy()),
        problem,
    };
    match error {
        SpawnError::Clone(error) => exhausted_or_internal(error),
        SpawnError::Prepare(error) => match error.raw_os_error() {
            // Root may hand out no more than it has itself.
            Some(libc::EPERM | libc::EINVAL) => ExecuteError::Impossible {
                field: Field::Limits,
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
                field: Field::Args,
                problem: "and `env` are together longer than this host lets a program have"
                    .to_owned(),
            },
            _ => exhausted_or_internal(error),
        },
    }
}
