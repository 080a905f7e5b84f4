use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::user_name::UserName;

/// Bound on the bytes that callers have of one kind, such as on a disk: each of them, and all together.
///
/// Nothing is given back by itself: what takes bytes has to give as many back, at once or in parts.
///
/// ```
/// use splengine_core::auth::UserName;
/// use splengine_core::quota::CallerBytes;
///
/// let (alice, bob): (UserName, UserName) = ("alice".parse()?, "bob".parse()?);
/// let bytes = CallerBytes::new(1000, 1500);
/// bytes.take(&alice, 900)?;
/// assert!(bytes.take(&alice, 200).is_err());
/// assert!(bytes.take(&bob, 700).is_err());
/// bytes.give_back(&alice, 500);
/// bytes.take(&bob, 700)?;
/// assert_eq!(bytes.used(), 1100);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct CallerBytes {
    max_of_caller: u64,
    max_of_all: u64,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    all: u64,
    /// Of those who have any.
    of_callers: HashMap<UserName, u64>,
}

impl CallerBytes {
    /// Makes a bound of `max_of_caller` bytes for each caller, and of `max_of_all` for all together.
    #[must_use]
    pub fn new(max_of_caller: u64, max_of_all: u64) -> Self {
        Self { max_of_caller, max_of_all, used: Mutex::default() }
    }

    /// Takes `bytes` more for `user`.
    ///
    /// # Errors
    ///
    /// [`BytesError`] when that is more than the caller may have, or than is left of that of all; none
    /// are taken then.
    pub fn take(&self, user: &UserName, bytes: u64) -> Result<(), BytesError> {
        let mut used = self.lock();
        let own = used.of_callers.get(user).copied().unwrap_or_default().saturating_add(bytes);
        if own > self.max_of_caller {
            return Err(BytesError::OfCaller { max_bytes: self.max_of_caller });
        }
        match used.all.checked_add(bytes).filter(|all| *all <= self.max_of_all) {
            Some(all) => used.all = all,
            None => return Err(BytesError::OfAll { max_bytes: self.max_of_all }),
        }
        if own > 0 {
            used.of_callers.insert(user.clone(), own);
        }
        Ok(())
    }

    /// Gives back `bytes` that were taken for `user`.
    pub fn give_back(&self, user: &UserName, bytes: u64) {
        let mut used = self.lock();
        let Some(own) = used.of_callers.get_mut(user) else { return };
        let given = bytes.min(*own);
        *own -= given;
        if *own == 0 {
            used.of_callers.remove(user);
        }
        used.all -= given;
    }

    /// Returns how many bytes all callers have together.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.lock().all
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reason for which a caller gets no more bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BytesError {
    /// The caller would have more than one caller may.
    #[error("a caller may have {max_bytes} bytes")]
    #[non_exhaustive]
    OfCaller {
        /// Maximum number of bytes of one caller.
        max_bytes: u64,
    },
    /// All callers together would have more than they may.
    #[error("all callers may have {max_bytes} bytes together")]
    #[non_exhaustive]
    OfAll {
        /// Maximum number of bytes of all callers.
        max_bytes: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_do_not_overflow_and_nothing_is_kept_of_who_has_none() {
        let (alice, bob): (UserName, UserName) =
            ("alice".parse().expect("a name"), "bob".parse().expect("a name"));
        let bytes = CallerBytes::new(u64::MAX, u64::MAX);
        bytes.take(&alice, u64::MAX - 1).expect("there is room");
        bytes.take(&bob, 1).expect("there is room");
        let of_all = Err(BytesError::OfAll { max_bytes: u64::MAX });
        assert_eq!((bytes.take(&bob, 1), bytes.take(&alice, 2)), (of_all, of_all));
        assert_eq!(bytes.used(), u64::MAX);
        // No more is given back than was taken.
        bytes.give_back(&bob, 5);
        bytes.give_back(&alice, u64::MAX);
        bytes.take(&alice, 0).expect("there is room");
        assert_eq!((bytes.used(), bytes.lock().of_callers.len()), (0, 0));
    }
}
