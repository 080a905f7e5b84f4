//! From bytes to what a terminal is to do: the state machine that Paul Williams drew of DEC's
//! terminals (<https://vt100.net/emu/dec_ansi_parser>), over the characters of UTF-8.

/// What a program's bytes ask of a terminal.
pub(super) trait Perform {
    /// Accounts for work, in cells.
    fn spend(&mut self, cells: usize);
    /// Returns whether no more work is to be begun.
    fn is_spent(&self) -> bool;
    /// Printable ASCII, several at once.
    fn print_ascii(&mut self, text: &[u8]);
    fn print(&mut self, character: char);
    /// A control character of C0 or C1.
    fn execute(&mut self, code: u32);
    fn csi(&mut self, sequence: &Sequence);
    fn esc(&mut self, intermediates: &[u8], last: u8);
    fn osc(&mut self, data: &[u8]);
    fn dcs(&mut self, sequence: &Sequence, data: &[u8]);
}

/// What stands between the introducer of a control sequence and its last character.
#[derive(Debug, Default)]
pub(super) struct Sequence {
    /// `<`, `=`, `>` or `?`; 0 for none.
    pub(super) prefix: u8,
    intermediates: Vec<u8>,
    params: Vec<i32>,
    /// Of each parameter, those behind colons; -1 where one is empty.
    subs: Vec<Vec<i32>>,
    pub(super) last: u8,
    /// What follows belongs to a parameter too many.
    full: bool,
}

impl Sequence {
    fn begin(&mut self) {
        self.prefix = 0;
        self.intermediates.clear();
        self.params.clear();
        self.subs.clear();
        self.params.push(0);
        self.subs.push(Vec::new());
        self.full = false;
    }

    pub(super) fn intermediates(&self) -> &[u8] {
        &self.intermediates
    }

    pub(super) fn len(&self) -> usize {
        self.params.len()
    }

    /// One parameter; 0 when it is missing.
    pub(super) fn param(&self, index: usize) -> i32 {
        self.params.get(index).copied().unwrap_or(0)
    }

    /// The first parameter as a count, at least 1.
    pub(super) fn count(&self) -> i32 {
        self.param(0).max(1)
    }

    pub(super) fn subs(&self, index: usize) -> &[i32] {
        self.subs.get(index).map_or(&[], Vec::as_slice)
    }

    fn collect(&mut self, byte: u8) {
        if matches!(byte, b'<'..=b'?') {
            self.prefix = byte;
        } else if self.intermediates.len() < 4 {
            self.intermediates.push(byte);
        }
    }

