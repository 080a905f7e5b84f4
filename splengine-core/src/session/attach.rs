//! A client on a session.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::caller::{Caller, UserName};
use crate::execute::ExitStatus;
use crate::id::random_text;
use crate::session::input::{Numbering, is_reply};
use crate::session::live::{Client, INPUT_BYTES, Known, Live, Typed, Versions};
use crate::session::log::{Cursor, Entry};
use crate::session::{Access, SessionError, SessionInfo, Size};

/// How to attach to a session.
#[derive(Debug, Clone)]
pub struct Attach {
    pub(crate) access: Access,
    pub(crate) resume: Option<(String, u64)>,
    pub(crate) client: Option<String>,
    pub(crate) window: Option<Size>,
    pub(crate) from_start: bool,
}

impl Attach {
    /// To look, or to type as well.
    #[must_use]
    pub fn new(access: Access) -> Self {
        Self { access, resume: None, client: None, window: None, from_start: false }
    }

    /// Goes on where a connection broke: what follows `offset` is given, if the session's epoch is
    /// still this one and it is still kept, else the screen.
    #[must_use]
    pub fn resume(mut self, epoch: impl Into<String>, offset: u64) -> Self {
        self.resume = Some((epoch.into(), offset));
        self
    }

    /// The client that an earlier attachment was for, by its [id](Attachment::client_id): the
    /// numbers of its input go on, and what is left of that attachment is closed.
    #[must_use]
    pub fn client(mut self, id: impl Into<String>) -> Self {
        self.client = Some(id.into());
        self
    }

    /// The size of the client's window.
    #[must_use]
    pub fn window(mut self, size: Size) -> Self {
        self.window = Some(size);
        self
    }

    /// Begins with the screen that a loaded session was loaded with, if nothing printed since is
    /// lost yet.
    #[must_use]
    pub fn from_start(mut self) -> Self {
        self.from_start = true;
        self
    }
}

/// What a client is told, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Update {
    /// What the program printed.
    Output {
        /// How much it had printed before.
        offset: u64,
        /// The bytes; never empty, at most 64 KiB.
        data: Bytes,
    },
    /// The whole screen, in place of all that was told before.
    Snapshot {
        /// How much had been printed.
        offset: u64,
        /// The size that it is for.
        size: Size,
        /// Escape bytes that reset a terminal of any state and draw everything.
        data: Bytes,
    },
    /// The terminal's size from here on.
    Size(Size),
    /// What the program calls itself.
    Title(String),
    /// Who is attached.
    Presence(Vec<ClientInfo>),
    /// Who is in control, by the client's id.
    Control {
        /// `None` when nobody is.
        holder: Option<String>,
        /// Whether it is this client.
        you: bool,
    },
    /// Something to know.
    Notice(Notice),
    /// The program has ended, and everything it printed was told. The last update.
    Exit(ExitStatus),
    /// This client is sent away. The last update.
    Closed(Closed),
}

/// One of a session's clients.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientInfo {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub user: UserName,
    /// What it may do.
    pub access: Access,
    /// Whether it is the one that is told this.
    pub you: bool,
}

/// Something that a client should know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// It was too far behind and gets the screen instead of what it missed.
    Resynced,
    /// The session will be ended unless something happens in it.
    IdleWarning {
        /// In so many seconds.
        seconds: u64,
    },
    /// The session goes on, its recording does not.
    RecordingStopped {
        /// `limit`, `diskFull` or `failed`.
        reason: &'static str,
    },
    /// The engine shuts down.
    Restart,
}

/// Why a client is sent away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Closed {
    /// The session was ended by a limit on its idleness or age.
    Culled,
    /// The share that let it in was taken back, or expired.
    Revoked,
    /// The engine shuts down; whether the program goes on is the engine's setting.
    Restart,
    /// The same client has attached anew.
    Replaced,
}

