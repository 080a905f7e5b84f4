//! Patterns of file names, as a shell expands them (Shell Command Language, 2.13). They work on bytes, as
//! names need not be UTF-8; a byte that is no part of a character is one by itself.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use splengine_core::quota::MemoryError;
use splengine_core::{Caller, Files};
use tokio::task::yield_now;

use crate::path_memory::PathMemory;

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
/// In words, when too many match, there is no memory for them, too many would have to be looked at, or the
/// pattern is longer than any path.
pub(crate) async fn expand(
    files: &Files,
    caller: &Caller,
    pattern: &OsStr,
    memory: &mut PathMemory,
) -> Result<Vec<PathBuf>, String> {
    let bytes = pattern.as_bytes();
    if bytes.len() > MAX_PATTERN_BYTES {
        return Err(format!("a pattern is longer than {MAX_PATTERN_BYTES} bytes"));
    }
    let (before, mut looked_at) = (memory.held(), 0);
    let mut found = vec![PathBuf::from(if bytes.starts_with(b"/") { "/" } else { "" })];
    let parts: Vec<&[u8]> =
        bytes.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
    for (place, part) in parts.iter().enumerate() {
        let is_last = place + 1 == parts.len();
        let (held, mut next) = (memory.held(), Vec::new());
        for base in &found {
            let mut below = Below { base, found: &mut next, memory, looked_at: &mut looked_at };
            let added = match part.iter().any(|byte| b"*?[\\".contains(byte)) {
                true => below.add_matching(files, caller, part).await,
                false => below.add(OsStr::from_bytes(part)),
            };
            if added.is_err() {
                let pattern = pattern.display();
                return Err(format!(
                    "`{pattern}` matches more names than there is memory for; try again in a second"
                ));
            }
            if looked_at > MAX_LOOKED_AT {
                let pattern = pattern.display();
                return Err(format!(
                    "`{pattern}` would take a look at more than {MAX_LOOKED_AT} names"
                ));
            }
            if next.len() > MAX_MATCHES {
                let pattern = pattern.display();
                return Err(format!("`{pattern}` matches more than {MAX_MATCHES} names"));
            }
        }
        if !is_last {
            let mut directories = Vec::new();
            for path in next {
                looked_at += 1;
                if is_there(files, caller, &path).await {
                    directories.push(path);
                }
            }
            next = directories;
        }
        found = next;
        // Those that these lie below are gone.
        memory.shrink(before + (memory.held() - held));
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

/// What was found below a directory.
struct Below<'a> {
    base: &'a Path,
    found: &'a mut Vec<PathBuf>,
    memory: &'a mut PathMemory,
    looked_at: &'a mut usize,
}

impl Below<'_> {
    fn add(&mut self, name: &OsStr) -> Result<(), MemoryError> {
        let path = self.base.join(name);
        self.memory.take(path.as_os_str().len())?;
        self.found.push(path);
        Ok(())
    }

    /// Adds the paths whose names match one part of a pattern. A directory that can't be read has none.
    async fn add_matching(
        &mut self,
        files: &Files,
        caller: &Caller,
        part: &[u8],
    ) -> Result<(), MemoryError> {
        let Ok(at) = files.from_host(self.base) else { return Ok(()) };
        let Some(mut pattern) = Pattern::new(part) else { return Ok(()) };
        let Ok(listing) = files.list(caller, &at).await else { return Ok(()) };
        let begun = self.found.len();
        while let Ok(entries) = listing.next().await
            && !entries.is_empty()
        {
            *self.looked_at += entries.len();
            for entries in entries.chunks(NAMES_BETWEEN_YIELDS) {
                for entry in entries.iter().filter(|one| pattern.matches(one.name.as_bytes())) {
                    self.add(&entry.name)?;
                }
                // Others have their turn.
                yield_now().await;
            }
            if self.found.len() > MAX_MATCHES || *self.looked_at > MAX_LOOKED_AT {
                break;
            }
        }
        self.found[begun..].sort_unstable();
        Ok(())
    }
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

/// A pattern without slashes, against which many names are held: in time that grows with the length of a
/// name alone, whatever the pattern is, since all places of the pattern where a name may have got to are
/// followed at once, as bits (shift-and).
struct Pattern<'a> {
    /// Each stands for one character. Bit `i` of a set means that the first `i` of them have matched.
    units: Vec<Unit<'a>>,
    /// Where any characters may come in between.
    stars: Places,
    begins_with_dot: bool,
    /// Of each character that was met, the places which go on with it.
    places_of: HashMap<u32, Places>,
}

