//! What the buffers of a protocol library hold of requests' bodies that nobody has read yet.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::net::http2_frames::{Arrived, BUFFER_BYTES};

/// The bodies of the requests of one multiplexed connection.
///
/// A library that cuts frames out of what it has read keeps all of that until each of the frames is taken:
/// a small frame of a body that no one reads can hold much more than its own length, whatever came with it.
/// So what is held is at most what was read of the connection since the body that lags behind most had nothing left;
/// and no more than what the frames have that are not taken, and a buffer for each.
#[derive(Debug, Default)]
pub(crate) struct UnreadBodies {
    /// How many bytes were read of the connection.
    read: AtomicU64,
    bodies: Mutex<Bodies>,
}

#[derive(Debug, Default)]
struct Bodies {
    next: u64,
    /// By number, how much was read when nothing was left of the body; none of one that waits for more.
    drained_at: HashMap<u64, Option<u64>>,
    /// By number, bodies that nobody has begun to read, and how their requests are told that they are refused.
    untouched: BTreeMap<u64, Arc<Notify>>,
    /// How many frames of bodies have come and were not taken. Those of a body that was dropped never are, and
    /// count until there is no body.
    frames: usize,
    /// How many bytes those frames have.
    bytes: usize,
}

impl UnreadBodies {
    /// Counts what was read of the connection.
    pub(super) fn count(&self, bytes: usize) {
        self.read.fetch_add(bytes as u64, Relaxed);
    }

    /// Counts frames of bodies, of which the library has to know before it is asked for more.
    pub(super) fn count_frames(&self, arrived: Arrived) {
        if arrived.data_frames > 0 {
            let mut bodies = self.lock();
            bodies.frames = bodies.frames.saturating_add(arrived.data_frames);
            bodies.bytes = bodies.bytes.saturating_add(arrived.data_bytes);
        }
    }

    /// How many bytes the library may hold.
    pub(super) fn held(&self) -> usize {
        let bodies = self.lock();
        let oldest = bodies.drained_at.values().copied().flatten().min();
        let held = oldest.map_or(0, |oldest| self.read.load(Relaxed).saturating_sub(oldest));
        // What is counted as a body may be a head that waits.
        let frames = bodies.frames.saturating_add(bodies.drained_at.len());
        let of_frames = frames.saturating_mul(BUFFER_BYTES);
        let most = of_frames.saturating_add(bodies.bytes);
        usize::try_from(held).unwrap_or(usize::MAX).min(most)
    }

    /// How many bytes were read of the connection.
    pub(super) fn read(&self) -> u64 {
        self.read.load(Relaxed)
    }

    /// Adds a body, and gives its number. Its request is told by `refused` if it is.
    pub(super) fn add(&self, refused: Arc<Notify>) -> u64 {
        let mut bodies = self.lock();
        let number = bodies.next;
        bodies.next += 1;
        bodies.drained_at.insert(number, Some(self.read()));
        bodies.untouched.insert(number, refused);
        number
    }

    /// Notes that somebody has begun to read a body.
    pub(super) fn set_touched(&self, number: u64) {
        self.lock().untouched.remove(&number);
    }

    /// Refuses some requests that have not begun to read their bodies, the latest.
    pub(super) fn refuse_some(&self) {
        let mut bodies = self.lock();
        for _ in 0..REFUSED_AT_ONCE {
            let Some((_, refused)) = bodies.untouched.pop_last() else { return };
            refused.notify_one();
        }
    }

    /// Notes how much had been read when nothing was left of a body; none when it waits for more.
    pub(super) fn set_drained_at(&self, number: u64, read: Option<u64>) {
        // It may be over.
        if let Some(drained_at) = self.lock().drained_at.get_mut(&number) {
            *drained_at = read;
        }
    }

    /// Notes that more has come of a body that waited for it.
    pub(super) fn set_woken(&self, number: u64) {
        let read = self.read().saturating_sub(MAX_READ_WITH_FRAME);
        if let Some(drained_at @ None) = self.lock().drained_at.get_mut(&number) {
            *drained_at = Some(read);
        }
    }

    /// Notes that a frame of a body was taken, which had so many bytes.
    pub(super) fn set_taken(&self, bytes: usize) {
        let mut bodies = self.lock();
        bodies.frames = bodies.frames.saturating_sub(1);
        // Padding is not taken.
        bodies.bytes = if bodies.frames == 0 { 0 } else { bodies.bytes.saturating_sub(bytes) };
    }

    pub(super) fn remove(&self, number: u64) {
        let mut bodies = self.lock();
        bodies.drained_at.remove(&number);
        bodies.untouched.remove(&number);
        if bodies.drained_at.is_empty() {
            (bodies.frames, bodies.bytes) = (0, 0);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Bodies> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of 64 KiB each.
const REFUSED_AT_ONCE: usize = 8;
/// How much may be read before a body is told of a frame that is in it.
const MAX_READ_WITH_FRAME: u64 = 32 << 10;
