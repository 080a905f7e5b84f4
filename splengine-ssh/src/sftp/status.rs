//! Refusals on the wire.

use std::borrow::Cow;

use splengine_core::{ErrorKind, FileError};

/// The codes of version 3 that are given here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    Ok = 0,
    Eof = 1,
    NoSuchFile = 2,
    PermissionDenied = 3,
    Failure = 4,
    BadMessage = 5,
    OpUnsupported = 8,
}

/// Why a request was not done, as its client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) message: Cow<'static, str>,
}

impl Refusal {
    pub(crate) fn new(code: Code, message: &'static str) -> Self {
        Self { code, message: Cow::Borrowed(message) }
    }
}

impl From<FileError> for Refusal {
    fn from(error: FileError) -> Self {
        let code = match error {
            // Clients that look into what is no directory are told as OpenSSH tells them.
            FileError::NotDirectory { .. } => Code::NoSuchFile,
            FileError::Outside { .. } => Code::PermissionDenied,
            _ => code(error.kind()),
        };
        Self { code, message: error.to_string().into() }
    }
}

/// The one table from a refusal's kind to its code. The protocol knows few: the rest is in words.
fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::NotFound => Code::NoSuchFile,
        ErrorKind::Forbidden | ErrorKind::Unauthenticated => Code::PermissionDenied,
        _ => Code::Failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_kind_is_told_as_success() {
        for &kind in ErrorKind::ALL {
            assert!(!matches!(code(kind), Code::Ok | Code::Eof | Code::BadMessage), "{kind:?}");
        }
    }
}
