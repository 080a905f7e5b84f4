//! Accepting a batch: everything is checked, then it is on disk, then it is begun.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::batch::inputs::Inputs;
use crate::batch::journal::set;
use crate::batch::plan::{PlanData, Step, millis};
use crate::batch::registry::Registry;
use crate::batch::row::{EventRow, Recipe, Summary, What, key, now};
use crate::batch::runner::{Driver, PLAN, Pending};
use crate::batch::schedule::Schedule;
use crate::batch::{
    BatchError, BatchJob, BatchRecord, BatchRequest, BatchState, Batches, StepCounts,
};
use crate::caller::{Caller, Scope};
use crate::execute::{Command, ExecuteError};
use crate::id::BatchId;
use crate::session::blocking;
use crate::store::{Change, StoreFault};
use crate::text::{hex, name_to_show};

/// What became of submitting a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Submitted {
    /// The batch.
    pub record: BatchRecord,
    /// Whether it was made now, and not under the same idempotency key before.
    pub is_new: bool,
}

/// Under an idempotency key.
#[derive(Debug, Serialize, Deserialize)]
struct KeyRow {
    id: String,
    /// Of the request, so that another one is noticed.
    sha256: String,
}

/// A program, the directory that it runs in, and the variables that it is found by.
type Found = (String, Option<String>, Vec<(String, String)>);

/// A batch that may be.
struct Accepted {
    name: Option<String>,
    rerun_of: Option<String>,
    recipe: Recipe,
    inputs: Option<Inputs>,
    job: Box<dyn BatchJob>,
}

