//! The screen and the recording of a session, for callers that are not attached.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::auth::Caller;
use crate::blocking::blocking;
use crate::ids::{IntoId, SessionId};
use crate::quota::CallerPlace;
use crate::screen::Screen;
use crate::session::SessionError;
use crate::session::bounds::{IoMemory, ReadTurn, cells_bytes, screen_bytes, snapshot_bytes};
use crate::session::live_session::LiveSession;
use crate::session::render_pool::Painted;
use crate::session::replay::{Played, Replay};
use crate::session::sessions::{FoundSession, Sessions};
use crate::session::stored::{StoredScreen, StoredSession};
use crate::terminal::Size;

/// A session's screen at one moment. It counts against the memory for what its caller
/// [reads](crate::session::SessionPolicy::max_read_bytes) until the last clone of it is dropped.
#[derive(Debug, Clone)]
pub struct ScreenShot {
    pub(crate) size: Size,
    pub(crate) text: String,
    pub(crate) ansi: Bytes,
    /// What it takes, of the share of who asked for it.
    _memory: Arc<IoMemory>,
}

impl ScreenShot {
    /// What `memory` was reserved for.
    pub(crate) fn of(screen: &Screen, mut memory: IoMemory) -> Self {
        let (cols, rows) = screen.size();
        let (text, mut ansi) = (screen.text(), screen.snapshot());
        ansi.shrink_to_fit();
        memory.shrink(text.capacity() + ansi.len());
        let (size, ansi) = (Size::clamped(cols, rows), ansi.into());
        Self { size, text, ansi, _memory: Arc::new(memory) }
    }

    /// Returns the size of the screen.
    #[must_use]
    pub fn size(&self) -> Size {
        self.size
    }

    /// Returns its lines, without blanks at their ends and without empty lines at the end.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Escape bytes that draw it with everything above it, on a terminal of its size.
    #[must_use]
    pub fn ansi(&self) -> Bytes {
        self.ansi.clone()
    }
}

/// A recording in asciicast, version 2.
#[derive(Debug, Clone)]
pub struct RecordingFile {
    pub(crate) file: Arc<std::fs::File>,
    pub(crate) length: u64,
    /// Given back once no clone is left.
    pub(crate) _place: Arc<CallerPlace>,
}

impl RecordingFile {
    /// Returns its length in bytes when it was asked for; it may grow.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Reads at most `most` bytes from `offset` on; none at its end.
    ///
    /// # Errors
    ///
    /// When the file can't be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn read(&self, offset: u64, most: usize) -> io::Result<Bytes> {
        let file = Arc::clone(&self.file);
        let left = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut buffer = vec![0; most.min(left)];
        blocking(move || {
            let length = file.read_at(&mut buffer, offset)?;
            buffer.truncate(length);
            Ok(buffer.into())
        })
        .await
    }
}

