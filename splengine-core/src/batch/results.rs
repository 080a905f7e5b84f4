//! A batch with what its steps printed, gathered for whoever answers with all of it at once.

use bytes::Bytes;

use crate::batch::output::Outputs;
use crate::batch::{BatchError, BatchInfo, Batches, StepInfo, StepOutput};
use crate::caller::Caller;
use crate::execute::Stream;
use crate::id::BatchId;

/// A batch with what its steps printed. Got from [`Batches::results`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchResults {
    /// The batch.
    pub info: BatchInfo,
    /// Steps of the batch, in their order.
    pub steps: Vec<StepResult>,
}

/// A step with what its last run printed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepResult {
    /// The step. Its gaps tell where in what follows a part is missing; where that was cut before,
    /// they lie beyond its end.
    pub step: StepInfo,
    /// Standard output.
    pub stdout: Bytes,
    /// Standard error.
    pub stderr: Bytes,
    /// `true` if more of its standard output is kept, for which there was no room.
    pub stdout_cut: bool,
    /// `true` if more of its standard error is kept.
    pub stderr_cut: bool,
}

impl Batches {
    /// A batch with what its steps printed; while it is not over, those whose last run has ended.
    ///
    /// Of each stream there are 16 MiB, of all steps together. What comes after that is left out,
    /// and [told](StepResult::stdout_cut): [`Batches::output`] has it.
    ///
    /// # Errors
    ///
    /// [`BatchError::NoBatch`], [`BatchError::Forbidden`]; [`BatchError::Internal`] when what was
    /// printed can't be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn results(&self, caller: &Caller, id: &str) -> Result<BatchResults, BatchError> {
        let record = self.get(caller, id).await?;
        let outputs = &self.registry()?.policy.outputs;
        let mut room = [MAX_RESULT_BYTES; 2];
        let mut steps = Vec::with_capacity(record.steps.len());
        for (number, step) in (0..).zip(record.steps) {
            let id = &record.info.id;
            let (stdout, stdout_cut) =
                read(outputs, id, number, &step, Stream::Stdout, &mut room).await?;
            let (stderr, stderr_cut) =
                read(outputs, id, number, &step, Stream::Stderr, &mut room).await?;
            steps.push(StepResult { step, stdout, stderr, stdout_cut, stderr_cut });
        }
        Ok(BatchResults { info: record.info, steps })
    }
}

/// As much as there is room for, and whether there is more.
async fn read(
    outputs: &Outputs,
    id: &BatchId,
    number: u32,
    step: &StepInfo,
    stream: Stream,
    room: &mut [usize; 2],
) -> Result<(Bytes, bool), BatchError> {
    let room = &mut room[stream as usize];
    let printed = match stream {
        Stream::Stdout => step.stdout_bytes,
        Stream::Stderr => step.stderr_bytes,
    };
    if printed == 0 {
        return Ok((Bytes::new(), false));
    }
    let output = StepOutput::new(
        outputs.clone(),
        None,
        id.clone(),
        number,
        (step.attempt, step.attempt),
        stream,
    );
    let length = usize::try_from(output.length().await?).unwrap_or(usize::MAX);
    let data = if *room == 0 { Bytes::new() } else { output.read(0, length.min(*room)).await? };
    let is_cut = length > *room;
    *room -= data.len();
    Ok((data, is_cut))
}

/// Bytes of each stream of all steps together.
const MAX_RESULT_BYTES: usize = 16 << 20;
