//! The state of a terminal, and what printing does to it.

use super::buffer::Buffer;
use super::cell::{Cell, Flags};
use super::charset::Charset;
use super::extras::Extras;
use super::reply::Replies;
use super::width::width;

#[derive(Debug)]
pub(super) struct Term {
    pub(super) cols: usize,
    pub(super) rows: usize,
    pub(super) normal: Buffer,
    pub(super) alternate: Buffer,
    pub(super) is_alternate: bool,
    /// How the next character will look.
    pub(super) look: Cell,
    pub(super) charsets: [Charset; 4],
    pub(super) charset_in_use: usize,
    /// Usually the one in use; restoring a cursor restores another.
    pub(super) charset: Charset,
    pub(super) modes: Modes,
    pub(super) title: String,
    pub(super) extras: Extras,
    pub(super) replies: Replies,
    /// The width of the last character if nothing came in between; combining ones join it.
    pub(super) joins: Option<u8>,
    /// What is yet to be printed again.
    pub(super) repeat: Option<Repeat>,
    /// Cost of what was done since the last [`allow`](Self::allow), but for that of the buffers.
    spent: usize,
    allowed: usize,
}

/// The rest of a REP.
#[derive(Debug)]
pub(super) struct Repeat {
    pub(super) text: String,
    pub(super) times: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Modes {
    pub(super) application_cursor: bool,
    pub(super) application_keypad: bool,
    pub(super) origin: bool,
    pub(super) wrap: bool,
    pub(super) reverse_wrap: bool,
    pub(super) insert: bool,
    pub(super) newline: bool,
    pub(super) cursor_hidden: bool,
    pub(super) cursor_blink: bool,
    /// 0 when it was never set.
    pub(super) cursor_style: u8,
    /// 9, 1000, 1002 or 1003; 0 for none.
    pub(super) mouse: u16,
    /// 1006 or 1016; 0 for the usual.
    pub(super) mouse_encoding: u16,
    pub(super) focus: bool,
    pub(super) paste: bool,
    pub(super) synchronized: bool,
}

impl Default for Modes {
    fn default() -> Self {
        Self {
            application_cursor: false,
            application_keypad: false,
            origin: false,
            wrap: true,
            reverse_wrap: false,
            insert: false,
            newline: false,
            cursor_hidden: false,
            cursor_blink: false,
            cursor_style: 0,
            mouse: 0,
            mouse_encoding: 0,
            focus: false,
            paste: false,
            synchronized: false,
        }
    }
}

impl Term {
    pub(super) fn new(cols: usize, rows: usize, scrollback: usize) -> Self {
        let mut normal = Buffer::new(cols, rows, scrollback);
        normal.fill(Cell::default(), cols, rows);
        Self {
            cols,
            rows,
            normal,
            alternate: Buffer::new(cols, rows, 0),
            is_alternate: false,
            look: Cell::default(),
            charsets: [Charset::default(); 4],
            charset_in_use: 0,
            charset: Charset::default(),
            modes: Modes::default(),
            title: String::new(),
            extras: Extras::default(),
            replies: Replies::default(),
            joins: None,
            repeat: None,
            spent: 0,
            allowed: usize::MAX,
        }
    }

    /// Begins to count what things cost anew, and lets no more be begun once they have cost so many
    /// cells.
    pub(super) fn allow(&mut self, cells: usize) {
        (self.spent, self.normal.spent, self.alternate.spent) = (0, 0, 0);
        self.allowed = cells;
    }

    /// Cost of what was done since [`allow`](Self::allow): about as many cells of 16 bytes were read or
    /// written, or what takes as long.
    pub(super) fn spent(&self) -> usize {
        self.spent + self.normal.spent + self.alternate.spent
    }

    pub(super) fn has_spent(&self) -> bool {
        self.spent() >= self.allowed
    }

    pub(super) fn spend(&mut self, cells: usize) {
        self.spent += cells;
    }

    /// Accounts for a look at every cell that is kept.
    pub(super) fn spend_all(&mut self) {
        let rows = self.normal.rows.iter().chain(&self.alternate.rows);
        self.spent += rows.map(|row| row.cells().len() + 1).sum::<usize>();
    }

