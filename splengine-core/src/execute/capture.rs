//! Keeping the output of a stream in memory, within an output limit and the memory that its caller may
//! have for that.

use bytes::Bytes;

use crate::execute::Gap;
use crate::quota::{CallerBudgets, MemoryError, Reservation};
use crate::user_name::UserName;

/// Memory of an engine for output that is kept, and whose share of it a run may have.
#[derive(Debug, Clone)]
pub(crate) struct CaptureBudget {
    pub(crate) budgets: CallerBudgets,
    pub(crate) user: UserName,
}

impl CaptureBudget {
    /// Memory for one stream, of which nothing is reserved yet.
    pub(crate) fn stream(&self) -> StreamMemory {
        StreamMemory { budget: Some(self.clone()), ..StreamMemory::unlimited() }
    }
}

/// Memory for the output that is kept of one stream, given back when dropped. The first
/// [bytes](FREE_BYTES) need no reservation.
#[derive(Debug)]
pub(crate) struct StreamMemory {
    /// `None`: nothing is counted.
    budget: Option<CaptureBudget>,
    reservation: Option<Reservation>,
    granted: usize,
    shortage: Option<MemoryError>,
}

impl StreamMemory {
    /// Memory that is not counted.
    pub(crate) fn unlimited() -> Self {
        Self { budget: None, reservation: None, granted: FREE_BYTES, shortage: None }
    }

    /// Grants `bytes` in all, or as many as there are, if no fewer than before: returns how many. It
    /// asks for more at once, up to `max`, so that a stream that grows asks seldom. Once something was
    /// refused nothing more is granted.
    pub(crate) fn grow(&mut self, bytes: usize, max: usize) -> usize {
        if bytes <= self.granted || self.shortage.is_some() {
            return self.granted;
        }
        let more = bytes.max(self.granted.saturating_add(self.granted / 2)).min(max.max(bytes));
        let Some(budget) = &self.budget else {
            self.granted = more;
            return more;
        };
        let reservation = self.reservation.get_or_insert_with(|| {
            budget.budgets.of(&budget.user).reservation().allowance(FREE_BYTES)
        });
        let grown = reservation.try_grow(more).map(|()| more);
        match grown.or_else(|_| reservation.try_grow(bytes).map(|()| bytes)) {
            Ok(granted) => self.granted = granted,
            Err(shortage) => {
                self.shortage = Some(shortage);
                let rest = reservation.attainable().min(bytes);
                if rest > self.granted && reservation.try_grow(rest).is_ok() {
                    self.granted = rest;
                }
            }
        }
        self.granted
    }

    /// Why less was granted than was asked for.
    pub(crate) fn shortage(&self) -> Option<MemoryError> {
        self.shortage
    }

    /// Gives back what is beyond `bytes`.
    fn shrink(&mut self, bytes: usize) {
        if let Some(reservation) = &mut self.reservation {
            // Less never waits.
            let _ = reservation.try_resize(bytes.min(self.granted));
        }
        self.granted = self.granted.min(bytes.max(FREE_BYTES));
    }
}

/// Keeps the first and the last half of a stream, of which no more than a limit of bytes, or than there
/// is memory for, stays. What is left out between them begins and ends at line ends, where there is one
/// near enough.
#[derive(Debug)]
pub(crate) struct Capture {
    /// The first part; once the limit is reached the last part behind it, written in a circle.
    buffer: Vec<u8>,
    /// What may be kept: less than what was asked for once there was no memory for more.
    limit: usize,
    /// Where the last part is written next, once the limit is reached.
    next: Option<usize>,
    lost: u64,
    last_lost: Option<u8>,
    memory: StreamMemory,
}

