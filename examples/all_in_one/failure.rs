//! Why the server does not start, or ends badly, and how that is said.

use std::error::Error;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use crate::settings::UsageError;

pub(crate) enum Failure {
    /// Something that was asked for can't be.
    Usage(UsageError),
    /// The host did not let it start.
    Start(Box<dyn Error + Send + Sync>),
    /// Told to end at once, it left commands that even a kill does not end.
    LeftRunning,
}

impl Failure {
    /// The host did not let it start, for this reason.
    pub(crate) fn start(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Start(error.into())
    }

    /// The `setting` can't be as it was asked for.
    pub(crate) fn caused(setting: &str, error: &dyn Error) -> Self {
        Self::Usage(UsageError::caused(setting, error))
    }

    /// Tells of it on standard error; `file` is that of `--config`.
    pub(crate) fn complain(self, file: Option<&Path>) -> ExitCode {
        match self {
            Self::Usage(error) => complain(&error.of_file(file), 2),
            Self::Start(error) => complain(error.as_ref(), 1),
            Self::LeftRunning => ExitCode::FAILURE,
        }
    }
}

impl From<UsageError> for Failure {
    fn from(error: UsageError) -> Self {
        Self::Usage(error)
    }
}

/// The error with its causes, on one line: some causes have several.
fn complain(error: &dyn Error, code: u8) -> ExitCode {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    let _ = writeln!(std::io::stderr(), "error: {}", words.join(" "));
    ExitCode::from(code)
}
