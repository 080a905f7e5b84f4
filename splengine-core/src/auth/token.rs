use std::fmt;

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use crate::auth::{AuthError, Authenticator, Credentials, Secret};
use crate::caller::Caller;

/// A fixed list of bearer tokens.
///
/// Only their SHA-256 is kept, which is enough for tokens that are long and random (a token is at
/// least 16 bytes); a password that people choose wants a slow hash instead. A lookup compares
/// with every entry in constant time, so its duration tells nothing.
#[derive(Default)]
pub struct StaticTokens {
    entries: Vec<([u8; 32], Caller)>,
    anonymous: Option<Caller>,
}

/// A token that can't be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Short tokens can be guessed.
    #[error("a token needs at least {} characters", StaticTokens::MIN_CHARS)]
    TooShort,
    /// RFC 6750, section 2.1 names the characters.
    #[error("a token is made of A-Z a-z 0-9 - . _ ~ + / and, at its end, =")]
    BadCharacter,
}

impl StaticTokens {
    /// The shortest token accepted, in characters.
    pub const MIN_CHARS: usize = 16;

    /// An empty list, which recognises nobody.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a token for `caller`. One caller may have several, for rotation.
    ///
    /// # Errors
    ///
    /// [`TokenError`] when `token` is too short or can't stand in an `Authorization` header.
    pub fn insert(&mut self, token: &Secret, caller: Caller) -> Result<(), TokenError> {
        let text = token.expose();
        if text.len() < Self::MIN_CHARS {
            return Err(TokenError::TooShort);
        }
        let body = text.trim_end_matches('=');
        if !body.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b)) {
            return Err(TokenError::BadCharacter);
        }
        self.entries.push((Sha256::digest(text).into(), caller));
        Ok(())
    }

    /// Takes clients that show no credentials for `caller`. Whoever reaches the port is in.
    #[must_use]
    pub fn allow_anonymous(mut self, caller: Caller) -> Self {
        self.anonymous = Some(caller);
        self
    }

    fn find(&self, token: &Secret) -> Option<&Caller> {
        let shown: [u8; 32] = Sha256::digest(token.expose()).into();
        let mut found = u64::MAX;
        for (index, (hash, _)) in (0u64..).zip(&self.entries) {
            let equal: Choice = hash.ct_eq(&shown);
            found = u64::conditional_select(&found, &index, equal);
        }
        usize::try_from(found)
            .ok()
            .and_then(|index| self.entries.get(index))
            .map(|(_, caller)| caller)
    }
}

impl Authenticator for StaticTokens {
    async fn authenticate(&self, credentials: Credentials) -> Result<Caller, AuthError> {
        match credentials {
            Credentials::None => self.anonymous.clone().ok_or(AuthError::Missing),
            Credentials::Bearer(token) => self.find(&token).cloned().ok_or(AuthError::Invalid),
        }
    }
}

impl fmt::Debug for StaticTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticTokens").field("tokens", &self.entries.len()).finish_non_exhaustive()
    }
}
