use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use crate::error::Field;
use crate::execute::{ExecuteError, NOT_A_PATH, PARENT_DIR};
use crate::ids::SessionId;
use crate::os::Limits;
use crate::terminal::TerminalModes;
use crate::user_name::UserName;

/// Fate of the processes that a command leaves in the background when it exits by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Background {
    /// The processes are killed at the end of the command.
    #[default]
    Kill,
    /// The processes continue, even after the end of the engine's process. What they still write to
    /// the command's standard output and error is read and discarded by a `cat` process, for as long
    /// as they hold these open.
    Keep,
}

/// A checked command, as it is passed to an [`Execute`](crate::Execute).
///
/// ```
/// use splengine_core::ExecuteError;
/// use splengine_core::execute::Command;
///
/// /// The command line by which a container runtime runs `command` in the container of its user.
/// fn container_argv(command: &Command) -> Result<Vec<String>, ExecuteError> {
///     let mut argv = vec!["runtime".to_owned(), "exec".to_owned()];
///     argv.extend(command.env.iter().map(|(name, value)| format!("--env={name}={value}")));
///     let workdir = std::path::Path::new("/work").join(command.relative_workdir()?);
///     argv.push(format!("--workdir={}", workdir.display()));
///     argv.push(format!("user-{}", command.user));
///     argv.extend(command.text_argv()?.into_iter().map(str::to_owned));
///     Ok(argv)
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Command {
    /// The program and its arguments; never empty, and no word holds a NUL. They are as the caller sent
    /// them, which over SSH need not be UTF-8.
    pub argv: Vec<OsString>,
    /// Directory to run it in, as the caller wrote it and **unchecked**: absolute or not, with `..`
    /// that may lead out of root, of any length. `None` is root itself. Each executor has to confine
    /// it: [`relative_workdir`](Self::relative_workdir) is the checked form, and
    /// [`Workdirs`](crate::local::Workdirs) opens it on this host.
    pub workdir: Option<String>,
    /// The variables that the request adds to the executor's own, with `SPL_SESSION_ID`.
    pub env: Vec<(String, String)>,
    /// User who asked.
    pub user: UserName,
    /// The session that it belongs to.
    pub session_id: SessionId,
    /// Limits on what it may use.
    pub limits: Limits,
    /// Fate of its background processes.
    pub background: Background,
    /// The modes that its terminal begins with, if it gets one.
    pub terminal_modes: TerminalModes,
    /// A variable that is to hold the path of its terminal (`/dev/pts/7`), if it gets one that has a path.
    pub tty_variable: Option<String>,
    /// A directory to put in front of the `PATH` of a shell: where the engine's program is.
    pub path_first: Option<String>,
    /// Mark by which a later executor is to find its processes, if the engine asks for that: one of
    /// this executor's [marks](crate::execute::Recover::mark).
    pub mark: Option<String>,
    /// Time from the request to end (`SIGTERM`) to the kill.
    pub grace: Duration,
}

impl Command {
    /// The memory, in bytes, that its words and variables take.
    pub(crate) fn bytes(&self) -> usize {
        command_bytes(&self.argv, &self.env)
    }

    /// Returns [`argv`](Self::argv) as text, for executors that take no other bytes.
    ///
    /// # Errors
    ///
    /// [`ExecuteError::Impossible`] when a word is not UTF-8.
    pub fn text_argv(&self) -> Result<Vec<&str>, ExecuteError> {
        let words = self.argv.iter().map(|word| word.to_str());
        words.collect::<Option<_>>().ok_or_else(|| ExecuteError::Impossible {
            field: Field::Args,
            problem: "hold bytes that are not UTF-8, which can't be passed on here".to_owned(),
        })
    }

    /// Returns [`workdir`](Self::workdir) as a path relative to root that has no `.` and no `..` in it,
    /// for executors that resolve it elsewhere than [`LocalExecutor`](crate::LocalExecutor) does: in a
    /// container, on another host. It is empty for root itself.
    ///
    /// An absolute path is taken below root, as [`Request::workdir`](crate::Request::workdir) says.
    /// Callers may also put the name of root before it, which the executor alone knows: one that tells
    /// callers such a name takes it off `workdir` first. Symbolic links are not resolved, since only
    /// what opens the path sees them: a link below root that leads out of it is the executor's to
    /// refuse.
    ///
    /// # Errors
    ///
    /// [`ExecuteError::Workdir`] when the path has a `..`, which means another directory where a link
    /// lies before it, or a NUL byte.
    ///
    /// ```
    /// use std::path::{Path, PathBuf};
    ///
    /// use splengine_core::ExecuteError;
    /// use splengine_core::execute::Command;
    ///
    /// /// The directory of `command` in a sandbox, which has root at `/work`.
    /// fn directory(command: &Command) -> Result<PathBuf, ExecuteError> {
    ///     Ok(Path::new("/work").join(command.relative_workdir()?))
    /// }
    /// ```
    pub fn relative_workdir(&self) -> Result<PathBuf, ExecuteError> {
        let workdir = self.workdir.as_deref().unwrap_or_default();
        let mut relative = PathBuf::new();
        let mut problem = workdir.contains('\0').then_some(NOT_A_PATH);
        for part in Path::new(workdir).components() {
            match part {
                Component::Normal(name) => relative.push(name),
                Component::ParentDir => problem = problem.or(Some(PARENT_DIR)),
                Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            }
        }
        match problem {
            Some(problem) => {
                let workdir = workdir.chars().take(200).collect();
                Err(ExecuteError::Workdir { workdir, problem })
            }
            None => Ok(relative),
        }
    }
}

/// The memory, in bytes, that these words and variables take.
pub(crate) fn command_bytes(words: &[impl AsRef<OsStr>], env: &[(String, String)]) -> usize {
    let words = words.iter().map(|word| size_of::<OsString>() + word.as_ref().len());
    words.sum::<usize>() + env_bytes(env)
}

/// The memory, in bytes, that these variables take.
pub(crate) fn env_bytes(env: &[(String, String)]) -> usize {
    let variables =
        env.iter().map(|(name, value)| size_of::<(String, String)>() + name.len() + value.len());
    variables.sum()
}
