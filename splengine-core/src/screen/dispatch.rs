//! The effect of each control sequence.

use super::cell::{Cell, Flags};
use super::charset::Charset;
use super::parser::{Perform, Sequence};
use super::row::Row;
use super::term::{EDIT_COST, Repeat, Term};

impl Perform for Term {
    fn spend(&mut self, cells: usize) {
        Self::spend(self, cells);
    }

    fn is_spent(&self) -> bool {
        self.has_spent()
    }

    fn print_ascii(&mut self, text: &[u8]) {
        Self::print_ascii(self, text);
    }

    fn print(&mut self, character: char) {
        Self::print(self, character);
    }

    fn execute(&mut self, code: u32) {
        self.joins = None;
        let cols = self.cols;
        match code {
            0x08 => self.backspace(),
            0x09 => {
                let buffer = self.buffer();
                if buffer.x < cols {
                    let to = buffer.tab_after(buffer.x, cols);
                    buffer.spent += (to - buffer.x) / TABS_PER_CELL;
                    buffer.x = to;
                }
            }
            0x0a..=0x0c => self.line_feed(),
            0x0d => self.buffer().x = 0,
            0x0e => self.use_charset(1),
            0x0f => self.use_charset(0),
            0x84 => self.index(),
            0x85 => self.next_line(),
            0x88 => self.set_tab(),
            _ => {}
        }
    }

    fn esc(&mut self, intermediates: &[u8], last: u8) {
        self.joins = None;
        match (intermediates, last) {
            ([], b'7') => self.save_cursor(),
            ([], b'8') => self.restore_cursor(),
            ([], b'D') => self.index(),
            ([], b'E') => self.next_line(),
            ([], b'H') => self.set_tab(),
            ([], b'M') => self.reverse_index(),
            ([], b'=') => self.modes.application_keypad = true,
            ([], b'>') => self.modes.application_keypad = false,
            ([], b'c') => self.reset(),
            ([], b'n' | b'}') => self.use_charset(2),
            ([], b'o' | b'|') => self.use_charset(3),
            ([], b'~') => self.use_charset(1),
            (b"%", b'@' | b'G') => {
                self.use_charset(0);
                self.designate(0, Charset::default());
            }
            (b"#", b'8') => self.fill_with_e(),
            (&[which @ (b'(' | b')' | b'*' | b'+' | b'-' | b'.')], set) => {
                let known = set == b'B' || Charset::designated(set) != Charset::default();
                let which = match which {
                    b'(' => 0,
                    b')' | b'-' => 1,
                    b'*' | b'.' => 2,
                    _ => 3,
                };
                if known {
                    self.designate(which, Charset::designated(set));
                }
            }
            _ => {}
        }
    }

    fn csi(&mut self, sequence: &Sequence) {
        let joins = self.joins.take();
        match (sequence.prefix, sequence.intermediates(), sequence.last) {
            (0, [], b'b') => self.repeat(sequence.count(), joins),
            (0, [], last) => self.control(sequence, last),
            (b'?', [], b'h') => self.private_modes(sequence, true),
            (b'?', [], b'l') => self.private_modes(sequence, false),
            (b'?', [], b'J') => self.erase_display(sequence.param(0), true),
            (b'?', [], b'K') => self.erase_line(sequence.param(0), true),
            (b'?', [], b'n') => self.report_status(sequence),
            (b'>', [], b'c') => self.report_attributes(sequence),
            (b'>', [], b'q') => self.report_version(),
            (0 | b'?', b"$", b'p') => self.report_mode(sequence),
            (0, b"!", b'p') => self.soft_reset(),
            (0, b" ", b'@') => self.shift_columns(0, sequence.count(), false),
            (0, b" ", b'A') => self.shift_columns(0, sequence.count(), true),
            (0, b"'", b'}') => self.shift_columns(self.active().x, sequence.count(), true),
            (0, b"'", b'~') => self.shift_columns(self.active().x, sequence.count(), false),
            (0, b" ", b'q') => {
                let style = sequence.param(0);
                self.modes.cursor_style = u8::try_from(style).ok().filter(|s| *s <= 6).unwrap_or(0);
            }
            (0, b"\"", b'q') => match sequence.param(0) {
                1 => self.flag(Flags::PROTECTED, true),
                0 | 2 => self.flag(Flags::PROTECTED, false),
                _ => {}
            },
            _ => {}
        }
    }

    fn osc(&mut self, data: &[u8]) {
        self.joins = None;
        self.spend(OSC_BYTE_COST * data.len());
        self.command(data);
    }

    fn dcs(&mut self, sequence: &Sequence, data: &[u8]) {
        self.joins = None;
        if sequence.prefix == 0 && sequence.intermediates() == b"$" && sequence.last == b'q' {
            self.report_setting(data);
        }
    }
}

