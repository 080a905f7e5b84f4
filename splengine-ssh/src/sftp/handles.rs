//! The files and directories that a client has open.

use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use splengine_core::files::{FileInfo, FileListing, OpenFile};
use tokio::sync::Mutex as AsyncMutex;

use crate::sftp::packet::MAX_HANDLES;
use crate::sftp::status::{Code, Refusal};

/// The open files and directories of one client, by the numbers that it knows them by.
#[derive(Debug, Default)]
pub(crate) struct Handles(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    open: HashMap<u64, Handle>,
}

#[derive(Debug, Clone)]
pub(crate) enum Handle {
    File(OpenFile),
    Directory(Arc<AsyncMutex<Directory>>),
}

/// A directory that is being read. No entry of it is kept: a client may have many open.
#[derive(Debug)]
pub(crate) enum Directory {
    Listing(FileListing),
    /// It is on the way to root and shows only the next directory on that way, until that was told; with what
    /// is told of both.
    Above(FileInfo, Option<OsString>),
}

impl Handles {
    /// Refuses where there is no memory for one more.
    pub(crate) fn check_room(&self) -> Result<(), Refusal> {
        if self.lock().open.len() < MAX_HANDLES {
            return Ok(());
        }
        let message = "you have 1024 files open, as many as one client may; close one first";
        Err(Refusal::new(Code::Failure, message))
    }

    /// Its number. No number is given twice, so that one that was closed stands for nothing.
    pub(crate) fn insert(&self, handle: Handle) -> u64 {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        state.open.insert(number, handle);
        number
    }

    pub(crate) fn remove(&self, handle: &[u8]) -> Result<Handle, Refusal> {
        number(handle).and_then(|number| self.lock().open.remove(&number)).ok_or_else(unknown)
    }

    pub(crate) fn file(&self, handle: &[u8]) -> Result<OpenFile, Refusal> {
        match self.get(handle)? {
            Handle::File(file) => Ok(file),
            Handle::Directory(_) => {
                Err(Refusal::new(Code::Failure, "this handle is of a directory, not of a file"))
            }
        }
    }

    pub(crate) fn directory(&self, handle: &[u8]) -> Result<Arc<AsyncMutex<Directory>>, Refusal> {
        match self.get(handle)? {
            Handle::Directory(directory) => Ok(directory),
            Handle::File(_) => {
                Err(Refusal::new(Code::Failure, "this handle is of a file, not of a directory"))
            }
        }
    }

    pub(crate) fn get(&self, handle: &[u8]) -> Result<Handle, Refusal> {
        let number = number(handle).ok_or_else(unknown)?;
        self.lock().open.get(&number).cloned().ok_or_else(unknown)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn number(handle: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(handle.try_into().ok()?))
}

fn unknown() -> Refusal {
    Refusal::new(Code::Failure, "there is no such handle; it may be closed already")
}
