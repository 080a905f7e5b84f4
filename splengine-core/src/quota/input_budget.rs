//! Bounds on the bytes of input that stay in memory for as long as work takes, or a session lasts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::quota::fair_share::{FairShares, Shortage};
use crate::user_name::UserName;

/// Bound in bytes on the input that all callers' work holds in memory, and on that of one caller: so
/// many, or half of what the others leave. Nothing waits at the bound: it is refused. Input that alone
/// is over a bound is taken where nothing else is held, and each caller's first [bytes](FREE_BYTES)
/// whatever others hold, so that nobody is shut out by others. Cheap to clone: clones share one bound.
#[derive(Debug, Clone)]
pub(crate) struct InputBudget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max_bytes_per_caller: Option<usize>,
    held: Mutex<FairShares>,
}

/// Bytes of an [`InputBudget`], given back when dropped.
#[derive(Debug)]
pub(crate) struct InputReservation {
    budget: InputBudget,
    user: UserName,
    bytes: usize,
}

/// Bound that more input would exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InputShortage {
    /// That of this caller.
    Caller { max_bytes: usize },
    /// That of all.
    All { max_bytes: usize },
}

impl InputBudget {
    /// Makes a budget of `max_bytes` for all callers together, of which one caller may have
    /// `max_bytes_per_caller`, or half of what the others leave if that is `None`.
    pub(crate) fn new(max_bytes: usize, max_bytes_per_caller: Option<usize>) -> Self {
        let held = Mutex::new(FairShares::new(max_bytes));
        Self(Arc::new(Shared { max_bytes_per_caller, held }))
    }

    /// Reserves `bytes` for `user`, or says which bound they would exceed. The caller's is looked at
    /// first.
    pub(crate) fn reserve(
        &self,
        user: &UserName,
        bytes: usize,
    ) -> Result<InputReservation, InputShortage> {
        let mut held = self.held();
        let max_bytes = held.max();
        let fits = |held: usize, max: usize| held == 0 || held.saturating_add(bytes) <= max;
        let (own, all) = (held.held(user), held.all());
        let is_little = own.saturating_add(bytes) <= FREE_BYTES;
        match self.0.max_bytes_per_caller {
            Some(max_bytes) if !fits(own, max_bytes) => {
                return Err(InputShortage::Caller { max_bytes });
            }
            Some(_) if !is_little && !fits(all, max_bytes) => {
                return Err(InputShortage::All { max_bytes });
            }
            None if !is_little && all > 0 => match held.check(user, 0, bytes) {
                Ok(()) => {}
                // What is too large for any share is taken where nobody holds anything.
                Err(Shortage::OfCaller) if own > 0 => {
                    return Err(InputShortage::Caller { max_bytes: held.limit(user) });
                }
                Err(_) => return Err(InputShortage::All { max_bytes }),
            },
            _ => {}
        }
        Ok(self.take(&mut held, user, bytes))
    }

    /// Reserves `bytes` for `user` whatever is held: for what was accepted before.
    pub(crate) fn reserve_always(&self, user: &UserName, bytes: usize) -> InputReservation {
        self.take(&mut self.held(), user, bytes)
    }

    fn take(&self, held: &mut FairShares, user: &UserName, bytes: usize) -> InputReservation {
        held.replace(user, 0, bytes);
        InputReservation { budget: self.clone(), user: user.clone(), bytes }
    }

    fn held(&self) -> MutexGuard<'_, FairShares> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InputReservation {
    /// Reserves `bytes` more, whatever is held: for what belongs to what was accepted before.
    pub(crate) fn grow(&mut self, bytes: usize) {
        let mut more = self.budget.reserve_always(&self.user, bytes);
        self.bytes = self.bytes.saturating_add(std::mem::take(&mut more.bytes));
    }

    /// Takes `bytes` of it, at most all, as a reservation of their own.
    pub(crate) fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { budget: self.budget.clone(), user: self.user.clone(), bytes }
    }
}

