//! All sessions of an engine.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::blocking::blocking;
use crate::fresh::Fresh;
use crate::ids::SessionId;
use crate::part_state::PartState;
use crate::quota::{EngineMemory, InputBudget, InputReservation, MIN_COUNTED_BYTES};
use crate::session::bounds::IoBounds;
use crate::session::expiry::{Ages, look_every, time_left};
use crate::session::live_session::LiveSession;
use crate::session::lost::{MAX_LOST, lost_in, surplus_of_lost};
use crate::session::record::Record;
use crate::session::render_pool::RenderPool;
use crate::session::screen_memory::{ScreenBudget, ScreenMemory};
use crate::session::share::Shares;
use crate::session::store::Store;
use crate::session::{Closed, Notice, SessionError, SessionPolicy};
use crate::terminal::Size;
use crate::user_name::UserName;

#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) policy: Arc<SessionPolicy>,
    pub(crate) store: Option<Arc<Store>>,
    pub(crate) shares: Shares,
    pub(crate) render_pool: RenderPool,
    /// What the commands of sessions hold in memory.
    commands: InputBudget,
    pub(crate) io: Arc<IoBounds>,
    pub(crate) screens: ScreenBudget,
    /// Why the store can't be written, if so.
    fault: Fresh<Option<io::ErrorKind>>,
    /// Whether something of what sessions before have left can't be read.
    has_unreadable: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    live: HashMap<SessionId, Arc<LiveSession>>,
    lost: HashMap<SessionId, Arc<Record>>,
    /// How many of whom run or are being started.
    taken: HashMap<UserName, usize>,
    /// Those that are beyond their bound were removed.
    is_lost_trimmed: bool,
    closed: bool,
    watched: bool,
}

/// The right to have one session more; given back when dropped.
#[derive(Debug)]
pub(crate) struct SessionSlot {
    registry: Weak<Registry>,
    user: UserName,
}

impl Registry {
    pub(crate) fn new(
        policy: SessionPolicy,
        store: Option<Arc<Store>>,
        memory: &EngineMemory,
    ) -> Self {
        let io = Arc::new(IoBounds::new(memory, policy.max_read_bytes, policy.read_timeout));
        let (lost, has_unreadable) = store.as_deref().map(lost_in).unwrap_or_default();
        let commands =
            InputBudget::new(policy.max_command_bytes, policy.max_command_bytes_per_caller);
        let screens = ScreenBudget::new(policy.max_screen_bytes);
        let render_pool = RenderPool::new(memory, policy.max_screen_bytes / 2);
        Self {
            commands,
            policy: Arc::new(policy),
            store,
            shares: Shares::default(),
            render_pool,
            io,
            screens,
            fault: Fresh::default(),
            has_unreadable,
            state: Mutex::new(State { lost, ..State::default() }),
        }
    }

    /// Reserves memory for a screen of `size`. Forgets sessions that have ended where they hold it, the
    /// oldest first: of `user`, then of callers who hold more.
    pub(crate) async fn reserve_screen(
        &self,
        user: &UserName,
        size: Size,
    ) -> Result<Arc<ScreenMemory>, SessionError> {
        let mut reserved = self.screens.reserve(user, size);
        if reserved.is_err() {
            let mut ended =
                self.screens.obstacles(user, size, self.ended(), |live| &live.memory).into_iter();
            while reserved.is_err()
                && let Some(live) = ended.next()
            {
                let id = &live.id;
                tracing::info!(session = %id, "forgetting an ended session for the memory of its screen");
                self.forget_whole(live).await;
                reserved = self.screens.reserve(user, size);
            }
        }
        Ok(reserved?)
    }

    /// The sessions that have ended, from the oldest end on.
    fn ended(&self) -> Vec<Arc<LiveSession>> {
        let when = |live: Arc<LiveSession>| {
            let (_, when) = live.state().end?;
            Some((when, live))
        };
        let mut ended: Vec<_> = self.all_live().into_iter().filter_map(when).collect();
        ended.sort_unstable_by_key(|(when, _)| *when);
        ended.into_iter().map(|(_, live)| live).collect()
    }

