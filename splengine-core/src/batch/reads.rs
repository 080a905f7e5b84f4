//! Memory of the records of batches that are read from the store.

use std::time::Duration;

use crate::auth::Caller;
use crate::batch::BatchError;
use crate::batch::records::Summary;
use crate::quota::{CallerBudgets, EngineMemory, Reservation};

/// Bound on the memory that records take while they are read and told: what their steps were given may
/// be large, and the same one may be asked for many times at once. Each caller has half of what the others leave. A record that
/// is larger than a share is read when no other of its kind is.
#[derive(Debug)]
pub(crate) struct RecordReads(CallerBudgets);

impl RecordReads {
    pub(crate) fn new(memory: &EngineMemory) -> Self {
        Self(CallerBudgets::new(&memory.budget(MAX_READ_BYTES)))
    }

    /// Reserves the memory that reading a batch takes, of its caller's share; waits for it for 5 s.
    pub(crate) async fn reserve(
        &self,
        caller: &Caller,
        summary: &Summary,
    ) -> Result<Reservation, BatchError> {
        self.reserve_within(caller, summary, READ_TIMEOUT).await
    }

    /// The same; waits for `timeout` at most.
    pub(crate) async fn reserve_within(
        &self,
        caller: &Caller,
        summary: &Summary,
        timeout: Duration,
    ) -> Result<Reservation, BatchError> {
        self.reserve_bytes(caller, summary.read_bytes(), timeout).await
    }

    /// The same, with all that its steps were given as standard input and variables.
    pub(crate) async fn reserve_with_inputs(
        &self,
        caller: &Caller,
        summary: &Summary,
    ) -> Result<Reservation, BatchError> {
        let inputs = usize::try_from(summary.input_bytes).unwrap_or(usize::MAX);
        let bytes = summary.read_bytes().saturating_add(inputs.saturating_mul(3));
        self.reserve_bytes(caller, bytes, READ_TIMEOUT).await
    }

    async fn reserve_bytes(
        &self,
        caller: &Caller,
        bytes: usize,
        timeout: Duration,
    ) -> Result<Reservation, BatchError> {
        let share = self.0.of(caller.accounted_user());
        let mut memory = share.reservation().allowance(UNCOUNTED_BYTES);
        memory.resize_within(bytes, timeout).await.map_err(BatchError::ReadLimit)?;
        Ok(memory)
    }
}

impl Summary {
    /// The memory, in bytes, that its record takes at most while it is read: the row, its text, what is
    /// parsed of it, and what is told of that.
    pub(crate) fn read_bytes(&self) -> usize {
        let recipe = usize::try_from(self.recipe_bytes).unwrap_or(usize::MAX);
        let steps = usize::try_from(self.counts().total).unwrap_or(usize::MAX);
        recipe.saturating_mul(READ_COPIES).saturating_add(steps.saturating_mul(STEP_BYTES))
    }

    /// How many bytes are parsed of it, about.
    pub(crate) fn parsed_bytes(&self) -> usize {
        self.read_bytes() / READ_COPIES
    }
}

/// Of all callers together.
const MAX_READ_BYTES: usize = 64 << 20;
/// A record of no more bytes is not counted.
const UNCOUNTED_BYTES: usize = 64 << 10;
/// How often there is what its caller gave for the steps, at most: rows, text, what is parsed, and what is told, some of
/// it in buffers that have grown by doubling.
const READ_COPIES: usize = 8;
/// About the memory of a step, beside what its caller gave for it.
const STEP_BYTES: usize = 2 << 10;
/// How long a read waits for memory.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(5);
