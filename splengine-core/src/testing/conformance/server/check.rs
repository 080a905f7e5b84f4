use std::fmt;

/// Check of a server that a [`ServerSuite`](crate::testing::conformance::ServerSuite) makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServerCheck {
    /// A program's exit code is told.
    ExitCode,
    /// A program that a signal killed ends with 128 and the signal's number.
    Signal,
    /// Standard output and standard error arrive apart, whole, and byte for byte.
    Streams,
    /// Standard input arrives byte for byte, with its end.
    Stdin,
    /// Arguments arrive word for word, whatever characters they have.
    Arguments,
    /// A command runs on behalf of the user whose credentials were shown.
    Identity,
    /// A command of one client does not hold up that of another.
    Concurrency,
    /// A command over its time limit is ended, and its end is told.
    TimeLimit,
    /// A client that leaves ends its command and all that the command has started.
    ClientLeaves,
    /// Requests without valid credentials are refused as
    /// [`Unauthenticated`](crate::ErrorKind::Unauthenticated), and have no effect.
    Unauthenticated,
    /// Requests of a caller without the right are refused as [`Forbidden`](crate::ErrorKind::Forbidden), and
    /// have no effect.
    MissingScope,
    /// A program that there is not is refused as [`Impossible`](crate::ErrorKind::Impossible).
    UnknownProgram,
    /// A command for which a full engine has no place is refused as
    /// [`Unavailable`](crate::ErrorKind::Unavailable).
    EngineFull,
    /// A command beyond its caller's share is refused as [`CallerLimit`](crate::ErrorKind::CallerLimit).
    CallerLimit,
    /// A failure inside is told as [`Internal`](crate::ErrorKind::Internal), without its cause.
    Internal,
    /// New work is refused as [`Unavailable`](crate::ErrorKind::Unavailable) while the engine is drained,
    /// what runs is told to its end, and then the server ends.
    Drain,
    /// A command that a drain ends is told as cancelled.
    Cancelled,
    /// Silent connections are closed in time, and keep no other client out.
    Connections,
    /// Input of a terminal reaches its shell, whose output and end are told.
    Terminal,
    /// A file is read as it was written, below root alone; one that there is not is refused as
    /// [`NotFound`](crate::ErrorKind::NotFound).
    Files,
    /// The steps of a batch run in their order, and its result is told.
    Batch,
}

impl ServerCheck {
    /// Every check, in the order in which they are made.
    pub const ALL: &[Self] = &[
        Self::ExitCode,
        Self::Signal,
        Self::Streams,
        Self::Stdin,
        Self::Arguments,
        Self::Identity,
        Self::Concurrency,
        Self::TimeLimit,
        Self::ClientLeaves,
        Self::Unauthenticated,
        Self::MissingScope,
        Self::UnknownProgram,
        Self::EngineFull,
        Self::CallerLimit,
        Self::Internal,
        Self::Drain,
        Self::Cancelled,
        Self::Connections,
        Self::Terminal,
        Self::Files,
        Self::Batch,
    ];

    /// Returns the name of the check, as failures show it: lower case, words parted by `_`.
    ///
    /// ```
    /// use splengine_core::testing::conformance::ServerCheck;
    ///
    /// assert_eq!(ServerCheck::ClientLeaves.name(), "client_leaves");
    /// ```
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ExitCode => "exit_code",
            Self::Signal => "signal",
            Self::Streams => "streams",
            Self::Stdin => "stdin",
            Self::Arguments => "arguments",
            Self::Identity => "identity",
            Self::Concurrency => "concurrency",
            Self::TimeLimit => "time_limit",
            Self::ClientLeaves => "client_leaves",
            Self::Unauthenticated => "unauthenticated",
            Self::MissingScope => "missing_scope",
            Self::UnknownProgram => "unknown_program",
            Self::EngineFull => "engine_full",
            Self::CallerLimit => "caller_limit",
            Self::Internal => "internal",
            Self::Drain => "drain",
            Self::Cancelled => "cancelled",
            Self::Connections => "connections",
            Self::Terminal => "terminal",
            Self::Files => "files",
            Self::Batch => "batch",
        }
    }
}

impl fmt::Display for ServerCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Failure of a server in a [`ServerCheck`].
///
/// Its text names the check, what happened, and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{check}: {problem}")]
#[non_exhaustive]
pub struct ServerViolation {
    /// Check that found the violation.
    pub check: ServerCheck,
    /// Description of what happened, and of what was expected.
    pub problem: String,
}

/// Checks that a server has passed, and those that were not made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerReport {
    /// Checks that it passed.
    pub passed: Vec<ServerCheck>,
    /// Checks that were left out, or that its client does not support.
    pub skipped: Vec<ServerCheck>,
}

/// Reason for which a check is not passed.
#[derive(Debug)]
pub(super) enum Fail {
    Unsupported,
    Violation(String),
}

impl Fail {
    pub(super) fn violation<T>(problem: impl Into<String>) -> Result<T, Self> {
        Err(Self::Violation(problem.into()))
    }
}
