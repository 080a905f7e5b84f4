//! Checks of requests for sessions.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

use crate::error::Field;
use crate::session::SessionError;
use crate::text::name_to_show;

/// A name that can be shown; none for an empty one.
pub(crate) fn checked_name(name: Option<String>) -> Result<Option<String>, SessionError> {
    name_to_show(name).map_err(|problem| {
        let problem = problem.to_owned();
        SessionError::Malformed { field: Field::Name, problem }
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
    Err(SessionError::Malformed { field: Field::Command, problem: problem.to_owned() })
}
