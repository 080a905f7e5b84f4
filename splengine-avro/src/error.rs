//! Errors on the wire.

use std::time::Duration;

use splengine_core::auth::AuthError;
use splengine_core::quota::{LargeWorkError, MemoryError};
use splengine_core::text::camel_case;
use splengine_core::{BatchError, ErrorKind, ExecuteError, Field, FileError, SessionError};

use crate::datum::{Datum as _, Symbols as _, write_sized};
use crate::records::{EngineError, ErrorCode};

/// Why a call failed, as its client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
    is_retryable: bool,
    pub(crate) retry_after: Option<Duration>,
}

impl Failure {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), is_retryable: false, retry_after: None }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, message)
    }

    pub(crate) fn overdue() -> Self {
        Self::new(ErrorCode::DeadlineExceeded, "the call's deadline has passed")
    }

    pub(crate) fn revoked() -> Self {
        Self::new(ErrorCode::Unauthenticated, "the credentials were taken back")
    }

    /// Of an answer for which there is no memory.
    pub(crate) fn of_answer(error: MemoryError, is_done: bool) -> Self {
        if is_done {
            // No code by which clients do it again.
            let message = format!("it was done, but {}: its answer is lost", error.of_answer());
            return Self::new(ErrorCode::Internal, message);
        }
        let message = format!("{}; {}", error.of_answer(), error.advice_on_answer());
        Self::of_kind(error.kind(), message, Some(error.retry_after()))
    }

    pub(crate) fn of_kind(kind: ErrorKind, message: String, retry_after: Option<Duration>) -> Self {
        let code = code(kind);
        let message = match kind {
            // Whatever went wrong inside is for the log, not for the caller.
            ErrorKind::Internal => "the engine failed to do it".to_owned(),
            ErrorKind::Unavailable if retry_after.is_none() => {
                "the service can't answer at the moment".to_owned()
            }
            _ => message,
        };
        let is_retryable = matches!(kind, ErrorKind::Unavailable | ErrorKind::CallerLimit);
        Self { code, message, is_retryable, retry_after }
    }

    /// As one that the message declares.
    pub(crate) fn write_declared(&self, to: &mut Vec<u8>) {
        let retry = self
            .retry_after
            .map(|after| ("retryAfterMs".to_owned(), after.as_millis().to_string()));
        to.push(2);
        let (message, retryable) = (self.message.clone(), self.is_retryable);
        EngineError { code: self.code, message, retryable, details: retry.into_iter().collect() }
            .write(to);
    }

    /// As the string that every message may fail with.
    pub(crate) fn write_system(&self, to: &mut Vec<u8>) {
        to.push(0);
        write_sized(format!("{}: {}", self.code.symbol(), self.message).as_bytes(), to);
    }
}

/// The one table from a refusal's kind to its code.
fn code(kind: ErrorKind) -> ErrorCode {
    match kind {
        ErrorKind::Malformed | ErrorKind::Impossible => ErrorCode::InvalidRequest,
        ErrorKind::Unauthenticated => ErrorCode::Unauthenticated,
        ErrorKind::Forbidden => ErrorCode::PermissionDenied,
        ErrorKind::NotFound => ErrorCode::NotFound,
        ErrorKind::Conflict => ErrorCode::Conflict,
        ErrorKind::NoRoom | ErrorKind::CallerLimit => ErrorCode::ResourceExhausted,
        ErrorKind::Unavailable => ErrorCode::Unavailable,
        _ => ErrorCode::Internal,
    }
}

/// The name of a field as the protocol has it.
fn member_name(field: Field) -> String {
    camel_case(field.name())
}

impl From<ExecuteError> for Failure {
    fn from(error: ExecuteError) -> Self {
        let mut failure =
            Self::of_kind(error.kind(), error.message(member_name), error.retry_after());
        match error {
            ExecuteError::ProgramNotFound(_) => failure.code = ErrorCode::UnknownCommand,
            ExecuteError::NoSession(_) => failure.code = ErrorCode::SessionNotFound,
            _ => {}
        }
        failure
    }
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Start(error) => error.into(),
            error => {
                let mut failure =
                    Self::of_kind(error.kind(), error.message(member_name), error.retry_after());
                if matches!(error, SessionError::NoSession(_)) {
                    failure.code = ErrorCode::SessionNotFound;
                }
                failure
            }
        }
    }
}

impl From<BatchError> for Failure {
    fn from(error: BatchError) -> Self {
        let mut failure =
            Self::of_kind(error.kind(), error.message(member_name), error.retry_after());
        match error {
            BatchError::Session(error) => return Self::from(*error),
            BatchError::Command { source, .. } => failure.code = Self::from(*source).code,
            _ => {}
        }
        failure
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::of_kind(error.kind(), error.to_string(), error.retry_after())
    }
}

impl From<AuthError> for Failure {
    fn from(error: AuthError) -> Self {
        Self::of_kind(error.kind(), error.to_string(), error.retry_after())
    }
}

impl From<MemoryError> for Failure {
    fn from(error: MemoryError) -> Self {
        Self::of_kind(error.kind(), error.to_string(), Some(error.retry_after()))
    }
}

impl From<LargeWorkError> for Failure {
    fn from(error: LargeWorkError) -> Self {
        Self::of_kind(error.kind(), error.to_string(), Some(error.retry_after()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_code() {
        for &kind in ErrorKind::ALL {
            assert_eq!(code(kind) == ErrorCode::Internal, kind == ErrorKind::Internal, "{kind:?}");
        }
    }

    #[test]
    fn the_inside_stays_inside() {
        let failure = Failure::from(ExecuteError::internal("secret path /x"));
        assert_eq!(failure.message, "the engine failed to do it");
    }
}
