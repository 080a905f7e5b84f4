use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::auth::Access;
use crate::auth::Secret;
use crate::auth::{Caller, Scope};
use crate::blocking::blocking;
use crate::error::Field;
use crate::execute::ExecuteError;
use crate::ids::{SessionId, ShareId};
use crate::run::{Runner, SessionPlace};
use crate::screen::Screen;
use crate::session::attach::{Attach, Attachment};
use crate::session::bounds::{IoMemory, ReadTurn, cells_bytes, screen_bytes, snapshot_bytes};
use crate::session::input_handle::type_in;
use crate::session::live_session::LiveSession;
use crate::session::recording::Recorder;
use crate::session::registry::{self, Registry};
use crate::session::render::Painted;
use crate::session::replay::{Played, Replay};
use crate::session::saved::Source;
use crate::session::share::Which;
use crate::session::store::{Record, Store};
use crate::session::stored::StoredScreen;
use crate::session::validate::checked_name;
use crate::session::{
    RecordingFile, ScreenShot, SessionError, SessionInfo, SessionPolicy, SessionRequest, ShareInfo,
};

/// Terminal sessions of an engine, as a [`Caller`] may use them: their own, with no more than
/// [`Scope::Watch`] only to watch, and as a guest the one that was shared with them. Got from
/// [`Engine::sessions`](crate::Engine::sessions); cheap to clone.
///
/// ```
/// use splengine_core::{Caller, Engine, LocalExecutor, SessionRequest};
/// use splengine_core::auth::Access;
/// use splengine_core::session::{Attach, Update};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
/// let alice = Caller::with_all_scopes("alice".parse()?);
/// let request = SessionRequest::new().command("echo 'hello world'");
/// let session = engine.sessions().create(&alice, request).await?;
/// let mut attachment =
///     engine.sessions().attach(&alice, session.id.as_str(), Attach::new(Access::Control))?;
/// while let Some(update) = attachment.next().await {
///     if let Update::Exit(status) = update {
///         println!("{status:?}");
///     }
/// }
/// assert_eq!(engine.sessions().screen(&alice, session.id.as_str()).await?.text(), "hello world");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Sessions {
    pub(crate) runner: Arc<Runner>,
    pub(crate) registry: Arc<Registry>,
}

/// What a caller may do with a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Right {
    See(Access),
    Own,
}

pub(crate) enum FoundSession {
    LiveSession(Arc<LiveSession>),
    Lost(Arc<Record>),
}

impl Sessions {
    pub(crate) fn new(runner: Arc<Runner>, policy: SessionPolicy) -> Self {
        let registry = Arc::new(Registry::new(policy, &runner.memory));
        Self { runner, registry }
    }

    /// Starts a session for `caller`. It runs until its program ends, whoever is attached. With a
    /// [store](crate::session::SessionPolicy::store) it is written down before this returns.
    ///
    /// ```
    /// use splengine_core::terminal::Size;
    /// use splengine_core::{Caller, Engine, LocalExecutor, SessionRequest};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
    /// # let alice = Caller::with_all_scopes("alice".parse()?);
    /// let sessions = engine.sessions();
    /// let request = SessionRequest::new().name("build").size(Size::clamped(120, 40));
    /// let session = sessions.create(&alice, request).await?;
    /// assert_eq!(sessions.get(&alice, session.id.as_str())?.name.as_deref(), Some("build"));
    /// sessions.end(&alice, session.id.as_str()).await?;
    /// assert!(sessions.list(&alice).is_empty());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`SessionError`] when the request can't be met. Then nothing of it is left.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves either no session or a whole one.
    pub async fn create(
        &self,
        caller: &Caller,
        request: SessionRequest,
    ) -> Result<SessionInfo, SessionError> {
        self.may_have(caller)?;
        let place = self.registry.slot(caller.user())?;
        self.registry.forget_surplus(caller.user()).await;
        let sessions = self.clone();
        let caller = caller.clone();
        // In a task of its own, so that nobody's dropped future leaves it half-made.
        let made = tokio::spawn(async move { sessions.make(&caller, request, place).await });
        made.await.map_err(|error| SessionError::of_io(io::Error::other(error)))?
    }

    /// Refuses a caller who may not [create](Self::create) sessions: for adapters, before they read
    /// the body of a request.
    ///
    /// # Errors
    ///
    /// [`SessionError::Forbidden`].
    pub fn check_create(&self, caller: &Caller) -> Result<(), SessionError> {
        self.may_have(caller)
    }

