use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::auth::Caller;
use crate::batch::policy::OpenedBatches;
use crate::batch::reads::READ_TIMEOUT;
use crate::batch::record::{Names, record};
use crate::batch::record_memory::RecordMemory;
use crate::batch::records::{EventKind, EventRow, Summary, key};
use crate::batch::registry::Registry;
use crate::batch::{
    BatchError, BatchEvent, BatchEventKind, BatchInfo, BatchPolicy, BatchRecord, StepCounts,
    StepOutput,
};
use crate::error::Field;
use crate::execute::Stream;
use crate::ids::{BatchId, IntoId};
use crate::quota::CallerLargeWork;
use crate::run::Runner;
use crate::session::Sessions;
use crate::time::time;

/// The batches of an engine, as a [`Caller`] may use them: their own. Got from
/// [`Engine::batches`](crate::Engine::batches); cheap to clone.
///
/// # Errors
///
/// Every method that takes a caller fails with [`BatchError::Forbidden`] for one without
/// [`Scope::Execute`](crate::Scope::Execute), and with [`BatchError::NoStore`] where the engine keeps no
/// batches. One that names a batch fails with [`BatchError::NoBatch`] when there is none of this id, or
/// it is another caller's. Where the store can't be read or written, [`BatchError::Internal`],
/// [`BatchError::Damaged`] or [`BatchError::DiskFull`] says so.
///
/// ```
/// use splengine_core::{BatchRequest, Caller, Engine, LocalExecutor, Step};
/// use splengine_core::batch::{BatchPolicy, BatchState};
/// use splengine_core::store::MemoryStore;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let outputs = tempfile::tempdir()?;
/// let engine = Engine::builder(LocalExecutor::new(".")?)
///     .batches(BatchPolicy::new(MemoryStore::new(), outputs.path()))
///     .build()?;
/// let alice = Caller::new("alice")?.with_all_scopes();
/// let request = BatchRequest::new().step(Step::new("true")).step(Step::new("echo done"));
/// let id = engine.batches().submit(&alice, request, None).await?.record.info.id;
/// let record = engine.batches().wait(&alice, &id).await?;
/// assert_eq!(record.info.state, BatchState::Succeeded);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Batches {
    pub(crate) runner: Arc<Runner>,
    pub(crate) sessions: Sessions,
    registry: Option<Arc<Registry>>,
}

/// Events of a batch, from a given one on.
///
/// ```
/// use splengine_core::batch::{BatchEventKind, BatchPolicy};
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
/// let request = BatchRequest::new().step(Step::new("true"));
/// let id = batches.submit(&alice, request, None).await?.record.info.id;
/// // From the beginning; after a broken connection, from the number of the last one that came.
/// let mut events = batches.events(&alice, &id, 0).await?;
/// let mut seen = 0;
/// while let Some(event) = events.next().await? {
///     assert_eq!(event.seq, seen + 1);
///     seen = event.seq;
///     if let BatchEventKind::Ended(step) = event.what {
///         assert_eq!(step.exit_code, Some(0));
///     }
/// }
/// assert!(events.is_over());
/// # Ok(())
/// # }
/// ```
pub struct BatchEvents {
    batches: Batches,
    work: CallerLargeWork,
    id: BatchId,
    names: Names,
    after: u64,
    read: VecDeque<(u64, EventRow)>,
    changed: Option<watch::Receiver<u64>>,
    is_over: bool,
}

impl Batches {
    /// None are kept where there is no policy.
    pub(crate) fn new(
        runner: Arc<Runner>,
        sessions: Sessions,
        policy: Option<(BatchPolicy, OpenedBatches)>,
    ) -> io::Result<Self> {
        let registry = policy.map(|(policy, opened)| Registry::new(policy, opened, &runner.memory));
        let registry = registry.transpose()?.map(Arc::new);
        Ok(Self { runner, sessions, registry })
    }

    pub(crate) fn registry(&self) -> Result<&Arc<Registry>, BatchError> {
        self.registry.as_ref().ok_or(BatchError::NoStore)
    }

