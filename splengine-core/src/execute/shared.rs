use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::execute::recover::Recover;
use crate::execute::{Cancel, Command, DynExecute, Execute, ExecuteError, Exit, Output, Stdin};
use crate::os::LimitKind;
use crate::terminal::{Orphan, Reattached, Size, Terminal};

/// Any [`Execute`], for programs that choose theirs when they run. Cheap to clone.
///
/// ```
/// use splengine_core::execute::{Cancel, Command, Exit, ExitStatus, Output, SharedExecutor, Stdin};
/// use splengine_core::{Engine, Execute, ExecuteError, LocalExecutor};
///
/// /// Does nothing, successfully.
/// struct DryRun;
///
/// impl Execute for DryRun {
///     async fn execute(
///         &self,
///         _command: Command,
///         _stdin: Stdin,
///         output: Output,
///         _cancel: Cancel,
///     ) -> Result<Exit, ExecuteError> {
///         output.started();
///         Ok(Exit::new(ExitStatus::Code(0)))
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let is_dry_run = std::env::args().any(|arg| arg == "--dry-run");
/// let executor = match is_dry_run {
///     true => SharedExecutor::new(DryRun),
///     false => SharedExecutor::new(LocalExecutor::new(".")?),
/// };
/// let engine = Engine::builder(executor).build()?;
/// # drop(engine);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SharedExecutor(Erased);

/// The same, as what recovers its runs.
#[derive(Clone)]
struct Erased(Arc<dyn DynExecute>);

impl SharedExecutor {
    /// Wraps `executor` for several engines.
    pub fn new(executor: impl Execute) -> Self {
        Self(Erased(Arc::new(executor)))
    }
}

impl Execute for SharedExecutor {
    async fn execute(
        &self,
        command: Command,
        stdin: Stdin,
        output: Output,
        cancel: Cancel,
    ) -> Result<Exit, ExecuteError> {
        Arc::clone(&self.0.0).execute_boxed(command, stdin, output, cancel).await
    }

    async fn check(&self, command: &Command) -> Result<(), ExecuteError> {
        self.0.0.check_boxed(command).await
    }

    async fn open(&self, command: Command, size: Size) -> Result<Terminal, ExecuteError> {
        self.0.0.open_boxed(command, size).await
    }

    fn recovery(&self) -> Option<&impl Recover> {
        self.0.0.recovers().then_some(&self.0)
    }

    fn root(&self) -> Option<&Path> {
        self.0.0.root()
    }

    fn has_terminals(&self) -> bool {
        self.0.0.has_terminals()
    }

    fn enforces(&self, limit: LimitKind) -> bool {
        self.0.0.enforces(limit)
    }
}

impl Recover for Erased {
    fn mark(&self) -> String {
        self.0.mark().unwrap_or_default()
    }

    async fn sweep(&self, marks: Vec<String>) {
        self.0.sweep_boxed(marks).await;
    }

    async fn adopt(&self, left: Vec<Orphan>) -> Vec<Option<Reattached>> {
        self.0.adopt_boxed(left).await
    }
}

impl fmt::Debug for SharedExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedExecutor").finish_non_exhaustive()
    }
}

/// Executes by what a pointer leads to.
macro_rules! execute_by_pointer {
    ($pointer:ident) => {
        impl<E: Execute + ?Sized> Execute for $pointer<E> {
            async fn execute(
                &self,
                command: Command,
                stdin: Stdin,
                output: Output,
                cancel: Cancel,
            ) -> Result<Exit, ExecuteError> {
                (**self).execute(command, stdin, output, cancel).await
            }

            async fn check(&self, command: &Command) -> Result<(), ExecuteError> {
                (**self).check(command).await
            }

            async fn open(&self, command: Command, size: Size) -> Result<Terminal, ExecuteError> {
                (**self).open(command, size).await
            }

            fn recovery(&self) -> Option<&impl Recover> {
                (**self).recovery()
            }

            fn root(&self) -> Option<&Path> {
                (**self).root()
            }

            fn has_terminals(&self) -> bool {
                (**self).has_terminals()
            }

            fn enforces(&self, limit: LimitKind) -> bool {
                (**self).enforces(limit)
            }
        }
    };
}

execute_by_pointer!(Arc);
execute_by_pointer!(Box);