/// A client on a session. Dropping it detaches; the program runs on.
#[derive(Debug)]
pub struct Attachment {
    live: Arc<Live>,
    key: u64,
    client: String,
    access: Access,
    cursor: Cursor,
    needs_screen: bool,
    seen: Versions,
    first: VecDeque<Update>,
    changed: watch::Receiver<u64>,
    over: bool,
    typist: Typist,
}

/// The hands of an attachment, for another task than the one that waits for its updates. Cheap to
/// clone. It works as long as the attachment does.
#[derive(Debug, Clone)]
pub struct Typist {
    live: Arc<Live>,
    key: u64,
    access: Access,
    positions_told: Arc<AtomicU64>,
}

impl Attachment {
    pub(crate) fn new(
        live: &Arc<Live>,
        caller: &Caller,
        access: Access,
        attach: Attach,
    ) -> Result<Self, SessionError> {
        let Attach { resume, client: name, window, from_start, .. } = attach;
        let changed = live.subscribe();
        let mut state = live.state();
        if state.clients.len() >= live.policy.max_clients {
            let limit = live.policy.max_clients;
            return Err(SessionError::CallerLimit { what: "clients on one session", limit });
        }
        let known = state.know(caller.user(), name, resume.is_some());
        // A connection that broke without a word may still count as attached.
        let broken: Vec<u64> = state
            .clients
            .iter()
            .filter(|(_, client)| client.name == known)
            .map(|(key, _)| *key)
            .collect();
        let mut was_holder = false;
        for key in broken {
            was_holder |= state.holder == Some(key);
            if let Some(client) = state.clients.get_mut(&key) {
                client.closed = Some(Closed::Replaced);
                client.name.clear();
            }
        }
        let cursor = resume
            .filter(|(epoch, _)| *epoch == live.epoch)
            .and_then(|(_, offset)| state.log.cursor_at(offset));
        let start = live.restored.as_ref().filter(|_| from_start && cursor.is_none());
        let start = start.and_then(|(offset, size, data)| {
            let update = Update::Snapshot { offset: *offset, size: *size, data: data.clone() };
            Some((state.log.cursor_at(*offset)?, update))
        });
        let (cursor, first) = match (cursor, start) {
            (Some(cursor), _) => (Some(cursor), VecDeque::new()),
            (None, Some((cursor, update))) => (Some(cursor), VecDeque::from([update])),
            (None, None) => (None, VecDeque::new()),
        };
        let end = state.log.end();
        // Of what is told again, the questions are not asked again, and may yet be answered again.
        let again = if cursor.is_some() { QUESTIONS_TOLD_AGAIN } else { 0 };
        let cursor_queries = state.cursor_queries.saturating_sub(again);
        let key = state.join(Client {
            name: known.clone(),
            user: caller.user().clone(),
            access,
            share: caller.guest().map(|guest| guest.share.clone()),
            window,
            acked: None,
            joined_at: end.offset,
            slow: false,
            notices: VecDeque::new(),
            closed: None,
        });
        if was_holder && access == Access::Control {
            state.give_control(Some(key));
        }
        drop(state);
        live.wake();
        live.resized.notify_one();
        let typist = Typist {
            live: Arc::clone(live),
            key,
            access,
            positions_told: Arc::new(AtomicU64::new(cursor_queries)),
        };
        Ok(Self {
            live: Arc::clone(live),
            key,
            client: known,
            access,
            cursor: cursor.unwrap_or(end),
            needs_screen: cursor.is_none(),
            // Differs from all, so that everything is told once.
            seen: Versions { title: u64::MAX, presence: u64::MAX, control: u64::MAX },
            first,
            changed,
            over: false,
            typist,
        })
    }

    /// The session, as it is now.
    #[must_use]
    pub fn info(&self) -> SessionInfo {
        self.live.info()
    }

