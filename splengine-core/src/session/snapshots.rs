//! Screens that are drawn for clients, whose memory is reserved before they are drawn.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;

use crate::quota::{MemoryError, Reservation};
use crate::session::live_session::LiveSession;
use crate::session::log::Cursor;
use crate::session::render_pool::Painted;
use crate::session::snapshot_memory::with_reservation;
use crate::terminal::Size;

impl LiveSession {
    /// What draws the screen as it is now, and the place in the log that it stands for. Clients share
    /// one where nothing was printed in between, or little while there is no memory for another.
    ///
    /// # Errors
    ///
    /// [`MemoryError`] where there is none for [a while](MEMORY_TIMEOUT).
    pub(crate) async fn snapshot(self: &Arc<Self>) -> Result<(Cursor, Size, Bytes), MemoryError> {
        if let Some(shared) = self.shared_snapshot(0) {
            return Ok(shared);
        }
        let drawn = async {
            loop {
                self.last_snapshot.drawn().await;
                if let Some(shared) = self.shared_snapshot(MAX_BEHIND_BYTES) {
                    return shared;
                }
            }
        };
        // In a task of its own, so that no other waits for it while nobody asks this future.
        let live = Arc::clone(self);
        let mut drawing = JoinSet::new();
        drawing.spawn(async move { live.draw_shared().await });
        tokio::select! {
            biased;
            shared = drawn => Ok(shared),
            Some(drawn) = drawing.join_next() => match drawn {
                Ok(Ok(drawn)) => Ok(drawn),
                Ok(Err(shortage)) => self.shared_snapshot(MAX_BEHIND_BYTES).ok_or(shortage),
                Err(_) => Err(MemoryError::Unavailable),
            },
        }
    }

    async fn draw_shared(self: &Arc<Self>) -> Result<(Cursor, Size, Bytes), MemoryError> {
        let reservation = self.snapshot_reservation();
        let draw = self.draw_within(reservation, Some(MEMORY_TIMEOUT), snapshot_within);
        let ((cursor, size, bytes), reservation) = draw.await?;
        Ok((cursor, size, self.last_snapshot.share(cursor, size, bytes, reservation)))
    }

    /// The same for what is written to disk, which waits for memory for as long as it takes.
    pub(crate) async fn snapshot_to_store(self: &Arc<Self>) -> (Cursor, Size, Bytes) {
        let reservation = self.render_pool.snapshots.of_store();
        let drawn = self.draw_within(reservation, None, snapshot_within);
        match drawn.await {
            Ok(((cursor, size, bytes), reservation)) => {
                (cursor, size, with_reservation(bytes, reservation))
            }
            Err(error) => unreachable!("nothing waits only so long: {error}"),
        }
    }

    /// The same, if there is memory now.
    ///
    /// # Errors
    ///
    /// [`MemoryError`] where there is none.
    pub(crate) async fn try_snapshot_to_store(
        self: &Arc<Self>,
    ) -> Result<(Cursor, Size, Bytes), MemoryError> {
        let reservation = self.render_pool.snapshots.of_store();
        let drawn = self.draw_within(reservation, Some(Duration::ZERO), snapshot_within);
        let ((cursor, size, bytes), reservation) = drawn.await?;
        Ok((cursor, size, with_reservation(bytes, reservation)))
    }

    /// A snapshot, if one slice of work is enough for it, and there is memory.
    pub(crate) fn try_snapshot(&self) -> Option<(Cursor, Size, Bytes)> {
        if let Some(shared) = self.shared_snapshot(0) {
            return Some(shared);
        }
        let mut reservation = self.snapshot_reservation();
        let most = self.last_snapshot.expected();
        reservation.try_resize(most).ok()?;
        let until = self.state().log.end();
        let look = |_: &Self, painted: &mut Painted| snapshot_within(painted, most);
        let (cursor, size, bytes) = self.try_with_screen(until, true, look).ok()?.ok()?;
        Some((cursor, size, self.last_snapshot.share(cursor, size, bytes, reservation)))
    }

    /// Draws with `draw`, which is told how many bytes it may make, and gives up with how many it may
    /// take. Memory for these is reserved before.
    pub(crate) async fn draw_within<T: Send + 'static>(
        self: &Arc<Self>,
        mut reservation: Reservation,
        patience: Option<Duration>,
        draw: impl Fn(&Painted, usize) -> Result<T, usize> + Copy + Send + 'static,
    ) -> Result<(T, Reservation), MemoryError> {
        let mut most = self.last_snapshot.expected();
        loop {
            match patience {
                Some(patience) => reservation.resize_within(most, patience).await?,
                None => reservation.resize(most).await,
            }
            match self.with_screen(true, move |_, painted| draw(painted, most)).await {
                Ok(drawn) => return Ok((drawn, reservation)),
                Err(wanted) => most = wanted.max(2 * most),
            }
            // Held while it waits for more, it could keep others waiting.
            reservation.resize(0).await;
        }
    }

    /// The memory of what is drawn for clients of this session.
    pub(crate) fn snapshot_reservation(&self) -> Reservation {
        self.render_pool.snapshots.of(&self.user)
    }

    /// The last snapshot, if a client still has it and no more than this number of bytes was printed
    /// since.
    fn shared_snapshot(&self, max_behind: u64) -> Option<(Cursor, Size, Bytes)> {
        let (at, size, snapshot) = self.last_snapshot.get()?;
        let mut cursor = at;
        let state = self.state();
        let end = state.log.end();
        let behind = end.offset.saturating_sub(at.offset);
        let is_near = at == end
            || max_behind > 0 && behind <= max_behind && state.log.next(&mut cursor, 1).is_ok();
        is_near.then_some((at, size, snapshot))
    }
}

fn snapshot_within(painted: &Painted, most: usize) -> Result<(Cursor, Size, Vec<u8>), usize> {
    Ok((painted.cursor, painted.size(), painted.screen.snapshot_within(most)?))
}

/// How long a snapshot may wait for memory.
pub(crate) const MEMORY_TIMEOUT: Duration = Duration::from_secs(5);
/// With so much printed since, a snapshot is shared where there is no memory for another.
const MAX_BEHIND_BYTES: u64 = 64 << 10;