    fn param_byte(&mut self, byte: u8) {
        match byte {
            b';' => {
                self.full = self.params.len() >= MAX_PARAMS;
                if !self.full {
                    self.params.push(0);
                    self.subs.push(Vec::new());
                }
            }
            b':' => {
                let of_all: usize = self.subs.iter().map(Vec::len).sum();
                if let Some(subs) = self.subs.last_mut().filter(|_| !self.full) {
                    self.full = of_all >= MAX_PARAMS;
                    if !self.full {
                        subs.push(-1);
                    }
                }
            }
            _ if self.full => {}
            digit => {
                let digit = i32::from(digit - b'0');
                let sub = self.subs.last_mut().and_then(|subs| subs.last_mut());
                let Some(value) = sub.or_else(|| self.params.last_mut()) else { return };
                let before = (*value).max(0);
                *value = before.saturating_mul(10).saturating_add(digit);
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Ground,
    Escape,
    EscapeIntermediate,
    CsiEntry,
    CsiParam,
    CsiIntermediate,
    CsiIgnore,
    Osc,
    /// Start of string, privacy message, application program command: ignored.
    Ignored,
    DcsEntry,
    DcsParam,
    DcsIntermediate,
    DcsIgnore,
    DcsData,
}

#[derive(Debug, Default)]
pub(super) struct Parser {
    state: State,
    sequence: Sequence,
    data: Vec<u8>,
    overflow: bool,
    utf8: Vec<u8>,
    /// The bytes of what is not yet complete, but for those that took effect already.
    tail: Vec<u8>,
}

impl Parser {
    /// Takes in bytes until `to` is spent, and gives how many.
    pub(super) fn feed(&mut self, bytes: &[u8], to: &mut impl Perform) -> usize {
        let mut rest = bytes;
        while let Some(&first) = rest.first()
            && !to.is_spent()
        {
            if self.state == State::Ground && self.utf8.is_empty() {
                let run = &rest[..rest.len().min(MAX_RUN_BYTES)];
                let run = run.iter().position(|byte| !matches!(byte, 0x20..=0x7e));
                let run = run.unwrap_or(rest.len().min(MAX_RUN_BYTES));
                if run > 0 {
                    to.print_ascii(&rest[..run]);
                    rest = &rest[run..];
                    continue;
                }
            }
            rest = &rest[1..];
            to.spend(BYTE_COST);
            if first < 0x80 && self.utf8.is_empty() {
                self.code(u32::from(first), &[first], to);
            } else {
                self.multibyte(first, to);
            }
        }
        bytes.len() - rest.len()
    }

    /// What an unfinished sequence consists of so far: written after a snapshot, it lets what
    /// follows take effect as it would have.
    pub(super) fn tail(&self) -> Vec<u8> {
        let mut tail = match (self.overflow, self.state) {
            // Whatever it was to be, it is too long to take effect; an unknown command of its kind
            // swallows the rest.
            (true, State::Osc) => b"\x1b]9999;".to_vec(),
            (true, _) => b"\x1bPz".to_vec(),
            (false, _) => self.tail.clone(),
        };
        tail.extend_from_slice(&self.utf8);
        tail
    }

    /// UTF-8, of which what is wrong is left out, as browsers' terminals do.
    fn multibyte(&mut self, byte: u8, to: &mut impl Perform) {
        if byte & 0xc0 != 0x80 {
            self.utf8.clear();
            match byte {
                0x00..=0x7f => self.code(u32::from(byte), &[byte], to),
                0xc0..=0xf7 => self.utf8.push(byte),
                _ => {}
            }
            return;
        }
        let Some(&lead) = self.utf8.first() else { return };
        self.utf8.push(byte);
        let wanted = match lead {
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            _ => 4,
        };
        if self.utf8.len() < wanted {
            return;
        }
        let whole = std::mem::take(&mut self.utf8);
        let character = std::str::from_utf8(&whole).ok().and_then(|text| text.chars().next());
        if let Some(character) = character.filter(|character| *character != '\u{feff}') {
            self.code(u32::from(character), &whole, to);
        }
    }

    fn code(&mut self, code: u32, bytes: &[u8], to: &mut impl Perform) {
        match code {
            // Ends or begins something, whatever goes on.
            0x18 | 0x1a => {
                let was_string = matches!(self.state, State::Osc | State::DcsData);
                self.end_string(false, to);
                self.to(State::Ground);
                if !was_string {
                    to.execute(code);
                }
            }
            0x1b => {
                self.end_string(true, to);
                self.to(State::Escape);
                self.keep(bytes);
            }
            0x9c => {
                self.end_string(true, to);
                self.to(State::Ground);
            }
            0x90 => self.begin(State::DcsEntry, bytes),
            0x9b => self.begin(State::CsiEntry, bytes),
            0x9d => self.begin(State::Osc, bytes),
            0x98 | 0x9e | 0x9f => self.begin(State::Ignored, bytes),
            0x80..=0x9f => {
                self.to(State::Ground);
                to.execute(code);
            }
            0..=0x7f => self.ascii(code as u8, to),
            _ => self.other(code, bytes, to),
        }
    }

    /// A character beyond ASCII and C1.
    fn other(&mut self, code: u32, bytes: &[u8], to: &mut impl Perform) {
        match self.state {
            State::Ground => {
                if let Some(character) = char::from_u32(code) {
                    to.print(character);
                }
            }
            State::Osc | State::DcsData => self.put(bytes),
            State::CsiIgnore | State::DcsIgnore => self.keep(bytes),
            _ => self.to(State::Ground),
        }
    }

    fn ascii(&mut self, byte: u8, to: &mut impl Perform) {
        match self.state {
            State::Ground => match byte {
                0..=0x1f => to.execute(u32::from(byte)),
                0x7f => {}
                _ => to.print_ascii(&[byte]),
            },
            State::Escape | State::EscapeIntermediate => self.escape(byte, to),
            State::CsiEntry | State::CsiParam | State::CsiIntermediate | State::CsiIgnore => {
                self.csi(byte, to);
            }
            State::DcsEntry | State::DcsParam | State::DcsIntermediate => self.dcs_head(byte),
            State::Osc => match byte {
                0x07 => {
                    self.end_string(true, to);
                    self.to(State::Ground);
                }
                0..=0x1f => {}
                _ => self.put(&[byte]),
            },
            State::DcsData => {
                if byte != 0x7f {
                    self.put(&[byte]);
                }
            }
            State::DcsIgnore | State::Ignored => {}
        }
    }

    fn escape(&mut self, byte: u8, to: &mut impl Perform) {
        match byte {
            0..=0x1f => to.execute(u32::from(byte)),
            0x20..=0x2f => {
                if self.state == State::Escape {
                    self.sequence.begin();
                }
                self.sequence.collect(byte);
                self.state = State::EscapeIntermediate;
                self.keep(&[byte]);
            }
            0x7f => {}
            _ if self.state == State::EscapeIntermediate => {
                self.to(State::Ground);
                to.esc(&self.sequence.intermediates, byte);
            }
            b'[' => self.begin(State::CsiEntry, &[byte]),
            b']' => self.begin(State::Osc, &[byte]),
            b'P' => self.begin(State::DcsEntry, &[byte]),
            b'X' | b'^' | b'_' => self.begin(State::Ignored, &[byte]),
            _ => {
                self.to(State::Ground);
                to.esc(&[], byte);
            }
        }
    }

    fn csi(&mut self, byte: u8, to: &mut impl Perform) {
        match (byte, self.state) {
            (0..=0x1f, _) => return to.execute(u32::from(byte)),
            (0x7f, _) => return,
            (0x40..=0x7e, State::CsiIgnore) => return self.to(State::Ground),
            (0x40..=0x7e, _) => {
                self.to(State::Ground);
                self.sequence.last = byte;
                return to.csi(&self.sequence);
            }
            (_, State::CsiIgnore) => {}
            (0x20..=0x2f, _) => {
                self.sequence.collect(byte);
                self.state = State::CsiIntermediate;
            }
            (0x30..=0x3b, State::CsiEntry | State::CsiParam) => {
                self.sequence.param_byte(byte);
                self.state = State::CsiParam;
            }
            (_, State::CsiEntry) => {
                self.sequence.collect(byte);
                self.state = State::CsiParam;
            }
            _ => self.state = State::CsiIgnore,
        }
        self.keep(&[byte]);
    }

    fn dcs_head(&mut self, byte: u8) {
        match (byte, self.state) {
            (0..=0x1f | 0x7f, _) => return,
            (0x20..=0x2f, _) => {
                self.sequence.collect(byte);
                self.state = State::DcsIntermediate;
            }
            (0x40..=0x7e, _) => {
                self.sequence.last = byte;
                self.data.clear();
                self.state = State::DcsData;
            }
            (0x30..=0x3b, State::DcsEntry | State::DcsParam) => {
                self.sequence.param_byte(byte);
                self.state = State::DcsParam;
            }
            (_, State::DcsEntry) => {
                self.sequence.collect(byte);
                self.state = State::DcsParam;
            }
            _ => self.state = State::DcsIgnore,
        }
        self.keep(&[byte]);
    }

    fn begin(&mut self, state: State, bytes: &[u8]) {
        // Of ESC [ and its like, the ESC is kept already.
        if bytes[0] >= 0x80 || self.state != State::Escape {
            self.tail.clear();
        }
        self.overflow = false;
        self.sequence.begin();
        self.data.clear();
        self.state = state;
        self.keep(bytes);
    }

    fn to(&mut self, state: State) {
        self.state = state;
        self.tail.clear();
        self.overflow = false;
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.tail.len() < MAX_TAIL_BYTES {
            self.tail.extend_from_slice(bytes);
        } else if matches!(self.state, State::Osc | State::DcsData) {
            self.overflow = true;
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        if self.data.len() < MAX_DATA_BYTES {
            self.data.extend_from_slice(bytes);
        }
        self.keep(bytes);
    }

    fn end_string(&mut self, well: bool, to: &mut impl Perform) {
        if !well || self.overflow {
            return;
        }
        match self.state {
            State::Osc => to.osc(&self.data),
            State::DcsData => to.dcs(&self.sequence, &self.data),
            _ => {}
        }
    }
}

const MAX_PARAMS: usize = 32;
/// Number of characters that are printed without a look at what it has cost.
const MAX_RUN_BYTES: usize = 64;
/// What it costs to look at a byte, in cells.
const BYTE_COST: usize = 8;
/// A command with more data than this has no effect.
const MAX_DATA_BYTES: usize = 32 << 10;
const MAX_TAIL_BYTES: usize = 32 << 10;
