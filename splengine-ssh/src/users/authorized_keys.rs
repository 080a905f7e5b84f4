//! Files in OpenSSH's authorized_keys format (sshd(8), AUTHORIZED_KEYS FILE FORMAT). Pure.
//!
//! `restrict`, `pty`, `no-pty`, `command`, `environment`, `expiry-time`, `from`, `cert-authority`
//! and `principals` mean what they mean to sshd, with these differences:
//!
//! - Times are UTC, with a `Z` or without.
//! - `from` takes addresses, not names.
//! - `permitopen` takes names and addresses as clients give them, and nothing may be listened on, so
//!   that `permitlisten` is accepted and void; so is `user-rc`. X11 and agents are forwarded to nobody.
//! - Whether a key in a device (`sk-…`) was touched can't be told here: one is taken only with
//!   `no-touch-required`, and `verify-required` is refused.
//! - `view-only` is our own: such a key may look at terminals, and nothing else. So is
//!   `background="keep"`, by which what its commands leave in the background runs on, or `"kill"`.

use std::net::IpAddr;
use std::time::SystemTime;

use russh::keys::ssh_key::public::KeyData;

use super::grant::Refusal;
use super::key::{self, BLANK, KeyError};
use super::options::Options;

/// A line that lets somebody in.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub(crate) struct Entry {
    /// From 1.
    pub(crate) line: usize,
    pub(crate) key: KeyData,
    pub(crate) options: Options,
}

impl Entry {
    /// Whether a client from there may use it now.
    pub(crate) fn admit(&self, from: IpAddr, now: SystemTime) -> Result<(), Refusal> {
        if self.options.expires.is_some_and(|expires| expires <= now) {
            return Err(Refusal::Expired(self.line));
        }
        let is_admitted = self.options.from.as_ref().is_none_or(|list| list.admit(from));
        if is_admitted { Ok(()) } else { Err(Refusal::From(self.line)) }
    }
}

/// Why a line is skipped. What its options hold is never part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LineError {
    #[error("it is longer than {MAX_LINE_BYTES} bytes")]
    TooLong,
    #[error("it has a NUL byte in it")]
    Nul,
    #[error("its option {0} is none, or none that takes what is given it")]
    UnknownOption(usize),
    #[error("option `{0}` wants a value in double quotes, those within it written as \\\"")]
    Quotes(&'static str),
    #[error("after its option {0} there must be a comma or a space")]
    Separator(usize),
    #[error("option `{0}` is given twice")]
    Twice(&'static str),
    #[error(
        "option `from` takes addresses, networks (10.0.0.0/8) and patterns of them (10.0.*), parted \
         by commas, with `!` before those to refuse; names are not looked up"
    )]
    From,
    #[error("option `principals` takes names parted by commas")]
    Principals,
    #[error("option `expiry-time` takes YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS, in UTC")]
    Time,
    #[error("option `environment` takes NAME=value, with a name of A-Z a-z 0-9 _")]
    Environment,
    #[error("option `permitopen` takes HOST:PORT, either of which may be `*`")]
    PermitOpen,
    #[error("option `background` takes `keep` or `kill`")]
    Background,
    #[error("option `verify-required` can't be kept here: whether a PIN was given is not told")]
    Verify,
    #[error(
        "whether a key in a device was touched is not told here: it is taken with the option \
         `no-touch-required` only"
    )]
    Touch,
    #[error("options are for authorized_keys: a key alone belongs here")]
    Options,
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Every line of a file that is neither empty nor a comment, with its number.
pub(crate) fn lines(file: &[u8]) -> impl Iterator<Item = (usize, Result<&str, LineError>)> {
    (1..).zip(file.split(|byte| *byte == b'\n')).filter_map(|(number, line)| {
        let blanks = line.iter().take_while(|byte| BLANK.contains(&char::from(**byte))).count();
        let line = &line[blanks..];
        if matches!(line.first(), None | Some(b'#')) {
            return None;
        }
        if line.len() > MAX_LINE_BYTES {
            return Some((number, Err(LineError::TooLong)));
        }
        // A comment after the key may be in any encoding. All before it is ASCII, or else
        // unfinished.
        let text = line.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        let text = if text.contains('\0') { Err(LineError::Nul) } else { Ok(text) };
        Some((number, text))
    })
}

/// One line of the file, which [`lines`] found.
pub(crate) fn parse(line: usize, text: &str) -> Result<Entry, LineError> {
    let first = text.split(BLANK).next().unwrap_or_default();
    let (options, rest) =
        if key::is_type(first) { (Options::default(), text) } else { Options::parse(text)? };
    let key = key::parse(rest)?;
    key::check(&key)?;
    if key::is_in_device(&key) && !options.is_authority && !options.no_touch {
        return Err(LineError::Touch);
    }
    Ok(Entry { line, key, options })
}

/// One line of a file that holds nothing but keys.
pub(crate) fn parse_plain(text: &str) -> Result<KeyData, LineError> {
    match key::parse(text) {
        Err(KeyError::Missing) => Err(LineError::Options),
        other => Ok(other?),
    }
}

/// Maximum length of a line, without its end; a longer one is skipped.
pub(crate) const MAX_LINE_BYTES: usize = 8 << 10;

#[cfg(test)]
mod tests;
