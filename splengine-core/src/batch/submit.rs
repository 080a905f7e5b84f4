//! Accepting a batch: it is checked, then stored, then begun.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::auth::{Caller, Scope};
use crate::batch::checks::{MAX_TIMEOUT_MS, check_steps, checked_labels};
use crate::batch::driver::{Driver, DriverInit, ResumeState};
use crate::batch::inputs::Inputs;
use crate::batch::journal::set;
use crate::batch::key_locks::KeyLock;
use crate::batch::plan::{PlanData, Step, StepCheck};
use crate::batch::records::{EventKind, EventRow, JobSpec, PLAN, Summary, key, now};
use crate::batch::registry::Registry;
use crate::batch::schedule::Schedule;
use crate::batch::{
    BatchError, BatchJob, BatchRecord, BatchRequest, BatchState, Batches, StepCounts,
};
use crate::blocking::blocking;
use crate::error::Field;
use crate::ids::{BatchId, IntoId as _};
use crate::quota::{CallerLargeWork, InputReservation};
use crate::run::SessionPlace;
use crate::store::{Change, StoreFault};
use crate::text::{hex, name_to_show};

/// Result of submitting a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Submitted {
    /// Record of the batch.
    pub record: BatchRecord,
    /// `true` if it was made now, and not under the same idempotency key before.
    pub is_new: bool,
}

/// Under an idempotency key.
#[derive(Debug, Serialize, Deserialize)]
struct KeyRow {
    id: String,
    /// Of the request, so that another one is noticed.
    sha256: String,
}

/// The idempotency key of a request, of which no other is worked at meanwhile.
pub(crate) struct UsedKey {
    text: String,
    /// Of the request.
    sum: String,
    _lock: KeyLock,
}

/// A batch that may be.
pub(crate) struct AcceptedBatch {
    about: BatchDetails,
    recipe: StoredRecipe,
    job: Box<dyn BatchJob>,
    /// The memory that its steps take.
    held: InputReservation,
}

/// What a batch is made of, as it is written down.
struct StoredRecipe {
    kind: String,
    /// The recipe's row.
    row: Vec<u8>,
    recipe_bytes: u64,
    inputs: Option<Vec<u8>>,
}

impl StoredRecipe {
    fn new(recipe: JobSpec, inputs: Option<&Inputs>) -> Self {
        let row = serde_json::to_vec(&recipe).unwrap_or_default();
        let JobSpec { kind, text } = recipe;
        let inputs = inputs.map(Inputs::to_bytes);
        Self { kind, row, recipe_bytes: text.len() as u64, inputs }
    }
}

/// What is told of a batch beside its steps.
#[derive(Default)]
struct BatchDetails {
    name: Option<String>,
    labels: BTreeMap<String, String>,
    timeout: Option<u64>,
    rerun_of: Option<String>,
}