    /// Refuses a caller who may not rename, save or share this session: for adapters, before they
    /// read the body of a request.
    ///
    /// # Errors
    ///
    /// [`SessionError::NoSession`], [`SessionError::Forbidden`] for guests and whoever may only
    /// look.
    pub fn check_change(&self, caller: &Caller, id: &str) -> Result<(), SessionError> {
        self.find_own(caller, id).map(drop)
    }

    /// Refuses a caller who may not [type](Self::input) in this session: for adapters, before they
    /// read the body of a request.
    ///
    /// # Errors
    ///
    /// [`SessionError::NoSession`], [`SessionError::Forbidden`], [`SessionError::Ended`].
    pub fn check_input(&self, caller: &Caller, id: &str) -> Result<(), SessionError> {
        self.find_for_typing(caller, id).map(drop)
    }

    /// Returns whether there is a [store](crate::session::SessionPolicy::store): for saving, loading and
    /// recording.
    #[must_use]
    pub fn are_kept(&self) -> bool {
        self.registry.store.is_some()
    }

    /// The caller's sessions, the newest first; for a guest the one shared with them.
    #[must_use]
    pub fn list(&self, caller: &Caller) -> Vec<SessionInfo> {
        let registry = &self.registry;
        let mut all: Vec<SessionInfo> = registry
            .all_live()
            .iter()
            .filter(|live| self.right_to(caller, &live.id, live.user.as_str()).is_some())
            .map(|live| live.info())
            .chain(registry.all_lost().iter().filter_map(|record| {
                let id: SessionId = record.session_id.parse().ok()?;
                self.right_to(caller, &id, &record.user)?;
                record.info()
            }))
            .collect();
        all.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        all
    }

    /// Returns one session.
    ///
    /// # Errors
    ///
    /// [`SessionError::NoSession`].
    pub fn get(&self, caller: &Caller, id: &str) -> Result<SessionInfo, SessionError> {
        match self.find(caller, id)?.0 {
            FoundSession::LiveSession(live) => Ok(live.info()),
            FoundSession::Lost(record) => record.info().ok_or_else(|| no_session(id)),
        }
    }

    /// Gives a session another name; `None` takes it away.
    ///
    /// # Errors
    ///
    /// [`SessionError::NoSession`], [`SessionError::Forbidden`] for guests, and
    /// [`SessionError::Malformed`] for a name that is too long.
    pub fn rename(
        &self,
        caller: &Caller,
        id: &str,
        name: Option<String>,
    ) -> Result<SessionInfo, SessionError> {
        let name = checked_name(name)?;
        match self.find_own(caller, id)? {
            FoundSession::LiveSession(live) => {
                live.state().name = name;
                live.wake();
                Ok(live.info())
            }
            FoundSession::Lost(record) => {
                let mut info = record.info().ok_or_else(|| no_session(id))?;
                info.name.clone_from(&name);
                self.registry.rename_lost(&info.id, name);
                Ok(info)
            }
        }
    }

    /// Attaches a client.
    ///
    /// # Errors
    ///
    /// [`SessionError::NoSession`], [`SessionError::Ended`] for one that was lost with its engine,
    /// [`SessionError::ClientsFull`] when too many are attached.
    pub fn attach(
        &self,
        caller: &Caller,
        id: &str,
        attach: Attach,
    ) -> Result<Attachment, SessionError> {
        let (found, right) = self.find(caller, id)?;
        let FoundSession::LiveSession(live) = found else { return Err(SessionError::Ended) };
        let access = match right {
            Right::Own => attach.access,
            Right::See(granted) => attach.access.min(granted),
        };
        Attachment::new(&live, caller, access, attach)
    }