    /// Goes on with what is to be printed again, until that is done or what is allowed is spent.
    pub(super) fn go_on(&mut self) {
        let Some(mut repeat) = self.repeat.take() else { return };
        let ascii = match *repeat.text.as_bytes() {
            [byte] => Some([byte; MAX_REPEATED]),
            _ => None,
        };
        while repeat.times > 0 && !self.has_spent() {
            if let Some(ascii) = &ascii {
                let now = repeat.times.min(MAX_REPEATED);
                self.print_ascii(&ascii[..now]);
                repeat.times -= now;
                continue;
            }
            for character in repeat.text.chars() {
                if character.is_ascii() {
                    self.print_ascii(&[character as u8]);
                } else {
                    self.print(character);
                }
            }
            repeat.times -= 1;
        }
        if repeat.times > 0 {
            self.repeat = Some(repeat);
        } else {
            self.joins = None;
        }
    }

    pub(super) fn buffer(&mut self) -> &mut Buffer {
        if self.is_alternate { &mut self.alternate } else { &mut self.normal }
    }

    pub(super) fn active(&self) -> &Buffer {
        if self.is_alternate { &self.alternate } else { &self.normal }
    }

    /// What erasing leaves.
    pub(super) fn erased(&self) -> Cell {
        self.look.erased()
    }

    pub(super) fn print_ascii(&mut self, mut text: &[u8]) {
        // Its cells, and what it leaves empty before them.
        self.spend(2 * text.len() + 2);
        if self.modes.insert || self.charset != Charset::default() || self.cols < 2 {
            return text.iter().for_each(|byte| self.print_mapped(*byte));
        }
        let (cols, look, wraps) = (self.cols, self.look, self.modes.wrap);
        let erased = self.erased();
        while !text.is_empty() {
            let buffer = self.buffer();
            if buffer.x >= cols {
                if wraps {
                    buffer.x = 0;
                    Self::to_next_row(buffer, erased, cols);
                } else {
                    buffer.x = cols - 1;
                }
            }
            let room = if wraps { cols - buffer.x } else { (cols - buffer.x).min(text.len()) };
            let (now, rest) = text.split_at(room.min(text.len()));
            let (x, y) = (buffer.x, buffer.y);
            let gap = x.saturating_sub(buffer.row(y).cells().len());
            buffer.spent += gap;
            let row = buffer.row(y);
            if x > 0 && row.get(x - 1).width() == 2 {
                row.set(x - 1, look.with(0, 1));
            }
            row.set_ascii(x, now, look);
            let end = x + now.len();
            if end < cols {
                let next = row.get(end);
                if next.width() == 0 && next.is_empty() {
                    row.set(end, look.with(0, 1));
                }
            }
            buffer.x = end;
            text = rest;
        }
        self.joins = Some(1);
    }

    fn print_mapped(&mut self, byte: u8) {
        let character = self.charset.map(byte);
        self.print(character);
    }

    pub(super) fn print(&mut self, character: char) {
        let (cols, look) = (self.cols, self.look);
        self.spend(PRINT_COST);
        let mut columns = usize::from(width(character));
        let mut joins = false;
        if columns == 0
            && let Some(before) = self.joins.filter(|before| *before > 0)
        {
            joins = true;
            columns = usize::from(before);
        }
        self.joins = Some(columns as u8);
        let x = self.active().x;
        if joins && x > 0 {
            return self.combine(character);
        }
        let erased = self.erased();
        let (wraps, inserts) = (self.modes.wrap, self.modes.insert);
        let buffer = self.buffer();
        let filled = buffer.current().cells().len();
        buffer.spent +=
            x.min(cols).saturating_sub(filled) + if inserts { EDIT_COST * cols } else { 0 };
        if x > 0 && buffer.current().get(x - 1).width() == 2 {
            buffer.current().set(x - 1, look.with(0, 1));
        }
        if x + columns > cols {
            if wraps {
                let row = buffer.current();
                (x..cols).for_each(|at| row.set(at, look.with(0, 1)));
                buffer.x = 0;
                Self::to_next_row(buffer, erased, cols);
            } else {
                buffer.x = cols - 1;
                if columns == 2 {
                    return;
                }
            }
        }
        let x = buffer.x;
        let row = buffer.current();
        if inserts {
            row.insert(x, columns, look.with(0, 1), cols);
        }
        row.set(x, look.with(u32::from(character), columns.min(2) as u8));
        if columns == 2 && x + 1 < cols {
            row.set(x + 1, look.with(0, 0));
        }
        let end = x + columns.max(1);
        if end < cols {
            let next = row.get(end);
            if next.width() == 0 && next.is_empty() {
                row.set(end, look.with(0, 1));
            }
        }
        buffer.x = end;
    }

