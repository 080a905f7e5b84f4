//! Input of clients: numbered so that nothing is typed twice, and never mixed into a paste.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

/// How far one client's input has come, over all its connections.
#[derive(Debug, Default)]
pub(crate) struct InputSequence {
    /// The number of the next byte; `None` before the first.
    next: Option<u64>,
    /// The last bytes that came.
    tail: VecDeque<u8>,
    /// It is only a guess that the client now connected is the one that sent them.
    guessed: bool,
}

/// A piece of input that leaves out some before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InputGap {
    pub(crate) expected: u64,
}

impl InputSequence {
    /// The one that was [kept](Self::kept).
    pub(crate) fn restore(next: u64, tail: Vec<u8>) -> Self {
        Self { next: Some(next), tail: tail.into(), guessed: false }
    }

    /// The number of the next byte and the last bytes before it, if there were any.
    pub(crate) fn kept(&self) -> Option<(u64, Vec<u8>)> {
        let over = self.tail.len().saturating_sub(WRITTEN);
        Some((self.next?, self.tail.range(over..).copied().collect()))
    }

    /// The same, for a client that did not say who it is.
    pub(crate) fn guess(&mut self) {
        self.guessed = true;
    }

    /// Everything below it has come.
    pub(crate) fn next(&self) -> u64 {
        self.next.unwrap_or(0)
    }

    /// What of `data`, whose first byte has this number, is new. A client that sends again what
    /// came before its connection broke types it once. One that was only guessed to be the same,
    /// and sends something else under a number that was used, is another.
    pub(crate) fn accept(&mut self, number: u64, data: &Bytes) -> Result<Bytes, InputGap> {
        let guessed = std::mem::take(&mut self.guessed);
        let next = match self.next {
            None => number,
            Some(next) if guessed && !self.repeats(next, number, data) => {
                self.tail.clear();
                number
            }
            Some(next) => next,
        };
        if number > next {
            return Err(InputGap { expected: next });
        }
        let known = usize::try_from(next - number).unwrap_or(usize::MAX).min(data.len());
        let new = data.slice(known..);
        self.next = Some(next + new.len() as u64);
        self.tail.extend(&new);
        let over = self.tail.len().saturating_sub(KEPT);
        self.tail.drain(..over);
        Ok(new)
    }

    /// Whether some of `data` was sent before under this number.
    pub(crate) fn has_seen(&self, number: u64, data: &Bytes) -> bool {
        self.next.is_some_and(|next| number < next && self.repeats(next, number, data))
    }

    fn repeats(&self, next: u64, number: u64, data: &Bytes) -> bool {
        if number >= next {
            return number == next;
        }
        let back = usize::try_from(next - number).unwrap_or(usize::MAX);
        let Some(from) = self.tail.len().checked_sub(back) else { return false };
        self.tail.range(from..).zip(data.iter()).all(|(old, new)| old == new)
    }
}

/// Puts the input of several clients into one order in which no paste is torn.
#[derive(Debug, Default)]
pub(crate) struct InputQueue {
    waiting: VecDeque<(u64, Bytes)>,
    paste: Option<Paste>,
}

/// A client that is pasting: others wait.
#[derive(Debug)]
struct Paste {
    client: u64,
    begun: Instant,
    last: Instant,
    /// It said that it begins and will say that it ends (bracketed paste).
    bracketed: bool,
}

impl InputQueue {
    /// Takes what `client` sends.
    pub(crate) fn push(&mut self, client: u64, data: Bytes) {
        self.waiting.push_back((client, data));
    }

