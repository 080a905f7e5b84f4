//! Locks on files that a killed process may hold a moment longer than it lives.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

/// An exclusive lock on a file, which names the process that holds it. Given back when dropped.
#[derive(Debug)]
pub(crate) struct FileLock {
    _file: File,
}

/// Why a [`FileLock`] can't be taken.
#[derive(Debug)]
pub(crate) enum LockError {
    /// Another process has it, or this one has it already.
    Held {
        /// The holder, if it has written down its number.
        pid: Option<u32>,
    },
    Io(io::Error),
}

impl FileLock {
    /// Locks `file`, which is open for reading and writing, and writes this process's number into
    /// it. Blocks for up to 2 seconds while another process has it.
    pub(crate) fn acquire(file: File) -> Result<Self, LockError> {
        let locked = once_free(
            || flock(&file, FlockOperation::NonBlockingLockExclusive),
            |error| *error == rustix::io::Errno::WOULDBLOCK,
        );
        match locked {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(LockError::Held { pid: pid(&file) }),
            Err(error) => return Err(LockError::Io(error.into())),
        }
        // It names the holder in a complaint, no more: where the disk is full, nothing does.
        let written = file
            .set_len(0)
            .and_then(|()| file.write_all_at(format!("{}\n", std::process::id()).as_bytes(), 0));
        if let Err(error) = written {
            tracing::debug!(%error, "the holder of a lock can't be written down");
        }
        Ok(Self { _file: file })
    }
}

fn pid(file: &File) -> Option<u32> {
    let mut text = [0; 16];
    let length = file.read_at(&mut text, 0).ok()?;
    std::str::from_utf8(&text[..length]).ok()?.trim().parse().ok()
}

/// Who holds a lock, for a complaint.
pub(crate) fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("the process with pid {pid}"))
}

/// Tries again for a while what fails since another process has it. A process that was killed while
/// it started a program leaves a copy of its open files to that program, until that is loaded: the
/// next engine must neither take that for another engine, nor look for what is left running before
/// it is over. Blocks.
pub(crate) fn once_free<T, E>(
    mut take: impl FnMut() -> Result<T, E>,
    is_held: impl Fn(&E) -> bool,
) -> Result<T, E> {
    for _ in 0..TRIES {
        match take() {
            Err(error) if is_held(&error) => std::thread::sleep(RETRY_INTERVAL),
            taken => return taken,
        }
    }
    take()
}

const TRIES: u32 = 200;
const RETRY_INTERVAL: Duration = Duration::from_millis(10);
