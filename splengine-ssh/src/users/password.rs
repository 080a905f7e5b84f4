//! Passwords, as Argon2id hashes in one file: `user:$argon2id$v=19$m=…,t=…,p=…$salt$hash`.

use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, Params, PasswordVerifier as _};
use splengine_core::UserName;
use splengine_core::auth::Secret;
use splengine_core::net::LogBudget;
use tokio::sync::Semaphore;

use super::error::UsersError;
use super::file;
use super::grant::Refusal;

/// A file of hashes, and how many of them may be computed.
#[derive(Clone)]
pub(super) struct Passwords {
    path: PathBuf,
    /// Those being computed and those that wait for it.
    places: Arc<Semaphore>,
    computing: Arc<Semaphore>,
    /// Nobody outside can tell which hash it picks for an unknown user.
    lots: RandomState,
    /// Of lines on what is wrong with the file, which is read for each password.
    warnings: Arc<LogBudget>,
}

type Line = (UserName, PasswordHash);

/// Why a line is skipped. What it holds is never part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum PasswordLineError {
    #[error("it is not `user:$argon2id$v=19$m=…,t=…,p=…$salt$hash`")]
    Form,
    #[error("its hash is not by Argon2id: make one with `argon2 SALT -id -e`")]
    Algorithm,
    #[error("its hash is not of version 19 (v=19)")]
    Version,
    #[error(
        "its hash is beyond the bounds: memory m up to {MAX_MEMORY_KIB} KiB, passes t up to \
         {MAX_PASSES}, lanes p up to {MAX_LANES}, and a hash of {MIN_HASH_BYTES} bytes or more"
    )]
    Bounds,
    #[error("its user has a line already")]
    Twice,
}

impl Passwords {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            places: Arc::new(Semaphore::new(AT_ONCE + WAITING)),
            computing: Arc::new(Semaphore::new(AT_ONCE)),
            lots: RandomState::new(),
            warnings: Arc::default(),
        }
    }

    /// Whether the file can be read, each line of it.
    pub(super) fn check(&self) -> Result<(), UsersError> {
        for (line, read) in lines(&file::read(&self.path)?) {
            read.map_err(|error| UsersError::Line {
                path: self.path.clone(),
                line,
                reason: error.to_string(),
            })?;
        }
        Ok(())
    }

    /// The hash that `password` matches, if it is this user's. Takes as long for a user who is not known.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the hash being computed, and counted as such until it is.
    pub(super) async fn verify(&self, user: &str, password: &Secret) -> Result<String, Refusal> {
        check_length(password)?;
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Refusal::Busy)?;
        let turn = Arc::clone(&self.computing).acquire_owned().await.map_err(|_| Refusal::Busy)?;
        let (path, password, user) = (self.path.clone(), password.clone(), user.to_owned());
        let (lot, warnings) = (self.lots.hash_one(&user), Arc::clone(&self.warnings));
        let checked = tokio::task::spawn_blocking(move || {
            let _held = (place, turn);
            check(&read(&warnings, &path)?, lot, &user, &password)
        });
        checked.await.unwrap_or(Err(Refusal::Files))
    }

    /// Whether `hash` is still this user's. May block.
    pub(super) fn has(&self, user: &str, hash: &str) -> Result<(), Refusal> {
        let known = read(&self.warnings, &self.path)?;
        let own = known.iter().find(|(name, _)| name.as_str() == user);
        if own.is_some_and(|(_, own)| own.to_string() == hash) {
            Ok(())
        } else {
            Err(Refusal::Password)
        }
    }
}

/// Whether a password is of a length at which anything is computed of it.
pub(super) fn check_length(password: &Secret) -> Result<(), Refusal> {
    match (1..=MAX_PASSWORD_BYTES).contains(&password.expose().len()) {
        true => Ok(()),
        false => Err(Refusal::PasswordLength { max_bytes: MAX_PASSWORD_BYTES }),
    }
}

