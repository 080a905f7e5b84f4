//! Standard input of steps that is not part of the batch: the output of another step, and what is
//! written while they run.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;

use crate::auth::Caller;
use crate::batch::journal::Journal;
use crate::batch::outputs::Outputs;
use crate::batch::registry::LiveBatch;
use crate::batch::{BatchError, Batches};
use crate::blocking::blocking;
use crate::error::Field;
use crate::execute::{ExecuteError, Stdin, Stream};
use crate::ids::{BatchId, IntoId};
use crate::quota::CallerLargeWork;
use crate::root::exhausted_or_internal;

/// What another step printed.
pub(crate) struct StepOutputSource {
    pub(crate) outputs: Outputs,
    pub(crate) journal: Journal,
    pub(crate) work: CallerLargeWork,
    pub(crate) batch: BatchId,
    pub(crate) place: u32,
    /// What the step is called.
    pub(crate) id: String,
    pub(crate) stream: Stream,
}

impl StepOutputSource {
    /// All of it, or why the step that is to read it can't be started.
    pub(crate) async fn open(&self) -> Result<Stdin, ExecuteError> {
        let failed = |problem: &str| ExecuteError::Impossible {
            field: Field::StdinFrom,
            problem: format!("names `{}`, {problem}", self.id),
        };
        let summary = self.journal.summary(&self.batch).await.map_err(ExecuteError::internal)?;
        if summary.is_none() {
            return Err(failed("which was run by a batch that is kept no longer"));
        }
        let row = self.journal.step(&self.batch, self.place, &self.work).await;
        let row = row.map_err(ExecuteError::internal)?;
        let gap = match self.stream {
            Stream::Stdout => row.stdout_gap,
            Stream::Stderr => row.stderr_gap,
        };
        if gap.is_some() {
            return Err(failed("of whose output a part was not kept"));
        }
        let (outputs, batch) = (self.outputs.clone(), self.batch.clone());
        let (place, stream) = (self.place, self.stream);
        let file = blocking(move || outputs.read_stream(&batch, place, row.attempt, stream)).await;
        match file {
            Ok(file) => Ok(Stdin::reader(tokio::fs::File::from_std(file))),
            // It printed nothing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Stdin::null()),
            Err(error) => Err(exhausted_or_internal(error)),
        }
    }
}

impl Batches {
    /// Writes to the standard input of a step that runs and [keeps it open](crate::Step::open_stdin),
    /// and closes it then if `end` is set. Waits until the program has read all but the last 64 KiB.
    /// The data of concurrent calls is not mixed.
    ///
    /// ```
    /// use splengine_core::batch::{BatchEventKind, BatchPolicy};
    /// use splengine_core::execute::Stream;
    /// use splengine_core::store::MemoryStore;
    /// use splengine_core::{BatchRequest, Caller, Engine, LocalExecutor, Step};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let outputs = tempfile::tempdir()?;
    /// # let policy = BatchPolicy::new(MemoryStore::new(), outputs.path());
    /// # let engine = Engine::builder(LocalExecutor::new(".")?).batches(policy).build()?;
    /// # let alice = Caller::new("alice")?.with_all_scopes();
    /// let batches = engine.batches();
    /// let request = BatchRequest::new().step(Step::new("cat").id("copy").open_stdin());
    /// let id = batches.submit(&alice, request, None).await?.record.info.id;
    /// let mut events = batches.events(&alice, &id, 0).await?;
    /// while let Some(event) = events.next().await? {
    ///     if matches!(event.what, BatchEventKind::Started { .. }) {
    ///         break;
    ///     }
    /// }
    /// # while batches.write_stdin(&alice, &id, "copy", "".into(), false).await.is_err() {
    /// #     tokio::task::yield_now().await;
    /// # }
    /// batches.write_stdin(&alice, &id, "copy", "hello".into(), true).await?;
    /// batches.wait(&alice, &id).await?;
    /// let output = batches.output(&alice, &id, "copy", Stream::Stdout, None).await?;
    /// assert_eq!(output.read(0, 100).await?, "hello");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`BatchError::NoBatch`], [`BatchError::NoStep`], [`BatchError::Forbidden`],
    /// [`BatchError::NoStore`]; [`BatchError::Conflict`] when the step does not run, its standard input
    /// is not open, or the program reads no more, which may be after a part was written;
    /// [`BatchError::ReadLimit`], as [`get`](Self::get): the names of the steps are read.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped a part may have been written.
    pub async fn write_stdin(
        &self,
        caller: &Caller,
        id: impl IntoId<BatchId>,
        step: &str,
        data: Bytes,
        end: bool,
    ) -> Result<(), BatchError> {
        let id = &self.id(caller, id)?;
        let (place, is_open) = self.stdin_of(caller, id, step).await?;
        if !is_open {
            return Err(BatchError::Conflict("this step did not ask for its standard input"));
        }
        let live: Option<Arc<LiveBatch>> = self.registry()?.live(id);
        let stdin = live.and_then(|live| live.stdin(place));
        let stdin = stdin.ok_or(BatchError::Conflict("this step does not run"))?;
        let mut stdin = stdin.lock().await;
        let Some(pipe) = stdin.as_mut() else {
            return Err(BatchError::Conflict("the standard input of this step was ended already"));
        };
        if pipe.write_all(&data).await.is_err() {
            return Err(BatchError::Conflict("this step reads its standard input no more"));
        }
        if end {
            *stdin = None;
        }
        Ok(())
    }
}
