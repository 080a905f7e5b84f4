//! Changes of size: what happens to rows that are too long or too many, as xterm.js has it.

use std::collections::VecDeque;

use super::buffer::Buffer;
use super::cell::{Cell, Flags};
use super::row::Row;
use super::term::Term;

impl Term {
    pub(super) fn resize(&mut self, cols: usize, rows: usize) {
        let before = (self.cols, self.rows);
        if before == (cols, rows) {
            return;
        }
        self.normal.resize(before, (cols, rows), true);
        self.alternate.resize(before, (cols, rows), false);
        self.normal.widen_tabs(cols);
        self.alternate.widen_tabs(cols);
        (self.cols, self.rows) = (cols, rows);
    }
}

impl Buffer {
    fn most(&self, rows: usize) -> usize {
        self.scrollback + rows
    }

    fn resize(&mut self, before: (usize, usize), (cols, rows): (usize, usize), reflows: bool) {
        if !self.rows.is_empty() {
            let added = self.change_height(before.1, rows);
            let over = self.rows.len().saturating_sub(self.most(rows));
            self.rows.drain(..over);
            self.base = self.base.saturating_sub(over);
            self.saved.y = self.saved.y.saturating_sub(over);
            self.x = self.x.min(cols - 1);
            self.y = self.y.min(rows - 1) + added;
            self.saved.x = self.saved.x.min(cols - 1);
            self.top = 0;
        }
        self.bottom = rows - 1;
        if reflows && cols > before.0 {
            self.reflow_wider(before.0, cols, rows);
        } else if reflows && cols < before.0 {
            self.reflow_narrower(before.0, cols, rows);
        }
        if cols < before.0 {
            self.rows.iter_mut().for_each(|row| row.truncate(cols));
        }
        self.y = self.y.min(rows - 1);
        while !self.rows.is_empty() && self.rows.len() < self.base + rows {
            self.rows.push_back(Row::default());
        }
        self.recount_history();
    }

    /// Takes rows from above or adds some below; gives how far that moves the cursor down.
    fn change_height(&mut self, before: usize, rows: usize) -> usize {
        let mut added = 0;
        for _ in before..rows {
            if self.rows.len() < rows + self.base {
                if self.base > 0 && self.rows.len() <= self.base + self.y + added + 1 {
                    self.base -= 1;
                    added += 1;
                } else {
                    self.rows.push_back(Row::default());
                }
            }
        }
        for _ in rows..before {
            if self.rows.len() > rows + self.base {
                if self.rows.len() > self.base + self.y + 1 {
                    self.rows.pop_back();
                } else {
                    self.base += 1;
                }
            }
        }
        added
    }

    /// The rows from `first` on that are one line, by their number.
    fn line_at(&self, first: usize) -> usize {
        1 + self.rows.iter().skip(first + 1).take_while(|row| row.wrapped).count()
    }

    fn reflow_wider(&mut self, before: usize, cols: usize, rows: usize) {
        let cursor = self.base + self.y;
        let mut removed = 0;
        let mut kept = VecDeque::with_capacity(self.rows.len());
        let mut first = 0;
        while first < self.rows.len() {
            let count = self.line_at(first);
            let line: Vec<Row> =
                self.rows.range_mut(first..first + count).map(std::mem::take).collect();
            // The shell draws the line of the cursor anew.
            if count == 1 || (first..first + count).contains(&cursor) {
                kept.extend(line);
            } else {
                let split = split(&join(&line, before), cols, line[0].wrapped);
                removed += count.saturating_sub(split.len());
                kept.extend(split);
            }
            first += count;
        }
        self.rows = kept;
        for _ in 0..removed {
            if self.base > 0 {
                self.base -= 1;
            } else {
                self.y = self.y.saturating_sub(1);
                if self.rows.len() < rows {
                    self.rows.push_back(Row::default());
                }
            }
        }
        self.saved.y = self.saved.y.saturating_sub(removed);
    }

    fn reflow_narrower(&mut self, before: usize, cols: usize, rows: usize) {
        let most = self.most(rows);
        // From the last line to the first, with the rows that each becomes.
        let mut lines: Vec<Vec<Row>> = Vec::new();
        let mut inserted = 0;
        let mut end = self.rows.len();
        while end > 0 {
            end = end.min(self.rows.len());
            let mut first = end - 1;
            while first > 0 && self.rows[first].wrapped {
                first -= 1;
            }
            let count = end - first;
            let line: Vec<Row> = self.rows.range(first..end).cloned().collect();
            end = first;
            let cursor = self.base + self.y;
            let fits = count == 1 && !line[0].wrapped && line[0].content_length() <= cols;
            if fits || (first..first + count).contains(&cursor) {
                lines.push(line);
                continue;
            }
            let mut split = split(&join(&line, before), cols, line[0].wrapped);
            while split.len() < count {
                let mut row = Row::default();
                row.wrapped = true;
                split.push(row);
            }
            let added = split.len() - count;
            lines.push(split);
            let length = self.rows.len();
            let lost = if self.base == 0 && self.y + 1 != length {
                (self.y + added).saturating_sub(most)
            } else {
                (length + added).saturating_sub(most)
            };
            inserted += added;
            for _ in 0..added.saturating_sub(lost) {
                if self.base == 0 && self.y < rows - 1 {
                    self.y += 1;
                    // A row below the cursor makes room; it is the last of the last line.
                    self.rows.pop_back();
                    if let Some(last) = lines.first_mut() {
                        last.pop();
                    }
                    if lines.first().is_some_and(Vec::is_empty) {
                        lines.remove(0);
                    }
                } else if self.base == 0
                    || self.base < most.min(self.rows.len() + inserted).saturating_sub(rows)
                {
                    self.base += 1;
                }
            }
            self.saved.y = (self.saved.y + added).min(self.base + rows - 1);
        }
        let all: VecDeque<Row> = lines.into_iter().rev().flatten().collect();
        let over = all.len().saturating_sub(most);
        self.rows = all.into_iter().skip(over).collect();
        self.base = self.base.min(self.rows.len().saturating_sub(rows));
    }
}

/// The cells of a line of several rows, as one.
fn join(line: &[Row], cols: usize) -> Vec<Cell> {
    let mut cells = Vec::new();
    for (index, row) in line.iter().enumerate() {
        let length = match line.get(index + 1) {
            None => row.content_length(),
            Some(next) => {
                let last = row.get(cols - 1);
                let gap = last.is_empty() && last.width() == 1 && next.get(0).width() == 2;
                if gap { cols - 1 } else { cols }
            }
        };
        cells.extend((0..length).map(|at| row.get(at)));
    }
    cells
}

/// The rows that a line becomes. A wide character is not parted.
fn split(cells: &[Cell], cols: usize, wrapped: bool) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut rest = cells;
    loop {
        let mut length = rest.len().min(cols);
        if length == cols && cols > 1 && rest[cols - 1].flags.has(Flags::WIDE) {
            length -= 1;
        }
        let mut row = Row::default();
        rest[..length].iter().enumerate().for_each(|(at, cell)| row.set(at, *cell));
        row.wrapped = wrapped || !rows.is_empty();
        if !rows.is_empty() && length == 0 {
            return rows;
        }
        rows.push(row);
        rest = &rest[length..];
        if rest.is_empty() {
            return rows;
        }
    }
}
