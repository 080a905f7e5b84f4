//! The batches of an engine that are not over.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, OnceCell, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::batch::journal::Journal;
use crate::batch::key_locks::KeyLocks;
use crate::batch::open_stdin::OpenStdin;
use crate::batch::outputs::Outputs;
use crate::batch::policy::OpenedBatches;
use crate::batch::reads::RecordReads;
use crate::batch::records::{Summary, key, now};
use crate::batch::{BatchError, BatchPolicy, BatchState};
use crate::blocking::blocking;
use crate::ids::BatchId;
use crate::quota::{Bounds, Kept, surplus};
use crate::quota::{EngineMemory, InputBudget, InputReservation};
use crate::store::Change;
use crate::time::duration_millis;
use crate::user_name::UserName;

pub(crate) struct Registry {
    pub(crate) policy: BatchPolicy,
    pub(crate) outputs: Outputs,
    /// Output of batches that the store does not know stays.
    pub(crate) keeps_strays: bool,
    pub(crate) journal: Journal,
    state: Mutex<State>,
    pub(crate) keys: Arc<KeyLocks>,
    /// What batches that are not over hold in memory.
    pub(crate) inputs: InputBudget,
    /// Memory of records that are read.
    pub(crate) reads: RecordReads,
    /// How many batches are driven.
    driven: watch::Sender<usize>,
    /// Nothing more is to be started.
    pub(crate) closed: watch::Sender<bool>,
    is_watched: AtomicBool,
    /// Number of batches that were gone on with, once that is done; nothing where they could not be
    /// read.
    pub(crate) resumed: OnceCell<Option<usize>>,
    /// Wakes the task that removes batches that are over.
    ended: Arc<Notify>,
    /// How many batches, and bytes of them, may end before a kept one has to be removed.
    slack: Mutex<(usize, u64)>,
    /// The time of the start, in milliseconds, by which ages are counted, and since when.
    epoch: (u64, Instant),
}

#[derive(Default)]
struct State {
    live: HashMap<BatchId, Arc<LiveBatch>>,
    /// How many steps of whom are not over.
    open: HashMap<UserName, usize>,
    /// How many bytes of whose batches that are not over are kept.
    printed: HashMap<UserName, u64>,
}

/// A batch that is not over.
pub(crate) struct LiveBatch {
    /// The number of the last event that is on disk.
    pub(crate) changed: watch::Sender<u64>,
    /// Changes when a step has printed something.
    pub(crate) printed: watch::Sender<()>,
    /// How often its caller has cancelled it.
    pub(crate) cancel: watch::Sender<u8>,
    /// When its first step was started, and how long ago that was then.
    begun: OnceLock<(Instant, Duration)>,
    /// Of the steps that run and keep it open, by their places.
    stdins: Mutex<HashMap<u32, OpenStdin>>,
    user: UserName,
    /// How many bytes of output are kept of it.
    bytes: AtomicU64,
}

impl LiveBatch {
    /// Its first step is started, or was so long ago.
    pub(crate) fn begin(&self, ago: Duration) {
        let _ = self.begun.set((Instant::now(), ago));
    }

    /// The standard input of a step that runs and keeps it open.
    pub(crate) fn stdin(&self, step: u32) -> Option<OpenStdin> {
        self.stdins.lock().unwrap_or_else(PoisonError::into_inner).get(&step).cloned()
    }

    /// A step runs, or does no more.
    pub(crate) fn set_stdin(&self, step: u32, stdin: Option<OpenStdin>) {
        let mut stdins = self.stdins.lock().unwrap_or_else(PoisonError::into_inner);
        match stdin {
            Some(stdin) => stdins.insert(step, stdin),
            None => stdins.remove(&step),
        };
    }

    /// How long ago its first step was started, by a clock that does not jump.
    pub(crate) fn elapsed(&self) -> Option<Duration> {
        self.begun.get().map(|(since, before)| since.elapsed().saturating_add(*before))
    }
}

/// The places of a batch's steps among those that are not over; given back when dropped.
pub(crate) struct StepQuota {
    registry: Weak<Registry>,
    user: UserName,
    steps: usize,
    /// The memory that they take.
    inputs: Option<InputReservation>,
}