    /// Returns the number of batches that are not over.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.registry().map_or(0, |registry| registry.count())
    }

    /// Returns the maximum number of steps of one batch, for adapters that count them before they are
    /// parsed; 0 where batches are not kept.
    #[must_use]
    pub fn max_steps(&self) -> usize {
        self.registry().map_or(0, |registry| registry.policy.max_steps)
    }

    /// Returns a batch with its steps, as it is now.
    ///
    /// # Errors
    ///
    /// [`BatchError::NoBatch`], [`BatchError::Forbidden`], [`BatchError::NoStore`];
    /// [`BatchError::ReadLimit`] when other large records take the memory that there is for them
    /// (64 MiB, of which a caller has half of what the others leave) for 5 s. A record counts for as
    /// long as it is held.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn get(
        &self,
        caller: &Caller,
        id: impl IntoId<BatchId>,
    ) -> Result<BatchRecord, BatchError> {
        self.get_under(&self.large_work(caller), caller, &self.id(caller, id)?).await
    }

    /// [`get`](Self::get) as a part of `work`.
    pub(crate) async fn get_under(
        &self,
        work: &CallerLargeWork,
        caller: &Caller,
        id: &BatchId,
    ) -> Result<BatchRecord, BatchError> {
        self.get_within(work, caller, id, READ_TIMEOUT).await
    }

    /// Returns a batch as [`get`](Self::get) does; waits for memory for `timeout` at most.
    async fn get_within(
        &self,
        work: &CallerLargeWork,
        caller: &Caller,
        id: &BatchId,
        timeout: Duration,
    ) -> Result<BatchRecord, BatchError> {
        let mut summary = self.find(caller, id).await?;
        let memory = self.registry()?.reads.reserve_within(caller, &summary, timeout).await?;
        let journal = &self.registry()?.journal;
        let recipe = journal.recipe(id, work).await?;
        let mut tries = 0;
        // What was read in several steps is of one moment if nothing happened meanwhile.
        let (rows, is_exact) = loop {
            let rows = journal.steps(id, work).await?;
            let missing = || BatchError::NoBatch(id.to_string());
            let now = journal.summary(id).await?.ok_or_else(missing)?;
            tries += 1;
            if now.events == summary.events {
                break (rows, true);
            }
            // One that is never still. It is not over, so no step of it is told to run for good;
            // whoever asks for what came after the last event misses none.
            if tries >= READS && !now.state().is_final() {
                summary = Summary { events: summary.events, ..now };
                break (rows, false);
            }
            summary = now;
        };
        let (of_record, counts) = ((id.clone(), summary.clone()), !is_exact);
        let put_together = move || {
            let (id, summary) = of_record;
            let mut record = record(&id, &summary, &recipe, rows)?;
            if counts {
                record.info.counts = StepCounts::of_all(&record.steps);
            }
            let bytes = record.memory_bytes();
            Ok::<_, BatchError>((record, bytes))
        };
        let size = summary.parsed_bytes();
        let (mut record, bytes) = work.run(size, put_together).await?;
        self.count_on(&mut record.info);
        record.memory = RecordMemory::new(memory, bytes.min(summary.read_bytes())).await;
        Ok(record)
    }

    /// A batch with its steps; without them, where there is no memory for them: for what was done.
    pub(crate) async fn get_or_info(
        &self,
        work: &CallerLargeWork,
        caller: &Caller,
        id: &BatchId,
    ) -> Result<BatchRecord, BatchError> {
        match self.get_within(work, caller, id, Duration::from_millis(100)).await {
            Err(BatchError::ReadLimit(_)) => Ok(self.info(caller, id).await?.into()),
            record => record,
        }
    }

    /// Returns a batch without its steps, as it is now: for callers who ask often.
    ///
    /// # Errors
    ///
    /// [`BatchError::NoBatch`], [`BatchError::Forbidden`], [`BatchError::NoStore`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn info(
        &self,
        caller: &Caller,
        id: impl IntoId<BatchId>,
    ) -> Result<BatchInfo, BatchError> {
        let id = self.id(caller, id)?;
        let summary = self.find(caller, &id).await?;
        let mut info = summary.info(&id).ok_or(BatchError::Damaged)?;
        self.count_on(&mut info);
        Ok(info)
    }

    /// What is written is of the last event; time has gone on since.
    pub(crate) fn count_on(&self, info: &mut BatchInfo) {
        let live = self.registry().ok().and_then(|registry| registry.live(&info.id));
        if let Some(live) = live.filter(|_| !info.state.is_final()) {
            info.duration = live.elapsed();
        }
    }

    /// Waits until a batch is over, and returns it with its steps.
    ///
    /// # Errors
    ///
    /// [`BatchError::NoBatch`], [`BatchError::Forbidden`], [`BatchError::NoStore`];
    /// [`BatchError::Draining`] when the engine shuts down before: the batch goes on in the next;
    /// [`BatchError::ReadLimit`], as [`get`](Self::get).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect on the batch.
    pub async fn wait(
        &self,
        caller: &Caller,
        id: impl IntoId<BatchId>,
    ) -> Result<BatchRecord, BatchError> {
        let id = &self.id(caller, id)?;
        self.wait_info(caller, id).await?;
        self.get(caller, id).await
    }

    /// Waits until a batch is over, and returns it without its steps.
    ///
    /// # Errors
    ///
    /// [`BatchError::NoBatch`], [`BatchError::Forbidden`], [`BatchError::NoStore`];
    /// [`BatchError::Draining`] when the engine shuts down before: the batch goes on in the next.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect on the batch.
    pub async fn wait_info(
        &self,
        caller: &Caller,
        id: impl IntoId<BatchId>,
    ) -> Result<BatchInfo, BatchError> {
        let id = &self.id(caller, id)?;
        self.find(caller, id).await?;
        loop {
            let live = self.registry()?.live(id);
            let mut changed = live.as_ref().map(|live| live.changed.subscribe());
            drop(live);
            let summary = self.find(caller, id).await?;
            if summary.state().is_final() {
                return self.info(caller, id).await;
            }
            let Some(changed) = &mut changed else { return Err(BatchError::Draining) };
            let _ = changed.changed().await;
        }
    }

    /// Returns the events of a batch that come after the one with this number; 0 is from its beginning.
    ///
    /// # Errors
    ///
    /// [`BatchError::NoBatch`], [`BatchError::Forbidden`], [`BatchError::NoStore`];
    /// [`BatchError::Malformed`] when the batch has no event of this number yet;
    /// [`BatchError::ReadLimit`], as [`get`](Self::get): the names of the steps are read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn events(
        &self,
        caller: &Caller,
        id: impl IntoId<BatchId>,
        after: u64,
    ) -> Result<BatchEvents, BatchError> {
        let id = self.id(caller, id)?;
        let summary = self.find(caller, &id).await?;
        if after > summary.events {
            let last = summary.events;
            let problem =
                format!("of {after} is after the last event, which has the number {last}");
            return Err(BatchError::Malformed { field: Field::After, problem });
        }
        let memory = self.registry()?.reads.reserve(caller, &summary).await?;
        let work = self.large_work(caller);
        let names = self.registry()?.journal.names(&id, &work).await?;
        // Whoever follows counts what stays of it.
        drop(memory);
        let changed = self.registry()?.live(&id).map(|live| live.changed.subscribe());
        Ok(BatchEvents {
            batches: self.clone(),
            work,
            names,
            id,
            after,
            read: VecDeque::new(),
            changed,
            is_over: summary.state().is_final() && after == summary.events,
        })
    }

    /// Returns what a run of a step has printed, or prints still: the run with the number `attempt`,
    /// from 1; without that, the last one. Before the first run there is nothing. What earlier runs
    /// printed is kept as long as the batch is.
    ///
    /// ```
    /// use splengine_core::batch::BatchPolicy;
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
    /// let request = BatchRequest::new().step(Step::new("echo hello").id("greet"));
    /// let id = batches.submit(&alice, request, None).await?.record.info.id;
    /// batches.wait(&alice, &id).await?;
    /// let output = batches.output(&alice, &id, "greet", Stream::Stdout, None).await?;
    /// assert_eq!(output.read(0, 4096).await?, "hello\n");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`BatchError::NoBatch`], [`BatchError::NoStep`], [`BatchError::NoAttempt`],
    /// [`BatchError::Forbidden`], [`BatchError::NoStore`]; [`BatchError::ReadLimit`], as
    /// [`get`](Self::get): the whole record is read, which waits up to 5 s for memory.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn output(
        &self,
        caller: &Caller,
        id: impl IntoId<BatchId>,
        step: &str,
        stream: Stream,
        attempt: Option<u32>,
    ) -> Result<StepOutput, BatchError> {
        let registry = self.registry()?;
        let id = &self.id(caller, id)?;
        // Before it is looked at: so none is taken for over that was run again since.
        let live = registry.live(id);
        let work = self.large_work(caller);
        let record = self.get_under(&work, caller, id).await?;
        let missing = || BatchError::NoStep(step.chars().take(80).collect());
        let place = record.steps.iter().position(|known| known.id == step).ok_or_else(missing)?;
        let live = live.map(|live| (registry.journal.clone(), work, live));
        let number = u32::try_from(place).map_err(|_| missing())?;
        // Whoever follows a step that has not begun waits for its first run.
        let last = record.steps[place].attempt.max(1);
        let attempt = attempt.unwrap_or(last);
        if !(1..=last).contains(&attempt) {
            let step = record.steps[place].id.clone();
            return Err(BatchError::NoAttempt { step, attempt, last });
        }
        let outputs = registry.outputs.clone();
        let info = &record.steps[place];
        let recorded = match stream {
            Stream::Stdout => info.stdout_gap,
            Stream::Stderr => info.stderr_gap,
        };
        let mut output =
            StepOutput::new(outputs, live, record.info.id, number, (attempt, last), stream);
        output.gap.recorded = (attempt == last && info.ended.is_some()).then_some(recorded);
        Ok(output)
    }

    /// The place of a step, and whether it keeps its standard input open.
    pub(crate) async fn stdin_of(
        &self,
        caller: &Caller,
        id: &BatchId,
        step: &str,
    ) -> Result<(u32, bool), BatchError> {
        let summary = self.find(caller, id).await?;
        let _memory = self.registry()?.reads.reserve(caller, &summary).await?;
        let names = self.registry()?.journal.names(id, &self.large_work(caller)).await?;
        let missing = || BatchError::NoStep(step.chars().take(80).collect());
        let place = names.steps.iter().position(|known| known.id == step).ok_or_else(missing)?;
        Ok((u32::try_from(place).map_err(|_| missing())?, names.steps[place].opens_stdin))
    }

    /// Cancels a batch: what runs is stopped, what waits is left out, but for steps that run
    /// [always](crate::batch::RunIf::Always): those are run still. When it is cancelled for the second time
    /// they are ended, too. Gives the record, as it is at its end, or after 30 seconds. Does nothing
    /// to a batch that is over.
    ///
    /// ```
    /// use splengine_core::batch::{BatchPolicy, BatchState};
    /// use splengine_core::store::MemoryStore;
    /// use splengine_core::{BatchRequest, Caller, Engine, LocalExecutor, Step};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let outputs = tempfile::tempdir()?;
    /// # let policy = BatchPolicy::new(MemoryStore::new(), outputs.path());
    /// # let engine = Engine::builder(LocalExecutor::new(".")?).batches(policy).build()?;
    /// # let alice = Caller::new("alice")?.with_all_scopes();
    /// let request = BatchRequest::new().step(Step::new("sleep 600")).step(Step::new("true"));
    /// let id = engine.batches().submit(&alice, request, None).await?.record.info.id;
    /// let record = engine.batches().cancel(&alice, &id).await?;
    /// assert_eq!(record.info.state, BatchState::Cancelled);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`BatchError::NoBatch`], [`BatchError::Forbidden`], [`BatchError::NoStore`];
    /// [`BatchError::Draining`] when the engine shuts down before the batch is over. It has been
    /// cancelled then.
    ///
    /// # Cancel safety
    ///
    /// The cancellation continues when the future is dropped.
    pub async fn cancel(
        &self,
        caller: &Caller,
        id: impl IntoId<BatchId>,
    ) -> Result<BatchRecord, BatchError> {
        let id = &self.id(caller, id)?;
        let summary = self.find(caller, id).await?;
        if !summary.state().is_final() {
            if let Some(live) = self.registry()?.live(id) {
                live.cancel.send_modify(|wished| *wished = wished.saturating_add(1));
            }
            if let Ok(Err(error)) = timeout(CANCEL_WITHIN, self.wait_info(caller, id)).await {
                return Err(error);
            }
        }
        self.get_or_info(&self.large_work(caller), caller, id).await
    }

    /// Removes a batch that is over, with its record, its output and what its steps were given. Its
    /// idempotency key is known for as long as [kept](crate::batch::BatchPolicy::keep_keys_for).
    ///
    /// # Errors
    ///
    /// [`BatchError::NoBatch`], [`BatchError::Forbidden`], [`BatchError::NoStore`];
    /// [`BatchError::Conflict`] when the batch is not over.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped the batch may be gone or not.
    pub async fn purge(&self, caller: &Caller, id: impl IntoId<BatchId>) -> Result<(), BatchError> {
        let id = self.id(caller, id)?;
        let summary = self.find(caller, &id).await?;
        let Some(when) = summary.filed.filter(|_| summary.state().is_final()) else {
            return Err(BatchError::Conflict("the batch is not over; cancel it first"));
        };
        self.registry()?.forget(&id, key::ended(when, id.as_str())).await
    }

    /// What takes time of what is done for `caller`.
    pub(crate) fn large_work(&self, caller: &Caller) -> CallerLargeWork {
        self.runner.large_work.of(caller.accounted_user(), None)
    }

    /// The id of a batch that `caller` asks for, if they may ask for any.
    pub(crate) fn id(
        &self,
        caller: &Caller,
        id: impl IntoId<BatchId>,
    ) -> Result<BatchId, BatchError> {
        self.may(caller)?;
        id.into_id().map_err(BatchError::NoBatch)
    }

    pub(crate) async fn find(&self, caller: &Caller, id: &BatchId) -> Result<Summary, BatchError> {
        self.may(caller)?;
        self.resume_late().await;
        let summary = self.registry()?.journal.summary(id).await?;
        let own = summary.filter(|summary| summary.user == caller.user().as_str());
        own.ok_or_else(|| BatchError::NoBatch(id.to_string()))
    }
}

