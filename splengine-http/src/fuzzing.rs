//! Entry points for fuzzers, with the properties that hold for any input. Absent from all other builds.

use axum::http::header::{
    IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
};
use axum::http::{HeaderMap, HeaderValue};

use crate::conditions::Conditions;
use crate::ranges::part;

/// Reads `Range`: the first eight bytes are the length of what is asked for, the rest the header.
///
/// # Panics
///
/// When a property does not hold.
pub fn ranges(bytes: &[u8]) {
    let Some((length, text)) = bytes.split_first_chunk() else { return };
    let Ok(text) = str::from_utf8(text) else { return };
    let length = u64::from_be_bytes(*length);
    if let Some((from, until)) = part(text, length) {
        assert!(from < until && until <= length);
        // The same part, as it is written in full.
        assert_eq!(part(&format!("bytes={from}-{}", until - 1), length), Some((from, until)));
    }
}

/// Reads the headers of a conditional request, one a line: the first byte of a line tells which.
///
/// # Panics
///
/// When a property does not hold.
pub fn conditions(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    let names = [IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE, IF_RANGE];
    for line in bytes.split(|byte| *byte == b'\n').take(64) {
        let Some((which, value)) = line.split_first() else { continue };
        let Ok(value) = HeaderValue::from_bytes(value) else { continue };
        headers.append(names[usize::from(*which) % names.len()].clone(), value);
    }
    let Ok(conditions) = Conditions::of(&headers) else { return };
    // What is not there matches no tag.
    assert_eq!(conditions.allow_change(None), !headers.contains_key(IF_MATCH));
}

#[cfg(test)]
mod tests {
    /// Replays a fuzzer's seeds without the fuzzer.
    fn replay(target: &str, feed: fn(&[u8])) {
        let seeds = format!("{}/fuzz/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
        let seeds = std::fs::read_dir(seeds).expect("a directory");
        let count = seeds
            .map(|seed| feed(&std::fs::read(seed.expect("a file").path()).expect("read")))
            .count();
        assert!(count > 5, "only {count}");
    }

    #[test]
    fn seeds_do_no_harm() {
        replay("conditions", super::conditions);
        replay("ranges", super::ranges);
    }
}
