//! The batches of an engine that are not over.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::batch::journal::Journal;
use crate::batch::row::{Summary, key, now};
use crate::batch::{BatchError, BatchPolicy, BatchState};
use crate::caller::UserName;
use crate::engine::Inner;
use crate::id::BatchId;
use crate::store::Change;

pub(crate) struct Registry {
    pub(crate) policy: BatchPolicy,
    pub(crate) journal: Journal,
    state: Mutex<State>,
    /// Held by whoever looks whether an idempotency key is used, and uses it.
    pub(crate) keys: tokio::sync::Mutex<()>,
    /// How many batches are driven.
    driven: watch::Sender<usize>,
    /// Nothing more is to be started.
    pub(crate) closed: watch::Sender<bool>,
    is_watched: AtomicBool,
}

#[derive(Default)]
struct State {
    live: HashMap<BatchId, Arc<Live>>,
    /// How many steps of whom are not over.
    open: HashMap<UserName, usize>,
}

/// A batch that is not over.
pub(crate) struct Live {
    /// The number of the last event that is on disk.
    pub(crate) changed: watch::Sender<u64>,
    /// Changes when a step has printed something.
    pub(crate) printed: watch::Sender<()>,
    pub(crate) cancel: watch::Sender<bool>,
}

/// Room for a batch's steps; given back when dropped.
pub(crate) struct Room {
    engine: Weak<Inner>,
    user: UserName,
    steps: usize,
}

impl Registry {
    pub(crate) fn new(policy: BatchPolicy) -> std::io::Result<Self> {
        let journal = Journal::new(Arc::clone(&policy.store))?;
        Ok(Self {
            policy,
            journal,
            state: Mutex::default(),
            keys: tokio::sync::Mutex::new(()),
            driven: watch::channel(0).0,
            closed: watch::channel(false).0,
            is_watched: AtomicBool::new(false),
        })
    }

    /// Room for so many steps of `user`; always, for those that were accepted before.
    pub(crate) fn room(
        &self,
        engine: &Arc<Inner>,
        user: &UserName,
        steps: usize,
        always: bool,
    ) -> Result<Room, BatchError> {
        let mut state = self.state();
        let own = state.open.get(user).copied().unwrap_or(0);
        if !always && own + steps > self.policy.max_open_steps_per_caller {
            return Err(BatchError::CallerLimit { limit: self.policy.max_open_steps_per_caller });
        }
        if !always && state.open.values().sum::<usize>() + steps > self.policy.max_open_steps {
            return Err(BatchError::Full { limit: self.policy.max_open_steps });
        }
        *state.open.entry(user.clone()).or_default() += steps;
        Ok(Room { engine: Arc::downgrade(engine), user: user.clone(), steps })
    }

    pub(crate) fn begin(&self, id: &BatchId, events: u64) -> Arc<Live> {
        let live = Arc::new(Live {
            changed: watch::channel(events).0,
            printed: watch::channel(()).0,
            cancel: watch::channel(false).0,
        });
        self.state().live.insert(id.clone(), Arc::clone(&live));
        self.driven.send_modify(|count| *count += 1);
        live
    }

    pub(crate) fn end(&self, id: &BatchId) {
        self.state().live.remove(id);
        self.driven.send_modify(|count| *count -= 1);
    }

    pub(crate) fn live(&self, id: &BatchId) -> Option<Arc<Live>> {
        self.state().live.get(id).cloned()
    }

    /// How many batches are not over.
    pub(crate) fn count(&self) -> usize {
        self.state().live.len()
    }

    /// Waits until no batch is driven any more, since nothing of them runs and nothing is started.
    pub(crate) async fn idle(&self) {
        let mut driven = self.driven.subscribe();
        let _ = timeout(WRITTEN_WITHIN, driven.wait_for(|count| *count == 0)).await;
    }

    /// Removes what is kept longer, or is more, than the policy says; from now on again and again.
    pub(crate) fn watch(engine: &Arc<Inner>) {
        let Some(registry) = &engine.batches else { return };
        if registry.is_watched.swap(true, Relaxed) {
            return;
        }
        let engine = Arc::downgrade(engine);
        tokio::spawn(async move {
            loop {
                let Some(strong) = engine.upgrade() else { return };
                if let Some(registry) = &strong.batches
                    && let Err(error) = registry.forget_old().await
                {
                    tracing::warn!(%error, "old batches can't be removed");
                }
                drop(strong);
                sleep(LOOK_EVERY).await;
            }
        });
    }

    async fn forget_old(&self) -> Result<(), BatchError> {
        let rows = self.journal.scan_all(key::ended(0, ""), key::ended(u64::MAX, "")).await?;
        let bytes_of = |value: &[u8]| value.try_into().map_or(0, u64::from_be_bytes);
        let mut count = rows.len();
        let mut bytes: u64 = rows.iter().map(|(_, value)| bytes_of(value)).sum();
        let keep_for = u64::try_from(self.policy.keep_for.as_millis()).unwrap_or(u64::MAX);
        let oldest = key::ended(now().saturating_sub(keep_for), "");
        for (key, value) in rows {
            let is_old = key < oldest;
            if !is_old && count <= self.policy.keep_count && bytes <= self.policy.keep_bytes {
                break;
            }
            count -= 1;
            bytes = bytes.saturating_sub(bytes_of(&value));
            if let Some(id) = key::last_part(&key).and_then(|id| id.parse().ok()) {
                self.forget(&id, key.clone()).await?;
            }
        }
        Ok(())
    }

    async fn forget(&self, id: &BatchId, ended: Vec<u8>) -> Result<(), BatchError> {
        let mut changes = vec![
            Change::remove(key::summary(id)),
            Change::remove(key::recipe(id)),
            Change::remove(ended),
        ];
        if let Ok(Some(summary)) = self.journal.summary(id).await {
            changes.extend(listed(&summary, id, &summary.user).map(Change::remove));
            if let (Some(idempotency), Ok(user)) = (&summary.key, summary.user.parse()) {
                changes.push(Change::remove(key::idempotency(&user, idempotency)));
            }
        }
        let ranges = [
            (key::step(id, 0), key::step(id, u32::MAX)),
            (key::event(id, 0), key::event(id, u64::MAX)),
        ];
        for (from, until) in ranges {
            let rows = self.journal.scan_all(from, until).await?;
            changes.extend(rows.into_iter().map(|(key, _)| Change::remove(key)));
        }
        self.journal.commit(changes).await?;
        let (outputs, name) = (self.policy.outputs.clone(), id.to_string());
        crate::session::blocking(move || outputs.remove(&name)).await;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

impl Room {
    /// So many steps more, of a kind whose steps are not known beforehand.
    pub(crate) fn grow(&mut self, by: usize) {
        self.steps += by;
        self.change(|open| *open += by);
    }

    /// One step is over.
    pub(crate) fn shrink(&mut self) {
        if self.steps > 0 {
            self.steps -= 1;
            self.change(|open| *open = open.saturating_sub(1));
        }
    }

    fn change(&self, change: impl FnOnce(&mut usize)) {
        let Some(engine) = self.engine.upgrade() else { return };
        let Some(registry) = &engine.batches else { return };
        let mut state = registry.state();
        if let Some(open) = state.open.get_mut(&self.user) {
            change(open);
            if *open == 0 {
                state.open.remove(&self.user);
            }
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let steps = self.steps;
        self.change(|open| *open = open.saturating_sub(steps));
    }
}

const LOOK_EVERY: Duration = Duration::from_mins(1);
const WRITTEN_WITHIN: Duration = Duration::from_secs(10);
