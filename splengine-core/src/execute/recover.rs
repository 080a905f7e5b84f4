use crate::terminal::{Orphan, Reattached};

/// Finds the runs that an engine left when it was killed: an optional part of an
/// [`Execute`](crate::Execute), which [`Execute::recovery`](crate::Execute::recovery) returns.
///
/// ```
/// use std::collections::HashSet;
/// use std::sync::Mutex;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use splengine_core::execute::{Cancel, Command, Exit, ExitStatus, Output, Recover, Stdin};
/// use splengine_core::{Execute, ExecuteError};
///
/// /// Runs commands as jobs of a cluster, which go on whatever becomes of this process.
/// #[derive(Default)]
/// struct Cluster {
///     jobs: Mutex<HashSet<String>>,
///     next: AtomicU64,
/// }
///
/// impl Execute for Cluster {
///     async fn execute(
///         &self,
///         command: Command,
///         _stdin: Stdin,
///         output: Output,
///         _cancel: Cancel,
///     ) -> Result<Exit, ExecuteError> {
///         // The job is labelled, so that it can be found.
///         self.jobs.lock().unwrap().extend(command.mark.clone());
///         output.started();
///         Ok(Exit::new(ExitStatus::Code(0)))
///     }
///
///     fn recovery(&self) -> Option<&impl Recover> {
///         Some(self)
///     }
/// }
///
/// impl Recover for Cluster {
///     fn mark(&self) -> String {
///         let number = self.next.fetch_add(1, Ordering::Relaxed);
///         format!("splengine-{}-{number}", std::process::id())
///     }
///
///     async fn sweep(&self, marks: Vec<String>) {
///         self.jobs.lock().unwrap().retain(|label| !marks.contains(label));
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    note = "implement `Recover` for what finds runs again, and return it from `Execute::recovery`"
)]
pub trait Recover: Send + Sync {
    /// Makes a new mark for one run: the engine stores it so that it survives a crash, and passes it to
    /// [`Execute::execute`](crate::Execute::execute) with the command.
    fn mark(&self) -> String;

    /// Ends everything that carries one of these marks, which executors of earlier processes have made,
    /// and returns when nothing of it runs.
    ///
    /// # Cancel safety
    ///
    /// The engine polls the future to its end.
    fn sweep(&self, marks: Vec<String>) -> impl Future<Output = ()> + Send;

    /// Takes over, or ends, the sessions that the engine before this one left running in the same
    /// store: for each, either its terminal is returned, or nothing of it runs any more. Sessions of
    /// that engine that are not in `left` are ended. Returns one answer for each, in their order.
    /// Default: [sweeps](Self::sweep) them all, and takes none over.
    ///
    /// # Cancel safety
    ///
    /// The engine polls the future to its end.
    fn adopt(&self, left: Vec<Orphan>) -> impl Future<Output = Vec<Option<Reattached>>> + Send {
        async move {
            let none = left.iter().map(|_| None).collect();
            self.sweep(left.into_iter().filter_map(|one| one.mark).collect()).await;
            none
        }
    }
}

/// Stands for the recovery of executors that have none.
pub(super) enum NoRecovery {}

impl Recover for NoRecovery {
    fn mark(&self) -> String {
        match *self {}
    }

    async fn sweep(&self, _: Vec<String>) {
        match *self {}
    }
}
