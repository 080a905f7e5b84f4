use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::batch::outputs::Outputs;
use crate::batch::records::key;
use crate::batch::{BatchJob, format};
use crate::store::{REPAIRED, Store, StoreFault};

/// Place where an engine keeps batches, and bounds on how many.
///
/// ```
/// use std::time::Duration;
/// use splengine_core::batch::BatchPolicy;
/// use splengine_core::store::MemoryStore;
///
/// // `EngineBuilder::build` opens the directory.
/// let policy = BatchPolicy::new(MemoryStore::new(), "/var/lib/my-server/outputs")
///     .keep_for(Duration::from_secs(3600));
/// # drop(policy);
/// ```
#[must_use]
pub struct BatchPolicy {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) outputs: PathBuf,
    pub(crate) max_steps: usize,
    pub(crate) max_open_steps: usize,
    pub(crate) max_open_steps_per_caller: usize,
    pub(crate) max_open_bytes: usize,
    /// Half of what the others leave when left out.
    pub(crate) max_open_bytes_per_caller: Option<usize>,
    pub(crate) parallelism: usize,
    pub(crate) max_parallelism: usize,
    pub(crate) keep_for: Duration,
    pub(crate) keep_count: usize,
    pub(crate) keep_bytes: u64,
    pub(crate) keep_count_per_caller: usize,
    pub(crate) keep_bytes_per_caller: u64,
    pub(crate) keep_inputs_for: Duration,
    pub(crate) keep_keys_for: Duration,
    pub(crate) keep_keys_per_caller: usize,
    pub(crate) kinds: HashMap<String, Arc<MakeJob>>,
}

/// The directory of outputs, and what was in the store when it was opened.
pub(crate) struct OpenedBatches {
    pub(crate) outputs: Outputs,
    /// There may be output of batches that the store does not know: it is new, or was repaired.
    pub(crate) keeps_strays: bool,
    /// When the last of its batches ended.
    pub(crate) last_end: Option<u64>,
}

pub(crate) type MakeJob = dyn Fn(&str) -> Result<Box<dyn BatchJob>, String> + Send + Sync;

