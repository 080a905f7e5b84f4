//! Entry points for fuzzers, with the properties that hold for any input. Absent from all other builds.

use bytes::Bytes;

use crate::frame::{self, Binary, TextFrame};

/// Reads frames of a client, each after two bytes with its kind and its length.
///
/// # Panics
///
/// When a property does not hold.
pub fn frames(mut bytes: &[u8]) {
    while let Some((head, rest)) = bytes.split_first_chunk() {
        let head = u16::from_be_bytes(*head);
        let (data, after) = rest.split_at(usize::from(head & 0x7fff).min(rest.len()));
        bytes = after;
        if head & 0x8000 != 0 {
            binary(data);
        } else if let Ok(text) = str::from_utf8(data)
            && let Err(problem) = TextFrame::parse(text)
        {
            assert!(problem.len() < MAX_PROBLEM_BYTES, "{problem}");
        }
    }
}

fn binary(data: &[u8]) {
    match Binary::parse(Bytes::copy_from_slice(data)) {
        Ok(Binary::Input { number, data: input }) => {
            assert!(number.checked_add(input.len() as u64).is_some());
            // Laid out as output is, but for the first byte.
            assert_eq!(frame::output(number, &input)[1..], data[1..]);
        }
        Ok(Binary::Ack { offset }) => assert_eq!(data[1..], offset.to_be_bytes()),
        Err(problem) => assert!(!problem.is_empty()),
    }
}

/// Of what a client is told of a text frame that can't be read: it repeats the type, not the values.
const MAX_PROBLEM_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    /// Replays the fuzzer's seeds without the fuzzer.
    #[test]
    fn seeds_do_no_harm() {
        let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/frames");
        let seeds = std::fs::read_dir(seeds).expect("a directory");
        let count = seeds
            .map(|seed| super::frames(&std::fs::read(seed.expect("a file").path()).expect("read")))
            .count();
        assert!(count > 5, "only {count}");
    }
}
