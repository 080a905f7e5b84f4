//! Answers to a program's questions, as a terminal gives them.

use super::parser::Sequence;
use super::term::Term;

#[derive(Debug, Default)]
pub(super) struct Replies {
    pub(super) text: Vec<u8>,
    /// How often the cursor's position was asked for.
    pub(super) positions: u64,
}

impl Replies {
    /// A program that asks and never reads gets no more answers.
    pub(super) fn push(&mut self, reply: &str) {
        if self.text.len() + reply.len() <= MAX_REPLY_BYTES {
            self.text.extend_from_slice(reply.as_bytes());
        }
    }
}

impl Term {
    /// DSR: the state, and the cursor's position.
    pub(super) fn report_status(&mut self, sequence: &Sequence) {
        let private = sequence.prefix == b'?';
        match sequence.param(0) {
            5 if !private => self.replies.push("\x1b[0n"),
            6 => {
                let (y, x) = (self.active().y + 1, self.active().x + 1);
                let mark = if private { "?" } else { "" };
                self.replies.positions += 1;
                self.replies.push(&format!("\x1b[{mark}{y};{x}R"));
            }
            _ => {}
        }
    }

    /// DA1 and DA2: what sort of terminal this is.
    pub(super) fn report_attributes(&mut self, sequence: &Sequence) {
        match (sequence.prefix, sequence.param(0)) {
            (0, 0) => self.replies.push("\x1b[?1;2c"),
            (b'>', 0) => self.replies.push("\x1b[>0;276;0c"),
            _ => {}
        }
    }

    /// DECRQM: whether a mode is set.
    pub(super) fn report_mode(&mut self, sequence: &Sequence) {
        let mode = sequence.param(0);
        let modes = &self.modes;
        let set = |on: bool| if on { 1 } else { 2 };
        let state = if sequence.prefix == b'?' {
            match mode {
                1 => set(modes.application_cursor),
                3 => 0,
                6 => set(modes.origin),
                7 => set(modes.wrap),
                8 => 3,
                9 | 1000 | 1002 | 1003 => set(i32::from(modes.mouse) == mode),
                12 => set(modes.cursor_blink),
                25 => set(!modes.cursor_hidden),
                45 => set(modes.reverse_wrap),
                66 => set(modes.application_keypad),
                67 | 1005 | 1015 => 4,
                1004 => set(modes.focus),
                1006 | 1016 => set(i32::from(modes.mouse_encoding) == mode),
                1048 => 1,
                47 | 1047 | 1049 => set(self.is_alternate),
                2004 => set(modes.paste),
                2026 => set(modes.synchronized),
                _ => 0,
            }
        } else {
            match mode {
                2 => 4,
                4 => set(modes.insert),
                12 => 3,
                20 => set(modes.newline),
                _ => 0,
            }
        };
        let mark = if sequence.prefix == b'?' { "?" } else { "" };
        self.replies.push(&format!("\x1b[{mark}{mode};{state}$y"));
    }

    /// DECRQSS: a setting.
    pub(super) fn report_setting(&mut self, what: &[u8]) {
        let buffer = self.active();
        let answer = match what {
            b"\"q" => {
                let protected = self.look.flags.has(super::cell::Flags::PROTECTED);
                format!("1$r{}\"q", u8::from(protected))
            }
            b"\"p" => "1$r61;1\"p".to_owned(),
            b"r" => format!("1$r{};{}r", buffer.top + 1, buffer.bottom + 1),
            b"m" => "1$r0m".to_owned(),
            b" q" => format!("1$r{} q", self.modes.cursor_style.max(1)),
            _ => "0$r".to_owned(),
        };
        self.replies.push(&format!("\x1bP{answer}\x1b\\"));
    }

    /// XTVERSION.
    pub(super) fn report_version(&mut self) {
        let version = env!("CARGO_PKG_VERSION");
        self.replies.push(&format!("\x1bP>|splengine({version})\x1b\\"));
    }

    /// XTWINOPS 18: the size.
    pub(super) fn report_size(&mut self) {
        let (rows, cols) = (self.rows, self.cols);
        self.replies.push(&format!("\x1b[8;{rows};{cols}t"));
    }
}

const MAX_REPLY_BYTES: usize = 4096;
