//! A screen as the bytes that draw it.

use std::fmt::Write as _;

use super::buffer::{Buffer, Saved};
use super::cell::{Cell, Flags};
use super::charset::Charset;
use super::extras::Extras;
use super::osc::spec;
use super::term::{Modes, Term};
use super::width::{is_disputed, width};

/// Writes sequences, and knows what a terminal that got them looks like.
struct Painter<'a> {
    out: String,
    /// With so many bytes in `out` it stops.
    most: usize,
    rows_drawn: usize,
    look: Cell,
    extras: &'a Extras,
    cols: usize,
}

impl Term {
    /// The bytes that draw it, or about how many they are if these are more than about `most`.
    pub(super) fn snapshot(&self, most: usize) -> Result<String, usize> {
        let mut painter = Painter {
            out: String::with_capacity(most.clamp(4096, MAX_FIRST_CAPACITY)),
            most,
            rows_drawn: 0,
            look: Cell::default(),
            extras: &self.extras,
            cols: self.cols,
        };
        // CAN ends whatever sequence was begun, RIS resets all but what follows it.
        painter.out.push_str(
            "\x18\x1bc\x1b[20l\x1b[?12;25l\x1b]104\x1b\\\x1b]110\x1b\\\x1b]111\x1b\\\x1b]112\x1b\\",
        );
        painter.colors();
        let _ = write!(painter.out, "\x1b]2;{}\x1b\\", self.title);
        painter.buffer(&self.normal, self.rows);
        if self.is_alternate {
            let (x, y) = (self.normal.x.min(self.cols - 1), self.normal.y);
            let _ = write!(painter.out, "\x1b[{};{}H\x1b[?1047h\x1b[H", y + 1, x + 1);
            painter.buffer(&self.alternate, self.rows);
        } else if !is_plain(&self.alternate.saved, &self.alternate) {
            painter.out.push_str("\x1b[?1047h");
            painter.saved(&self.alternate);
            painter.out.push_str("\x1b[?1047l");
        }
        if painter.out.len() > most {
            let rows = self.normal.rows.len() + self.alternate.rows.len();
            let bytes = painter.out.len().saturating_mul(rows) / painter.rows_drawn.max(1);
            return Err(bytes + bytes / 8);
        }
        self.rest(&mut painter);
        Ok(painter.out)
    }

    /// What is not in cells: charsets, modes, and the cursor, which comes last.
    fn rest(&self, painter: &mut Painter<'_>) {
        let buffer = self.active();
        let cell = self.last_printed();
        // What is printed again must come out as it did.
        let joins = cell.is_some_and(|(cell, columns)| {
            cell.look() == self.look
                && self.prints_as_is(cell)
                && (buffer.x < self.cols || columns > 0)
        });
        self.saved_charset(painter, buffer);
        modes(&self.modes, &mut painter.out);
        let y = if self.modes.origin { buffer.y.saturating_sub(buffer.top) } else { buffer.y };
        let mut x = buffer.x.min(self.cols);
        let pending = x == self.cols;
        let columns = cell.map_or(1, |(_, columns)| columns);
        if joins || pending {
            x = x.saturating_sub(columns.max(1));
        }
        let _ = write!(painter.out, "\x1b[{};{}H", y + 1, x + 1);
        if pending && !joins {
            let row = buffer.rows.get(buffer.base + buffer.y);
            let last = row.map(|row| row.get(x)).unwrap_or_default();
            painter.look(last.look());
            painter.text(last);
        }
        if joins && self.modes.insert {
            // Printing it again makes the room that this takes away.
            painter.look(Cell { extra: painter.look.extra, ..Cell::default() });
            let _ = write!(painter.out, "\x1b[{columns}P");
        }
        painter.look(self.look);
        self.charsets(painter, buffer);
        if self.modes.insert {
            painter.out.push_str("\x1b[4h");
        }
        if joins && let Some((cell, _)) = cell {
            painter.text(cell);
        }
    }

