//! What runs or waits now, listed and cancelled by its callers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::time::timeout;

use crate::auth::Caller;
use crate::execute::cancel::CancelSource;
use crate::execute::{ExecuteError, Reason, Request};
use crate::ids::{ExecutionId, IntoId};
use crate::run::rights::Reach;
use crate::user_name::UserName;

/// An execution that runs or waits, as [`Engine::executions`](crate::Engine::executions) lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecutionInfo {
    /// Id of the execution.
    pub id: ExecutionId,
    /// User who owns the execution.
    pub user: UserName,
    /// The command, its first 1000 characters; empty for a shell.
    pub command: String,
    /// Further arguments of the command, their first 1000 characters in all.
    pub args: Vec<String>,
    /// State of the execution.
    pub state: ExecutionState,
    /// Time at which it was asked for.
    pub created: SystemTime,
    /// Time at which it got its place.
    pub started: Option<SystemTime>,
}

/// State of an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ExecutionState {
    /// The execution waits for a place.
    Queued,
    /// The execution runs.
    Running,
}

impl ExecutionState {
    /// Returns the name of the state, which is the same on all servers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
        }
    }
}

/// All executions that run or wait: as many as admission lets in.
#[derive(Debug, Default)]
pub(crate) struct Executions {
    listed: Mutex<HashMap<ExecutionId, Entry>>,
    /// Notified when one is over.
    changed: Notify,
}

#[derive(Debug)]
struct Entry {
    info: ExecutionInfo,
    source: CancelSource,
}

/// An execution's place in the list, given up when dropped.
pub(crate) struct Listed {
    executions: Arc<Executions>,
    pub(crate) id: ExecutionId,
    pub(super) user: UserName,
}

impl Executions {
    pub(crate) fn enter(
        self: &Arc<Self>,
        user: &UserName,
        (command, args): (String, Vec<String>),
        state: ExecutionState,
        source: CancelSource,
    ) -> Listed {
        let (id, now) = (ExecutionId::new(), SystemTime::now());
        let info = ExecutionInfo {
            id: id.clone(),
            user: user.clone(),
            command,
            args,
            state,
            created: now,
            started: (state == ExecutionState::Running).then_some(now),
        };
        self.lock().insert(id.clone(), Entry { info, source });
        Listed { executions: Arc::clone(self), id, user: user.clone() }
    }

    /// The beginnings of a command and its arguments, which are shown.
    pub(crate) fn shown(request: &Request) -> (String, Vec<String>) {
        let command = request.command.text.as_deref().unwrap_or_default().to_string_lossy();
        let mut left = MAX_SHOWN_CHARS;
        let mut args = Vec::new();
        for arg in &request.command.args {
            if left == 0 {
                break;
            }
            let shown: String = arg.to_string_lossy().chars().take(left).collect();
            // An argument that is empty takes room, too.
            left = left.saturating_sub(shown.chars().count().max(1));
            args.push(shown);
        }
        (command.chars().take(MAX_SHOWN_CHARS).collect(), args)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ExecutionId, Entry>> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listed {
    pub(super) fn begin(&self) {
        if let Some(entry) = self.executions.lock().get_mut(&self.id) {
            entry.info.state = ExecutionState::Running;
            entry.info.started = Some(SystemTime::now());
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.executions.lock().remove(&self.id);
        self.executions.changed.notify_waiters();
    }
}

impl Executions {
    /// The executions that `caller` sees, the oldest first.
    pub(crate) fn list(&self, caller: &Caller) -> Result<Vec<ExecutionInfo>, ExecuteError> {
        let reach = Reach::of(caller)?;
        let listed = self.lock();
        let seen = listed.values().map(|entry| &entry.info);
        let mut seen: Vec<_> = seen.filter(|info| reach.covers(&info.user)).cloned().collect();
        drop(listed);
        seen.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        Ok(seen)
    }

    /// Cancels an execution, and returns when it is over, or after [`CANCEL_TIMEOUT`].
    pub(crate) async fn cancel(
        &self,
        caller: &Caller,
        id: impl IntoId<ExecutionId>,
    ) -> Result<(), ExecuteError> {
        let reach = Reach::of(caller)?;
        let id = id.into_id().map_err(ExecuteError::NoExecution)?;
        let mut changed = std::pin::pin!(self.changed.notified());
        changed.as_mut().enable();
        {
            let listed = self.lock();
            let seen = listed.get(&id).filter(|entry| reach.covers(&entry.info.user));
            seen.ok_or_else(|| ExecuteError::NoExecution(id.to_string()))?
                .source
                .stop(Reason::Cancelled);
        }
        let over = async {
            loop {
                changed.as_mut().await;
                changed.set(self.changed.notified());
                changed.as_mut().enable();
                if !self.lock().contains_key(&id) {
                    return;
                }
            }
        };
        let _ = timeout(CANCEL_TIMEOUT, over).await;
        Ok(())
    }
}

const MAX_SHOWN_CHARS: usize = 1000;
/// Time for a run to end that was told to.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(30);
