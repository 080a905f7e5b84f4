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
    /// What the connections themselves take, other than the first.
    connections: CallerBudgets,
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
    /// Of one of the others, for the connection itself.
    connection: Option<Reservation>,
    /// Of one of the others for which there was no room.
    owed_connection: Option<MemoryBudget>,
}

impl Http2Budgets {
    /// Makes budgets in `whole`, which has `bytes`, and for the connections themselves in `connections`.
    pub(crate) fn new(whole: &MemoryBudget, bytes: usize, connections: &MemoryBudget) -> Self {
        Self {
            callers: CallerBudgets::new(whole),
            guests: CallerBudgets::new(&whole.share(bytes / 4)),
            unauthenticated: whole.share(bytes / 4),
            connections: CallerBudgets::new(connections),
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

    /// Counts `library_bytes` of what the library holds, in place of what was counted of it before, and the connection
    /// itself, where that had no room before.
    pub(crate) fn set_library(&self, library_bytes: usize) -> Result<(), MemoryError> {
        let mut held = self.lock();
        let bytes = held.head_bytes;
        if held.library_bytes != library_bytes {
            self.resize(&mut held, bytes, library_bytes)?;
        }
        held.count_connection()
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
        let mut first = may_be_first.then(|| budgets.first.enter(user.clone()).ok()).flatten();
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
        if is_multiplexed && !is_first {
            held.owed_connection = Some(budgets.connections.of(user));
            // Where there is no room, nothing more is read.
            let _ = held.count_connection();
        }
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

    fn count_connection(&mut self) -> Result<(), MemoryError> {
        if let Some(share) = &self.owed_connection {
            let mut reservation = share.reservation();
            reservation.try_grow(CONNECTION_BYTES)?;
            (self.connection, self.owed_connection) = (Some(reservation), None);
        }
        Ok(())
    }
}

/// So many connections of a caller are the first.
const FIRST_CONNECTIONS: usize = 32;
/// What a connection takes in memory, beside what is never counted. Measured: the library's buffers and the task have
/// 41 KiB.
pub(crate) const CONNECTION_BYTES: usize = 36 << 10;

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::auth::{Access, Guest};
    use crate::ids::{SessionId, ShareId};

    /// A connection of `caller` that holds as many KiB as it can, and whether it is one of their first.
    fn filled(budgets: &Arc<Http2Budgets>, caller: &Caller) -> (Http2Memory, usize, bool) {
        let memory = Http2Memory::new(Some(Arc::clone(budgets)));
        let is_first = memory.set_authenticated(caller, true);
        let kib = (0..1024).take_while(|_| memory.take(1 << 10).is_ok()).count();
        (memory, kib, is_first)
    }

    #[test]
    fn guests_hold_a_part_of_their_own() {
        let bytes = 64 << 10;
        let [whole, connections] = [bytes, 1 << 20].map(MemoryBudget::new);
        let budgets = Arc::new(Http2Budgets::new(&whole, bytes, &connections));
        let alice = Caller::new("alice").expect("a user name");
        let guest = Guest {
            share: ShareId::new(),
            session: SessionId::new(alice.user()),
            access: Access::View,
            expires: SystemTime::now(),
            owner: alice.user().clone(),
        };
        let guest = Caller::new_guest("guest".parse().expect("a user name"), guest);
        let (_guests, kib, is_first) = filled(&budgets, &guest);
        assert_eq!((kib, is_first), (8, false), "half of a quarter");
        let (_more, kib, is_first) = filled(&budgets, &guest);
        assert_eq!((kib, is_first), (0, false), "all of their host's guests together");
        let (_own, kib, is_first) = filled(&budgets, &alice);
        assert_eq!((kib, is_first), (32, true), "half of all");
    }

    #[test]
    fn connections_beyond_the_first_count_themselves() {
        let [whole, connections] = [64 << 10, 4 * CONNECTION_BYTES].map(MemoryBudget::new);
        let budgets = Arc::new(Http2Budgets::new(&whole, 64 << 10, &connections));
        let alice = Caller::new("alice").expect("a user name");
        let open = |is_multiplexed| {
            let memory = Http2Memory::new(Some(Arc::clone(&budgets)));
            let is_first = memory.set_authenticated(&alice, is_multiplexed);
            (memory, is_first)
        };
        let first: Vec<_> = (0..FIRST_CONNECTIONS).map(|_| open(true)).collect();
        assert!(first.iter().all(|(memory, is_first)| *is_first && memory.set_library(0).is_ok()));
        let (others, (next, _)) = ([open(true), open(true)], open(true));
        assert!(others.iter().all(|(memory, is_first)| !is_first && memory.set_library(0).is_ok()));
        assert!(next.set_library(0).is_err(), "a caller has half of it");
        assert!(open(false).0.set_library(0).is_ok(), "of HTTP/1.1");
        drop(others);
        assert!(next.set_library(0).is_ok());
    }
}