impl Batches {
    /// Accepts a batch. Once it returns the batch is on disk, and is run to its end or truthfully
    /// reported, whatever becomes of this process.
    ///
    /// With an `idempotency_key` (1 to 255 visible ASCII characters) a repetition gives the batch
    /// that was made first, for as long as that is kept.
    ///
    /// # Errors
    ///
    /// [`BatchError`] that names the step and what is wrong with it. Then nothing of the batch is
    /// there.
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
        let sum = hex(&Sha256::digest(serde_json::to_vec(&request).unwrap_or_default()));
        let (this, caller) = (self.clone(), caller.clone());
        let key = idempotency_key.map(|key| checked_key(key).map(|key| (key, sum))).transpose()?;
        detached(async move {
            this.once(&caller, key, async |this: &Self| this.accept(&caller, request, None).await)
                .await
        })
        .await
    }

    /// The same for a [kind](crate::BatchPolicy::kind) of one's own, whose job is made from
    /// `recipe`.
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
        let recipe = Recipe { kind: kind.to_owned(), text: recipe.into() };
        let sum = hex(&Sha256::digest(format!("{}\0{}", recipe.kind, recipe.text)));
        let (this, caller) = (self.clone(), caller.clone());
        let key = idempotency_key.map(|key| checked_key(key).map(|key| (key, sum))).transpose()?;
        detached(async move {
            this.once(&caller, key, async |this: &Self| {
                let job = this
                    .make(&recipe, None)
                    .map_err(|problem| BatchError::Malformed { field: "recipe", problem })?;
                for (place, step) in job.steps().iter().enumerate() {
                    this.check(&caller, place, step, &mut HashSet::new()).await?;
                }
                Ok(Accepted { name: None, rerun_of: None, recipe, inputs: None, job })
            })
            .await
        })
        .await
    }

    /// Runs the steps of a batch that is over again, as a new batch: all, or only those that did not
    /// succeed, whose other dependencies then count as met.
    ///
    /// # Errors
    ///
    /// [`BatchError::NoBatch`]; [`BatchError::Conflict`] when it is not over, none is left to run, or
    /// the variables and standard input of its steps are [kept no
    /// longer](crate::BatchPolicy::keep_inputs_for); and as [`submit`](Self::submit).
    ///
    /// # Cancel safety
    ///
    /// As [`submit`](Self::submit).
    pub async fn rerun(
        &self,
        caller: &Caller,
        id: &str,
        only_failed: bool,
    ) -> Result<Submitted, BatchError> {
        let (id, summary) = self.find(caller, id).await?;
        if !summary.state().is_final() {
            return Err(BatchError::Conflict("the batch is not over; cancel it first"));
        }
        let recipe = self.registry()?.journal.recipe(&id).await?;
        let mut plan: PlanData = match recipe.kind.as_str() {
            PLAN => serde_json::from_str(&recipe.text).map_err(|_| BatchError::Damaged)?,
            _ => return Err(BatchError::Conflict("a batch of this kind can't be run again")),
        };
        if summary.has_inputs {
            let (outputs, of) = (self.registry()?.policy.outputs.clone(), id.clone());
            let inputs = blocking(move || outputs.read_inputs(&of)).await;
            let inputs = inputs.map_err(|error| BatchError::Internal(error.into()))?;
            let Some(inputs) = inputs else { return Err(BatchError::Conflict(INPUTS_GONE)) };
            if !inputs.put(&mut plan) {
                return Err(BatchError::Damaged);
            }
        }
        if only_failed {
            let record = self.get(caller, id.as_str()).await?;
            let succeeded: HashSet<String> = record
                .steps
                .iter()
                .filter(|step| step.state == crate::batch::StepState::Succeeded)
                .map(|step| step.id.clone())
                .collect();
            let ids: Vec<String> =
                plan.steps.iter().enumerate().map(|(place, step)| step.id_at(place)).collect();
            for (place, step) in plan.steps.iter_mut().enumerate() {
                let before = place.checked_sub(1).map(|before| ids[before].clone());
                let needs =
                    step.0.depends_on.take().unwrap_or_else(|| before.into_iter().collect());
                step.0.depends_on =
                    Some(needs.into_iter().filter(|id| !succeeded.contains(id)).collect());
                step.0.id = Some(ids[place].clone());
            }
            plan.steps.retain(|step| !step.0.id.as_ref().is_some_and(|id| succeeded.contains(id)));
            if plan.steps.is_empty() {
                return Err(BatchError::Conflict("no step of this batch failed"));
            }
        }
        let (this, caller) = (self.clone(), caller.clone());
        detached(async move {
            let rerun_of = Some(id.to_string());
            this.once(&caller, None, async |this: &Self| {
                this.accept(&caller, BatchRequest(plan), rerun_of).await
            })
            .await
        })
        .await
    }

    /// Makes a batch, unless there is one under this key.
    /// The batch that was submitted with this `idempotency_key`.
    ///
    /// # Errors
    ///
    /// [`BatchError::NoBatch`].
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

    async fn once(
        &self,
        caller: &Caller,
        key: Option<(String, String)>,
        accept: impl AsyncFnOnce(&Self) -> Result<Accepted, BatchError>,
    ) -> Result<Submitted, BatchError> {
        self.may(caller)?;
        let registry = self.registry()?;
        // So that nobody else uses the key between the look and the use.
        let _guard = match &key {
            Some(_) => Some(registry.keys.lock().await),
            None => None,
        };
        if let Some((text, sum)) = &key {
            let row: Option<KeyRow> =
                registry.journal.get(key::idempotency(caller.user(), text)).await?;
            if let Some(row) = row {
                if row.sha256 != *sum {
                    return Err(BatchError::KeyReused);
                }
                let record = match self.get(caller, &row.id).await {
                    Err(BatchError::NoBatch(_)) => return Err(BatchError::Conflict(KEY_USED_UP)),
                    found => found?,
                };
                return Ok(Submitted { record, is_new: false });
            }
        }
        if !self.engine.is_open() {
            return Err(BatchError::Draining);
        }
        registry.journal.accepts().await?;
        let accepted = accept(self).await?;
        let driver = self.begin(registry, caller, accepted, key).await?;
        let record = self.get(caller, driver.id.as_str()).await;
        driver.spawn(Pending { is_new: true, ..Pending::default() });
        Ok(Submitted { record: record?, is_new: true })
    }

    async fn accept(
        &self,
        caller: &Caller,
        request: BatchRequest,
        rerun_of: Option<String>,
    ) -> Result<Accepted, BatchError> {
        let mut plan = request.0;
        let policy = &self.registry()?.policy;
        let malformed = |field, problem: String| Err(BatchError::Malformed { field, problem });
        plan.name = match name_to_show(plan.name) {
            Ok(name) => name,
            Err(problem) => return malformed("name", problem.to_owned()),
        };
        if plan.steps.is_empty() {
            return malformed("steps", "must hold at least one step".to_owned());
        }
        if plan.steps.len() > policy.max_steps {
            let problem = format!("are over the maximum of {}", policy.max_steps);
            return malformed("steps", problem);
        }
        if let Some(count) = plan.parallelism
            && !(1..=policy.max_parallelism).contains(&count)
        {
            let problem = format!("must be from 1 to {}", policy.max_parallelism);
            return malformed("parallelism", problem);
        }
        self.settle(caller, &mut plan)?;
        crate::batch::plan::dependencies(&plan.steps)?;
        let mut seen = HashSet::new();
        for (place, step) in plan.steps.iter().enumerate() {
            self.check(caller, place, step, &mut seen).await?;
        }
        let mut kept = plan.clone();
        let inputs = Inputs::take(&mut kept);
        let text = serde_json::to_string(&kept).unwrap_or_default();
        let name = plan.name.clone();
        let job = Box::new(Schedule::new(plan, policy.parallelism)?);
        Ok(Accepted { name, rerun_of, recipe: Recipe { kind: PLAN.to_owned(), text }, inputs, job })
    }

    /// Gives every step the batch's directory, and the session's directory and variables as they are
    /// now.
    fn settle(&self, caller: &Caller, plan: &mut PlanData) -> Result<(), BatchError> {
        let mut workdir = plan.workdir.take();
        if let Some(id) = plan.session_id.take() {
            let place = self.engine.sessions().place_of(caller, &id);
            let (session_id, present, env) = place.map_err(Box::new)?;
            workdir = workdir.or(present);
            for step in &mut plan.steps {
                step.0.session_id = Some(session_id.to_string());
                step.0.env.splice(0..0, env.iter().cloned());
            }
        }
        for step in &mut plan.steps {
            if step.0.workdir.is_none() {
                step.0.workdir.clone_from(&workdir);
            }
        }
        Ok(())
    }

    /// Whether a step could run now.
    async fn check(
        &self,
        caller: &Caller,
        place: usize,
        step: &Step,
        seen: &mut HashSet<Found>,
    ) -> Result<(), BatchError> {
        let id = || step.id_at(place);
        let wrong = |field, problem: String| Err(BatchError::Step { step: id(), field, problem });
        if step.0.retries > MOST_RETRIES {
            return wrong("retries", format!("must be at most {MOST_RETRIES}"));
        }
        let longest = millis(LONGEST_DELAY);
        if step.0.retry_delay > longest {
            return wrong("retryDelay", format!("must be at most {longest} ms"));
        }
        let refused =
            |error: ExecuteError| BatchError::Command { step: id(), source: Box::new(error) };
        let command: Command = self.engine.command(caller, step.request()).map_err(refused)?;
        // Most steps of a batch differ in their arguments only.
        let what = (command.argv[0].clone(), command.workdir.clone(), step.0.env.clone());
        if seen.insert(what) {
            self.engine.0.executor.check_boxed(&command).await.map_err(refused)?;
        }
        Ok(())
    }

    /// Writes it down.
    async fn begin(
        &self,
        registry: &Registry,
        caller: &Caller,
        accepted: Accepted,
        key: Option<(String, String)>,
    ) -> Result<Driver, BatchError> {
        let Accepted { name, rerun_of, recipe, inputs, job } = accepted;
        let total = job.steps().len() as u64;
        let room = registry.room(&self.engine.0, caller.user(), job.steps().len(), false)?;
        let id = BatchId::new();
        let inputs = inputs.map(|inputs| inputs.to_bytes());
        let mut summary = Summary {
            user: caller.user().to_string(),
            name,
            kind: recipe.kind.clone(),
            state: BatchState::Queued.name().to_owned(),
            created: now(),
            started: None,
            ended: None,
            counts: Default::default(),
            failure: None,
            rerun_of,
            events: 1,
            bytes: recipe.text.len() as u64 + inputs.as_ref().map_or(0, |all| all.len() as u64),
            has_inputs: inputs.is_some(),
            key: key.as_ref().map(|(text, _)| text.clone()),
        };
        summary.set_counts(StepCounts { total, queued: total, ..StepCounts::default() });
        let mut changes = vec![
            set(key::summary(&id), &summary),
            set(key::recipe(&id), &recipe),
            set(key::event(&id, 1), &EventRow { time: now(), what: What::Queued }),
            Change::set(key::open(id.as_str()), []),
            Change::set(key::of_user(&summary.user, id.as_str()), []),
            Change::set(key::of_user_in(&summary.user, BatchState::Queued, id.as_str()), []),
        ];
        if let Some((text, sha256)) = key {
            let row = KeyRow { id: id.to_string(), sha256 };
            changes.push(set(key::idempotency(caller.user(), &text), &row));
        }
        if let Some(inputs) = inputs {
            self.keep_inputs(registry, &id, inputs).await?;
        }
        if let Err(error) = registry.journal.commit(changes).await {
            let (outputs, name) = (registry.policy.outputs.clone(), id.to_string());
            blocking(move || outputs.remove(&name)).await;
            return Err(error.into());
        }
        Registry::watch(&self.engine.0);
        let live = registry.begin(&id, caller.user(), 1);
        Ok(Driver::new(&self.engine, id, caller.clone(), job, live, room, summary))
    }

    /// Writes down what the steps are given, before the batch itself is.
    async fn keep_inputs(
        &self,
        registry: &Registry,
        id: &BatchId,
        inputs: Vec<u8>,
    ) -> Result<(), BatchError> {
        let (outputs, of) = (registry.policy.outputs.clone(), id.clone());
        let reserve = self.engine.disk_reserve();
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
        recipe: &Recipe,
        inputs: Option<Inputs>,
    ) -> Result<Box<dyn BatchJob>, String> {
        let policy = &self.registry().map_err(|error| error.to_string())?.policy;
        if recipe.kind == PLAN {
            let mut plan: PlanData =
                serde_json::from_str(&recipe.text).map_err(|error| error.to_string())?;
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

fn checked_key(key: &str) -> Result<String, BatchError> {
    if (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(key.to_owned());
    }
    let problem = "is 1 to 255 visible ASCII characters".to_owned();
    Err(BatchError::Malformed { field: "idempotency key", problem })
}

/// In a task of its own, so that nobody's dropped future leaves it half-made.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, BatchError>> + Send + 'static,
) -> Result<T, BatchError> {
    tokio::spawn(work).await.unwrap_or_else(|error| Err(BatchError::Internal(error.into())))
}

const INPUTS_GONE: &str = "the variables and standard input of this batch are kept no longer, so it \
    can't be run again; submit it anew";
const KEY_USED_UP: &str = "the batch that was made with this idempotency key is over and kept no \
    longer; a new request needs a new key";
const MOST_RETRIES: u32 = 1000;
const LONGEST_DELAY: std::time::Duration = std::time::Duration::from_hours(1);
