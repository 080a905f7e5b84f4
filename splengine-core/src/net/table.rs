//! The connections of one server: who has authenticated, and who goes when there are too many.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rustix::net::{RecvFlags, Shutdown, recv, shutdown};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::auth::Network;
use crate::net::http2_memory::{CONNECTION_BYTES, Http2Budgets};
use crate::net::limits::ConnectionLimits;
use crate::net::pacer::Pacer;
use crate::net::stream::Stream;
use crate::quota::{
    CallerPlace, CallerPlaces, KeyedPermit, KeyedSemaphore, MemoryBudget, note_connection_closed,
};
use crate::user_name::UserName;

/// All connections of a server.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) limits: ConnectionLimits,
    pub(crate) http2_budgets: Arc<Http2Budgets>,
    /// Requests of HTTP whose work begins, of callers and of all unauthenticated connections.
    starts: KeyedSemaphore<TurnKey>,
    /// Those of unauthenticated connections, by site.
    site_starts: KeyedSemaphore<TurnKey>,
    /// Connections of HTTP/2 whose requests are read.
    reads: KeyedSemaphore<TurnKey>,
    /// Of all that are unauthenticated, behind those of their own site.
    reads_of_all: Pacer,
    /// Of authenticated connections that never make room.
    shares: CallerPlaces,
    state: Mutex<State>,
    /// Notified when a place may be free.
    changed: Notify,
    /// Notified when a request is over on a connection beyond the share of its caller.
    idle: Notify,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// How many take a place.
    places: usize,
    /// How many were told to make room and are not gone yet.
    leaving: usize,
    /// The unauthenticated ones, by network and number, which is the order of their coming.
    waiting: HashMap<Network, BTreeMap<u64, Evictable>>,
    waiting_count: usize,
    /// The authenticated ones beyond the share of their caller, by number.
    surplus: BTreeMap<u64, Evictable>,
    /// Before that, no connection is looked for on which nothing is worked at any more.
    next_idle_look: Option<Instant>,
}

/// A connection that may have to make room.
#[derive(Debug)]
struct Evictable {
    network: Network,
    since: Instant,
    progress: Arc<Progress>,
    evicted: Arc<Notify>,
    stream: Weak<Stream>,
}

/// What a connection is doing.
#[derive(Debug)]
pub(crate) struct Progress {
    begun: Instant,
    /// When something was last read from it, in milliseconds since `begun`.
    last_read: AtomicU64,
    /// How many requests are worked at.
    pub(crate) active: watch::Sender<usize>,
}

/// One connection's place in the table.
#[derive(Debug)]
pub(crate) struct TableEntry {
    table: Arc<Table>,
    number: u64,
    network: Network,
    evicted: Arc<Notify>,
    stage: Mutex<Stage>,
}

/// How far a connection has come.
#[derive(Debug, Default)]
struct Stage {
    /// It is authenticated, and makes room for no other.
    is_kept: bool,
    /// It is authenticated, and beyond the share of its caller.
    is_surplus: bool,
    /// Its part of what its caller may have, while it takes a place.
    share: Option<CallerPlace>,
    /// What the accept loop was given to serve it is over.
    is_served: bool,
    /// Its socket is closed.
    has_left: bool,
    /// It takes no place any more.
    is_free: bool,
}

/// Who takes turns with themselves: a caller, or on an unauthenticated connection its network.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum TurnKey {
    User(UserName),
    Network(Network),
    /// All unauthenticated connections.
    Unauthenticated,
}

/// Place of a request among those that begin, of its caller or site, and of a site among those of all.
#[derive(Debug)]
pub(crate) struct StartPermit {
    of_key: KeyedPermit<TurnKey>,
    of_all: Option<KeyedPermit<TurnKey>>,
}

impl Table {
    pub(crate) fn new(limits: ConnectionLimits) -> Arc<Self> {
        let shares = CallerPlaces::new(limits.connections());
        let bytes = limits.max_http2_bytes;
        let budget = |bytes| match &limits.engine_memory {
            Some(memory) => memory.budget(bytes),
            None => MemoryBudget::new(bytes),
        };
        // One caller may have all connections.
        let of_connections = limits.connections().saturating_mul(2 * CONNECTION_BYTES);
        let connections = budget(of_connections);
        let http2_budgets = Arc::new(Http2Budgets::new(&budget(bytes), bytes, &connections));
        Arc::new(Self {
            limits,
            http2_budgets,
            starts: KeyedSemaphore::new(MAX_STARTS),
            site_starts: KeyedSemaphore::new(MAX_SITE_STARTS),
            reads: KeyedSemaphore::new(1),
            reads_of_all: Pacer::default(),
            shares,
            state: Mutex::default(),
            changed: Notify::new(),
            idle: Notify::new(),
        })
    }