fn check(known: &[Line], lot: u64, user: &str, password: &Secret) -> Result<String, Refusal> {
    let Some((hash, is_own)) = pick(known, lot, user) else { return Err(Refusal::Password) };
    let matches = Argon2::default().verify_password(password.expose().as_bytes(), hash).is_ok();
    if matches && is_own { Ok(hash.to_string()) } else { Err(Refusal::Password) }
}

/// The user's own hash. For an unknown user that of somebody else, and always the same: so it takes as
/// long as for one of those who are known. That a password matches it counts for nothing.
fn pick<'a>(known: &'a [Line], lot: u64, user: &str) -> Option<(&'a PasswordHash, bool)> {
    let own = known.iter().find(|(name, _)| name.as_str() == user);
    let place = usize::try_from(lot % known.len().max(1) as u64).unwrap_or_default();
    own.or(known.get(place)).map(|(_, hash)| (hash, own.is_some()))
}

/// The lines that hold. What is wrong with the others is logged.
fn read(log: &LogBudget, path: &Path) -> Result<Vec<Line>, Refusal> {
    let bytes = file::read(path).map_err(|error| {
        if let Some(unlogged) = log.take(()) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, unlogged, "nobody has a password");
        }
        Refusal::Files
    })?;
    let mut known: Vec<Line> = Vec::new();
    for (line, read) in lines(&bytes) {
        match read {
            Ok(read) => known.push(read),
            Err(error) => {
                if let Some(unlogged) = log.take(()) {
                    tracing::warn!(file = %path.display(), line, %error, unlogged, "skipped a line");
                }
            }
        }
    }
    Ok(known)
}

/// Every line that is neither empty nor a comment, with its number.
fn lines(bytes: &[u8]) -> impl Iterator<Item = (usize, Result<Line, PasswordLineError>)> {
    let mut seen = std::collections::HashSet::new();
    (1..).zip(bytes.split(|byte| *byte == b'\n')).filter_map(move |(number, line)| {
        let line = line.trim_ascii();
        if matches!(line.first(), None | Some(b'#')) {
            return None;
        }
        let read = std::str::from_utf8(line).map_err(|_| PasswordLineError::Form).and_then(parse);
        let read = read.and_then(|line| {
            if seen.insert(line.0.clone()) { Ok(line) } else { Err(PasswordLineError::Twice) }
        });
        Some((number, read))
    })
}

fn parse(text: &str) -> Result<Line, PasswordLineError> {
    let (user, hash) = text.split_once(':').ok_or(PasswordLineError::Form)?;
    let user = user.parse().map_err(|_| PasswordLineError::Form)?;
    let hash = PasswordHash::new(hash).map_err(|_| PasswordLineError::Form)?;
    if hash.algorithm != argon2::ARGON2ID_IDENT {
        return Err(PasswordLineError::Algorithm);
    }
    if hash.version != Some(19) {
        return Err(PasswordLineError::Version);
    }
    let params = Params::try_from(&hash).map_err(|_| PasswordLineError::Bounds)?;
    // A key id or associated data would be verified against what only its maker knows.
    let fits = params.m_cost() <= MAX_MEMORY_KIB
        && params.t_cost() <= MAX_PASSES
        && params.p_cost() <= MAX_LANES
        && params.keyid().is_empty()
        && params.data().is_empty()
        && hash.hash.as_ref().is_some_and(|hash| hash.len() >= MIN_HASH_BYTES)
        && hash.salt.as_ref().is_some_and(|salt| salt.len() >= MIN_SALT_BYTES);
    if fits { Ok((user, hash)) } else { Err(PasswordLineError::Bounds) }
}

/// Maximum length of a password in bytes.
const MAX_PASSWORD_BYTES: usize = 1 << 10;
const AT_ONCE: usize = 2;
const WAITING: usize = 32;
/// Maximum memory of one hash: 1 GiB.
const MAX_MEMORY_KIB: u32 = 1 << 20;
const MAX_PASSES: u32 = 64;
const MAX_LANES: u32 = 16;
const MIN_HASH_BYTES: usize = 16;
const MIN_SALT_BYTES: usize = 8;

#[cfg(test)]
mod tests;
