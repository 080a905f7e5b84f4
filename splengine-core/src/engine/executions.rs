use crate::auth::Caller;
use crate::engine::Engine;
use crate::execute::ExecuteError;
use crate::run::ExecutionInfo;

impl Engine {
    /// Lists the caller's executions that run or wait now, or those of all callers for who has
    /// [`Scope::Admin`], the oldest first: at most as many as
    /// [may](crate::engine::EngineBuilder::max_running) run and [wait](crate::engine::EngineBuilder::max_waiting).
    /// The steps of batches and sessions are not among them.
    ///
    /// # Errors
    ///
    /// [`ExecuteError::Forbidden`] for who has neither [`Scope::Execute`] nor [`Scope::Admin`].
    pub fn executions(&self, caller: &Caller) -> Result<Vec<ExecutionInfo>, ExecuteError> {
        self.0.runner.executions.list(caller)
    }

    /// Cancels an execution that the caller [sees](Self::executions): it ends as
    /// [`Reason::Cancelled`], or, where it waits, leaves the queue with that end. Returns when it is
    /// over, or after 30 s.
    ///
    /// # Errors
    ///
    /// [`ExecuteError::NoExecution`] when the caller sees none by this name, as when it is over;
    /// [`ExecuteError::Forbidden`] as for [`executions`](Self::executions).
    ///
    /// # Cancel safety
    ///
    /// The cancellation takes its course when the future is dropped.
    pub async fn cancel_execution(&self, caller: &Caller, id: &str) -> Result<(), ExecuteError> {
        self.0.runner.executions.cancel(caller, id).await
    }
}
