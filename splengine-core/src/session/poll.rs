//! Sessions for callers that poll, and are not attached.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use crate::auth::Access;
use crate::auth::Caller;
use crate::ids::{IntoId, SessionId};
use crate::session::log::Entry;
use crate::session::sessions::{FoundSession, Right, Sessions};
use crate::session::{SessionError, SessionInfo};
use crate::terminal::Size;

/// Output of a session from some offset on, as one poll returns it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Printed {
    /// Epoch to which the offsets belong; another epoch is another count.
    pub epoch: String,
    /// Number of bytes that had been printed before `data`; of a screen, altogether.
    pub offset: u64,
    /// Offset at which to continue.
    pub next: u64,
    /// Output that was printed; of a screen the escape bytes that draw it. Empty if nothing was printed
    /// in time.
    pub data: Bytes,
    /// `true` if `data` is the whole screen, since what was asked for is not kept.
    pub is_screen: bool,
    /// The session, as it is now.
    pub info: SessionInfo,
    /// `true` if this is all, and nothing will follow.
    pub is_over: bool,
}

impl Sessions {
    /// Returns what follows `from`, an epoch and an offset in it, or the screen where that is not kept,
    /// or none is given. Of output at most `most` bytes (and 1 MiB); a screen is given whole. Waits up
    /// to `wait`, at most a minute, for output. It attaches no client.
    ///
    /// ```
    /// use std::time::Duration;
    /// use splengine_core::{Caller, Engine, LocalExecutor, SessionRequest};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
    /// # let alice = Caller::new("alice")?.with_all_scopes();
    /// let sessions = engine.sessions();
    /// let session = sessions.create(&alice, SessionRequest::new().command("cat")).await?;
    /// let id = &session.id;
    /// let first = sessions.read(&alice, id, None, 4096, Duration::ZERO).await?;
    /// assert!(first.is_screen);
    /// // Nothing has come since.
    /// let from = Some((&first.epoch[..], first.next));
    /// let next = sessions.read(&alice, id, from, 4096, Duration::from_millis(10)).await?;
    /// assert!(next.data.is_empty() && next.next == first.next && !next.is_over);
    /// # sessions.end(&alice, id).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`SessionError::NoSession`], [`SessionError::Forbidden`]; [`SessionError::Memory`] when there is
    /// no memory for the screen. For a session that was lost with its engine those of
    /// [`screen`](Self::screen).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn read(
        &self,
        caller: &Caller,
        id: impl IntoId<SessionId>,
        from: Option<(&str, u64)>,
        most: usize,
        wait: Duration,
    ) -> Result<Printed, SessionError> {
        let id = &self.id(caller, id)?;
        let FoundSession::LiveSession(live) = self.find(caller, id)?.0 else {
            let info = self.get(caller, id)?;
            let data = self.screen(caller, id).await?.ansi();
            let (epoch, is_screen, is_over) = (String::new(), true, true);
            return Ok(Printed { epoch, offset: 0, next: 0, data, is_screen, info, is_over });
        };
        let epoch = live.epoch.clone();
        let most = most.clamp(1, MAX_READ_BYTES);
        let until = Instant::now() + wait.min(MAX_WAIT);
        let mut changed = live.subscribe();
        let cursor = from.filter(|(wanted, _)| *wanted == epoch);
        let mut cursor = cursor.and_then(|(_, offset)| live.state().log.cursor_at(offset));
        while let Some(at) = &mut cursor {
            changed.borrow_and_update();
            let (entry, has_ended) = {
                let state = live.state();
                (state.log.next(at, most), state.end.is_some())
            };
            let (offset, data, is_over) = match entry {
                Err(_) => break,
                Ok(Some(Entry::Size(_))) => continue,
                Ok(Some(Entry::Output { offset, data })) => (offset, data, false),
                Ok(None) if has_ended => (at.offset, Bytes::new(), true),
                Ok(None) => match timeout_at(until, changed.changed()).await {
                    Ok(Ok(())) => continue,
                    _ => (at.offset, Bytes::new(), false),
                },
            };
            let (next, info) = (at.offset, live.info());
            return Ok(Printed { epoch, offset, next, data, is_screen: false, info, is_over });
        }
        let has_ended = live.state().end.is_some();
        let (cursor, _, data) = live.snapshot().await?;
        let (offset, next) = (cursor.offset, cursor.offset);
        let (info, is_screen) = (live.info(), true);
        Ok(Printed { epoch, offset, next, data, is_screen, info, is_over: has_ended })
    }

    /// Changes the size of a session's terminal, where neither its
    /// [policy](crate::session::SessionPolicy::size) nor the window of a client that is attached
    /// decides it. Returns the session with the size that it has now.
    ///
    /// # Errors
    ///
    /// [`SessionError::NoSession`], [`SessionError::Forbidden`] for callers who may only look,
    /// [`SessionError::Ended`]; [`SessionError::CallerScreens`] and
    /// [`SessionError::ScreensFull`] where there is no memory for a screen of this size. Then the
    /// terminal keeps the size that it has.
    pub fn resize(
        &self,
        caller: &Caller,
        id: impl IntoId<SessionId>,
        size: Size,
    ) -> Result<SessionInfo, SessionError> {
        let live = self.find_for_typing(caller, &self.id(caller, id)?)?;
        live.settle_from(Some(size))?;
        Ok(live.info())
    }

    /// Resets the session's idle time, as typing does.
    ///
    /// # Errors
    ///
    /// [`SessionError::NoSession`], [`SessionError::Forbidden`] for callers who may only look,
    /// [`SessionError::Ended`].
    pub fn keep_alive(
        &self,
        caller: &Caller,
        id: impl IntoId<SessionId>,
    ) -> Result<(), SessionError> {
        self.find_for_typing(caller, &self.id(caller, id)?)?.state().touch();
        Ok(())
    }

    /// A session that runs, of a caller who may type in it.
    pub(crate) fn find_for_typing(
        &self,
        caller: &Caller,
        id: &SessionId,
    ) -> Result<std::sync::Arc<crate::session::live_session::LiveSession>, SessionError> {
        let (found, right) = self.find(caller, id)?;
        if right < Right::See(Access::Control) {
            return Err(SessionError::Forbidden("you may only look at this session"));
        }
        match found {
            FoundSession::LiveSession(live) if live.state().end.is_none() => Ok(live),
            _ => Err(SessionError::Ended),
        }
    }
}

const MAX_READ_BYTES: usize = 1 << 20;
const MAX_WAIT: Duration = Duration::from_mins(1);