    /// Resolves when one more connection may be accepted.
    pub(crate) async fn has_place(&self) {
        self.once(true).await;
    }

    /// Resolves when no more connection may be accepted.
    pub(crate) async fn is_full(&self) {
        self.once(false).await;
    }

    async fn once(&self, has_place: bool) {
        loop {
            let changed = self.changed.notified();
            {
                let state = self.lock();
                let is_free = state.places < self.limits.connections()
                    || state.waiting_count > 0
                    || !state.surplus.is_empty();
                if (is_free && state.leaving < MAX_LEAVING) == has_place {
                    return;
                }
            }
            changed.await;
        }
    }

    /// Resolves when a connection that [found no place](Self::enter) may find one. What happens from
    /// the call on counts, also before the future is polled. For requests that are over it resolves
    /// once in [`IDLE_LOOK_INTERVAL`] at most, however many are: to look for a place costs more the
    /// more connections there are.
    pub(crate) fn may_have_place(&self) -> impl Future<Output = ()> {
        let (changed, idle) = (self.changed.notified(), self.idle.notified());
        let next_look = self.lock().next_idle_look;
        let idle = async move {
            idle.await;
            if let Some(next_look) = next_look {
                sleep_until(next_look).await;
            }
            self.lock().next_idle_look = Some(Instant::now() + IDLE_LOOK_INTERVAL);
        };
        async {
            tokio::select! {
                () = changed => {}
                () = idle => {}
            }
        }
    }

    /// Takes in a connection that was accepted `waited` ago, for which others may have to go; nothing
    /// if there is no place for it. While callers have connections beyond their share, at which
    /// something is worked, those of the same network go for it only after the
    /// [time](ConnectionLimits::busy_timeout) for that: it may be of the same caller.
    pub(crate) fn enter(
        self: &Arc<Self>,
        stream: &Arc<Stream>,
        progress: &Arc<Progress>,
        network: Network,
        waited: Duration,
    ) -> Option<TableEntry> {
        let evicted = Arc::new(Notify::new());
        let mut state = self.lock();
        if state.leaving >= MAX_LEAVING {
            return None;
        }
        let number = state.next;
        state.next += 1;
        state.places += 1;
        state.waiting_count += 1;
        let now = Instant::now();
        let waiting = Evictable {
            network,
            since: now,
            progress: Arc::clone(progress),
            evicted: Arc::clone(&evicted),
            stream: Arc::downgrade(stream),
        };
        state.waiting.entry(network).or_default().insert(number, waiting);
        self.limits.counters.unauthenticated.fetch_add(1, Relaxed);
        if state.places > self.limits.connections() {
            let is_over = waited >= self.limits.busy_timeout;
            let is_evicted =
                self.evict_surplus(&mut state, |busy| is_over || busy.network != network) || {
                    let may_be_new = state.surplus.is_empty();
                    self.evict_one(&mut state, |other, waiting| {
                        other != number && (may_be_new || waiting.is_old(now))
                    })
                };
            if !is_evicted {
                self.remove(&mut state, network, number);
                state.places -= 1;
                return None;
            }
        }
        if state.waiting_count > self.limits.unauthenticated() {
            self.evict_one(&mut state, |other, _| other != number);
        }
        self.limits.counters.open.fetch_add(1, Relaxed);
        drop(state);
        let table = Arc::clone(self);
        Some(TableEntry { table, number, network, evicted, stage: Mutex::default() })
    }

