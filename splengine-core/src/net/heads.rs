//! The memory of the heads of requests, of which one connection may have many at once, and of bodies that
//! wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::net::HttpBounds;
use crate::quota::{CallerBudgets, MemoryBudget, MemoryError, Reservation};
use crate::user_name::UserName;

/// What the heads of all connections of a server take, and the bodies of requests that wait for their turn: of one caller half of what the others leave, of
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
    /// Of bodies, which together are no more than a connection receives of them.
    body_bytes: usize,
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

    /// How much is received at most of a body that nobody reads yet; its length is `max_bytes` at most, where
    /// that is known.
    pub(crate) fn unread_bytes(max_bytes: Option<u64>) -> usize {
        let window = HttpBounds::MAX_UNREAD_BODY_BYTES;
        let bytes = max_bytes
            .map_or(window, |max| u32::try_from(max).map_or(window, |max| max.min(window)));
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// Counts a head of `bytes`, and what is received of its body, until they are
    /// [given back](Self::give_back).
    pub(crate) fn take(&self, bytes: usize, body_bytes: usize) -> Result<(), MemoryError> {
        let Some(budgets) = &self.budgets else { return Ok(()) };
        let mut held = self.lock();
        let (bytes, body_bytes) =
            (held.bytes.saturating_add(bytes), held.body_bytes.saturating_add(body_bytes));
        let new = || budgets.unauthenticated.reservation();
        held.reservation.get_or_insert_with(new).try_grow(counted(bytes, body_bytes))?;
        (held.bytes, held.body_bytes) = (bytes, body_bytes);
        Ok(())
    }

    pub(crate) fn give_back(&self, bytes: usize, body_bytes: usize) {
        let mut held = self.lock();
        held.bytes = held.bytes.saturating_sub(bytes);
        held.body_bytes = held.body_bytes.saturating_sub(body_bytes);
        let left = held.counted();
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
        if reservation.try_grow(held.counted()).is_ok() {
            held.reservation = Some(reservation);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn counted(&self) -> usize {
        counted(self.bytes, self.body_bytes)
    }
}

/// A connection receives no more of all bodies together.
fn counted(bytes: usize, body_bytes: usize) -> usize {
    let window = usize::try_from(HttpBounds::MAX_UNREAD_BYTES).unwrap_or(usize::MAX);
    bytes.saturating_add(body_bytes.min(window))
}