impl Drop for InputReservation {
    fn drop(&mut self) {
        self.budget.held().replace(&self.user, self.bytes, 0);
    }
}

/// Less than that is as much as an execution or a session takes anyway: it is not reserved.
pub(crate) const MIN_COUNTED_BYTES: usize = 4 << 10;
/// Bytes that each caller may hold whatever others do.
const FREE_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn what_is_held_is_bounded_of_a_caller_and_of_all() {
        let budget = InputBudget::new(100 * MIB, Some(60 * MIB));
        let [alice, bob, carol] =
            ["alice", "bob", "carol"].map(|name| name.parse::<UserName>().expect("a name"));
        let refusal = |user, bytes| budget.reserve(user, bytes).err();
        let first = budget.reserve(&alice, 60 * MIB).expect("there is nothing else");
        let of_caller = Some(InputShortage::Caller { max_bytes: 60 * MIB });
        assert_eq!(refusal(&alice, 1), of_caller);
        let second = budget.reserve(&bob, 40 * MIB).expect("within both bounds");
        let of_all = Some(InputShortage::All { max_bytes: 100 * MIB });
        assert_eq!(refusal(&carol, MIB), of_all);
        assert_eq!(refusal(&bob, 21 * MIB), of_caller, "the caller's own comes first");
        assert_eq!(refusal(&carol, 0), None);
        // A little is taken of everybody.
        let little = budget.reserve(&carol, FREE_BYTES).expect("whatever others hold");
        assert_eq!(refusal(&carol, 1), of_all);
        drop(little);
        let mut rest = first;
        drop(rest.split(59 * MIB));
        assert_eq!(refusal(&carol, 59 * MIB), None);
        assert_eq!(refusal(&carol, 60 * MIB), of_all);
        drop(rest);
        assert_eq!(refusal(&carol, 60 * MIB), None);
        assert_eq!(refusal(&carol, 61 * MIB), of_all);
        drop(second);
        assert!(budget.held().is_empty());
    }

    #[test]
    fn what_is_larger_than_the_bound_is_taken_alone() {
        let budget = InputBudget::new(100 * MIB, Some(60 * MIB));
        let [alice, bob] = ["alice", "bob"].map(|name| name.parse::<UserName>().expect("a name"));
        let large = budget.reserve(&alice, 1000 * MIB).expect("alone");
        assert!(matches!(budget.reserve(&bob, MIB), Err(InputShortage::All { .. })));
        assert!(matches!(budget.reserve(&alice, MIB), Err(InputShortage::Caller { .. })));
        let mut earlier = budget.reserve_always(&bob, 500 * MIB);
        earlier.grow(500 * MIB);
        drop(large);
        assert!(matches!(budget.reserve(&alice, MIB), Err(InputShortage::All { .. })));
        drop(earlier);
        assert!(budget.reserve(&alice, MIB).is_ok());
    }

    #[test]
    fn without_a_bound_of_their_own_callers_leave_memory_to_others() {
        let budget = InputBudget::new(64 * MIB, None);
        let [alice, bob, carol] =
            ["alice", "bob", "carol"].map(|name| name.parse::<UserName>().expect("a name"));
        let refusal = |user, bytes| budget.reserve(user, bytes).err();
        let _first = budget.reserve(&alice, 32 * MIB).expect("half of it");
        assert_eq!(refusal(&alice, 1), Some(InputShortage::Caller { max_bytes: 32 * MIB }));
        let _second = budget.reserve(&bob, 16 * MIB).expect("half of the rest");
        assert_eq!(refusal(&bob, MIB), Some(InputShortage::Caller { max_bytes: 16 * MIB }));
        assert_eq!(refusal(&carol, 9 * MIB), Some(InputShortage::All { max_bytes: 64 * MIB }));
        let _third = budget.reserve(&carol, 8 * MIB).expect("there is always some");
    }
}
