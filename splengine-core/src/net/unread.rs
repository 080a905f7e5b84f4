//! What the buffers of a protocol library hold of requests' bodies that nobody has read yet.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The bodies of the requests of one multiplexed connection.
///
/// A library that cuts frames out of what it has read keeps all of that until each of the frames is taken:
/// a small frame of a body that nobody reads can hold much more than its own length, whatever came with it.
/// So what is held is at most what was read of the connection since the body that lags behind most had nothing left.
#[derive(Debug, Default)]
pub(crate) struct UnreadBodies {
    /// How many bytes were read of the connection.
    read: AtomicU64,
    bodies: Mutex<Bodies>,
}

#[derive(Debug, Default)]
struct Bodies {
    next: u64,
    /// By number, how much was read when nothing was left of the body.
    drained_at: HashMap<u64, u64>,
}

impl UnreadBodies {
    /// Counts what was read of the connection.
    pub(super) fn count(&self, bytes: usize) {
        self.read.fetch_add(bytes as u64, Relaxed);
    }

    /// How many bytes the library may hold.
    pub(super) fn held(&self) -> usize {
        let oldest = self.lock().drained_at.values().min().copied();
        let held = oldest.map_or(0, |oldest| self.read.load(Relaxed).saturating_sub(oldest));
        usize::try_from(held).unwrap_or(usize::MAX)
    }

    /// How many bytes were read of the connection.
    pub(super) fn read(&self) -> u64 {
        self.read.load(Relaxed)
    }

    /// Adds a body, and gives its number.
    pub(super) fn add(&self) -> u64 {
        let mut bodies = self.lock();
        let number = bodies.next;
        bodies.next += 1;
        bodies.drained_at.insert(number, self.read());
        number
    }

    /// Notes how much had been read when nothing was left of a body.
    pub(super) fn set_drained_at(&self, number: u64, read: u64) {
        self.lock().drained_at.insert(number, read);
    }

    pub(super) fn remove(&self, number: u64) {
        self.lock().drained_at.remove(&number);
    }

    fn lock(&self) -> MutexGuard<'_, Bodies> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
