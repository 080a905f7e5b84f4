//! The last output of a terminal: a ring, bounded in bytes, that clients read at their own pace.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::terminal::Size;

/// The end of a session's output, with offsets that count from its beginning, and the changes of
/// size between its bytes.
#[derive(Debug)]
pub(crate) struct Log {
    capacity: usize,
    start: u64,
    end: u64,
    chunks: VecDeque<Bytes>,
    /// Where each change of size lies, in order; the first has the number `first_change`.
    changes: VecDeque<(u64, Size)>,
    first_change: u64,
}

/// A place in a [`Log`], between two of its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) offset: u64,
    /// How many changes of size lie before it.
    change: u64,
}

impl Cursor {
    /// The place so many bytes of output further.
    pub(crate) fn advanced(self, bytes: usize) -> Self {
        Self { offset: self.offset + bytes as u64, ..self }
    }

    /// Returns whether nothing lies between it and `other` before it.
    pub(crate) fn has_reached(self, other: Self) -> bool {
        self.offset >= other.offset && self.change >= other.change
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Output { offset: u64, data: Bytes },
    Size(Size),
}

impl Log {
    /// An empty log that keeps `capacity` bytes.
    pub(crate) fn new(capacity: usize, offset: u64) -> Self {
        Self {
            capacity,
            start: offset,
            end: offset,
            chunks: VecDeque::new(),
            changes: VecDeque::new(),
            first_change: 0,
        }
    }

    /// The number of bytes that it keeps.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity as u64
    }

    pub(crate) fn end(&self) -> Cursor {
        Cursor { offset: self.end, change: self.first_change + self.changes.len() as u64 }
    }

    /// The place of a client that has read everything below `offset`; `None` when what follows is
    /// not kept any more, or was never printed.
    pub(crate) fn cursor_at(&self, offset: u64) -> Option<Cursor> {
        if offset < self.start || offset > self.end {
            return None;
        }
        let passed = self.changes.partition_point(|(at, _)| *at < offset);
        Some(Cursor { offset, change: self.first_change + passed as u64 })
    }

    /// Adds what was printed. Small pieces become larger ones, so that neither their number nor the time
    /// to find one depends on how finely a program prints.
    pub(crate) fn push(&mut self, mut data: Bytes) {
        self.end += data.len() as u64;
        let most = MAX_JOINED_BYTES.min(self.capacity / 8);
        while let Some(last) = self.chunks.back()
            && last.len() <= data.len()
            && last.len() + data.len() <= most
        {
            data = [&last[..], &data[..]].concat().into();
            self.chunks.pop_back();
        }
        self.chunks.push_back(data);
        while (self.end - self.start) as usize > self.capacity
            && let Some(oldest) = self.chunks.pop_front()
        {
            self.start += oldest.len() as u64;
        }
        self.forget_changes();
    }

    pub(crate) fn push_size(&mut self, size: Size) {
        self.changes.push_back((self.end, size));
        self.forget_changes();
    }

    /// What follows `cursor`, at most `most` bytes, and moves it on. `Err` when that is not kept
    /// any more; `Ok(None)` at the end.
    pub(crate) fn next(&self, cursor: &mut Cursor, most: usize) -> Result<Option<Entry>, Lost> {
        if cursor.offset < self.start || cursor.change < self.first_change {
            return Err(Lost);
        }
        let change = self.changes.get((cursor.change - self.first_change) as usize);
        if let Some((_, size)) = change.filter(|(at, _)| *at <= cursor.offset) {
            cursor.change += 1;
            return Ok(Some(Entry::Size(*size)));
        }
        let until = change.map_or(self.end, |(at, _)| *at);
        let data = self.read(cursor.offset, until, most);
        if data.is_empty() {
            return Ok(None);
        }
        let offset = cursor.offset;
        cursor.offset += data.len() as u64;
        Ok(Some(Entry::Output { offset, data }))
    }

