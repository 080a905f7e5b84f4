use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Changes that first look at what has a name are made one after the other.
#[derive(Debug, Default)]
pub(crate) struct PathLocks([Mutex<()>; COUNT]);

impl PathLocks {
    /// Waits until no other change is made at `place`.
    pub(crate) fn lock(&self, place: &Path) -> MutexGuard<'_, ()> {
        self.lock_at(index(place))
    }

    /// The same of one that changes two places. Both are taken in the same order by all.
    pub(crate) fn lock_both(&self, a: &Path, b: &Path) -> [Option<MutexGuard<'_, ()>>; 2] {
        let (a, b) = (index(a), index(b));
        let first = self.lock_at(a.min(b));
        [Some(first), (a != b).then(|| self.lock_at(a.max(b)))]
    }

    fn lock_at(&self, index: usize) -> MutexGuard<'_, ()> {
        let [first, ..] = &self.0;
        self.0.get(index).unwrap_or(first).lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn index(place: &Path) -> usize {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(place);
    usize::try_from(hash % COUNT as u64).unwrap_or_default()
}

/// So many can be made at once, if their places fall well.
const COUNT: usize = 32;