    /// Adds a character that takes no column to the one before the cursor.
    fn combine(&mut self, character: char) {
        let buffer = if self.is_alternate { &mut self.alternate } else { &mut self.normal };
        let x = buffer.x;
        let row = buffer.current();
        let back = if row.get(x - 1).width() == 0 && x > 1 { 2 } else { 1 };
        let mut cell = row.get(x - back);
        cell.text = self.extras.combined(cell.text, character);
        row.set(x - back, cell);
        if self.extras.wants_sweep() {
            self.spend_all();
            self.extras.sweep(self.normal.rows.iter_mut().chain(&mut self.alternate.rows));
        }
    }

    fn to_next_row(buffer: &mut Buffer, erased: Cell, cols: usize) {
        buffer.y += 1;
        if buffer.y == buffer.bottom + 1 {
            buffer.y -= 1;
            buffer.scroll(erased, cols, true);
        } else {
            let last = buffer.rows.len() - buffer.base - 1;
            buffer.y = buffer.y.min(last);
            buffer.current().wrapped = true;
        }
    }

    /// Keeps the cursor on the screen, at most in column `most`.
    pub(super) fn restrict(&mut self, most: usize) {
        let (rows, origin) = (self.rows, self.modes.origin);
        let buffer = self.buffer();
        buffer.x = buffer.x.min(most);
        buffer.y = if origin {
            buffer.y.clamp(buffer.top, buffer.bottom.max(buffer.top))
        } else {
            buffer.y.min(rows - 1)
        };
    }

    pub(super) fn set_cursor(&mut self, x: i64, y: i64) {
        let origin = self.modes.origin;
        let buffer = self.buffer();
        let y = if origin { y.saturating_add(buffer.top as i64) } else { y };
        buffer.x = usize::try_from(x.max(0)).unwrap_or(usize::MAX);
        buffer.y = usize::try_from(y.max(0)).unwrap_or(usize::MAX);
        self.restrict(self.cols - 1);
    }

    pub(super) fn move_cursor(&mut self, x: i64, y: i64) {
        self.restrict(self.cols - 1);
        let (now_x, now_y) = (self.active().x as i64, self.active().y as i64);
        self.set_cursor(now_x + x, now_y + y);
    }

    pub(super) fn line_feed(&mut self) {
        let (cols, rows, erased) = (self.cols, self.rows, self.erased());
        let newline = self.modes.newline;
        let buffer = self.buffer();
        if newline {
            buffer.x = 0;
        }
        buffer.y += 1;
        if buffer.y == buffer.bottom + 1 {
            buffer.y -= 1;
            buffer.scroll(erased, cols, false);
        } else if buffer.y >= rows {
            buffer.y = rows - 1;
        } else {
            buffer.current().wrapped = false;
        }
        if buffer.x >= cols {
            buffer.x -= 1;
        }
    }

    /// IND: down by one, scrolling at the margin.
    pub(super) fn index(&mut self) {
        self.restrict(self.cols - 1);
        let (cols, rows, erased) = (self.cols, self.rows, self.erased());
        let buffer = self.buffer();
        buffer.y += 1;
        if buffer.y == buffer.bottom + 1 {
            buffer.y -= 1;
            buffer.scroll(erased, cols, false);
        } else if buffer.y >= rows {
            buffer.y = rows - 1;
        }
        self.restrict(self.cols - 1);
    }

    /// RI: up by one, scrolling at the margin.
    pub(super) fn reverse_index(&mut self) {
        self.restrict(self.cols - 1);
        let (cols, erased) = (self.cols, self.erased());
        let buffer = self.buffer();
        if buffer.y == buffer.top {
            buffer.shift_down((buffer.top, buffer.bottom), 1, erased, cols);
        } else {
            buffer.y = buffer.y.saturating_sub(1);
            self.restrict(self.cols - 1);
        }
    }

