//! Drawing of what was printed on a session's screen.
//!
//! A few bytes may ask a terminal for a million cells' work, again and again. So it is done in slices
//! that are bounded by their cost. The first slice is drawn at once, by whoever wants to see the screen;
//! the rest on blocking threads, of which only so many draw at a time, each session in its turn. The
//! screen's lock is held for one slice, and no worker of the runtime waits for it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, MutexGuard, PoisonError, TryLockError};

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::blocking::blocking;
use crate::quota::EngineMemory;
use crate::screen::Screen;
use crate::session::live_session::LiveSession;
use crate::session::log::{Cursor, Entry};
use crate::session::snapshots::SnapshotBudgets;
use crate::terminal::Size;

/// The screen, and how much of the log is drawn on it.
#[derive(Debug)]
pub(crate) struct Painted {
    pub(super) screen: Screen,
    pub(super) cursor: Cursor,
    /// Cost of what was drawn since somebody set it to 0, in cells.
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
    /// [slice](SLICE_CELLS) of work; after 16 of them the permit goes to whoever waits for it.
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

impl LiveSession {
    /// Draws at least what was printed before the call, and returns what `look` makes of the screen
    /// then. `is_whole` says that it looks at every cell, which takes time if these are many.
    pub(super) async fn with_screen<T: Send + 'static>(
        self: &Arc<Self>,
        is_whole: bool,
        look: impl FnOnce(&Self, &mut Painted) -> T + Send + 'static,
    ) -> T {
        let until = self.state().log.end();
        let mut look = match self.try_with_screen(until, is_whole, look) {
            Ok(seen) => return seen,
            Err(look) => Some(look),
        };
        let live = Arc::clone(self);
        let step = move || {
            let mut painted = live.painted();
            if live.paint(&mut painted, until, usize::MAX) {
                return look.take().map(|look| look(&live, &mut painted));
            }
            None
        };
        self.render_pool.run_sliced(step).await
    }

    /// Does the same within one slice; returns `look` if that is not enough, or somebody else draws.
    pub(super) fn try_with_screen<T, L: FnOnce(&Self, &mut Painted) -> T>(
        &self,
        until: Cursor,
        is_whole: bool,
        look: L,
    ) -> Result<T, L> {
        let mut painted = match self.screen.try_lock() {
            Ok(painted) => painted,
            Err(TryLockError::Poisoned(painted)) => painted.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(look),
        };
        let is_small = !is_whole || painted.screen.cells() <= SLICE_CELLS;
        if is_small && self.paint(&mut painted, until, SLICE_CELLS) {
            Ok(look(self, &mut painted))
        } else {
            Err(look)
        }
    }

    fn painted(&self) -> MutexGuard<'_, Painted> {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Draws until the screen stands for all that lies before `until`, or a slice of work is done;
    /// returns whether it does. A change of size, which is done in one go, is left alone if it costs more
    /// than `max_resize_cells`.
    fn paint(&self, painted: &mut Painted, until: Cursor, max_resize_cells: usize) -> bool {
        let mut left = SLICE_CELLS;
        loop {
            if painted.cursor.has_reached(until) && !painted.screen.is_repeating() {
                return true;
            }
            if left == 0 {
                return false;
            }
            let Some(cost) = self.paint_next(painted, left, max_resize_cells) else { return false };
            painted.spent = painted.spent.saturating_add(cost);
            left = left.saturating_sub(cost.max(1));
        }
    }

    /// Draws what is next, or as much of it as `cells` allow, and returns its cost; `None` if that is a
    /// change of size that costs too much.
    fn paint_next(
        &self,
        painted: &mut Painted,
        cells: usize,
        max_resize_cells: usize,
    ) -> Option<usize> {
        let mut next = painted.cursor;
        let (entry, colors) = {
            let state = self.state();
            (state.log.next(&mut next, PAINT_BYTES), state.colors)
        };
        let screen = &mut painted.screen;
        screen.set_default_colors(colors.in_order());
        let before = painted.cursor;
        if matches!(entry, Ok(Some(Entry::Size(_)))) && !screen.is_repeating() {
            // Each cell may become a row.
            let cost = RESIZE_COST * screen.cells();
            if cost > max_resize_cells {
                return None;
            }
        }
        // Whatever fails is not tried again.
        painted.cursor = next;
        let done = match entry {
            _ if screen.is_repeating() => {
                painted.cursor = before;
                catch_unwind(AssertUnwindSafe(|| {
                    screen.feed_within(&[], cells);
                    screen.spent()
                }))
            }
            Ok(Some(Entry::Output { data, .. })) => catch_unwind(AssertUnwindSafe(|| {
                let taken = screen.feed_within(&data, cells);
                painted.cursor = before.advanced(taken);
                screen.spent()
            })),
            Ok(Some(Entry::Size(size))) => catch_unwind(AssertUnwindSafe(|| {
                let before = screen.cells();
                screen.resize(size.cols(), size.rows());
                let state = self.state();
                self.memory.shrink_to([size, state.size]);
                drop(state);
                RESIZE_COST * (before + screen.cells())
            })),
            Ok(None) => Ok(0),
            // Whoever prints paints, before more is printed than is kept.
            Err(_) => {
                painted.cursor = self.state().log.end();
                Ok(0)
            }
        };
        Some(done.unwrap_or_else(|_| {
            tracing::error!(session = %self.id, "the screen of a session failed and is drawn anew");
            let size = self.state().size;
            painted.screen = self.empty_screen(size);
            painted.screen.cells()
        }))
    }

    fn empty_screen(&self, size: Size) -> Screen {
        let mut screen = Screen::new(size.cols(), size.rows(), self.policy.scrollback);
        screen.count_history(self.memory.clone());
        screen
    }

    /// Makes the screen small, now that the program has ended.
    pub(crate) async fn shrink_screen(self: &Arc<Self>) {
        self.with_screen(true, |live, painted| live.memory.end(&mut painted.screen)).await;
    }

    /// Removes the lines above the screen, unless there are none or somebody looks at it.
    pub(crate) fn try_remove_history(&self) -> bool {
        let Ok(mut painted) = self.screen.try_lock() else { return false };
        painted.screen.remove_history()
    }

    /// Whether a program has the whole screen.
    pub(crate) async fn is_alternate(self: &Arc<Self>) -> bool {
        self.with_screen(false, |_, painted| painted.screen.is_alternate()).await
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
const PAINT_BYTES: usize = 64 << 10;