    /// What this client may do.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    /// The name of this client, to [attach](Attach::client) with again.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.client
    }

    /// Offsets count within it; it changes when they begin anew.
    #[must_use]
    pub fn epoch(&self) -> &str {
        &self.live.epoch
    }

    /// The offset of what comes next.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.cursor.offset
    }

    /// For typing from another task.
    #[must_use]
    pub fn typist(&self) -> Typist {
        self.typist.clone()
    }

    /// Waits for the next update; `None` after the last.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Update> {
        loop {
            if self.over {
                return None;
            }
            self.changed.borrow_and_update();
            if let Some(update) = self.ready() {
                return Some(update);
            }
            self.changed.changed().await.ok()?;
        }
    }

    /// The next update, if there is one already.
    pub fn ready(&mut self) -> Option<Update> {
        if self.over {
            return None;
        }
        if let Some(update) = self.first.pop_front() {
            return Some(update);
        }
        if !self.needs_screen
            && let Some(update) = self.look()
        {
            self.over = matches!(update, Update::Exit(_) | Update::Closed(_));
            return Some(update);
        }
        if self.needs_screen {
            let (cursor, size, data) = self.live.snapshot();
            self.cursor = cursor;
            self.needs_screen = false;
            return Some(Update::Snapshot { offset: cursor.offset, size, data });
        }
        None
    }

    fn look(&mut self) -> Option<Update> {
        let live = Arc::clone(&self.live);
        let mut state = live.state();
        let state = &mut *state;
        let client = state.clients.get_mut(&self.key)?;
        if let Some(notice) = client.notices.pop_front() {
            return Some(Update::Notice(notice));
        }
        if let Some(closed) = client.closed.or(state.closed) {
            return Some(Update::Closed(closed));
        }
        match state.log.next(&mut self.cursor, MOST_OUTPUT) {
            Ok(Some(Entry::Size(size))) => return Some(Update::Size(size)),
            Ok(Some(Entry::Output { offset, data })) => {
                return Some(Update::Output { offset, data });
            }
            Ok(None) => {}
            Err(_) => {
                self.needs_screen = true;
                return Some(Update::Notice(Notice::Resynced));
            }
        }
        let versions = state.versions;
        if self.seen.title != versions.title {
            self.seen.title = versions.title;
            return Some(Update::Title(state.title.clone()));
        }
        if self.seen.presence != versions.presence {
            self.seen.presence = versions.presence;
            return Some(Update::Presence(state.presence(self.key)));
        }
        if self.seen.control != versions.control {
            self.seen.control = versions.control;
            let holder = state.holder.and_then(|key| state.clients.get(&key));
            return Some(Update::Control {
                holder: holder.map(|client| client.name.clone()),
                you: state.holder == Some(self.key),
            });
        }
        state.end.map(|(status, _)| Update::Exit(status))
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let mut state = self.live.state();
        state.leave(self.key);
        drop(state);
        self.live.wake();
        self.live.paced.notify_waiters();
        self.live.resized.notify_one();
        // Dropped when full: a paste then ends by its time.
        let _ = self.live.input.try_send(Typed::Left(self.key));
    }
}

impl Typist {
    /// Types `data`. Answers of the client's terminal to questions of the program are dropped: the
    /// engine has answered them.
    ///
    /// # Errors
    ///
    /// [`SessionError::Forbidden`] when this client may only look, [`SessionError::Ended`].
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, a part of `data` may have been typed. It waits while more than
    /// 1 MiB is waiting to be typed.
    pub async fn input(&self, data: Bytes) -> Result<(), SessionError> {
        self.check()?;
        self.send(data).await
    }

