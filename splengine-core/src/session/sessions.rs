use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::auth::{Access, Caller, Scope};
use crate::error::Field;
use crate::execute::ExecuteError;
use crate::ids::{IntoId, SessionId};
use crate::run::{Runner, SessionPlace};
use crate::session::input_handle::type_in;
use crate::session::live_session::LiveSession;
use crate::session::record::Record;
use crate::session::registry::Registry;
use crate::session::store::Store;
use crate::session::validate::checked_name;
use crate::session::{
    Attach, Attachment, SessionError, SessionInfo, SessionPolicy, SessionRequest,
};

/// Terminal sessions of an engine, as a [`Caller`] may use them: their own, with no more than
/// [`Scope::Watch`] only to watch, and as a guest the one that was shared with them. Got from
/// [`Engine::sessions`](crate::Engine::sessions); cheap to clone. These are sessions of the engine;
/// the trait [`Session`](crate::Session) is the program in a terminal that one of them runs.
///
/// # Errors
///
/// Every method that names a session fails with [`SessionError::NoSession`] when there is none of this
/// id, or it is another caller's, and with [`SessionError::Forbidden`] when the caller is no guest and
/// has neither [`Scope::Sessions`] nor [`Scope::Watch`]. What only an owner may do also fails with
/// [`SessionError::Forbidden`] for guests, and for callers with no more than [`Scope::Watch`].
///
/// ```
/// use splengine_core::{Caller, Engine, LocalExecutor, SessionRequest};
/// use splengine_core::auth::Access;
/// use splengine_core::session::{Attach, Update};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
/// let alice = Caller::new("alice")?.with_all_scopes();
/// let request = SessionRequest::new().command("echo 'hello world'");
/// let session = engine.sessions().create(&alice, request).await?;
/// let mut attachment =
///     engine.sessions().attach(&alice, &session.id, Attach::new(Access::Control))?;
/// while let Some(update) = attachment.next().await {
///     if let Update::Exit(status) = update {
///         println!("{status:?}");
///     }
/// }
/// assert_eq!(engine.sessions().screen(&alice, &session.id).await?.text(), "hello world");
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
    pub(crate) fn new(
        runner: Arc<Runner>,
        policy: SessionPolicy,
        store: Option<Arc<Store>>,
    ) -> Self {
        let registry = Arc::new(Registry::new(policy, store, &runner.memory));
        Self { runner, registry }
    }

    /// Starts a session for `caller`. It runs until its program ends, whether clients are attached or
    /// not. With a [store](crate::session::SessionPolicy::store) it is stored before this returns.
    ///
    /// ```
    /// use splengine_core::terminal::Size;
    /// use splengine_core::{Caller, Engine, LocalExecutor, SessionRequest};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
    /// # let alice = Caller::new("alice")?.with_all_scopes();
    /// let sessions = engine.sessions();
    /// let request = SessionRequest::new().name("build").size(Size::clamped(120, 40));
    /// let session = sessions.create(&alice, request).await?;
    /// assert_eq!(sessions.get(&alice, &session.id)?.name.as_deref(), Some("build"));
    /// sessions.end(&alice, &session.id).await?;
    /// assert!(sessions.list(&alice).is_empty());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`SessionError::Forbidden`] for guests and callers without [`Scope::Sessions`];
    /// [`SessionError::Malformed`]; [`SessionError::Start`] when the command is refused or the program
    /// can't be started; [`SessionError::CallerLimit`], [`SessionError::Full`],
    /// [`SessionError::InputFull`], [`SessionError::CallerScreens`] and [`SessionError::ScreensFull`]
    /// at the bounds of the [policy](SessionPolicy); [`SessionError::Draining`]. For a session that is
    /// made from another also [`SessionError::NoSaved`] or [`SessionError::NoSession`],
    /// [`SessionError::NoStore`], [`SessionError::Damaged`], [`SessionError::Newer`] and
    /// [`SessionError::Busy`]. Then nothing of the request is left.
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
    /// [`SessionError::Forbidden`] for guests and callers without [`Scope::Sessions`].
    pub fn check_create(&self, caller: &Caller) -> Result<(), SessionError> {
        self.may_have(caller)
    }

    /// Refuses a caller who may not rename, save or share this session: for adapters, before they
    /// read the body of a request.
    ///
    /// # Errors
    ///
    /// [`SessionError::NoSession`], [`SessionError::Forbidden`] for all but the owner with
    /// [`Scope::Sessions`].
    pub fn check_change(
        &self,
        caller: &Caller,
        id: impl IntoId<SessionId>,
    ) -> Result<(), SessionError> {
        self.find_own(caller, &self.id(caller, id)?).map(drop)
    }

    /// Refuses a caller who may not [type](Self::input) in this session: for adapters, before they
    /// read the body of a request.
    ///
    /// # Errors
    ///
    /// [`SessionError::NoSession`], [`SessionError::Forbidden`] for callers who may only look,
    /// [`SessionError::Ended`].
    pub fn check_input(
        &self,
        caller: &Caller,
        id: impl IntoId<SessionId>,
    ) -> Result<(), SessionError> {
        self.find_for_typing(caller, &self.id(caller, id)?).map(drop)
    }

    /// Returns whether there is a [store](crate::session::SessionPolicy::store): for saving, loading and
    /// recording.
    #[must_use]
    pub fn are_kept(&self) -> bool {
        self.registry.store.is_some()
    }

    /// Returns the caller's sessions, the newest first; for a guest the one shared with them. Empty for
    /// a caller with neither [`Scope::Sessions`] nor [`Scope::Watch`].
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
    /// [`SessionError::NoSession`], [`SessionError::Forbidden`].
    pub fn get(
        &self,
        caller: &Caller,
        id: impl IntoId<SessionId>,
    ) -> Result<SessionInfo, SessionError> {
        let id = &self.id(caller, id)?;
        match self.find(caller, id)?.0 {
            FoundSession::LiveSession(live) => Ok(live.info()),
            FoundSession::Lost(record) => record.info().ok_or_else(|| no_session(id)),
        }
    }

    /// Sets the name of a session; `None` removes it.
    ///
    /// # Errors
    ///
    /// [`SessionError::NoSession`]; [`SessionError::Forbidden`] for guests and callers with only
    /// [`Scope::Watch`]; [`SessionError::Malformed`] for an invalid name.
    pub fn rename(
        &self,
        caller: &Caller,
        id: impl IntoId<SessionId>,
        name: Option<String>,
    ) -> Result<SessionInfo, SessionError> {
        let name = checked_name(name)?;
        let id = &self.id(caller, id)?;
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

    /// Attaches a client. It gets no more than the caller's own access: [`Access::Control`] is lowered
    /// without an error to what a share gives, and to [`Access::View`] for a caller with only
    /// [`Scope::Watch`]; [`Attachment::access`] is what it got.
    ///
    /// # Errors
    ///
    /// [`SessionError::NoSession`], [`SessionError::Forbidden`]; [`SessionError::Ended`] for a session
    /// that was lost with its engine; [`SessionError::ClientsFull`] when too many clients are attached.
    pub fn attach(
        &self,
        caller: &Caller,
        id: impl IntoId<SessionId>,
        attach: Attach,
    ) -> Result<Attachment, SessionError> {
        let (found, right) = self.find(caller, &self.id(caller, id)?)?;
        let FoundSession::LiveSession(live) = found else { return Err(SessionError::Ended) };
        let access = match right {
            Right::Own => attach.access,
            Right::See(granted) => attach.access.min(granted),
        };
        Attachment::new(&live, caller, access, attach)
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
    /// # let alice = Caller::new("alice")?.with_all_scopes();
    /// let sessions = engine.sessions();
    /// let session = sessions.create(&alice, SessionRequest::new().command("head -n 1")).await?;
    /// let id = &session.id;
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
    /// [`SessionError::NoSession`], [`SessionError::Forbidden`] for callers who may only look;
    /// [`SessionError::Ended`] when the program has ended, which may be after a part of `data` was
    /// typed.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, a part of `data` may have been typed.
    pub async fn input(
        &self,
        caller: &Caller,
        id: impl IntoId<SessionId>,
        data: Bytes,
    ) -> Result<(), SessionError> {
        let live = self.find_for_typing(caller, &self.id(caller, id)?)?;
        live.state().touch();
        type_in(&live, 0, data).await
    }

    /// Ends a session's program and forgets the session, or forgets one whose program has ended
    /// or was lost. Returns when nothing of it runs.
    ///
    /// # Errors
    ///
    /// [`SessionError::NoSession`], [`SessionError::Forbidden`] for guests and callers with only
    /// [`Scope::Watch`].
    ///
    /// # Cancel safety
    ///
    /// The end continues when the future is dropped.
    pub async fn end(
        &self,
        caller: &Caller,
        id: impl IntoId<SessionId>,
    ) -> Result<(), SessionError> {
        let found = self.find_own(caller, &self.id(caller, id)?)?;
        let registry = Arc::clone(&self.registry);
        let ending = tokio::spawn(async move {
            match found {
                FoundSession::LiveSession(live) => {
                    live.discard();
                    live.end().await;
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

    /// Where a run in this session starts, and with which variables; an id is what
    /// [`into_id`](IntoId::into_id) gave.
    pub(crate) fn place_of(
        &self,
        caller: &Caller,
        id: Result<SessionId, String>,
    ) -> Result<SessionPlace, SessionError> {
        self.may_look(caller)?;
        let id = id.map_err(SessionError::NoSession)?;
        let FoundSession::LiveSession(live) = self.find_own(caller, &id)? else {
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
            Some(guest) => (guest.session == *id && self.is_share_valid(caller))
                .then_some(Right::See(guest.access)),
            None if caller.user().as_str() != owner => None,
            None if caller.may(Scope::Sessions) => Some(Right::Own),
            None => caller.may(Scope::Watch).then_some(Right::See(Access::View)),
        }
    }

    /// The id of a session that `caller` asks for, if they may ask for any.
    pub(super) fn id(
        &self,
        caller: &Caller,
        id: impl IntoId<SessionId>,
    ) -> Result<SessionId, SessionError> {
        self.may_look(caller)?;
        id.into_id().map_err(SessionError::NoSession)
    }

    fn may_look(&self, caller: &Caller) -> Result<(), SessionError> {
        match caller.guest().is_some() || caller.may(Scope::Watch) {
            true => Ok(()),
            false => self.may_have(caller),
        }
    }

    pub(crate) fn find(
        &self,
        caller: &Caller,
        id: &SessionId,
    ) -> Result<(FoundSession, Right), SessionError> {
        self.may_look(caller)?;
        let registry = &self.registry;
        let (found, owner) = match registry.live(id) {
            Some(live) => {
                let owner = live.user.to_string();
                (FoundSession::LiveSession(live), owner)
            }
            None => {
                let record = registry.lost(id).ok_or_else(|| no_session(id))?;
                let owner = record.user.clone();
                (FoundSession::Lost(record), owner)
            }
        };
        let right = self.right_to(caller, id, &owner).ok_or_else(|| no_session(id))?;
        Ok((found, right))
    }

    pub(super) fn find_own(
        &self,
        caller: &Caller,
        id: &SessionId,
    ) -> Result<FoundSession, SessionError> {
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

fn no_session(id: &SessionId) -> SessionError {
    SessionError::NoSession(id.to_string())
}