impl Sessions {
    /// Returns the screen as it is now. Its memory is reserved, like that of all screens that are drawn
    /// for clients, from before it is drawn until it is dropped.
    ///
    /// ```
    /// use splengine_core::{Caller, Engine, LocalExecutor, SessionRequest};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
    /// # let alice = Caller::new("alice")?.with_all_scopes();
    /// let sessions = engine.sessions();
    /// let session = sessions.create(&alice, SessionRequest::new()).await?;
    /// let screen = sessions.screen(&alice, &session.id).await?;
    /// assert_eq!((screen.size().cols(), screen.size().rows()), (80, 24));
    /// // On any terminal of that size this draws the same.
    /// let bytes = screen.ansi();
    /// # drop(bytes);
    /// # sessions.end(&alice, &session.id).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`SessionError::NoSession`], [`SessionError::Forbidden`], [`SessionError::Busy`]. For a session
    /// that was lost with its engine also [`SessionError::NoSaved`] when no screen of it was kept, and
    /// [`SessionError::Damaged`] or [`SessionError::Newer`] when that can't be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn screen(
        &self,
        caller: &Caller,
        id: impl IntoId<SessionId>,
    ) -> Result<ScreenShot, SessionError> {
        let registry = &self.registry;
        let user = caller.accounted_user();
        match self.find(caller, &self.id(caller, id)?)?.0 {
            FoundSession::LiveSession(live) => {
                let cells = live.with_screen(false, |_, painted| painted.screen.cells()).await;
                let mut memory = registry.io.read_memory(user);
                memory.resize(snapshot_bytes(cells)).await?;
                let look = |_: &LiveSession, painted: &mut Painted| {
                    ScreenShot::of(&painted.screen, memory)
                };
                Ok(live.with_screen(true, look).await)
            }
            FoundSession::Lost(record) => {
                let StoredSession { record, screen, turn } =
                    self.state_of(user, &record.session_id).await?;
                let (size, scrollback) = (record.size(), registry.policy.scrollback);
                let mut memory = registry.io.read_memory(user);
                memory.resize(screen_bytes(size, scrollback)).await?;
                let next = |(stored, ..): &mut (StoredScreen, _, _)| stored.next_piece();
                let look = |drawn: Screen, (_, turn, memory)| (drawn, memory, turn);
                let source = (screen, turn, memory);
                let drawn = registry.render_pool.redrawn(size, scrollback, source, next, look);
                let (drawn, memory, turn) = drawn.await?;
                self.shot_of(drawn, memory, turn).await
            }
        }
    }

    /// Returns the screen as it was at this time after the beginning of its recording.
    ///
    /// # Errors
    ///
    /// [`SessionError::NoSession`], [`SessionError::Forbidden`] for guests and callers with only
    /// [`Scope::Watch`](crate::Scope::Watch), [`SessionError::NoRecording`], [`SessionError::Busy`];
    /// [`SessionError::Internal`] when the recording can't be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn screen_at(
        &self,
        caller: &Caller,
        id: impl IntoId<SessionId>,
        at: Duration,
    ) -> Result<ScreenShot, SessionError> {
        let id = &self.id(caller, id)?;
        self.find_own(caller, id)?;
        let registry = &self.registry;
        let user = caller.accounted_user();
        let turn = registry.io.turn(user).await?;
        let (cast, keyframes) = self.recording_files(caller, id).await?;
        let scrollback = registry.policy.scrollback;
        let open = move || Ok((Replay::open(cast, keyframes, at, scrollback)?, turn));
        let (mut replay, mut turn) = blocking(open).await.map_err(SessionError::of_io)?;
        let mut memory = registry.io.read_memory(user);
        loop {
            let mut playing = Some((replay, turn, memory));
            let step = move || {
                let played = playing.as_mut()?.0.step().transpose()?;
                let playing = playing.take()?;
                Some(played.map(|played| (played, playing)))
            };
            let (played, playing) =
                registry.render_pool.run_sliced(step).await.map_err(SessionError::of_io)?;
            (replay, turn, memory) = playing;
            match played {
                Played::Needs(bytes) => {
                    memory.resize(bytes).await?;
                    replay.grant(bytes);
                }
                Played::Whole => {
                    return self.shot_of(replay.into_screen(), memory, turn).await;
                }
            }
        }
    }

    /// What is shown of `screen`, for which there is `memory`.
    async fn shot_of(
        &self,
        screen: Screen,
        mut memory: IoMemory,
        turn: ReadTurn,
    ) -> Result<ScreenShot, SessionError> {
        let cells = screen.cells();
        memory.resize(cells_bytes(cells) + snapshot_bytes(cells)).await?;
        let mut drawn = Some((screen, memory, turn));
        let look = move || {
            let (screen, memory, _turn) = drawn.take()?;
            Some(ScreenShot::of(&screen, memory))
        };
        Ok(self.registry.render_pool.run_sliced(look).await)
    }

    /// Returns the recording so far.
    ///
    /// ```
    /// use splengine_core::auth::Access;
    /// use splengine_core::session::{Attach, SessionPolicy};
    /// use splengine_core::{Caller, Engine, LocalExecutor, SessionRequest};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = tempfile::tempdir()?;
    /// let policy = SessionPolicy::new().store(store.path());
    /// let engine = Engine::builder(LocalExecutor::new(".")?).sessions(policy).build()?;
    /// let alice = Caller::new("alice")?.with_all_scopes();
    /// let sessions = engine.sessions();
    /// let session = sessions.create(&alice, SessionRequest::new().command("echo hello")).await?;
    /// let id = &session.id;
    /// let mut client = sessions.attach(&alice, id, Attach::new(Access::View))?;
    /// while client.next().await.is_some() {}
    ///
    /// let recording = sessions.recording(&alice, id).await?;
    /// let cast = String::from_utf8(recording.read(0, 1 << 20).await?.to_vec())?;
    /// assert!(cast.lines().any(|event| event.contains("hello")));
    /// # sessions.end(&alice, id).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`SessionError::NoSession`], [`SessionError::Forbidden`] for guests and callers with only
    /// [`Scope::Watch`](crate::Scope::Watch), [`SessionError::NoRecording`]; [`SessionError::Busy`]
    /// when as many are open as may be: 256 of all callers, of which a caller may have half of what the
    /// others leave.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn recording(
        &self,
        caller: &Caller,
        id: impl IntoId<SessionId>,
    ) -> Result<RecordingFile, SessionError> {
        let id = self.id(caller, id)?;
        self.find_own(caller, &id)?;
        let place = Arc::new(self.registry.io.recording_place(caller.accounted_user())?);
        let (cast, _) = self.recording_files(caller, &id).await?;
        let length = cast.metadata().map_err(SessionError::of_io)?.len();
        Ok(RecordingFile { file: Arc::new(cast), length, _place: place })
    }

    async fn recording_files(
        &self,
        caller: &Caller,
        id: &SessionId,
    ) -> Result<(std::fs::File, std::fs::File), SessionError> {
        let found = self.find_own(caller, id)?;
        let store = self.store().map_err(|_| SessionError::NoRecording)?;
        let id = id.clone();
        if let FoundSession::LiveSession(live) = found {
            live.write_recording().await;
        }
        let opened = blocking(move || store.session(&id)?.recording()).await;
        opened.map_err(|_| SessionError::NoRecording)
    }
}