impl Registry {
    pub(crate) fn new(
        policy: BatchPolicy,
        opened: OpenedBatches,
        memory: &EngineMemory,
    ) -> std::io::Result<Self> {
        let OpenedBatches { outputs, keeps_strays, last_end } = opened;
        let journal = Journal::new(Arc::clone(&policy.store))?;
        let inputs = InputBudget::new(policy.max_open_bytes, policy.max_open_bytes_per_caller);
        Ok(Self {
            epoch: (start_of(last_end, now()), Instant::now()),
            policy,
            outputs,
            keeps_strays,
            journal,
            state: Mutex::default(),
            keys: Arc::default(),
            inputs,
            reads: RecordReads::new(memory),
            driven: watch::channel(0).0,
            closed: watch::channel(false).0,
            is_watched: AtomicBool::new(false),
            resumed: OnceCell::new(),
            ended: Arc::default(),
            slack: Mutex::default(),
        })
    }

    /// The time by which ages are counted, in milliseconds: that of the wall at the start, and of a
    /// clock that does not jump since.
    pub(crate) fn now(&self) -> u64 {
        let (start, since) = self.epoch;
        start.saturating_add(duration_millis(since.elapsed()))
    }

    /// Places for so many steps of `user`; beyond the bounds too if `always`, for batches that were accepted
    /// before.
    pub(crate) fn step_quota(
        self: &Arc<Self>,
        user: &UserName,
        steps: usize,
        inputs: InputReservation,
        always: bool,
    ) -> Result<StepQuota, BatchError> {
        let mut state = self.state();
        let own = state.open.get(user).copied().unwrap_or(0);
        if !always && own + steps > self.policy.max_open_steps_per_caller {
            return Err(BatchError::CallerLimit { limit: self.policy.max_open_steps_per_caller });
        }
        if !always && state.open.values().sum::<usize>() + steps > self.policy.max_open_steps {
            return Err(BatchError::Full { limit: self.policy.max_open_steps });
        }
        *state.open.entry(user.clone()).or_default() += steps;
        let (registry, inputs) = (Arc::downgrade(self), Some(inputs));
        Ok(StepQuota { registry, user: user.clone(), steps, inputs })
    }

    pub(crate) fn begin(&self, id: &BatchId, user: &UserName, events: u64) -> Arc<LiveBatch> {
        let live = Arc::new(LiveBatch {
            changed: watch::channel(events).0,
            printed: watch::channel(()).0,
            cancel: watch::channel(0).0,
            begun: OnceLock::new(),
            stdins: Mutex::default(),
            user: user.clone(),
            bytes: AtomicU64::new(0),
        });
        self.state().live.insert(id.clone(), Arc::clone(&live));
        self.driven.send_modify(|count| *count += 1);
        live
    }

    pub(crate) fn end(&self, id: &BatchId) {
        let mut state = self.state();
        if let Some(live) = state.live.remove(id) {
            let bytes = live.bytes.load(Relaxed);
            if let Some(all) = state.printed.get_mut(&live.user) {
                *all = all.saturating_sub(bytes);
                if *all == 0 {
                    state.printed.remove(&live.user);
                }
            }
        }
        drop(state);
        self.driven.send_modify(|count| *count -= 1);
    }

