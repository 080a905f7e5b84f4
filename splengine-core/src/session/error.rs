use std::io;
use std::time::Duration;

use crate::error::{ErrorKind, Field};
use crate::execute::ExecuteError;
use crate::quota::InputShortage;
use crate::quota::MemoryError;

/// Failure of an operation on a session. Nothing of the operation was done, unless the method says
/// otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The program did not start.
    #[error(transparent)]
    Start(#[from] ExecuteError),
    /// There is no such session, or it is not the caller's.
    #[error("there is no session `{0}`")]
    NoSession(String),
    /// There is no such saved session, or it is not the caller's.
    #[error("there is no saved session `{0}`")]
    NoSaved(String),
    /// There is no such share or ticket, or it was used, taken back or has expired.
    #[error("there is no such share: it may be used up, taken back or expired")]
    NoShare,
    /// The session was not recorded.
    #[error("there is no recording of this session")]
    NoRecording,
    /// The caller lacks the right.
    #[error("{0}")]
    Forbidden(&'static str),
    /// A value that is never right.
    #[error("`{field}` {problem}")]
    Malformed {
        /// The member's name.
        field: Field,
        /// Description of what is wrong with the field, and what would be right.
        problem: String,
    },
    /// Numbered input of which bytes before it are missing.
    #[error("input must go on at number {expected}")]
    Gap {
        /// The number of the byte that is to come next.
        expected: u64,
    },
    /// The program has ended.
    #[error("the session has ended")]
    Ended,
    /// The caller has reached a limit of one caller.
    #[error("you have reached your limit of {limit} {what}; end one first")]
    CallerLimit {
        /// Noun for what is at its limit, in the plural.
        what: &'static str,
        /// Maximum number for one caller.
        limit: usize,
    },
    /// No further client may be attached to the session now.
    #[error("{}", clients_full(*.of, *.limit))]
    ClientsFull {
        /// Group of clients whose number is at its limit.
        of: ClientsOf,
        /// Maximum number of clients in the group.
        limit: usize,
    },
    /// The engine has reached one of its limits.
    #[error("there are {limit} sessions already, as many as this engine keeps; try again later")]
    Full {
        /// Maximum number of sessions of all callers.
        limit: usize,
    },
    /// The sessions that there are hold as many bytes of arguments and variables as all may.
    #[error(
        "the sessions of this engine hold so many bytes of arguments and variables that these are not \
         taken; there may be {max_bytes}; try again later"
    )]
    InputFull {
        /// Maximum number of bytes that the arguments and variables of all sessions may take.
        max_bytes: usize,
    },
    /// No further screen, saved session or recording may be read or written now, by this caller or by
    /// any.
    #[error("{}", busy(*.0))]
    Busy(MemoryError),
    /// The screens of the caller's sessions take as much memory as one caller's may, with this one.
    #[error(
        "the screens of your sessions may take {limit} bytes of memory at the moment; end or delete a \
         session, or ask for a smaller terminal"
    )]
    CallerScreens {
        /// Maximum number of bytes that the caller's screens may take at the moment, with what they
        /// take already.
        limit: usize,
    },
    /// The screens of all sessions take the memory that the engine has for them.
    #[error(
        "the screens of all sessions take the {limit} bytes of memory that this engine keeps for them; \
         ask for a smaller terminal, or try again later"
    )]
    ScreensFull {
        /// Maximum number of bytes that the screens of all callers may take.
        limit: usize,
    },
    /// There was no memory for the screen: those that are drawn and not read yet take all of it.
    #[error("{}", .0.of_answer())]
    Memory(#[from] MemoryError),
    /// The engine takes no new work.
    #[error("the engine is shutting down and takes no new work; try again in a second")]
    Draining,
    /// The engine keeps nothing on disk.
    #[error("this engine keeps no sessions on disk")]
    NoStore,
    /// The data on disk is not what was written.
    #[error("the saved session is damaged ({0}) and can't be loaded")]
    Damaged(&'static str),
    /// The data on disk was written by a later version.
    #[error("the saved session has the format {found}, and this engine reads up to {known}")]
    Newer {
        /// The version that was found.
        found: u64,
        /// The last that is known.
        known: u64,
    },
    /// The disk is full, or the caller's part of it.
    #[error("there is no room left on the disk")]
    DiskFull,
    /// Failure inside the engine, which no request should cause. The source is for the log.
    #[error("the engine failed to do it")]
    Internal(#[source] io::Error),
}

/// Clients of a session that have a bound in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientsOf {
    /// All clients of the session.
    Session,
    /// Clients of guests, whatever share let them in.
    Guests,
    /// Clients of the guest of one share.
    Share,
}

impl SessionError {
    /// Returns the message with the names of fields as `name` spells them: for adapters whose protocol
    /// has another spelling than Rust's.
    #[must_use]
    pub fn message(&self, name: impl Fn(Field) -> String) -> String {
        match self {
            Self::Malformed { field, problem } => format!("`{}` {problem}", name(*field)),
            Self::Start(error) => error.message(name),
            other => other.to_string(),
        }
    }

    /// Returns the error's kind, which adapters map to a status.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Start(error) => error.kind(),
            Self::Memory(error) => error.kind(),
            Self::NoSession(_) | Self::NoSaved(_) | Self::NoShare | Self::NoRecording => {
                ErrorKind::NotFound
            }
            Self::Forbidden(_) => ErrorKind::Forbidden,
            Self::Malformed { .. } | Self::Gap { .. } => ErrorKind::Malformed,
            Self::Ended => ErrorKind::Conflict,
            Self::CallerLimit { .. }
            | Self::CallerScreens { .. }
            | Self::ClientsFull { of: ClientsOf::Share, .. } => ErrorKind::CallerLimit,
            Self::Busy(error) => error.kind(),
            Self::Full { .. }
            | Self::ClientsFull { .. }
            | Self::InputFull { .. }
            | Self::ScreensFull { .. }
            | Self::Draining => ErrorKind::Unavailable,
            Self::NoStore | Self::Damaged(_) | Self::Newer { .. } => ErrorKind::Impossible,
            Self::DiskFull => ErrorKind::NoRoom,
            Self::Internal(_) => ErrorKind::Internal,
        }
    }

    /// Returns the time after which to try again, if that can help.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Start(error) => error.retry_after(),
            Self::Busy(error) | Self::Memory(error) => Some(error.retry_after()),
            Self::CallerLimit { .. }
            | Self::CallerScreens { .. }
            | Self::ClientsFull { .. }
            | Self::Full { .. }
            | Self::InputFull { .. }
            | Self::ScreensFull { .. }
            | Self::Draining => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// A failure of the disk or the operating system.
    pub(crate) fn of_io(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => {
                tracing::error!(%error, "a session's files can't be used");
                Self::Internal(error)
            }
        }
    }
}

