//! Places that callers share: so many in all, and of each caller a part.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::quota::fair_share::FairShares;
use crate::user_name::UserName;

/// Bound on how many of one kind of thing all callers have together, of which no caller can take
/// all. Cheap to clone: clones share one bound.
///
/// A caller may have as many as are still free: one alone gets half of all, two a third each, and so
/// on, so that there is always one for a caller who has none.
///
/// ```
/// use splengine_core::quota::{CallerPlaces, PlaceError};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (places, alice) = (CallerPlaces::new(4), "alice".parse()?);
/// let (_first, _second) = (places.take(&alice)?, places.take(&alice)?);
/// assert_eq!(places.take(&alice).err(), Some(PlaceError::OfCaller { limit: 2 }));
/// assert!(places.take(&"bob".parse()?).is_ok());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct CallerPlaces(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max_per_caller: usize,
    taken: Mutex<FairShares>,
}

/// Place of a caller, given back when it is dropped.
#[derive(Debug)]
pub struct CallerPlace {
    places: CallerPlaces,
    user: UserName,
}

/// Reason for which a caller gets no further place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// The caller's own places are all taken.
    #[error("you have {limit} already, as many as one caller may at the moment")]
    OfCaller {
        /// Number of the caller's places.
        limit: usize,
    },
    /// All are taken.
    #[error("all {limit} are taken")]
    OfAll {
        /// Number of places.
        limit: usize,
    },
}

impl CallerPlaces {
    /// Makes `max` places, at least 1, of which each caller may have half at most.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self::bounded(max, usize::MAX)
    }

    /// Makes `max` places, at least 1, of which each caller may have no more than `max_per_caller`,
    /// at least 1.
    #[must_use]
    pub fn bounded(max: usize, max_per_caller: usize) -> Self {
        let taken = Mutex::new(FairShares::new(max.max(1)));
        Self(Arc::new(Shared { max_per_caller: max_per_caller.max(1), taken }))
    }

    /// Takes one place for `user`.
    ///
    /// # Errors
    ///
    /// [`PlaceError`] when there is none for this caller.
    pub fn take(&self, user: &UserName) -> Result<CallerPlace, PlaceError> {
        let mut taken = self.lock();
        let own = taken.held(user);
        if own >= self.0.max_per_caller {
            return Err(PlaceError::OfCaller { limit: self.0.max_per_caller });
        }
        if taken.free() == 0 {
            return Err(PlaceError::OfAll { limit: taken.max() });
        }
        if taken.check(user, 0, 1).is_err() {
            return Err(PlaceError::OfCaller { limit: own });
        }
        taken.replace(user, 0, 1);
        Ok(CallerPlace { places: self.clone(), user: user.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, FairShares> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CallerPlace {
    /// Returns the user who holds the place.
    #[must_use]
    pub fn user(&self) -> &UserName {
        &self.user
    }
}

impl Drop for CallerPlace {
    fn drop(&mut self) {
        self.places.lock().replace(&self.user, 1, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_alone_gets_half_and_is_told_that_it_is_their_own_limit() {
        let user = |name: &str| -> UserName { name.parse().expect("a name") };
        let places = CallerPlaces::new(64);
        let (alice, bob) = (user("alice"), user("bob"));
        let mut all: Vec<_> = std::iter::from_fn(|| places.take(&alice).ok()).collect();
        assert_eq!(all.len(), 32);
        assert_eq!(places.take(&alice).err(), Some(PlaceError::OfCaller { limit: 32 }));
        all.extend(std::iter::from_fn(|| places.take(&bob).ok()));
        assert_eq!(all.len(), 48);
        // Each who comes takes half of what is left, down to the last place.
        for number in 0..16 {
            let name = user(&format!("user-{number}"));
            all.extend(std::iter::from_fn(|| places.take(&name).ok()));
        }
        assert_eq!(all.len(), 64);
        assert_eq!(places.take(&user("late")).err(), Some(PlaceError::OfAll { limit: 64 }));
        drop(all);
        assert!(places.lock().is_empty());
        let few = CallerPlaces::bounded(64, 2);
        let all: Vec<_> = std::iter::from_fn(|| few.take(&alice).ok()).collect();
        assert_eq!(all.len(), 2);
        assert_eq!(few.take(&alice).err(), Some(PlaceError::OfCaller { limit: 2 }));
    }
}
