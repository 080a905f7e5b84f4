//! The results of a batch: its steps with all that they printed, for answers that have all of it.

use bytes::Bytes;

use crate::auth::Caller;
use crate::batch::outputs::Outputs;
use crate::batch::{BatchError, BatchInfo, BatchRecord, Batches, StepInfo, StepOutput};
use crate::execute::Stream;
use crate::ids::{BatchId, IntoId};

/// A batch with what its steps printed. Got from [`Batches::results`].
///
/// ```
/// use splengine_core::batch::BatchPolicy;
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
/// let request = BatchRequest::new().step(Step::new("echo one")).step(Step::new("echo two"));
/// let id = batches.submit(&alice, request, None).await?.record.info.id;
/// batches.wait(&alice, &id).await?;
/// let results = batches.results(&alice, &id).await?;
/// let printed: Vec<_> = results.steps.iter().map(|step| &step.stdout[..]).collect();
/// assert_eq!(printed, [b"one\n", b"two\n"]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchResults {
    /// Description of the batch.
    pub info: BatchInfo,
    /// Steps of the batch, in their order.
    pub steps: Vec<StepResult>,
}

/// A step with what its last run printed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepResult {
    /// State of the step. Its gaps tell where in what follows a part is missing; where that was cut
    /// before, they lie beyond its end.
    pub step: StepInfo,
    /// Kept standard output of the step's last run.
    pub stdout: Bytes,
    /// Kept standard error of the step's last run.
    pub stderr: Bytes,
    /// `true` if more of its standard output is kept than fits here.
    pub stdout_cut: bool,
    /// `true` if more of its standard error is kept than fits here.
    pub stderr_cut: bool,
}

/// A batch with what its steps printed, which is read piece by piece. Got from
/// [`Batches::result_reader`].
///
/// ```
/// use splengine_core::BatchError;
/// use splengine_core::batch::BatchResultReader;
/// use splengine_core::execute::Stream;
///
/// /// Writes the standard output of all steps, 64 KiB of it at a time in memory.
/// async fn write_all(reader: &BatchResultReader, out: &mut Vec<u8>) -> Result<(), BatchError> {
///     for place in 0..reader.record().steps.len() {
///         let mut offset = 0;
///         while offset < reader.length(place, Stream::Stdout) {
///             let data = reader.read(place, Stream::Stdout, offset, 64 << 10).await?;
///             out.extend_from_slice(&data);
///             offset += data.len();
///         }
///     }
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct BatchResultReader {
    record: BatchRecord,
    outputs: Outputs,
    printed: Vec<[Printed; 2]>,
}

/// What a step printed on a stream.
#[derive(Debug, Clone, Copy, Default)]
struct Printed {
    /// As much of it as there is room for.
    bytes: usize,
    is_cut: bool,
}

impl Batches {
    /// Reads a batch with the output of its steps; while it is not over, of those whose last run has
    /// ended.
    ///
    /// Of each stream there are 16 MiB, of all steps together. What comes after that is left out
    /// ([`stdout_cut`](StepResult::stdout_cut)); [`Batches::output`] has it.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get); [`BatchError::Internal`] when the output can't be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn results(
        &self,
        caller: &Caller,
        id: impl IntoId<BatchId>,
    ) -> Result<BatchResults, BatchError> {
        self.result_reader(caller, id).await?.read_all().await
    }

    /// Returns the same [results](Self::results) to be read piece by piece, for answers that are not
    /// whole in memory.
    ///
    /// # Errors
    ///
    /// As [`results`](Self::results).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn result_reader(
        &self,
        caller: &Caller,
        id: impl IntoId<BatchId>,
    ) -> Result<BatchResultReader, BatchError> {
        let record = self.get(caller, id).await?;
        let outputs = self.registry()?.outputs.clone();
        let mut reader = BatchResultReader { record, outputs, printed: Vec::new() };
        let mut room = [MAX_RESULT_BYTES; 2];
        for step in 0..reader.record.steps.len() {
            let mut printed = [Printed::default(); 2];
            for stream in [Stream::Stdout, Stream::Stderr] {
                let room = &mut room[stream as usize];
                let length = reader.kept(step, stream).await?;
                let bytes = length.min(*room);
                printed[stream as usize] = Printed { bytes, is_cut: length > bytes };
                *room -= bytes;
            }
            reader.printed.push(printed);
        }
        Ok(reader)
    }
}

