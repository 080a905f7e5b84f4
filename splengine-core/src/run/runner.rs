use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::execute::{DynExecute, ExecuteError};
use crate::quota::{CallerBudgets, DiskReserve, EngineMemory, InputBudget, LargeWork};
use crate::run::admission::Admission;
use crate::run::executions::Executions;
use crate::run::policy::Policy;
use crate::run::shutdown_stage::ShutdownStage;
use crate::run::stats::Counters;
use crate::user_name::UserName;

/// Runs commands for callers under an engine's policy: what the engine, its sessions and its batches
/// share.
pub(crate) struct Runner {
    pub(crate) executor: Arc<dyn DynExecute>,
    pub(crate) policy: Policy,
    pub(crate) admission: Arc<Admission>,
    pub(crate) counters: Counters,
    pub(crate) executions: Arc<Executions>,
    pub(crate) max_running: usize,
    pub(crate) shutdown: watch::Sender<ShutdownStage>,
    pub(crate) reserve: DiskReserve,
    /// What executions that run or wait hold in memory.
    pub(crate) inputs: InputBudget,
    pub(crate) memory: EngineMemory,
    /// Permits to look at large requests, and what adapters do with them.
    pub(crate) large_work: LargeWork,
    /// What is kept in memory of executions' output.
    pub(crate) captures: CallerBudgets,
}

impl Runner {
    /// Whether new work is taken.
    pub(crate) fn is_open(&self) -> bool {
        self.admission.is_open()
    }

    pub(crate) fn count_failed_start(&self, user: &UserName, error: &ExecuteError) {
        self.counters.count_refusal(error.kind());
        if let ExecuteError::Internal(source) = error {
            tracing::error!(%user, %source, "an execution failed to start");
        }
    }

    /// Resolves when the engine ends what runs.
    pub(crate) async fn stopped(&self) {
        let mut shutdown = self.shutdown.subscribe();
        // The sender lives as long as this.
        let _ = shutdown.wait_for(|shutdown| *shutdown >= ShutdownStage::Stopping).await;
    }

    /// When a place may be free: the time that the present queue takes, between 1 and 60 s.
    pub(super) fn retry_after(&self) -> Duration {
        let (_, waiting) = self.admission.counts();
        let places = u32::try_from(self.max_running).unwrap_or(u32::MAX);
        let turns = u32::try_from(waiting).unwrap_or(u32::MAX);
        let wait = self.counters.run.mean().saturating_mul(turns) / places;
        wait.clamp(Duration::from_secs(1), Duration::from_mins(1))
    }
}
