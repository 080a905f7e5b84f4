//! Bounds on what is read and written of sessions' screens and files at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout_at;

use crate::quota::{
    CallerBudgets, CallerPlace, CallerPlaces, EngineMemory, MemoryBudget, MemoryError, PlaceError,
    Reservation,
};
use crate::session::SessionError;
use crate::terminal::Size;
use crate::time::after;
use crate::user_name::UserName;

/// Turns to read files of sessions, and memory for what is read, drawn and written of them, shared by
/// all callers of an engine. Waits are bounded, and then refused.
#[derive(Debug)]
pub(crate) struct IoBounds {
    reads: CallerBudgets,
    writes: CallerBudgets,
    turns: Arc<Semaphore>,
    turns_of: Mutex<HashMap<UserName, Weak<Semaphore>>>,
    write_turns: Arc<Semaphore>,
    /// Recordings that are open to be read, each of which takes a descriptor.
    recordings: CallerPlaces,
    timeout: Duration,
}

/// The right to read one file at a time; given back when dropped. What works on a blocking thread
/// holds it there.
#[derive(Debug)]
pub(crate) struct ReadTurn {
    _own: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

/// Memory of a caller's share, given back when dropped.
#[derive(Debug)]
pub(crate) struct IoMemory {
    budget: MemoryBudget,
    reservation: Reservation,
    timeout: Duration,
}

impl IoBounds {
    /// So many bytes for reads, and as many for writes. A wait ends after `timeout`.
    pub(crate) fn new(memory: &EngineMemory, bytes: usize, timeout: Duration) -> Self {
        let budgets = || CallerBudgets::new(&memory.budget(bytes));
        Self {
            reads: budgets(),
            writes: budgets(),
            turns: Arc::new(Semaphore::new(MAX_TURNS)),
            turns_of: Mutex::default(),
            write_turns: Arc::new(Semaphore::new(MAX_WRITE_TURNS)),
            recordings: CallerPlaces::new(MAX_OPEN_RECORDINGS),
            timeout,
        }
    }

    /// Waits for a turn to read. A caller has one at a time, so that all of a caller's waiting reads
    /// together hold others back as one does.
    ///
    /// # Errors
    ///
    /// [`SessionError::Busy`] when the time is over.
    pub(crate) async fn turn(&self, user: &UserName) -> Result<ReadTurn, SessionError> {
        let until = after(self.timeout);
        let own = timeout_at(until, self.own_turns(user).acquire_owned()).await;
        let own = own.map_err(|_| SessionError::Busy(MemoryError::CallerLimit))?;
        let of_all = timeout_at(until, Arc::clone(&self.turns).acquire_owned()).await;
        let of_all = of_all.map_err(|_| SessionError::Busy(MemoryError::Unavailable))?;
        let closed = "nobody closes it";
        Ok(ReadTurn { _own: own.expect(closed), _of_all: of_all.expect(closed) })
    }

    /// Waits for a turn to write files, so that a slow disk holds no more than a few threads. Turns come
    /// in order; what works on a blocking thread holds its turn there.
    pub(crate) async fn write_turn(&self) -> OwnedSemaphorePermit {
        let turns = Arc::clone(&self.write_turns);
        turns.acquire_owned().await.expect("nobody closes it")
    }

    /// Takes a place for a recording that `user` opens.
    ///
    /// # Errors
    ///
    /// [`SessionError::Busy`] when there is none.
    pub(crate) fn recording_place(&self, user: &UserName) -> Result<CallerPlace, SessionError> {
        self.recordings.take(user).map_err(|error| {
            SessionError::Busy(match error {
                PlaceError::OfAll { .. } => MemoryError::Unavailable,
                _ => MemoryError::CallerLimit,
            })
        })
    }

    fn own_turns(&self, user: &UserName) -> Arc<Semaphore> {
        let mut turns = self.turns_of.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = turns.get(user).and_then(Weak::upgrade) {
            return own;
        }
        turns.retain(|_, own| own.strong_count() > 0);
        let own = Arc::new(Semaphore::new(1));
        turns.insert(user.clone(), Arc::downgrade(&own));
        own
    }

    /// Reserves nothing yet of the memory for what `user` reads.
    pub(crate) fn read_memory(&self, user: &UserName) -> IoMemory {
        self.memory(self.reads.of(user), 0)
    }

    /// The same for what is written of the sessions of `user`. Those of usual size, whose screen takes
    /// no more than 2 MiB, are not counted.
    pub(crate) fn write_memory(&self, user: &UserName) -> IoMemory {
        self.memory(self.writes.of(user), WRITE_ALLOWANCE)
    }

    fn memory(&self, budget: MemoryBudget, allowance: usize) -> IoMemory {
        let reservation = budget.reservation().allowance(allowance);
        IoMemory { budget, reservation, timeout: self.timeout }
    }
}

impl IoMemory {
    /// Waits until `bytes` are reserved in all, for a bounded time.
    ///
    /// # Errors
    ///
    /// [`SessionError::Busy`] when the time is over.
    pub(crate) async fn resize(&mut self, bytes: usize) -> Result<(), SessionError> {
        let resized = self.reservation.resize_within(bytes, self.timeout).await;
        resized.map_err(SessionError::Busy)
    }

    /// Gives back what was reserved beyond `bytes`, where these fit into the budget.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        // What went beyond the budget stays so unless it is reserved anew.
        let mut smaller = self.budget.reservation();
        if smaller.try_resize(bytes).is_ok() {
            self.reservation = smaller;
        }
    }

    /// Waits until `bytes` are reserved in all, however long that takes: for what nobody asked for.
    pub(crate) async fn wait_for(&mut self, bytes: usize) {
        self.reservation.resize(bytes).await;
    }
}

/// What so many cells take as the bytes that draw them, about: most of them have colours of their own
/// then.
pub(crate) fn snapshot_bytes(cells: usize) -> usize {
    cells.saturating_mul(SNAPSHOT_BYTES_PER_CELL)
}

/// What so many cells of a screen take.
pub(crate) fn cells_bytes(cells: usize) -> usize {
    cells.saturating_mul(BYTES_PER_CELL)
}

/// What a screen of this size takes at most.
pub(crate) fn screen_bytes(size: Size, scrollback: usize) -> usize {
    let rows = usize::from(size.rows()).saturating_mul(2).saturating_add(scrollback);
    cells_bytes(usize::from(size.cols()).saturating_mul(rows))
}

/// Of all callers.
const MAX_TURNS: usize = 2;
const MAX_WRITE_TURNS: usize = 8;
const MAX_OPEN_RECORDINGS: usize = 256;
const WRITE_ALLOWANCE: usize = 2 << 20;
const BYTES_PER_CELL: usize = 16;
const SNAPSHOT_BYTES_PER_CELL: usize = 48;