    /// The same for numbered input: `number` is that of the first byte of `data` among all that
    /// this client ever sent. What came before is not typed again. Gives the number of the next
    /// byte, everything below which has come.
    ///
    /// # Errors
    ///
    /// As [`input`](Self::input), and [`SessionError::Gap`] when some before it is missing.
    ///
    /// # Cancel safety
    ///
    /// As [`input`](Self::input).
    pub async fn numbered_input(&self, number: u64, data: Bytes) -> Result<u64, SessionError> {
        self.check()?;
        let (new, next) = {
            let mut state = self.live.state();
            let state = &mut *state;
            let client = state.clients.get(&self.key).ok_or(SessionError::Ended)?;
            let own = state.numberings.iter().position(|known| known.name == client.name);
            let own = own.ok_or(SessionError::Ended)?;
            state.recognise(own, number, &data);
            let numbering = &mut state.numberings[own].numbering;
            let new = numbering
                .accept(number, &data)
                .map_err(|gap| SessionError::Gap { expected: gap.expected })?;
            (new, numbering.next())
        };
        self.send(new).await?;
        Ok(next)
    }

    /// The number that this client's input goes on with.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        let state = self.live.state();
        let name = state.clients.get(&self.key).map(|client| &client.name);
        let known = state.numberings.iter().find(|known| Some(&known.name) == name);
        known.map_or(0, |known| known.numbering.next())
    }

    /// Says that everything below `offset` is drawn. From the first of these on, the client paces
    /// the program while it is in control, for at most 10 s at a time.
    pub fn ack(&self, offset: u64) {
        let mut state = self.live.state();
        let end = state.log.end().offset;
        if let Some(client) = state.clients.get_mut(&self.key) {
            let acked = offset.min(end).max(client.acked.unwrap_or(0));
            client.acked = Some(acked);
            client.slow &= end - acked > LOW_WATER;
            drop(state);
            self.live.paced.notify_waiters();
        }
    }

    /// Tells the size of this client's window. What comes of it is the policy's to say; a client
    /// that may only look has no say.
    pub fn resize(&self, size: Size) {
        let mut state = self.live.state();
        if let Some(client) = state.clients.get_mut(&self.key) {
            client.window = Some(size);
            drop(state);
            self.live.resized.notify_one();
        }
    }

    /// Takes control.
    ///
    /// # Errors
    ///
    /// [`SessionError::Forbidden`] when this client may only look.
    pub fn take_control(&self) -> Result<(), SessionError> {
        self.pass_control(Some(self.key))
    }

    /// Lets go of control, if this client has it: nobody has it then, until somebody takes it.
    ///
    /// # Errors
    ///
    /// [`SessionError::Forbidden`] when this client may only look.
    pub fn release_control(&self) -> Result<(), SessionError> {
        if self.live.state().holder == Some(self.key) {
            self.pass_control(None)
        } else {
            self.may()
        }
    }

    /// Hands control, which this client must have, to another by its id.
    ///
    /// # Errors
    ///
    /// [`SessionError::Forbidden`] when this client is not in control, or the other may only look;
    /// [`SessionError::Malformed`] when there is no such client.
    pub fn grant_control(&self, to: &str) -> Result<(), SessionError> {
        self.may()?;
        let key = {
            let state = self.live.state();
            if state.holder != Some(self.key) {
                return Err(SessionError::Forbidden("only the client in control can hand it on"));
            }
            let other = state.clients.iter().find(|(_, client)| client.name == to);
            let Some((key, client)) = other else {
                let problem = "names no client that is attached".to_owned();
                return Err(SessionError::Malformed { field: "to", problem });
            };
            if !client.may_type() {
                return Err(SessionError::Forbidden("that client may only look"));
            }
            *key
        };
        self.pass_control(Some(key))
    }

    fn pass_control(&self, to: Option<u64>) -> Result<(), SessionError> {
        self.may()?;
        self.live.state().give_control(to);
        self.live.wake();
        self.live.paced.notify_waiters();
        self.live.resized.notify_one();
        Ok(())
    }

    fn may(&self) -> Result<(), SessionError> {
        match self.access {
            Access::Control => Ok(()),
            Access::View => Err(SessionError::Forbidden("this client may only look")),
        }
    }

    fn check(&self) -> Result<(), SessionError> {
        self.may()?;
        let mut state = self.live.state();
        if state.end.is_some() || !state.clients.contains_key(&self.key) {
            return Err(SessionError::Ended);
        }
        state.touch();
        Ok(())
    }

    async fn send(&self, data: Bytes) -> Result<(), SessionError> {
        if data.is_empty() || self.is_reply(&data) {
            return Ok(());
        }
        type_in(&self.live, self.key, data).await
    }

    fn is_reply(&self, data: &[u8]) -> bool {
        if data[0] != 0x1b {
            return false;
        }
        let told = self.positions_told.load(Relaxed);
        let asked = self.live.state().cursor_queries;
        let mut left = asked.saturating_sub(told);
        let before = left;
        let is_reply = is_reply(data, &mut left);
        if is_reply {
            self.positions_told.store(told + (before - left), Relaxed);
        }
        is_reply
    }
}