impl BatchPolicy {
    /// Makes a policy with the defaults, with records in `store` and what steps print in files below
    /// `outputs`, a directory. When the engine is [built](crate::engine::EngineBuilder::build), the
    /// directory is opened, or made when it is not there, and a store of another format is refused.
    pub fn new(store: impl Store, outputs: impl AsRef<Path>) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            store: Arc::new(store),
            outputs: outputs.as_ref().to_owned(),
            max_steps: 10_000,
            max_open_steps: 200_000,
            max_open_steps_per_caller: 50_000,
            max_open_bytes: 64 << 20,
            max_open_bytes_per_caller: None,
            parallelism: processors,
            max_parallelism: 1024,
            keep_for: Duration::from_hours(7 * 24),
            keep_count: 100_000,
            keep_bytes: 10 << 30,
            keep_count_per_caller: 10_000,
            keep_bytes_per_caller: 2 << 30,
            keep_inputs_for: Duration::from_hours(1),
            keep_keys_for: Duration::from_hours(24),
            keep_keys_per_caller: 10_000,
            kinds: HashMap::new(),
        }
    }

    /// Sets the maximum number of steps of one batch. Default 10,000.
    pub fn max_steps(mut self, count: usize) -> Self {
        self.max_steps = count;
        self
    }

    /// Sets the maximum number of steps that are not over, of all batches; the next batch is
    /// refused. Default 200,000.
    pub fn max_open_steps(mut self, count: usize) -> Self {
        self.max_open_steps = count;
        self
    }

    /// Sets the maximum number of steps that are not over, of one caller's batches. Default 50,000.
    pub fn max_open_steps_per_caller(mut self, count: usize) -> Self {
        self.max_open_steps_per_caller = count;
        self
    }

    /// Sets the maximum number of bytes that the steps of all batches that are not over hold in memory:
    /// their commands, arguments, variables and standard input. The next batch is refused
    /// ([`BatchError::InputFull`](crate::BatchError::InputFull)), but where there is no other; batches
    /// that are [resumed](crate::Engine::resume) count, and are never refused. Default 64 MiB.
    pub fn max_open_bytes(mut self, bytes: usize) -> Self {
        self.max_open_bytes = bytes;
        self
    }

    /// Sets the maximum number of bytes that the steps of one caller's batches that are not over hold in
    /// memory; the caller's next batch is refused
    /// ([`BatchError::CallerInput`](crate::BatchError::CallerInput)), but where there is no other.
    /// Default: half of what the others leave of what [all may](Self::max_open_bytes).
    pub fn max_open_bytes_per_caller(mut self, bytes: usize) -> Self {
        self.max_open_bytes_per_caller = Some(bytes);
        self
    }

    /// Sets how many steps run at once of a batch that does not say. Default: the host's
    /// processors.
    pub fn parallelism(mut self, count: usize) -> Self {
        self.parallelism = count.max(1);
        self
    }

    /// Sets the maximum parallelism that is granted. Default 1024.
    pub fn max_parallelism(mut self, count: usize) -> Self {
        self.max_parallelism = count.max(1);
        self
    }

    /// Sets how long a batch is kept after its end. Default 7 days.
    pub fn keep_for(mut self, time: Duration) -> Self {
        self.keep_for = time;
        self
    }

    /// Sets how many batches that are over are kept, of all callers; the oldest of the caller who
    /// has most go first. Default 100,000.
    pub fn keep_count(mut self, count: usize) -> Self {
        self.keep_count = count;
        self
    }

    /// Sets how many bytes all batches that are over may take, with what their steps printed; the
    /// oldest of the caller who takes most go first. Batches that are not over may print as much
    /// again: what comes after that is not kept, and their steps say so. Default 10 GiB.
    pub fn keep_bytes(mut self, bytes: u64) -> Self {
        self.keep_bytes = bytes;
        self
    }

    /// Sets how many batches that are over are kept of one caller; the caller's oldest go first.
    /// Default 10,000.
    pub fn keep_count_per_caller(mut self, count: usize) -> Self {
        self.keep_count_per_caller = count;
        self
    }

    /// Sets how many bytes one caller's batches that are over may take, with what their steps
    /// printed; the caller's oldest go first. The caller's batches that are not over may print as
    /// much again: what comes after that is not kept, and their steps say so. Default 2 GiB.
    pub fn keep_bytes_per_caller(mut self, bytes: u64) -> Self {
        self.keep_bytes_per_caller = bytes;
        self
    }

    /// Sets how long, after the end of a batch, the variables and the standard input of its steps
    /// are kept on disk, to [run it again](crate::Batches::rerun). Then they are overwritten and
    /// removed, within a minute more, and a batch that had any is not run again. 0 removes them at
    /// the end. Default 1 hour.
    pub fn keep_inputs_for(mut self, time: Duration) -> Self {
        self.keep_inputs_for = time;
        self
    }

    /// Sets how long, after the end of a batch, its idempotency key is known, though the batch
    /// itself may be removed: a repetition is refused then, and makes no second batch. It is known
    /// for as long as the batch is kept in any case. Default 24 hours.
    pub fn keep_keys_for(mut self, time: Duration) -> Self {
        self.keep_keys_for = time;
        self
    }

    /// Sets the maximum number of idempotency keys that are known of one caller's batches that are
    /// gone. Beyond it the caller's oldest are forgotten, within a minute. Default 10,000.
    pub fn keep_keys_per_caller(mut self, count: usize) -> Self {
        self.keep_keys_per_caller = count;
        self
    }

    /// Adds a kind of batch of your own: makes its job from the text that it is
    /// [submitted](crate::Batches::submit_job) with, also when it is resumed after a restart; or
    /// says what is wrong with the text. `plan` is the engine's own kind.
    pub fn kind<J: BatchJob>(
        mut self,
        name: impl Into<String>,
        make: impl Fn(&str) -> Result<J, String> + Send + Sync + 'static,
    ) -> Self {
        let make = move |recipe: &str| {
            let job: Box<dyn BatchJob> = Box::new(make(recipe)?);
            Ok(job)
        };
        self.kinds.insert(name.into(), Arc::new(make));
        self
    }

    /// Opens the directory of outputs, which is made when it is not there. Blocks.
    pub(crate) fn open_outputs(&self) -> std::io::Result<Outputs> {
        Outputs::open(&self.outputs)
    }

    /// Reads what the engine has to know of the store before it uses it, and marks one that is new
    /// as of this version. Blocks.
    pub(crate) fn open(&self, outputs: Outputs) -> Result<OpenedBatches, StoreFault> {
        let store = &*self.store;
        let keeps_strays = format::agree(store)? || store.get(REPAIRED)?.is_some();
        let last = store.scan(&key::ended(0, ""), &key::ended(u64::MAX, ""), true, 1)?;
        let last_end = last.first().and_then(|(row, _)| key::when(row));
        Ok(OpenedBatches { outputs, keeps_strays, last_end })
    }
}

impl fmt::Debug for BatchPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchPolicy").finish_non_exhaustive()
    }
}