impl Batches {
    /// Accepts a batch. Once it returns, the batch is on disk: even if this process is killed, its
    /// steps are run or reported as lost.
    ///
    /// With an `idempotency_key` (1 to 255 visible ASCII characters) a repetition gives the batch
    /// that was made first, for as long as that is kept. While a request is checked, another with the
    /// same key of the same caller waits for it, 30 s at most; requests with other keys do not.
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
    /// let request = BatchRequest::new().step(Step::new("true"));
    /// let first = engine.batches().submit(&alice, request.clone(), Some("order-17")).await?;
    /// // The client has heard no answer, and asks again.
    /// let again = engine.batches().submit(&alice, request, Some("order-17")).await?;
    /// assert!(first.is_new && !again.is_new);
    /// assert_eq!(first.record.info.id, again.record.info.id);
    /// # engine.batches().wait(&alice, &first.record.info.id).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`BatchError::Step`] and [`BatchError::Command`], which name the step and what is wrong with
    ///   it; [`BatchError::Malformed`] for the batch as a whole or the key; [`BatchError::Session`].
    /// - [`BatchError::KeyReused`] when the key came with another request before;
    ///   [`BatchError::Conflict`] when the request before, with the same key, is still checked after
    ///   30 s, or when the batch that it made is kept no longer.
    /// - [`BatchError::CallerLimit`], [`BatchError::Full`], [`BatchError::CallerInput`] and
    ///   [`BatchError::InputFull`] at the bounds of the [policy](crate::batch::BatchPolicy).
    /// - [`BatchError::Forbidden`], [`BatchError::NoStore`], [`BatchError::Draining`],
    ///   [`BatchError::DiskFull`].
    ///
    /// Then nothing of the batch is kept.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves either no batch or a whole one.
    pub async fn submit(
        &self,
        caller: &Caller,
        request: BatchRequest,
        idempotency_key: Option<&str>,
    ) -> Result<Submitted, BatchError> {
        let BatchRequest { plan, permit } = request;
        self.may(caller)?;
        let work = self.runner.large_work.of(caller.accounted_user(), permit);
        let (bytes, has_key) = (plan.bytes(), idempotency_key.is_some());
        let sum = move || {
            let text = has_key.then(|| plan.to_json());
            (text.map(|text| hex(&Sha256::digest(text))).unwrap_or_default(), plan)
        };
        let (sum, plan) = if has_key { work.run(bytes, sum).await } else { sum() };
        let key = self.lock_key(caller, idempotency_key, sum, bytes).await?;
        let (this, caller) = (self.clone(), caller.clone());
        detached(async move {
            this.once(&work, &caller, key, async |this: &Self| {
                this.accept(&work, &caller, plan, None).await
            })
            .await
        })
        .await
    }

    /// Submits a batch as [`submit`](Self::submit) does, of a [kind](crate::batch::BatchPolicy::kind) of
    /// one's own, whose job is made from `recipe`.
    ///
    /// ```
    /// use splengine_core::batch::{BatchPolicy, BatchState, JobAction, JobEvent};
    /// use splengine_core::store::MemoryStore;
    /// use splengine_core::{BatchJob, Caller, Engine, LocalExecutor, Step};
    ///
    /// /// Runs the command of each line of its text, whatever becomes of those before.
    /// struct Lines(Vec<Step>, usize);
    ///
    /// impl BatchJob for Lines {
    ///     fn steps(&self) -> &[Step] {
    ///         &self.0
    ///     }
    ///     fn on_event(&mut self, event: JobEvent) -> Vec<JobAction> {
    ///         if self.1 == self.0.len() || event == JobEvent::Cancelled {
    ///             return vec![JobAction::Finish];
    ///         }
    ///         self.1 += 1;
    ///         vec![JobAction::Start { step: self.1 - 1 }]
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let outputs = tempfile::tempdir()?;
    /// let policy = BatchPolicy::new(MemoryStore::new(), outputs.path())
    ///     .kind("lines", |text| Ok(Lines(text.lines().map(Step::new).collect(), 0)));
    /// let engine = Engine::builder(LocalExecutor::new(".")?).batches(policy).build()?;
    /// let alice = Caller::new("alice")?.with_all_scopes();
    /// let batches = engine.batches();
    /// let submitted = batches.submit_job(&alice, "lines", "true\ntrue", None).await?;
    /// let record = batches.wait(&alice, &submitted.record.info.id).await?;
    /// assert_eq!((record.info.state, record.steps.len()), (BatchState::Succeeded, 2));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`submit`](Self::submit).
    ///
    /// # Cancel safety
    ///
    /// As [`submit`](Self::submit).
    pub async fn submit_job(
        &self,
        caller: &Caller,
        kind: &str,
        recipe: impl Into<String>,
        idempotency_key: Option<&str>,
    ) -> Result<Submitted, BatchError> {
        let recipe = JobSpec { kind: kind.to_owned(), text: recipe.into() };
        self.may(caller)?;
        let work = self.large_work(caller);
        let bytes = recipe.text.len();
        let (sum, recipe) = match idempotency_key {
            None => (String::new(), recipe),
            Some(_) => {
                let sum = move || {
                    let text = format!("{}\0{}", recipe.kind, recipe.text);
                    (hex(&Sha256::digest(text)), recipe)
                };
                work.run(bytes, sum).await
            }
        };
        let key = self.lock_key(caller, idempotency_key, sum, bytes).await?;
        let (this, caller) = (self.clone(), caller.clone());
        detached(async move {
            this.once(&work, &caller, key, async |this: &Self| {
                let maker = this.clone();
                let make = move || {
                    let job = maker.make(&recipe, None);
                    let problem = |problem| BatchError::Malformed { field: Field::Recipe, problem };
                    Ok::<_, BatchError>((job.map_err(problem)?, StoredRecipe::new(recipe, None)))
                };
                let (job, recipe) = work.run(bytes, make).await?;
                let inputs = &this.registry()?.inputs;
                let bytes = input_bytes(job.steps());
                let held = inputs.reserve(caller.user(), bytes)?;
                let work = (&work, bytes);
                let early = |_: &_, _| StepCheck::Early;
                let job = check_steps(this, &caller, work, job, |job| job.steps(), early).await?;
                Ok(AcceptedBatch { recipe, job, held, about: BatchDetails::default() })
            })
            .await
        })
        .await
    }