    /// Closes a connection that has to make room, if there is one that has not just come; `shortage`
    /// is for how long there was none for the next one.
    pub(crate) fn make_room(&self, shortage: Duration) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        self.evict_surplus(&mut state, |_| shortage >= self.limits.busy_timeout)
            || self.evict_one(&mut state, |_, waiting| waiting.is_old(now))
    }

    /// Whether an address may have more than its share.
    pub(crate) fn has_surplus(&self) -> bool {
        self.lock().waiting_count > self.limits.max_unauthenticated_per_address
    }

    /// Closes what addresses have beyond their share and is silent.
    pub(crate) fn trim(&self) {
        let most = self.limits.max_unauthenticated_per_address;
        let mut state = self.lock();
        let now = Instant::now();
        let mut old = Vec::new();
        for (network, waiting) in &state.waiting {
            let beyond = waiting.len().saturating_sub(most);
            let silent = waiting.iter().filter(|(_, waiting)| waiting.is_silent(now));
            old.extend(silent.take(beyond).map(|(number, _)| (*network, *number)));
        }
        for (network, number) in old {
            self.evict(&mut state, network, number);
        }
    }

    /// Evicts a connection that may go, of the site that has most connections, and of its networks that has most,
    /// among those whose oldest may: the oldest that is silent, if there is such a one. Of several networks with as
    /// many it is one of some that are looked at: whose oldest has sent nothing for the longest time. Of very many
    /// networks that each connect once, any other would push out all who need some round trips to authenticate.
    fn evict_one(&self, state: &mut State, may_go: impl Fn(u64, &Evictable) -> bool) -> bool {
        let mut of_site = HashMap::new();
        for (network, waiting) in &state.waiting {
            *of_site.entry(network.site()).or_insert(0) += waiting.len();
        }
        let (mut most, mut heaviest) = ((0, 0), Vec::new());
        for (network, waiting) in &state.waiting {
            let Some((oldest, first)) = waiting.first_key_value() else { continue };
            let weight = (of_site[&network.site()], waiting.len());
            if weight < most || !may_go(*oldest, first) {
                continue;
            }
            if weight > most {
                (most, heaviest) = (weight, Vec::new());
            }
            heaviest.push((*oldest, *network));
        }
        if heaviest.is_empty() {
            return false;
        }
        let number = RandomState::new().hash_one(state.next) as usize % heaviest.len();
        heaviest.rotate_left(number);
        let last_read = |(oldest, network): &&(u64, Network)| {
            let waiting = state.waiting.get(network).and_then(|those| those.get(oldest));
            waiting.map(Evictable::last_read)
        };
        let chosen = heaviest.iter().take(MAX_LOOKED_AT).min_by_key(last_read);
        let (oldest, network) = *chosen.unwrap_or(&heaviest[0]);
        let now = Instant::now();
        let of_network = &state.waiting[&network];
        let looked_at = || {
            let those = of_network.iter().filter(|(number, waiting)| may_go(**number, waiting));
            those.take(MAX_LOOKED_AT)
        };
        let chosen = looked_at()
            .find(|(_, waiting)| waiting.is_silent(now))
            .or_else(|| looked_at().find(|(_, waiting)| waiting.does_nothing()));
        let chosen = chosen.map_or(oldest, |(number, _)| *number);
        self.evict(state, network, chosen);
        true
    }

    /// Evicts a connection beyond the share of its caller, if there is one: the oldest on which
    /// nothing is worked at, or the oldest of the others that `may_go`.
    fn evict_surplus(&self, state: &mut State, may_go: impl Fn(&Evictable) -> bool) -> bool {
        let mut looked_at =
            state.surplus.iter().filter(|(_, one)| !one.is_active()).take(MAX_LOOKED_AT);
        let idle = looked_at.find(|(_, one)| one.does_nothing());
        let chosen = idle.or_else(|| state.surplus.iter().find(|(_, one)| may_go(one)));
        let chosen = chosen.map(|(number, _)| *number);
        let Some(waiting) = chosen.and_then(|number| state.surplus.remove(&number)) else {
            return false;
        };
        self.send_away(state, &waiting);
        true
    }

    fn evict(&self, state: &mut State, network: Network, number: u64) {
        if let Some(waiting) = self.remove(state, network, number) {
            self.send_away(state, &waiting);
        }
    }

    fn send_away(&self, state: &mut State, waiting: &Evictable) {
        state.places -= 1;
        state.leaving += 1;
        self.limits.counters.evicted.fetch_add(1, Relaxed);
        // What serves it may be no task of ours any more.
        if let Some(stream) = waiting.stream.upgrade() {
            let _ = shutdown(&*stream, Shutdown::Both);
        }
        waiting.evicted.notify_one();
    }

    /// Takes a connection out of the unauthenticated ones, if it is among them.
    fn remove(&self, state: &mut State, network: Network, number: u64) -> Option<Evictable> {
        let of_network = state.waiting.get_mut(&network)?;
        let removed = of_network.remove(&number)?;
        if of_network.is_empty() {
            state.waiting.remove(&network);
        }
        state.waiting_count -= 1;
        self.limits.counters.unauthenticated.fetch_sub(1, Relaxed);
        Some(removed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Evictable {
    /// Whether the server waits for the client, which has sent nothing for a while or takes too long
    /// for all of it. What is asked for without credentials is answered in much less than
    /// [`STALL_TIMEOUT`]: a request that is still active then waits for the client to read.
    fn is_silent(&self, now: Instant) -> bool {
        let quiet = now.saturating_duration_since(self.last_read());
        let is_old = now.saturating_duration_since(self.since) >= MAX_AGE;
        is_old || quiet >= STALL_TIMEOUT || (quiet >= SILENT_AFTER && self.does_nothing())
    }

    /// When something has last come from the client, or else the connection was entered.
    fn last_read(&self) -> Instant {
        let last_read = Duration::from_millis(self.progress.last_read.load(Relaxed));
        self.since.max(self.progress.begun + last_read)
    }

    /// Whether it has not just come.
    fn is_old(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= SILENT_AFTER
    }

    /// Whether a request is worked at.
    fn is_active(&self) -> bool {
        *self.progress.active.borrow() > 0
    }

    /// Whether nothing of the client's is worked at, or still to be read.
    fn does_nothing(&self) -> bool {
        if self.is_active() {
            return false;
        }
        let Some(stream) = self.stream.upgrade() else { return true };
        let peeked = recv(&*stream, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        !matches!(peeked, Ok((1.., _)))
    }
}

impl Progress {
    pub(crate) fn new() -> Arc<Self> {
        let active = watch::channel(0).0;
        Arc::new(Self { begun: Instant::now(), last_read: AtomicU64::new(0), active })
    }

    pub(crate) fn has_read(&self) {
        let time = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        // 0 is for nothing.
        self.last_read.store(time.max(1), Relaxed);
    }
}

impl StartPermit {
    /// Waits until the request may begin.
    pub(crate) async fn wait(&mut self) {
        self.of_key.wait().await;
        if let Some(of_all) = &mut self.of_all {
            of_all.wait().await;
        }
    }
}

impl TableEntry {
    pub(crate) fn limits(&self) -> &ConnectionLimits {
        &self.table.limits
    }

    pub(crate) fn http2_budgets(&self) -> Arc<Http2Budgets> {
        Arc::clone(&self.table.http2_budgets)
    }

    /// Begins a request of `user`, or of an unauthenticated client.
    pub(crate) fn start(&self, user: Option<&UserName>) -> Option<StartPermit> {
        let of_key = self.starts(user).enter(self.turn_key(user)).ok()?;
        let of_all = user.is_none().then(|| self.table.starts.enter(TurnKey::Unauthenticated));
        Some(StartPermit { of_key, of_all: of_all.transpose().ok()? })
    }

    fn starts(&self, user: Option<&UserName>) -> &KeyedSemaphore<TurnKey> {
        match user {
            Some(_) => &self.table.starts,
            None => &self.table.site_starts,
        }
    }

    /// Begins to read requests of `user`, or of an unauthenticated client. Returns what to wait for, if anything: the
    /// turn among the connections, and until most of the requests that were read before have begun; of an
    /// unauthenticated client then its turn among all that are.
    pub(crate) fn read(
        &self,
        user: Option<&UserName>,
    ) -> Option<impl Future<Output = ()> + Send + Sync + use<>> {
        let (starts, key) = (self.starts(user).clone(), self.turn_key(user));
        let mut turn = self.table.reads.enter(key).ok()?;
        let pacer = user.is_none().then(|| self.table.reads_of_all.clone());
        let is_now = turn.try_wait() && starts.count_of(turn.key()) < MAX_UNSTARTED;
        if is_now && pacer.is_none() {
            return None;
        }
        Some(async move {
            let of_key = async {
                turn.wait().await;
                starts.until_fewer(turn.key(), MAX_UNSTARTED).await;
            };
            // Whose turn it is may be held up by its client.
            let _ = timeout(READ_TURN_TIMEOUT, of_key).await;
            if let Some(pacer) = pacer {
                pacer.turn().await;
            }
        })
    }

    fn turn_key(&self, user: Option<&UserName>) -> TurnKey {
        user.cloned().map_or_else(|| TurnKey::Network(self.network.site()), TurnKey::User)
    }

    pub(crate) fn count_timeout(&self) {
        self.table.limits.counters.timed_out.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_write_timeout(&self) {
        self.table.limits.counters.write_timed_out.fetch_add(1, Relaxed);
    }

    /// Resolves when the connection has to make room for another.
    pub(crate) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    pub(crate) fn set_authenticated(&self, user: &UserName) {
        let mut stage = self.stage();
        let mut state = self.table.lock();
        // One that was evicted before goes all the same.
        let Some(waiting) = self.table.remove(&mut state, self.network, self.number) else {
            return;
        };
        match self.table.shares.take(user) {
            Ok(share) => (stage.is_kept, stage.share) = (true, Some(share)),
            Err(_) => {
                stage.is_surplus = true;
                state.surplus.insert(self.number, waiting);
            }
        }
        self.free_if_upgraded(&mut state, &mut stage);
        self.table.changed.notify_waiters();
    }

    /// Notes that what the accept loop was given to serve the connection is over.
    pub(crate) fn set_served(&self) {
        let mut stage = self.stage();
        stage.is_served = true;
        self.free_if_upgraded(&mut self.table.lock(), &mut stage);
    }

    /// Notes that a request is over. It is of interest only where the connection has to make room
    /// when nothing is worked at on it.
    pub(crate) fn set_idle(&self) {
        if self.stage().is_surplus {
            self.table.idle.notify_waiters();
        }
    }

    /// Gives the place back when the socket is closed.
    pub(crate) fn leave(&self) {
        let mut stage = self.stage();
        if std::mem::replace(&mut stage.has_left, true) {
            return;
        }
        stage.share = None;
        let mut state = self.table.lock();
        if self.table.remove(&mut state, self.network, self.number).is_some()
            || state.surplus.remove(&self.number).is_some()
        {
            state.places -= 1;
        } else if !stage.is_kept {
            state.leaving -= 1;
        } else if !stage.is_free {
            state.places -= 1;
        }
        drop(state);
        self.table.limits.counters.open.fetch_sub(1, Relaxed);
        self.table.changed.notify_waiters();
        note_connection_closed();
    }

    fn free_if_upgraded(&self, state: &mut State, stage: &mut Stage) {
        if !stage.is_served || stage.is_free || stage.has_left {
            return;
        }
        if stage.is_kept || state.surplus.remove(&self.number).is_some() {
            (stage.is_kept, stage.is_free, stage.share) = (true, true, None);
            stage.is_surplus = false;
            state.places -= 1;
            self.table.changed.notify_waiters();
        }
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many requests of one caller, and of all unauthenticated clients begin at once.
pub(crate) const MAX_STARTS: usize = 32;
/// How many of one site of unauthenticated clients do: so many of each wait before one of another site has its turn.
pub(crate) const MAX_SITE_STARTS: usize = 4;
/// With so many requests of one caller, or of one site of unauthenticated clients, that were read and have not begun, no more are read.
pub(crate) const MAX_UNSTARTED: usize = 64;
/// How long a connection waits for its turn to read requests.
const READ_TURN_TIMEOUT: Duration = Duration::from_secs(1);
/// A client is silent that has sent nothing for so long.
pub(crate) const SILENT_AFTER: Duration = Duration::from_secs(1);
/// After so long it counts as silent whatever it does.
const MAX_AGE: Duration = Duration::from_secs(30);
/// How long a connection whose client sends nothing may have a request without counting as silent.
const STALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Minimum time between two looks for a connection on which nothing is worked at any more.
const IDLE_LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// So many connections of an address are looked at for one that is silent.
const MAX_LOOKED_AT: usize = 32;
/// While so many connections are about to close, no other is accepted.
const MAX_LEAVING: usize = 256;

#[cfg(test)]
mod tests;
