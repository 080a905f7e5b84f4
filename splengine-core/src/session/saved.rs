//! Sessions that are written down on purpose, to be loaded later.

use std::time::SystemTime;

use bytes::Bytes;

use crate::caller::Caller;
use crate::id::SavedId;
use crate::session::checks::{blocking, checked_name};
use crate::session::handle::{Found, Sessions};
use crate::session::saved_index::SavedBounds;
use crate::session::store::{Record, millis};
use crate::session::{SavedInfo, SessionError};

impl Sessions {
    /// Writes down a session's screen, directory, environment and command, to be loaded later. A
    /// caller may have 256 of them, of 1 GiB together. At the end of the engine sessions are saved
    /// beyond that, too.
    ///
    /// # Errors
    ///
    /// [`SessionError::NoSession`], [`SessionError::Forbidden`] for guests,
    /// [`SessionError::NoStore`], [`SessionError::DiskFull`], [`SessionError::CallerLimit`].
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the session may be saved or not.
    pub async fn save(
        &self,
        caller: &Caller,
        id: &str,
        name: Option<String>,
    ) -> Result<SavedInfo, SessionError> {
        let found = self.find_own(caller, id)?;
        let store = self.store()?;
        let name = checked_name(name)?;
        let (mut record, screen) = match found {
            Found::Live(live) => live.record_of().await,
            Found::Lost(record) => {
                let (record, screen) = self.state_of(&record.session_id).await?;
                (record, Bytes::from(screen))
            }
        };
        record.name = name.or(record.name);
        record.saved = millis(SystemTime::now());
        record.exit = None;
        blocking(move || store.save(&record, &screen, Some(BOUNDS))).await
    }

    /// Returns the caller's saved sessions, the newest first.
    ///
    /// # Errors
    ///
    /// [`SessionError::NoStore`], [`SessionError::Forbidden`].
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

    /// Returns one saved session.
    ///
    /// # Errors
    ///
    /// [`SessionError::NoSaved`], [`SessionError::Damaged`], [`SessionError::Newer`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn get_saved(&self, caller: &Caller, id: &str) -> Result<SavedInfo, SessionError> {
        self.may_have(caller)?;
        let (saved, record, _) = self.saved(caller, id).await?;
        record.saved_info(saved).ok_or(SessionError::Damaged("it names no user"))
    }

    /// Forgets a saved session.
    ///
    /// # Errors
    ///
    /// [`SessionError::NoSaved`].
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the saved session may be there or not.
    pub async fn remove_saved(&self, caller: &Caller, id: &str) -> Result<(), SessionError> {
        self.may_have(caller)?;
        let (saved, ..) = self.saved(caller, id).await?;
        let store = self.store()?;
        blocking(move || store.remove_saved(&saved)).await.map_err(SessionError::of_io)
    }

    /// Reads a saved session of the caller's.
    pub(crate) async fn saved(
        &self,
        caller: &Caller,
        id: &str,
    ) -> Result<(SavedId, Record, Vec<u8>), SessionError> {
        let store = self.store()?;
        let missing = || SessionError::NoSaved(id.chars().take(100).collect());
        let saved: SavedId = id.parse().map_err(|_| missing())?;
        if !store.may_be_of(&saved, caller.user()) {
            return Err(missing());
        }
        let wanted = saved.clone();
        let (record, screen) = blocking(move || store.saved(&wanted)).await?;
        if record.user != caller.user().as_str() {
            return Err(missing());
        }
        Ok((saved, record, screen))
    }
}

/// Of one caller.
const BOUNDS: SavedBounds = SavedBounds { count: 256, bytes: 1 << 30 };
