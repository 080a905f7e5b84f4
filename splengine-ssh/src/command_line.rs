//! Commands that SSH's file copiers send, which mean files below root.

use splengine_core::split_words;

/// What a command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// What it says.
    Command(String),
    /// These words.
    Words(Vec<String>),
    Refused(&'static str),
}

/// Finds the copiers among commands. What rsync's client asks its server for are paths below root,
/// as they are over SFTP; the old protocol of scp is not spoken.
pub(crate) fn read(command: String) -> Wanted {
    let Ok(mut words) = split_words(&command) else { return Wanted::Command(command) };
    let has = |flags: &[&str]| words.iter().skip(1).any(|word| flags.contains(&word.as_str()));
    match words.first().map_or("", String::as_str) {
        "scp" if has(&["-t", "-f"]) => Wanted::Refused(NO_OLD_SCP),
        "rsync" if has(&["--server"]) => {
            // Behind the first word that is a dot come paths; before it options.
            let Some(dot) = words.iter().position(|word| word == ".") else {
                return Wanted::Refused(NO_PATHS);
            };
            for path in &mut words[dot + 1..] {
                let below = path.trim_start_matches('/');
                if below.split('/').any(|part| part == "..") {
                    return Wanted::Refused(OUTSIDE);
                }
                if below.len() < path.len() {
                    *path = format!("./{below}");
                }
            }
            Wanted::Words(words)
        }
        _ => Wanted::Command(command),
    }
}

/// One word, such that [`split_words`] gives it back.
pub(crate) fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

const NO_OLD_SCP: &str =
    "scp: the old protocol of scp is not spoken here; leave out -O, and files go over SFTP";
const NO_PATHS: &str = "rsync: its server was started without paths";
const OUTSIDE: &str = "rsync: a path with `..` leads outside root";

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(command: &str) -> Wanted {
        read(command.to_owned())
    }

    #[test]
    fn copiers_are_told_from_commands() {
        for command in ["ls -t", "scp a b", "rsync a b", "echo scp -t", "'", "", "rsync --version"]
        {
            assert_eq!(wanted(command), Wanted::Command(command.to_owned()));
        }
        assert_eq!(wanted("scp -t /x"), Wanted::Refused(NO_OLD_SCP));
        assert_eq!(wanted("scp -v -f x"), Wanted::Refused(NO_OLD_SCP));
    }

    #[test]
    fn paths_of_rsync_are_below_root() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect();
        assert_eq!(
            wanted("rsync --server --sender -e.LsfxCIvu . /data/a b /"),
            Wanted::Words(words("rsync --server --sender -e.LsfxCIvu . ./data/a b ./"))
        );
        assert_eq!(wanted("rsync --server -e.L . ../x"), Wanted::Refused(OUTSIDE));
        assert_eq!(wanted("rsync --server -e.L . /a/../../x"), Wanted::Refused(OUTSIDE));
        assert_eq!(wanted("rsync --server"), Wanted::Refused(NO_PATHS));
    }

    #[test]
    fn a_quoted_word_is_the_word() {
        for word in ["", "a b", "it's", "\\", "\"$x\"", "a\nb"] {
            assert_eq!(split_words(&quote(word)).expect("splits"), [word]);
        }
    }
}
