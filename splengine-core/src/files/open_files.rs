//! Bounds on open files, watched directories and path walks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::files::FileError;
use crate::quota::{CallerPlace, CallerPlaces, PlaceError};
use crate::user_name::UserName;

/// Counts what is open of one kind, of each caller and of all.
#[derive(Debug)]
pub(crate) struct OpenCount {
    /// What it counts, for a complaint.
    what: &'static str,
    places: CallerPlaces,
}

/// The right to have one open, until it is dropped.
pub(crate) type OpenPermit = CallerPlace;

impl OpenCount {
    pub(crate) fn new(what: &'static str, most: usize, most_per_caller: usize) -> Self {
        Self { what, places: CallerPlaces::bounded(most, most_per_caller) }
    }

    pub(crate) fn permit(&self, user: &UserName) -> Result<OpenPermit, FileError> {
        let what = self.what;
        self.places.take(user).map_err(|error| match error {
            PlaceError::OfCaller { limit } | PlaceError::OfGuests { limit } => {
                FileError::CallerLimit { what, limit }
            }
            PlaceError::OfAll { limit } => FileError::Full { what, limit },
        })
    }
}

/// Bounds how many paths are walked at once, each with a descriptor for every directory on it: first
/// for each caller, and of all. Further ones wait, of each caller no more than [`MAX_WALKS`] / 2
/// before those of another.
#[derive(Debug)]
pub(crate) struct Walks {
    all: Arc<Semaphore>,
    callers: Mutex<HashMap<UserName, Arc<Semaphore>>>,
}

/// The right to walk one path, until it is dropped.
#[derive(Debug)]
pub(crate) struct WalkPermit {
    walks: Arc<Walks>,
    user: UserName,
    permits: Option<[OwnedSemaphorePermit; 2]>,
}

impl Walks {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { all: Arc::new(Semaphore::new(MAX_WALKS)), callers: Mutex::default() })
    }

    /// Waits for the right. When the future is dropped, the place in the line is given up.
    pub(crate) async fn enter(self: Arc<Self>, user: &UserName) -> WalkPermit {
        let of_caller = {
            let mut callers = self.lock();
            let own = || Arc::new(Semaphore::new(MAX_WALKS / 2));
            Arc::clone(callers.entry(user.clone()).or_insert_with(own))
        };
        // From here on, dropping it also forgets a caller who has nothing to do any more.
        let mut permit = WalkPermit { walks: Arc::clone(&self), user: user.clone(), permits: None };
        let own = of_caller.acquire_owned().await;
        let all = Arc::clone(&self.all).acquire_owned().await;
        permit.permits = own.ok().zip(all.ok()).map(|(own, all)| [own, all]);
        permit
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UserName, Arc<Semaphore>>> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for WalkPermit {
    fn drop(&mut self) {
        let mut callers = self.walks.lock();
        drop(self.permits.take());
        // Those that wait or walk have a clone each.
        if callers.get(&self.user).is_some_and(|own| Arc::strong_count(own) == 1) {
            callers.remove(&self.user);
        }
    }
}

const MAX_WALKS: usize = 4;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn user(name: &str) -> UserName {
        name.parse().expect("a name")
    }

    #[tokio::test(start_paused = true)]
    async fn one_caller_walks_no_more_than_half() {
        let walks = Walks::new();
        let (alice, bob) = (user("alice"), user("bob"));
        let enter = async |user| {
            let entered = Arc::clone(&walks).enter(user);
            timeout(Duration::from_secs(1), entered).await.ok()
        };
        let first = enter(&alice).await.expect("a place");
        let second = enter(&alice).await.expect("a place");
        assert!(enter(&alice).await.is_none());
        let others = [enter(&bob).await, enter(&bob).await];
        assert!(others.iter().all(Option::is_some));
        drop(first);
        let third = enter(&alice).await.expect("a place");
        drop((second, third, others));
        assert!(walks.lock().is_empty());
    }
}