impl From<InputShortage> for SessionError {
    fn from(shortage: InputShortage) -> Self {
        match shortage {
            InputShortage::Caller { max_bytes } => Self::CallerLimit {
                what: "bytes of arguments and variables of sessions",
                limit: max_bytes,
            },
            InputShortage::All { max_bytes } => Self::InputFull { max_bytes },
        }
    }
}

fn clients_full(of: ClientsOf, limit: usize) -> String {
    match of {
        ClientsOf::Session => format!(
            "{limit} clients are attached to this session, as many as may be at once; detach one of \
             yours, or try again when another has left; the owner of the session can also revoke a share"
        ),
        ClientsOf::Guests => format!(
            "guests may attach {limit} clients to this session at once, and have: the other places are \
             kept for its owner; try again when a guest has left"
        ),
        ClientsOf::Share => format!(
            "{limit} clients are attached with your share of this session, as many as may be at once; \
             detach one of them first"
        ),
    }
}

fn busy(of: MemoryError) -> &'static str {
    match of {
        MemoryError::CallerLimit => {
            "as much of your screens, saved sessions and recordings is being read or written as one \
             caller may have at once; try again in a second"
        }
        MemoryError::Unavailable => {
            "as much of screens, saved sessions and recordings is being read or written as this engine \
             does at once; try again in a second"
        }
    }
}
