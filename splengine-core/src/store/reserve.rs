//! Room on the disk that is kept for a store.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::store::StoreFault;

/// A file that takes room on the disk until the store needs it. The room is given back in parts, so
/// that others who fill the disk at the same time do not get all of it at once.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    bytes: u64,
    /// How much of it is there.
    left: Mutex<u64>,
}

impl Reserve {
    /// A reserve that is not there yet, but may have been left by the process before.
    pub(crate) fn new(path: PathBuf, bytes: u64) -> Self {
        let left = path.metadata().map_or(0, |found| found.len());
        Self { path, bytes, left: Mutex::new(left) }
    }

    /// Gives a part of its room back to the disk; `false` when there was none left.
    pub(crate) fn release(&self) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if *left == 0 {
            return false;
        }
        *left = left.saturating_sub((self.bytes / PARTS).max(MIN_PART_BYTES));
        tracing::warn!(
            reserve = %self.path.display(), left = *left,
            "the disk is full: the store goes on with its reserve, and no batch is accepted"
        );
        let shrunk = match *left {
            0 => std::fs::remove_file(&self.path),
            left => {
                OpenOptions::new().write(true).open(&self.path).and_then(|file| file.set_len(left))
            }
        };
        if shrunk.is_err() {
            *left = 0;
        }
        shrunk.is_ok()
    }

    /// How much of it is not there.
    pub(crate) fn released_bytes(&self) -> u64 {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        self.bytes.saturating_sub(*left)
    }

    /// Takes the room again, if it is not taken.
    ///
    /// # Errors
    ///
    /// [`StoreFault::Full`] when the disk has none.
    pub(crate) fn restore(&self) -> Result<(), StoreFault> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if *left >= self.bytes {
            return Ok(());
        }
        match self.make() {
            Ok(()) => {
                *left = self.bytes;
                Ok(())
            }
            Err(error) => {
                // What was there before is there still.
                let _ = OpenOptions::new()
                    .write(true)
                    .open(&self.path)
                    .and_then(|file| file.set_len(*left));
                Err(error.into())
            }
        }
    }

    fn make(&self) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&self.path)?;
        match fallocate(&file, FallocateFlags::empty(), 0, self.bytes) {
            // ZFS on FreeBSD says that it is invalid.
            Err(Errno::OPNOTSUPP | Errno::INVAL) => fill(&file, self.bytes),
            made => Ok(made?),
        }
    }
}

/// On file systems that promise no room: what is written has it.
fn fill(mut file: &File, mut bytes: u64) -> io::Result<()> {
    let zeros = [0; 64 * 1024];
    while bytes > 0 {
        let length = usize::try_from(bytes).unwrap_or(usize::MAX).min(zeros.len());
        file.write_all(&zeros[..length])?;
        bytes -= length as u64;
    }
    file.sync_all()
}

const PARTS: u64 = 8;
const MIN_PART_BYTES: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_given_back_in_parts_and_taken_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("reserve");
        let bytes = 1 << 20;
        let reserve = Reserve::new(path.clone(), bytes);
        assert!(!reserve.release(), "there is none yet");
        reserve.restore().expect("there is room");
        let size = || path.metadata().map_or(0, |file| file.len());
        assert_eq!((size(), reserve.released_bytes()), (bytes, 0));
        let mut given_back = 0;
        while reserve.release() {
            given_back += 1;
            assert_eq!(size(), bytes - given_back * (bytes / PARTS));
            assert_eq!(reserve.released_bytes(), given_back * (bytes / PARTS));
        }
        assert_eq!(given_back, PARTS);
        // What the process before has left is known.
        reserve.restore().expect("there is room");
        let next = Reserve::new(path.clone(), bytes);
        assert!(next.release());
        assert_eq!(size(), bytes - bytes / PARTS);
    }
}