    /// The screen as it is now. Its memory is reserved, as that of all screens that are drawn for
    /// clients, before it is drawn, and until it is dropped.
    ///
    /// ```
    /// use splengine_core::{Caller, Engine, LocalExecutor, SessionRequest};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
    /// # let alice = Caller::with_all_scopes("alice".parse()?);
    /// let sessions = engine.sessions();
    /// let session = sessions.create(&alice, SessionRequest::new()).await?;
    /// let screen = sessions.screen(&alice, session.id.as_str()).await?;
    /// assert_eq!((screen.size().cols(), screen.size().rows()), (80, 24));
    /// // On any terminal of that size this draws the same.
    /// let bytes = screen.ansi();
    /// # drop(bytes);
    /// # sessions.end(&alice, session.id.as_str()).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`SessionError::NoSession`], [`SessionError::Busy`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn screen(&self, caller: &Caller, id: &str) -> Result<ScreenShot, SessionError> {
        let registry = &self.registry;
        let user = caller.accounted_user();
        match self.find(caller, id)?.0 {
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
                let Source { record, screen, turn } =
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

    /// The screen as it was so long after the beginning of a recording.
    ///
    /// # Errors
    ///
    /// [`SessionError::NoSession`], [`SessionError::NoRecording`], [`SessionError::Busy`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn screen_at(
        &self,
        caller: &Caller,
        id: &str,
        at: Duration,
    ) -> Result<ScreenShot, SessionError> {
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

    /// The recording so far.
    ///
    /// ```
    /// use splengine_core::auth::Access;
    /// use splengine_core::session::{Attach, SessionPolicy};
    /// use splengine_core::{Caller, Engine, LocalExecutor, SessionRequest};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = tempfile::tempdir()?;
    /// let policy = SessionPolicy::new().store(store.path())?;
    /// let engine = Engine::builder(LocalExecutor::new(".")?).sessions(policy).build()?;
    /// let alice = Caller::with_all_scopes("alice".parse()?);
    /// let sessions = engine.sessions();
    /// let session = sessions.create(&alice, SessionRequest::new().command("echo hello")).await?;
    /// let id = session.id.as_str();
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
    /// [`SessionError::NoSession`], [`SessionError::Forbidden`] for guests,
    /// [`SessionError::NoRecording`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn recording(
        &self,
        caller: &Caller,
        id: &str,
    ) -> Result<RecordingFile, SessionError> {
        let (cast, _) = self.recording_files(caller, id).await?;
        let length = cast.metadata().map_err(SessionError::of_io)?.len();
        Ok(RecordingFile { file: Arc::new(cast), length })
    }

    async fn recording_files(
        &self,
        caller: &Caller,
        id: &str,
    ) -> Result<(std::fs::File, std::fs::File), SessionError> {
        let found = self.find_own(caller, id)?;
        let store = self.store().map_err(|_| SessionError::NoRecording)?;
        let id: SessionId = id.parse().map_err(|_| no_session(id))?;
        blocking(move || {
            if let FoundSession::LiveSession(live) = &found {
                live.record(Recorder::flush);
            }
            store.session(&id)?.recording()
        })
        .await
        .map_err(|_| SessionError::NoRecording)
    }

    /// Types `data` on a session's terminal.
    ///
    /// ```
    /// use std::time::Duration;
    /// use splengine_core::{Caller, Engine, LocalExecutor, SessionRequest};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
    /// # let alice = Caller::with_all_scopes("alice".parse()?);
    /// let sessions = engine.sessions();
    /// let session = sessions.create(&alice, SessionRequest::new().command("head -n 1")).await?;
    /// let id = session.id.as_str();
    /// sessions.input(&alice, id, "hello\n".into()).await?;
    /// // Without a client: what was printed is asked for.
    /// let mut from = None::<(String, u64)>;
    /// let is_over = loop {
    ///     let at = from.as_ref().map(|(epoch, offset)| (&epoch[..], *offset));
    ///     let printed = sessions.read(&alice, id, at, 4096, Duration::from_secs(10)).await?;
    ///     if printed.is_over {
    ///         break true;
    ///     }
    ///     from = Some((printed.epoch, printed.next));
    /// };
    /// assert!(is_over && sessions.screen(&alice, id).await?.text().starts_with("hello"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`SessionError::NoSession`], [`SessionError::Forbidden`], [`SessionError::Ended`].
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, a part of `data` may have been typed.
    pub async fn input(&self, caller: &Caller, id: &str, data: Bytes) -> Result<(), SessionError> {
        let live = self.find_for_typing(caller, id)?;
        live.state().touch();
        type_in(&live, 0, data).await
    }

