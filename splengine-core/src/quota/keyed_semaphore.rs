//! Permits of callers, addresses or the like.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Bound on how many things are worked at at once for each key, such as a caller or an address: the next one waits
/// for its turn. How many there may be, of a key and in all, can be bounded, too. Cheap to clone: clones share one
/// bound.
///
/// ```
/// use std::time::Duration;
/// use splengine_core::quota::{KeyedSemaphore, KeyedSemaphoreError};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // One at a time of each key, of which one more may wait.
/// let turns = KeyedSemaphore::bounded(1, 2, 100);
/// let (mut first, mut second) = (turns.enter("alice")?, turns.enter("alice")?);
/// first.wait().await;
/// assert!(tokio::time::timeout(Duration::from_millis(10), second.wait()).await.is_err());
/// assert_eq!(turns.enter("alice").err(), Some(KeyedSemaphoreError::OfKey { limit: 2 }));
/// turns.enter("bob")?.wait().await;
/// drop(first);
/// second.wait().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct KeyedSemaphore<K>(Arc<Shared<K>>);

/// Place in the line of a key, and a permit once it was [waited for](Self::wait); given back when this is dropped. Made
/// by [`KeyedSemaphore::enter`].
#[derive(Debug)]
pub struct KeyedPermit<K: Eq + Hash> {
    /// Given back before it is no longer counted.
    permit: Option<OwnedSemaphorePermit>,
    turns: Arc<Semaphore>,
    counted: Counted<K>,
}

/// Reason for which something can't even wait for its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyedSemaphoreError {
    /// There are as many of the key as there may be.
    #[error("{limit} of the same key are worked at or wait already, the maximum")]
    OfKey {
        /// Maximum number of one key.
        limit: usize,
    },
    /// There are as many of all keys as there may be.
    #[error("{limit} are worked at or wait already, the maximum")]
    Full {
        /// Maximum number of all keys.
        limit: usize,
    },
}

#[derive(Debug)]
struct Shared<K> {
    at_once: usize,
    max_per_key: usize,
    max: usize,
    present: Mutex<Present<K>>,
}

#[derive(Debug)]
struct Present<K> {
    keys: HashMap<K, Key>,
    count: usize,
}

#[derive(Debug)]
struct Key {
    turns: Arc<Semaphore>,
    count: usize,
    /// Notified when there are fewer.
    fewer: Arc<Notify>,
}

/// One that is counted until this is dropped.
#[derive(Debug)]
struct Counted<K: Eq + Hash> {
    shared: Arc<Shared<K>>,
    key: K,
}

impl<K: Eq + Hash + Clone> KeyedSemaphore<K> {
    /// Makes a bound of `at_once` for each key, at least 1, where any number may wait.
    #[must_use]
    pub fn new(at_once: usize) -> Self {
        Self::bounded(at_once, usize::MAX, usize::MAX)
    }

    /// Makes a bound of `at_once` for each key, at least 1; `max_per_key` of each key, and `max` of all keys, may be
    /// there, those at their turn included.
    #[must_use]
    pub fn bounded(at_once: usize, max_per_key: usize, max: usize) -> Self {
        let at_once = at_once.clamp(1, Semaphore::MAX_PERMITS);
        let present = Mutex::new(Present { keys: HashMap::new(), count: 0 });
        Self(Arc::new(Shared { at_once, max_per_key, max, present }))
    }

    /// Counts one more of `key`, which may then [wait](KeyedPermit::wait) for its turn.
    ///
    /// # Errors
    ///
    /// When there are too many already.
    pub fn enter(&self, key: K) -> Result<KeyedPermit<K>, KeyedSemaphoreError> {
        let shared = &self.0;
        let mut present = shared.present();
        if present.count >= shared.max {
            return Err(KeyedSemaphoreError::Full { limit: shared.max });
        }
        let of_key = present.keys.get(&key).map_or(0, |known| known.count);
        if of_key >= shared.max_per_key {
            return Err(KeyedSemaphoreError::OfKey { limit: shared.max_per_key });
        }
        let new = || Key {
            turns: Arc::new(Semaphore::new(shared.at_once)),
            count: 0,
            fewer: Arc::default(),
        };
        let known = present.keys.entry(key.clone()).or_insert_with(new);
        known.count += 1;
        let turns = Arc::clone(&known.turns);
        present.count += 1;
        let counted = Counted { shared: Arc::clone(shared), key };
        Ok(KeyedPermit { permit: None, turns, counted })
    }

