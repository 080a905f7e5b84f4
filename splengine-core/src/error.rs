//! The kinds of refusal, which every adapter maps to its protocol.

use std::fmt;

use crate::os::LimitKind;

/// Kind of failure that an error is. Adapters turn it into their protocol's status with one table,
/// tested against [`ErrorKind::ALL`].
///
/// ```
/// use splengine_core::ErrorKind;
///
/// /// The exit code of a command-line tool, by sysexits.h.
/// fn exit_code(kind: ErrorKind) -> i32 {
///     match kind {
///         ErrorKind::Malformed | ErrorKind::Impossible => 64,
///         ErrorKind::NotFound => 66,
///         ErrorKind::Unauthenticated | ErrorKind::Forbidden => 77,
///         ErrorKind::CallerLimit | ErrorKind::Unavailable | ErrorKind::NoRoom => 75,
///         _ => 70,
///     }
/// }
///
/// // `ErrorKind` may get further kinds: a test walks over all of them.
/// assert!(ErrorKind::ALL.iter().all(|kind| (64..=77).contains(&exit_code(*kind))));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request can't be understood, whatever the state of the host.
    Malformed,
    /// The client has shown no credentials, or invalid credentials.
    Unauthenticated,
    /// The caller lacks the right.
    Forbidden,
    /// There is no such thing, or it is not the caller's.
    NotFound,
    /// Well-formed, but impossible here: no such program, a workdir outside root, a limit that
    /// can't be enforced.
    Impossible,
    /// The request contradicts the state that things are in.
    Conflict,
    /// The disk is full, or the caller's part of it.
    NoRoom,
    /// The caller's own share is used up; others may still be served.
    CallerLimit,
    /// The engine is full, draining, or the host lacks a resource.
    Unavailable,
    /// An internal fault. Its cause is for the log, never for the caller.
    Internal,
}

impl ErrorKind {
    /// Every kind, for the test of an adapter's table.
    pub const ALL: &[Self] = &[
        Self::Malformed,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::Impossible,
        Self::Conflict,
        Self::NoRoom,
        Self::CallerLimit,
        Self::Unavailable,
        Self::Internal,
    ];

    /// Returns the name of the kind in logs and metrics: lower case, words joined by `_`.
    ///
    /// ```
    /// assert_eq!(splengine_core::ErrorKind::CallerLimit.name(), "caller_limit");
    /// ```
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Impossible => "impossible",
            Self::Conflict => "conflict",
            Self::NoRoom => "no_room",
            Self::CallerLimit => "caller_limit",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }
}

/// Part of a request that an error is about.
///
/// Errors name it as Rust does (`output_limit`). An adapter whose protocol spells it otherwise asks for the
/// message with its own spelling:
///
/// ```
/// use splengine_core::{ExecuteError, Field};
/// use splengine_core::text::camel_case;
///
/// let error = ExecuteError::Impossible {
///     field: Field::OutputLimit,
///     problem: "is over the maximum".to_owned(),
/// };
/// assert_eq!(error.to_string(), "`output_limit` is over the maximum");
/// let json = error.message(|field| camel_case(field.name()));
/// assert_eq!(json, "`outputLimit` is over the maximum");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Field {
    /// The command, as text or as its first word.
    Command,
    /// Further arguments of a command.
    Args,
    /// Variables of the environment.
    Env,
    /// Variables whose values are masked in output.
    Mask,
    /// Shell that runs the command.
    Shell,
    /// The session that something is run in.
    SessionId,
    /// Terminal session, where an executor has no terminals.
    Session,
    /// The time limit.
    Timeout,
    /// The time limit without output.
    IdleTimeout,
    /// The bytes of output that are kept.
    OutputLimit,
    /// The limits as a whole.
    Limits,
    /// The name that is shown.
    Name,
    /// The saved session that a session begins with.
    From,
    /// The client that control is given to.
    To,
    /// The time that a share lasts.
    ExpiresIn,
    /// The options that a file is opened with.
    Options,
    /// The text that a job is made of.
    Recipe,
    /// The steps of a batch.
    Steps,
    /// The id of a step.
    Id,
    /// The steps that a step comes after.
    DependsOn,
    /// Standard input of a run.
    Stdin,
    /// The step whose output a step reads.
    StdinFrom,
    /// The number of times that a step is run again.
    Retries,
    /// The time before a step is run again.
    RetryDelay,
    /// The ends after which a step is run again.
    RetryOn,
    /// The labels of a batch.
    Labels,
    /// The number of steps that run at once.
    Parallelism,
    /// The key by which a request that comes twice is known.
    IdempotencyKey,
    /// The place in a list that was read before.
    Cursor,
    /// The number of the event that was read last.
    After,
    /// Limit of a resource.
    Limit(LimitKind),
}

impl Field {
    /// Returns the name of the field in snake case; of a limit, [`LimitKind::name`].
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Args => "args",
            Self::Env => "env",
            Self::Mask => "mask",
            Self::Shell => "shell",
            Self::SessionId => "session_id",
            Self::Session => "session",
            Self::Timeout => "timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::OutputLimit => "output_limit",
            Self::Limits => "limits",
            Self::Name => "name",
            Self::From => "from",
            Self::To => "to",
            Self::ExpiresIn => "expires_in",
            Self::Options => "options",
            Self::Recipe => "recipe",
            Self::Steps => "steps",
            Self::Id => "id",
            Self::DependsOn => "depends_on",
            Self::Stdin => "stdin",
            Self::StdinFrom => "stdin_from",
            Self::Retries => "retries",
            Self::RetryDelay => "retry_delay",
            Self::RetryOn => "retry_on",
            Self::Labels => "labels",
            Self::Parallelism => "parallelism",
            Self::IdempotencyKey => "idempotency_key",
            Self::Cursor => "cursor",
            Self::After => "after",
            Self::Limit(kind) => kind.name(),
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
