//! The screen of a terminal: fed with what a program prints, it can at any moment be drawn on
//! another terminal, exactly as if that had been there from the start.
//!
//! The measure of "exactly" is xterm.js. An unfinished escape sequence or character belongs to the
//! state, too, and is the end of what draws it.

mod buffer;
mod cell;
mod charset;
mod dispatch;
mod extras;
mod history;
mod osc;
mod parser;
mod reply;
mod resize;
mod row;
mod sgr;
mod snapshot;
mod term;
#[cfg(test)]
mod tests;
mod width;

use std::fmt;
use std::sync::Arc;

pub(crate) use self::history::HistoryMemory;
use self::parser::Parser;
use self::row::Row;
use self::term::Term;

/// The most columns that a screen can have.
pub(crate) const MAX_COLS: u16 = 1000;
/// The most rows that a screen can have.
pub(crate) const MAX_ROWS: u16 = 500;

/// A terminal's screen, with what is above it, its cursor and its modes.
///
/// Its memory is bounded, whatever it is fed: 16 bytes for each cell that something stands in, and
/// some hundred KiB for what is rare.
///
/// ```
/// use splengine_core::screen::Screen;
///
/// let mut screen = Screen::new(20, 3, 100);
/// screen.feed(b"one\r\ntwo \x1b[1mbold\x1b[0m\x1b]2;a title\x07");
/// assert_eq!(screen.text(), "one\ntwo bold");
/// assert_eq!(screen.title(), "a title");
///
/// // Another terminal that is fed with the snapshot shows the same, styles and cursor included.
/// let mut other = Screen::new(20, 3, 100);
/// other.feed(&screen.snapshot());
/// assert_eq!((other.text(), other.cursor()), (screen.text(), screen.cursor()));
/// ```
pub struct Screen {
    parser: Parser,
    term: Term,
}

impl Screen {
    /// Makes an empty screen of this size, at least 1 by 1 and at most 1000 by 500, which keeps
    /// `scrollback` lines above it.
    #[must_use]
    pub fn new(cols: u16, rows: u16, scrollback: usize) -> Self {
        let (cols, rows) = clamped(cols, rows);
        Self { parser: Parser::default(), term: Term::new(cols, rows, scrollback) }
    }

    /// Has the memory of the rows above the screen reserved from `memory`: the oldest go where there is
    /// none. By default it is not counted.
    pub(crate) fn count_history(&mut self, memory: Arc<dyn HistoryMemory>) {
        self.term.normal.count_history(memory);
    }

    /// Removes the rows above the screen; `false` if there were none.
    pub(crate) fn remove_history(&mut self) -> bool {
        self.term.normal.remove_history()
    }

    /// Gives back memory that what is shown now does not need; returns how many bytes that takes without
    /// the rows above the screen. For a screen on which little is printed after that.
    pub(crate) fn shrink(&mut self) -> usize {
        self.term.normal.shrink() + self.term.alternate.shrink()
    }

    /// Bytes of memory that the cells of a screen of this size take at most, with those of the alternate
    /// screen and without the rows above.
    pub(crate) const fn max_bytes(cols: u16, rows: u16) -> usize {
        2 * rows as usize * Row::max_bytes(cols as usize)
    }