    /// Returns the batch that was submitted with this `idempotency_key`.
    ///
    /// # Errors
    ///
    /// [`BatchError::NoBatch`] when there is none, [`BatchError::Forbidden`], [`BatchError::NoStore`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn submitted_with(
        &self,
        caller: &Caller,
        idempotency_key: &str,
    ) -> Result<BatchId, BatchError> {
        self.may(caller)?;
        let missing = || BatchError::NoBatch(idempotency_key.chars().take(80).collect());
        let key = checked_key(idempotency_key).map_err(|_| missing())?;
        let key = key::idempotency(caller.user(), &key);
        let row: Option<KeyRow> = self.registry()?.journal.get(key).await?;
        row.and_then(|row| row.id.parse().ok()).ok_or_else(missing)
    }

    /// The key of a request whose SHA-256 is `sum`, once no other with the same key is worked at. While
    /// it waits for that, its `bytes` are counted.
    pub(crate) async fn lock_key(
        &self,
        caller: &Caller,
        key: Option<&str>,
        sum: String,
        bytes: usize,
    ) -> Result<Option<UsedKey>, BatchError> {
        let Some(key) = key else { return Ok(None) };
        let text = checked_key(key)?;
        self.may(caller)?;
        let Registry { keys, inputs, .. } = &**self.registry()?;
        let reserve = || inputs.reserve(caller.user(), bytes).map_err(BatchError::from);
        let lock = keys.lock(caller.user(), &text, reserve).await?;
        Ok(Some(UsedKey { text, sum, _lock: lock }))
    }

    /// Makes a batch, unless there is one under this key.
    pub(crate) async fn once(
        &self,
        work: &CallerLargeWork,
        caller: &Caller,
        key: Option<UsedKey>,
        accept: impl AsyncFnOnce(&Self) -> Result<AcceptedBatch, BatchError>,
    ) -> Result<Submitted, BatchError> {
        self.may(caller)?;
        self.resume_late().await;
        let registry = self.registry()?;
        if let Some(UsedKey { text, sum, .. }) = &key {
            let row: Option<KeyRow> =
                registry.journal.get(key::idempotency(caller.user(), text)).await?;
            if let Some(row) = row {
                if row.sha256 != *sum {
                    return Err(BatchError::KeyReused);
                }
                let Ok(id) = row.id.parse() else {
                    return Err(BatchError::Damaged);
                };
                let record = match self.get_or_info(work, caller, &id).await {
                    Err(BatchError::NoBatch(_)) => return Err(BatchError::Conflict(KEY_USED_UP)),
                    found => found?,
                };
                return Ok(Submitted { record, is_new: false });
            }
        }
        if !self.runner.is_open() {
            return Err(BatchError::Draining);
        }
        registry.journal.accepts().await?;
        let accepted = accept(self).await?;
        // The lock of the key is held until the batch is there under it.
        let driver = self.begin(registry, caller, accepted, key.as_ref()).await?;
        drop(key);
        let record = self.get_or_info(work, caller, &driver.id).await;
        driver.spawn(ResumeState { is_new: true, ..ResumeState::default() });
        Ok(Submitted { record: record?, is_new: true })
    }

    pub(crate) async fn accept(
        &self,
        work: &CallerLargeWork,
        caller: &Caller,
        mut plan: PlanData,
        rerun_of: Option<String>,
    ) -> Result<AcceptedBatch, BatchError> {
        let bytes = plan.bytes();
        let place = match self.check_plan(caller, &mut plan, rerun_of.is_some()) {
            Ok(place) => place,
            Err(error) => {
                work.run(bytes, move || drop(plan)).await;
                return Err(error);
            }
        };
        let bytes = bytes.saturating_add(copied_bytes(place.as_ref(), &plan));
        let (registry, user) = (Arc::clone(self.registry()?), caller.user().clone());
        let settle = move || {
            settle(&mut plan, place);
            let held = registry.inputs.reserve(&user, input_bytes(&plan.steps))?;
            let needs = crate::batch::graph::dependencies(&plan.steps)?;
            Ok::<_, BatchError>(((plan, needs), held))
        };
        let (settled, held) = work.run(bytes, settle).await?;
        let checked = check_steps(self, caller, (work, bytes), settled, steps_of, default_check);
        let settled = checked.await?;
        let parallelism = self.registry()?.policy.parallelism;
        let make = move || {
            let (mut plan, _) = settled;
            let mut kept = plan.clone();
            let inputs = Inputs::take(&mut kept);
            let text = kept.to_json();
            let (name, labels, timeout) = (plan.name.take(), plan.labels.clone(), plan.timeout);
            let about = BatchDetails { name, labels, timeout, rerun_of };
            let job = Box::new(Schedule::new(plan, parallelism)?);
            let recipe = JobSpec { kind: PLAN.to_owned(), text };
            Ok(AcceptedBatch {
                recipe: StoredRecipe::new(recipe, inputs.as_ref()),
                job,
                held,
                about,
            })
        };
        work.run(bytes, make).await
    }

    /// Whether a batch can be, as a whole; gives the place of its session.
    fn check_plan(
        &self,
        caller: &Caller,
        plan: &mut PlanData,
        is_rerun: bool,
    ) -> Result<Option<SessionPlace>, BatchError> {
        let policy = &self.registry()?.policy;
        let malformed = |field, problem: String| Err(BatchError::Malformed { field, problem });
        plan.name = match name_to_show(plan.name.take()) {
            Ok(name) => name,
            Err(problem) => return malformed(Field::Name, problem.to_owned()),
        };
        checked_labels(&plan.labels)?;
        if plan.timeout.is_some_and(|timeout| !(1..=MAX_TIMEOUT_MS).contains(&timeout)) {
            return malformed(
                Field::Timeout,
                format!("must be from 1 to {MAX_TIMEOUT_MS} ms, a year"),
            );
        }
        if plan.steps.is_empty() {
            return malformed(Field::Steps, "must hold at least one step".to_owned());
        }
        if plan.steps.len() > policy.max_steps {
            let problem = format!("are over the maximum of {}", policy.max_steps);
            return malformed(Field::Steps, problem);
        }
        if let Some(count) = plan.parallelism
            && !(1..=policy.max_parallelism).contains(&count)
        {
            let problem = format!("must be from 1 to {}", policy.max_parallelism);
            return malformed(Field::Parallelism, problem);
        }
        let runs: u64 = plan.steps.iter().map(|step| u64::from(step.0.retries) + 1).sum();
        if !is_rerun && runs > MAX_RUNS {
            let problem = format!(
                "could be run {runs} times in all with their `retries`, over the maximum of {MAX_RUNS}"
            );
            return malformed(Field::Steps, problem);
        }
        let place = match plan.session_id.take() {
            Some(id) => {
                let place = self.sessions.place_of(caller, id.as_str().into_id());
                Some(place.map_err(Box::new)?)
            }
            None => None,
        };
        let copied = copied_bytes(place.as_ref(), plan);
        if copied > MAX_COPIED_BYTES {
            let problem = format!(
                "would get {copied} bytes of the batch's directory and the session's variables in all, \
                 over the maximum of {MAX_COPIED_BYTES}: use fewer steps, a shorter directory, or a \
                 session with fewer variables"
            );
            return malformed(Field::Steps, problem);
        }
        Ok(place)
    }

    /// Writes it down.
    async fn begin(
        &self,
        registry: &Arc<Registry>,
        caller: &Caller,
        accepted: AcceptedBatch,
        key: Option<&UsedKey>,
    ) -> Result<Driver, BatchError> {
        let AcceptedBatch { recipe, job, held, about } = accepted;
        let StoredRecipe { kind, row, recipe_bytes, inputs } = recipe;
        let BatchDetails { name, labels, timeout, rerun_of } = about;
        let total = job.steps().len() as u64;
        let quota = registry.step_quota(caller.user(), job.steps().len(), held, false)?;
        let id = BatchId::new();
        let input_bytes = inputs.as_ref().map_or(0, |all| all.len() as u64);
        let mut summary = Summary {
            user: caller.user().to_string(),
            name,
            kind,
            state: BatchState::Queued.name().to_owned(),
            created: now(),
            started: None,
            ended: None,
            counts: Default::default(),
            failure: None,
            rerun_of,
            labels,
            timeout,
            duration: None,
            filed: None,
            events: 1,
            bytes: recipe_bytes + input_bytes,
            recipe_bytes,
            input_bytes,
            has_inputs: inputs.is_some(),
            key: key.map(|key| key.text.clone()),
        };
        summary.set_counts(StepCounts { total, queued: total, ..StepCounts::default() });
        let mut changes = vec![
            set(key::summary(&id), &summary),
            Change::set(key::recipe(&id), row),
            set(key::event(&id, 1), &EventRow { time: now(), what: EventKind::Queued }),
            Change::set(key::open(id.as_str()), []),
            Change::set(key::of_user(&summary.user, id.as_str()), []),
            Change::set(key::of_user_in(&summary.user, BatchState::Queued, id.as_str()), []),
        ];
        if let Some(UsedKey { text, sum, .. }) = key {
            let row = KeyRow { id: id.to_string(), sha256: sum.clone() };
            changes.push(set(key::idempotency(caller.user(), text), &row));
        }
        if let Some(inputs) = inputs {
            self.keep_inputs(registry, &id, inputs).await?;
        }
        if let Err(error) = registry.journal.commit(changes).await {
            let (outputs, name) = (registry.outputs.clone(), id.to_string());
            blocking(move || outputs.remove(&name)).await;
            return Err(error.into());
        }
        registry.watch();
        let live = registry.begin(&id, caller.user(), 1);
        let init = DriverInit { id, caller: caller.clone(), job, live, quota, summary };
        Ok(Driver::new(&self.runner, registry, init))
    }

    /// Writes down what the steps are given, before the batch itself is.
    async fn keep_inputs(
        &self,
        registry: &Registry,
        id: &BatchId,
        inputs: Vec<u8>,
    ) -> Result<(), BatchError> {
        let (outputs, of) = (registry.outputs.clone(), id.clone());
        let reserve = self.runner.reserve.clone();
        let written = blocking(move || {
            if outputs.check_space(&reserve, inputs.len() as u64).is_err() {
                return Err(StoreFault::Full);
            }
            outputs.write_inputs(&of, &inputs).map_err(|error| {
                outputs.remove(of.as_str());
                error.into()
            })
        });
        written.await.map_err(BatchError::from)
    }

    /// The job of a recipe, whose steps are given `inputs`.
    pub(crate) fn make(
        &self,
        recipe: &JobSpec,
        inputs: Option<Inputs>,
    ) -> Result<Box<dyn BatchJob>, String> {
        let policy = &self.registry().map_err(|error| error.to_string())?.policy;
        if recipe.kind == PLAN {
            let mut plan = PlanData::from_json(&recipe.text).map_err(|error| error.to_string())?;
            if inputs.is_some_and(|inputs| !inputs.put(&mut plan)) {
                return Err("its inputs are of another batch".to_owned());
            }
            let schedule =
                Schedule::new(plan, policy.parallelism).map_err(|error| error.to_string())?;
            return Ok(Box::new(schedule));
        }
        let make = policy.kinds.get(&recipe.kind).map(Arc::clone);
        make.ok_or_else(|| format!("there is no kind of batch `{}`", recipe.kind))?(&recipe.text)
    }

    /// Refuses a caller who may not [submit](Self::submit) batches: for adapters, before they read
    /// the body of a request.
    ///
    /// # Errors
    ///
    /// [`BatchError::Forbidden`], [`BatchError::NoStore`].
    pub fn check_submit(&self, caller: &Caller) -> Result<(), BatchError> {
        self.may(caller)?;
        self.registry().map(drop)
    }

    pub(crate) fn may(&self, caller: &Caller) -> Result<(), BatchError> {
        if caller.may(Scope::Execute) {
            Ok(())
        } else {
            Err(BatchError::Forbidden("this takes the scope `execute`"))
        }
    }
}