    /// The cell before the cursor and its width, if a combining character would join it now, or
    /// the line is full.
    fn last_printed(&self) -> Option<(Cell, usize)> {
        let buffer = self.active();
        let row = buffer.rows.get(buffer.base + buffer.y)?;
        // A mark that joins nothing leaves the cursor further right than the row goes.
        let before = buffer.x.min(self.cols).checked_sub(1)?;
        let mut cell = row.get(before);
        let mut columns = 1;
        if cell.width() == 0 && cell.is_empty() && before > 0 {
            cell = row.get(before - 1);
            columns = 2;
        }
        let prints = !cell.is_empty() && usize::from(cell.width()) == columns;
        if buffer.x >= self.cols {
            return (self.joins.is_some() && prints)
                .then_some((cell, columns))
                .or(Some((Cell { text: u32::MAX, ..cell }, columns)));
        }
        (usize::from(self.joins?) == columns && prints).then_some((cell, columns))
    }

    fn prints_as_is(&self, cell: Cell) -> bool {
        let mut text = String::new();
        self.extras.write(cell.text, &mut text);
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| !byte.is_ascii() || self.charset.map(byte) == char::from(byte))
    }

    /// The charset in use may be none of the designated: restoring a cursor restores it. Only one
    /// that is saved now can be brought back so.
    fn saved_charset(&self, painter: &mut Painter<'_>, buffer: &Buffer) {
        let designated = self.charsets[self.charset_in_use];
        if self.charset == designated || self.charset != buffer.saved.charset {
            return;
        }
        // First, since to designate the set in use changes it.
        self.write_charsets(painter, None);
        painter.out.push_str("\x1b8");
        painter.look = Cell { extra: painter.look.extra, ..buffer.saved.look };
    }

    fn charsets(&self, painter: &mut Painter<'_>, buffer: &Buffer) {
        if self.charset == self.charsets[self.charset_in_use] {
            self.write_charsets(painter, None);
        } else if self.charset != buffer.saved.charset {
            self.write_charsets(painter, Some(self.charset_in_use));
        }
    }

    /// Designates the sets and takes that which is in use, or all but one, and that is not taken.
    fn write_charsets(&self, painter: &mut Painter<'_>, but: Option<usize>) {
        for (which, (set, mark)) in self.charsets.iter().zip(["(", ")", "*", "+"]).enumerate() {
            if *set != Charset::default() && Some(which) != but {
                let _ = write!(painter.out, "\x1b{mark}{}", char::from(set.designator()));
            }
        }
        if but.is_none() {
            painter.out.push_str(["", "\x0e", "\x1bn", "\x1bo"][self.charset_in_use]);
        }
    }
}