    /// Takes in what the program printed, cut anywhere.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        loop {
            bytes = &bytes[self.feed_within(bytes, usize::MAX)..];
            if bytes.is_empty() && !self.is_repeating() {
                return;
            }
        }
    }

    /// Takes in what the program printed until that has cost as much as reading or writing so many
    /// cells of the screen, at least 1, and gives how many bytes it took. The last thing that it does may
    /// cost more: as much as a few looks at every cell that is kept. A few bytes may ask for all of that
    /// (to erase a screen, to print a character a million times), so that whoever must not be kept waiting
    /// counts this, not bytes.
    ///
    /// While it [`is_repeating`](Self::is_repeating), it has work to do even without any bytes.
    pub(crate) fn feed_within(&mut self, bytes: &[u8], cells: usize) -> usize {
        self.term.allow(cells.max(1));
        self.term.go_on();
        if self.is_repeating() { 0 } else { self.parser.feed(bytes, &mut self.term) }
    }

    /// Cost of the last [`feed_within`](Self::feed_within), in cells.
    pub(crate) fn spent(&self) -> usize {
        self.term.spent()
    }

    /// Returns whether something that was taken in is not done yet. Until it is, the screen has no
    /// [`snapshot`](Self::snapshot).
    pub(crate) fn is_repeating(&self) -> bool {
        self.term.repeat.is_some()
    }

    /// Number of cells that a look at all that is kept goes through, at most.
    pub(crate) fn cells(&self) -> usize {
        let term = &self.term;
        (term.normal.rows.len() + term.alternate.rows.len()) * term.cols
    }

    /// Sets the colours of text, its background and the cursor that a program is told that asks for
    /// those and has set none. They are no part of a snapshot.
    pub fn set_default_colors(&mut self, colors: [[u8; 3]; 3]) {
        self.term.extras.colors.defaults = Some(colors);
    }

    /// Changes its size. Lines that were too long for a row are laid out anew.
    pub fn resize(&mut self, cols: u16, rows: u16) {
        let (cols, rows) = clamped(cols, rows);
        self.term.resize(cols, rows);
    }

    /// Returns the columns and rows.
    #[must_use]
    pub fn size(&self) -> (u16, u16) {
        (self.term.cols as u16, self.term.rows as u16)
    }

    /// Returns the bytes that give a terminal of this size, whatever state it is in, the state of this
    /// one.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        self.snapshot_within(usize::MAX).unwrap_or_default()
    }

    /// The same in about `most` bytes, at most a row more; else about how many it takes.
    pub(crate) fn snapshot_within(&self, most: usize) -> Result<Vec<u8>, usize> {
        let mut bytes = self.term.snapshot(most)?.into_bytes();
        bytes.extend(self.parser.tail());
        Ok(bytes)
    }

    /// Returns the visible lines, without blanks at their ends and without empty lines at the end.
    /// Marks that joined no character stand behind a space.
    #[must_use]
    pub fn text(&self) -> String {
        let buffer = self.term.active();
        let mut text = String::new();
        for row in buffer.rows.range(buffer.base..) {
            let mut at = 0;
            while at < row.cells().len().min(self.term.cols) {
                let cell = row.get(at);
                if cell.is_empty() {
                    text.push(' ');
                } else {
                    self.term.extras.write_with_base(cell.text, &mut text);
                }
                // Only the half behind a wide character is none of its own: one that was moved away
                // from it is a column.
                at += usize::from(cell.width().max(1));
            }
            text.truncate(text.trim_end_matches(' ').len());
            text.push('\n');
        }
        text.truncate(text.trim_end_matches('\n').len());
        text
    }

    /// Returns the title that the program has set, at most 1 KiB.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.term.title
    }

    /// Returns the cursor's column and row, from 0.
    #[must_use]
    pub fn cursor(&self) -> (u16, u16) {
        let buffer = self.term.active();
        (buffer.x.min(self.term.cols - 1) as u16, buffer.y as u16)
    }

    /// Returns whether the alternate screen is shown.
    #[must_use]
    pub fn is_alternate(&self) -> bool {
        self.term.is_alternate
    }

    /// Returns whether the program wants pastes in brackets.
    #[must_use]
    pub fn bracketed_paste(&self) -> bool {
        self.term.modes.paste
    }

    /// Takes the answers to what the program asked since the last call, at most 4 KiB. A title is never
    /// reported, nor what is in the clipboard: that would let what is printed type.
    #[must_use]
    pub fn take_replies(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.term.replies.text)
    }

    /// Returns the number of times that the program has asked for the cursor's position.
    #[must_use]
    pub fn cursor_queries(&self) -> u64 {
        self.term.replies.positions
    }
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Screen").field("size", &self.size()).finish_non_exhaustive()
    }
}

fn clamped(cols: u16, rows: u16) -> (usize, usize) {
    (usize::from(cols.clamp(1, MAX_COLS)), usize::from(rows.clamp(1, MAX_ROWS)))
}