    /// Whether what is to be kept of sessions can be kept. Writes to the store once a second at most,
    /// however often it is asked.
    pub(crate) async fn state_of_store(&self) -> PartState {
        let Some(store) = &self.store else { return PartState::Ready };
        let store = Arc::clone(store);
        let look = blocking(move || store.probe().err().map(|error| error.kind()));
        match self.fault.get(look).await {
            Some(io::ErrorKind::StorageFull) => PartState::Failing {
                reason: "there is no room left on the disk for what is kept of sessions",
            },
            Some(_) => PartState::Failing { reason: "what is kept of sessions can't be written" },
            None if self.has_unreadable => PartState::Degraded {
                reason: "some of what was kept of sessions can't be read; the log says which",
            },
            None => PartState::Ready,
        }
    }

    /// A place for one session more of `user`.
    pub(crate) fn slot(self: &Arc<Self>, user: &UserName) -> Result<SessionSlot, SessionError> {
        let policy = &self.policy;
        self.trim_lost();
        let mut state = self.state();
        if state.closed {
            return Err(SessionError::Draining);
        }
        let of_user = state.taken.get(user).copied().unwrap_or(0);
        if of_user >= policy.max_per_caller {
            let limit = policy.max_per_caller;
            return Err(SessionError::CallerLimit { what: "sessions", limit });
        }
        if state.taken.values().sum::<usize>() >= policy.max_sessions {
            return Err(SessionError::Full { limit: policy.max_sessions });
        }
        Ok(self.take(&mut state, user))
    }

    /// The same for a session that runs already.
    pub(crate) fn slot_anyway(self: &Arc<Self>, user: &UserName) -> SessionSlot {
        self.take(&mut self.state(), user)
    }

    fn take(self: &Arc<Self>, state: &mut State, user: &UserName) -> SessionSlot {
        *state.taken.entry(user.clone()).or_default() += 1;
        if !std::mem::replace(&mut state.watched, true) {
            let every = look_every(&self.policy);
            tokio::spawn(watch(Arc::downgrade(self), every));
        }
        SessionSlot { registry: Arc::downgrade(self), user: user.clone() }
    }

    /// Reserves the memory of a session's command, if that is much.
    pub(crate) fn hold_command(
        &self,
        user: &UserName,
        bytes: usize,
    ) -> Result<Option<InputReservation>, SessionError> {
        let bytes = Some(bytes).filter(|bytes| *bytes >= MIN_COUNTED_BYTES);
        Ok(bytes.map(|bytes| self.commands.reserve(user, bytes)).transpose()?)
    }

    /// The same for a session that runs already.
    pub(crate) fn hold_command_anyway(
        &self,
        user: &UserName,
        bytes: usize,
    ) -> Option<InputReservation> {
        let bytes = Some(bytes).filter(|bytes| *bytes >= MIN_COUNTED_BYTES);
        bytes.map(|bytes| self.commands.reserve_always(user, bytes))
    }

    pub(crate) fn insert(&self, live: &Arc<LiveSession>) {
        let mut state = self.state();
        state.lost.remove(&live.id);
        state.live.insert(live.id.clone(), Arc::clone(live));
    }

    pub(crate) fn live(&self, id: &SessionId) -> Option<Arc<LiveSession>> {
        self.state().live.get(id).cloned()
    }

    pub(crate) fn all_live(&self) -> Vec<Arc<LiveSession>> {
        self.state().live.values().cloned().collect()
    }

    pub(crate) fn lost(&self, id: &SessionId) -> Option<Arc<Record>> {
        self.state().lost.get(id).cloned()
    }

    pub(crate) fn all_lost(&self) -> Vec<Arc<Record>> {
        self.state().lost.values().cloned().collect()
    }

    /// Forgets the sessions that were lost beyond their [bound](MAX_LOST), once. Called when those
    /// whose programs still run are no longer among them.
    pub(crate) fn trim_lost(&self) {
        let gone = {
            let mut state = self.state();
            if std::mem::replace(&mut state.is_lost_trimmed, true) {
                return;
            }
            let gone = surplus_of_lost(&state.lost, MAX_LOST.max(self.policy.max_sessions));
            state.lost.retain(|id, _| !gone.contains(id));
            gone
        };
        if let Some(store) = self.store.clone().filter(|_| !gone.is_empty()) {
            tracing::info!(
                count = gone.len(),
                "removing what is kept of sessions lost before others"
            );
            tokio::task::spawn_blocking(move || {
                gone.iter().for_each(|id| store.remove_session(id))
            });
        }
    }

    pub(crate) fn rename_lost(&self, id: &SessionId, name: Option<String>) {
        if let Some(record) = self.state().lost.get_mut(id) {
            Arc::make_mut(record).name = name;
        }
    }

