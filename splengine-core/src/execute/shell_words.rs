//! Splitting a command into words.
//!
//! Our own thirty lines, because the crates for it (`shlex`, `shell-words`) take `#` for the start
//! of a comment, which a command line handed over by a program must not. It works on bytes: what has a
//! meaning is ASCII, and no part of another character in UTF-8 is.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::slice::Iter;

/// Reason for which a command can't be split into words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SplitError {
    /// A `'` that is not closed.
    #[error("a single quote is never closed")]
    SingleQuote,
    /// A `"` that is not closed.
    #[error("a double quote is never closed")]
    DoubleQuote,
    /// A `\` at the end of the text.
    #[error("the last character is a backslash that escapes nothing")]
    Backslash,
    /// A shell operator or line end outside of quotes, named as it is in the error's text.
    #[error(
        "it has {0} outside of quotes, which only a shell acts on, and no shell reads it. Quote it \
         where it is meant as text; else run the commands one by one, or by a shell of their own: \
         sh -c '…'"
    )]
    Operator(&'static str),
    /// More bytes than a command may have.
    #[error("it has more than {MAX_COMMAND_BYTES} bytes, the maximum")]
    TooLong,
    /// More words than a command may have.
    #[error("it has more than {MAX_WORDS} words, the maximum")]
    TooManyWords,
}

/// Splits `text` as a POSIX shell would (Shell Command Language, 2.2 Quoting): blanks part words,
/// quotes and backslashes protect. Nothing is expanded: `*`, `~`, `#`, and a `$` before anything but
/// a parenthesis are characters like any other.
///
/// What would make a shell run something else than these words is refused where it stands outside of
/// quotes: `;`, `&`, `|`, `<`, `>`, a backtick, `$(`, and a line end between words. A text with it
/// expects a shell, and as an argument it would change what the command does. Line ends before the
/// first word and after the last separate nothing, and are left out.
///
/// The text need not be UTF-8, nor are the words then.
///
/// ```
/// let words = splengine_core::execute::split_words(r#"console log "Hello from NiFi" $HOME"#)?;
/// assert_eq!(words, ["console", "log", "Hello from NiFi", "$HOME"]);
/// # Ok::<(), splengine_core::execute::SplitError>(())
/// ```
///
/// # Errors
///
/// [`SplitError`] when a quote is never closed, a backslash ends the text, an operator stands outside
/// of quotes, or there are more than [`Request::MAX_COMMAND_BYTES`](crate::Request::MAX_COMMAND_BYTES) or
/// [`Request::MAX_ARGS`](crate::Request::MAX_ARGS) words.
pub fn split_words<T: AsRef<OsStr> + ?Sized>(text: &T) -> Result<Vec<OsString>, SplitError> {
    if text.as_ref().len() > MAX_COMMAND_BYTES {
        return Err(SplitError::TooLong);
    }
    let mut words = Vec::new();
    // `Some` while inside a word: `''` is a word, though it is empty.
    let mut word: Option<Vec<u8>> = None;
    let text = after_blanks(text.as_ref().as_bytes());
    let end = text.iter().rposition(|byte| !BLANKS.contains(byte)).map_or(0, |last| last + 1);
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match *byte {
            b'\n' if text.len() - bytes.as_slice().len() < end => {
                return Err(SplitError::Operator("a line end"));
            }
            b' ' | b'\t' | b'\n' | b'\r' => {
                words.extend(word.take().map(OsString::from_vec));
                if words.len() >= MAX_WORDS && text.len() - bytes.as_slice().len() < end {
                    return Err(SplitError::TooManyWords);
                }
            }
            b';' => return Err(SplitError::Operator("`;`")),
            b'&' => return Err(SplitError::Operator("`&`")),
            b'|' => return Err(SplitError::Operator("`|`")),
            b'<' => return Err(SplitError::Operator("`<`")),
            b'>' => return Err(SplitError::Operator("`>`")),
            b'`' => return Err(SplitError::Operator("a backtick")),
            b'$' if bytes.as_slice().starts_with(b"(") => return Err(SplitError::Operator("`$(`")),
            b'\'' => single_quoted(&mut bytes, word.get_or_insert_default())?,
            b'"' => double_quoted(&mut bytes, word.get_or_insert_default())?,
            b'\\' => match bytes.next() {
                Some(b'\n') => {}
                Some(escaped) => word.get_or_insert_default().push(*escaped),
                None => return Err(SplitError::Backslash),
            },
            plain => word.get_or_insert_default().push(plain),
        }
    }
    words.extend(word.map(OsString::from_vec));
    Ok(words)
}

/// Leaves out an `exec` before the program that it names. To a shell it means to put the program in
/// its own place, which is what happens to every command; clients write it before theirs (Emacs,
/// scripts). With an option behind it it is left.
pub(crate) fn drop_exec(words: &mut Vec<OsString>) {
    if let [exec, program, ..] = words.as_slice()
        && exec == "exec"
        && !program.as_bytes().starts_with(b"-")
    {
        words.remove(0);
    }
}

