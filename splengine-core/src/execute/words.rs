//! Splitting a command into words.
//!
//! Our own thirty lines, because the crates for it (`shlex`, `shell-words`) take `#` for the start
//! of a comment, which a command line handed over by a program must not.

/// Why a command can't be split into words.
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
    /// A shell operator or line end outside of quotes, named as it is in the error's text.
    #[error(
        "it has {0} outside of quotes, which only a shell acts on, and no shell reads it. Quote it \
         where it is meant as text; else run the commands one by one, or by a shell of their own: \
         sh -c '…'"
    )]
    Operator(&'static str),
}

/// Splits `text` as a POSIX shell would (Shell Command Language, 2.2 Quoting): blanks part words,
/// quotes and backslashes protect. Nothing is expanded: `*`, `~`, `#`, and a `$` before anything but
/// a parenthesis are characters like any other.
///
/// What would make a shell run something else than these words is refused where it stands outside
/// of quotes: `;`, `&`, `|`, `<`, `>`, a backtick, `$(`, and a line end between words. Who writes it
/// expects a shell, and as an argument it would change what the command does. Line ends before the
/// first word and after the last separate nothing, and are left out.
///
/// ```
/// let words = splengine_core::split_words(r#"console log "Hello from NiFi" $HOME"#)?;
/// assert_eq!(words, ["console", "log", "Hello from NiFi", "$HOME"]);
/// # Ok::<(), splengine_core::SplitError>(())
/// ```
///
/// # Errors
///
/// [`SplitError`] when a quote is never closed, a backslash ends the text, or an operator stands
/// outside of quotes.
pub fn split_words(text: &str) -> Result<Vec<String>, SplitError> {
    let mut words = Vec::new();
    // `Some` while inside a word: `''` is a word, though it is empty.
    let mut word: Option<String> = None;
    let mut chars = text.trim_start_matches(BLANKS).chars();
    while let Some(c) = chars.next() {
        match c {
            '\n' if !chars.as_str().trim_start_matches(BLANKS).is_empty() => {
                return Err(SplitError::Operator("a line end"));
            }
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            ';' => return Err(SplitError::Operator("`;`")),
            '&' => return Err(SplitError::Operator("`&`")),
            '|' => return Err(SplitError::Operator("`|`")),
            '<' => return Err(SplitError::Operator("`<`")),
            '>' => return Err(SplitError::Operator("`>`")),
            '`' => return Err(SplitError::Operator("a backtick")),
            '$' if chars.as_str().starts_with('(') => return Err(SplitError::Operator("`$(`")),
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

/// Leaves out an `exec` before the program that it names. To a shell it means to put the program in
/// its own place, which is what happens to every command; clients write it before theirs (Emacs,
/// scripts). With an option behind it it is left.
pub(crate) fn drop_exec(words: &mut Vec<String>) {
    if let [exec, program, ..] = words.as_slice()
        && exec == "exec"
        && !program.starts_with('-')
    {
        words.remove(0);
    }
}

const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];

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
            words.join(" ")
        };
        assert_eq!(dropped("exec ls -l"), "ls -l");
        assert_eq!(dropped("exec exec"), "exec");
        for kept in ["exec", "exec -a name ls", "ls exec", "executable a"] {
            assert_eq!(dropped(kept), kept);
        }
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
