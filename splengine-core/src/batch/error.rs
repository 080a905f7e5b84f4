use std::sync::Arc;
use std::time::Duration;

use crate::error::{ErrorKind, Field};
use crate::execute::ExecuteError;
use crate::quota::InputShortage;
use crate::quota::MemoryError;
use crate::session::SessionError;
use crate::store::StoreFault;

/// Failure of an operation on a batch. Nothing of the operation was done, unless the method says
/// otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// Invalid step of the batch.
    #[error("step `{step}`: `{field}` {problem}")]
    Step {
        /// Id of the step.
        step: String,
        /// The member's name.
        field: Field,
        /// Description of what is wrong with the step, and what would be right.
        problem: String,
    },
    /// The command of one of its steps can't be run.
    #[error("step `{step}`: {source}")]
    Command {
        /// Id of the step.
        step: String,
        /// Reason for which the command is refused.
        source: Box<ExecuteError>,
    },
    /// The batch as a whole is invalid.
    #[error("`{field}` {problem}")]
    Malformed {
        /// The member's name.
        field: Field,
        /// Description of what is wrong with the field, and what would be right.
        problem: String,
    },
    /// The session that it is to belong to is none of the caller's that runs.
    #[error(transparent)]
    Session(#[from] Box<SessionError>),
    /// An `Idempotency-Key` came a second time, with another request.
    #[error("this idempotency key came with another request before; a new request needs a new key")]
    KeyReused,
    /// There is no such batch, or it is not the caller's.
    #[error("there is no batch `{0}`")]
    NoBatch(String),
    /// There is no such step.
    #[error("the batch has no step `{0}`")]
    NoStep(String),
    /// The step has no run of this number.
    #[error("step `{step}` has no attempt {attempt}; the last is {last}")]
    NoAttempt {
        /// Id of the step.
        step: String,
        /// The number that was asked for.
        attempt: u32,
        /// The number of its last run, or 1 before the first.
        last: u32,
    },
    /// The caller lacks the right.
    #[error("{0}")]
    Forbidden(&'static str),
    /// The batch or the step is in no state for this.
    #[error("{0}")]
    Conflict(&'static str),
    /// The caller has as many steps that are not over as one caller may have.
    #[error("you have reached your limit of {limit} steps that are not over; try again later")]
    CallerLimit {
        /// Maximum number of one caller's steps that are not over.
        limit: usize,
    },
    /// The engine has as many steps that are not over as it may have.
    #[error("{limit} steps are not over, as many as this engine keeps; try again later")]
    Full {
        /// Maximum number of steps that are not over, of all callers.
        limit: usize,
    },
    /// The caller's batches that are not over hold as much memory as one caller's may.
    #[error(
        "the steps of your batches that are not over would take more than {max_bytes} bytes of memory, as \
         much as one caller's may; try again later"
    )]
    CallerInput {
        /// Maximum number of bytes that the steps of one caller may take.
        max_bytes: usize,
    },
    /// The batches that are not over hold as much memory as all may.
    #[error(
        "the steps of all batches that are not over would take more than {max_bytes} bytes of memory, as \
         much as they may; try again later"
    )]
    InputFull {
        /// Maximum number of bytes that the steps of all callers may take.
        max_bytes: usize,
    },
    /// No memory was free in time to read the batch, of what its caller or all callers may have.
    #[error("records of batches that are read {} take all of the memory there is for them; try again in a second", match .0 {
        MemoryError::CallerLimit => "for you",
        MemoryError::Unavailable => "for others",
    })]
    ReadLimit(MemoryError),
    /// The engine takes no new work.
    #[error("the engine is shutting down and takes no new work; try again in a second")]
    Draining,
    /// The engine keeps no batches.
    #[error("this engine keeps no batches")]
    NoStore,
    /// The disk is full.
    #[error("there is no room left on the disk")]
    DiskFull,
    /// The data on disk is not what was written.
    #[error("what is kept of this batch is damaged")]
    Damaged,
    /// Failure inside the engine, which no request should cause. The source is for the log.
    #[error("the engine failed to do it")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl BatchError {
    /// Returns the message with the names of fields as `name` spells them: for adapters whose protocol
    /// has another spelling than Rust's.
    #[must_use]
    pub fn message(&self, name: impl Fn(Field) -> String) -> String {
        match self {
            Self::Step { step, field, problem } => {
                format!("step `{step}`: `{}` {problem}", name(*field))
            }
            Self::Command { step, source } => format!("step `{step}`: {}", source.message(name)),
            Self::Malformed { field, problem } => format!("`{}` {problem}", name(*field)),
            Self::Session(error) => error.message(name),
            other => other.to_string(),
        }
    }

    /// Returns the error's kind, which adapters map to a status.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Step { .. } | Self::KeyReused => ErrorKind::Impossible,
            Self::Command { source, .. } => source.kind(),
            Self::Malformed { .. } => ErrorKind::Malformed,
            Self::Session(error) => error.kind(),
            Self::NoBatch(_) | Self::NoStep(_) | Self::NoAttempt { .. } | Self::NoStore => {
                ErrorKind::NotFound
            }
            Self::Forbidden(_) => ErrorKind::Forbidden,
            Self::Conflict(_) => ErrorKind::Conflict,
            Self::CallerLimit { .. } | Self::CallerInput { .. } => ErrorKind::CallerLimit,
            Self::ReadLimit(error) => error.kind(),
            Self::Full { .. } | Self::InputFull { .. } | Self::Draining => ErrorKind::Unavailable,
            Self::DiskFull => ErrorKind::NoRoom,
            Self::Damaged | Self::Internal(_) => ErrorKind::Internal,
        }
    }

    /// Returns the time after which to try again, if that can help.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Command { source, .. } => source.retry_after(),
            Self::CallerLimit { .. }
            | Self::Full { .. }
            | Self::CallerInput { .. }
            | Self::InputFull { .. } => Some(Duration::from_secs(5)),
            Self::Draining | Self::ReadLimit(_) => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}

impl From<InputShortage> for BatchError {
    fn from(shortage: InputShortage) -> Self {
        match shortage {
            InputShortage::Caller { max_bytes } => Self::CallerInput { max_bytes },
            InputShortage::All { max_bytes } => Self::InputFull { max_bytes },
        }
    }
}

impl From<StoreFault> for BatchError {
    fn from(fault: StoreFault) -> Self {
        Arc::new(fault).into()
    }
}

impl From<Arc<StoreFault>> for BatchError {
    fn from(fault: Arc<StoreFault>) -> Self {
        match &*fault {
            StoreFault::Full => Self::DiskFull,
            _ => {
                let error: &dyn std::error::Error = &*fault;
                tracing::error!(error, "the store of batches failed");
                Self::Internal(Box::new(fault))
            }
        }
    }
}
