//! Idempotency keys of requests that are being worked at.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use tokio::time::timeout;

use crate::batch::BatchError;
use crate::user_name::UserName;

/// Table of the idempotency keys of requests that are being worked at: one request per key at a time.
/// Holds as many entries as there are such requests.
#[derive(Default)]
pub(crate) struct KeyLocks(Mutex<HashMap<CallerKey, Arc<AsyncMutex<()>>>>);

/// Whose key, and which.
type CallerKey = (UserName, String);

/// Right to look whether a key is used, and to use it. Given back when dropped.
pub(crate) struct KeyLock {
    // In this order: the entry is removed once nobody holds or awaits its lock.
    _guard: OwnedMutexGuard<()>,
    _entry: Entry,
}

/// A lock in the table, which is removed with the last who uses it.
struct Entry {
    table: Arc<KeyLocks>,
    name: CallerKey,
    lock: Option<Arc<AsyncMutex<()>>>,
}

impl KeyLocks {
    /// Waits until no other request with this `key` of `user` is worked at, for [`KEY_TIMEOUT`] at
    /// most. Whoever has to wait holds what `reserve` gives meanwhile.
    ///
    /// # Errors
    ///
    /// [`BatchError::Conflict`] when the time is over; those of `reserve`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub(crate) async fn lock<R>(
        self: &Arc<Self>,
        user: &UserName,
        key: &str,
        reserve: impl FnOnce() -> Result<R, BatchError>,
    ) -> Result<KeyLock, BatchError> {
        let name = (user.clone(), key.to_owned());
        let lock = Arc::clone(self.entries().entry(name.clone()).or_default());
        let entry = Entry { table: Arc::clone(self), name, lock: Some(Arc::clone(&lock)) };
        let guard = if let Ok(guard) = Arc::clone(&lock).try_lock_owned() {
            guard
        } else {
            let _reserved = match reserve() {
                Ok(reserved) => reserved,
                Err(error) => {
                    // Before its entry, which goes with its last user.
                    drop(lock);
                    return Err(error);
                }
            };
            let guard = timeout(KEY_TIMEOUT, lock.lock_owned()).await;
            guard.map_err(|_| BatchError::Conflict(KEY_IN_USE))?
        };
        Ok(KeyLock { _guard: guard, _entry: entry })
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<CallerKey, Arc<AsyncMutex<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // Clones are made under the lock of the table alone.
        let mut entries = self.table.entries();
        self.lock = None;
        if entries.get(&self.name).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            entries.remove(&self.name);
        }
    }
}

/// For so long a request waits for an earlier one with the same key.
const KEY_TIMEOUT: Duration = Duration::from_secs(30);
const KEY_IN_USE: &str =
    "another request with this idempotency key is still being checked; try again later";

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserName {
        name.parse().expect("a name")
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_held_by_one_request_and_other_keys_by_none() {
        let table = Arc::new(KeyLocks::default());
        let (alice, bob) = (user("alice"), user("bob"));
        let first = table.lock(&alice, "k", || Ok(())).await.expect("free");
        let others =
            [table.lock(&alice, "l", || Ok(())).await, table.lock(&bob, "k", || Ok(())).await];
        assert!(others.iter().all(Result::is_ok));
        assert_eq!(table.entries().len(), 3);
        drop(others);
        let refused = table.lock(&alice, "k", || Ok(())).await.err();
        assert!(matches!(refused, Some(BatchError::Conflict(_))), "{refused:?}");
        let (second, ()) = tokio::join!(table.lock(&alice, "k", || Ok(())), async {
            tokio::task::yield_now().await;
            drop(first);
        });
        assert_eq!(table.entries().len(), 1);
        drop(second.expect("given back in time"));
        assert_eq!(table.entries().len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_waits_and_is_dropped_leaves_nothing() {
        let table = Arc::new(KeyLocks::default());
        let alice = user("alice");
        let first = table.lock(&alice, "k", || Ok(())).await.expect("free");
        let waits = timeout(Duration::from_millis(1), table.lock(&alice, "k", || Ok(()))).await;
        assert!(waits.is_err());
        drop(first);
        assert_eq!(table.entries().len(), 0);
    }
}
