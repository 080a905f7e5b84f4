//! Keeping the first and the last part of a stream.

use std::collections::VecDeque;

use bytes::{Buf as _, Bytes, BytesMut};

use crate::execute::capture::{MAX_MARGIN_BYTES as MAX_MARGIN, StreamMemory};
use crate::quota::MemoryError;

/// Keeps the first and the last half of a stream of which no more than `limit` bytes may stay. What
/// is left out between them begins and ends at line ends, where there is one near enough.
#[derive(Debug)]
pub(crate) struct HeadTail {
    head_room: u64,
    /// The end of the first part, at most half of it, within which a line is held back until it is
    /// complete. Before that everything is passed on at once.
    head_margin: u64,
    /// The beginning of a line, at the end of the first part.
    held: BytesMut,
    /// Whether what was passed on last ended with a line.
    is_held_at_line_start: bool,
    tail_limit: u64,
    tail: VecDeque<Bytes>,
    tail_len: u64,
    lost: u64,
    last_lost: Option<u8>,
    /// That of the last part. Where there is no more the last part is what there is memory for.
    memory: StreamMemory,
}

/// What was not passed on yet when a stream has ended.
#[derive(Debug)]
pub(crate) struct Rest {
    /// The end of the first part.
    pub(crate) head: Bytes,
    /// How much was left out behind it.
    pub(crate) lost: u64,
    /// The last part.
    pub(crate) tail: VecDeque<Bytes>,
    /// That of the last part.
    pub(crate) memory: StreamMemory,
}

impl HeadTail {
    pub(crate) fn new(limit: u64, memory: StreamMemory) -> Self {
        let tail_limit = limit / 2;
        let head_room = limit - tail_limit;
        Self {
            head_room,
            head_margin: (head_room / 2).min(MAX_MARGIN_BYTES),
            held: BytesMut::new(),
            is_held_at_line_start: false,
            tail_limit,
            tail: VecDeque::new(),
            tail_len: 0,
            lost: 0,
            last_lost: None,
            memory,
        }
    }

    /// Returns whether nothing came yet.
    pub(crate) fn is_untouched(&self, limit: u64) -> bool {
        self.head_room == limit - limit / 2 && self.tail_len == 0 && self.lost == 0
    }

    /// Why the last part is shorter than half of the limit.
    pub(crate) fn shortage(&self) -> Option<MemoryError> {
        self.memory.shortage()
    }

    /// Takes what came; gives back what belongs to the first part, which can be passed on at once.
    pub(crate) fn push(&mut self, mut data: Bytes) -> Option<Bytes> {
        let in_head = usize::try_from(self.head_room).unwrap_or(usize::MAX).min(data.len());
        let mut head = data.split_to(in_head);
        self.head_room -= in_head as u64;
        if !data.is_empty() {
            self.push_tail(data);
        }
        if self.head_room < self.head_margin {
            head = self.hold_back(head);
        }
        if let Some(last) = head.last() {
            self.is_held_at_line_start = *last == b'\n';
        }
        (!head.is_empty()).then_some(head)
    }

    /// What is left to pass on at the end.
    pub(crate) fn finish(mut self) -> Rest {
        if self.lost > 0 {
            if self.is_held_at_line_start {
                self.lost += self.held.len() as u64;
                self.held.clear();
            }
            self.trim_tail();
        }
        Rest { head: self.held.freeze(), lost: self.lost, tail: self.tail, memory: self.memory }
    }

    /// Gives the whole lines of what is held and of what came.
    fn hold_back(&mut self, head: Bytes) -> Bytes {
        match head.iter().rposition(|byte| *byte == b'\n') {
            Some(last) => {
                let rest = &head[last + 1..];
                let mut lines = std::mem::replace(&mut self.held, BytesMut::from(rest));
                if lines.is_empty() {
                    return head.slice(..=last);
                }
                lines.extend_from_slice(&head[..=last]);
                lines.freeze()
            }
            None => {
                self.held.extend_from_slice(&head);
                Bytes::new()
            }
        }
    }

    fn push_tail(&mut self, mut data: Bytes) {
        let size = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
        let wanted = (self.tail_len + data.len() as u64).min(self.tail_limit);
        let may = self.memory.grow(size(wanted), size(self.tail_limit)) as u64;
        if may < wanted {
            self.tail_limit = may;
        }
        let surplus = (data.len() as u64).saturating_sub(self.tail_limit);
        let surplus = usize::try_from(surplus).expect("no longer than the data");
        if surplus > 0 {
            self.lost += self.tail_len + surplus as u64;
            self.last_lost = Some(data[surplus - 1]);
            self.tail.clear();
            self.tail_len = 0;
            data.advance(surplus);
        }
        self.tail_len += data.len() as u64;
        match self.tail.back_mut() {
            // Small pieces are put together: a piece costs more than its bytes.
            Some(last) if last.len() + data.len() <= PIECE => {
                let mut joined = BytesMut::with_capacity(PIECE);
                joined.extend_from_slice(last);
                joined.extend_from_slice(&data);
                *last = joined.freeze();
            }
            _ if data.is_empty() => {}
            _ => self.tail.push_back(data),
        }
        self.drop_first(self.tail_len.saturating_sub(self.tail_limit));
    }

