//! Splitting a command into words.
//!
//! Our own thirty lines, because the crates for it (`shlex`, `shell-words`) take `#` for the start
//! of a comment, which a command line handed over by a program must not.

/// A command whose quoting never ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SplitError {
    /// A `'` without its partner.
    #[error("a single quote is never closed")]
    SingleQuote,
    /// A `"` without its partner.
    #[error("a double quote is never closed")]
    DoubleQuote,
    /// A `\` with nothing after it.
    #[error("the last character is a backslash that escapes nothing")]
    Backslash,
}

/// Splits `text` as a POSIX shell would (Shell Command Language, 2.2 Quoting): blanks and line
/// ends part words, quotes and backslashes protect. Nothing is expanded, and no other character
/// means anything: not `$`, `*`, `~`, `;`, `|`, `>`, nor `#`.
///
/// ```
/// let words = splengine_core::split_words(r#"console log "Hello from NiFi" $HOME"#)?;
/// assert_eq!(words, ["console", "log", "Hello from NiFi", "$HOME"]);
/// # Ok::<(), splengine_core::SplitError>(())
/// ```
///
/// # Errors
///
/// [`SplitError`] when a quote is never closed, or a backslash ends the text.
pub fn split_words(text: &str) -> Result<Vec<String>, SplitError> {
    let mut words = Vec::new();
    // `Some` while inside a word: `''` is a word, though it is empty.
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => single_quoted(&mut chars, word.get_or_insert_default())?,
            '"' => double_quoted(&mut chars, word.get_or_insert_default())?,
            '\\' => match chars.next() {
                Some('\n') => {}
                Some(escaped) => word.get_or_insert_default().push(escaped),
                None => return Err(SplitError::Backslash),
            },
            plain => word.get_or_insert_default().push(plain),
        }
    }
    words.extend(word);
    Ok(words)
}

fn single_quoted(chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), SplitError> {
    loop {
        match chars.next() {
            Some('\'') => return Ok(()),
            Some(c) => word.push(c),
            None => return Err(SplitError::SingleQuote),
        }
    }
}

fn double_quoted(chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), SplitError> {
    loop {
        match chars.next() {
            Some('"') => return Ok(()),
            Some('\\') => match chars.next() {
                Some('\n') => {}
                Some(c @ ('$' | '`' | '"' | '\\')) => word.push(c),
                Some(c) => word.extend(['\\', c]),
                None => return Err(SplitError::DoubleQuote),
            },
            Some(c) => word.push(c),
            None => return Err(SplitError::DoubleQuote),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn splits_as_a_shell_does() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[]),
            (" \t\n ", &[]),
            ("data transform", &["data", "transform"]),
            (r#"console log "Hello from NiFi""#, &["console", "log", "Hello from NiFi"]),
            (r"a\ b 'c d' e''f", &["a b", "c d", "ef"]),
            (r#""" ''"#, &["", ""]),
            (r#""a\$b\n\"c""#, &["a$b\\n\"c"]),
            (r"'a\b'", &[r"a\b"]),
            ("a\\\nb", &["ab"]),
            ("a # b", &["a", "#", "b"]),
            ("a;b | c > d & $(e) *", &["a;b", "|", "c", ">", "d", "&", "$(e)", "*"]),
            ("ä 'ö ü'", &["ä", "ö ü"]),
        ];
        for (text, words) in cases {
            assert_eq!(split_words(text).expect(text), *words, "{text}");
        }
    }

    #[test]
    fn unfinished_quoting_is_named() {
        assert_eq!(split_words("a 'b"), Err(SplitError::SingleQuote));
        assert_eq!(split_words("a \"b"), Err(SplitError::DoubleQuote));
        assert_eq!(split_words("a \"b\\"), Err(SplitError::DoubleQuote));
        assert_eq!(split_words("a \\"), Err(SplitError::Backslash));
    }

    proptest! {
        #[test]
        fn quoted_words_come_back(words in prop::collection::vec(".*", 0..8)) {
            let text = words
                .iter()
                .map(|word| format!("'{}'", word.replace('\'', r"'\''")))
                .collect::<Vec<_>>()
                .join(" ");
            prop_assert_eq!(split_words(&text), Ok(words));
        }

        #[test]
        fn no_text_panics(text in "(?s).*") {
            let _ = split_words(&text);
        }
    }
}
