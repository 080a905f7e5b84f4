//! Sharing of sessions by tickets.

use std::time::Duration;

use crate::auth::{Access, Caller, Secret};
use crate::error::Field;
use crate::ids::{IntoId, SessionId, ShareId};
use crate::session::sessions::{FoundSession, Sessions};
use crate::session::share::ShareSelector;
use crate::session::{SessionError, ShareInfo};

impl Sessions {
    /// Shares one session with others. The ticket works once, within `expires_in` (at most 30 days);
    /// the guest who used it keeps the right until then, or until it is [taken
    /// back](Self::take_back_share).
    ///
    /// ```
    /// use std::time::Duration;
    /// use splengine_core::auth::Access;
    /// use splengine_core::session::Attach;
    /// use splengine_core::{Caller, Engine, LocalExecutor, SessionRequest};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
    /// # let alice = Caller::new("alice")?.with_all_scopes();
    /// let sessions = engine.sessions();
    /// let session = sessions.create(&alice, SessionRequest::new().command("cat")).await?;
    /// let id = &session.id;
    /// let (share, ticket) = sessions.share(&alice, id, Access::View, Duration::from_secs(3600))?;
    ///
    /// let guest = sessions.redeem(&ticket)?;
    /// let client = sessions.attach(&guest, id, Attach::new(Access::Control))?;
    /// assert_eq!(client.access(), Access::View);
    /// assert!(sessions.redeem(&ticket).is_err(), "a ticket works once");
    ///
    /// sessions.take_back_share(&alice, id, &share.id)?;
    /// assert!(!sessions.is_share_valid(&guest));
    /// # sessions.end(&alice, id).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`SessionError::NoSession`]; [`SessionError::Forbidden`] for guests and callers with only
    /// [`Scope::Watch`](crate::Scope::Watch);
    /// [`SessionError::Ended`] for a session that was lost with its engine; [`SessionError::Malformed`]
    /// for an invalid `expires_in`; [`SessionError::CallerLimit`] when the session or the caller has as
    /// many shares, or the caller as many unused tickets, as may be.
    pub fn share(
        &self,
        caller: &Caller,
        id: impl IntoId<SessionId>,
        access: Access,
        expires_in: Duration,
    ) -> Result<(ShareInfo, Secret), SessionError> {
        let FoundSession::LiveSession(live) = self.find_own(caller, &self.id(caller, id)?)? else {
            return Err(SessionError::Ended);
        };
        if expires_in.is_zero() || expires_in > MAX_SHARE_LIFETIME {
            let problem = format!("must be from 1 to {} ms", MAX_SHARE_LIFETIME.as_millis());
            return Err(SessionError::Malformed { field: Field::ExpiresIn, problem });
        }
        self.registry.shares.share(caller.user(), &live.id, access, expires_in)
    }

    /// Returns the shares of a session.
    ///
    /// # Errors
    ///
    /// [`SessionError::NoSession`], [`SessionError::Forbidden`] for guests and callers with only
    /// [`Scope::Watch`](crate::Scope::Watch).
    pub fn list_shares(
        &self,
        caller: &Caller,
        id: impl IntoId<SessionId>,
    ) -> Result<Vec<ShareInfo>, SessionError> {
        let FoundSession::LiveSession(live) = self.find_own(caller, &self.id(caller, id)?)? else {
            return Ok(Vec::new());
        };
        Ok(self.registry.shares.list(&live.id))
    }

    /// Takes back a share, and closes the attachments of its guest.
    ///
    /// # Errors
    ///
    /// [`SessionError::NoShare`], [`SessionError::NoSession`], [`SessionError::Forbidden`] for
    /// guests and callers with only [`Scope::Watch`](crate::Scope::Watch).
    pub fn take_back_share(
        &self,
        caller: &Caller,
        id: impl IntoId<SessionId>,
        share: impl IntoId<ShareId>,
    ) -> Result<(), SessionError> {
        let id = &self.id(caller, id)?;
        let share = share.into_id().map_err(|_| SessionError::NoShare)?;
        self.take_back(caller, id, ShareSelector::One(&share))
    }

    /// Takes back all shares of a session, if it has any, and closes the attachments of their guests.
    ///
    /// # Errors
    ///
    /// [`SessionError::NoSession`], [`SessionError::Forbidden`] for guests and callers with only
    /// [`Scope::Watch`](crate::Scope::Watch);
    /// [`SessionError::NoShare`] for a session that was lost with its engine.
    pub fn take_back_all_shares(
        &self,
        caller: &Caller,
        id: impl IntoId<SessionId>,
    ) -> Result<(), SessionError> {
        self.take_back(caller, &self.id(caller, id)?, ShareSelector::All)
    }

    /// Takes back the share of a ticket that has not been used yet.
    ///
    /// # Errors
    ///
    /// As [`take_back_share`](Self::take_back_share).
    pub fn take_back_ticket(
        &self,
        caller: &Caller,
        id: impl IntoId<SessionId>,
        ticket: &Secret,
    ) -> Result<(), SessionError> {
        self.take_back(caller, &self.id(caller, id)?, ShareSelector::Ticket(ticket))
    }

    fn take_back(
        &self,
        caller: &Caller,
        id: &SessionId,
        which: ShareSelector<'_>,
    ) -> Result<(), SessionError> {
        let FoundSession::LiveSession(live) = self.find_own(caller, id)? else {
            return Err(SessionError::NoShare);
        };
        let registry = &self.registry;
        let any = registry.shares.take_back(&live.id, which);
        registry.send_revoked_away(&live);
        if any || matches!(which, ShareSelector::All) { Ok(()) } else { Err(SessionError::NoShare) }
    }

    /// Makes a ticket that identifies `caller` once, within 30 seconds: for a browser's WebSocket,
    /// which can't send a header.
    ///
    /// ```
    /// use splengine_core::{Caller, Engine, LocalExecutor};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
    /// # let alice = Caller::new("alice")?.with_all_scopes();
    /// let ticket = engine.sessions().ticket(&alice)?;
    /// // The browser shows it in its request for a WebSocket.
    /// assert_eq!(engine.sessions().redeem(&ticket)?, alice);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`SessionError::CallerLimit`] when too many wait to be shown.
    pub fn ticket(&self, caller: &Caller) -> Result<Secret, SessionError> {
        self.registry.shares.ticket(caller)
    }

    /// Returns the caller of this ticket, which does not work again.
    ///
    /// # Errors
    ///
    /// [`SessionError::NoShare`] when there is no such ticket, or it was used, taken back or has
    /// expired.
    pub fn redeem(&self, ticket: &Secret) -> Result<Caller, SessionError> {
        self.registry.shares.redeem(ticket)
    }

    /// Returns whether `caller` is still valid: a guest is only as long as their share exists.
    #[must_use]
    pub fn is_share_valid(&self, caller: &Caller) -> bool {
        caller.guest().is_none_or(|guest| self.registry.shares.is_share_valid(guest))
    }
}

const MAX_SHARE_LIFETIME: Duration = Duration::from_hours(24 * 30);
