//! Bytes to text, and texts that are shown to people.
//!
//! [`Utf8Pieces`] decodes UTF-8 that comes in pieces, such as what a program prints.

/// In hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A name that can be shown; none for an empty one. `Err` says what would be right.
pub(crate) fn name_to_show(name: Option<String>) -> Result<Option<String>, &'static str> {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(None) };
    if name.chars().count() > 200 || name.chars().any(char::is_control) {
        return Err("is at most 200 characters, none of them control characters");
    }
    Ok(Some(name))
}

/// Decodes UTF-8 that comes in pieces, cut anywhere. What it gives, put together, is what
/// [`String::from_utf8_lossy`] gives for the whole.
///
/// ```
/// use splengine_core::text::Utf8Pieces;
///
/// let mut pieces = Utf8Pieces::default();
/// assert_eq!(pieces.push(b"\xe2\x82"), "");
/// assert_eq!(pieces.push(b"\xac!"), "\u{20ac}!");
/// assert_eq!(pieces.finish(), "");
/// ```
#[derive(Debug, Default)]
pub struct Utf8Pieces {
    /// The beginning of a sequence whose rest has not come yet: 3 bytes at most.
    pending: Vec<u8>,
}

impl Utf8Pieces {
    /// The text that is certain so far.
    #[must_use]
    pub fn push(&mut self, data: &[u8]) -> String {
        self.pending.extend_from_slice(data);
        let mut text = String::with_capacity(self.pending.len());
        let mut rest = &self.pending[..];
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    self.pending.clear();
                    return text;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    let Some(bad) = error.error_len() else {
                        self.pending = after.to_vec();
                        return text;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &after[bad..];
                }
            }
        }
    }

    /// Returns what stands for a sequence that never came to its end.
    #[must_use]
    pub fn finish(&mut self) -> String {
        let unfinished = !std::mem::take(&mut self.pending).is_empty();
        if unfinished { char::REPLACEMENT_CHARACTER.to_string() } else { String::new() }
    }
}

/// Returns a name in snake case as camel case: `output_limit` as `outputLimit`, as JSON and Avro spell it.
///
/// ```
/// assert_eq!(splengine_core::text::camel_case("retry_on"), "retryOn");
/// ```
#[must_use]
pub fn camel_case(snake: &str) -> String {
    let mut parts = snake.split('_');
    let mut name = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut chars = part.chars();
        name.extend(chars.next().map(|first| first.to_ascii_uppercase()));
        name.push_str(chars.as_str());
    }
    name
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn in_pieces(bytes: &[u8], size: usize) -> String {
        let mut pieces = Utf8Pieces::default();
        let mut text: String = bytes.chunks(size).map(|piece| pieces.push(piece)).collect();
        text += &pieces.finish();
        text
    }

    #[test]
    fn no_character_is_cut() {
        let text = "aä€😀";
        for size in 1..=text.len() {
            assert_eq!(in_pieces(text.as_bytes(), size), text);
        }
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same(
            // Bytes that often form sequences, whole and broken.
            bytes in prop::collection::vec(
                prop_oneof![any::<u8>(), Just(0xe2), Just(0x82), Just(0xac), Just(0xf0), Just(0x9f)],
                0..40,
            ),
            size in 1usize..8,
        ) {
            prop_assert_eq!(in_pieces(&bytes, size), String::from_utf8_lossy(&bytes));
        }
    }
}
