//! The memory of the heads of requests, of which one connection may have many at once, and of bodies that
//! nobody has read yet.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::quota::{CallerBudgets, MemoryBudget, MemoryError, Reservation};
use crate::user_name::UserName;

/// What the heads of all connections of a server take, and bodies that nobody has read yet: of one caller half
/// of what the others leave, of all unauthenticated connections a quarter.
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
    /// The caller's share, of a connection that is counted as unauthenticated still: it had no room.
    owed: Option<MemoryBudget>,
    /// Of heads.
    bytes: usize,
    /// Of bodies.
    unread_bytes: usize,
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

    /// Counts a head of `bytes`, until it is [given back](Self::give_back).
    pub(crate) fn take(&self, bytes: usize) -> Result<(), MemoryError> {
        let mut held = self.lock();
        let (bytes, unread_bytes) = (held.bytes.saturating_add(bytes), held.unread_bytes);
        self.resize(&mut held, bytes, unread_bytes)
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        let mut held = self.lock();
        let (bytes, unread_bytes) = (held.bytes.saturating_sub(bytes), held.unread_bytes);
        // Less is always there.
        let _ = self.resize(&mut held, bytes, unread_bytes);
    }

    /// Counts `unread_bytes` of bodies that nobody has read, in place of what was counted of them before.
    pub(crate) fn set_unread(&self, unread_bytes: usize) -> Result<(), MemoryError> {
        let mut held = self.lock();
        let bytes = held.bytes;
        match held.unread_bytes == unread_bytes {
            true => Ok(()),
            false => self.resize(&mut held, bytes, unread_bytes),
        }
    }

    fn resize(
        &self,
        held: &mut Held,
        bytes: usize,
        unread_bytes: usize,
    ) -> Result<(), MemoryError> {
        let Some(budgets) = &self.budgets else { return Ok(()) };
        let whole = bytes.saturating_add(unread_bytes);
        let is_less = whole <= held.counted();
        if let Some(share) = held.owed.as_ref().filter(|_| !is_less) {
            let mut reservation = share.reservation();
            reservation.try_grow(whole)?;
            (held.reservation, held.owed) = (Some(reservation), None);
        } else {
            let new = || budgets.unauthenticated.reservation();
            let reservation = held.reservation.get_or_insert_with(new);
            match is_less {
                true => reservation.try_resize(whole)?,
                false => reservation.try_grow(whole)?,
            }
        }
        (held.bytes, held.unread_bytes) = (bytes, unread_bytes);
        Ok(())
    }

    /// Counts what there is, and what comes, for `user`. While their share has no room for it, nothing more is
    /// taken.
    pub(crate) fn set_authenticated(&self, user: &UserName) {
        let Some(budgets) = &self.budgets else { return };
        let share = budgets.callers.of(user);
        let mut reservation = share.reservation();
        let mut held = self.lock();
        match reservation.try_grow(held.counted()) {
            Ok(()) => held.reservation = Some(reservation),
            Err(_) => held.owed = Some(share),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn counted(&self) -> usize {
        self.bytes.saturating_add(self.unread_bytes)
    }
}
