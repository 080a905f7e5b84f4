//! Entries of the index of a run's output.

use crate::execute::Stream;

/// An entry of the index of a run's output: so much was printed, or left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogEntry {
    /// Milliseconds since 1970.
    pub(crate) time: u64,
    pub(crate) stream: Stream,
    pub(crate) is_gap: bool,
    pub(crate) length: u64,
}

impl LogEntry {
    pub(crate) const SIZE: usize = 16;

    /// As it is written: the time, and the kind in the first byte of the length.
    pub(crate) fn to_bytes(self) -> [u8; Self::SIZE] {
        let kind = u64::from(self.stream == Stream::Stderr) | u64::from(self.is_gap) << 1;
        let length = self.length.min(MAX_LENGTH) | kind << 56;
        let mut bytes = [0; Self::SIZE];
        bytes[..8].copy_from_slice(&self.time.to_be_bytes());
        bytes[8..].copy_from_slice(&length.to_be_bytes());
        bytes
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let time = u64::from_be_bytes(*bytes.first_chunk()?);
        let length = u64::from_be_bytes(*bytes.last_chunk()?);
        let kind = length >> 56;
        Some(Self {
            time,
            stream: if kind & 1 == 1 { Stream::Stderr } else { Stream::Stdout },
            is_gap: kind & 2 == 2,
            length: length & MAX_LENGTH,
        })
    }
}

/// Read of the index at once; a multiple of an entry's size.
pub(crate) const INDEX_PIECE: usize = 256 * LogEntry::SIZE;
const MAX_LENGTH: u64 = (1 << 56) - 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn entries_are_read_as_they_were_written(
            time: u64, is_err: bool, is_gap: bool, length in 0..=MAX_LENGTH,
        ) {
            let stream = if is_err { Stream::Stderr } else { Stream::Stdout };
            let entry = LogEntry { time, stream, is_gap, length };
            prop_assert_eq!(LogEntry::parse(&entry.to_bytes()), Some(entry));
        }
    }
}
