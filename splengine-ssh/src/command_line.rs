//! Commands that SSH's file copiers send, which mean files below root.

use std::path::{Component, Path, PathBuf};

use splengine_core::split_words;

/// What a command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// What it says.
    Command(String),
    /// These words of a program that copies files for its client.
    Copier(Vec<String>),
    Refused(String),
}

/// Finds the copiers among commands. What rsync's client asks its server for are paths below root,
/// as they are over SFTP, and without what is `hidden`; the old protocol of scp is not spoken.
pub(crate) fn read(command: String, hidden: &[PathBuf]) -> Wanted {
    let Ok(mut words) = split_words(&command) else { return Wanted::Command(command) };
    if words.first().is_some_and(|word| word == "exec") {
        words.remove(0);
    }
    let has = |flags: &[&str]| words.iter().skip(1).any(|word| flags.contains(&word.as_str()));
    let program = words.first().map_or("", String::as_str);
    match program.rsplit('/').next().unwrap_or_default() {
        "scp" if has(&["-t", "-f"]) => Wanted::Refused(NO_OLD_SCP.to_owned()),
        "rsync" if has(&["--server"]) => match rsync(words, hidden) {
            Ok(words) => Wanted::Copier(words),
            Err(why) => Wanted::Refused(format!("rsync: {why}")),
        },
        _ => Wanted::Command(command),
    }
}