impl Painter<'_> {
    fn colors(&mut self) {
        let colors = &self.extras.colors;
        for (index, color) in &colors.palette {
            let _ = write!(self.out, "\x1b]4;{index};{}\x1b\\", spec(*color));
        }
        for (code, color) in (10..).zip(colors.special) {
            if let Some(color) = color {
                let _ = write!(self.out, "\x1b]{code};{}\x1b\\", spec(color));
            }
        }
    }

    /// Draws a buffer from its upper left corner, and what else belongs to it.
    fn buffer(&mut self, buffer: &Buffer, rows: usize) {
        for at in 0..buffer.rows.len() {
            if self.out.len() > self.most {
                return;
            }
            self.rows_drawn += 1;
            if at > 0 {
                self.next_row(buffer, at, rows);
            }
            self.row(buffer.rows[at].cells());
        }
        self.look(Cell { extra: 0, ..Cell::default() });
        self.tabs(buffer);
        self.saved(buffer);
        if (buffer.top, buffer.bottom) != (0, rows - 1) {
            let _ = write!(self.out, "\x1b[{};{}r", buffer.top + 1, buffer.bottom + 1);
        }
    }

    fn next_row(&mut self, buffer: &Buffer, at: usize, rows: usize) {
        // Scrolling fills the new row with the background.
        self.look(Cell { extra: self.look.extra, ..Cell::default() });
        if !buffer.rows[at].wrapped {
            self.out.push_str("\r\n");
            return;
        }
        let last = buffer.rows[at - 1].get(self.cols - 1);
        let is_full = !last.is_empty() || last.width() == 0;
        if !is_full {
            let _ = write!(self.out, "\x1b[{}G ", self.cols);
        }
        // A character that does not fit makes the row one that goes on.
        self.out.push(' ');
        if !is_full && rows > 1 {
            let _ = write!(self.out, "\x1b[A\x1b[{}G", self.cols);
            self.look(Cell { extra: self.look.extra, ..last.erased() });
            self.out.push_str("\x1b[X");
            self.look(Cell { extra: self.look.extra, ..Cell::default() });
            self.out.push_str("\x1b[B");
        }
        self.out.push_str("\r\x1b[X");
    }

    fn row(&mut self, cells: &[Cell]) {
        let cells = &cells[..cells.len().min(self.cols)];
        let end = cells.iter().rposition(|cell| *cell != Cell::default()).map_or(0, |at| at + 1);
        // Where the cursor is.
        let mut x = 0;
        let mut at = 0;
        let mut disputed = false;
        while at < end {
            let cell = cells[at];
            if cell.is_empty() {
                if cell.width() == 0 {
                    at += 1;
                    continue;
                }
                let run = cells[at..end].iter().take_while(|next| **next == cell).count();
                if cell.look() == cell.erased() {
                    if cell != Cell::default() {
                        self.go(&mut x, at);
                        self.look(Cell { extra: self.look.extra, ..cell });
                        let _ = write!(self.out, "\x1b[{run}X");
                    }
                } else {
                    (at..at + run).for_each(|at| self.half(&mut x, at, cell));
                }
                at += run;
                continue;
            }
            let own = cell.width() == 0;
            if own {
                // A mark that joined nothing: after a sequence it joins nothing again.
                let _ = write!(self.out, "\x1b[{}G", at + 1);
                x = at;
            }
            let was_disputed = std::mem::replace(&mut disputed, self.is_disputed(cell));
            if was_disputed && !disputed {
                let _ = write!(self.out, "\x1b[{}G", at + 1);
                x = at;
            }
            self.go(&mut x, at);
            self.look(cell.look());
            self.text(cell);
            at += usize::from(cell.width().max(1));
            x = at;
        }
        if disputed && x < self.cols {
            let _ = write!(self.out, "\x1b[{}G", x + 1);
        }
    }

    /// Moves the cursor right, over what is empty.
    fn go(&mut self, x: &mut usize, to: usize) {
        if *x < to {
            let _ = match to - *x {
                1 => write!(self.out, "\x1b[C"),
                by => write!(self.out, "\x1b[{by}C"),
            };
        } else if *x > to {
            let _ = write!(self.out, "\x1b[{}G", to + 1);
        }
        *x = to;
    }

    /// A cell that was half of a wide character, of which the other half was overwritten: empty,
    /// with all of its look. Made again the same way.
    fn half(&mut self, x: &mut usize, at: usize, cell: Cell) {
        self.go(x, at);
        self.look(cell.look());
        if at + 1 < self.cols {
            let _ = write!(self.out, "\u{3000}\x1b[{}G \x1b[{}G", at + 2, at + 2);
            self.look(Cell { extra: self.look.extra, ..Cell::default() });
            self.out.push_str("\x1b[X");
            *x = at + 1;
        } else {
            self.look(Cell { extra: self.look.extra, ..cell.erased() });
            self.out.push_str("\x1b[X");
        }
    }

    fn text(&mut self, cell: Cell) {
        if cell.text == u32::MAX || cell.is_empty() {
            self.out.push(' ');
        } else if cell.width() == 0 && cell.text & Cell::COMBINED == 0 {
            self.extras.write(cell.text, &mut self.out);
        } else {
            // Marks alone would each take a column.
            self.extras.write_with_base(cell.text, &mut self.out);
        }
    }

    fn is_disputed(&self, cell: Cell) -> bool {
        match char::from_u32(cell.text) {
            Some(character) => is_disputed(character) || width(character) == 2,
            None => true,
        }
    }

    fn tabs(&mut self, buffer: &Buffer) {
        let usual = |at: usize| at.is_multiple_of(8);
        if (0..self.cols).all(|at| buffer.has_tab(at) == usual(at)) {
            return;
        }
        self.out.push_str("\x1b[3g");
        for at in (0..self.cols).filter(|at| buffer.has_tab(*at)) {
            let _ = write!(self.out, "\x1b[{}G\x1bH", at + 1);
        }
    }

    fn saved(&mut self, buffer: &Buffer) {
        let saved = &buffer.saved;
        if is_plain(saved, buffer) {
            return;
        }
        let y = saved.y.saturating_sub(buffer.base);
        let _ = write!(self.out, "\x1b[{};{}H", y + 1, saved.x.min(self.cols - 1) + 1);
        self.look(Cell { extra: self.look.extra, ..saved.look });
        if saved.charset != Charset::default() {
            let _ = write!(self.out, "\x1b({}", char::from(saved.charset.designator()));
        }
        self.out.push_str("\x1b7");
        if saved.charset != Charset::default() {
            self.out.push_str("\x1b(B");
        }
        self.look(Cell { extra: self.look.extra, ..Cell::default() });
    }

    /// Makes the next characters look so.
    fn look(&mut self, look: Cell) {
        let look = look.look();
        let (before, rare) = (self.extras.rare(self.look.extra), self.extras.rare(look.extra));
        if before.link != rare.link {
            match self.extras.link(rare.link) {
                Some(link) if link.name.is_empty() => {
                    let _ = write!(self.out, "\x1b]8;id=spl-{};{}\x1b\\", rare.link, link.address);
                }
                Some(link) => {
                    let _ = write!(self.out, "\x1b]8;id={};{}\x1b\\", link.name, link.address);
                }
                None => self.out.push_str("\x1b]8;;\x1b\\"),
            }
        }
        let same = (self.look.fg, self.look.bg, self.look.flags) == (look.fg, look.bg, look.flags);
        if !same || before.underline != rare.underline {
            self.out.push_str("\x1b[0");
            for (flag, code) in [
                (Flags::BOLD, "1"),
                (Flags::DIM, "2"),
                (Flags::ITALIC, "3"),
                (Flags::BLINK, "5"),
                (Flags::INVERSE, "7"),
                (Flags::INVISIBLE, "8"),
                (Flags::STRIKE, "9"),
                (Flags::OVERLINE, "53"),
            ] {
                if look.flags.has(flag) {
                    let _ = write!(self.out, ";{code}");
                }
            }
            match look.flags.underline() {
                0 => {}
                1 => self.out.push_str(";4"),
                style => {
                    let _ = write!(self.out, ";4:{style}");
                }
            }
            look.fg.write_sgr(30, &mut self.out);
            look.bg.write_sgr(40, &mut self.out);
            rare.underline.write_sgr(58, &mut self.out);
            self.out.push('m');
            if look.flags.has(Flags::PROTECTED) {
                self.out.push_str("\x1b[1\"q");
            }
        }
        self.look = look;
    }
}

fn is_plain(saved: &Saved, buffer: &Buffer) -> bool {
    saved.x == 0
        && saved.y <= buffer.base
        && saved.look == Cell::default()
        && saved.charset == Charset::default()
}

fn modes(modes: &Modes, out: &mut String) {
    for (mode, on) in [
        (1, modes.application_cursor),
        (6, modes.origin),
        (12, modes.cursor_blink),
        (45, modes.reverse_wrap),
        (66, modes.application_keypad),
        (1004, modes.focus),
        (2004, modes.paste),
        (2026, modes.synchronized),
        (25, !modes.cursor_hidden),
        (modes.mouse, modes.mouse != 0),
        (modes.mouse_encoding, modes.mouse_encoding != 0),
    ] {
        if on {
            let _ = write!(out, "\x1b[?{mode}h");
        }
    }
    if !modes.wrap {
        out.push_str("\x1b[?7l");
    }
    if modes.newline {
        out.push_str("\x1b[20h");
    }
    if modes.cursor_style != 0 {
        let _ = write!(out, "\x1b[{} q", modes.cursor_style);
    }
}

/// Memory is taken at once for as much; beyond it as it is needed.
const MAX_FIRST_CAPACITY: usize = 64 << 10;
