//! The output of a run of a step, which may still grow.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use crate::batch::BatchError;
use crate::batch::journal::Journal;
use crate::batch::outputs::{Outputs, Part, name_of};
use crate::batch::records::StepRow;
use crate::batch::registry;
use crate::blocking::blocking;
use crate::execute::{Gap, Stream};
use crate::ids::BatchId;
use crate::quota::CallerLargeWork;

/// Output of one run of a step, which may still grow.
///
/// ```
/// use splengine_core::BatchError;
/// use splengine_core::batch::StepOutput;
///
/// /// Copies what a run of a step prints while it prints it, until that is over.
/// async fn follow(output: &StepOutput, mut to: impl std::io::Write) -> Result<(), BatchError> {
///     let mut offset = 0;
///     while output.grows(offset).await? {
///         let data = output.read(offset, 64 << 10).await?;
///         to.write_all(&data).map_err(|error| BatchError::Internal(error.into()))?;
///         offset += data.len() as u64;
///     }
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone)]
pub struct StepOutput {
    outputs: Outputs,
    /// While its batch is driven.
    live: Option<OutputInProgress>,
    id: BatchId,
    step: u32,
    attempt: u32,
    /// How often the step was run, as far as was known when this was made.
    last_attempt: u32,
    pub(crate) part: Part,
    pub(crate) gap: GapSearch,
}

/// What was looked at of a run's index, which only grows.
#[derive(Debug, Clone, Default)]
pub(crate) struct GapSearch {
    /// As the record of the step tells it, once the run is over.
    pub(crate) recorded: Option<Option<Gap>>,
    pub(crate) found: Option<Gap>,
    pub(crate) index_offset: u64,
    pub(crate) stream_offset: u64,
}

/// Where to find out what becomes of the step, and when to look. Does not keep the batch from being
/// over: its followers are told when the engine shuts down.
#[derive(Clone)]
struct OutputInProgress {
    journal: Journal,
    work: CallerLargeWork,
    changed: watch::Receiver<u64>,
    printed: watch::Receiver<()>,
}

impl OutputInProgress {
    /// Returns what is written of the step now.
    async fn row(&self, of: &StepOutput) -> Result<StepRow, BatchError> {
        self.journal.step(&of.id, of.step, &self.work).await
    }
}

impl std::fmt::Debug for OutputInProgress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").finish_non_exhaustive()
    }
}

impl StepOutput {
    pub(crate) fn new(
        outputs: Outputs,
        live: Option<(Journal, CallerLargeWork, Arc<registry::LiveBatch>)>,
        id: BatchId,
        step: u32,
        (attempt, last_attempt): (u32, u32),
        stream: Stream,
    ) -> Self {
        let live = live.map(|(journal, work, live)| OutputInProgress {
            journal,
            work,
            changed: live.changed.subscribe(),
            printed: live.printed.subscribe(),
        });
        let (part, gap) = (stream.into(), GapSearch::default());
        Self { outputs, live, id, step, attempt, last_attempt, part, gap }
    }

    /// Another part of the same run.
    pub(crate) fn part(&self, part: Part) -> Self {
        Self { part, gap: GapSearch::default(), ..self.clone() }
    }

    /// Returns the number of the run that printed it, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Returns a name of the batch, the step, the run and the stream. As long as the name is the same,
    /// what was read at an offset does not change; more may follow it.
    #[must_use]
    pub fn revision(&self) -> String {
        format!("{}-{}", self.id, name_of(self.step, self.attempt, self.part))
    }