impl BatchResultReader {
    /// Returns the batch with its steps.
    #[must_use]
    pub fn record(&self) -> &BatchRecord {
        &self.record
    }

    /// Returns the number of bytes of output that the step at `place` has here, at most 16 MiB of each
    /// stream for all steps together; 0 where there is no such step.
    #[must_use]
    pub fn length(&self, place: usize, stream: Stream) -> usize {
        self.printed(place, stream).bytes
    }

    /// Returns whether more of a step's output is kept than the results have capacity for.
    #[must_use]
    pub fn is_cut(&self, place: usize, stream: Stream) -> bool {
        self.printed(place, stream).is_cut
    }

    /// Returns the number of output bytes in these results, without what was cut.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        self.printed.iter().flatten().map(|printed| printed.bytes).sum()
    }

    fn printed(&self, place: usize, stream: Stream) -> Printed {
        self.printed.get(place).map(|both| both[stream as usize]).unwrap_or_default()
    }

    /// Returns a part of a step's output: up to `max_bytes` from `offset` on, at least one byte where
    /// `offset` is within its [length](Self::length).
    ///
    /// # Errors
    ///
    /// [`BatchError::Internal`] when it can't be read, also since the batch was removed meanwhile.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn read(
        &self,
        place: usize,
        stream: Stream,
        offset: usize,
        max_bytes: usize,
    ) -> Result<Bytes, BatchError> {
        let most = max_bytes.min(self.length(place, stream).saturating_sub(offset));
        if most == 0 {
            return Ok(Bytes::new());
        }
        let data = self.output(place, stream).read(offset as u64, most).await?;
        if data.is_empty() {
            let error = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
            return Err(BatchError::Internal(error.into()));
        }
        Ok(data)
    }

    /// Reads the whole output of all steps.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn read_all(mut self) -> Result<BatchResults, BatchError> {
        let mut results = Vec::with_capacity(self.record.steps.len());
        for (place, step) in std::mem::take(&mut self.record.steps).into_iter().enumerate() {
            let [stdout_cut, stderr_cut] =
                [Stream::Stdout, Stream::Stderr].map(|stream| self.is_cut(place, stream));
            let attempt = step.attempt;
            let whole = async |stream| {
                let length = self.length(place, stream);
                if length == 0 {
                    Ok(Bytes::new())
                } else {
                    self.output_of(place, attempt, stream).read(0, length).await
                }
            };
            let (stdout, stderr) = (whole(Stream::Stdout).await?, whole(Stream::Stderr).await?);
            results.push(StepResult { step, stdout, stderr, stdout_cut, stderr_cut });
        }
        Ok(BatchResults { info: self.record.info, steps: results })
    }

    /// How much of a step's output is kept.
    async fn kept(&self, place: usize, stream: Stream) -> Result<usize, BatchError> {
        let step = &self.record.steps[place];
        let printed = match stream {
            Stream::Stdout => step.stdout_bytes,
            Stream::Stderr => step.stderr_bytes,
        };
        if printed == 0 {
            return Ok(0);
        }
        let length = self.output(place, stream).length().await?;
        Ok(usize::try_from(length).unwrap_or(usize::MAX))
    }

    fn output(&self, place: usize, stream: Stream) -> StepOutput {
        self.output_of(place, self.record.steps[place].attempt, stream)
    }

    fn output_of(&self, place: usize, attempt: u32, stream: Stream) -> StepOutput {
        let (outputs, id) = (self.outputs.clone(), self.record.info.id.clone());
        let number = u32::try_from(place).unwrap_or(u32::MAX);
        StepOutput::new(outputs, None, id, number, (attempt, attempt), stream)
    }
}

/// Bytes of each stream of all steps together.
const MAX_RESULT_BYTES: usize = 16 << 20;
