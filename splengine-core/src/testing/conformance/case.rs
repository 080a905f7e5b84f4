use std::ffi::OsString;

use bytes::Bytes;

/// Failure of an executor to do what the engine relies on.
///
/// Its text names the command by which it was found, what happened, and what should have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{command}` {problem}")]
#[non_exhaustive]
pub struct Violation {
    /// Words of the command by which it was found.
    pub command: String,
    /// Description of what happened, and of what should have.
    pub problem: String,
}

/// A command that the executor knows, by what it does.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) argv: Vec<OsString>,
    pub(super) does: Does,
}

#[derive(Debug)]
pub(super) enum Does {
    Prints(Bytes),
    Exits(i32),
    Reads { stdin: Bytes, stdout: Bytes },
    Floods,
    Sleeps,
    IsRefused,
}

impl Case {
    pub(super) fn violation(&self, problem: impl Into<String>) -> Violation {
        let words: Vec<_> = self.argv.iter().map(|word| word.to_string_lossy()).collect();
        Violation { command: words.join(" "), problem: problem.into() }
    }
}
