//! What is checked of a request for a session, and done on a thread that may wait.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

use crate::session::SessionError;
use crate::text::name_to_show;

/// A name that can be shown; none for an empty one.
pub(crate) fn checked_name(name: Option<String>) -> Result<Option<String>, SessionError> {
    name_to_show(name).map_err(|problem| {
        let problem = problem.to_owned();
        SessionError::Malformed { field: "name", problem }
    })
}

/// Whether these words can be a command.
pub(crate) fn check_words(words: &[OsString]) -> Result<(), SessionError> {
    let problem = if words.first().is_none_or(|word| word.is_empty()) {
        "names no program; leave it out for the shell"
    } else if words.iter().any(|word| word.as_bytes().contains(&0)) {
        "and `args` hold a NUL byte, which no argument can"
    } else {
        return Ok(());
    };
    Err(SessionError::Malformed { field: "command", problem: problem.to_owned() })
}

/// Does what waits for a disk.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and this with it.
            Err(_) => std::future::pending().await,
        },
    }
}