impl Term {
    fn control(&mut self, sequence: &Sequence, last: u8) {
        let (cols, erased) = (self.cols, self.erased());
        let count = i64::from(sequence.count());
        let many = usize::try_from(count).unwrap_or(usize::MAX);
        let (x, y) = (self.active().x as i64, self.active().y as i64);
        let (top, bottom) = (self.active().top, self.active().bottom);
        match last {
            b'@' => self.edit(|row, x| row.insert(x, many, erased, cols)),
            b'P' => self.edit(|row, x| row.delete(x, many, erased, cols)),
            b'X' => {
                self.edit(|row, x| row.replace(x, x.saturating_add(many), erased, cols, false));
            }
            b'A' | b'F' => {
                let room = y - top as i64;
                self.move_cursor(0, -(if room >= 0 { count.min(room) } else { count }));
                if last == b'F' {
                    self.buffer().x = 0;
                }
            }
            b'B' | b'E' => {
                let room = bottom as i64 - y;
                self.move_cursor(0, if room >= 0 { count.min(room) } else { count });
                if last == b'E' {
                    self.buffer().x = 0;
                }
            }
            b'C' | b'a' => self.move_cursor(count, 0),
            b'D' => self.move_cursor(-count, 0),
            b'e' => self.move_cursor(0, count),
            b'G' | b'`' => self.set_cursor(count - 1, y),
            b'd' => self.set_cursor(x, count - 1),
            b'H' | b'f' => self.set_cursor(i64::from(sequence.param(1).max(1)) - 1, count - 1),
            b'I' | b'Z' => {
                let buffer = self.buffer();
                buffer.spent += many.min(cols) + cols / TABS_PER_CELL;
                for _ in 0..many.min(cols) {
                    if buffer.x >= cols {
                        break;
                    }
                    buffer.x = if last == b'I' {
                        buffer.tab_after(buffer.x, cols)
                    } else {
                        buffer.tab_before(buffer.x)
                    };
                }
            }
            b'J' => self.erase_display(sequence.param(0), false),
            b'K' => self.erase_line(sequence.param(0), false),
            b'L' | b'M' => {
                self.restrict(cols - 1);
                let buffer = self.buffer();
                if (buffer.top..=buffer.bottom).contains(&buffer.y) {
                    let rows = (buffer.y, buffer.bottom);
                    if last == b'L' {
                        buffer.shift_down(rows, many, erased, cols);
                    } else {
                        buffer.shift_up(rows, many, erased, cols);
                    }
                    buffer.x = 0;
                }
            }
            b'S' => self.buffer().shift_up((top, bottom), many, erased, cols),
            b'T' => self.buffer().shift_down((top, bottom), many, Cell::default(), cols),
            b'c' => self.report_attributes(sequence),
            b'g' => match sequence.param(0) {
                0 => {
                    let buffer = self.buffer();
                    buffer.set_tab(buffer.x, false);
                }
                3 => self.buffer().clear_tabs(),
                _ => {}
            },
            b'h' => self.ansi_modes(sequence, true),
            b'l' => self.ansi_modes(sequence, false),
            b'm' => self.set_look(sequence),
            b'n' => self.report_status(sequence),
            b'r' => self.set_margins(sequence),
            b's' => self.save_cursor(),
            b'u' => self.restore_cursor(),
            b't' if sequence.param(0) == 18 => self.report_size(),
            _ => {}
        }
    }

    fn edit(&mut self, change: impl FnOnce(&mut Row, usize)) {
        self.restrict(self.cols - 1);
        self.spend(EDIT_COST * self.cols);
        let buffer = self.buffer();
        let x = buffer.x;
        change(buffer.current(), x);
    }

    fn next_line(&mut self) {
        self.buffer().x = 0;
        self.index();
    }

    fn set_tab(&mut self) {
        let buffer = self.buffer();
        buffer.set_tab(buffer.x, true);
    }

    /// DECALN.
    fn fill_with_e(&mut self) {
        let (cols, rows) = (self.cols, self.rows);
        let cell = Cell { extra: 0, ..self.look }.with(u32::from('E'), 1);
        self.set_cursor(0, 0);
        let buffer = self.buffer();
        buffer.spend_rows(rows, cell, cols);
        for y in 0..rows {
            let row = buffer.row(y);
            row.fill(cell, cols);
            row.wrapped = false;
        }
        self.set_cursor(0, 0);
    }

    /// REP: what was printed last, again.
    fn repeat(&mut self, count: i32, joins: Option<u8>) {
        let Some(columns) = joins else { return };
        let buffer = self.buffer();
        let Some(x) = buffer.x.checked_sub(usize::from(columns)) else { return };
        let cell = buffer.current().get(x);
        let mut text = String::new();
        self.extras.write(cell.text, &mut text);
        let most = self.cols * (self.rows + self.normal.scrollback);
        let times = usize::try_from(count).unwrap_or(0).min(most);
        self.joins = Some(columns);
        self.repeat = Some(Repeat { text, times });
        self.go_on();
    }

