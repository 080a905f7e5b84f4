//! What callers see of sessions, and requests for them.

use std::ffi::OsString;
use std::time::SystemTime;

use crate::auth::Access;
use crate::execute::{Background, CommandParts, CommandSpec, command_builders, env_bytes};
use crate::ids::{IntoId, RestorableId, SavedId, SessionId, ShareId};
use crate::os::ExitStatus;
use crate::quota::LargeWorkPermit;
use crate::terminal::{Size, TerminalModes};
use crate::user_name::UserName;

/// State of a session's program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionState {
    /// The program runs.
    Running,
    /// The program has ended.
    Exited,
    /// The program was lost with the engine that ran it; its screen and recording are left.
    Lost,
}

impl SessionState {
    /// Returns the name of the state.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Exited => "exited",
            Self::Lost => "lost",
        }
    }
}

/// A session, as callers with a right to it see it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SessionInfo {
    /// Id of the session.
    pub id: SessionId,
    /// User who owns the session.
    pub user: UserName,
    /// Name of the session, given by its owner.
    pub name: Option<String>,
    /// Title that its program has set.
    pub title: String,
    /// Time at which it was made.
    pub created: SystemTime,
    /// Time at which something was last typed or printed in it.
    pub last_activity: SystemTime,
    /// Size of its terminal.
    pub size: Size,
    /// The present directory of its shell, where that is known.
    pub workdir: Option<String>,
    /// Number of clients that are attached.
    pub clients: usize,
    /// State of its program.
    pub state: SessionState,
    /// End of its program, if that has ended.
    pub exit: Option<ExitStatus>,
    /// `true` if it was loaded from a saved one.
    pub restored: bool,
    /// `true` if it is being recorded.
    pub recording: bool,
}

/// A saved session.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SavedInfo {
    /// Id of the saved session.
    pub id: SavedId,
    /// The session that was saved.
    pub session_id: SessionId,
    /// User who owns the saved session.
    pub user: UserName,
    /// Name of the session, given by its owner.
    pub name: Option<String>,
    /// Time at which it was saved.
    pub created: SystemTime,
    /// Size of its terminal.
    pub size: Size,
    /// The directory that its shell was in.
    pub workdir: Option<String>,
}

/// A share: a right to one session that its owner gave to others.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ShareInfo {
    /// Id of the share.
    pub id: ShareId,
    /// Session that is shared.
    pub session_id: SessionId,
    /// Right that it gives.
    pub access: Access,
    /// Time until which it is valid.
    pub expires: SystemTime,
    /// `true` if its ticket was used.
    pub used: bool,
}

/// A request for a new session.
///
/// ```
/// use splengine_core::SessionRequest;
/// use splengine_core::terminal::Size;
///
/// let request = SessionRequest::new()
///     .command("htop")
///     .workdir("projects")
///     .env("EDITOR", "vi")
///     .size(Size::clamped(132, 43))
///     .name("load");
/// ```
#[derive(Debug, Clone, Default)]
pub struct SessionRequest {
    pub(crate) command: CommandParts<OsString>,
    pub(crate) login_shell: bool,
    pub(crate) server_env: Vec<(String, String)>,
    pub(crate) size: Option<Size>,
    pub(crate) modes: TerminalModes,
    pub(crate) tty_variable: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) restore: Option<Result<RestorableId, String>>,
    pub(crate) permit: Option<LargeWorkPermit>,
}

impl SessionRequest {
    /// Asks for the engine's shell in root.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the permit under which the request was read: the engine checks it under the same, and gives that
    /// back then.
    /// Otherwise a request from [64 KiB](crate::quota::LargeWork::MIN_BYTES) on waits for a permit of its
    /// caller's.
    #[must_use]
    pub fn large_work_permit(mut self, permit: LargeWorkPermit) -> Self {
        self.permit = Some(permit);
        self
    }

    /// About the memory, in bytes, of its words and variables.
    pub(crate) fn bytes(&self) -> usize {
        self.command.bytes() + env_bytes(&self.server_env)
    }

    /// Sets another command than the shell, which is split into words by
    /// [`split_words`](crate::execute::split_words).
    #[must_use]
    pub fn command(mut self, command: impl Into<OsString>) -> Self {
        self.command.text = Some(command.into());
        self
    }

    /// Sets, where no command is named, whether the shell is a login shell, which reads its user's
    /// profile; default false. It is one if it is known to take `-l` (bash, sh, zsh and the like)
    /// and need not find the engine's [program](crate::engine::EngineBuilder::program) in a directory of
    /// its own: profiles set the `PATH` anew.
    #[must_use]
    pub fn login_shell(mut self, is_login_shell: bool) -> Self {
        self.login_shell = is_login_shell;
        self
    }

    /// Adds a variable that the server sets by itself, in place of one of this name that the request
    /// sets; see [`Request::server_env`](crate::Request::server_env).
    #[must_use]
    pub fn server_env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.server_env.push((name.into(), value.into()));
        self
    }

    /// Sets the size of the terminal; default 80 by 24.
    #[must_use]
    pub fn size(mut self, size: Size) -> Self {
        self.size = Some(size);
        self
    }

    /// Sets the modes that the terminal begins with; default: the host's.
    #[must_use]
    pub fn terminal_modes(mut self, modes: TerminalModes) -> Self {
        self.modes = modes;
        self
    }

    /// Adds a variable to its environment that holds the path of its terminal (`/dev/pts/7`), in place of
    /// one of this name that is there; default none. Like
    /// [`server_env`](Self::server_env) it is the server's own.
    /// Executors whose terminals have no path leave it out.
    #[must_use]
    pub fn tty_variable(mut self, name: impl Into<String>) -> Self {
        self.tty_variable = Some(name.into());
        self
    }

    /// Sets the name of the session, at most 200 characters.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Takes the screen, directory, environment and command of a saved session, or of one that was
    /// lost. With a text that is no id the request is refused as for a saved session that is not there.
    #[must_use]
    pub fn restore(mut self, saved: impl IntoId<RestorableId>) -> Self {
        self.restore = Some(saved.into_id());
        self
    }
}

command_builders!(SessionRequest, OsString, command);

impl From<CommandSpec> for SessionRequest {
    fn from(spec: CommandSpec) -> Self {
        Self { command: spec.0.into_os(), ..Self::new() }
    }
}
