//! Entry points for fuzzers, with the properties that hold for any input. Absent from all other builds.

use crate::screen::Screen;

/// Feeds a screen with output: the first four bytes give its size, a second size and the length of
/// the pieces, the rest is the output.
///
/// # Panics
///
/// When a property does not hold.
pub fn screen(bytes: &[u8]) {
    let Some((&[size, other, piece, scrollback], output)) = bytes.split_first_chunk() else {
        return;
    };
    // Two columns at least: a wide character has no place on one, and xterm.js has no such screen.
    let size_of = |byte: u8| (u16::from(byte >> 4) + 2, u16::from(byte & 15) + 1);
    let (cols, rows) = size_of(size);
    let new = || Screen::new(cols, rows, usize::from(scrollback % 8));
    let mut whole = new();
    whole.feed(output);
    let mut pieces = new();
    output.chunks(usize::from(piece % 16) + 1).for_each(|piece| pieces.feed(piece));
    assert_eq!(whole.snapshot(), pieces.snapshot(), "however the output is cut");
    let mut drawn = new();
    drawn.feed(&whole.snapshot());
    assert_eq!(whole.text(), drawn.text(), "a snapshot draws the same text");
    let (cols, rows) = size_of(other);
    whole.resize(cols, rows);
    whole.feed(output);
    assert!(whole.snapshot().len() < MAX_SNAPSHOT_BYTES);
    let _ = (whole.title().len(), whole.take_replies());
}

/// Of a screen of 17 by 16 cells with seven lines above it, whatever stands in its cells.
const MAX_SNAPSHOT_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    /// Replays the fuzzer's seeds without the fuzzer.
    #[test]
    fn seeds_do_no_harm() {
        let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/screen");
        let seeds = std::fs::read_dir(seeds).expect("a directory");
        let count = seeds
            .map(|seed| super::screen(&std::fs::read(seed.expect("a file").path()).expect("read")))
            .count();
        assert!(count > 5, "only {count}");
    }
}
