use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Changes that first look at what has a name are made one after the other.
#[derive(Debug, Default)]
pub(crate) struct Turns([Mutex<()>; COUNT]);

impl Turns {
    /// Waits until it is the turn of a change at `place`.
    pub(crate) fn take(&self, place: &Path) -> MutexGuard<'_, ()> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(place);
        let [first, ..] = &self.0;
        let index = usize::try_from(hash % COUNT as u64).unwrap_or_default();
        self.0.get(index).unwrap_or(first).lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// So many can be made at once, if their places fall well.
const COUNT: usize = 32;