    /// Ends a session's program and forgets the session, or forgets one whose program has ended
    /// or was lost. Returns when nothing of it runs.
    ///
    /// # Errors
    ///
    /// [`SessionError::NoSession`], [`SessionError::Forbidden`] for guests.
    ///
    /// # Cancel safety
    ///
    /// The end takes its course when the future is dropped.
    pub async fn end(&self, caller: &Caller, id: &str) -> Result<(), SessionError> {
        let found = self.find_own(caller, id)?;
        let registry = Arc::clone(&self.registry);
        let ending = tokio::spawn(async move {
            match found {
                FoundSession::LiveSession(live) => {
                    live.discard();
                    registry::end(&live).await;
                    registry.forget_whole(live).await;
                }
                FoundSession::Lost(record) => {
                    if let Ok(id) = record.session_id.parse() {
                        registry.forget(&id).await;
                    }
                }
            }
        });
        ending.await.map_err(|error| SessionError::of_io(io::Error::other(error)))
    }

    /// Gives away the right to one session. The ticket works once, within `expires_in` (at most 30
    /// days); whoever showed it keeps the right until then, or until it is
    /// [taken back](Self::take_back_share).
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
    /// # let alice = Caller::with_all_scopes("alice".parse()?);
    /// let sessions = engine.sessions();
    /// let session = sessions.create(&alice, SessionRequest::new().command("cat")).await?;
    /// let id = session.id.as_str();
    /// let (share, ticket) = sessions.share(&alice, id, Access::View, Duration::from_secs(3600))?;
    ///
    /// let guest = sessions.redeem(&ticket)?;
    /// let client = sessions.attach(&guest, id, Attach::new(Access::Control))?;
    /// assert_eq!(client.access(), Access::View);
    /// assert!(sessions.redeem(&ticket).is_err(), "a ticket works once");
    ///
    /// sessions.take_back_share(&alice, id, Some(share.id.as_str()))?;
    /// assert!(!sessions.stands(&guest));
    /// # sessions.end(&alice, id).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`SessionError::NoSession`], [`SessionError::Forbidden`] for guests,
    /// [`SessionError::Malformed`], [`SessionError::CallerLimit`].
    pub fn share(
        &self,
        caller: &Caller,
        id: &str,
        access: Access,
        expires_in: Duration,
    ) -> Result<(ShareInfo, Secret), SessionError> {
        let FoundSession::LiveSession(live) = self.find_own(caller, id)? else {
            return Err(SessionError::Ended);
        };
        if expires_in.is_zero() || expires_in > MAX_SHARE_LIFETIME {
            let problem = format!("must be from 1 to {} ms", MAX_SHARE_LIFETIME.as_millis());
            return Err(SessionError::Malformed { field: Field::ExpiresIn, problem });
        }
        self.registry.shares.share(caller.user(), &live.id, access, expires_in)
    }

    /// A session's shares.
    ///
    /// # Errors
    ///
    /// [`SessionError::NoSession`], [`SessionError::Forbidden`] for guests.
    pub fn list_shares(&self, caller: &Caller, id: &str) -> Result<Vec<ShareInfo>, SessionError> {
        let FoundSession::LiveSession(live) = self.find_own(caller, id)? else {
            return Ok(Vec::new());
        };
        Ok(self.registry.shares.list(&live.id))
    }

    /// Takes back a share, or all of a session's for `None`, and sends away whom it let in.
    ///
    /// # Errors
    ///
    /// [`SessionError::NoShare`], [`SessionError::NoSession`], [`SessionError::Forbidden`] for
    /// guests.
    pub fn take_back_share(
        &self,
        caller: &Caller,
        id: &str,
        share: Option<&str>,
    ) -> Result<(), SessionError> {
        let share: Option<ShareId> =
            share.map(|id| id.parse().map_err(|_| SessionError::NoShare)).transpose()?;
        let which = share.as_ref().map_or(Which::All, Which::One);
        self.take_back(caller, id, which)
    }

    /// Takes back the share that a ticket stands for which has not been used yet.
    ///
    /// # Errors
    ///
    /// As [`take_back_share`](Self::take_back_share).
    pub fn take_back_ticket(
        &self,
        caller: &Caller,
        id: &str,
        ticket: &Secret,
    ) -> Result<(), SessionError> {
        self.take_back(caller, id, Which::Ticket(ticket))
    }

    fn take_back(&self, caller: &Caller, id: &str, which: Which<'_>) -> Result<(), SessionError> {
        let FoundSession::LiveSession(live) = self.find_own(caller, id)? else {
            return Err(SessionError::NoShare);
        };
        let registry = &self.registry;
        let any = registry.shares.take_back(&live.id, which);
        registry.send_revoked_away(&live);
        if any || matches!(which, Which::All) { Ok(()) } else { Err(SessionError::NoShare) }
    }

