//! Keeping the first and the last part of a stream.

use std::collections::VecDeque;

use bytes::{Buf as _, Bytes, BytesMut};

/// Keeps the first and the last half of a stream of which no more than `limit` bytes may stay.
#[derive(Debug)]
pub(crate) struct HeadTail {
    head_room: u64,
    tail_limit: u64,
    tail: VecDeque<Bytes>,
    tail_len: u64,
    lost: u64,
}

impl HeadTail {
    pub(crate) fn new(limit: u64) -> Self {
        let tail_limit = limit / 2;
        Self {
            head_room: limit - tail_limit,
            tail_limit,
            tail: VecDeque::new(),
            tail_len: 0,
            lost: 0,
        }
    }

    /// Takes what came; gives back what belongs to the first part, which can be passed on at once.
    pub(crate) fn push(&mut self, mut data: Bytes) -> Option<Bytes> {
        let in_head = usize::try_from(self.head_room).unwrap_or(usize::MAX).min(data.len());
        let head = data.split_to(in_head);
        self.head_room -= in_head as u64;
        if !data.is_empty() {
            self.push_tail(data);
        }
        (!head.is_empty()).then_some(head)
    }

    /// How much was left out between the parts.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    /// The last part.
    pub(crate) fn into_tail(self) -> impl Iterator<Item = Bytes> {
        self.tail.into_iter()
    }

    fn push_tail(&mut self, mut data: Bytes) {
        let surplus = (data.len() as u64).saturating_sub(self.tail_limit);
        data.advance(usize::try_from(surplus).expect("no longer than the data"));
        self.lost += surplus;
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
        while self.tail_len > self.tail_limit {
            let first = self.tail.front_mut().expect("the tail holds tail_len bytes");
            let surplus = usize::try_from(self.tail_len - self.tail_limit).unwrap_or(usize::MAX);
            let cut = surplus.min(first.len());
            first.advance(cut);
            self.lost += cut as u64;
            self.tail_len -= cut as u64;
            if first.is_empty() {
                self.tail.pop_front();
            }
        }
    }
}

const PIECE: usize = 4096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keep(limit: u64, pieces: &[Vec<u8>]) -> (Vec<u8>, u64) {
        let mut kept = Vec::new();
        let mut rule = HeadTail::new(limit);
        for piece in pieces {
            kept.extend(rule.push(Bytes::copy_from_slice(piece)).unwrap_or_default());
        }
        let lost = rule.lost();
        rule.into_tail().for_each(|piece| kept.extend(piece));
        (kept, lost)
    }

    #[test]
    fn nothing_is_kept_at_zero_and_all_at_the_limit() {
        assert_eq!(keep(0, &[b"abc".to_vec()]), (vec![], 3));
        assert_eq!(keep(3, &[b"abc".to_vec()]), (b"abc".to_vec(), 0));
        assert_eq!(keep(4, &[b"abc".to_vec(), b"defg".to_vec()]), (b"abfg".to_vec(), 3));
    }

    proptest! {
        #[test]
        fn the_first_and_last_part_stay(
            limit in 0u64..200,
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..12),
        ) {
            let all: Vec<u8> = pieces.concat();
            let (kept, lost) = keep(limit, &pieces);
            prop_assert_eq!(kept.len() as u64 + lost, all.len() as u64);
            prop_assert_eq!(kept.len() as u64, limit.min(all.len() as u64));
            if lost > 0 {
                let head = (limit - limit / 2) as usize;
                prop_assert_eq!(&kept[..head], &all[..head]);
                prop_assert_eq!(&kept[head..], &all[all.len() - (limit / 2) as usize..]);
            }
        }
    }
}
