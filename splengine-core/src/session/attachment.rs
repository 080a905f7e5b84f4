//! A client on a session.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::auth::{Access, Caller};
use crate::quota::MemoryError;
use crate::session::live_session::{LiveSession, Typed};
use crate::session::live_state::{AttachedClient, Versions};
use crate::session::log::{Cursor, Entry};
use crate::session::{Attach, ClientInput, Closed, Notice, SessionError, SessionInfo, Update};
use crate::terminal::Size;

/// A client on a session. Dropping it detaches the client; the program continues.
///
/// ```
/// use splengine_core::auth::Access;
/// use splengine_core::session::{Attach, Update};
/// use splengine_core::{Caller, Engine, LocalExecutor, SessionRequest};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
/// # let alice = Caller::new("alice")?.with_all_scopes();
/// let sessions = engine.sessions();
/// let id = sessions.create(&alice, SessionRequest::new().command("head -n 1")).await?.id;
/// let mut client = sessions.attach(&alice, &id, Attach::new(Access::Control))?;
/// // Typing needs no turn of the task that waits for updates.
/// client.input_handle().input("hello\n".into()).await?;
/// let status = loop {
///     match client.next().await {
///         Some(Update::Exit(status)) => break status,
///         Some(_) => {}
///         None => unreachable!("an end is always told"),
///     }
/// };
/// assert_eq!(status.exit_code(), 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Attachment {
    live: Arc<LiveSession>,
    key: u64,
    client: String,
    access: Access,
    cursor: Cursor,
    needs_screen: bool,
    seen: Versions,
    first: VecDeque<Update>,
    changed: watch::Receiver<u64>,
    over: bool,
    caller: Caller,
    input_handle: ClientInput,
    /// The screen that is being drawn for this client, if one is. In a task of its own, which waits for
    /// its turn and takes it also while nobody waits for [`next`](Self::next).
    drawing: JoinSet<Result<(Cursor, Size, Bytes), MemoryError>>,
}

impl Attachment {
    pub(crate) fn new(
        live: &Arc<LiveSession>,
        caller: &Caller,
        access: Access,
        attach: Attach,
    ) -> Result<Self, SessionError> {
        let Attach { resume, client: name, window, colors, from_start, .. } = attach;
        let changed = live.subscribe();
        let mut state = live.state();
        let share = caller.guest().map(|guest| guest.share.clone());
        state.check_clients(share.as_ref(), live.policy.max_clients)?;
        let known = state.know(caller.user(), name, resume.is_some());
        // A connection that broke without a word may still count as attached.
        let broken: Vec<u64> = state
            .clients
            .iter()
            .filter(|(_, client)| client.name == known)
            .map(|(key, _)| *key)
            .collect();
        let mut was_controller = false;
        for key in broken {
            was_controller |= state.controller == Some(key);
            if let Some(client) = state.clients.get_mut(&key) {
                client.closed = Some(Closed::Replaced);
                client.name.clear();
            }
        }
        let cursor = resume
            .filter(|(epoch, _)| *epoch == live.epoch)
            .and_then(|(_, offset)| state.log.cursor_at(offset));
        let from_start = from_start && cursor.is_none();
        let cursor = match from_start && live.restored.is_none() {
            true => state.log.cursor_at(0),
            false => cursor,
        };
        let start = live.restored.as_ref().filter(|_| from_start);
        let start = start.and_then(|(offset, first)| {
            let (size, data) = first.as_ref()?;
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
        let key = state.join(AttachedClient {
            name: known.clone(),
            user: caller.user().clone(),
            access,
            share,
            window,
            colors,
            acked: None,
            delivered: None,
            joined_at: end.offset,
            slow: false,
            was_waited_for: false,
            notices: VecDeque::new(),
            closed: None,
        });
        if was_controller && access == Access::Control {
            state.give_control(Some(key));
        }
        drop(state);
        live.wake();
        live.unsettle();
        let input_handle = ClientInput {
            live: Arc::clone(live),
            key,
            access,
            positions_told: Arc::new(AtomicU64::new(cursor_queries)),
            caller: caller.clone(),
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
            caller: caller.clone(),
            input_handle,
            drawing: JoinSet::new(),
        })
    }

    /// Returns the session, as it is now.
    #[must_use]
    pub fn info(&self) -> SessionInfo {
        self.live.info()
    }

    /// Returns what this client may do.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    /// Returns the name of this client, to [attach](Attach::client) with again.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.client
    }

    /// Returns the epoch to which offsets belong; another epoch is another count.
    #[must_use]
    pub fn epoch(&self) -> &str {
        &self.live.epoch
    }

    /// Returns the offset of the next output.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.cursor.offset
    }

    /// Returns a handle for typing from another task.
    #[must_use]
    pub fn input_handle(&self) -> ClientInput {
        self.input_handle.clone()
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
            if self.needs_screen {
                // It is drawn elsewhere, or large.
                if self.drawing.is_empty() {
                    let live = Arc::clone(&self.live);
                    self.drawing.spawn(async move { live.snapshot().await });
                }
                let drawn = self.caller.unless_revoked(self.drawing.join_next()).await;
                let Some(drawn) = drawn.flatten() else { continue };
                let drawn = match drawn {
                    Ok(drawn) => drawn,
                    Err(error) => match error.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        // The runtime shuts down.
                        Err(_) => return None,
                    },
                };
                return Some(match drawn {
                    Ok((cursor, size, data)) => self.screen(cursor, size, data),
                    Err(shortage) => {
                        self.over = true;
                        Update::Closed(Closed::Memory(shortage))
                    }
                });
            }
            if self.caller.is_revocable() {
                self.caller.unless_revoked(self.changed.changed()).await.transpose().ok()?;
            } else {
                self.changed.changed().await.ok()?;
            }
        }
    }

    /// Returns the next update, if there is one already. A screen that takes time to draw is left to
    /// [`next`](Self::next).
    pub fn ready(&mut self) -> Option<Update> {
        if self.over {
            return None;
        }
        if self.caller.is_revoked() {
            self.over = true;
            return Some(Update::Closed(Closed::CredentialsRevoked));
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
            let (cursor, size, data) = self.live.try_snapshot()?;
            return Some(self.screen(cursor, size, data));
        }
        None
    }

    fn screen(&mut self, cursor: Cursor, size: Size, data: Bytes) -> Update {
        self.cursor = cursor;
        self.needs_screen = false;
        // An earlier one is of no use any more.
        self.drawing = JoinSet::new();
        Update::Snapshot { offset: cursor.offset, size, data }
    }

    /// Notes that all updates that were taken so far were written to the client's socket. From the
    /// first call on, a client that does not [`ack`](ClientInput::ack) paces the program by it while it
    /// is in control and no other client is attached, for at most 10 s at a time.
    pub fn delivered(&self) {
        self.input_handle.reached(self.cursor.offset, |client| &mut client.delivered);
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
        match state.log.next(&mut self.cursor, MAX_UPDATE_BYTES) {
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
            let controller = state.controller.and_then(|key| state.clients.get(&key));
            return Some(Update::Control {
                controller: controller.map(|client| client.name.clone()),
                you: state.controller == Some(self.key),
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
        self.live.ack_notify.notify_waiters();
        self.live.unsettle();
        // Dropped when full: a paste then ends by its time.
        let _ = self.live.input.try_send(Typed::Left(self.key));
    }
}

/// One update's; large enough for speed, small enough for a browser.
const MAX_UPDATE_BYTES: usize = 64 << 10;
const QUESTIONS_TOLD_AGAIN: u64 = 16;
