//! Places that callers share: so many in all, and of each caller a part.

use std::collections::HashMap;
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
    taken: Mutex<Taken>,
}

#[derive(Debug)]
struct Taken {
    shares: FairShares,
    /// Of those, what guests have.
    guests: HashMap<UserName, usize>,
}

/// Place of a caller, given back when it is dropped.
#[derive(Debug)]
pub struct CallerPlace {
    places: CallerPlaces,
    user: UserName,
    guest: Option<UserName>,
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
    /// The rest of the host's part is kept for the host, not for their guests.
    #[error(
        "guests and their host have {limit} already, as many as leave some to the host at the moment; \
         try again when a guest has left"
    )]
    OfGuests {
        /// Number of places of the guests and their host.
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
        let taken = Taken { shares: FairShares::new(max.max(1)), guests: HashMap::new() };
        let (max_per_caller, taken) = (max_per_caller.max(1), Mutex::new(taken));
        Self(Arc::new(Shared { max_per_caller, taken }))
    }

    /// Takes one place for `user`.
    ///
    /// # Errors
    ///
    /// [`PlaceError`] when there is none for this caller.
    pub fn take(&self, user: &UserName) -> Result<CallerPlace, PlaceError> {
        let mut taken = self.lock();
        self.check(&taken.shares, user)?;
        taken.shares.replace(user, 0, 1);
        Ok(CallerPlace { places: self.clone(), user: user.clone(), guest: None })
    }

    /// Takes one place of the part of `host` for `guest`, whom they have invited. A guest has at most
    /// `max_per_guest` places, and all guests of a host about two thirds of what the host may have at the
    /// moment.
    ///
    /// # Errors
    ///
    /// [`PlaceError`] when there is none for this guest.
    pub fn take_guest(
        &self,
        host: &UserName,
        guest: &UserName,
        max_per_guest: usize,
    ) -> Result<CallerPlace, PlaceError> {
        let mut taken = self.lock();
        let own = taken.guests.get(guest).copied().unwrap_or_default();
        if own >= max_per_guest {
            return Err(PlaceError::OfCaller { limit: max_per_guest });
        }
        let of_host = taken.shares.held(host);
        let of_guests = PlaceError::OfGuests { limit: of_host };
        self.check(&taken.shares, host).map_err(|error| match error {
            PlaceError::OfCaller { .. } => of_guests,
            error => error,
        })?;
        let is_last = of_host + 1 >= self.0.max_per_caller;
        if is_last || 2 * (of_host + 1) >= taken.shares.free() {
            return Err(of_guests);
        }
        taken.shares.replace(host, 0, 1);
        taken.guests.insert(guest.clone(), own + 1);
        let (user, guest) = (host.clone(), Some(guest.clone()));
        Ok(CallerPlace { places: self.clone(), user, guest })
    }

    fn check(&self, shares: &FairShares, user: &UserName) -> Result<(), PlaceError> {
        let own = shares.held(user);
        if own >= self.0.max_per_caller {
            return Err(PlaceError::OfCaller { limit: self.0.max_per_caller });
        }
        if shares.free() == 0 {
            return Err(PlaceError::OfAll { limit: shares.max() });
        }
        shares.check(user, 0, 1).map_err(|_| PlaceError::OfCaller { limit: own })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CallerPlace {
    /// Returns the user who holds the place; for a guest's place, the user who invited them.
    #[must_use]
    pub fn user(&self) -> &UserName {
        &self.user
    }
}

impl Drop for CallerPlace {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.shares.replace(&self.user, 1, 0);
        if let Some(guest) = &self.guest
            && let Some(count) = taken.guests.get_mut(guest)
        {
            *count -= 1;
            if *count == 0 {
                taken.guests.remove(guest);
            }
        }
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
        assert!(places.lock().shares.is_empty());
        let few = CallerPlaces::bounded(64, 2);
        let all: Vec<_> = std::iter::from_fn(|| few.take(&alice).ok()).collect();
        assert_eq!(all.len(), 2);
        assert_eq!(few.take(&alice).err(), Some(PlaceError::OfCaller { limit: 2 }));
    }
    #[test]
    fn guests_leave_places_to_their_host() {
        let user = |name: &str| -> UserName { name.parse().expect("a name") };
        let (alice, first) = (user("alice"), user("guest-1"));
        for max in 3..100 {
            let places = CallerPlaces::new(max);
            let mut all = Vec::new();
            for number in 0..max {
                let guest = user(&format!("guest-{number}"));
                all.extend(std::iter::from_fn(|| places.take_guest(&alice, &guest, 4).ok()));
            }
            let guests = all.len();
            all.extend(std::iter::from_fn(|| places.take(&alice).ok()));
            assert!(guests < all.len(), "{guests} of {max} leave none");
            drop(all);
            let taken = places.lock();
            assert!(taken.shares.is_empty() && taken.guests.is_empty());
        }
        let places = CallerPlaces::new(64);
        let held: Vec<_> =
            std::iter::from_fn(|| places.take_guest(&alice, &first, 4).ok()).collect();
        assert_eq!(held.len(), 4);
        let refused = places.take_guest(&alice, &first, 4).err();
        assert_eq!(refused, Some(PlaceError::OfCaller { limit: 4 }));
        let own: Vec<_> = std::iter::from_fn(|| places.take(&alice).ok()).collect();
        assert_eq!(own.len(), 28);
        drop(own);
        let few = CallerPlaces::bounded(64, 2);
        let _guest = few.take_guest(&alice, &first, 4).expect("one");
        let refused = few.take_guest(&alice, &first, 4).err();
        assert_eq!(refused, Some(PlaceError::OfGuests { limit: 1 }));
        assert!(few.take(&alice).is_ok());
    }
}
