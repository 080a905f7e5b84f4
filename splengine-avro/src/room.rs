//! The memory that all connections share for what they have not begun to work at.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

/// So much beyond what each connection has anyway. Where it is all taken by messages of which none
/// is whole, one of them at a time may go beyond it, so that there is an end to it.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    pieces: Arc<Semaphore>,
    beyond: Arc<Mutex<()>>,
}

/// What one connection has of it, given back when dropped.
#[derive(Debug)]
pub(crate) struct Held {
    room: Room,
    permit: Option<OwnedSemaphorePermit>,
    beyond: Option<OwnedMutexGuard<()>>,
}

impl Room {
    pub(crate) fn new(bytes: usize) -> Self {
        let pieces = bytes.div_ceil(PIECE).min(Semaphore::MAX_PERMITS);
        Self { pieces: Arc::new(Semaphore::new(pieces)), beyond: Arc::default() }
    }

    pub(crate) fn hold(&self) -> Held {
        Held { room: self.clone(), permit: None, beyond: None }
    }
}

impl Held {
    /// Waits until `bytes` can be held; gives back what was held beyond them.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, as much is held as before.
    pub(crate) async fn resize(&mut self, bytes: usize) {
        let wanted = bytes.saturating_sub(OWN).div_ceil(PIECE);
        let held = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if wanted == 0 {
            (self.permit, self.beyond) = (None, None);
        } else if let Some(permit) = self.permit.as_mut().filter(|_| wanted < held) {
            drop(permit.split(held - wanted));
        } else if wanted > held && self.beyond.is_none() {
            let more = u32::try_from(wanted - held).unwrap_or(u32::MAX);
            tokio::select! {
                biased;
                more = Arc::clone(&self.room.pieces).acquire_many_owned(more) => {
                    match (&mut self.permit, more) {
                        (Some(permit), Ok(more)) => permit.merge(more),
                        (none, more) => *none = more.ok(),
                    }
                }
                beyond = Arc::clone(&self.room.beyond).lock_owned() => self.beyond = Some(beyond),
            }
        }
    }
}

/// What a connection may hold of itself.
const OWN: usize = 64 << 10;
const PIECE: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn what_one_holds_another_waits_for() {
        let room = Room::new(1 << 20);
        let waits = async |held: &mut Held, bytes: usize| {
            timeout(Duration::from_millis(20), held.resize(OWN + bytes)).await.is_err()
        };
        let [mut first, mut second, mut third] = [(); 3].map(|()| room.hold());
        assert!(!waits(&mut first, 900 << 10).await);
        assert!(!waits(&mut second, 0).await);
        // One may go beyond, as far as it likes, and no other.
        assert!(!waits(&mut second, 200 << 10).await);
        assert!(!waits(&mut second, 16 << 20).await);
        assert!(waits(&mut third, 200 << 10).await);
        assert!(waits(&mut first, 16 << 20).await);
        second.resize(0).await;
        assert!(!waits(&mut first, 16 << 20).await);
        assert!(waits(&mut third, 200 << 10).await);
        drop(first);
        assert!(!waits(&mut third, 1 << 20).await);
        assert_eq!(room.pieces.available_permits(), 0);
        third.resize(OWN + (512 << 10)).await;
        assert_eq!(room.pieces.available_permits(), 8);
        drop(third);
        assert_eq!(room.pieces.available_permits(), 16);
    }
}
