use std::io;
use std::time::Duration;

use crate::error::{ErrorKind, Field};
use crate::execute::SplitError;
use crate::quota::{InputShortage, LargeWorkError};

/// Reason for which a run did not start.
///
/// ```
/// use splengine_core::{Caller, Engine, ErrorKind, ExecuteError, LocalExecutor, Request};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
/// # let alice = Caller::new("alice")?.with_all_scopes();
/// let refused = engine.execute(&alice, Request::new("no-such-program")).await;
/// let error = refused.expect_err("there is no such program");
/// assert!(matches!(&error, ExecuteError::ProgramNotFound(name) if name == "no-such-program"));
/// assert_eq!(error.kind(), ErrorKind::Impossible);
/// assert_eq!(error.retry_after(), None);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecuteError {
    /// The command can't be split into words.
    #[error("`command` can't be split into words: {0}")]
    Split(#[from] SplitError),
    /// Another member of the request has a value that is never right.
    #[error("`{field}` {problem}")]
    Malformed {
        /// The member's name.
        field: Field,
        /// Description of what is wrong with the field, and what would be right.
        problem: String,
    },
    /// The caller lacks the right.
    #[error("`{user}` lacks the scope `{scope}`")]
    Forbidden {
        /// User who lacks the right.
        user: String,
        /// The right that it takes.
        scope: &'static str,
    },
    /// There is no such session, or it is another caller's.
    #[error("there is no session `{0}`")]
    NoSession(String),
    /// No such execution runs or waits, or it is another caller's.
    #[error("there is no execution `{0}` that runs or waits")]
    NoExecution(String),
    /// There is no such program.
    #[error("program `{0}` was not found")]
    ProgramNotFound(String),
    /// There is such a file, but it can't be run.
    #[error("program `{program}` can't be run: {problem}")]
    ProgramUnusable {
        /// Name of the program, as the caller gave it.
        program: String,
        /// Reason for which the program can't be started.
        problem: &'static str,
    },
    /// The working directory is missing, no directory, or outside root.
    #[error("workdir `{workdir}` {problem}")]
    Workdir {
        /// Path of the directory, as the caller gave it.
        workdir: String,
        /// Description of what is wrong with the directory.
        problem: &'static str,
    },
    /// A value over a maximum, or a limit that can't be enforced here. Refused, not clamped.
    #[error("`{field}` {problem}")]
    Impossible {
        /// The member's name.
        field: Field,
        /// Description of what is wrong with the field, and what would be right.
        problem: String,
    },
    /// The caller runs or waits for as much as one caller may.
    #[error("you have reached your limit of {limit} waiting executions; try again in {}", in_words(*.retry_after))]
    CallerLimit {
        /// Maximum number of the caller's commands that wait.
        limit: usize,
        /// Time after which to try again.
        retry_after: Duration,
    },
    /// The engine runs and queues as much as it can.
    #[error("the engine is full: {waiting} executions wait already; try again in {}", in_words(*.retry_after))]
    Full {
        /// Number of commands that wait.
        waiting: usize,
        /// Time after which to try again.
        retry_after: Duration,
    },
    /// Input of the caller's executions that run or wait takes as much memory as one caller's may.
    #[error("the input of your executions that run or wait would take more than {max_bytes} bytes of memory, as much as one caller's may; try again in {}", in_words(*.retry_after))]
    CallerInput {
        /// Maximum number of bytes that this caller's input may take.
        max_bytes: usize,
        /// Time after which to try again.
        retry_after: Duration,
    },
    /// Input of the executions that run or wait takes as much memory as that of all may.
    #[error("the input of all executions that run or wait would take more than {max_bytes} bytes of memory, as much as it may; try again in {}", in_words(*.retry_after))]
    InputFull {
        /// Maximum number of bytes that the input of all callers may take.
        max_bytes: usize,
        /// Time after which to try again.
        retry_after: Duration,
    },
    /// The request is large, and did not get its turn to be checked in time.
    #[error(transparent)]
    Busy(#[from] LargeWorkError),
    /// The engine takes no new work.
    #[error("the engine is shutting down and takes no new work; try again in {}", in_words(*.retry_after))]
    Draining {
        /// Time after which to try again.
        retry_after: Duration,
    },
    /// The host lacks a resource (processes, memory, file descriptors).
    #[error("the host is out of resources at the moment; try again in {}", in_words(*.retry_after))]
    Exhausted {
        /// Time after which to try again.
        retry_after: Duration,
        /// Error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The maximum number of runs, of this caller or of all, have left background processes that still
    /// print.
    #[error("{limit} executions {} with `background: keep` have left processes that still have their output open, as many as may; end some, or have them print to a file, and try again in {}", if *.of_caller { "of yours" } else { "of all callers" }, in_words(*.retry_after))]
    TooManyKept {
        /// Maximum number of such runs.
        limit: usize,
        /// `true` if the limit is that of this caller's share.
        of_caller: bool,
        /// Time after which to try again.
        retry_after: Duration,
    },
    /// Failure inside the engine or the executor, which no request should cause. The source is for the
    /// log.
    #[error("the engine failed to run the command")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl ExecuteError {
    /// Returns the message with the names of fields as `name` spells them: for adapters whose protocol
    /// has another spelling than Rust's.
    #[must_use]
    pub fn message(&self, name: impl Fn(Field) -> String) -> String {
        match self {
            Self::Malformed { field, problem } | Self::Impossible { field, problem } => {
                format!("`{}` {problem}", name(*field))
            }
            other => other.to_string(),
        }
    }

    /// A failure of the executor's own. `source` goes to the log, never to the caller.
    pub fn internal(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal(source.into())
    }

    /// Returns the exit code by which shells report a program that they can't run: 127 where there is
    /// none, 126 where it can't be run; `None` for other errors.
    #[must_use]
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::ProgramNotFound(_) => Some(127),
            Self::ProgramUnusable { .. } => Some(126),
            _ => None,
        }
    }

    /// Returns the error's kind, which adapters map to a status.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Split(_) | Self::Malformed { .. } => ErrorKind::Malformed,
            Self::Forbidden { .. } => ErrorKind::Forbidden,
            Self::NoSession(_) | Self::NoExecution(_) => ErrorKind::NotFound,
            Self::ProgramNotFound(_)
            | Self::ProgramUnusable { .. }
            | Self::Workdir { .. }
            | Self::Impossible { .. } => ErrorKind::Impossible,
            Self::CallerLimit { .. }
            | Self::CallerInput { .. }
            | Self::TooManyKept { of_caller: true, .. } => ErrorKind::CallerLimit,
            Self::Full { .. }
            | Self::InputFull { .. }
            | Self::Draining { .. }
            | Self::Exhausted { .. }
            | Self::TooManyKept { .. } => ErrorKind::Unavailable,
            Self::Busy(error) => error.kind(),
            Self::Internal(_) => ErrorKind::Internal,
        }
    }

    /// Whether something that runs before could make what is missing: a program, or a directory
    /// below root.
    pub(crate) fn can_be_mended(&self) -> bool {
        match self {
            Self::ProgramNotFound(_) | Self::ProgramUnusable { .. } => true,
            Self::Workdir { problem, .. } => {
                ![OUTSIDE_ROOT, NOT_A_PATH, PARENT_DIR].contains(problem)
            }
            _ => false,
        }
    }

    /// Whether the host lacks something at the moment that others will give back.
    pub(crate) fn is_shortage(&self) -> bool {
        // Where none may be kept at all, none is given back.
        matches!(self, Self::Exhausted { .. } | Self::TooManyKept { limit: 1.., .. })
    }

    /// Returns the time after which to try again, if that can help.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::CallerLimit { retry_after, .. }
            | Self::Full { retry_after, .. }
            | Self::CallerInput { retry_after, .. }
            | Self::InputFull { retry_after, .. }
            | Self::Draining { retry_after }
            | Self::Exhausted { retry_after, .. }
            | Self::TooManyKept { retry_after, .. } => Some(*retry_after),
            Self::Busy(error) => Some(error.retry_after()),
            _ => None,
        }
    }
}

impl From<InputShortage> for ExecuteError {
    fn from(shortage: InputShortage) -> Self {
        let retry_after = Duration::from_secs(1);
        match shortage {
            InputShortage::Caller { max_bytes } => Self::CallerInput { max_bytes, retry_after },
            InputShortage::All { max_bytes } => Self::InputFull { max_bytes, retry_after },
        }
    }
}

/// What is wrong with a working directory that can never be.
pub(crate) const OUTSIDE_ROOT: &str = "is outside root";
pub(crate) const NOT_A_PATH: &str = "is not a path";
pub(crate) const PARENT_DIR: &str = "has a `..`, which is not resolved here";

fn in_words(time: Duration) -> String {
    match time.as_secs().max(1) {
        1 => "a second".to_owned(),
        seconds => format!("{seconds} seconds"),
    }
}