    /// Returns whether this run of the step is over, so that nothing more is printed.
    ///
    /// # Errors
    ///
    /// [`BatchError::Internal`] when that can't be found out.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn is_over(&self) -> Result<bool, BatchError> {
        match &self.live {
            Some(live) => Ok(self.has_ended(&live.row(self).await?)),
            None => Ok(true),
        }
    }

    /// The gap that the record of the step tells, which is that of its last run, once that is over.
    pub(crate) async fn recorded_gap(&self) -> Result<Option<Option<Gap>>, BatchError> {
        let (Part::Stream(stream), Some(live)) = (self.part, &self.live) else { return Ok(None) };
        let row = live.row(self).await?;
        let is_recorded = row.attempt == self.attempt && row.ended.is_some();
        Ok(is_recorded.then(|| row.gap(stream)))
    }

    fn has_ended(&self, row: &StepRow) -> bool {
        row.attempt > self.attempt
            || (row.attempt == self.attempt && row.ended.is_some())
            || row.state().is_final()
    }

    /// Returns the number of bytes that there are now.
    ///
    /// # Errors
    ///
    /// [`BatchError::Internal`] when the file can't be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn length(&self) -> Result<u64, BatchError> {
        let (outputs, id, name) = self.place();
        let length = blocking(move || outputs.read(&id, &name)?.metadata()).await;
        match length {
            Ok(metadata) => Ok(metadata.len()),
            // Nothing was printed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(BatchError::Internal(error.into())),
        }
    }

    /// Reads at most `most` bytes from `offset` on; none where there are no more now.
    ///
    /// # Errors
    ///
    /// [`BatchError::Internal`] when the file can't be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn read(&self, offset: u64, most: usize) -> Result<Bytes, BatchError> {
        let (outputs, id, name) = self.place();
        let read = blocking(move || {
            // So far no file reaches.
            if offset.checked_add(most as u64).is_none_or(|end| end > i64::MAX as u64) {
                return Ok(Bytes::new());
            }
            let file = outputs.read(&id, &name)?;
            let mut buffer = vec![0; most];
            let length = file.read_at(&mut buffer, offset)?;
            buffer.truncate(length);
            Ok::<_, io::Error>(Bytes::from(buffer))
        });
        match read.await {
            Ok(bytes) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Bytes::new()),
            Err(error) => Err(BatchError::Internal(error.into())),
        }
    }

    /// Waits until there is output beyond `offset`; `false` if there will be none, since this run of
    /// the step is over.
    ///
    /// # Errors
    ///
    /// [`BatchError::Internal`] when that can't be found out.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn grows(&self, offset: u64) -> Result<bool, BatchError> {
        let Some(mut live) = self.live.clone() else {
            return Ok(self.length().await? > offset);
        };
        loop {
            live.changed.borrow_and_update();
            live.printed.borrow_and_update();
            let row = live.row(self).await?;
            let is_over = self.has_ended(&row);
            if self.length().await? > offset {
                return Ok(true);
            }
            if is_over {
                return Ok(false);
            }
            tokio::select! {
                told = live.changed.changed() => if told.is_err() {
                    return Ok(self.length().await? > offset);
                },
                told = live.printed.changed() => if told.is_err() {
                    return Ok(self.length().await? > offset);
                },
            }
        }
    }

    /// Waits until the step is run again after this run, and returns the output of that run; `None` if
    /// it is not, since the step is over or the engine shuts down.
    ///
    /// # Errors
    ///
    /// [`BatchError::Internal`] when that can't be found out.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn next_run(&self) -> Result<Option<Self>, BatchError> {
        if self.attempt < self.last_attempt {
            return Ok(Some(self.run_after()));
        }
        let Some(mut live) = self.live.clone() else { return Ok(None) };
        let mut is_driven = true;
        loop {
            live.changed.borrow_and_update();
            let row = live.row(self).await?;
            if row.attempt > self.attempt {
                return Ok(Some(self.run_after()));
            }
            if row.state().is_final() || !is_driven {
                return Ok(None);
            }
            is_driven = live.changed.changed().await.is_ok();
        }
    }

    /// The same of the run after this one.
    fn run_after(&self) -> Self {
        Self { attempt: self.attempt + 1, gap: GapSearch::default(), ..self.clone() }
    }

    fn place(&self) -> (Outputs, BatchId, String) {
        let name = name_of(self.step, self.attempt, self.part);
        (self.outputs.clone(), self.id.clone(), name)
    }
}