/// What stands for one character.
enum Unit<'a> {
    Any,
    One(&'a [u8]),
    Set { is_negated: bool, members: &'a [u8] },
}

/// A set of the places of a pattern.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Places([u64; (MAX_NAME_BYTES + 1) / 64]);

impl Places {
    fn insert(&mut self, place: usize) {
        self.0[place / 64] |= 1 << (place % 64);
    }

    fn contains(&self, place: usize) -> bool {
        self.0[place / 64] >> (place % 64) & 1 == 1
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    fn and(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(word, other)| *word &= other);
        self
    }

    fn or(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(word, other)| *word |= other);
        self
    }

    fn next(mut self) -> Self {
        let mut carried = 0;
        for word in &mut self.0 {
            (*word, carried) = (*word << 1 | carried, *word >> 63);
        }
        self
    }
}

impl<'a> Pattern<'a> {
    /// `None` where no name is long enough.
    fn new(pattern: &'a [u8]) -> Option<Self> {
        let (mut units, mut stars, mut rest) = (Vec::new(), Places::default(), pattern);
        while let Some(byte) = rest.first() {
            if *byte == b'*' {
                stars.insert(units.len());
                rest = &rest[1..];
                continue;
            }
            if units.len() == MAX_NAME_BYTES {
                return None;
            }
            let (unit, length) = unit(rest);
            units.push(unit);
            rest = &rest[length..];
        }
        let begins_with_dot = pattern.first() == Some(&b'.');
        Some(Self { units, stars, begins_with_dot, places_of: HashMap::new() })
    }

    /// Whether a name matches. A dot at its beginning must be written.
    fn matches(&mut self, name: &[u8]) -> bool {
        if name.first() == Some(&b'.') && !self.begins_with_dot {
            return false;
        }
        let (mut places, mut rest) = (Places::default(), name);
        places.insert(0);
        while !rest.is_empty() && !places.is_empty() {
            let c = first(rest);
            rest = &rest[c.len()..];
            places = places.and(self.places_of(c)).next().or(places.and(self.stars));
        }
        places.contains(self.units.len())
    }

    fn places_of(&mut self, c: &[u8]) -> Places {
        let key = c.iter().fold(0, |key, byte| key << 8 | u32::from(*byte));
        if let Some(places) = self.places_of.get(&key) {
            return *places;
        }
        let mut places = Places::default();
        for (place, _) in self.units.iter().enumerate().filter(|(_, unit)| unit.is(c)) {
            places.insert(place);
        }
        if self.places_of.len() < MAX_KEPT_CHARACTERS {
            self.places_of.insert(key, places);
        }
        places
    }
}

impl Unit<'_> {
    fn is(&self, c: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::One(character) => *character == c,
            Self::Set { is_negated, members } => is_member(members, c) != *is_negated,
        }
    }
}

/// The first character of `text`, or its first byte where none begins there.
fn first(text: &[u8]) -> &[u8] {
    let longest = text.len().min(4);
    let length = (1..=longest).find(|length| str::from_utf8(&text[..*length]).is_ok());
    &text[..length.unwrap_or(longest.min(1))]
}

/// What the beginning of a pattern, which is no star, stands for, and how long it is.
fn unit(pattern: &[u8]) -> (Unit<'_>, usize) {
    let literal = |pattern| (Unit::One(first(pattern)), first(pattern).len());
    match pattern {
        [b'?', ..] => (Unit::Any, 1),
        [b'\\', escaped @ ..] if !escaped.is_empty() => {
            let (unit, length) = literal(escaped);
            (unit, length + 1)
        }
        [b'[', rest @ ..] => match set(rest) {
            Some((unit, length)) => (unit, length + 1),
            None => literal(pattern),
        },
        pattern => literal(pattern),
    }
}

