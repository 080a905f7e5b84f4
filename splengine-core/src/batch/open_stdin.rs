//! Standard inputs that are written while a program reads them.

use std::sync::Arc;

use tokio::io::{DuplexStream, duplex};
use tokio::sync::Mutex;

use crate::execute::Stdin;

/// The standard input of a step that runs, from outside; nothing once it was ended.
pub(crate) type OpenStdin = Arc<Mutex<Option<DuplexStream>>>;

/// A standard input that is written while a program reads it.
pub(crate) fn open_stdin() -> (OpenStdin, Stdin) {
    let (ours, theirs) = duplex(BUFFER);
    (Arc::new(Mutex::new(Some(ours))), Stdin::reader(theirs))
}

/// Written ahead of the program that reads it.
const BUFFER: usize = 64 << 10;
