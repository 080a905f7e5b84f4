//! Sessions that were saved at a caller's request, to be loaded later.

use std::time::SystemTime;

use bytes::Bytes;

use crate::auth::Caller;
use crate::blocking::blocking;
use crate::error::Field;
use crate::ids::{IntoId, RestorableId, SavedId, SessionId};
use crate::session::bounds::snapshot_bytes;
use crate::session::record::Record;
use crate::session::saved_index::SavedBounds;
use crate::session::sessions::{FoundSession, Sessions};
use crate::session::stored::{StoredScreen, StoredSession};
use crate::session::validate::checked_name;
use crate::session::{SavedInfo, SessionError};
use crate::time::millis;
use crate::user_name::UserName;

impl Sessions {
    /// Saves a session's screen, directory, environment and command, to be loaded later. A caller may
    /// have 256 of them, of 1 GiB together. At the end of the engine sessions are saved beyond that,
    /// too.
    ///
    /// ```
    /// use splengine_core::session::SessionPolicy;
    /// use splengine_core::{Caller, Engine, LocalExecutor, SessionRequest};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = tempfile::tempdir()?;
    /// let policy = SessionPolicy::new().store(store.path());
    /// let engine = Engine::builder(LocalExecutor::new(".")?).sessions(policy).build()?;
    /// let alice = Caller::new("alice")?.with_all_scopes();
    /// let sessions = engine.sessions();
    /// let session = sessions.create(&alice, SessionRequest::new().command("cat")).await?;
    /// let saved = sessions.save(&alice, &session.id, Some("tuesday".to_owned())).await?;
    /// sessions.end(&alice, &session.id).await?;
    ///
    /// let loaded = sessions.create(&alice, SessionRequest::new().restore(&saved.id)).await?;
    /// assert!(loaded.restored && loaded.name.as_deref() == Some("tuesday"));
    /// sessions.remove_saved(&alice, &saved.id).await?;
    /// assert!(sessions.list_saved(&alice).await?.is_empty());
    /// # sessions.end(&alice, &loaded.id).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`SessionError::NoSession`], [`SessionError::Forbidden`] for guests and callers with only
    /// [`Scope::Watch`](crate::Scope::Watch), [`SessionError::NoStore`], [`SessionError::Malformed`] for
    /// an invalid name, [`SessionError::DiskFull`], [`SessionError::CallerLimit`],
    /// [`SessionError::Busy`]. For a session that was lost with its engine also those of
    /// [`screen`](Self::screen).
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the session may be saved or not.
    pub async fn save(
        &self,
        caller: &Caller,
        id: impl IntoId<SessionId>,
        name: Option<String>,
    ) -> Result<SavedInfo, SessionError> {
        let found = self.find_own(caller, &self.id(caller, id)?)?;
        let store = self.store()?;
        let name = checked_name(name)?;
        let user = caller.accounted_user();
        let mut memory = self.registry.io.write_memory(user);
        let (mut record, screen) = match found {
            FoundSession::LiveSession(live) => {
                let cells = live.with_screen(false, |_, painted| painted.screen.cells()).await;
                memory.resize(snapshot_bytes(cells)).await?;
                live.record_of().await
            }
            FoundSession::Lost(record) => {
                let source = self.state_of(user, &record.session_id).await?;
                memory
                    .resize(usize::try_from(source.screen.length()).unwrap_or(usize::MAX))
                    .await?;
                let (record, screen) =
                    blocking(move || (source.record, source.screen.into_bytes())).await;
                (record, Bytes::from(screen?))
            }
        };
        record.name = name.or(record.name);
        record.saved = millis(SystemTime::now());
        record.exit = None;
        let turn = self.registry.io.write_turn().await;
        blocking(move || {
            let _held = (memory, turn);
            store.save(&record, &screen, Some(BOUNDS))
        })
        .await
    }

