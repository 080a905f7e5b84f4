//! Room on the disk that is kept for a store.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FallocateFlags, fallocate};

use crate::store::StoreFault;

/// A file that takes room on the disk until the store needs it.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    bytes: u64,
    is_there: Mutex<bool>,
}

impl Reserve {
    /// A reserve that is not there yet, but may have been left by the process before.
    pub(crate) fn new(path: PathBuf, bytes: u64) -> Self {
        let is_there = path.metadata().is_ok_and(|found| found.len() > 0);
        Self { path, bytes, is_there: Mutex::new(is_there) }
    }

    /// Gives its room back to the disk; `false` when it was not there.
    pub(crate) fn release(&self) -> bool {
        let mut is_there = self.is_there.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::take(&mut *is_there) {
            return false;
        }
        tracing::warn!(
            reserve = %self.path.display(), bytes = self.bytes,
            "the disk is full: the store goes on with its reserve, and no batch is accepted"
        );
        std::fs::remove_file(&self.path).is_ok()
    }

    /// Takes the room again, if it is not taken.
    ///
    /// # Errors
    ///
    /// [`StoreFault::Full`] when the disk has none.
    pub(crate) fn restore(&self) -> Result<(), StoreFault> {
        let mut is_there = self.is_there.lock().unwrap_or_else(PoisonError::into_inner);
        if *is_there || self.bytes == 0 {
            return Ok(());
        }
        let made = self.make();
        if made.is_err() {
            let _ = std::fs::remove_file(&self.path);
        }
        made?;
        *is_there = true;
        Ok(())
    }

    fn make(&self) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(&self.path)?;
        match fallocate(&file, FallocateFlags::empty(), 0, self.bytes) {
            Err(rustix::io::Errno::OPNOTSUPP) => fill(&file, self.bytes),
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