impl Capture {
    pub(crate) fn new(limit: u64, memory: StreamMemory) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Self { buffer: Vec::new(), limit, next: None, lost: 0, last_lost: None, memory }
    }

    /// Number of bytes that came, kept or not.
    pub(crate) fn received(&self) -> u64 {
        self.buffer.len() as u64 + self.lost
    }

    pub(crate) fn push(&mut self, mut data: &[u8]) {
        if self.next.is_none() {
            let wanted = self.buffer.len().saturating_add(data.len()).min(self.limit);
            let may = self.memory.grow(wanted, self.limit).min(self.limit);
            let until = wanted.min(may);
            if self.buffer.capacity() < until && may > FREE_BYTES {
                // Neither more than is reserved, nor little by little.
                self.buffer.reserve_exact(may - self.buffer.len());
            }
            let (fits, rest) = data.split_at(until - self.buffer.len());
            self.buffer.extend_from_slice(fits);
            data = rest;
            if data.is_empty() {
                return;
            }
            self.limit = self.buffer.len();
            self.next = Some(self.head());
        }
        self.push_tail(data);
    }

    /// Length of the first part, once the limit is reached.
    fn head(&self) -> usize {
        self.limit - self.limit / 2
    }

    fn push_tail(&mut self, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let (head, tail) = (self.head(), self.limit / 2);
        let (skipped, kept) = data.split_at(data.len().saturating_sub(tail));
        self.lost += data.len() as u64;
        if tail == 0 {
            self.last_lost = data.last().copied();
            return;
        }
        let mut next = self.next.unwrap_or(head);
        if skipped.is_empty() {
            let last = (next - head + kept.len() - 1) % tail;
            self.last_lost = Some(self.buffer[head + last]);
        } else {
            self.last_lost = skipped.last().copied();
        }
        let mut rest = kept;
        while !rest.is_empty() {
            let count = rest.len().min(self.limit - next);
            let (now, later) = rest.split_at(count);
            self.buffer[next..next + count].copy_from_slice(now);
            next += count;
            if next == self.limit {
                next = head;
            }
            rest = later;
        }
        self.next = Some(next);
    }

    /// What is kept, and which part is missing in it. The memory is reserved until the last of the
    /// bytes is dropped. Where there is much of it, the work is done off the runtime's workers.
    pub(crate) async fn finish(self) -> (Bytes, Option<Gap>) {
        if self.lost == 0 || self.limit <= MAX_MOVED_BYTES {
            return self.put_together();
        }
        let moving = tokio::task::spawn_blocking(move || self.put_together());
        moving.await.unwrap_or_default()
    }

    fn put_together(mut self) -> (Bytes, Option<Gap>) {
        let gap = self.cut();
        let Self { mut buffer, mut memory, .. } = self;
        if buffer.capacity() - buffer.len() > buffer.len() / 8 {
            buffer.shrink_to_fit();
        }
        memory.shrink(buffer.capacity());
        let bytes = match memory.reservation {
            Some(_) => Bytes::from_owner(Kept { buffer, _memory: memory }),
            None => buffer.into(),
        };
        (bytes, gap)
    }

    /// Puts the last part in order behind the first, and leaves out the parts of lines around the gap.
    fn cut(&mut self) -> Option<Gap> {
        if self.lost == 0 {
            return None;
        }
        let head = self.head();
        let next = self.next.unwrap_or(head);
        self.buffer[head..].rotate_left(next - head);
        let (first, last) = self.buffer.split_at(head);
        let margin = head.min(MAX_MARGIN_BYTES);
        let line = first[head - margin..].iter().rposition(|byte| *byte == b'\n');
        let until = line.map_or(head, |line| head - margin + line + 1);
        let margin = last.len().min(MAX_MARGIN_BYTES);
        let line = last[..margin].iter().position(|byte| *byte == b'\n').map(|line| line + 1);
        let is_within_line = self.last_lost.is_some_and(|byte| byte != b'\n');
        let skipped = line.filter(|line| is_within_line && *line < last.len()).unwrap_or(0);
        self.lost += (head - until + skipped) as u64;
        self.buffer.drain(until..head + skipped);
        Some(Gap { at: until as u64, bytes: self.lost })
    }
}

/// Output that is kept, and the memory that is reserved for it.
struct Kept {
    buffer: Vec<u8>,
    _memory: StreamMemory,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

/// So much of each stream is kept whatever others hold.
const FREE_BYTES: usize = 16 << 10;
/// How much of either part is given up at most for a whole line.
pub(crate) const MAX_MARGIN_BYTES: usize = 64 << 10;
/// Largest output that is put in order on a worker of the runtime.
const MAX_MOVED_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::quota::MemoryBudget;

    fn keep(limit: u64, pieces: &[Vec<u8>], memory: StreamMemory) -> (Bytes, Option<Gap>) {
        let mut capture = Capture::new(limit, memory);
        let mut received = 0;
        for piece in pieces {
            capture.push(piece);
            received += piece.len() as u64;
            assert_eq!(capture.received(), received);
        }
        capture.put_together()
    }

