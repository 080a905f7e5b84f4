//! Commands that SSH's file copiers send, which mean files below root.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use splengine_core::execute::split_words;

use crate::glob::ShellWord;
use crate::{glob, scp};

/// What a command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// What it says.
    Command(OsString),
    /// The server of rsync's client, in these words.
    Rsync(Vec<ShellWord>),
    /// The server of the old protocol of scp.
    Scp(scp::Options),
    /// The script by which ssh-copy-id adds keys to a file in the home directory.
    CopyId,
    Refused(String),
}

/// Finds the copiers among commands.
pub(crate) fn read(command: OsString) -> Wanted {
    if is_copy_id(command.as_bytes()) {
        return Wanted::CopyId;
    }
    let Ok(mut words) = split_words(&command) else { return Wanted::Command(command) };
    let is_exec = words.first().is_some_and(|word| word == "exec");
    if is_exec {
        words.remove(0);
    }
    let has = |flag: &str| words.iter().skip(1).any(|word| word == flag);
    match words.first().map(|program| name(program)).unwrap_or_default() {
        b"scp" if has("-t") || has("-f") => {
            let words = patterns(&command, words, is_exec);
            match scp::Options::read(words) {
                Ok(options) => Wanted::Scp(options),
                Err(why) => Wanted::Refused(format!("scp: {why}")),
            }
        }
        b"rsync" if has("--server") => Wanted::Rsync(patterns(&command, words, is_exec)),
        _ => Wanted::Command(command),
    }
}

/// What `exit`, a word of shells alone, is to exit with; `None` for another command. Clients send it to
/// see whether they are let in.
pub(crate) fn exit_code(command: &OsStr) -> Option<u32> {
    match split_words(command).ok()?.as_slice() {
        [exit] if exit == "exit" => Some(0),
        [exit, code] if exit == "exit" => code.to_str()?.parse::<u8>().ok().map(u32::from),
        _ => None,
    }
}

/// Whether it is the script of any version of ssh-copy-id.
fn is_copy_id(command: &[u8]) -> bool {
    let holds = |text: &[u8]| command.windows(text.len()).any(|part| part == text);
    holds(b".ssh/authorized_keys") && holds(b"cat >>") && (holds(b"cd;") || holds(b"umask 077"))
}

/// The last name of a program's path.
fn name(program: &OsStr) -> &[u8] {
    program.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

/// The words with what a shell would take them for.
fn patterns(command: &OsStr, words: Vec<OsString>, is_exec: bool) -> Vec<ShellWord> {
    let raw = raw_words(command).into_iter().skip(usize::from(is_exec));
    words
        .into_iter()
        .zip(raw)
        .map(|(text, raw)| ShellWord { text, pattern: glob::pattern(&raw) })
        .collect()
}

/// The words of a command that can be split, each byte with whether it was quoted.
fn raw_words(command: &OsStr) -> Vec<Vec<(u8, bool)>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<(u8, bool)>> = None;
    let mut chars = command.as_bytes().iter().copied().peekable();
    while let Some(c) = chars.next() {
        match c {
            b' ' | b'\t' | b'\n' | b'\r' => words.extend(word.take()),
            b'\'' => {
                let word = word.get_or_insert_default();
                word.extend(chars.by_ref().take_while(|c| *c != b'\'').map(|c| (c, true)));
            }
            b'"' => {
                let word = word.get_or_insert_default();
                while let Some(c) = chars.next().filter(|c| *c != b'"') {
                    let escaped = chars.peek().copied();
                    match (c, escaped) {
                        (b'\\', Some(b'\n')) => drop(chars.next()),
                        (b'\\', Some(escaped @ (b'$' | b'`' | b'"' | b'\\'))) => {
                            chars.next();
                            word.push((escaped, true));
                        }
                        (c, _) => word.push((c, true)),
                    }
                }
            }
            b'\\' => match chars.next() {
                Some(b'\n') | None => {}
                Some(c) => word.get_or_insert_default().push((c, true)),
            },
            c => word.get_or_insert_default().push((c, false)),
        }
    }
    words.extend(word);
    words
}

/// Whether it is git's server of a push.
pub(crate) fn is_push(command: &OsStr) -> bool {
    let words = split_words(command).unwrap_or_default();
    match words.as_slice() {
        [git, push, ..] if git == "git" && push == "receive-pack" => true,
        [program, ..] => name(program) == b"git-receive-pack",
        [] => false,
    }
}