    /// Forgets a session that has ended or was lost, with its files and shares. Once this was polled it takes
    /// its course, if the future is dropped as well.
    pub(crate) async fn forget(&self, id: &SessionId) {
        {
            let mut state = self.state();
            state.live.remove(id);
            state.lost.remove(id);
        }
        self.shares.take_back(id, crate::session::share::ShareSelector::All);
        if let Some(store) = self.store.clone() {
            let id = id.clone();
            blocking(move || store.remove_session(&id)).await;
        }
    }

    /// Forgets a session that has ended, and waits, for a while, until nobody has its screen any more and
    /// the memory of that is another's.
    pub(crate) async fn forget_whole(&self, live: Arc<LiveSession>) {
        self.forget(&live.id).await;
        let mut changed = live.subscribe();
        drop(live);
        let dropped = async { while changed.changed().await.is_ok() {} };
        let _ = timeout(DROP_TIMEOUT, dropped).await;
    }

    /// Forgets of `user`'s sessions that have ended the oldest, where there are more than may run.
    pub(crate) async fn forget_surplus(&self, user: &UserName) {
        let mut ended = self.ended();
        ended.retain(|live| live.user == *user);
        let surplus = ended.len().saturating_sub(self.policy.max_per_caller);
        for live in ended.iter().take(surplus) {
            self.forget(&live.id).await;
        }
    }

    /// How many run, and how many clients are attached.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let running = self.state().taken.values().sum();
        (running, self.all_live().iter().map(|live| live.state().clients.len()).sum())
    }

    pub(crate) fn close(&self) {
        self.state().closed = true;
    }

    /// Closes the attachments of guests whose share does not exist any more.
    pub(crate) fn send_revoked_away(&self, live: &LiveSession) {
        let shares = self.shares.list(&live.id);
        let mut any = false;
        for client in live.state().clients.values_mut() {
            let stands = client.share.as_ref().is_none_or(|id| shares.iter().any(|s| s.id == *id));
            if !stands && client.closed.is_none() {
                client.closed = Some(Closed::Revoked);
                any = true;
            }
        }
        if any {
            live.wake();
        }
    }

    /// Kills all programs that do not outlive this process, without waiting.
    pub(crate) fn kill(&self) {
        for live in self.all_live() {
            if live.state().end.is_none() {
                live.close(Closed::Restart);
                if !live.terminal().outlives() {
                    live.terminal().kill();
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SessionSlot {
    fn drop(&mut self) {
        let Some(registry) = self.registry.upgrade() else { return };
        let mut state = registry.state();
        if let Some(count) = state.taken.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                state.taken.remove(&self.user);
            }
        }
    }
}

/// Ends what is idle or old, forgets what has ended, sends away whose share has expired.
async fn watch(registry: Weak<Registry>, every: Duration) {
    loop {
        sleep(every).await;
        let Some(registry) = registry.upgrade() else { return };
        for live in registry.all_live() {
            look_at(&registry, &live).await;
        }
    }
}

async fn look_at(registry: &Registry, live: &Arc<LiveSession>) {
    let policy = &registry.policy;
    let now = Instant::now();
    registry.send_revoked_away(live);
    let (ended, mut ages) = {
        let state = live.state();
        let ages = Ages {
            total: now - live.begun_at,
            idle: now - state.active,
            detached: state.detached.map(|since| now - since),
            busy: false,
        };
        (state.end.map(|(_, when)| now - when), ages)
    };
    if let Some(ended) = ended {
        if ended >= policy.ended_retention {
            registry.forget(&live.id).await;
        }
        return;
    }
    if time_left(policy, ages).is_none_or(|left| left > policy.warning) {
        return;
    }
    ages.busy = live.terminal().status().busy;
    match time_left(policy, ages) {
        Some(Duration::ZERO) => {
            tracing::info!(session = %live.id, "ending a session for its idleness or age");
            live.close(Closed::Expired);
            let live = Arc::clone(live);
            tokio::spawn(async move { live.end().await });
        }
        Some(left) if left <= policy.warning => {
            let mut state = live.state();
            let deadline = now + left;
            let is_new = state.warned.is_none_or(|before| deadline > before + SAME_WARNING);
            if is_new {
                state.warned = Some(deadline);
                state.notify(Notice::IdleWarning { seconds: left.as_secs().max(1) });
                drop(state);
                live.wake();
            }
        }
        _ => {}
    }
}

/// Clients may be at it to take in the end.
const DROP_TIMEOUT: Duration = Duration::from_millis(250);
const SAME_WARNING: Duration = Duration::from_secs(1);