/// The set behind a bracket, and how long it is with its end; `None` where it has no end.
fn set(pattern: &[u8]) -> Option<(Unit<'_>, usize)> {
    let is_negated = matches!(pattern.first(), Some(b'!' | b'^'));
    let start = usize::from(is_negated);
    let end = start + 1 + pattern.get(start + 1..)?.iter().position(|byte| *byte == b']')?;
    Some((Unit::Set { is_negated, members: &pattern[start..end] }, end + 1))
}

fn is_member(mut members: &[u8], c: &[u8]) -> bool {
    while !members.is_empty() {
        let low = first(members);
        members = &members[low.len()..];
        let is_in = match members {
            // UTF-8 keeps the order of characters.
            [b'-', rest @ ..] if !rest.is_empty() => {
                let high = first(rest);
                members = &rest[high.len()..];
                (low..=high).contains(&c)
            }
            _ => low == c,
        };
        if is_in {
            return true;
        }
    }
    false
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
/// Maximum number of names that are held against a pattern.
const MAX_LOOKED_AT: usize = 200_000;
/// The longest path of Linux (`PATH_MAX`).
const MAX_PATTERN_BYTES: usize = 4096;
/// The longest name of Linux (`NAME_MAX`).
const MAX_NAME_BYTES: usize = 255;
/// Of further ones it is found out again each time.
const MAX_KEPT_CHARACTERS: usize = 4096;
const NAMES_BETWEEN_YIELDS: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same by trying, as POSIX describes it.
    fn matches_by_trying(pattern: &[u8], name: &[u8]) -> bool {
        match pattern.first() {
            None => name.is_empty(),
            Some(b'*') => (0..=name.len()).any(|from| {
                let is_boundary = from == 0 || {
                    let mut at = 0;
                    while at < from {
                        at += first(&name[at..]).len();
                    }
                    at == from
                };
                is_boundary && matches_by_trying(&pattern[1..], &name[from..])
            }),
            Some(_) => {
                let ((unit, length), c) = (unit(pattern), first(name));
                !name.is_empty()
                    && unit.is(c)
                    && matches_by_trying(&pattern[length..], &name[c.len()..])
            }
        }
    }

    fn matches(pattern: &[u8], name: &[u8]) -> bool {
        Pattern::new(pattern).is_some_and(|mut pattern| pattern.matches(name))
    }

    /// However many names there are, and however nearly they match, a character is looked for in the
    /// pattern once.
    #[test]
    fn names_that_nearly_match_take_no_longer() {
        let text = format!("*{}y", "x".repeat(122));
        let mut pattern = Pattern::new(text.as_bytes()).expect("short enough");
        for length in 1..=MAX_NAME_BYTES {
            assert!(!pattern.matches("x".repeat(length).as_bytes()));
        }
        assert_eq!(pattern.places_of.len(), 1);
        assert!(pattern.matches(format!("{}y", "x".repeat(254)).as_bytes()));
    }

    #[test]
    fn what_is_longer_than_a_name_matches_none() {
        assert!(Pattern::new("?".repeat(MAX_NAME_BYTES + 1).as_bytes()).is_none());
        let longest = "*?".repeat(MAX_NAME_BYTES) + "*";
        assert!(matches(longest.as_bytes(), "x".repeat(MAX_NAME_BYTES).as_bytes()));
        assert!(!matches(longest.as_bytes(), "x".repeat(MAX_NAME_BYTES - 1).as_bytes()));
    }

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
        fn places_are_followed_as_if_each_was_tried(
            pattern in "[a-c*?\\[\\]!\\\\ä-]{0,10}", name in "[a-cä\\]-]{0,8}",
        ) {
            let expected = matches_by_trying(pattern.as_bytes(), name.as_bytes());
            prop_assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected);
        }

        #[test]
        fn no_pattern_panics(pattern in prop::collection::vec(any::<u8>(), 0..12), name in prop::collection::vec(any::<u8>(), 0..12)) {
            let _ = matches(&pattern, &name);
        }
    }
}
