//! The files that say whose keys let whom in, read anew for each question: so what is taken out of
//! them lets nobody in from then on.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use russh::keys::ssh_key::Fingerprint;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, Certificate, HashAlg};
use splengine_core::auth::{Accounts, Scopes};
use splengine_core::net::{LogBudget, Peer};
use splengine_core::{Caller, UserName};

use super::authorized_keys::{self, Entry};
use super::certificate::{self, Circumstances};
use super::error::{LineError, UsersError};
use super::file;
use super::grant::{Grant, Refusal};
use super::key;

#[derive(Debug, Clone, Default)]
pub(super) struct Sources {
    pub(super) authorized_keys: Option<PathBuf>,
    pub(super) trusted_ca: Option<PathBuf>,
    pub(super) revoked_keys: Option<PathBuf>,
    /// What users may do: anything, where there are none.
    pub(super) accounts: Option<Accounts>,
    /// Of lines about faults of files, which are read at each attempt to log in.
    pub(super) warnings: Arc<LogBudget>,
}

/// Who asks, and from where.
pub(super) struct Client<'a> {
    pub(super) user: &'a str,
    pub(super) from: Peer,
}

impl Sources {
    /// Whether all that is named can be read, each line of it.
    pub(super) fn check(&self) -> Result<(), UsersError> {
        if let Some(directory) = &self.authorized_keys {
            file::check_directory(directory)?;
        }
        if let Some(path) = &self.trusted_ca {
            for (line, read) in authorities(&file::read(path)?) {
                read.map_err(|error| UsersError::Line {
                    path: path.clone(),
                    line,
                    reason: error.to_string(),
                })?;
            }
        }
        self.revoked_keys.as_deref().map_or(Ok(()), |path| revoked_keys(path).map(drop))
    }

    /// Whether a client may go on to show that a key is its own.
    pub(super) fn offered(
        &self,
        client: &Client<'_>,
        key: &KeyData,
        algorithm: &Algorithm,
    ) -> Result<(), Refusal> {
        if matches!(algorithm, Algorithm::Rsa { hash: None }) {
            return Err(Refusal::Sha1);
        }
        key::check(key).map_err(Refusal::Key)?;
        self.require_unrevoked(&[key])?;
        let user = parse(client.user)?;
        // Any key may be a certificate's.
        if self.authorities().is_ok_and(|authorities| !authorities.is_empty()) {
            return Ok(());
        }
        let (entries, now) = (self.entries(&user)?, SystemTime::now());
        let signs = |entry: &Entry| {
            entry.options.is_authority && entry.admit(client.from.ip(), now).is_ok()
        };
        if entries.iter().any(signs) {
            return Ok(());
        }
        find(&entries, key, client.from, now).map(drop)
    }

    pub(super) fn by_key(&self, client: &Client<'_>, key: &KeyData) -> Result<Grant, Refusal> {
        let user = parse(client.user)?;
        key::check(key).map_err(Refusal::Key)?;
        self.require_unrevoked(&[key])?;
        let entries = self.entries(&user)?;
        let entry = find(&entries, key, client.from, SystemTime::now())?;
        Ok(Grant::new(self.caller(user), key::describe(key), entry.options.clone()))
    }

    /// Whether the authenticator may be asked about this key.
    pub(super) fn check_known(&self, key: &KeyData) -> Result<(), Refusal> {
        key::check(key).map_err(Refusal::Key)?;
        if key::is_in_device(key) {
            return Err(Refusal::Touch);
        }
        self.require_unrevoked(&[key])
    }

    pub(super) fn by_certificate(
        &self,
        client: &Client<'_>,
        certificate: &Certificate,
    ) -> Result<Grant, Refusal> {
        let user = parse(client.user)?;
        self.require_unrevoked(&[certificate.public_key(), certificate.signature_key()])?;
        let (authorities, has_authorities) = match self.authorities() {
            Ok(authorities) => (authorities, true),
            Err(_) => (Vec::new(), false),
        };
        let (entries, has_entries) = match self.lines_of(&user) {
            Ok((entries, may_lack_authority)) => (entries, !may_lack_authority),
            Err(Refusal::Files) => (Vec::new(), false),
            Err(_) => (Vec::new(), true),
        };
        let circumstances = Circumstances {
            user: &user,
            from: client.from.ip(),
            now: SystemTime::now(),
            authorities: &authorities,
            entries: &entries,
            has_authorities,
            has_entries,
        };
        let terms = certificate::judge(certificate, &circumstances)?;
        let how = certificate::describe(certificate);
        Ok(Grant::new(self.caller(user), how, terms))
    }

    /// What a user is who has shown who they are.
    pub(super) fn caller(&self, user: UserName) -> Caller {
        match &self.accounts {
            Some(accounts) => accounts.caller(&user),
            None => Caller::from(user).with_scopes(Scopes::USER),
        }
    }

    fn entries(&self, user: &UserName) -> Result<Vec<Entry>, Refusal> {
        self.lines_of(user).map(|(entries, _)| entries)
    }