/// Quotes a word where it has to be, so that it is split into itself, and is one word to a shell.
pub(super) fn quoted(word: OsString) -> OsString {
    OsString::from_vec(quoted_bytes(word.into_vec()))
}

/// The same of a text.
pub(super) fn quoted_text(word: String) -> String {
    String::from_utf8(quoted_bytes(word.into_bytes())).expect("only ASCII is put into it")
}

fn quoted_bytes(word: Vec<u8>) -> Vec<u8> {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-./+:@%,".contains(byte);
    if !word.is_empty() && word.iter().all(is_plain) {
        return word;
    }
    let inner = word.split(|byte| *byte == b'\'').collect::<Vec<_>>().join(br"'\''".as_slice());
    [b"'", inner.as_slice(), b"'"].concat()
}

fn after_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|byte| BLANKS.contains(byte)).count();
    &text[blanks..]
}

const BLANKS: &[u8] = b" \t\n\r";
/// All that Linux takes.
pub(super) const MAX_COMMAND_BYTES: usize = 2 << 20;
/// Linux passes on fewer than twice as many.
pub(super) const MAX_WORDS: usize = 1 << 17;

fn single_quoted(bytes: &mut Iter<'_, u8>, word: &mut Vec<u8>) -> Result<(), SplitError> {
    loop {
        match bytes.next() {
            Some(b'\'') => return Ok(()),
            Some(byte) => word.push(*byte),
            None => return Err(SplitError::SingleQuote),
        }
    }
}

fn double_quoted(bytes: &mut Iter<'_, u8>, word: &mut Vec<u8>) -> Result<(), SplitError> {
    loop {
        match bytes.next() {
            Some(b'"') => return Ok(()),
            Some(b'\\') => match bytes.next() {
                Some(b'\n') => {}
                Some(byte @ (b'$' | b'`' | b'"' | b'\\')) => word.push(*byte),
                Some(byte) => word.extend([b'\\', *byte]),
                None => return Err(SplitError::DoubleQuote),
            },
            Some(byte) => word.push(*byte),
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
            ("a $HOME ${b} $ *~", &["a", "$HOME", "${b}", "$", "*~"]),
            (r"a\;b \| \> '& < $(c)' \`", &["a;b", "|", ">", "& < $(c)", "`"]),
            ("\"a; b | $(c) `d`\n\" 'e\n'", &["a; b | $(c) `d`\n", "e\n"]),
            (" \n\r\n a b \r\n\n", &["a", "b"]),
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

    #[test]
    fn operators_outside_of_quotes_are_refused() {
        for (text, operator) in [
            ("rm -rf old; mv new old", "`;`"),
            ("a&&b", "`&`"),
            ("a &", "`&`"),
            ("a || b", "`|`"),
            ("a <b", "`<`"),
            ("a 2>&1", "`>`"),
            ("a `b`", "a backtick"),
            ("a 'x'$(b)", "`$(`"),
            ("a\nb", "a line end"),
            ("a\r\nb", "a line end"),
            ("'a' \n 'b'", "a line end"),
        ] {
            assert_eq!(split_words(text), Err(SplitError::Operator(operator)), "{text}");
        }
    }

    #[test]
    fn a_leading_exec_is_dropped() {
        let dropped = |text: &str| {
            let mut words = split_words(text).expect(text);
            drop_exec(&mut words);
            words.join(OsStr::new(" "))
        };
        assert_eq!(dropped("exec ls -l"), "ls -l");
        assert_eq!(dropped("exec exec"), "exec");
        for kept in ["exec", "exec -a name ls", "ls exec", "executable a"] {
            assert_eq!(dropped(kept), kept);
        }
    }

    proptest! {
        #[test]
        fn quoted_words_come_back(words in prop::collection::vec("(?s).*", 0..8)) {
            let text = words.iter().cloned().map(quoted_text).collect::<Vec<_>>().join(" ");
            let words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
            prop_assert_eq!(split_words(&text), Ok(words));
        }

        #[test]
        fn quoted_bytes_come_back(word: Vec<u8>) {
            let word = OsString::from_vec(word);
            prop_assert_eq!(split_words(&quoted(word.clone())), Ok(vec![word]));
        }

        #[test]
        fn line_ends_at_the_end_separate_nothing(count in 0..300_000_usize) {
            let text = format!("one two{}", "\n".repeat(count));
            prop_assert_eq!(split_words(&text), Ok(vec!["one".into(), "two".into()]));
            let text = text + "three";
            prop_assert_eq!(split_words(&text).is_err(), count > 0);
        }

        #[test]
        fn bytes_that_are_no_text_are_kept(words in prop::collection::vec(prop::collection::vec(128u8.., 1..8), 0..8)) {
            let text = OsString::from_vec(words.join(&b' '));
            let split = split_words(&text).expect("plain").into_iter().map(OsString::into_vec);
            prop_assert_eq!(split.collect::<Vec<_>>(), words);
        }

        #[test]
        fn no_text_panics(text in "(?s).*") {
            let _ = split_words(&text);
        }
    }
}