/// A plan, and the places of the steps that each of its steps depends on.
type Settled = (PlanData, Vec<Vec<usize>>);

fn steps_of((plan, _): &Settled) -> &[Step] {
    &plan.steps
}

/// When the program of the step at `place` is looked for: others may make it before.
fn default_check((_, needs): &Settled, place: usize) -> StepCheck {
    if needs[place].is_empty() { StepCheck::Early } else { StepCheck::Late }
}

/// Number of bytes of the directory of a batch and of its session's variables that its steps get in all.
fn copied_bytes(place: Option<&SessionPlace>, plan: &PlanData) -> usize {
    let (present, env) = place.map_or((None, &[][..]), |(_, present, env)| (present.as_ref(), env));
    let variables: usize = env.iter().map(|(name, value)| name.len() + value.len()).sum();
    let workdir = plan.workdir.as_ref().or(present).map_or(0, String::len);
    let without = plan.steps.iter().filter(|step| step.0.command.workdir.is_none()).count();
    variables.saturating_mul(plan.steps.len()).saturating_add(workdir.saturating_mul(without))
}

/// Gives every step the batch's directory, and the session's directory and variables as they are now, of
/// which each has a copy.
fn settle(plan: &mut PlanData, place: Option<SessionPlace>) {
    let mut workdir = plan.workdir.take();
    if let Some((session_id, present, env)) = place {
        workdir = workdir.or(present);
        for step in &mut plan.steps {
            step.0.session_id = Some(session_id.to_string());
            step.0.command.env.splice(0..0, env.iter().cloned());
        }
    }
    for step in &mut plan.steps {
        if step.0.command.workdir.is_none() {
            step.0.command.workdir.clone_from(&workdir);
        }
    }
}

fn checked_key(key: &str) -> Result<String, BatchError> {
    if (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(key.to_owned());
    }
    let problem = "is 1 to 255 visible ASCII characters".to_owned();
    Err(BatchError::Malformed { field: Field::IdempotencyKey, problem })
}

/// The memory that what these steps were given takes.
fn input_bytes(steps: &[Step]) -> usize {
    steps.iter().map(Step::input_bytes).sum()
}

/// In a task of its own, so that nobody's dropped future leaves it half-made.
pub(crate) async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, BatchError>> + Send + 'static,
) -> Result<T, BatchError> {
    tokio::spawn(work).await.unwrap_or_else(|error| Err(BatchError::Internal(error.into())))
}

/// Maximum number of runs of all steps of a batch, each of which leaves events in the store.
const MAX_RUNS: u64 = 100_000;
const KEY_USED_UP: &str = "the batch that was made with this idempotency key is over and kept no \
    longer; a new request needs a new key";

/// Maximum size in bytes of what all steps of a batch get of its directory and of its session's variables: a
/// request must not take a thousand times its size.
const MAX_COPIED_BYTES: usize = 16 << 20;
