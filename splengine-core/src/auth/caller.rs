//! Callers and what they may do.

use std::future::poll_fn;
use std::task::Poll;
use std::time::SystemTime;

use crate::auth::Access;
pub(crate) use crate::auth::Scope;
use crate::auth::Scopes;
use crate::auth::{Revocation, Revocations};
use crate::ids::{SessionId, ShareId};
use crate::user_name::{ParseUserNameError, UserName};

/// User who asks, with their rights, found by an adapter's
/// [`Authenticator`](crate::auth::Authenticator), checked by the [`Engine`](crate::Engine).
///
/// Two callers are equal if their user, their rights and their share are; by which credentials they
/// were recognised makes no difference.
///
/// ```
/// use splengine_core::{Caller, Scope};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let alice = Caller::new("alice")?.with(Scope::Execute).with(Scope::Files);
/// assert!(alice.may(Scope::Execute) && !alice.may(Scope::Sessions));
/// assert_eq!(alice.user().as_str(), "alice");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    user: UserName,
    scopes: Scopes,
    guest: Option<Guest>,
    revocations: Revocations,
}

/// Reach of a guest: a share of one session, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Guest {
    /// The share whose ticket they showed.
    pub share: ShareId,
    /// Session that is shared with the guest.
    pub session: SessionId,
    /// Right of the guest to the session.
    pub access: Access,
    /// Time until which it is valid.
    pub expires: SystemTime,
    /// User who gave the share away.
    pub owner: UserName,
}

impl Caller {
    /// Makes a caller of this name, with no rights yet. A [`UserName`] is converted by [`From`].
    ///
    /// # Errors
    ///
    /// [`ParseUserNameError`] when `user` is no [`UserName`].
    pub fn new(user: &str) -> Result<Self, ParseUserNameError> {
        user.parse().map(|user: UserName| user.into())
    }

    /// Returns the caller with every right.
    #[must_use]
    pub fn with_all_scopes(self) -> Self {
        self.with_scopes(Scopes::ALL)
    }

    /// Returns the caller with one right more.
    #[must_use]
    pub fn with(self, scope: Scope) -> Self {
        let scopes = self.scopes.with(scope);
        self.with_scopes(scopes)
    }

    /// Returns the caller with these rights instead of those that it had.
    #[must_use]
    pub fn with_scopes(mut self, scopes: Scopes) -> Self {
        self.scopes = scopes;
        self
    }

    /// Returns the rights that the caller was given. Once it is [revoked](Self::is_revoked) it
    /// [may](Self::may) use none of them.
    #[must_use]
    pub fn scopes(&self) -> Scopes {
        self.scopes
    }

    pub(crate) fn new_guest(user: UserName, guest: Guest) -> Self {
        Self { guest: Some(guest), ..user.into() }
    }

    /// Returns the share that is this caller's only right, if they are a guest.
    #[must_use]
    pub fn guest(&self) -> Option<&Guest> {
        self.guest.as_ref()
    }

    /// Returns whether this caller has the right `scope`. No right is left once it is
    /// [revoked](Self::is_revoked).
    #[must_use]
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(scope) && !self.is_revoked()
    }

    /// Returns the caller bound to `revocation`: once that is [revoked](Revocation::revoke), it has
    /// no right any more, wherever a copy of it is kept. A caller may depend on several.
    ///
    /// ```
    /// use splengine_core::{Caller, Scope};
    /// use splengine_core::auth::Revocation;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let revocation = Revocation::new();
    /// let alice = Caller::new("alice")?.with_all_scopes().revocable(&revocation);
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

    /// Returns whether the credentials that this caller was recognised by were taken back.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.revocations.is_revoked()
    }

    /// Resolves when the caller [is revoked](Self::is_revoked): at once if it already is, never if it
    /// can't be. Adapters close the connections of such a caller.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn revoked(&self) {
        self.revocations.revoked().await;
    }

    /// Runs `work` to its end, unless the caller is [revoked](Self::revoked) before: then `work` is
    /// dropped, and the result is `None`. Adapters run a caller's requests in it.
    ///
    /// ```
    /// use splengine_core::Caller;
    /// use splengine_core::auth::Revocation;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let revocation = Revocation::new();
    /// let alice = Caller::new("alice")?.with_all_scopes().revocable(&revocation);
    /// assert_eq!(alice.unless_revoked(async { 1 }).await, Some(1));
    ///
    /// tokio::spawn(async move { revocation.revoke() });
    /// let endless = std::future::pending::<()>();
    /// assert_eq!(alice.unless_revoked(endless).await, None);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// As safe as `work`.
    pub async fn unless_revoked<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        if self.is_revoked() {
            return None;
        }
        let mut work = std::pin::pin!(work);
        // Most of it waits for nothing.
        let first = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await;
        match first {
            Poll::Ready(done) => return Some(done),
            Poll::Pending if !self.is_revocable() => return Some(work.await),
            Poll::Pending => {}
        }
        tokio::select! {
            biased;
            () = self.revoked() => None,
            done = work => Some(done),
        }
    }

    /// Returns whether the caller can be [revoked](Self::is_revoked) at all.
    #[must_use]
    pub fn is_revocable(&self) -> bool {
        !self.revocations.is_empty()
    }

    /// Returns the caller's name.
    #[must_use]
    pub fn user(&self) -> &UserName {
        &self.user
    }

    /// Returns the user whose part of a bound this caller takes: for a guest that of the user who
    /// gave the share away, so that no user gets a larger part by inviting guests; else the
    /// caller's own.
    #[must_use]
    pub fn accounted_user(&self) -> &UserName {
        self.guest.as_ref().map_or(&self.user, |guest| &guest.owner)
    }
}

impl From<UserName> for Caller {
    /// Makes a caller of this name, with no rights yet.
    fn from(user: UserName) -> Self {
        Self { user, scopes: Scopes::NONE, guest: None, revocations: Revocations::default() }
    }
}
