//! Patterns of file names, as a shell expands them (Shell Command Language, 2.13). They work on bytes, as
//! names need not be UTF-8; a byte that is no part of a character is one by itself.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use splengine_core::{Caller, FileError, Files};

/// A word, and what a shell would take it for: a pattern of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShellWord {
    pub(crate) text: OsString,
    /// The word with a backslash before each character that was quoted; `None` where it is no pattern.
    pub(crate) pattern: Option<OsString>,
}

/// The pattern that a word is whose bytes come with whether they were quoted; `None` where it is a
/// name.
pub(crate) fn pattern(word: &[(u8, bool)]) -> Option<OsString> {
    let is_special = |byte: u8| b"*?[".contains(&byte);
    word.iter().any(|(byte, is_quoted)| !is_quoted && is_special(*byte)).then(|| {
        let mut pattern = Vec::new();
        for (byte, is_quoted) in word {
            if *byte == b'\\' || (*is_quoted && is_special(*byte)) {
                pattern.push(b'\\');
            }
            pattern.push(*byte);
        }
        OsString::from_vec(pattern)
    })
}

/// The paths below root that match `pattern`, in order; relative ones start from root. Where there is
/// none, the pattern itself.
///
/// # Errors
///
/// In words, when too many match.
pub(crate) async fn expand(
    files: &Files,
    caller: &Caller,
    pattern: &OsStr,
) -> Result<Vec<PathBuf>, String> {
    let bytes = pattern.as_bytes();
    let mut found = vec![PathBuf::from(if bytes.starts_with(b"/") { "/" } else { "" })];
    let parts: Vec<&[u8]> =
        bytes.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
    for (place, part) in parts.iter().enumerate() {
        let is_last = place + 1 == parts.len();
        let mut next = Vec::new();
        for base in &found {
            if !part.iter().any(|byte| b"*?[\\".contains(byte)) {
                next.push(base.join(OsStr::from_bytes(part)));
                continue;
            }
            for name in matching(files, caller, base, part).await {
                next.push(base.join(name));
            }
            if next.len() > MAX_MATCHES {
                let pattern = pattern.display();
                return Err(format!("`{pattern}` matches more than {MAX_MATCHES} names"));
            }
        }
        if !is_last {
            let mut directories = Vec::new();
            for path in next {
                if is_there(files, caller, &path).await {
                    directories.push(path);
                }
            }
            next = directories;
        }
        found = next;
    }
    if found.is_empty() {
        return Ok(vec![unescaped(bytes).into()]);
    }
    if bytes.ends_with(b"/") {
        // With nothing behind it: a slash at the end.
        found.iter_mut().for_each(|path| path.push(""));
    }
    Ok(found)
}

async fn is_there(files: &Files, caller: &Caller, path: &Path) -> bool {
    // Directories on the way to root are gone through, though not looked into.
    if files.above_root(path).is_some() {
        return true;
    }
    let Ok(at) = files.from_host(path) else { return false };
    files.stat(caller, &at).await.is_ok()
}

/// The names in a directory that match one part of a pattern. One that can't be read has none.
async fn matching(files: &Files, caller: &Caller, base: &Path, part: &[u8]) -> Vec<OsString> {
    let Ok(at) = files.from_host(base) else { return Vec::new() };
    let mut names = Vec::new();
    let listed: Result<(), FileError> = async {
        let listing = files.list(caller, &at).await?;
        loop {
            let entries = listing.next().await?;
            if entries.is_empty() {
                return Ok(());
            }
            let all = entries.into_iter().map(|entry| entry.name);
            let matching = all.filter(|name| matches(part, name.as_bytes()));
            names.extend(matching.take(MAX_MATCHES + 1));
            if names.len() > MAX_MATCHES {
                return Ok(());
            }
        }
    }
    .await;
    drop(listed);
    names.sort_unstable();
    names
}

/// A pattern that stands for itself.
pub(crate) fn unescaped(pattern: &[u8]) -> OsString {
    let mut text = Vec::new();
    let mut bytes = pattern.iter();
    while let Some(byte) = bytes.next() {
        text.extend(if *byte == b'\\' { bytes.next() } else { Some(byte) });
    }
    OsString::from_vec(text)
}

/// Whether a name matches a pattern without slashes. A dot at its beginning must be written.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    if name.first() == Some(&b'.') && pattern.first() != Some(&b'.') {
        return false;
    }
    let (mut at, mut in_name) = (0, 0);
    // Where to go on after the last star, if the rest does not match.
    let mut star: Option<(usize, usize)> = None;
    while in_name < name.len() || at < pattern.len() {
        if pattern.get(at) == Some(&b'*') {
            star = Some((at + 1, in_name));
            at += 1;
            continue;
        }
        let c = first(&name[in_name..]);
        let next = if c.is_empty() { None } else { one(&pattern[at..], c) };
        match (next, star) {
            (Some(length), _) => {
                at += length;
                in_name += c.len();
            }
            (None, Some((after, from))) if from < name.len() => {
                let from = from + first(&name[from..]).len();
                (at, in_name) = (after, from);
                star = Some((after, from));
            }
            _ => return false,
        }
    }
    true
}