    /// Leaves out the rest of a line at the beginning of the last part, if it ends within the margin
    /// and something follows it.
    fn trim_tail(&mut self) {
        if self.last_lost.is_none_or(|byte| byte == b'\n') {
            return;
        }
        let margin = usize::try_from(self.tail_limit.min(MAX_MARGIN_BYTES)).unwrap_or(usize::MAX);
        let bytes = self.tail.iter().flat_map(|piece| piece.iter());
        let end = bytes.take(margin).position(|byte| *byte == b'\n');
        if let Some(rest) = end.map(|end| end as u64 + 1).filter(|rest| *rest < self.tail_len) {
            self.drop_first(rest);
        }
    }

    fn drop_first(&mut self, mut surplus: u64) {
        while surplus > 0 {
            let first = self.tail.front_mut().expect("the tail holds tail_len bytes");
            let cut = usize::try_from(surplus).unwrap_or(usize::MAX).min(first.len());
            self.last_lost = Some(first[cut - 1]);
            first.advance(cut);
            self.lost += cut as u64;
            self.tail_len -= cut as u64;
            surplus -= cut as u64;
            if first.is_empty() {
                self.tail.pop_front();
            }
        }
    }
}

const PIECE: usize = 4096;
/// How much of either part is given up at most for a whole line, beside a piece of what came.
const MAX_MARGIN_BYTES: u64 = MAX_MARGIN as u64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Both parts, and how much is missing between them.
    fn keep(limit: u64, pieces: &[Vec<u8>]) -> (Vec<u8>, u64, Vec<u8>) {
        let mut head = Vec::new();
        let mut rule = HeadTail::new(limit, StreamMemory::unlimited());
        for piece in pieces {
            head.extend(rule.push(Bytes::copy_from_slice(piece)).unwrap_or_default());
        }
        let rest = rule.finish();
        head.extend(rest.head);
        (head, rest.lost, rest.tail.into_iter().flatten().collect())
    }

    fn kept(limit: u64, text: &str) -> (String, u64, String) {
        let (head, lost, tail) = keep(limit, &[text.as_bytes().to_vec()]);
        let text = |bytes| String::from_utf8(bytes).expect("ASCII");
        (text(head), lost, text(tail))
    }

    #[test]
    fn nothing_is_kept_at_zero_and_all_at_the_limit() {
        assert_eq!(kept(0, "abc"), (String::new(), 3, String::new()));
        assert_eq!(keep(3, &[b"abc".to_vec()]), (b"ab".to_vec(), 0, b"c".to_vec()));
        let pieces = [b"abc".to_vec(), b"defg".to_vec()];
        assert_eq!(keep(4, &pieces), (b"ab".to_vec(), 3, b"fg".to_vec()));
    }

    #[test]
    fn whole_lines_are_left_out_where_there_are_any() {
        let expected = ("one\n".to_owned(), 15, "five\n".to_owned());
        assert_eq!(kept(14, "one\ntwo\nthree\nfour\nfive\n"), expected);
        // The gap ends at a line end by itself.
        assert_eq!(kept(8, "one\ntwo\nsix\n"), ("one\n".to_owned(), 4, "six\n".to_owned()));
        // Of one long line there is no better place.
        // Nothing is given up of a first part that ended before it, nor is all of the last.
        let expected = ("0123".to_owned(), 2, "678\n".to_owned());
        assert_eq!(kept(8, "012345678\n"), expected);
        // A line that is complete within the limit stays.
        assert_eq!(kept(8, "one\ntwo"), ("one\n".to_owned(), 0, "two".to_owned()));
    }

    #[test]
    fn a_prompt_far_from_the_limit_is_passed_on_at_once() {
        let mut rule = HeadTail::new(4 * MAX_MARGIN_BYTES, StreamMemory::unlimited());
        let prompt = Bytes::from_static(b"name: ");
        assert_eq!(rule.push(prompt.clone()), Some(prompt));
    }

    proptest! {
        #[test]
        fn the_first_and_last_part_stay(
            limit in 0u64..200,
            pieces in prop::collection::vec(
                prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..60), 0..12),
        ) {
            let all: Vec<u8> = pieces.concat();
            let (head, lost, tail) = keep(limit, &pieces);
            prop_assert_eq!((head.len() + tail.len()) as u64 + lost, all.len() as u64);
            prop_assert!(all.starts_with(&head) && all.ends_with(&tail));
            let (most_head, most_tail) = ((limit - limit / 2) as usize, (limit / 2) as usize);
            if lost == 0 {
                prop_assert!(all.len() as u64 <= limit);
                return Ok(());
            }
            prop_assert!(head.len() <= most_head && tail.len() <= most_tail);
            let full_head = &all[..most_head];
            match full_head.iter().rposition(|byte| *byte == b'\n') {
                Some(last) if most_head - last <= most_head / 2 => {
                    prop_assert_eq!(head.len(), last + 1);
                }
                // Before the margin a line end is found by chance.
                Some(last) => prop_assert!([last + 1, most_head].contains(&head.len())),
                None => prop_assert_eq!(head.len(), most_head),
            }
            let begin = all.len() - most_tail;
            let line = all[begin..].iter().position(|byte| *byte == b'\n').map(|end| end + 1);
            let expected = match line.filter(|line| *line < most_tail) {
                Some(line) if all[begin - 1] != b'\n' => most_tail - line,
                _ => most_tail,
            };
            prop_assert_eq!(tail.len(), expected);
        }
    }
}
