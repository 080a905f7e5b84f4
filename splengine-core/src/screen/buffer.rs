//! One of the two screens: rows, a cursor, and what moves it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::cell::Cell;
use super::charset::Charset;
use super::history::{History, HistoryMemory};
use super::row::Row;

#[derive(Debug)]
pub(super) struct Buffer {
    /// Those above the screen, then those of it.
    pub(super) rows: VecDeque<Row>,
    /// How many lie above the screen.
    pub(super) base: usize,
    /// How many may.
    pub(super) scrollback: usize,
    /// The memory of those.
    pub(super) history: History,
    pub(super) x: usize,
    pub(super) y: usize,
    /// The margins: the first and the last row that scroll.
    pub(super) top: usize,
    pub(super) bottom: usize,
    pub(super) saved: Saved,
    /// Cost of what was done to its rows, in cells, since the last look at it.
    pub(super) spent: usize,
    tabs: Vec<bool>,
}

/// What DECSC saves.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Saved {
    pub(super) x: usize,
    /// Counted from the first row that is kept.
    pub(super) y: usize,
    pub(super) look: Cell,
    pub(super) charset: Charset,
}

impl Buffer {
    pub(super) fn new(cols: usize, rows: usize, scrollback: usize) -> Self {
        let mut buffer = Self {
            rows: VecDeque::new(),
            base: 0,
            scrollback,
            history: History::default(),
            x: 0,
            y: 0,
            top: 0,
            bottom: rows - 1,
            saved: Saved::default(),
            spent: 0,
            tabs: Vec::new(),
        };
        buffer.set_up_tabs(cols);
        buffer
    }

    /// Makes the rows of the screen, if there are none.
    pub(super) fn fill(&mut self, cell: Cell, cols: usize, rows: usize) {
        if self.rows.is_empty() {
            self.spend_rows(rows, cell, cols);
            self.rows.extend((0..rows).map(|_| Row::filled(cell, cols)));
        }
    }

    pub(super) fn clear(&mut self, cols: usize, rows: usize) {
        let (saved, spent) = (self.saved, self.spent + self.rows.len());
        *self = Self::new(cols, rows, self.scrollback);
        (self.saved, self.spent) = (saved, spent);
    }

    /// A row of the screen.
    pub(super) fn row(&mut self, y: usize) -> &mut Row {
        let at = (self.base + y).min(self.rows.len() - 1);
        &mut self.rows[at]
    }

    pub(super) fn current(&mut self) -> &mut Row {
        self.row(self.y)
    }

    /// Moves the rows between the margins up by one.
    pub(super) fn scroll(&mut self, fill: Cell, cols: usize, wrapped: bool) {
        // Those behind the place at which a row is taken out, or put in, move.
        let behind = self.base + if self.top > 0 { 0 } else { self.bottom };
        self.spend_rows(1, fill, cols);
        self.spent += 2 * ROW_COST * self.rows.len().saturating_sub(behind);
        if self.top > 0 {
            let last = self.base + self.bottom;
            let mut row = self.rows.remove(self.base + self.top).unwrap_or_default();
            row.fill(fill, cols);
            row.wrapped = wrapped;
            return self.rows.insert(last.min(self.rows.len()), row);
        }
        let mut row = if self.base >= self.scrollback {
            let topmost = self.rows.get(self.base).map_or(0, Row::bytes);
            // The oldest gives its memory to the newest.
            let oldest = self.rows.pop_front().unwrap_or_default();
            if self.scrollback > 0 {
                self.saved.y = self.saved.y.saturating_sub(1);
                self.history.bytes = (self.history.bytes + topmost).saturating_sub(oldest.bytes());
            }
            oldest
        } else {
            // It is looked through for blanks at its end, and copied.
            self.spent += 2 * self.rows[self.base].cells().len();
            self.rows[self.base].shrink();
            self.history.bytes += self.rows[self.base].bytes();
            self.base += 1;
            Row::default()
        };
        self.fit_history();
        row.fill(fill, cols);
        row.wrapped = wrapped;
        let at = self.base + self.bottom;
        self.rows.insert(at.min(self.rows.len()), row);
    }

    /// Removes the oldest of the rows above the screen until there is memory for those that stay.
    fn fit_history(&mut self) {
        while !self.history.fits() && self.remove_oldest() {}
    }

    /// Removes the oldest row above the screen; `false` if there is none.
    fn remove_oldest(&mut self) -> bool {
        if self.base == 0 {
            self.history.bytes = 0;
            return false;
        }
        self.base -= 1;
        self.saved.y = self.saved.y.saturating_sub(1);
        let bytes = self.rows.pop_front().map_or(0, |row| row.bytes());
        self.history.bytes = self.history.bytes.saturating_sub(bytes);
        true
    }