    /// One piece if it lies in one, else a copy of several.
    fn read(&self, from: u64, until: u64, most: usize) -> Bytes {
        let mut at = self.end;
        let mut first = self.chunks.len();
        // Readers are mostly near the end.
        while at > from && first > 0 {
            first -= 1;
            at -= self.chunks[first].len() as u64;
        }
        let wanted = usize::try_from(until.saturating_sub(from)).unwrap_or(most).min(most);
        let mut skip = from.saturating_sub(at) as usize;
        let mut copied = Vec::new();
        for chunk in self.chunks.range(first..) {
            let rest = &chunk[skip.min(chunk.len())..];
            let take = rest.len().min(wanted - copied.len());
            if copied.is_empty() && take == wanted {
                return chunk.slice(skip..skip + take);
            }
            copied.extend_from_slice(&rest[..take]);
            if copied.len() == wanted {
                break;
            }
            skip = 0;
        }
        copied.into()
    }

    fn forget_changes(&mut self) {
        while self.changes.len() > MAX_CHANGES
            || self.changes.front().is_some_and(|(at, _)| *at < self.start)
        {
            self.changes.pop_front();
            self.first_change += 1;
        }
    }
}

/// What a cursor pointed at is not kept any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost;

/// Pieces are joined up to this length. Each byte is copied as often as its piece's length doubles.
const MAX_JOINED_BYTES: usize = 16 << 10;
/// Beyond it a client that has not read them gets a snapshot.
const MAX_CHANGES: usize = 256;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Push(Vec<u8>),
        Resize(u16),
        Read(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => proptest::collection::vec(any::<u8>(), 1..40).prop_map(Step::Push),
            1 => (1u16..200).prop_map(Step::Resize),
            3 => (1usize..64).prop_map(Step::Read),
        ];
        proptest::collection::vec(step, 0..80)
    }

    #[test]
    fn output_in_small_pieces_is_kept_in_large_ones() {
        let mut log = Log::new(1 << 20, 0);
        let mut whole = Vec::new();
        for at in 0..300_000_u32 {
            let piece = vec![at.to_le_bytes()[0]; 1 + at as usize % 3];
            whole.extend_from_slice(&piece);
            log.push(piece.into());
        }
        assert!(log.chunks.len() < 200, "{}", log.chunks.len());
        let mut cursor = log.cursor_at(0).expect("is kept");
        let mut read = Vec::new();
        while let Ok(Some(Entry::Output { data, .. })) = log.next(&mut cursor, 10_000) {
            read.extend_from_slice(&data);
        }
        assert!(read == whole);
    }

    proptest! {
        /// A reader sees every entry in order, once, or is told that it lost some.
        #[test]
        fn a_reader_misses_nothing_unknowingly(steps in steps()) {
            let mut log = Log::new(100, 7);
            let mut cursor = log.end();
            let mut expected: VecDeque<Result<u8, Size>> = VecDeque::new();
            for step in steps {
                match step {
                    Step::Push(data) => {
                        expected.extend(data.iter().map(|byte| Ok(*byte)));
                        log.push(data.into());
                        prop_assert!(log.chunks.iter().map(Bytes::len).sum::<usize>() <= 100);
                    }
                    Step::Resize(cols) => {
                        let size = Size::clamped(cols, 24);
                        expected.push_back(Err(size));
                        log.push_size(size);
                    }
                    Step::Read(most) => match log.next(&mut cursor, most) {
                        Ok(Some(Entry::Output { data, .. })) => {
                            prop_assert!(data.len() <= most);
                            for byte in data {
                                prop_assert_eq!(expected.pop_front(), Some(Ok(byte)));
                            }
                        }
                        Ok(Some(Entry::Size(size))) => {
                            prop_assert_eq!(expected.pop_front(), Some(Err(size)));
                        }
                        Ok(None) => prop_assert!(expected.is_empty()),
                        Err(Lost) => {
                            prop_assert!(log.end().offset > cursor.offset + 60);
                            cursor = log.end();
                            expected.clear();
                        }
                    },
                }
            }
        }
    }
}