    /// What to type next, if anything may be typed now.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Bytes> {
        if self.paste.as_ref().is_some_and(|paste| now >= paste.until()) {
            self.paste = None;
        }
        let index = match &self.paste {
            Some(paste) => self.waiting.iter().position(|(client, _)| *client == paste.client)?,
            None => 0,
        };
        let (client, data) = self.waiting.remove(index)?;
        let begun = self.paste.as_ref().map_or(now, |paste| paste.begun);
        let open = self.paste.as_ref().is_some_and(|paste| paste.bracketed);
        let bracketed = match (last_of(&data, PASTE_BEGINS), last_of(&data, PASTE_ENDS)) {
            (Some(begin), Some(end)) => begin > end,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => open,
        };
        let ends = open && !bracketed;
        self.paste = (bracketed || (!ends && (data.len() >= PASTE_BYTES || self.paste.is_some())))
            .then_some(Paste { client, begun, last: now, bracketed });
        Some(data)
    }

    /// When something that waits for a paste to end may be typed at the latest.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.paste.as_ref().filter(|_| !self.waiting.is_empty()).map(Paste::until)
    }

    /// Forgets a client that left: what it had begun to paste is all there is.
    pub(crate) fn leave(&mut self, client: u64) {
        if self.paste.as_ref().is_some_and(|paste| paste.client == client)
            && !self.waiting.iter().any(|(from, _)| *from == client)
        {
            self.paste = None;
        }
    }
}

impl Paste {
    fn until(&self) -> Instant {
        let quiet = if self.bracketed { BRACKETED_PASTE_TIMEOUT } else { PASTE_TIMEOUT };
        (self.last + quiet).min(self.begun + MAX_PASTE_DURATION)
    }
}

/// Whether `data` is nothing but answers of a terminal to a program's questions. The engine answers
/// them itself, once; those of its clients' terminals are dropped. `positions` is how many reports
/// of the cursor's position this client may still give: they look like keys with modifiers.
pub(crate) fn is_reply(data: &[u8], positions: &mut u64) -> bool {
    let mut rest = data;
    while !rest.is_empty() {
        let Some(length) = reply(rest, positions) else { return false };
        rest = &rest[length..];
    }
    !data.is_empty()
}

/// The length of the reply that `data` begins with.
fn reply(data: &[u8], positions: &mut u64) -> Option<usize> {
    let body = data.strip_prefix(b"\x1b")?;
    match body.first()? {
        b'[' => {
            let length = body.iter().skip(1).position(|byte| (0x40..=0x7e).contains(byte))? + 1;
            let (parameters, last) = (&body[1..length], body[length]);
            let is_reply = match (parameters.first(), last) {
                // DA1, DA2, DA3 (ECMA-48 8.3.24 and DEC's).
                (Some(b'?' | b'>' | b'='), b'c') => true,
                // DECRPM.
                (_, b'y') => parameters.ends_with(b"$"),
                // DECXCPR, and DSR.
                (Some(b'?'), b'R' | b'n') => true,
                (Some(_), b'n') => true,
                // XTWINOPS reports.
                (Some(b'3'..=b'9'), b't') => true,
                // CPR.
                (Some(b'0'..=b'9'), b'R') if *positions > 0 => {
                    *positions -= 1;
                    true
                }
                _ => false,
            };
            is_reply.then_some(length + 2)
        }
        // Colours (OSC 4, 10 to 19), DECRQSS and XTVERSION.
        b']' | b'P' => {
            let is_osc = body[0] == b']';
            let asked = !is_osc
                || [&b"4;"[..], b"10;", b"11;", b"12;"]
                    .iter()
                    .any(|code| body[1..].starts_with(code));
            let end = body.iter().position(|byte| matches!(byte, 0x07 | 0x1b))?;
            let tail = if body[end] == 0x07 { 1 } else { 2 };
            (asked && data.len() > end + tail).then_some(1 + end + tail)
        }
        _ => None,
    }
}

fn last_of(data: &[u8], needle: &[u8]) -> Option<usize> {
    if data.len() < needle.len() {
        return None;
    }
    data.windows(needle.len()).rposition(|window| window == needle)
}

