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

use super::address::Addresses;
use super::error::LineError;
use super::grant::Refusal;
use super::key::{self, BLANK, KeyError};
use super::options::Options;

/// A line with a key that is accepted.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub(crate) struct Entry {
    /// From 1.
    pub(crate) line: usize,
    pub(crate) key: KeyData,
    pub(crate) options: Options,
}

impl Entry {
    /// Whether a client from there may use it now; `None` has no address.
    pub(crate) fn admit(&self, from: Option<IpAddr>, now: SystemTime) -> Result<(), Refusal> {
        if self.options.expires.is_some_and(|expires| expires <= now) {
            return Err(Refusal::Expired(self.line));
        }
        let admits = |list: &Addresses| from.is_some_and(|from| list.admit(from));
        let is_admitted = self.options.from.as_ref().is_none_or(admits);
        if is_admitted { Ok(()) } else { Err(Refusal::From(self.line)) }
    }
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
            return Some((number, Err(LineError::TooLong { max_bytes: MAX_LINE_BYTES })));
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