    /// Returns the caller's saved sessions, the newest first.
    ///
    /// # Errors
    ///
    /// [`SessionError::NoStore`]; [`SessionError::Forbidden`] for guests and callers without
    /// [`Scope::Sessions`](crate::Scope::Sessions).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn list_saved(&self, caller: &Caller) -> Result<Vec<SavedInfo>, SessionError> {
        self.may_have(caller)?;
        let mut all = self.store()?.saved_of(caller.user());
        all.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        Ok(all)
    }

    /// Returns one saved session. Its screen is not read: whether that is damaged shows when it is loaded.
    ///
    /// # Errors
    ///
    /// [`SessionError::NoSaved`]; [`SessionError::NoStore`] and [`SessionError::Forbidden`] as for
    /// [`list_saved`](Self::list_saved). For a saved session that could not be read when the engine
    /// started also [`SessionError::Damaged`], [`SessionError::Newer`], [`SessionError::Busy`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn get_saved(
        &self,
        caller: &Caller,
        id: impl IntoId<SavedId>,
    ) -> Result<SavedInfo, SessionError> {
        self.may_have(caller)?;
        let store = self.store()?;
        let saved = id.into_id().map_err(SessionError::NoSaved)?;
        if !store.may_be_of(&saved, caller.user()) {
            return Err(no_saved(&saved));
        }
        let wanted = saved.clone();
        if let Some(info) = blocking(move || store.saved_info(&wanted)).await {
            return Ok(info);
        }
        let source = self.saved(caller, saved.clone()).await?;
        source.record.saved_info(saved).ok_or(SessionError::Damaged("it names no user"))
    }

    /// Removes a saved session. Its screen is not read.
    ///
    /// # Errors
    ///
    /// As [`get_saved`](Self::get_saved).
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the saved session may be there or not.
    pub async fn remove_saved(
        &self,
        caller: &Caller,
        id: impl IntoId<SavedId>,
    ) -> Result<(), SessionError> {
        let saved = self.get_saved(caller, id).await?.id;
        let store = self.store()?;
        blocking(move || store.remove_saved(&saved)).await.map_err(SessionError::of_io)
    }

    /// Opens a saved session of the caller's, when it is its turn.
    async fn saved(&self, caller: &Caller, id: SavedId) -> Result<StoredSession, SessionError> {
        let (store, missing) = (self.store()?, no_saved(&id));
        if !store.may_be_of(&id, caller.user()) {
            return Err(missing);
        }
        let open = move || store.saved(&id);
        let source = self.opened(caller.accounted_user(), open).await?;
        if source.record.user == caller.user().as_str() { Ok(source) } else { Err(missing) }
    }

    /// Opens what to load: a saved session, or one that was lost.
    pub(crate) async fn source(
        &self,
        caller: &Caller,
        id: Result<RestorableId, String>,
    ) -> Result<StoredSession, SessionError> {
        let id = match id {
            Ok(RestorableId::Lost(id)) => {
                return match self.find_own(caller, &id)? {
                    FoundSession::Lost(record) => {
                        self.state_of(caller.accounted_user(), &record.session_id).await
                    }
                    FoundSession::LiveSession(_) => {
                        let problem = "names a session that is not saved; save it first".to_owned();
                        Err(SessionError::Malformed { field: Field::From, problem })
                    }
                };
            }
            Ok(RestorableId::Saved(id)) => Ok(id),
            Err(text) => Err(text),
        };
        // Where nothing is kept, no id is right.
        self.store()?;
        self.saved(caller, id.map_err(SessionError::NoSaved)?).await
    }

    /// Opens what was kept of a session that was lost, when it is the turn of `user`.
    pub(super) async fn state_of(
        &self,
        user: &UserName,
        id: &str,
    ) -> Result<StoredSession, SessionError> {
        let store = self.store()?;
        let id: SessionId = id.into_id().map_err(SessionError::NoSession)?;
        let open = move || store.session(&id).map_err(SessionError::of_io)?.state();
        self.opened(user, open).await
    }

    async fn opened(
        &self,
        user: &UserName,
        open: impl FnOnce() -> Result<(Record, StoredScreen), SessionError> + Send + 'static,
    ) -> Result<StoredSession, SessionError> {
        let turn = self.registry.io.turn(user).await?;
        blocking(move || open().map(|(record, screen)| StoredSession { record, screen, turn }))
            .await
    }
}

fn no_saved(id: &SavedId) -> SessionError {
    SessionError::NoSaved(id.to_string())
}

/// Of one caller.
const BOUNDS: SavedBounds = SavedBounds { count: 256, bytes: 1 << 30 };
