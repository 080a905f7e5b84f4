//! The actions of a client on a session, and how the client is recognised when it attaches again.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, MutexGuard};

use bytes::Bytes;
use tokio::time::Instant;

use crate::auth::Access;
use crate::auth::Caller;
use crate::error::Field;
use crate::ids::random_text;
use crate::session::input_queue::{InputSequence, is_reply};
use crate::session::live_session::{LiveSession, Typed, permits_of};
use crate::session::live_state::{AttachedClient, InputSender, LiveState};
use crate::session::{SessionError, TerminalColors};
use crate::terminal::Size;
use crate::user_name::UserName;

/// Input handle of an attachment, for another task than the one that waits for its updates. Cheap to
/// clone. It is usable as long as the attachment exists.
///
/// ```
/// use splengine_core::auth::Access;
/// use splengine_core::session::Attach;
/// use splengine_core::terminal::Size;
/// use splengine_core::{Caller, Engine, LocalExecutor, SessionRequest};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
/// # let alice = Caller::new("alice")?.with_all_scopes();
/// let sessions = engine.sessions();
/// let id = sessions.create(&alice, SessionRequest::new().command("cat")).await?.id;
/// let client = sessions.attach(&alice, &id, Attach::new(Access::Control))?;
/// let input = client.input_handle();
/// input.take_control()?;
/// input.resize(Size::clamped(120, 40));
/// // Numbered input may be sent again after a broken connection: it is typed once.
/// assert_eq!(input.numbered_input(0, "ls\n".into()).await?, 3);
/// assert_eq!(input.numbered_input(0, "ls\n".into()).await?, 3);
/// # sessions.end(&alice, &id).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ClientInput {
    pub(crate) live: Arc<LiveSession>,
    pub(crate) key: u64,
    pub(crate) access: Access,
    pub(crate) positions_told: Arc<AtomicU64>,
    pub(crate) caller: Caller,
}

impl ClientInput {
    /// Types `data` on the session's terminal. Answers of the client's terminal to questions of the
    /// program are dropped: the engine has answered them.
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

