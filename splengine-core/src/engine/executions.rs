use crate::auth::Caller;
use crate::engine::Engine;
use crate::execute::ExecuteError;
use crate::ids::{ExecutionId, IntoId};
use crate::run::ExecutionInfo;

impl Engine {
    /// Lists the caller's executions that run or wait now, or those of all callers for a caller with
    /// [`Scope::Admin`](crate::Scope::Admin), the oldest first: at most as many as
    /// [may](crate::engine::EngineBuilder::max_running) run and
    /// [wait](crate::engine::EngineBuilder::max_waiting). The steps of batches and sessions are not
    /// among them.
    ///
    /// Whoever started an execution has its handle, the [`Run`](crate::Run): its id in this list is
    /// [`Run::execution_id`](crate::Run::execution_id), [`Run::stopper`](crate::Run::stopper) stops it from
    /// another task, and [`Run::capture`](crate::Run::capture) or [`Run::next`](crate::Run::next) gives its
    /// end. The list and [`cancel_execution`](Self::cancel_execution) are for those who have no `Run`, such as
    /// another connection of the caller, and administrators.
    ///
    /// ```
    /// use splengine_core::engine::ExecutionState;
    /// use splengine_core::{Caller, Engine, LocalExecutor, Reason, Request};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
    /// # let alice = Caller::new("alice")?.with_all_scopes();
    /// let run = engine.execute(&alice, Request::new("sleep 600")).await?;
    /// let [sleeping] = &engine.executions(&alice)?[..] else { panic!("there is one") };
    /// assert_eq!((&sleeping.command[..], sleeping.state), ("sleep 600", ExecutionState::Running));
    /// assert_eq!(Some(&sleeping.id), run.execution_id());
    ///
    /// engine.cancel_execution(&alice, &sleeping.id).await?;
    /// assert_eq!(run.capture().await.end.reason, Reason::Cancelled);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ExecuteError::Forbidden`] for a caller that has neither
    /// [`Scope::Execute`](crate::Scope::Execute) nor [`Scope::Admin`](crate::Scope::Admin).
    pub fn executions(&self, caller: &Caller) -> Result<Vec<ExecutionInfo>, ExecuteError> {
        self.0.runner.executions.list(caller)
    }

    /// Cancels an execution that the caller [sees](Self::executions): it ends as
    /// [`Reason::Cancelled`](crate::Reason::Cancelled), or, where it waits, leaves the queue with that
    /// end. Returns when it is
    /// over, or after 30 s.
    ///
    /// # Errors
    ///
    /// [`ExecuteError::NoExecution`] when the caller sees none by this name, as when it is over;
    /// [`ExecuteError::Forbidden`] as for [`executions`](Self::executions).
    ///
    /// # Cancel safety
    ///
    /// The cancellation continues when the future is dropped.
    pub async fn cancel_execution(
        &self,
        caller: &Caller,
        id: impl IntoId<ExecutionId>,
    ) -> Result<(), ExecuteError> {
        self.0.runner.executions.cancel(caller, id).await
    }
}
