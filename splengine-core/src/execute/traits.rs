use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use crate::error::Field;
use crate::execute::recover::{NoRecovery, Recover};
use crate::execute::{Cancel, Command, ExecuteError, Exit, Output, Stdin};
use crate::os::LimitKind;
use crate::terminal::{Orphan, Reattached, Size, Terminal};

/// Runs commands: on this host ([`LocalExecutor`](crate::LocalExecutor)), in a container, on a cluster.
/// The module `testing`, behind the feature of the same name, has helpers for its unit tests and a
/// conformance suite. Implement it with a plain `async fn`:
///
/// ```
/// use splengine_core::{Bytes, Execute, ExecuteError};
/// use splengine_core::execute::{Cancel, Command, Exit, ExitStatus, Output, Stdin, Stream};
///
/// /// Says what it was told to do, and does nothing.
/// struct Parrot;
///
/// impl Execute for Parrot {
///     async fn execute(
///         &self,
///         command: Command,
///         _stdin: Stdin,
///         output: Output,
///         _cancel: Cancel,
///     ) -> Result<Exit, ExecuteError> {
///         output.started();
///         let line = command.text_argv()?.join(" ") + "\n";
///         let _ = output.write(Stream::Stdout, Bytes::from(line)).await;
///         Ok(Exit::new(ExitStatus::Code(0)))
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(note = "implement `Execute`, or use `LocalExecutor`")]
pub trait Execute: Send + Sync + 'static {
    /// Runs `command` to its end and writes what it prints to `output`. It calls [`Output::started`]
    /// once the program runs. When `cancel` resolves, it ends the program and all that the program
    /// started, and reports an exit that is [`Exit::stopped`].
    ///
    /// # Errors
    ///
    /// [`ExecuteError`] when it did not start. An error after [`Output::started`] means that the end of
    /// the run is not known: it ends as [`Reason::Lost`](crate::Reason::Lost).
    ///
    /// # Cancel safety
    ///
    /// The engine polls the future once in the task that asked for the run, and then to its end in a
    /// task of its own. So it must not block, above all in its first poll, to which no time limit and
    /// no request to stop applies. The engine drops the future early in one case: when it has not ended
    /// within the command's grace and ten seconds after `cancel` resolved.
    fn execute(
        &self,
        command: Command,
        stdin: Stdin,
        output: Output,
        cancel: Cancel,
    ) -> impl Future<Output = Result<Exit, ExecuteError>> + Send;

    /// Checks whether `command` could start now, without starting it. Called when it has to wait in the
    /// queue, so that a command that can never work is refused at once. Default: every command could
    /// start.
    ///
    /// # Errors
    ///
    /// The [`ExecuteError`] that [`execute`](Self::execute) would give.
    ///
    /// # Cancel safety
    ///
    /// The engine drops the future when the request that it is for is given up: it must leave
    /// nothing behind.
    fn check(&self, command: &Command) -> impl Future<Output = Result<(), ExecuteError>> + Send {
        let _ = command;
        std::future::ready(Ok(()))
    }

    /// Starts `command` in a terminal of this size. Default: an error, since the executor has no
    /// terminals.
    ///
    /// # Errors
    ///
    /// [`ExecuteError`] when it did not start.
    ///
    /// # Cancel safety
    ///
    /// The engine polls the future to its end.
    fn open(
        &self,
        command: Command,
        size: Size,
    ) -> impl Future<Output = Result<Terminal, ExecuteError>> + Send {
        let _ = (command, size);
        let problem = "can't be had: this engine has no terminals".to_owned();
        std::future::ready(Err(ExecuteError::Impossible { field: Field::Session, problem }))
    }

    /// Returns what finds the executor's runs again after a crash of the engine's process. Default:
    /// `None`, so what runs then is not ended by the next engine.
    fn recovery(&self) -> Option<&impl Recover> {
        None::<&NoRecovery>
    }

    /// Returns the directory of this host below which commands work, as an absolute path by which commands
    /// name it, too. An engine serves [files](crate::files::FilePolicy::new) below it unless it was given
    /// another. Default: `None`, as of an executor whose commands run on another host.
    fn root(&self) -> Option<&Path> {
        None
    }

    /// Returns whether [`open`](Self::open) can work. Default: no.
    fn has_terminals(&self) -> bool {
        false
    }

    /// Returns whether the executor enforces this limit. Requests with a limit that is not enforced are
    /// refused. Default: `false` for all.
    fn enforces(&self, limit: LimitKind) -> bool {
        let _ = limit;
        false
    }
}

pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The dyn-compatible counterpart of [`Execute`].
pub(crate) trait DynExecute: Send + Sync {
    fn execute_boxed(
        self: Arc<Self>,
        command: Command,
        stdin: Stdin,
        output: Output,
        cancel: Cancel,
    ) -> BoxFuture<'static, Result<Exit, ExecuteError>>;
    fn check_boxed<'a>(&'a self, command: &'a Command) -> BoxFuture<'a, Result<(), ExecuteError>>;
    fn open_boxed(
        &self,
        command: Command,
        size: Size,
    ) -> BoxFuture<'_, Result<Terminal, ExecuteError>>;
    fn adopt_boxed(&self, left: Vec<Orphan>) -> BoxFuture<'_, Vec<Option<Reattached>>>;
    fn recovers(&self) -> bool;
    fn mark(&self) -> Option<String>;
    fn sweep_boxed(&self, marks: Vec<String>) -> BoxFuture<'_, ()>;
    fn root(&self) -> Option<&Path>;
    fn has_terminals(&self) -> bool;
    fn enforces(&self, limit: LimitKind) -> bool;
}

impl<E: Execute> DynExecute for E {
    fn execute_boxed(
        self: Arc<Self>,
        command: Command,
        stdin: Stdin,
        output: Output,
        cancel: Cancel,
    ) -> BoxFuture<'static, Result<Exit, ExecuteError>> {
        Box::pin(async move { self.execute(command, stdin, output, cancel).await })
    }

    fn check_boxed<'a>(&'a self, command: &'a Command) -> BoxFuture<'a, Result<(), ExecuteError>> {
        Box::pin(self.check(command))
    }

    fn open_boxed(
        &self,
        command: Command,
        size: Size,
    ) -> BoxFuture<'_, Result<Terminal, ExecuteError>> {
        Box::pin(self.open(command, size))
    }

    fn adopt_boxed(&self, left: Vec<Orphan>) -> BoxFuture<'_, Vec<Option<Reattached>>> {
        match self.recovery() {
            Some(recovery) => Box::pin(recovery.adopt(left)),
            None => Box::pin(std::future::ready(left.iter().map(|_| None).collect())),
        }
    }

    fn recovers(&self) -> bool {
        self.recovery().is_some()
    }

    fn mark(&self) -> Option<String> {
        self.recovery().map(Recover::mark)
    }

    fn sweep_boxed(&self, marks: Vec<String>) -> BoxFuture<'_, ()> {
        match self.recovery() {
            Some(recovery) => Box::pin(recovery.sweep(marks)),
            None => Box::pin(std::future::ready(())),
        }
    }

    fn root(&self) -> Option<&Path> {
        Execute::root(self)
    }

    fn has_terminals(&self) -> bool {
        Execute::has_terminals(self)
    }

    fn enforces(&self, limit: LimitKind) -> bool {
        Execute::enforces(self, limit)
    }
}
