//! Memory of requests over HTTP/2: their heads, of which one connection may have many at once, and what the library
//! holds of what it has read.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::auth::Caller;
use crate::quota::{
    CallerBudgets, KeyedPermit, KeyedSemaphore, MemoryBudget, MemoryError, Reservation,
};
use crate::user_name::UserName;

/// Budgets of all connections of a server: of one caller half of what the others leave, of all unauthenticated
/// connections a quarter, and of all guests another, of those of one caller half of what the others leave.
#[derive(Debug)]
pub(crate) struct Http2Budgets {
    callers: CallerBudgets,
    /// Of the guests of callers, by who has invited them.
    guests: CallerBudgets,
    unauthenticated: MemoryBudget,
    /// Connections of callers of which more is uncounted than of their others.
    first: KeyedSemaphore<UserName>,
}

/// Memory of one connection, as far as it is counted.
#[derive(Debug)]
pub(crate) struct Http2Memory {
    budgets: Option<Arc<Http2Budgets>>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    reservation: Option<Reservation>,
    /// The caller's share, of a connection that is counted as unauthenticated still: it had no room.
    owed: Option<MemoryBudget>,
    /// Of heads of requests that were begun.
    head_bytes: usize,
    /// Of what the library holds.
    library_bytes: usize,
    /// Of one of the first connections of its caller.
    first: Option<KeyedPermit<UserName>>,
}

impl Http2Budgets {
    pub(crate) fn new(whole: &MemoryBudget, bytes: usize) -> Self {
        Self {
            callers: CallerBudgets::new(whole),
            guests: CallerBudgets::new(&whole.share(bytes / 4)),
            unauthenticated: whole.share(bytes / 4),
            first: KeyedSemaphore::new(FIRST_CONNECTIONS),
        }
    }
}

impl Http2Memory {
    pub(crate) fn new(budgets: Option<Arc<Http2Budgets>>) -> Self {
        Self { budgets, held: Mutex::default() }
    }

    /// Counts a head of `bytes`, until it is [given back](Self::give_back).
    pub(crate) fn take(&self, bytes: usize) -> Result<(), MemoryError> {
        let mut held = self.lock();
        let (bytes, library_bytes) = (held.head_bytes.saturating_add(bytes), held.library_bytes);
        self.resize(&mut held, bytes, library_bytes)
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        let mut held = self.lock();
        let (bytes, library_bytes) = (held.head_bytes.saturating_sub(bytes), held.library_bytes);
        // Less is always there.
        let _ = self.resize(&mut held, bytes, library_bytes);
    }

    /// Counts `library_bytes` of what the library holds, in place of what was counted of it before.
    pub(crate) fn set_library(&self, library_bytes: usize) -> Result<(), MemoryError> {
        let mut held = self.lock();
        let bytes = held.head_bytes;
        match held.library_bytes == library_bytes {
            true => Ok(()),
            false => self.resize(&mut held, bytes, library_bytes),
        }
    }

    fn resize(
        &self,
        held: &mut Held,
        bytes: usize,
        library_bytes: usize,
    ) -> Result<(), MemoryError> {
        let Some(budgets) = &self.budgets else { return Ok(()) };
        let whole = bytes.saturating_add(library_bytes);
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
        (held.head_bytes, held.library_bytes) = (bytes, library_bytes);
        Ok(())
    }

    /// Counts what there is, and what comes, for `caller`. While their share has no room for it, nothing more is
    /// taken. Returns whether the connection is one of their first, of those that are open and multiplexed; that of a
    /// guest never is.
    pub(crate) fn set_authenticated(&self, caller: &Caller, is_multiplexed: bool) -> bool {
        let Some(budgets) = &self.budgets else { return true };
        let (user, is_guest) = (caller.accounted_user(), caller.guest().is_some());
        let may_be_first = is_multiplexed && !is_guest;
        let mut first = budgets.first.enter(user.clone()).ok().filter(|_| may_be_first);
        let first = first.take_if(|first| first.try_wait());
        let is_first = first.is_some();
        let share = if is_guest { budgets.guests.of(user) } else { budgets.callers.of(user) };
        let mut reservation = share.reservation();
        let mut held = self.lock();
        match reservation.try_grow(held.counted()) {
            Ok(()) => held.reservation = Some(reservation),
            Err(_) => held.owed = Some(share),
        }
        held.first = first;
        is_first
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn counted(&self) -> usize {
        self.head_bytes.saturating_add(self.library_bytes)
    }
}

/// So many connections of a caller are the first.
const FIRST_CONNECTIONS: usize = 32;