    /// Types numbered input: `number` is that of the first byte of `data`, counted over all that this
    /// client ever sent. Bytes that were received before are not typed again. Returns the number of the
    /// next byte: all bytes below it were received.
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
            let own = state.input_sequences.iter().position(|known| known.name == client.name);
            let own = own.ok_or(SessionError::Ended)?;
            state.recognise(own, number, &data);
            let sequence = &mut state.input_sequences[own].sequence;
            let new = sequence
                .accept(number, &data)
                .map_err(|gap| SessionError::Gap { expected: gap.expected })?;
            (new, sequence.next())
        };
        self.send(new).await?;
        Ok(next)
    }

    /// Returns what this client may do.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    /// Returns the number of this client's next input.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        let state = self.live.state();
        let name = state.clients.get(&self.key).map(|client| &client.name);
        let known = state.input_sequences.iter().find(|known| Some(&known.name) == name);
        known.map_or(0, |known| known.sequence.next())
    }

    /// Notes that the client has drawn everything below `offset`. From the first call on, the client
    /// paces the program while it is in control, for at most 10 s at a time.
    pub fn ack(&self, offset: u64) {
        self.reached(offset, |client| &mut client.acked);
    }

    /// Notes how far this client is, in one of the two ways in which that is known.
    pub(crate) fn reached(
        &self,
        offset: u64,
        of: impl FnOnce(&mut AttachedClient) -> &mut Option<u64>,
    ) {
        let mut state = self.live.state();
        let end = state.log.end().offset;
        if let Some(client) = state.clients.get_mut(&self.key) {
            let known = of(client);
            let reached = offset.min(end).max(known.unwrap_or(0));
            *known = Some(reached);
            client.slow &= end - reached > LOW_WATER;
            drop(state);
            self.live.ack_notify.notify_waiters();
        }
    }

    /// Resets the terminal's modes to their defaults, for every client, as if the program had printed
    /// the sequences for that: reports of the mouse, the alternate screen, a hidden cursor and the
    /// like, which remain when a program is killed. The content of the screen stays, and the program is
    /// not notified.
    ///
    /// # Errors
    ///
    /// [`SessionError::Forbidden`] when this client may only look, [`SessionError::Ended`].
    pub fn reset(&self) -> Result<(), SessionError> {
        self.check()?;
        self.live.reset_asked.notify_one();
        Ok(())
    }

    /// Sets the size of this client's window. The session's policy decides whether the terminal is
    /// resized; the window of a client that may only look does not count.
    pub fn resize(&self, size: Size) {
        let mut state = self.live.state();
        if let Some(client) = state.clients.get_mut(&self.key) {
            client.window = Some(size);
            drop(state);
            self.live.unsettle();
        }
    }

    /// Sets the colours of this client's terminal. Programs that ask get those of the client in
    /// control.
    pub fn set_colors(&self, colors: TerminalColors) {
        let mut state = self.live.state();
        if let Some(client) = state.clients.get_mut(&self.key) {
            client.colors = Some(colors);
            state.choose_colors();
        }
    }

    /// Takes control of the session's terminal.
    ///
    /// # Errors
    ///
    /// [`SessionError::Forbidden`] when this client may only look, [`SessionError::Ended`] when it is
    /// not attached any more.
    pub fn take_control(&self) -> Result<(), SessionError> {
        self.may()?;
        let state = self.live.state();
        if !state.clients.contains_key(&self.key) {
            return Err(SessionError::Ended);
        }
        self.pass_control(state, Some(self.key));
        Ok(())
    }

    /// Releases control, if this client has it: then no client has it until one takes it.
    ///
    /// # Errors
    ///
    /// [`SessionError::Forbidden`] when this client may only look.
    pub fn release_control(&self) -> Result<(), SessionError> {
        self.may()?;
        let state = self.live.state();
        if state.controller == Some(self.key) {
            self.pass_control(state, None);
        }
        Ok(())
    }

    /// Hands control, which this client must have, to another by its id.
    ///
    /// # Errors
    ///
    /// [`SessionError::Forbidden`] when this client is not in control, or the other may only look;
    /// [`SessionError::Malformed`] when there is no such client.
    pub fn grant_control(&self, to: &str) -> Result<(), SessionError> {
        self.may()?;
        let state = self.live.state();
        if state.controller != Some(self.key) {
            return Err(SessionError::Forbidden("only the client in control can hand it on"));
        }
        let other = state.clients.iter().find(|(_, client)| {
            // One that was replaced has no name any more.
            client.closed.is_none() && client.name == to
        });
        let Some((&key, client)) = other else {
            let problem = "names no client that is attached".to_owned();
            return Err(SessionError::Malformed { field: Field::To, problem });
        };
        if !client.may_type() {
            return Err(SessionError::Forbidden("that client may only look"));
        }
        self.pass_control(state, Some(key));
        Ok(())
    }

    /// Passes control on in the state that it was decided in: whoever leaves in between would keep it
    /// for ever.
    fn pass_control(&self, mut state: MutexGuard<'_, LiveState>, to: Option<u64>) {
        state.give_control(to);
        drop(state);
        self.live.wake();
        self.live.ack_notify.notify_waiters();
        self.live.unsettle();
    }

    fn may(&self) -> Result<(), SessionError> {
        match self.access {
            _ if self.caller.is_revoked() => {
                Err(SessionError::Forbidden("the right to this session was taken back"))
            }
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
pub(crate) async fn type_in(
    live: &LiveSession,
    key: u64,
    mut data: Bytes,
) -> Result<(), SessionError> {
    while !data.is_empty() {
        let piece = data.split_to(data.len().min(PIECE));
        let size = u32::try_from(permits_of(&piece)).unwrap_or(u32::MAX);
        let permits =
            live.input_permits.acquire_many(size).await.map_err(|_| SessionError::Ended)?;
        live.input.send(Typed::Client(key, piece)).await.map_err(|_| SessionError::Ended)?;
        // Given back by the task that types.
        permits.forget();
    }
    Ok(())
}

impl LiveState {
    /// A connection may break without our noticing before its client is back, under no name: it is
    /// known by what it sends again.
    fn recognise(&mut self, own: usize, number: u64, data: &Bytes) {
        if !std::mem::take(&mut self.input_sequences[own].unnamed) {
            return;
        }
        let user = self.input_sequences[own].user.clone();
        let same = self.input_sequences.iter().enumerate().position(|(index, known)| {
            index != own && known.user == user && known.sequence.has_seen(number, data)
        });
        if let Some(same) = same {
            self.input_sequences[own].sequence =
                std::mem::take(&mut self.input_sequences[same].sequence);
        }
    }

    /// The name under which a client's input is numbered: the one it says, else the one that it
    /// seems to be, else a new one.
    pub(crate) fn know(&mut self, user: &UserName, name: Option<String>, resumes: bool) -> String {
        let said = name.and_then(|name| {
            self.input_sequences.iter_mut().find(|k| k.name == name && k.user == *user)
        });
        if let Some(known) = said {
            known.left = None;
            return known.name.clone();
        }
        if resumes {
            let recent = self.input_sequences.iter_mut().filter(|known| known.user == *user);
            if let Some(known) =
                recent.filter(|known| known.left.is_some()).max_by_key(|known| known.left)
            {
                known.left = None;
                known.sequence.guess();
                return known.name.clone();
            }
        }
        let name = format!("c-{}", &random_text()[..10]);
        self.input_sequences.push_back(InputSender {
            name: name.clone(),
            user: user.clone(),
            sequence: InputSequence::default(),
            unnamed: resumes,
            left: None,
        });
        // Whoever is gone longest is forgotten first; those that are there never are, since they
        // are fewer.
        while self.input_sequences.len() > MAX_KNOWN {
            let oldest = self.input_sequences.iter().enumerate().min_by_key(|(_, known)| {
                known.left.map_or((1, None::<Instant>), |left| (0, Some(left)))
            });
            let index = oldest.map_or(0, |(index, _)| index);
            self.input_sequences.remove(index);
        }
        name
    }
}

const PIECE: usize = 64 << 10;
const LOW_WATER: u64 = 64 << 10;
const MAX_KNOWN: usize = 256;