    pub(super) fn backspace(&mut self) {
        if !self.modes.reverse_wrap {
            self.restrict(self.cols - 1);
            let buffer = self.buffer();
            buffer.x = buffer.x.saturating_sub(1);
            return;
        }
        let cols = self.cols;
        self.restrict(cols);
        let buffer = self.buffer();
        if buffer.x > 0 {
            buffer.x -= 1;
        } else if buffer.y > buffer.top && buffer.y <= buffer.bottom && buffer.current().wrapped {
            buffer.current().wrapped = false;
            buffer.y -= 1;
            buffer.x = cols - 1;
            let last = buffer.current().get(cols - 1);
            if last.width() > 0 && last.is_empty() {
                buffer.x -= 1;
            }
        }
        self.restrict(cols - 1);
    }

    pub(super) fn save_cursor(&mut self) {
        let (look, charset) = (self.look, self.charset);
        let buffer = self.buffer();
        buffer.saved.x = buffer.x;
        buffer.saved.y = buffer.base + buffer.y;
        // A link is no part of the look that is saved.
        buffer.saved.look = Cell { extra: 0, ..look };
        buffer.saved.charset = charset;
    }

    pub(super) fn restore_cursor(&mut self) {
        let extra = self.look.extra;
        let buffer = self.buffer();
        let saved = buffer.saved;
        buffer.x = saved.x;
        buffer.y = saved.y.saturating_sub(buffer.base);
        self.look = Cell { extra, ..saved.look };
        self.charset = saved.charset;
        self.restrict(self.cols - 1);
    }

    pub(super) fn show_alternate(&mut self) {
        if self.is_alternate {
            return;
        }
        let erased = self.erased();
        self.alternate.fill(erased, self.cols, self.rows);
        self.alternate.x = self.normal.x;
        self.alternate.y = self.normal.y;
        self.is_alternate = true;
    }

    pub(super) fn show_normal(&mut self) {
        if !self.is_alternate {
            return;
        }
        self.normal.x = self.alternate.x;
        self.normal.y = self.alternate.y;
        self.alternate.clear(self.cols, self.rows);
        self.is_alternate = false;
    }

    pub(super) fn use_charset(&mut self, which: usize) {
        self.charset_in_use = which;
        self.charset = self.charsets[which];
    }

    pub(super) fn designate(&mut self, which: usize, charset: Charset) {
        self.charsets[which] = charset;
        if self.charset_in_use == which {
            self.charset = charset;
        }
    }

    /// DECSTR.
    pub(super) fn soft_reset(&mut self) {
        let kept = self.modes.clone();
        self.modes = Modes {
            newline: kept.newline,
            mouse: kept.mouse,
            mouse_encoding: kept.mouse_encoding,
            cursor_blink: kept.cursor_blink,
            ..Modes::default()
        };
        self.look = Cell::default();
        self.reset_charsets();
        let bottom = self.rows - 1;
        let buffer = self.buffer();
        buffer.top = 0;
        buffer.bottom = bottom;
        buffer.saved = super::buffer::Saved { y: buffer.base, ..Default::default() };
    }

    /// RIS.
    pub(super) fn reset(&mut self) {
        let rows = self.normal.rows.len() + self.alternate.rows.len() + self.rows;
        let spent = self.spent() + RESET_COST * rows;
        let fresh = Self::new(self.cols, self.rows, self.normal.scrollback);
        let modes = Modes {
            newline: self.modes.newline,
            cursor_blink: self.modes.cursor_blink,
            cursor_hidden: self.modes.cursor_hidden,
            ..Modes::default()
        };
        let mut before = std::mem::replace(self, fresh);
        self.normal.history = std::mem::take(&mut before.normal.history);
        self.normal.recount_history();
        self.modes = modes;
        self.title = before.title;
        self.replies = before.replies;
        self.extras.colors = before.extras.colors;
        (self.spent, self.allowed) = (spent, before.allowed);
    }

    fn reset_charsets(&mut self) {
        self.charsets = [Charset::default(); 4];
        self.use_charset(0);
    }

    /// The flags of the next character's look.
    pub(super) fn flag(&mut self, flag: u16, on: bool) {
        let mut flags: Flags = self.look.flags;
        flags.set(flag, on);
        self.look.flags = flags;
    }
}

/// Number of characters that are printed again without a look at what it has cost.
const MAX_REPEATED: usize = 64;
/// What it costs to print a character that is not ASCII, in cells.
const PRINT_COST: usize = 16;
/// What it costs to insert or delete in a row, by its columns.
pub(super) const EDIT_COST: usize = 3;
/// What it costs to make a row, or to give it back.
const RESET_COST: usize = 4;