/// Hands `data` to the task that types, in pieces that leave room for others.
pub(crate) async fn type_in(live: &Live, key: u64, mut data: Bytes) -> Result<(), SessionError> {
    while !data.is_empty() {
        let piece = data.split_to(data.len().min(PIECE));
        let size = u32::try_from(piece.len().min(INPUT_BYTES)).unwrap_or(u32::MAX);
        let room = live.room.acquire_many(size).await.map_err(|_| SessionError::Ended)?;
        live.input.send(Typed::Client(key, piece)).await.map_err(|_| SessionError::Ended)?;
        // Given back by the task that types.
        room.forget();
    }
    Ok(())
}

impl crate::session::live::State {
    /// A connection may break without our noticing before its client is back, under no name: it is
    /// known by what it sends again.
    fn recognise(&mut self, own: usize, number: u64, data: &Bytes) {
        if !std::mem::take(&mut self.numberings[own].unnamed) {
            return;
        }
        let user = self.numberings[own].user.clone();
        let same = self.numberings.iter().enumerate().position(|(index, known)| {
            index != own && known.user == user && known.numbering.has_seen(number, data)
        });
        if let Some(same) = same {
            self.numberings[own].numbering = std::mem::take(&mut self.numberings[same].numbering);
        }
    }

    /// The name under which a client's input is numbered: the one it says, else the one that it
    /// seems to be, else a new one.
    fn know(&mut self, user: &UserName, name: Option<String>, resumes: bool) -> String {
        let said = name.and_then(|name| {
            self.numberings.iter_mut().find(|k| k.name == name && k.user == *user)
        });
        if let Some(known) = said {
            known.left = None;
            return known.name.clone();
        }
        if resumes {
            let recent = self.numberings.iter_mut().filter(|known| known.user == *user);
            if let Some(known) =
                recent.filter(|known| known.left.is_some()).max_by_key(|known| known.left)
            {
                known.left = None;
                known.numbering.guess();
                return known.name.clone();
            }
        }
        let name = format!("c-{}", &random_text()[..10]);
        self.numberings.push_back(Known {
            name: name.clone(),
            user: user.clone(),
            numbering: Numbering::default(),
            unnamed: resumes,
            left: None,
        });
        // Whoever is gone longest is forgotten first; those that are there never are, since they
        // are fewer.
        while self.numberings.len() > MOST_KNOWN {
            let oldest = self.numberings.iter().enumerate().min_by_key(|(_, known)| {
                known.left.map_or((1, None::<Instant>), |left| (0, Some(left)))
            });
            let index = oldest.map_or(0, |(index, _)| index);
            self.numberings.remove(index);
        }
        name
    }
}

/// One update's; large enough for speed, small enough for a browser.
const MOST_OUTPUT: usize = 64 << 10;
const PIECE: usize = 64 << 10;
pub(crate) const HIGH_WATER: u64 = 256 << 10;
const LOW_WATER: u64 = 64 << 10;
const MOST_KNOWN: usize = 256;
const QUESTIONS_TOLD_AGAIN: u64 = 16;