    /// Counts the memory of the rows above the screen anew, and removes the oldest of them until there
    /// is memory for those that stay.
    pub(super) fn recount_history(&mut self) {
        self.history.bytes = self.rows.iter().take(self.base).map(Row::bytes).sum();
        self.history.release_rest();
        self.fit_history();
    }

    /// Has the memory of the rows above the screen reserved from `source` from now on.
    pub(super) fn count_history(&mut self, source: Arc<dyn HistoryMemory>) {
        self.history = History::new(source);
        self.recount_history();
    }

    /// Removes the rows above the screen; `false` if there were none.
    pub(super) fn remove_history(&mut self) -> bool {
        let had_some = self.base > 0;
        while self.remove_oldest() {}
        self.history.release_rest();
        had_some
    }

    /// Gives back memory that its rows do not need; returns how many bytes those of the screen take.
    pub(super) fn shrink(&mut self) -> usize {
        self.rows.iter_mut().for_each(Row::shrink);
        self.recount_history();
        self.rows.iter().skip(self.base).map(Row::bytes).sum()
    }

    /// Moves the rows of the screen from `first` to `last` up by `count`, at most all of them, and
    /// empties those at the end.
    pub(super) fn shift_up(
        &mut self,
        (first, last): (usize, usize),
        count: usize,
        fill: Cell,
        cols: usize,
    ) {
        let Some(count) = self.rotate(first, last, count, true) else { return };
        self.empty(last + 1 - count..last + 1, fill, cols);
    }

    /// Moves the rows of the screen from `first` to `last` down by `count`, at most all of them, and
    /// empties those at the beginning.
    pub(super) fn shift_down(
        &mut self,
        (first, last): (usize, usize),
        count: usize,
        fill: Cell,
        cols: usize,
    ) {
        let Some(count) = self.rotate(first, last, count, false) else { return };
        self.empty(first..first + count, fill, cols);
    }

    /// Rotates rows by `count`, in time that does not depend on it; gives by how many there were.
    fn rotate(&mut self, first: usize, last: usize, count: usize, up: bool) -> Option<usize> {
        let last = last.min((self.rows.len() - self.base).checked_sub(1)?);
        let length = (last + 1).checked_sub(first).filter(|length| *length > 0)?;
        let count = count.min(length);
        self.spent += 2 * ROW_COST * length;
        let (first, end) = (self.base + first, self.base + last + 1);
        let split = if up { first + count } else { end - count };
        for (mut low, mut high) in [(first, split), (split, end), (first, end)] {
            while low + 1 < high {
                high -= 1;
                self.rows.swap(low, high);
                low += 1;
            }
        }
        Some(count)
    }

    fn empty(&mut self, rows: std::ops::Range<usize>, fill: Cell, cols: usize) {
        self.spend_rows(rows.len(), fill, cols);
        for y in rows {
            let row = self.row(y);
            row.fill(fill, cols);
            row.wrapped = false;
        }
    }

    /// Accounts for so many rows that are filled.
    pub(super) fn spend_rows(&mut self, rows: usize, fill: Cell, cols: usize) {
        self.spent += rows * if fill == Cell::default() { ROW_COST } else { ROW_COST + cols };
    }

    pub(super) fn set_up_tabs(&mut self, cols: usize) {
        self.tabs.clear();
        self.tabs.resize(cols + 1, false);
        (0..cols).step_by(TAB).for_each(|at| self.tabs[at] = true);
    }

    /// Goes on with tab stops where there were none, after the screen got wider.
    pub(super) fn widen_tabs(&mut self, cols: usize) {
        let from = if self.has_tab(cols) { cols } else { self.tab_before(cols) };
        if self.tabs.len() < cols + 1 {
            self.tabs.resize(cols + 1, false);
        }
        (from..cols).step_by(TAB).for_each(|at| self.tabs[at] = true);
    }

    pub(super) fn has_tab(&self, at: usize) -> bool {
        self.tabs.get(at).copied().unwrap_or(false)
    }

    pub(super) fn set_tab(&mut self, at: usize, on: bool) {
        if at >= self.tabs.len() {
            self.tabs.resize(at + 1, false);
        }
        self.tabs[at] = on;
    }

    pub(super) fn clear_tabs(&mut self) {
        self.tabs.fill(false);
    }

    pub(super) fn tab_after(&self, at: usize, cols: usize) -> usize {
        (at + 1..cols).find(|at| self.has_tab(*at)).unwrap_or(cols - 1)
    }

    pub(super) fn tab_before(&self, at: usize) -> usize {
        (0..at).rev().find(|at| self.has_tab(*at)).unwrap_or(0)
    }
}

const TAB: usize = 8;
/// What it costs to move or empty a row, in cells.
const ROW_COST: usize = 2;
