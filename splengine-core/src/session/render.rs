//! Drawing of what was printed on a session's screen, in slices of bounded cost.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, MutexGuard, PoisonError, TryLockError};

use crate::ids::SessionId;
use crate::screen::Screen;
use crate::session::live_session::LiveSession;
use crate::session::log::{Cursor, Entry};
use crate::session::render_pool::{Painted, RESIZE_COST, SLICE_CELLS};
use crate::session::screen_memory::EndedSession;
use crate::terminal::Size;
use crate::user_name::UserName;

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

    /// Does the same within one slice; returns `look` if that is not enough, or another task draws.
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

    /// Whether a program has the whole screen.
    pub(crate) async fn is_alternate(self: &Arc<Self>) -> bool {
        self.with_screen(false, |_, painted| painted.screen.is_alternate()).await
    }
}

impl EndedSession for LiveSession {
    fn id(&self) -> &SessionId {
        &self.id
    }

    fn user(&self) -> &UserName {
        &self.user
    }

    fn try_remove_history(&self) -> bool {
        let Ok(mut painted) = self.screen.try_lock() else { return false };
        painted.screen.remove_history()
    }
}

const PAINT_BYTES: usize = 64 << 10;
