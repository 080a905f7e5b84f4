//! The server of rsync's client: a command whose paths are below root.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use splengine_core::files::FileKind;
use splengine_core::{Caller, FileError, Files, Request, Scope};
use tokio::io::AsyncReadExt as _;

use crate::glob::{self, ShellWord};
use crate::path_memory::PathMemory;
use crate::spill_buffer::SpillReader;

/// The server's command, once its paths were looked at: none may lie outside root or be hidden. With
/// `--secluded-args` they are read from `input` first.
///
/// # Errors
///
/// In words, when the server may not run so.
pub(crate) async fn request(
    files: &Files,
    caller: &Caller,
    words: Vec<ShellWord>,
    input: &mut SpillReader,
    mut memory: PathMemory,
) -> Result<Request, String> {
    // Unlike SFTP it is a program that reaches files by itself: it takes the right to run it, too,
    // which the engine checks.
    if !caller.may(Scope::Files) {
        return Err("this takes the scope `files`, beside `execute`".to_owned());
    }
    let words = match words.iter().position(is_secluded) {
        Some(place) => secluded(words, place, input).await?,
        None => words,
    };
    // Behind the first word that is a dot come paths; before it options.
    let dot = words.iter().position(|word| word.text == ".").ok_or(NO_PATHS)?;
    let is_sender = words[..dot].iter().any(|word| word.text == "--sender");
    let mut paths = Vec::new();
    for word in &words[dot + 1..] {
        match &word.pattern {
            Some(pattern) if is_sender => {
                paths.extend(glob::expand(files, caller, pattern, &mut memory).await?);
            }
            _ => paths.push(PathBuf::from(&word.text)),
        }
    }
    // rsync looks for options behind its paths, too.
    for path in &mut paths {
        if path.as_os_str().as_bytes().starts_with(b"-") {
            *path = Path::new(".").join(&path);
        }
    }
    let mut left_out = Vec::new();
    for path in &paths {
        let place = check(files, caller, path, path).await?;
        left_out.extend(files.hidden().iter().flat_map(|hidden| within(&place, hidden)));
    }
    left_out.dedup();
    let bases = match paths.last() {
        Some(path) if !is_sender => bases(files, caller, path).await,
        _ => vec![PathBuf::new()],
    };
    let options: Vec<OsString> = words[1..dot].iter().map(|word| word.text.clone()).collect();
    for option in &options {
        if may_hide_path(option.as_bytes()) {
            let option = option.display();
            return Err(format!(
                "its option `{option}` is not taken here: clients send none like it"
            ));
        }
        let value = match option.as_bytes() {
            [b'-', option @ ..] => {
                option.splitn(2, |byte| *byte == b'=').nth(1).unwrap_or_default()
            }
            value => value,
        };
        let value = Path::new(OsStr::from_bytes(value));
        // Whatever it is the value of: what is no path leads nowhere.
        if !value.as_os_str().is_empty() {
            for base in &bases {
                check(files, caller, value, &base.join(value)).await?;
            }
        }
    }
    // Where it runs, a relative path would mean another file than the one that was looked at.
    if !files.is_root_of_commands() {
        return Err("commands work below another root than the files that are served".to_owned());
    }
    let program = &words[0].text;
    Ok(Request::argv([program]).args(options).args(left_out).arg(".").args(paths))
}

/// Where `path` is below root, if it is neither outside nor hidden; `shown` is how the client named it.
async fn check(
    files: &Files,
    caller: &Caller,
    shown: &Path,
    path: &Path,
) -> Result<PathBuf, String> {
    let shown = shown.display();
    let outside = || format!("`{shown}` is outside root");
    let at = files.from_host(path).map_err(|error| match error {
        FileError::Outside { .. } => outside(),
        error => error.to_string(),
    })?;
    let root = files.to_host("/".into());
    let place = glob::normal(at.strip_prefix(&root).unwrap_or(&at)).ok_or_else(outside)?;
    if files.is_hidden(&at).await || files.is_hidden(&place).await {
        return Err(format!("`{shown}` is not there"));
    }
    match files.stat(caller, &at).await {
        Err(FileError::Outside { .. }) => Err(outside()),
        _ => Ok(place),
    }
}

/// What relative paths of options may begin at: the destination, or what it is in if it may be a file.
async fn bases(files: &Files, caller: &Caller, path: &Path) -> Vec<PathBuf> {
    let destination = path.to_owned();
    let at = files.from_host(path);
    let kind = match &at {
        Ok(at) => files.stat(caller, at).await.ok().map(|info| info.kind),
        Err(_) => None,
    };
    let parent = destination.parent().map(Path::to_owned).unwrap_or_default();
    match kind {
        Some(FileKind::Directory) => vec![destination],
        Some(_) => vec![parent],
        None if path.as_os_str().as_bytes().ends_with(b"/") => vec![destination],
        None => vec![destination, parent],
    }
}