/// Whether a shell would put what the client asked for in place of a part of `command`: a reference
/// to `$SSH_ORIGINAL_COMMAND`, not within single quotes, nor behind a backslash.
pub(crate) fn wants_original(command: &str) -> bool {
    const NAME: &str = "SSH_ORIGINAL_COMMAND";
    let mut rest = command;
    let mut is_double_quoted = false;
    while let Some(place) = rest.find(['\'', '"', '\\', '$']) {
        let after = &rest[place + 1..];
        rest = match &rest[place..=place] {
            "'" if !is_double_quoted => after.split_once('\'').map_or("", |(_, after)| after),
            "\"" => {
                is_double_quoted = !is_double_quoted;
                after
            }
            "\\" => after.strip_prefix(|_: char| true).unwrap_or_default(),
            "$" if after.strip_prefix('{').unwrap_or(after).starts_with(NAME) => return true,
            _ => after,
        };
    }
    false
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use proptest::prelude::*;

    use super::*;

    fn word(text: &str, pattern: Option<&str>) -> ShellWord {
        ShellWord { text: text.into(), pattern: pattern.map(OsString::from) }
    }

    #[test]
    fn copiers_are_told_from_commands() {
        for command in ["ls -t", "scp a b", "rsync a b", "echo scp -t", "'", "", "rsync --version"]
        {
            assert_eq!(read(command.into()), Wanted::Command(command.into()));
        }
        for command in ["scp -t /x", "scp -v -f x", "/usr/bin/scp -p -d -t x", "exec scp -t -- x"] {
            assert!(matches!(read(command.into()), Wanted::Scp(_)), "{command}");
        }
        assert!(matches!(read("scp -t".into()), Wanted::Refused(_)));
        assert_eq!(
            read("exec /bin/rsync --server . a\\ b*.log 'c*' \"d\\\"?\"[x]".into()),
            Wanted::Rsync(vec![
                word("/bin/rsync", None),
                word("--server", None),
                word(".", None),
                word("a b*.log", Some("a b*.log")),
                word("c*", None),
                word("d\"?[x]", Some("d\"\\?[x]")),
            ])
        );
    }

    #[test]
    fn what_only_a_shell_has_is_known() {
        assert_eq!(exit_code("exit".as_ref()), Some(0));
        assert_eq!(exit_code("exit 3".as_ref()), Some(3));
        for command in ["exit 256", "exit x", "exit 1 2", "exits", "", "exit '"] {
            assert_eq!(exit_code(command.as_ref()), None, "{command}");
        }
        for command in [
            "exec sh -c 'cd; umask 077; mkdir -p \".ssh\" && cat >> \".ssh/authorized_keys\"'",
            "umask 077 ; test -d .ssh || mkdir .ssh ; cat >> .ssh/authorized_keys",
        ] {
            assert_eq!(read(command.into()), Wanted::CopyId);
        }
        let command = "cat .ssh/authorized_keys";
        assert_eq!(read(command.into()), Wanted::Command(command.into()));
    }

    #[test]
    fn pushes_are_known() {
        for command in
            ["git-receive-pack '/a/b.git'", "git receive-pack 'x'", "/usr/bin/git-receive-pack x"]
        {
            assert!(is_push(command.as_ref()), "{command}");
        }
        for command in ["git-upload-pack 'x'", "git", "", "echo git-receive-pack"] {
            assert!(!is_push(command.as_ref()), "{command}");
        }
    }

    #[test]
    fn a_command_that_a_shell_would_have_to_complete_is_told() {
        for command in [
            "wrapper $SSH_ORIGINAL_COMMAND",
            "wrapper \"$SSH_ORIGINAL_COMMAND\"",
            "wrapper ${SSH_ORIGINAL_COMMAND:-none}",
            "'a' \"it's $SSH_ORIGINAL_COMMAND\"",
        ] {
            assert!(wants_original(command), "{command}");
        }
        for command in [
            "wrapper",
            "sh -c 'wrapper $SSH_ORIGINAL_COMMAND'",
            "wrapper \\$SSH_ORIGINAL_COMMAND $OTHER",
            "wrapper SSH_ORIGINAL_COMMAND ä\\ä $",
            "'",
            "\\",
        ] {
            assert!(!wants_original(command), "{command}");
        }
    }

    proptest! {
        /// What is a word to one is a word to the other.
        #[test]
        fn words_are_the_same_with_and_without_quotes(text in "[ a-c'\"\\\\*?\n$#]{0,40}") {
            if let Ok(words) = split_words(&text) {
                let raw: Vec<OsString> = raw_words(text.as_ref())
                    .into_iter()
                    .map(|word| OsString::from_vec(word.into_iter().map(|(byte, _)| byte).collect()))
                    .collect();
                prop_assert_eq!(raw, words);
            }
        }
    }
}
