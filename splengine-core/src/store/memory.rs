use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, PoisonError};

use crate::store::{Change, Rows, Store, StoreFault};

/// A [`Store`] in memory, for tests: it survives nothing but the engine.
///
/// ```
/// use splengine_core::store::{Change, MemoryStore, Store};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryStore::new();
/// store.commit(&[Change::set(*b"a", *b"1"), Change::set(*b"b", *b"2"), Change::remove(*b"c")])?;
/// assert_eq!(store.get(b"a")?.as_deref(), Some(&b"1"[..]));
/// assert_eq!(store.scan(b"a", b"z", true, 1)?, [(b"b".to_vec(), b"2".to_vec())]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<BTreeMap<Vec<u8>, Vec<u8>>>);

impl MemoryStore {
    /// Makes an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl From<Rows> for MemoryStore {
    fn from(rows: Rows) -> Self {
        Self(Mutex::new(rows.into_iter().collect()))
    }
}

impl Store for MemoryStore {
    fn commit(&self, changes: &[Change]) -> Result<(), StoreFault> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for Change { key, value } in changes {
            match value {
                Some(value) => all.insert(key.clone(), value.clone()),
                None => all.remove(key),
            };
        }
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned())
    }

    fn scan(
        &self,
        from: &[u8],
        until: &[u8],
        backwards: bool,
        most: usize,
    ) -> Result<Rows, StoreFault> {
        if from >= until {
            return Ok(Vec::new());
        }
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let range = all.range::<[u8], _>((Bound::Included(from), Bound::Excluded(until)));
        let owned = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone());
        Ok(if backwards {
            range.rev().take(most).map(owned).collect()
        } else {
            range.take(most).map(owned).collect()
        })
    }
}