    fn shift_columns(&mut self, at: usize, count: i32, insert: bool) {
        let (cols, erased) = (self.cols, self.erased());
        let count = usize::try_from(count).unwrap_or(0);
        let buffer = self.buffer();
        if !(buffer.top..=buffer.bottom).contains(&buffer.y) {
            return;
        }
        buffer.spent += EDIT_COST * cols * (buffer.bottom - buffer.top + 1);
        for y in buffer.top..=buffer.bottom {
            let row = buffer.row(y);
            if insert {
                row.insert(at, count, erased, cols);
            } else {
                row.delete(at, count, erased, cols);
            }
            row.wrapped = false;
        }
    }

    fn set_margins(&mut self, sequence: &Sequence) {
        let rows = self.rows as i32;
        let top = sequence.count();
        let mut bottom = sequence.param(1);
        if sequence.len() < 2 || bottom > rows || bottom == 0 {
            bottom = rows;
        }
        if bottom > top {
            let buffer = self.buffer();
            buffer.top = top as usize - 1;
            buffer.bottom = bottom as usize - 1;
            self.set_cursor(0, 0);
        }
    }

    fn erase_line(&mut self, which: i32, spare: bool) {
        let (cols, erased) = (self.cols, self.erased());
        self.restrict(cols);
        self.spend(if spare { EDIT_COST * cols } else { cols + 2 });
        let buffer = self.buffer();
        let x = buffer.x;
        let row = buffer.current();
        match which {
            0 => {
                row.replace(x, cols, erased, cols, spare);
                row.wrapped &= x > 0;
            }
            1 => row.replace(0, x + 1, erased, cols, spare),
            2 => {
                row.replace(0, cols, erased, cols, spare);
                row.wrapped = false;
            }
            _ => {}
        }
    }

    fn erase_display(&mut self, which: i32, spare: bool) {
        let (cols, rows, erased) = (self.cols, self.rows, self.erased());
        self.restrict(cols);
        let buffer = self.buffer();
        let (x, y) = (buffer.x, buffer.y);
        let count = match which {
            0 => rows - y,
            1 => y + 1,
            2 => rows,
            _ => buffer.base,
        };
        if spare {
            buffer.spent += EDIT_COST * cols * count;
        } else {
            buffer.spend_rows(count, erased, cols);
            buffer.spent += cols;
        }
        let all = |row: &mut Row| {
            if spare {
                row.replace(0, cols, erased, cols, true);
            } else {
                row.fill(erased, cols);
            }
            row.wrapped = false;
        };
        match which {
            0 => {
                let row = buffer.current();
                row.replace(x, cols, erased, cols, spare);
                row.wrapped &= x > 0;
                (y + 1..rows).for_each(|y| all(buffer.row(y)));
            }
            1 => {
                let row = buffer.current();
                row.replace(0, x + 1, erased, cols, spare);
                row.wrapped = false;
                // xterm.js counts this row from the first that is kept.
                if x + 1 >= cols
                    && let Some(next) = buffer.rows.get_mut(y + 1)
                {
                    next.wrapped = false;
                }
                (0..y).for_each(|y| all(buffer.row(y)));
            }
            2 => (0..rows).for_each(|y| all(buffer.row(y))),
            3 => {
                buffer.rows.drain(..buffer.base);
                buffer.base = 0;
                buffer.recount_history();
            }
            _ => {}
        }
    }

    fn ansi_modes(&mut self, sequence: &Sequence, on: bool) {
        for at in 0..sequence.len() {
            match sequence.param(at) {
                4 => self.modes.insert = on,
                20 => self.modes.newline = on,
                _ => {}
            }
        }
    }

    fn private_modes(&mut self, sequence: &Sequence, on: bool) {
        for at in 0..sequence.len() {
            let mode = sequence.param(at);
            match mode {
                1 => self.modes.application_cursor = on,
                2 if on => {
                    (0..4).for_each(|which| self.designate(which, Charset::default()));
                }
                6 => {
                    self.modes.origin = on;
                    self.set_cursor(0, 0);
                }
                7 => self.modes.wrap = on,
                9 | 1000 | 1002 | 1003 => self.modes.mouse = if on { mode as u16 } else { 0 },
                12 => self.modes.cursor_blink = on,
                25 => self.modes.cursor_hidden = !on,
                45 => self.modes.reverse_wrap = on,
                66 => self.modes.application_keypad = on,
                1004 => self.modes.focus = on,
                1006 | 1016 => self.modes.mouse_encoding = if on { mode as u16 } else { 0 },
                1048 if on => self.save_cursor(),
                1048 => self.restore_cursor(),
                47 | 1047 | 1049 if on => {
                    if mode == 1049 {
                        self.save_cursor();
                    }
                    self.show_alternate();
                }
                47 | 1047 | 1049 => {
                    self.show_normal();
                    if mode == 1049 {
                        self.restore_cursor();
                    }
                }
                2004 => self.modes.paste = on,
                2026 => self.modes.synchronized = on,
                _ => {}
            }
        }
    }
}

/// Number of columns that are looked at for tab stops in the time that a cell takes.
const TABS_PER_CELL: usize = 4;
/// What it costs to take in a byte of an operating system command, in cells.
const OSC_BYTE_COST: usize = 8;