    /// Counts so much output of a batch that is not over, or says why it can't be kept.
    pub(crate) fn take_output(&self, live: &LiveBatch, bytes: u64) -> Result<(), &'static str> {
        let mut state = self.state();
        let own = state.printed.get(&live.user).copied().unwrap_or(0);
        if own.saturating_add(bytes) > self.policy.keep_bytes_per_caller {
            return Err(CALLER_PRINTED);
        }
        let all = state.printed.values().fold(bytes, |sum, bytes| sum.saturating_add(*bytes));
        if all > self.policy.keep_bytes {
            return Err(ALL_PRINTED);
        }
        *state.printed.entry(live.user.clone()).or_default() += bytes;
        live.bytes.fetch_add(bytes, Relaxed);
        Ok(())
    }

    /// Counts what was kept of a batch before this engine went on with it.
    pub(crate) fn has_printed(&self, live: &LiveBatch, bytes: u64) {
        let mut state = self.state();
        let own = state.printed.entry(live.user.clone()).or_default();
        *own = own.saturating_add(bytes);
        live.bytes.fetch_add(bytes, Relaxed);
    }

    /// Has kept batches removed if, with one that has just ended, there are more than the policy allows.
    pub(crate) fn has_ended(&self, summary: &Summary) {
        let mut slack = self.slack.lock().unwrap_or_else(PoisonError::into_inner);
        let left = slack.0.checked_sub(1).zip(slack.1.checked_sub(summary.stored_bytes()));
        *slack = left.unwrap_or_default();
        let is_soon = summary.has_inputs && self.policy.keep_inputs_for < SWEEP_INTERVAL;
        if left.is_none() || is_soon {
            self.ended.notify_one();
        }
    }

    pub(crate) fn live(&self, id: &BatchId) -> Option<Arc<LiveBatch>> {
        self.state().live.get(id).cloned()
    }

    /// How many batches are not over.
    pub(crate) fn count(&self) -> usize {
        self.state().live.len()
    }

    /// Waits until no batch is driven any more, since nothing of them runs and nothing is started; for
    /// [`WRITTEN_WITHIN`] at most.
    pub(crate) async fn idle(&self) {
        let mut driven = self.driven.subscribe();
        if timeout(WRITTEN_WITHIN, driven.wait_for(|count| *count == 0)).await.is_ok() {
            return;
        }
        let left: Vec<BatchId> = self.state().live.keys().cloned().collect();
        for id in left {
            let problem = "what became of a batch is not written down in time: the next engine goes on \
                           from what was";
            tracing::warn!(batch = %id, "{problem}");
        }
    }

    /// Removes what is kept longer, or is more, than the policy says; from now on again and again.
    pub(crate) fn watch(self: &Arc<Self>) {
        if self.is_watched.swap(true, Relaxed) {
            return;
        }
        let (registry, ended) = (Arc::downgrade(self), Arc::clone(&self.ended));
        tokio::spawn(async move {
            loop {
                let Some(strong) = registry.upgrade() else { return };
                if let Err(error) = strong.forget_old().await {
                    tracing::warn!(%error, "old batches can't be removed");
                }
                drop(strong);
                sleep(MIN_SWEEP_INTERVAL).await;
                let _ = timeout(SWEEP_INTERVAL, ended.notified()).await;
            }
        });
    }

    async fn forget_old(&self) -> Result<(), BatchError> {
        if let Err(error) = self.finish_removals().await {
            tracing::warn!(%error, "what is left of removed batches can't be removed");
        }
        let rows = self.journal.scan_all(key::ended(0, ""), key::ended(u64::MAX, "")).await?;
        let age = |time: Duration| self.now().saturating_sub(duration_millis(time));
        let oldest = key::ended(age(self.policy.keep_for), "");
        let mut kept = Vec::with_capacity(rows.len());
        let mut keys = Vec::with_capacity(rows.len());
        for (key, value) in rows {
            let id: Option<BatchId> = key::last_part(&key).and_then(|id| id.parse().ok());
            let Some(id) = id else { continue };
            if key < oldest {
                self.forget(&id, key).await?;
                continue;
            }
            kept.push(self.kept(&id, &value).await);
            keys.push((id, key));
        }
        let policy = &self.policy;
        let bounds = Bounds {
            count: policy.keep_count,
            bytes: policy.keep_bytes,
            count_per_caller: policy.keep_count_per_caller,
            bytes_per_caller: policy.keep_bytes_per_caller,
        };
        let gone = surplus(&kept, bounds);
        *self.slack.lock().unwrap_or_else(PoisonError::into_inner) = slack(&kept, &gone, bounds);
        for place in gone {
            let (id, key) = &keys[place];
            self.forget(id, key.clone()).await?;
        }
        self.forget_inputs(age(policy.keep_inputs_for)).await?;
        self.forget_keys(age(policy.keep_keys_for)).await
    }

    /// What a batch that is over takes, and whose it is.
    async fn kept(&self, id: &BatchId, value: &[u8]) -> Kept {
        let (bytes, user) = value.split_first_chunk().unwrap_or((&[0; 8], &[]));
        let mut user = String::from_utf8_lossy(user).into_owned();
        if user.is_empty() {
            // Of a version that did not write it here.
            let summary = self.journal.summary(id).await;
            user = summary.ok().flatten().map(|summary| summary.user).unwrap_or_default();
        }
        Kept { user, bytes: u64::from_be_bytes(*bytes) }
    }

    /// Removes the inputs of batches that ended before.
    async fn forget_inputs(&self, before: u64) -> Result<(), BatchError> {
        let until = key::inputs(before.saturating_add(1), "");
        for (key, _) in self.journal.scan_all(key::inputs(0, ""), until).await? {
            if let Some(id) = key::last_part(&key).and_then(|id| id.parse::<BatchId>().ok()) {
                let outputs = self.outputs.clone();
                let removed = blocking(move || outputs.remove_inputs(&id)).await;
                removed.map_err(|error| BatchError::Internal(error.into()))?;
            }
            self.journal.commit(vec![Change::remove(key)]).await?;
        }
        Ok(())
    }

    /// Forgets the idempotency keys of batches that are gone, and ended before; and of each caller's
    /// the oldest that are too many.
    async fn forget_keys(&self, before: u64) -> Result<(), BatchError> {
        let rows =
            self.journal.scan_all(key::orphan(0, "", ""), key::orphan(u64::MAX, "", "")).await?;
        let mut counts: HashMap<String, usize> = HashMap::new();
        for (row, _) in rows.into_iter().rev() {
            let Some((user, text)) = key::owner(&row) else { continue };
            let count = counts.entry(user.to_owned()).or_default();
            *count += 1;
            let is_old = key::when(&row).is_none_or(|when| when < before);
            if !is_old && *count <= self.policy.keep_keys_per_caller {
                continue;
            }
            let mut changes = Vec::new();
            if let Ok(user) = user.parse() {
                changes.push(Change::remove(key::idempotency(&user, text)));
            }
            changes.push(Change::remove(row));
            self.journal.commit(changes).await?;
        }
        Ok(())
    }

    pub(crate) async fn forget(&self, id: &BatchId, ended: Vec<u8>) -> Result<(), BatchError> {
        let when = key::when(&ended).unwrap_or_default();
        let mut changes = vec![
            Change::remove(key::summary(id)),
            Change::remove(key::recipe(id)),
            Change::remove(key::inputs(when, id.as_str())),
            Change::remove(ended),
        ];
        if let Ok(Some(summary)) = self.journal.summary(id).await {
            changes.extend(listed(&summary, id, &summary.user).map(Change::remove));
            if let Some(text) = &summary.key {
                // A repetition must not make a second batch because the first was removed to keep others.
                changes.push(Change::set(key::orphan(when, &summary.user, text), []));
            }
        }
        changes.push(Change::set(key::removed(id.as_str()), []));
        // First, so that no inputs are left of a batch that nobody knows.
        let (outputs, of) = (self.outputs.clone(), id.clone());
        if let Err(error) = blocking(move || outputs.remove_inputs(&of)).await {
            tracing::warn!(%error, batch = %id, "the inputs of a batch can't be removed");
        }
        self.journal.commit(changes).await?;
        let (outputs, name) = (self.outputs.clone(), id.to_string());
        blocking(move || outputs.remove(&name)).await;
        self.remove_rows(id).await
    }

    /// Removes the rows of a batch that nobody finds any more. There may be very many: so a part at a
    /// time, between which others write.
    async fn remove_rows(&self, id: &BatchId) -> Result<(), BatchError> {
        let ranges = [
            (key::step(id, 0), key::step(id, u32::MAX)),
            (key::event(id, 0), key::event(id, u64::MAX)),
        ];
        for (from, until) in ranges {
            loop {
                let rows =
                    self.journal.scan(from.clone(), until.clone(), false, REMOVED_ROWS).await?;
                if rows.is_empty() {
                    break;
                }
                let changes = rows.into_iter().map(|(key, _)| Change::remove(key)).collect();
                self.journal.commit(changes).await?;
            }
        }
        self.journal.commit(vec![Change::remove(key::removed(id.as_str()))]).await?;
        Ok(())
    }

    /// Goes on where an engine ended, or a future was dropped, while rows were removed.
    async fn finish_removals(&self) -> Result<(), BatchError> {
        let until = key::removed("\u{7f}");
        for (key, _) in self.journal.scan_all(key::removed(""), until).await? {
            match key::last_part(&key).and_then(|id| id.parse().ok()) {
                Some(id) => self.remove_rows(&id).await?,
                None => self.journal.commit(vec![Change::remove(key)]).await?,
            }
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// By which ages are counted at the start: not beyond a day after the last end, so that a clock that
/// was set wrong costs no batch more than a day of its time.
fn start_of(last_end: Option<u64>, now: u64) -> u64 {
    last_end.map_or(now, |last| last.saturating_add(now.saturating_sub(last).min(MAX_DOWNTIME)))
}

/// How many batches, and bytes of them, may end before one of `kept` has to be removed.
fn slack(kept: &[Kept], gone: &[usize], bounds: Bounds) -> (usize, u64) {
    let mut shares: HashMap<&str, (usize, u64)> = HashMap::new();
    let mut all = (0_usize, 0_u64);
    for (place, batch) in kept.iter().enumerate() {
        if gone.binary_search(&place).is_err() {
            let share = shares.entry(&batch.user).or_default();
            for sum in [share, &mut all] {
                *sum = (sum.0 + 1, sum.1.saturating_add(batch.bytes));
            }
        }
    }
    let most_count = shares.values().map(|share| share.0).max().unwrap_or(0);
    let most_bytes = shares.values().map(|share| share.1).max().unwrap_or(0);
    let count = bounds.count_per_caller.saturating_sub(most_count);
    let bytes = bounds.bytes_per_caller.saturating_sub(most_bytes);
    (count.min(bounds.count.saturating_sub(all.0)), bytes.min(bounds.bytes.saturating_sub(all.1)))
}

/// The keys by which a batch is listed.
pub(crate) fn listed(
    summary: &Summary,
    id: &BatchId,
    user: &str,
) -> impl Iterator<Item = Vec<u8>> + use<> {
    let state: BatchState = summary.state();
    [key::of_user(user, id.as_str()), key::of_user_in(user, state, id.as_str())].into_iter()
}

impl StepQuota {
    /// So many steps more, which take so much memory, of a kind whose steps are not known beforehand.
    pub(crate) fn grow(&mut self, by: usize, bytes: usize) {
        if let Some(inputs) = &mut self.inputs {
            inputs.grow(bytes);
        }
        self.steps += by;
        self.change(|open| *open += by);
    }

    /// The batch is over: what its steps were given is needed no more.
    pub(crate) fn give_back_inputs(&mut self) {
        self.inputs = None;
    }

    /// One step is over.
    pub(crate) fn shrink(&mut self) {
        if self.steps > 0 {
            self.steps -= 1;
            self.change(|open| *open = open.saturating_sub(1));
        }
    }

    fn change(&self, change: impl FnOnce(&mut usize)) {
        let Some(registry) = self.registry.upgrade() else { return };
        let mut state = registry.state();
        if let Some(open) = state.open.get_mut(&self.user) {
            change(open);
            if *open == 0 {
                state.open.remove(&self.user);
            }
        }
    }
}

impl Drop for StepQuota {
    fn drop(&mut self) {
        let steps = self.steps;
        self.change(|open| *open = open.saturating_sub(steps));
    }
}

const CALLER_PRINTED: &str = "the rest of what it printed is not kept: your batches that are not over \
    have printed as much as is kept of one caller";
const ALL_PRINTED: &str = "the rest of what it printed is not kept: the batches that are not over have \
    printed as much as is kept of all";
const SWEEP_INTERVAL: Duration = Duration::from_mins(1);
/// Not more often than that.
const MIN_SWEEP_INTERVAL: Duration = Duration::from_millis(200);
/// How many rows of a batch are removed at a time.
const REMOVED_ROWS: usize = 512;
/// A day, in milliseconds.
const MAX_DOWNTIME: u64 = 24 * 60 * 60 * 1000;
const WRITTEN_WITHIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_wrong_costs_a_day_at_most() {
        assert_eq!(start_of(None, 5_000), 5_000);
        assert_eq!(start_of(Some(5_000), 6_000), 6_000);
        assert_eq!(start_of(Some(5_000), 1_000), 5_000);
        assert_eq!(start_of(Some(5_000), u64::MAX), 5_000 + MAX_DOWNTIME);
    }

    /// The tests' clock goes on, and the wall's does not: which of them counts.
    #[tokio::test(start_paused = true)]
    async fn ages_are_counted_by_a_clock_that_does_not_jump() {
        let outputs = tempfile::tempdir().expect("a directory");
        let store = crate::store::MemoryStore::new();
        let policy = BatchPolicy::new(store, outputs.path());
        let opened = policy.open(policy.open_outputs().expect("writable")).expect("new");
        let memory = EngineMemory::new(1 << 20);
        let registry = Registry::new(policy, opened, &memory).expect("a thread");
        let before = registry.now();
        tokio::time::advance(Duration::from_hours(1)).await;
        let passed = registry.now() - before;
        assert!((3_600_000..3_610_000).contains(&passed), "{passed} ms");
    }

    #[test]
    fn there_is_slack_until_the_first_bound_is_reached() {
        let bounds = Bounds { count: 10, bytes: 1000, count_per_caller: 4, bytes_per_caller: 300 };
        let kept = |user: &str, bytes| Kept { user: user.to_owned(), bytes };
        assert_eq!(slack(&[], &[], bounds), (4, 300));
        let all = [kept("a", 900), kept("a", 100), kept("a", 50), kept("b", 200)];
        assert_eq!(slack(&all, &[0], bounds), (2, 100));
        assert_eq!(slack(&all, &[], bounds), (1, 0));
    }
}