/// The first character of `text`, or its first byte where none begins there.
fn first(text: &[u8]) -> &[u8] {
    let longest = text.len().min(4);
    let length = (1..=longest).find(|length| str::from_utf8(&text[..*length]).is_ok());
    &text[..length.unwrap_or(longest.min(1))]
}

/// How much of a pattern stands for this one character, if its beginning does.
fn one(pattern: &[u8], c: &[u8]) -> Option<usize> {
    let literal = |pattern| (first(pattern) == c).then_some(c.len());
    match pattern {
        [b'?', ..] => Some(1),
        [b'\\', escaped @ ..] if !escaped.is_empty() => Some(literal(escaped)? + 1),
        [b'[', rest @ ..] => match set(rest, c) {
            Some((is_in, length)) => is_in.then_some(length + 1),
            None => literal(pattern),
        },
        pattern => literal(pattern),
    }
}

/// Whether `c` is in the set behind a bracket, and how long the set is with its end; `None` where it
/// has no end.
fn set(pattern: &[u8], c: &[u8]) -> Option<(bool, usize)> {
    let is_negated = matches!(pattern.first(), Some(b'!' | b'^'));
    let start = usize::from(is_negated);
    let end = start + 1 + pattern.get(start + 1..)?.iter().position(|byte| *byte == b']')?;
    let mut members = &pattern[start..end];
    let mut is_in = false;
    while !members.is_empty() {
        let low = first(members);
        members = &members[low.len()..];
        match members {
            // UTF-8 keeps the order of characters.
            [b'-', rest @ ..] if !rest.is_empty() => {
                let high = first(rest);
                is_in |= (low..=high).contains(&c);
                members = &rest[high.len()..];
            }
            _ => is_in |= low == c,
        }
    }
    Some((is_in != is_negated, end + 1))
}

/// Of a path, without the `.` and `..` in it, where it stays below root as far as the words go.
pub(crate) fn normal(path: &Path) -> Option<PathBuf> {
    use std::path::Component;
    let mut place = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => place.push(name),
            Component::ParentDir if !place.pop() => return None,
            _ => {}
        }
    }
    Some(place)
}

/// Maximum number of names that a pattern stands for.
const MAX_MATCHES: usize = 10_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_match_as_in_a_shell() {
        for (pattern, name) in [
            ("*", "a"),
            ("*.log", "x.log"),
            ("a*b*c", "aXbYbZc"),
            ("?", "ä"),
            ("[a-c]x", "bx"),
            ("[!a-c]x", "dx"),
            ("[]x]", "]"),
            ("[", "["),
            ("a\\*", "a*"),
            (".*", ".a"),
            ("**", ""),
            ("[a-", "[a-"),
        ] {
            assert!(matches(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*", ".a"),
            ("*.log", "x.log2"),
            ("a*b", "ac"),
            ("?", ""),
            ("[a-c]x", "dx"),
            ("a\\*", "ab"),
            ("[!a]", "a"),
            ("?", "ab"),
            ("", "a"),
        ] {
            assert!(!matches(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
        let stars = "*a".repeat(50);
        assert!(!matches(stars.as_bytes(), "a".repeat(49).as_bytes()), "in no time");
        for (pattern, name) in
            [(&b"*\xff"[..], &b"a\xff"[..]), (b"?\xff", b"\xfe\xff"), (b"[!a]", b"\xff")]
        {
            assert!(matches(pattern, name), "{}", pattern.escape_ascii());
        }
        assert!(!matches(b"??", "ä".as_bytes()), "one character");
    }

    #[test]
    fn what_is_quoted_stands_for_itself() {
        let word = |text: &str, quoted| text.bytes().map(|byte| (byte, quoted)).collect::<Vec<_>>();
        assert_eq!(pattern(&word("a*", true)), None);
        assert_eq!(
            pattern(&[word("a*", true), word("\\?", false)].concat()),
            Some("a\\*\\\\?".into())
        );
        assert_eq!(unescaped(b"a\\*\\\\?"), "a*\\?");
    }

    proptest! {
        #[test]
        fn a_quoted_name_matches_itself_alone(name in "[a-c*?\\[\\]\\\\.-]{1,8}", other in "[a-c.]{1,8}") {
            let quoted: String = name.chars().flat_map(|c| ['\\', c]).collect();
            if !name.starts_with('.') {
                prop_assert!(matches(quoted.as_bytes(), name.as_bytes()));
            }
            prop_assert!(name == other || !matches(quoted.as_bytes(), other.as_bytes()));
        }

        #[test]
        fn no_pattern_panics(pattern in prop::collection::vec(any::<u8>(), 0..12), name in prop::collection::vec(any::<u8>(), 0..12)) {
            let _ = matches(&pattern, &name);
        }
    }
}
