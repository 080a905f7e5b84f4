use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use crate::auth::Caller;
use crate::auth::{AuthError, Authenticator, CredentialSource, Credentials, Secret};
use crate::user_name::UserName;

/// The SHA-256 of a bearer token, written `sha256:` and 64 hexadecimal digits: what a list of tokens
/// can hold instead of them.
///
/// That is enough for tokens that are long and random (128 bits or more); for passwords, which people
/// choose, it is not. `Debug` does not show it.
///
/// ```
/// use splengine_core::auth::{Secret, TokenHash};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let hash = TokenHash::of(&Secret::new("a-long-and-random-token"))?;
/// // What a file of tokens holds.
/// let line = hash.to_string();
/// assert!(line.starts_with("sha256:") && line.len() == 71);
/// assert_eq!(line.parse::<TokenHash>()?, hash);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

/// A text that is no [`TokenHash`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the hash of a token is `sha256:` and 64 hexadecimal digits")]
#[non_exhaustive]
pub struct ParseTokenHashError;

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
    /// A token of two users: it does not identify one of them.
    #[error("`{0}` and `{1}` have the same token")]
    Shared(UserName, UserName),
    /// Token that one user has twice, with other scopes.
    #[error("`{0}` has the same token twice, with different scopes")]
    Twice(UserName),
}

impl TokenHash {
    /// Returns the hash of `token`.
    ///
    /// # Errors
    ///
    /// [`TokenError`] when `token` is too short or can't stand in an `Authorization` header.
    pub fn of(token: &Secret) -> Result<Self, TokenError> {
        let text = token.expose();
        if text.len() < StaticTokens::MIN_CHARS {
            return Err(TokenError::TooShort);
        }
        let body = text.trim_end_matches('=');
        if !body.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b)) {
            return Err(TokenError::BadCharacter);
        }
        Ok(Self::of_any(token))
    }

    fn of_any(token: &Secret) -> Self {
        Self(Sha256::digest(token.expose()).into())
    }

    /// Whose token it is, compared with all of them in constant time.
    pub(super) fn find<'a, T>(token: &Secret, entries: &'a [(Self, T)]) -> Option<&'a T> {
        let shown = Self::of_any(token);
        let mut found = u64::MAX;
        for (index, (hash, _)) in (0u64..).zip(entries) {
            let equal: Choice = hash.0.ct_eq(&shown.0);
            found = u64::conditional_select(&found, &index, equal);
        }
        usize::try_from(found).ok().and_then(|index| entries.get(index)).map(|(_, of)| of)
    }
}

impl FromStr for TokenHash {
    type Err = ParseTokenHashError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("sha256:").ok_or(ParseTokenHashError)?;
        let mut hash = [0; 32];
        if digits.len() != 2 * hash.len() || !digits.bytes().all(|digit| digit.is_ascii_hexdigit())
        {
            return Err(ParseTokenHashError);
        }
        for (index, byte) in hash.iter_mut().enumerate() {
            let pair = &digits[2 * index..2 * index + 2];
            *byte = u8::from_str_radix(pair, 16).map_err(|_| ParseTokenHashError)?;
        }
        Ok(Self(hash))
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

/// A fixed list of bearer tokens. [`Accounts`](crate::auth::Accounts) is one that can be replaced.
///
/// Only their SHA-256 is kept, which is enough for tokens that are long and random (a token is at
/// least 16 bytes); a password that people choose wants a slow hash instead. A lookup compares
/// with every entry in constant time, so its duration tells nothing.
///
/// ```
/// use splengine_core::auth::{
///     AuthError, Authenticator, CredentialSource, Credentials, Secret, StaticTokens,
/// };
/// use splengine_core::{Caller, Scope};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let token = Secret::new("a-long-and-random-token");
/// let alice = Caller::new("alice")?.with(Scope::Execute);
/// let mut tokens = StaticTokens::new();
/// tokens.insert(&token, alice.clone())?;
/// let source = CredentialSource::new("http", Some([192, 0, 2, 1].into()));
/// assert_eq!(tokens.authenticate(Credentials::Bearer(token), &source).await?, alice);
///
/// let anonymous = tokens.authenticate(Credentials::None, &source).await;
/// assert!(matches!(anonymous, Err(AuthError::Missing)));
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
pub struct StaticTokens {
    entries: Vec<(TokenHash, Caller)>,
    anonymous: Option<Caller>,
}

impl StaticTokens {
    /// The shortest token accepted, in characters.
    pub const MIN_CHARS: usize = 16;

    /// Makes an empty list, which recognises no client.
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
        self.entries.push((TokenHash::of(token)?, caller));
        Ok(())
    }

    /// Treats clients without credentials as `caller`: every client that reaches the port has that
    /// caller's rights.
    #[must_use]
    pub fn allow_anonymous(mut self, caller: Caller) -> Self {
        self.anonymous = Some(caller);
        self
    }
}

impl Authenticator for StaticTokens {
    async fn authenticate(
        &self,
        credentials: Credentials,
        _: &CredentialSource,
    ) -> Result<Caller, AuthError> {
        match credentials {
            Credentials::None => self.anonymous.clone().ok_or(AuthError::Missing),
            Credentials::Bearer(token) => {
                TokenHash::find(&token, &self.entries).cloned().ok_or(AuthError::Invalid)
            }
            _ => Err(AuthError::Unsupported),
        }
    }
}

impl fmt::Debug for StaticTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticTokens").field("tokens", &self.entries.len()).finish_non_exhaustive()
    }
}