    fn kept(limit: u64, text: &str) -> (String, Option<(u64, u64)>) {
        let (bytes, gap) = keep(limit, &[text.as_bytes().to_vec()], StreamMemory::unlimited());
        let text = String::from_utf8(bytes.to_vec()).expect("ASCII");
        (text, gap.map(|gap| (gap.at, gap.bytes)))
    }

    #[test]
    fn whole_lines_are_left_out_where_there_are_any() {
        assert_eq!(kept(0, "abc"), (String::new(), Some((0, 3))));
        assert_eq!(kept(1, "abc"), ("a".to_owned(), Some((1, 2))));
        assert_eq!(kept(3, "abc"), ("abc".to_owned(), None));
        let text = "one\ntwo\nthree\nfour\nfive\n";
        assert_eq!(kept(14, text), ("one\nfive\n".to_owned(), Some((4, 15))));
        assert_eq!(kept(8, "one\ntwo\nsix\n"), ("one\nsix\n".to_owned(), Some((4, 4))));
        assert_eq!(kept(8, "012345678\n"), ("0123678\n".to_owned(), Some((4, 2))));
    }

    fn of(user: &str, budgets: &CallerBudgets) -> StreamMemory {
        let user = user.parse().expect("a name");
        CaptureBudget { budgets: budgets.clone(), user }.stream()
    }

    #[test]
    fn without_memory_as_much_is_kept_as_under_a_limit() {
        const MIB: usize = 1 << 20;
        let whole = MemoryBudget::new(MIB);
        let budgets = CallerBudgets::new(&whole);
        let line = |number: u32| format!("line {number:>10}\n").into_bytes();
        let pieces: Vec<_> = (0..200_000).map(line).collect();
        let keep = |user| keep(64 * MIB as u64, &pieces, of(user, &budgets));
        let (first, gap) = keep("alice");
        let gap = gap.expect("some is missing");
        let most = MIB / 2 + FREE_BYTES;
        assert!(first.len() <= most && first.len() > most - 64, "{}", first.len());
        assert_eq!(gap.at, most as u64 / 2 / 16 * 16);
        assert_eq!(gap.bytes as usize + first.len(), 16 * pieces.len());
        assert!(first.ends_with(&line(199_999)));
        // All of hers is held.
        let (second, _) = keep("alice");
        assert!(second.len() <= FREE_BYTES && second.len() > FREE_BYTES - 64);
        let (other, _) = keep("bob");
        let most = MIB / 4 + FREE_BYTES;
        assert!(other.len() <= most && other.len() > most - 64, "{}", other.len());
        let part = first.slice(..1);
        drop((first, second, other));
        assert_eq!(whole.available(), MIB / 2, "a part holds all");
        drop(part);
        assert_eq!(whole.available(), MIB);
    }

    #[test]
    fn memory_beyond_a_short_output_is_given_back() {
        const MIB: usize = 1 << 20;
        let whole = MemoryBudget::new(2 * MIB);
        let budgets = CallerBudgets::new(&whole);
        // After the first piece the second asks for half as much again.
        let pieces = [vec![b'x'; 200_000], vec![b'x'; 8]];
        let (kept, gap) = keep(MIB as u64, &pieces, of("alice", &budgets));
        assert_eq!((kept.len(), gap), (200_008, None));
        let held = 2 * MIB - whole.available();
        assert!(held <= 200_008, "{held} bytes are reserved");
    }

    proptest! {
        #[test]
        fn the_first_and_last_part_stay(
            limit in 0u64..200,
            pieces in prop::collection::vec(
                prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..60), 0..12),
        ) {
            let all: Vec<u8> = pieces.concat();
            let (bytes, gap) = keep(limit, &pieces, StreamMemory::unlimited());
            let Some(gap) = gap else {
                prop_assert!(all.len() as u64 <= limit);
                prop_assert_eq!(bytes, all);
                return Ok(());
            };
            prop_assert_eq!(bytes.len() as u64 + gap.bytes, all.len() as u64);
            let (head, tail) = bytes.split_at(gap.at as usize);
            prop_assert!(all.starts_with(head) && all.ends_with(tail));
            let (most_head, most_tail) = ((limit - limit / 2) as usize, (limit / 2) as usize);
            match all[..most_head].iter().rposition(|byte| *byte == b'\n') {
                Some(line) => prop_assert_eq!(head.len(), line + 1),
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