    /// A ticket that stands for `caller`, once, for 30 seconds: for a browser's WebSocket, which
    /// can't send a header.
    ///
    /// ```
    /// use splengine_core::{Caller, Engine, LocalExecutor};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
    /// # let alice = Caller::with_all_scopes("alice".parse()?);
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

    /// Returns the caller that shows this ticket. It does not work again.
    ///
    /// # Errors
    ///
    /// [`SessionError::NoShare`].
    pub fn redeem(&self, ticket: &Secret) -> Result<Caller, SessionError> {
        self.registry.shares.redeem(ticket)
    }

    /// Returns whether `caller` is still who they were found to be: a guest is only as long as
    /// their share stands.
    #[must_use]
    pub fn stands(&self, caller: &Caller) -> bool {
        caller.guest().is_none_or(|guest| self.registry.shares.stands(guest))
    }

    /// Where a run in this session starts, and with which variables.
    pub(crate) fn place_of(&self, caller: &Caller, id: &str) -> Result<SessionPlace, SessionError> {
        let FoundSession::LiveSession(live) = self.find_own(caller, id)? else {
            return Err(SessionError::Ended);
        };
        if live.state().end.is_some() {
            return Err(SessionError::Ended);
        }
        let status = live.terminal().status();
        if status.is_outside {
            let problem = "is at present in a directory outside root, where nothing can be run";
            let field = Field::SessionId;
            let problem = problem.to_owned();
            return Err(ExecuteError::Impossible { field, problem }.into());
        }
        let workdir = status.workdir.map(|path| path.to_string_lossy().into_owned());
        let workdir = workdir.or_else(|| live.launch.workdir.clone());
        Ok((live.id.clone(), workdir, live.launch.env.clone()))
    }

    pub(super) fn may_have(&self, caller: &Caller) -> Result<(), SessionError> {
        if caller.guest().is_some() {
            return Err(SessionError::Forbidden(
                "a guest may use the session shared with them only",
            ));
        }
        if !caller.may(Scope::Sessions) {
            return Err(SessionError::Forbidden("this takes the scope `sessions`"));
        }
        Ok(())
    }

    fn right_to(&self, caller: &Caller, id: &SessionId, owner: &str) -> Option<Right> {
        match caller.guest() {
            Some(guest) => {
                (guest.session == *id && self.stands(caller)).then_some(Right::See(guest.access))
            }
            None if caller.user().as_str() != owner => None,
            None if caller.may(Scope::Sessions) => Some(Right::Own),
            None => caller.may(Scope::Watch).then_some(Right::See(Access::View)),
        }
    }

    pub(crate) fn find(
        &self,
        caller: &Caller,
        id: &str,
    ) -> Result<(FoundSession, Right), SessionError> {
        if caller.guest().is_none() && !caller.may(Scope::Watch) {
            self.may_have(caller)?;
        }
        let registry = &self.registry;
        let parsed: SessionId = id.parse().map_err(|_| no_session(id))?;
        let (found, owner) = match registry.live(&parsed) {
            Some(live) => {
                let owner = live.user.to_string();
                (FoundSession::LiveSession(live), owner)
            }
            None => {
                let record = registry.lost(&parsed).ok_or_else(|| no_session(id))?;
                let owner = record.user.clone();
                (FoundSession::Lost(record), owner)
            }
        };
        let right = self.right_to(caller, &parsed, &owner).ok_or_else(|| no_session(id))?;
        Ok((found, right))
    }

    pub(super) fn find_own(&self, caller: &Caller, id: &str) -> Result<FoundSession, SessionError> {
        match self.find(caller, id)? {
            (found, Right::Own) => Ok(found),
            _ => {
                if caller.guest().is_none() {
                    self.may_have(caller)?;
                }
                Err(SessionError::Forbidden("only the owner of a session may do this"))
            }
        }
    }

    pub(super) fn store(&self) -> Result<Arc<Store>, SessionError> {
        self.registry.store.clone().ok_or(SessionError::NoStore)
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}

pub(super) fn no_session(id: &str) -> SessionError {
    SessionError::NoSession(id.chars().take(100).collect())
}

const MAX_SHARE_LIFETIME: Duration = Duration::from_hours(24 * 30);
