//! How many files are open, or directories watched.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::caller::UserName;
use crate::files::FileError;

/// Counts what is open, of each caller and of all.
#[derive(Debug)]
pub(crate) struct OpenCount {
    /// What it counts, for a complaint.
    what: &'static str,
    most: usize,
    most_per_caller: usize,
    open: Mutex<HashMap<UserName, usize>>,
}

/// The right to have one open, until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenPermit {
    count: Arc<OpenCount>,
    user: UserName,
}

impl OpenCount {
    pub(crate) fn new(what: &'static str, most: usize, most_per_caller: usize) -> Arc<Self> {
        Arc::new(Self { what, most, most_per_caller, open: Mutex::default() })
    }

    pub(crate) fn permit(self: &Arc<Self>, user: &UserName) -> Result<OpenPermit, FileError> {
        let mut open = self.lock();
        if open.get(user).is_some_and(|count| *count >= self.most_per_caller) {
            return Err(FileError::CallerLimit { what: self.what, limit: self.most_per_caller });
        }
        if open.values().sum::<usize>() >= self.most {
            return Err(FileError::Full { what: self.what, limit: self.most });
        }
        *open.entry(user.clone()).or_default() += 1;
        Ok(OpenPermit { count: Arc::clone(self), user: user.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UserName, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenPermit {
    fn drop(&mut self) {
        let mut open = self.count.lock();
        if let Some(count) = open.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.user);
            }
        }
    }
}
