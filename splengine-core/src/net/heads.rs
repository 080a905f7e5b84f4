//! The memory of the heads of requests, of which one connection may have many at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::quota::{CallerBudgets, MemoryBudget, MemoryError, Reservation};
use crate::user_name::UserName;

/// What the heads of all connections of a server take: of one caller half of what the others leave, of
/// all unauthenticated connections a quarter.
#[derive(Debug)]
pub(crate) struct HeadBudgets {
    callers: CallerBudgets,
    unauthenticated: MemoryBudget,
}

/// The heads of one connection, as far as they are counted.
#[derive(Debug)]
pub(crate) struct Heads {
    budgets: Option<Arc<HeadBudgets>>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    reservation: Option<Reservation>,
    bytes: usize,
}

impl HeadBudgets {
    pub(crate) fn new(bytes: usize) -> Self {
        let whole = MemoryBudget::new(bytes);
        Self { callers: CallerBudgets::new(&whole), unauthenticated: whole.share(bytes / 4) }
    }
}

impl Heads {
    pub(crate) fn new(budgets: Option<Arc<HeadBudgets>>) -> Self {
        Self { budgets, held: Mutex::default() }
    }

    /// Counts a head of `bytes` until it is [given back](Self::give_back).
    pub(crate) fn take(&self, bytes: usize) -> Result<(), MemoryError> {
        let Some(budgets) = &self.budgets else { return Ok(()) };
        let mut held = self.lock();
        let all = held.bytes.saturating_add(bytes);
        let new = || budgets.unauthenticated.reservation();
        held.reservation.get_or_insert_with(new).try_grow(all)?;
        held.bytes = all;
        Ok(())
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        let mut held = self.lock();
        let left = held.bytes.saturating_sub(bytes);
        held.bytes = left;
        if let Some(reservation) = &mut held.reservation {
            // Less is always there.
            let _ = reservation.try_resize(left);
        }
    }

    /// Counts what there is, and what comes, for `user`, if their share has room for it.
    pub(crate) fn set_authenticated(&self, user: &UserName) {
        let Some(budgets) = &self.budgets else { return };
        let mut reservation = budgets.callers.of(user).reservation();
        let mut held = self.lock();
        if reservation.try_grow(held.bytes).is_ok() {
            held.reservation = Some(reservation);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