const PASTE_BEGINS: &[u8] = b"\x1b[200~";
const PASTE_ENDS: &[u8] = b"\x1b[201~";
/// Nobody types so much at once: it is a piece of a paste, and the next is on its way.
const PASTE_BYTES: usize = 256;
/// A paste is over when nothing more of it has come for so long.
const PASTE_TIMEOUT: Duration = Duration::from_millis(100);
const BRACKETED_PASTE_TIMEOUT: Duration = Duration::from_secs(2);
/// And others wait no longer than this.
const MAX_PASTE_DURATION: Duration = Duration::from_secs(10);
/// So much of a client's input is kept to know it by.
const KEPT: usize = 16 * 1024;
/// And so much of it is written down.
const WRITTEN: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_again_is_typed_once() {
        let mut numbers = InputSequence::default();
        assert_eq!(numbers.accept(0, &Bytes::from("hello ")), Ok(Bytes::from("hello ")));
        assert_eq!(numbers.accept(0, &Bytes::from("hello wo")), Ok(Bytes::from("wo")));
        assert_eq!(numbers.accept(0, &Bytes::from("hel")), Ok(Bytes::new()));
        assert_eq!(numbers.next(), 8);
        assert_eq!(numbers.accept(9, &Bytes::from("x")), Err(InputGap { expected: 8 }));
        numbers.guess();
        assert_eq!(numbers.accept(6, &Bytes::from("world")), Ok(Bytes::from("rld")));
        numbers.guess();
        assert_eq!(numbers.accept(0, &Bytes::from("ls\n")), Ok(Bytes::from("ls\n")));
        assert_eq!(numbers.next(), 3);
    }

    #[test]
    fn pastes_are_not_torn() {
        let start = Instant::now();
        let mut weave = InputQueue::default();
        weave.push(1, Bytes::from("\x1b[200~first"));
        weave.push(2, Bytes::from("x"));
        weave.push(1, Bytes::from("second\x1b[201~"));
        weave.push(1, Bytes::from("y"));
        let mut typed = Vec::new();
        while let Some(data) = weave.pop(start) {
            typed.extend(data);
        }
        assert_eq!(typed, b"\x1b[200~firstsecond\x1b[201~xy");

        weave.push(1, Bytes::from(vec![b'a'; PASTE_BYTES]));
        weave.push(2, Bytes::from("x"));
        assert_eq!(weave.pop(start).map(|data| data.len()), Some(PASTE_BYTES));
        assert_eq!(weave.pop(start), None);
        weave.push(1, Bytes::from("end"));
        assert_eq!(weave.pop(start), Some(Bytes::from("end")));
        assert_eq!(weave.wake_at(), Some(start + PASTE_TIMEOUT));
        assert_eq!(weave.pop(start + PASTE_TIMEOUT), Some(Bytes::from("x")));
        assert_eq!(weave.wake_at(), None);
    }

    #[test]
    fn a_paste_without_end_holds_nobody_for_long() {
        let start = Instant::now();
        let mut weave = InputQueue::default();
        weave.push(1, Bytes::from("\x1b[200~first"));
        weave.push(2, Bytes::from("x"));
        assert!(weave.pop(start).is_some());
        assert_eq!(weave.pop(start + PASTE_TIMEOUT), None);
        assert_eq!(weave.pop(start + BRACKETED_PASTE_TIMEOUT), Some(Bytes::from("x")));
    }

    #[test]
    fn answers_are_told_from_keys() {
        for answer in [
            "\x1b[?1;2c",
            "\x1b[>0;276;0c",
            "\x1b[0n",
            "\x1b[?2026;2$y",
            "\x1b]11;rgb:0000/0000/0000\x1b\\",
            "\x1b]10;rgb:ffff/ffff/ffff\x07",
            "\x1bP>|xterm.js(6.0.0)\x1b\\",
            "\x1b[?1;2c\x1b[0n",
        ] {
            assert!(is_reply(answer.as_bytes(), &mut 0), "{answer:?}");
        }
        for key in [
            "",
            "a",
            "\x1b",
            "\x1b[A",
            "\x1b[1;2R",
            "\x1bOP",
            "\x1b[15~",
            "\x1b[200~x\x1b[201~",
            "\x1b[<0;3;4M",
            "\x1b[I",
            "\x1b[?1;2cx",
            "\x1b[",
            "\x1b]52;c;eA==\x07",
        ] {
            assert!(!is_reply(key.as_bytes(), &mut 0), "{key:?}");
        }
        let mut positions = 1;
        assert!(is_reply(b"\x1b[24;80R", &mut positions));
        assert!(!is_reply(b"\x1b[1;2R", &mut positions));
    }
}
