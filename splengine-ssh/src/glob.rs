//! Patterns of file names, as a shell expands them (Shell Command Language, 2.13).

use std::path::{Path, PathBuf};

use splengine_core::{Caller, FileError, Files};

/// The pattern that a word is whose characters come with whether they were quoted; `None` where it is
/// a name.
pub(crate) fn pattern(word: &[(char, bool)]) -> Option<String> {
    let is_special = |c: char| matches!(c, '*' | '?' | '[');
    word.iter().any(|(c, is_quoted)| !is_quoted && is_special(*c)).then(|| {
        word.iter().fold(String::new(), |mut pattern, (c, is_quoted)| {
            if *c == '\\' || (*is_quoted && is_special(*c)) {
                pattern.push('\\');
            }
            pattern.push(*c);
            pattern
        })
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
    pattern: &str,
) -> Result<Vec<String>, String> {
    let is_absolute = pattern.starts_with('/');
    let mut found = vec![if is_absolute { "/".to_owned() } else { String::new() }];
    let parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty()).collect();
    for (place, part) in parts.iter().enumerate() {
        let is_last = place + 1 == parts.len();
        let mut next = Vec::new();
        for base in &found {
            if !part.contains(['*', '?', '[', '\\']) {
                next.push(join(base, part));
                continue;
            }
            for name in matching(files, caller, base, part).await {
                next.push(join(base, &name));
            }
            if next.len() > MAX_MATCHES {
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
        return Ok(vec![unescaped(pattern)]);
    }
    if pattern.ends_with('/') {
        found.iter_mut().for_each(|path| path.push('/'));
    }
    Ok(found)
}

async fn is_there(files: &Files, caller: &Caller, path: &str) -> bool {
    // Directories on the way to root are gone through, though not looked into.
    if files.above_root(Path::new(path)).is_some() {
        return true;
    }
    let Ok(at) = files.from_host(Path::new(path)) else { return false };
    files.stat(caller, &at).await.is_ok()
}

/// The names in a directory that match one part of a pattern. One that can't be read has none.
async fn matching(files: &Files, caller: &Caller, base: &str, part: &str) -> Vec<String> {
    let Ok(at) = files.from_host(Path::new(base)) else { return Vec::new() };
    let mut names = Vec::new();
    let listed: Result<(), FileError> = async {
        let listing = files.list(caller, &at).await?;
        loop {
            let entries = listing.next().await?;
            if entries.is_empty() {
                return Ok(());
            }
            let matching = entries.into_iter().filter_map(|entry| entry.name.into_string().ok());
            names.extend(matching.filter(|name| matches(part, name)).take(MAX_MATCHES + 1));
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

fn join(base: &str, name: &str) -> String {
    if base.is_empty() || base.ends_with('/') {
        format!("{base}{name}")
    } else {
        format!("{base}/{name}")
    }
}

/// A pattern that stands for itself.
pub(crate) fn unescaped(pattern: &str) -> String {
    let mut text = String::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        text.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    text
}

/// Whether a name matches a pattern without slashes. A dot at its beginning must be written.
fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    if name.first() == Some(&'.') && pattern.first() != Some(&'.') {
        return false;
    }
    let (mut at, mut in_name) = (0, 0);
    // Where to go on after the last star, if the rest does not match.
    let mut star: Option<(usize, usize)> = None;
    while in_name < name.len() || at < pattern.len() {
        if pattern.get(at) == Some(&'*') {
            star = Some((at + 1, in_name));
            at += 1;
            continue;
        }
        let next = name.get(in_name).and_then(|c| one(&pattern[at..], *c));
        match (next, star) {
            (Some(length), _) => {
                at += length;
                in_name += 1;
            }
            (None, Some((after, from))) if from < name.len() => {
                (at, in_name) = (after, from + 1);
                star = Some((after, from + 1));
            }
            _ => return false,
        }
    }
    true
}

/// How much of a pattern stands for this one character, if its beginning does.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match pattern {
        ['?', ..] => Some(1),
        ['\\', escaped, ..] => (*escaped == c).then_some(2),
        ['[', rest @ ..] => match set(rest, c) {
            Some((is_in, length)) => is_in.then_some(length + 1),
            None => (c == '[').then_some(1),
        },
        [plain, ..] => (*plain == c).then_some(1),
        [] => None,
    }
}

/// Whether `c` is in the set behind a bracket, and how long the set is with its end; `None` where it
/// has no end.
fn set(pattern: &[char], c: char) -> Option<(bool, usize)> {
    let is_negated = matches!(pattern.first(), Some('!' | '^'));
    let start = usize::from(is_negated);
    let end = start + 1 + pattern.get(start + 1..)?.iter().position(|c| *c == ']')?;
    let mut members = &pattern[start..end];
    let mut is_in = false;
    while let Some((first, rest)) = members.split_first() {
        members = match rest {
            ['-', last, rest @ ..] => {
                is_in |= (*first..=*last).contains(&c);
                rest
            }
            rest => {
                is_in |= *first == c;
                rest
            }
        };
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
            assert!(matches(pattern, name), "{pattern} {name}");
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
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
        let stars = "*a".repeat(50);
        assert!(!matches(&stars, &"a".repeat(49)), "in no time");
    }

    #[test]
    fn what_is_quoted_stands_for_itself() {
        let word = |text: &str, quoted| text.chars().map(|c| (c, quoted)).collect::<Vec<_>>();
        assert_eq!(pattern(&word("a*", true)), None);
        assert_eq!(
            pattern(&[word("a*", true), word("\\?", false)].concat()),
            Some("a\\*\\\\?".to_owned())
        );
        assert_eq!(unescaped("a\\*\\\\?"), "a*\\?");
    }

    proptest! {
        #[test]
        fn a_quoted_name_matches_itself_alone(name in "[a-c*?\\[\\]\\\\.-]{1,8}", other in "[a-c.]{1,8}") {
            let quoted: String = name.chars().flat_map(|c| ['\\', c]).collect();
            if !name.starts_with('.') {
                prop_assert!(matches(&quoted, &name));
            }
            prop_assert!(name == other || !matches(&quoted, &other));
        }

        #[test]
        fn no_pattern_panics(pattern in ".{0,12}", name in ".{0,12}") {
            let _ = matches(&pattern, &name);
        }
    }
}
