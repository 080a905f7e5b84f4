use std::ffi::OsString;
use std::time::Duration;

use crate::error::Field;
use crate::execute::ExecuteError;
use crate::ids::SessionId;
use crate::os::Limits;
use crate::terminal::TerminalModes;
use crate::user_name::UserName;

/// Fate of the processes that a command leaves in the background when it exits by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Background {
    /// The processes are killed with it.
    #[default]
    Kill,
    /// The processes run on, after the end of the engine's process, too. What they still write to
    /// its standard output and error is thrown away: by a `cat`, where they hold these open.
    Keep,
}

/// A checked command, as an [`Execute`](crate::Execute) gets it.
///
/// ```
/// use splengine_core::ExecuteError;
/// use splengine_core::execute::Command;
///
/// /// The command line by which a container runtime runs `command` in the container of its user.
/// fn container_argv(command: &Command) -> Result<Vec<String>, ExecuteError> {
///     let mut argv = vec!["runtime".to_owned(), "exec".to_owned()];
///     argv.extend(command.env.iter().map(|(name, value)| format!("--env={name}={value}")));
///     argv.extend(command.workdir.iter().map(|workdir| format!("--workdir={workdir}")));
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
    /// Directory to run it in, as the caller wrote it: below root. `None` is root itself.
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
    /// Mark by which a later executor is to find its processes, if the engine wants that: one of
    /// this executor's [marks](crate::execute::Recover::mark).
    pub mark: Option<String>,
    /// Time from the polite request to end to the kill.
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
}

/// The memory, in bytes, that these words and variables take.
pub(crate) fn command_bytes(argv: &[OsString], env: &[(String, String)]) -> usize {
    let words = argv.iter().map(|word| size_of::<OsString>() + word.len());
    let variables =
        env.iter().map(|(name, value)| size_of::<(String, String)>() + name.len() + value.len());
    words.sum::<usize>() + variables.sum::<usize>()
}