/// Whether an option tells that the arguments come by standard input: an `s` among letters before the
/// `e` whose value is the rest.
fn is_secluded(word: &ShellWord) -> bool {
    let is_letter = |byte: &&u8| **byte != b'e';
    let has_letter = match word.text.as_bytes() {
        [b'-', b'-', ..] => false,
        [b'-', letters @ ..] => letters.iter().take_while(is_letter).any(|byte| *byte == b's'),
        _ => false,
    };
    word.text == "--secluded-args" || word.text == "--protect-args" || has_letter
}

/// Whether an option may name a file within a word that is looked at for none: behind a letter, as in
/// `-T/tmp`, or in a rule of a filter. rsync's client sends no such option to its server.
fn may_hide_path(option: &[u8]) -> bool {
    match option {
        [b'-', b'-', name @ ..] => name.starts_with(b"filter"),
        [b'-', letters @ ..] => {
            let mut before_value = letters.iter().take_while(|byte| **byte != b'e');
            before_value.any(|byte| *byte == b'f')
                || letters.contains(&b'/')
                || letters.windows(2).any(|two| two == b"..")
        }
        _ => false,
    }
}

/// The command line that it would be without seclusion.
async fn secluded(
    mut words: Vec<ShellWord>,
    place: usize,
    input: &mut SpillReader,
) -> Result<Vec<ShellWord>, String> {
    let option = &mut words[place];
    let mut letters = option.text.as_bytes().to_vec();
    match letters.iter().position(|byte| *byte == b's') {
        Some(letter) if !letters.starts_with(b"--") && letters.len() > 2 => {
            letters.remove(letter);
            option.text = OsString::from_vec(letters);
        }
        _ => drop(words.remove(place)),
    }
    let mut text = Vec::new();
    loop {
        match input.read_u8().await {
            Ok(0) if text.last().is_none_or(|last| *last == 0) => break,
            Ok(byte) => text.push(byte),
            Err(_) => return Err("its arguments did not come".to_owned()),
        }
        if text.len() > MAX_ARGUMENT_BYTES {
            return Err(format!("its arguments are longer than {MAX_ARGUMENT_BYTES} bytes"));
        }
    }
    // The first is the program's name once more.
    for text in text.split_inclusive(|byte| *byte == 0).skip(1) {
        let text = text.strip_suffix(b"\0").unwrap_or(text);
        let is_pattern = text.iter().any(|byte| b"*?[".contains(byte));
        let text = OsStr::from_bytes(text).to_owned();
        words.push(ShellWord { pattern: is_pattern.then(|| text.clone()), text });
    }
    Ok(words)
}

/// What keeps rsync from what is hidden below a directory that it copies: neither sent, nor taken
/// for superfluous. Its patterns begin where the copy does: in the directory, or, where the path has
/// no slash at its end, with its name.
fn within(place: &Path, hidden: &Path) -> Vec<OsString> {
    let Ok(rest) = hidden.strip_prefix(place) else { return Vec::new() };
    let named = place.file_name().map(|name| Path::new(name).join(rest));
    let all = [Some(rest.to_owned()), named, Some(hidden.to_owned())];
    let mut all: Vec<OsString> = all
        .into_iter()
        .flatten()
        .map(|path| {
            let option = [b"--exclude=/", &*literal(path.as_os_str().as_bytes())].concat();
            OsString::from_vec(option)
        })
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// A name as a pattern of rsync's that matches it alone.
fn literal(name: &[u8]) -> Vec<u8> {
    let is_wild = name.iter().any(|byte| b"*?[".contains(byte));
    let mut pattern = Vec::new();
    for byte in name {
        if is_wild && b"*?[\\".contains(byte) {
            pattern.push(b'\\');
        }
        pattern.push(*byte);
    }
    pattern
}

const NO_PATHS: &str = "its server was started without paths";
/// Of all arguments that come by standard input.
const MAX_ARGUMENT_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str) -> ShellWord {
        ShellWord { text: text.into(), pattern: None }
    }

    #[test]
    fn seclusion_is_known() {
        for text in ["-slogDtpre.iLsfxCIvu", "-s", "-vs", "--secluded-args", "--protect-args"] {
            assert!(is_secluded(&word(text)), "{text}");
        }
        for text in ["-logDtpre.iLsfxCIvu", "--sender", "--server", "s", "-e.Ls", "."] {
            assert!(!is_secluded(&word(text)), "{text}");
        }
    }

    #[test]
    fn what_is_hidden_is_left_out() {
        let within = |place: &str, hidden: &str| within(Path::new(place), Path::new(hidden));
        assert_eq!(within("", "runtime"), ["--exclude=/runtime"]);
        assert_eq!(within("", "a/b [1]"), [r"--exclude=/a/b \[1]"]);
        assert_eq!(within("a", "a/b"), ["--exclude=/a/b", "--exclude=/b"]);
        assert!(within("data/runtime", "runtime").is_empty());
    }
}