    /// Resolves when fewer than `count` of `key` wait or have their turn. Of several that wait for that of one key,
    /// one is told.
    pub(crate) async fn until_fewer(&self, key: &K, count: usize) {
        loop {
            let fewer = match self.0.present().keys.get(key) {
                Some(known) if known.count >= count => Arc::clone(&known.fewer),
                _ => return,
            };
            fewer.notified().await;
        }
    }

    /// Returns how many of `key` wait or have their turn.
    pub(crate) fn count_of(&self, key: &K) -> usize {
        self.0.present().keys.get(key).map_or(0, |known| known.count)
    }

    /// Returns how many wait or have their turn, of all keys.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.present().count
    }
}

impl<K> Clone for KeyedSemaphore<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Eq + Hash> KeyedPermit<K> {
    /// Returns the key.
    #[must_use]
    pub fn key(&self) -> &K {
        &self.counted.key
    }

    /// Returns whether it has its turn, which it takes if nothing else of the key waits for one.
    pub fn try_wait(&mut self) -> bool {
        if self.permit.is_none() {
            self.permit = Arc::clone(&self.turns).try_acquire_owned().ok();
        }
        self.permit.is_some()
    }

    /// Waits for the turn, which is kept until this is dropped; the turns of a key come in the order in which they
    /// are waited for.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in that order.
    pub async fn wait(&mut self) {
        if self.permit.is_none() {
            // It is never closed.
            self.permit = Arc::clone(&self.turns).acquire_owned().await.ok();
        }
    }
}

impl<K> Shared<K> {
    fn present(&self) -> MutexGuard<'_, Present<K>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut present = self.shared.present();
        present.count -= 1;
        if let Some(known) = present.keys.get_mut(&self.key) {
            known.count -= 1;
            known.fewer.notify_one();
            if known.count == 0 {
                present.keys.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_key_has_turns_of_its_own() {
        let turns = KeyedSemaphore::new(2);
        let mut alices: Vec<_> = (0..3).map(|_| turns.enter(1).expect("unbounded")).collect();
        alices[0].wait().await;
        alices[1].wait().await;
        // It has its turn still.
        alices[1].wait().await;
        let third = timeout(Duration::from_secs(9), alices[2].wait()).await;
        assert!(third.is_err(), "two are at their turn");
        let mut bobs = turns.enter(2).expect("unbounded");
        bobs.wait().await;
        assert_eq!((turns.count(), *bobs.key()), (4, 2));
        drop(alices.remove(0));
        alices[1].wait().await;
        assert!(bobs.try_wait());
        assert!(!turns.enter(1).expect("unbounded").try_wait());
        drop((alices, bobs));
        assert_eq!(turns.count(), 0);
        assert!(turns.0.present().keys.is_empty(), "no key is kept");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_told_when_there_are_fewer() {
        let turns = KeyedSemaphore::new(1);
        turns.until_fewer(&1, 1).await;
        let (first, second) = (turns.enter(1).expect("free"), turns.enter(1).expect("free"));
        turns.until_fewer(&1, 3).await;
        let mut fewer = std::pin::pin!(turns.until_fewer(&1, 1));
        assert!(timeout(Duration::from_secs(9), &mut fewer).await.is_err());
        drop(first);
        assert!(timeout(Duration::from_secs(9), &mut fewer).await.is_err());
        assert_eq!(turns.count_of(&1), 1);
        drop(second);
        fewer.await;
    }

    #[tokio::test]
    async fn only_so_many_may_be_there() {
        let turns = KeyedSemaphore::bounded(1, 2, 3);
        let of_one = [turns.enter(1).expect("free"), turns.enter(1).expect("free")];
        assert_eq!(turns.enter(1).err(), Some(KeyedSemaphoreError::OfKey { limit: 2 }));
        let of_two = turns.enter(2).expect("free");
        assert_eq!(turns.enter(3).err(), Some(KeyedSemaphoreError::Full { limit: 3 }));
        drop(of_one);
        // What was refused counts nowhere.
        assert_eq!(turns.count(), 1);
        turns.enter(1).expect("free").wait().await;
        drop(of_two);
    }
}
