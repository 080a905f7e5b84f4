//! One row of cells. What lies beyond those that are stored is empty.

use super::cell::{Cell, Flags};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Row {
    cells: Vec<Cell>,
    /// It goes on with what did not fit on the row before it.
    pub(super) wrapped: bool,
}

impl Row {
    /// A row filled with `cell`.
    pub(super) fn filled(cell: Cell, cols: usize) -> Self {
        let mut row = Self::default();
        row.fill(cell, cols);
        row
    }

    pub(super) fn fill(&mut self, cell: Cell, cols: usize) {
        self.cells.clear();
        if cell != Cell::default() {
            touch(cols);
            self.grow(cols);
            self.cells.resize(cols, cell);
        }
    }

    pub(super) fn get(&self, at: usize) -> Cell {
        self.cells.get(at).copied().unwrap_or_default()
    }

    pub(super) fn set(&mut self, at: usize, cell: Cell) {
        if at >= self.cells.len() {
            if cell == Cell::default() {
                return;
            }
            touch(at - self.cells.len());
            self.grow(at + 1);
            self.cells.resize(at + 1, Cell::default());
        }
        touch(1);
        self.cells[at] = cell;
    }

    /// Writes ASCII with this look, from `at` on.
    pub(super) fn set_ascii(&mut self, at: usize, text: &[u8], look: Cell) {
        touch(text.len() + at.saturating_sub(self.cells.len()));
        self.grow(at + text.len());
        if self.cells.len() < at {
            self.cells.resize(at, Cell::default());
        }
        let over = (self.cells.len() - at).min(text.len());
        for (cell, byte) in self.cells[at..at + over].iter_mut().zip(text) {
            *cell = Cell { text: u32::from(*byte), ..look };
        }
        self.cells.extend(text[over..].iter().map(|byte| Cell { text: u32::from(*byte), ..look }));
    }

    /// Makes space for so many cells. It grows by less than a vector does by itself, so that a row never
    /// takes more than [`max_bytes`](Self::max_bytes).
    fn grow(&mut self, cells: usize) {
        let capacity = self.cells.capacity();
        if cells > capacity {
            let wanted = cells.max(capacity + capacity / 4).max(MIN_CAPACITY);
            self.cells.reserve_exact(wanted - self.cells.len());
        }
    }

    /// Bytes of memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.cells.capacity() * size_of::<Cell>()
    }

    /// Bytes of memory that a row of so many columns takes at most.
    pub(super) const fn max_bytes(cols: usize) -> usize {
        let cells = if cols < MIN_CAPACITY { MIN_CAPACITY } else { cols + cols / 4 };
        size_of::<Self>() + cells * size_of::<Cell>()
    }

    /// Without what is empty at its end.
    pub(super) fn trim(&mut self) {
        touch(self.cells.len());
        let kept = self.cells.iter().rposition(|cell| *cell != Cell::default());
        self.cells.truncate(kept.map_or(0, |last| last + 1));
    }

    /// Gives back memory that it needs no more.
    pub(super) fn shrink(&mut self) {
        self.trim();
        if self.cells.capacity() > self.cells.len() + self.cells.len() / 4 + 4 {
            self.cells.shrink_to_fit();
        }
    }

    pub(super) fn cells(&self) -> &[Cell] {
        &self.cells
    }

    pub(super) fn truncate(&mut self, cols: usize) {
        self.cells.truncate(cols);
    }

    /// The length up to the last cell that something stands in.
    pub(super) fn content_length(&self) -> usize {
        let last = self.cells.iter().rposition(|cell| !cell.is_empty());
        last.map_or(0, |at| at + usize::from(self.cells[at].width()))
    }

    /// Makes empty what is half of a wide character at `at`.
    fn unpair(&mut self, at: usize, fill: Cell) {
        self.set(at, fill.with(0, 1));
    }

    pub(super) fn insert(&mut self, at: usize, count: usize, fill: Cell, cols: usize) {
        let at = at % cols;
        if at > 0 && self.get(at - 1).width() == 2 {
            self.unpair(at - 1, fill);
        }
        let count = count.min(cols - at);
        touch(2 * cols);
        self.grow(cols);
        self.cells.resize(cols, Cell::default());
        self.cells.copy_within(at..cols - count, at + count);
        self.cells[at..at + count].fill(fill);
        if self.get(cols - 1).width() == 2 {
            self.unpair(cols - 1, fill);
        }
        self.trim();
    }

    pub(super) fn delete(&mut self, at: usize, count: usize, fill: Cell, cols: usize) {
        let at = at % cols;
        let count = count.min(cols - at);
        touch(2 * cols);
        self.grow(cols);
        self.cells.resize(cols, Cell::default());
        self.cells.copy_within(at + count..cols, at);
        self.cells[cols - count..].fill(fill);
        if at > 0 && self.get(at - 1).width() == 2 {
            self.unpair(at - 1, fill);
        }
        let first = self.get(at);
        if first.width() == 0 && first.is_empty() {
            self.unpair(at, fill);
        }
        self.trim();
    }

    /// Puts `fill` into `from..until`; with `spare` not over what is protected.
    pub(super) fn replace(
        &mut self,
        from: usize,
        until: usize,
        fill: Cell,
        cols: usize,
        spare: bool,
    ) {
        let is_protected = |row: &Self, at: usize| spare && row.get(at).flags.has(Flags::PROTECTED);
        if from > 0 && self.get(from - 1).width() == 2 && !is_protected(self, from - 1) {
            self.unpair(from - 1, fill);
        }
        if until < cols
            && until > 0
            && self.get(until - 1).width() == 2
            && !is_protected(self, until)
        {
            self.unpair(until, fill);
        }
        let until = until.min(cols);
        if until == cols && fill == Cell::default() && !spare {
            return self.cells.truncate(from);
        }
        for at in from..until {
            if !is_protected(self, at) {
                self.set(at, fill);
            }
        }
    }
}

/// Number of cells that a row which is not empty has space for.
const MIN_CAPACITY: usize = 16;

/// Notes that so many cells were read or written: for tests, which compare it with the
/// [cost](super::term::Term::spent) that is accounted for.
#[cfg(not(test))]
fn touch(_: usize) {}

#[cfg(test)]
fn touch(cells: usize) {
    TOUCHED.with(|touched| touched.set(touched.get() + cells));
}

#[cfg(test)]
thread_local! {
    pub(super) static TOUCHED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}
