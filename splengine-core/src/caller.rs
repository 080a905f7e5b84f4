//! Who asks, and what they may do.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use crate::auth::{Revocation, Revocations};
use crate::id::{SessionId, ShareId};
use crate::session::Access;

/// The name of a user: 1 to 64 of `A-Z a-z 0-9 . _ @ -`, beginning with a letter or digit.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserName(Arc<str>);

/// A text that is not a [`UserName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a user name is 1 to 64 of A-Z a-z 0-9 . _ @ -, and begins with a letter or digit")]
#[non_exhaustive]
pub struct ParseUserNameError;

impl UserName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UserName {
    type Err = ParseUserNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let well_formed = (1..=64).contains(&text.len())
            && text.as_bytes()[0].is_ascii_alphanumeric()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte));
        if well_formed { Ok(Self(text.into())) } else { Err(ParseUserNameError) }
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserName({})", self.0)
    }
}

/// One right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// Run commands.
    Execute,
    /// Have terminal sessions of one's own.
    Sessions,
    /// Look at one's own terminal sessions: without [`Sessions`](Self::Sessions) neither type in
    /// them, nor make, change or end any.
    Watch,
    /// Read and write the files that the engine serves.
    Files,
}

impl Scope {
    /// Every right there is.
    pub const ALL: &[Self] = &[Self::Execute, Self::Sessions, Self::Watch, Self::Files];

    fn bit(self) -> u8 {
        1 << self as u8
    }

    /// The word that stands for it in configuration and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Execute => "execute",
            Self::Sessions => "sessions",
            Self::Watch => "watch",
            Self::Files => "files",
        }
    }
}

/// Some of them, one bit for each.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Scopes(u8);

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Scope::ALL.iter().filter(|scope| self.0 & scope.bit() != 0);
        f.debug_set().entries(names).finish()
    }
}

/// A text that names no [`Scope`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a scope; there are: execute, sessions, watch, files")]
#[non_exhaustive]
pub struct ParseScopeError(String);

impl FromStr for Scope {
    type Err = ParseScopeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|scope| scope.name() == text)
            .ok_or_else(|| ParseScopeError(text.chars().take(40).collect()))
    }
}

/// Who asks: a user and their rights, found by an adapter's
/// [`Authenticator`](crate::auth::Authenticator), checked by the [`Engine`](crate::Engine).
///
/// Two callers are equal if their user, their rights and their share are; by which credentials they
/// were recognised makes no difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    user: UserName,
    scopes: Scopes,
    guest: Option<Guest>,
    revocations: Revocations,
}

/// What makes a caller a guest: a share of one session, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Guest {
    /// The share whose ticket they showed.
    pub share: ShareId,
    /// The session.
    pub session: SessionId,
    /// What they may do with it.
    pub access: Access,
    /// Until when.
    pub expires: SystemTime,
}

impl Caller {
    /// A caller with no rights yet.
    #[must_use]
    pub fn new(user: UserName) -> Self {
        Self { user, scopes: Scopes::default(), guest: None, revocations: Revocations::default() }
    }

    /// A caller with every right.
    #[must_use]
    pub fn with_all_scopes(user: UserName) -> Self {
        Scope::ALL.iter().fold(Self::new(user), |caller, scope| caller.with(*scope))
    }

    /// The same caller with one right more.
    #[must_use]
    pub fn with(mut self, scope: Scope) -> Self {
        self.scopes.0 |= scope.bit();
        self
    }

    pub(crate) fn new_guest(user: UserName, guest: Guest) -> Self {
        Self { guest: Some(guest), ..Self::new(user) }
    }

    /// The share that is this caller's only right, if they are a guest.
    #[must_use]
    pub fn guest(&self) -> Option<&Guest> {
        self.guest.as_ref()
    }

    /// Whether this caller has the right `scope`. No right is left once it is
    /// [revoked](Self::is_revoked).
    #[must_use]
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.0 & scope.bit() != 0 && !self.is_revoked()
    }

    /// The same caller, until `revocation` is [revoked](Revocation::revoke): then it has no right any
    /// more, wherever a copy of it is kept. A caller may depend on several.
    ///
    /// ```
    /// use splengine_core::{Caller, Revocation, Scope};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let revocation = Revocation::new();
    /// let alice = Caller::with_all_scopes("alice".parse()?).revocable(&revocation);
    /// assert!(alice.may(Scope::Execute));
    /// revocation.revoke();
    /// assert!(!alice.may(Scope::Execute));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn revocable(mut self, revocation: &Revocation) -> Self {
        self.revocations = self.revocations.and(revocation);
        self
    }

    /// Whether the credentials that this caller was recognised by were taken back.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.revocations.is_revoked()
    }

    /// Resolves when the caller [is revoked](Self::is_revoked): at once if it is already, never if it
    /// can't be. Adapters close the connections of such a caller.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn revoked(&self) {
        self.revocations.revoked().await;
    }

    /// The caller's name.
    #[must_use]
    pub fn user(&self) -> &UserName {
        &self.user
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["a", "alice", "A.b_c@d-e", "0"] {
            assert!(good.parse::<UserName>().is_ok(), "{good}");
        }
        let long = "a".repeat(65);
        for bad in ["", "-a", "a b", "a/b", "ü", "a\0", long.as_str()] {
            assert!(bad.parse::<UserName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn every_scope_parses_back() {
        for &scope in Scope::ALL {
            assert_eq!(scope.name().parse(), Ok(scope));
        }
    }
}