    /// A user's lines, and whether one of an authority may be among those that were skipped.
    fn lines_of(&self, user: &UserName) -> Result<(Vec<Entry>, bool), Refusal> {
        let Some(directory) = &self.authorized_keys else { return Err(Refusal::UnknownUser) };
        file::check_directory(directory).map_err(|error| self.unusable(&error))?;
        let path = directory.join(user.as_str());
        let bytes = match file::read(&path) {
            Ok(bytes) => bytes,
            Err(UsersError::Unreadable { path: missing, source })
                if missing == path && source.kind() == io::ErrorKind::NotFound =>
            {
                return Err(Refusal::UnknownUser);
            }
            Err(error) => return Err(self.unusable(&error)),
        };
        let mut may_lack_authority = false;
        let lines = authorized_keys::lines(&bytes).map(|(line, text)| {
            let may_be_authority = text.is_ok_and(|text| text.contains("cert-authority"));
            let read = text.and_then(|text| authorized_keys::parse(line, text));
            may_lack_authority |= may_be_authority && read.is_err();
            (line, read)
        });
        let entries = skip_bad(&self.warnings, &path, lines);
        Ok((entries, may_lack_authority))
    }

    fn authorities(&self) -> Result<Vec<KeyData>, Refusal> {
        let Some(path) = &self.trusted_ca else { return Ok(Vec::new()) };
        let bytes = file::read(path).map_err(|error| self.unusable(&error))?;
        Ok(skip_bad(&self.warnings, path, authorities(&bytes)))
    }

    /// A list that can't be read, or not all of it, lets nobody in: who is on it is not known.
    fn require_unrevoked(&self, keys: &[&KeyData]) -> Result<(), Refusal> {
        let Some(path) = &self.revoked_keys else { return Ok(()) };
        let revoked = revoked_keys(path).map_err(|error| self.unusable(&error))?;
        let is_revoked = |key: &&KeyData| revoked.contains(&key.fingerprint(HashAlg::Sha256));
        if keys.iter().any(is_revoked) { Err(Refusal::Revoked) } else { Ok(()) }
    }

    fn unusable(&self, error: &UsersError) -> Refusal {
        if let Some(unlogged) = self.warnings.take(()) {
            let error = error as &dyn std::error::Error;
            tracing::warn!(error, unlogged, "nobody is let in by this");
        }
        Refusal::Files
    }
}

/// The first line of the key's that lets it in; the last one tells why not.
fn find<'a>(
    entries: &'a [Entry],
    key: &KeyData,
    from: Peer,
    now: SystemTime,
) -> Result<&'a Entry, Refusal> {
    let mut refusal = Refusal::UnknownKey;
    for entry in entries.iter().filter(|entry| !entry.options.is_authority && entry.key == *key) {
        match entry.admit(from.ip(), now) {
            Ok(()) => return Ok(entry),
            Err(other) => refusal = other,
        }
    }
    Err(refusal)
}

fn parse(user: &str) -> Result<UserName, Refusal> {
    user.parse().map_err(|_| Refusal::UserName)
}

/// The keys of authorities, one a line, without options.
fn authorities(bytes: &[u8]) -> impl Iterator<Item = (usize, Result<KeyData, LineError>)> {
    let parse = |text: &str| {
        let key = authorized_keys::parse_plain(text)?;
        key::check(&key)?;
        Ok(key)
    };
    authorized_keys::lines(bytes).map(move |(line, text)| (line, text.and_then(parse)))
}

/// Public keys or their fingerprints, one a line.
pub(super) fn revoked_keys(path: &Path) -> Result<HashSet<Fingerprint>, UsersError> {
    let bytes = file::read(path)?;
    let parse = |(line, text): (usize, Result<&str, LineError>)| {
        let at_line = |reason: String| UsersError::Line { path: path.to_owned(), line, reason };
        let text = text.map_err(|error| at_line(error.to_string()))?;
        let first = text.split(key::BLANK).next().unwrap_or_default();
        let fingerprint = if first.starts_with("SHA256:") {
            first.parse().ok()
        } else {
            key::parse(text).ok().map(|key| key.fingerprint(HashAlg::Sha256))
        };
        fingerprint.ok_or_else(|| at_line(NOT_REVOKED.to_owned()))
    };
    authorized_keys::lines(&bytes).map(parse).collect()
}

/// Logs what is wrong with lines, though not with every one of very many.
fn skip_bad<T>(
    log: &LogBudget,
    path: &Path,
    lines: impl Iterator<Item = (usize, Result<T, LineError>)>,
) -> Vec<T> {
    let mut skipped = 0;
    let good = lines.filter_map(|(line, read)| {
        let error = match read {
            Ok(good) => return Some(good),
            Err(error) => error,
        };
        skipped += 1;
        if skipped <= MAX_WARNINGS
            && let Some(unlogged) = log.take(())
        {
            tracing::warn!(file = %path.display(), line, %error, unlogged, "skipped a line");
        }
        None
    });
    let good = good.collect();
    if skipped > MAX_WARNINGS
        && let Some(unlogged) = log.take(())
    {
        tracing::warn!(file = %path.display(), lines = skipped, unlogged, "skipped more lines");
    }
    good
}

/// Maximum number of lines of one file that are logged one by one; of further ones only the number is.
const MAX_WARNINGS: usize = 10;
const NOT_REVOKED: &str = "it is neither a public key nor a fingerprint (SHA256:…), and a list of \
     revoked keys that is not understood whole lets nobody in; OpenSSH's KRLs are not read";

#[cfg(test)]
mod tests;