fn rsync(mut words: Vec<String>, hidden: &[PathBuf]) -> Result<Vec<String>, String> {
    // Behind the first word that is a dot come paths; before it options.
    let dot = words.iter().position(|word| word == ".").ok_or(NO_PATHS)?;
    let leads_up = |path: &str| path.split('/').any(|part| part == "..");
    for word in &words[1..dot] {
        let value = match word.strip_prefix("--") {
            Some(option) => option.split_once('=').map_or("", |(_, value)| value),
            None => word,
        };
        if value.starts_with('/') || leads_up(value) {
            return Err(format!("`{value}` would be a path of the host; {FROM_DESTINATION}"));
        }
    }
    let mut left_out = Vec::new();
    for path in &mut words[dot + 1..] {
        if leads_up(path) {
            return Err(OUTSIDE.to_owned());
        }
        let below = path.trim_start_matches('/');
        let place: PathBuf = Path::new(below).components().skip_while(is_dot).collect();
        for hidden in hidden {
            if place.starts_with(hidden) {
                return Err(format!("`{path}` is not there"));
            }
            left_out.extend(within(&place, hidden));
        }
        if below.len() < path.len() {
            *path = format!("./{below}");
        }
    }
    left_out.dedup();
    words.splice(dot..dot, left_out);
    Ok(words)
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

/// The paths among the words of an rsync server: those behind the first that is a dot.
pub(crate) fn paths_of(words: &[String]) -> impl Iterator<Item = &str> {
    words.iter().map(String::as_str).skip_while(|word| *word != ".").skip(1)
}

/// What keeps rsync from what is hidden below a directory that it copies: neither sent, nor taken
/// for superfluous. Its patterns begin where the copy does: in the directory, or, where the path has
/// no slash at its end, with its name.
fn within(place: &Path, hidden: &Path) -> Vec<String> {
    let Ok(rest) = hidden.strip_prefix(place) else { return Vec::new() };
    let named = place.file_name().map(|name| Path::new(name).join(rest));
    let all = [Some(rest.to_owned()), named, Some(hidden.to_owned())];
    let mut all: Vec<String> = all
        .into_iter()
        .flatten()
        .filter_map(|path| path.to_str().map(|path| format!("--exclude=/{}", literal(path))))
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// A name as a pattern of rsync's that matches it alone.
fn literal(name: &str) -> String {
    let is_wild = name.contains(['*', '?', '[']);
    name.chars().fold(String::new(), |mut pattern, character| {
        if is_wild && "*?[\\".contains(character) {
            pattern.push('\\');
        }
        pattern.push(character);
        pattern
    })
}

fn is_dot(part: &Component<'_>) -> bool {
    matches!(part, Component::CurDir)
}

/// One word, such that [`split_words`] gives it back.
pub(crate) fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

const NO_OLD_SCP: &str =
    "scp: the old protocol of scp is not spoken here; leave out -O, and files go over SFTP";
const NO_PATHS: &str = "its server was started without paths; leave out --secluded-args (-s, or \
                        RSYNC_PROTECT_ARGS), since they have to be seen here";
const OUTSIDE: &str = "a path with `..` leads outside root";
const FROM_DESTINATION: &str = "give it without a slash in front, as it is from the destination";

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(command: &str) -> Wanted {
        read(command.to_owned(), &["runtime".into(), "a/b [1]".into()])
    }

    fn words(text: &str) -> Wanted {
        Wanted::Copier(text.split(' ').map(|word| word.replace('_', " ")).collect())
    }

    #[test]
    fn copiers_are_told_from_commands() {
        for command in ["ls -t", "scp a b", "rsync a b", "echo scp -t", "'", "", "rsync --version"]
        {
            assert_eq!(wanted(command), Wanted::Command(command.to_owned()));
        }
        for command in ["scp -t /x", "scp -v -f x", "/usr/bin/scp -t x"] {
            assert_eq!(wanted(command), Wanted::Refused(NO_OLD_SCP.to_owned()));
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

    #[test]
    fn paths_of_rsync_are_below_root() {
        assert_eq!(
            wanted("rsync --server --sender -e.LsfxCIvu . /data/a b"),
            words("rsync --server --sender -e.LsfxCIvu . ./data/a b")
        );
        assert_eq!(
            wanted("/bin/rsync --server -e.L . /c"),
            words("/bin/rsync --server -e.L . ./c")
        );
        for (command, problem) in [
            ("rsync --server -e.L . ../x", "leads outside root"),
            ("rsync --server -e.L . /a/../../x", "leads outside root"),
            ("rsync --server", "leave out --secluded-args"),
            ("rsync --server --backup-dir /bk . x", "`/bk` would be a path of the host"),
            ("rsync --server --link-dest=/rs1 . x", "`/rs1` would be a path of the host"),
            ("rsync --server --partial-dir ../p . x", "`../p` would be a path of the host"),
        ] {
            let Wanted::Refused(why) = wanted(command) else { panic!("{command}") };
            assert!(why.contains(problem), "{why}");
        }
        let near = "rsync --server --backup-dir old/ones . x";
        assert_eq!(wanted(near), words(near));
    }

    #[test]
    fn what_is_hidden_is_not_rsyncs() {
        for all in [".", "/", "./", "/./"] {
            let Wanted::Copier(words) = wanted(&format!("rsync --server -v . {all}")) else {
                panic!("{all}")
            };
            assert_eq!(words[3..5], ["--exclude=/runtime", r"--exclude=/a/b \[1]"], "{all}");
            assert_eq!(words[5], ".");
        }
        assert_eq!(
            wanted("rsync --server -v . /a/"),
            words(r"rsync --server -v --exclude=/a/b_\[1] --exclude=/b_\[1] . ./a/")
        );
        assert_eq!(wanted("rsync --server . data/runtime"), words("rsync --server . data/runtime"));
        for path in ["runtime", "/runtime/", "./runtime/ssh", "'a/b [1]'"] {
            let Wanted::Refused(why) = wanted(&format!("rsync --server . {path}")) else {
                panic!("{path}")
            };
            assert!(why.contains("is not there"), "{why}");
        }
    }

    #[test]
    fn a_quoted_word_is_the_word() {
        for word in ["", "a b", "it's", "\\", "\"$x\"", "a\nb"] {
            assert_eq!(split_words(&quote(word)).expect("splits"), [word]);
        }
    }
}