impl BatchEvents {
    /// Returns whether no event follows any more: the batch is over, and its last event was given,
    /// or came before those that were asked for.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Returns about how many bytes of memory it takes, for servers that bound the memory of
    /// answers: it knows the arguments of all steps, whose texts may be long.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.names.memory_bytes()
    }

    /// Waits for the next event; `None` after the last, or when the engine shuts down.
    ///
    /// # Errors
    ///
    /// [`BatchError::Internal`] or [`BatchError::Damaged`] when the store can't be read.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Option<BatchEvent>, BatchError> {
        loop {
            // Only now is it told with its step's arguments, which may be long.
            if let Some((seq, row)) = self.read.pop_front() {
                let what = self.names.happening(row.what);
                self.after = seq;
                self.is_over = matches!(what, BatchEventKind::Finished { .. });
                return Ok(Some(BatchEvent { seq, time: time(row.time), what }));
            }
            if self.is_over {
                return Ok(None);
            }
            if let Some(changed) = &mut self.changed {
                changed.borrow_and_update();
            }
            let registry = self.batches.registry()?;
            let (journal, work) = (&registry.journal, &self.work);
            let rows = journal.events(&self.id, self.after, EVENTS_READ, work).await?;
            let is_empty = rows.is_empty();
            for (seq, row) in rows {
                if let EventKind::Started { step, .. } = &row.what
                    && *step as usize >= self.names.steps.len()
                {
                    // Of a kind whose steps are not known beforehand.
                    self.names.learn(&journal.steps(&self.id, work).await?);
                }
                self.read.push_back((seq, row));
            }
            if is_empty {
                let Some(changed) = &mut self.changed else { return Ok(None) };
                if changed.changed().await.is_err() {
                    self.changed = None;
                }
            }
        }
    }
}

impl fmt::Debug for Batches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batches").finish_non_exhaustive()
    }
}

impl fmt::Debug for BatchEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchEvents").field("id", &self.id).finish_non_exhaustive()
    }
}

const CANCEL_WITHIN: Duration = Duration::from_secs(30);
const EVENTS_READ: usize = 256;
/// So often a record is read to find it at rest.
const READS: usize = 3;
