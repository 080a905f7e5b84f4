//! The names of files in the making.

use std::ffi::{OsStr, OsString};

use crate::ids::{is_random_text, random_text};

/// A name that nothing has.
pub(super) fn temporary_name() -> OsString {
    format!("{TEMPORARY}{}", random_text()).into()
}

/// Whether it is the name of a file in the making.
pub(super) fn is_temporary(name: &OsStr) -> bool {
    let text = name.to_str().and_then(|name| name.strip_prefix(TEMPORARY));
    text.is_some_and(is_random_text)
}

const TEMPORARY: &str = ".splengine-";
