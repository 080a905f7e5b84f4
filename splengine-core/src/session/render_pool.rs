//! Permits to draw the screens of sessions.
//!
//! A few bytes may ask a terminal for a million cells' work, again and again. So it is done in slices
//! that are bounded by their cost. The first slice is drawn at once, by the task that needs the screen;
//! the rest on blocking threads, of which only so many draw at a time, each session in its turn. The
//! screen's lock is held for one slice, and no worker of the runtime waits for it.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::blocking::blocking;
use crate::quota::EngineMemory;
use crate::screen::Screen;
use crate::session::log::Cursor;
use crate::session::snapshot_memory::SnapshotBudgets;
use crate::terminal::Size;

/// The screen, and how much of the log is drawn on it.
#[derive(Debug)]
pub(crate) struct Painted {
    pub(super) screen: Screen,
    pub(super) cursor: Cursor,
    /// Cost of what was drawn since it was reset, in cells.
    pub(super) spent: usize,
}

/// Permits to draw on a blocking thread, shared by all sessions of an engine: half as many as there are
/// processors, at least one. Who waits for one is served in order.
#[derive(Debug, Clone)]
pub(crate) struct RenderPool {
    permits: Arc<Semaphore>,
    /// The memory of what is drawn.
    pub(super) snapshots: SnapshotBudgets,
}

impl RenderPool {
    /// A pool for screens whose snapshots may take so many bytes together.
    pub(crate) fn new(memory: &EngineMemory, max_snapshot_bytes: usize) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let permits = Arc::new(Semaphore::new((processors / 2).max(1)));
        Self { permits, snapshots: SnapshotBudgets::new(memory, max_snapshot_bytes) }
    }

    /// Calls `step` on a blocking thread until it returns something. One call is to do about a
    /// [slice](SLICE_CELLS) of work; after 16 of them the permit goes to the next session that waits
    /// for it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the work after 16 calls at most.
    pub(crate) async fn run_sliced<T: Send + 'static>(
        &self,
        mut step: impl FnMut() -> Option<T> + Send + 'static,
    ) -> T {
        loop {
            let permit = Arc::clone(&self.permits).acquire_owned().await.expect("nobody closes it");
            let (left, done) = blocking(move || {
                let _permit = permit;
                let done = (0..SLICES_PER_PERMIT).find_map(|_| step());
                (step, done)
            })
            .await;
            if let Some(done) = done {
                return done;
            }
            step = left;
        }
    }

    /// Draws on a screen of this size the pieces that `next` takes from `source` on a blocking thread, up
    /// to an empty one, and returns what `look` makes of the screen and of `source`.
    ///
    /// # Errors
    ///
    /// Those of `next`.
    ///
    /// # Cancel safety
    ///
    /// As [`run_sliced`](Self::run_sliced). `source` is dropped when the work ends.
    pub(crate) async fn redrawn<S, T, E>(
        &self,
        size: Size,
        scrollback: usize,
        source: S,
        mut next: impl FnMut(&mut S) -> Result<Bytes, E> + Send + 'static,
        look: impl FnOnce(Screen, S) -> T + Send + 'static,
    ) -> Result<T, E>
    where
        S: Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let mut data = Bytes::new();
        let screen = Screen::new(size.cols(), size.rows(), scrollback);
        let mut drawing = Some((screen, source, look));
        self.run_sliced(move || {
            let (screen, source, _) = drawing.as_mut()?;
            let mut left = SLICE_CELLS;
            while left > 0 {
                if data.is_empty() && !screen.is_repeating() {
                    match next(source) {
                        Ok(piece) if !piece.is_empty() => data = piece,
                        Ok(_) => {
                            let (screen, source, look) = drawing.take()?;
                            return Some(Ok(look(screen, source)));
                        }
                        Err(error) => return Some(Err(error)),
                    }
                }
                let taken = screen.feed_within(&data, left);
                let _ = data.split_to(taken);
                left = left.saturating_sub(screen.spent().max(1));
            }
            None
        })
        .await
    }
}

impl Painted {
    pub(super) fn size(&self) -> Size {
        let (cols, rows) = self.screen.size();
        Size::clamped(cols, rows)
    }
}

/// Cost of a slice of work, in cells: some hundred microseconds.
pub(crate) const SLICE_CELLS: usize = 256 << 10;
/// Number of slices for which a permit is held.
const SLICES_PER_PERMIT: usize = 16;
/// What it costs to lay out a screen anew, by its cells.
pub(crate) const RESIZE_COST: usize = 4;
