//! Memory of the screens that are drawn for clients, and of those that are written to disk.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::quota::{CallerBudgets, EngineMemory, MemoryBudget, Reservation};
use crate::session::log::Cursor;
use crate::terminal::Size;
use crate::user_name::UserName;

/// Bound on the bytes of all snapshots that are drawn and not dropped yet, of which the clients of one
/// user's sessions have half of what others leave. What is written to disk has a quarter as much of its
/// own, lest it waits for clients. Cheap to clone: clones share one bound.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotBudgets {
    users: CallerBudgets,
    stored: MemoryBudget,
}

impl SnapshotBudgets {
    pub(crate) fn new(memory: &EngineMemory, bytes: usize) -> Self {
        let users = CallerBudgets::new(&memory.budget(bytes));
        Self { users, stored: MemoryBudget::new(bytes / 4) }
    }

    pub(crate) fn of(&self, user: &UserName) -> Reservation {
        self.users.of(user).reservation().allowance(FREE_BYTES)
    }

    /// Of what is written to disk.
    pub(crate) fn of_store(&self) -> Reservation {
        self.stored.reservation().allowance(FREE_BYTES)
    }
}

/// What is known of a session's last snapshot.
#[derive(Debug)]
pub(crate) struct LastSnapshot {
    /// Number of bytes that the next one is expected to have at most.
    expected: AtomicUsize,
    /// As long as a client has it.
    shared: Mutex<Option<(Cursor, Size, Weak<Drawn>)>>,
    /// Tells those who wait for memory of one more.
    drawn: Notify,
}

/// A snapshot, with its memory.
#[derive(Debug)]
struct Drawn {
    bytes: Vec<u8>,
    _reservation: Reservation,
}

#[derive(Debug)]
struct Shared(Arc<Drawn>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}

/// Bytes that keep `reservation`, shrunk to their number, until the last copy is dropped.
pub(crate) fn with_reservation(bytes: Vec<u8>, reservation: Reservation) -> Bytes {
    Bytes::from_owner(Shared(drawn(bytes, reservation)))
}

fn drawn(mut bytes: Vec<u8>, mut reservation: Reservation) -> Arc<Drawn> {
    bytes.shrink_to_fit();
    // Less is there without waiting.
    let _ = reservation.try_resize(bytes.len());
    Arc::new(Drawn { bytes, _reservation: reservation })
}

impl LastSnapshot {
    pub(crate) fn new() -> Self {
        Self {
            expected: AtomicUsize::new(FREE_BYTES),
            shared: Mutex::default(),
            drawn: Notify::new(),
        }
    }

    /// Number of bytes that the next one is expected to have at most.
    pub(crate) fn expected(&self) -> usize {
        self.expected.load(Relaxed)
    }

    /// Waits until the next one is shared.
    pub(crate) async fn drawn(&self) {
        self.drawn.notified().await;
    }

    /// The last one, if a client still has it.
    pub(crate) fn get(&self) -> Option<(Cursor, Size, Bytes)> {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let (cursor, size, drawn) = shared.as_ref()?;
        let drawn = drawn.upgrade()?;
        Some((*cursor, *size, Bytes::from_owner(Shared(drawn))))
    }

    /// Keeps one to be shared as long as a client has it.
    pub(crate) fn share(
        &self,
        cursor: Cursor,
        size: Size,
        bytes: Vec<u8>,
        reservation: Reservation,
    ) -> Bytes {
        self.expected.store(with_margin(bytes.len()), Relaxed);
        let drawn = drawn(bytes, reservation);
        let weak = Arc::downgrade(&drawn);
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = Some((cursor, size, weak));
        self.drawn.notify_waiters();
        Bytes::from_owner(Shared(drawn))
    }
}

/// `bytes`, and what may have been added by the next time.
fn with_margin(bytes: usize) -> usize {
    (bytes + bytes / 8).max(FREE_BYTES)
}

/// Bytes of each snapshot that are not counted: small screens never wait.
const FREE_BYTES: usize = 64 << 10;
