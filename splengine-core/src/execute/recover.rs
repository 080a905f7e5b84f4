use crate::terminal::{Orphan, Reattached};

/// Finds what an engine left running that ended without a farewell: the part of an
/// [`Execute`](crate::Execute) that can do so, which [`Execute::recovery`](crate::Execute::recovery)
/// gives.
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
    /// Makes a fresh mark for one run: the engine keeps it where it survives a crash, and gives it to
    /// [`Execute::execute`](crate::Execute::execute) with the command.
    fn mark(&self) -> String;

    /// Makes sure that nothing runs any more of what carries one of these marks, which executors of
    /// earlier processes have given.
    ///
    /// # Cancel safety
    ///
    /// The engine polls the future to its end.
    fn sweep(&self, marks: Vec<String>) -> impl Future<Output = ()> + Send;

    /// Looks after the sessions that the engine which used this store before left running: for each,
    /// either takes it over or makes sure that nothing of it runs any more. What is not among `left`, and
    /// is still kept for that engine, is ended. Gives one answer for each, in their order. Default:
    /// [sweeps](Self::sweep) them all, and takes none over.
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
