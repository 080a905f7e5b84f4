use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::batch::plan::PlanData;
use crate::batch::registry::Registry;
use crate::batch::row::{Recipe, StepRow, Summary, What, batch_state, key};
use crate::batch::runner::PLAN;
use crate::batch::{
    BatchError, BatchEvent, BatchInfo, BatchList, BatchRecord, BatchState, Happening, StepCounts,
    StepInfo, StepOutput,
};
use crate::caller::Caller;
use crate::engine::Engine;
use crate::execute::Stream;
use crate::id::BatchId;
use crate::session::time;

/// The batches of an engine, as a [`Caller`] may use them: their own. Got from
/// [`Engine::batches`]; cheap to clone.
///
/// ```
/// use splengine_core::{
///     BatchPolicy, BatchRequest, BatchState, Caller, Engine, LocalExecutor, MemoryStore, Step,
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let outputs = std::env::temp_dir().join("splengine-doc-batches");
/// let engine = Engine::builder(LocalExecutor::new(".")?)
///     .batches(BatchPolicy::new(MemoryStore::new(), outputs)?)
///     .build()?;
/// let alice = Caller::with_all_scopes("alice".parse()?);
/// let request = BatchRequest::new().step(Step::new("true")).step(Step::new("echo done"));
/// let id = engine.batches().submit(&alice, request, None).await?.record.info.id;
/// let record = engine.batches().wait(&alice, id.as_str()).await?;
/// assert_eq!(record.info.state, BatchState::Succeeded);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Batches {
    pub(crate) engine: Engine,
}

/// A batch's events, from some point on.
pub struct BatchEvents {
    batches: Batches,
    id: BatchId,
    names: Names,
    after: u64,
    read: VecDeque<BatchEvent>,
    changed: Option<watch::Receiver<u64>>,
    is_over: bool,
}

/// What the steps of a batch are called.
struct Names {
    steps: Vec<(String, String, Vec<String>)>,
}

impl Batches {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine }
    }

    pub(crate) fn registry(&self) -> Result<&Registry, BatchError> {
        self.engine.0.batches.as_ref().ok_or(BatchError::NoStore)
    }

    /// How many batches are not over.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.registry().map_or(0, Registry::count)
    }

    /// A batch with its steps, as it is now.
    ///
    /// # Errors
    ///
    /// [`BatchError::NoBatch`], [`BatchError::Forbidden`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect, as with all that only look.
    pub async fn get(&self, caller: &Caller, id: &str) -> Result<BatchRecord, BatchError> {
        let (id, mut summary) = self.find(caller, id).await?;
        let journal = &self.registry()?.journal;
        let recipe = journal.recipe(&id).await?;
        let mut tries = 0;
        // What was read in several steps is of one moment if nothing happened meanwhile.
        let (rows, is_exact) = loop {
            let rows = journal.steps(&id).await?;
            let missing = || BatchError::NoBatch(id.to_string());
            let now = journal.summary(&id).await?.ok_or_else(missing)?;
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
        let mut record = record(&id, &summary, &recipe, rows)?;
        if !is_exact {
            record.info.counts = StepCounts::of_all(&record.steps);
        }
        Ok(record)
    }

    /// The caller's batches, the newest first: at most `most` (and 500), those in `state` only, if
    /// one is given, and those that follow the page that gave `cursor`.
    ///
    /// # Errors
    ///
    /// [`BatchError::Malformed`] for a cursor that no page gave, [`BatchError::Forbidden`].
    pub async fn list(
        &self,
        caller: &Caller,
        state: Option<BatchState>,
        cursor: Option<&str>,
        most: usize,
    ) -> Result<BatchList, BatchError> {
        self.may(caller)?;
        let journal = &self.registry()?.journal;
        let user = caller.user().as_str();
        let key_of = |id: &str| match state {
            Some(state) => key::of_user_in(user, state, id),
            None => key::of_user(user, id),
        };
        let until = match cursor {
            Some(cursor) => {
                let id: BatchId = cursor.parse().map_err(|_| BatchError::Malformed {
                    field: "cursor",
                    problem: "is none that a page gave".to_owned(),
                })?;
                key_of(id.as_str())
            }
            // Ids are ASCII.
            None => key_of("\u{7f}"),
        };
        let most = most.clamp(1, 500);
        let mut rows = journal.scan(key_of(""), until, true, most + 1).await?;
        let has_more = rows.len() > most;
        rows.truncate(most);
        let mut batches: Vec<BatchInfo> = Vec::with_capacity(rows.len());
        for (row, _) in &rows {
            let id: Option<BatchId> = key::last_part(row).and_then(|id| id.parse().ok());
            let Some(id) = id else { continue };
            // It may be gone by now; or damaged, which must not hide the others.
            if let Ok(Some(summary)) = journal.summary(&id).await {
                batches.extend(summary.info(&id));
            }
        }
        let last = rows.last().and_then(|(row, _)| key::last_part(row));
        Ok(BatchList { batches, next: last.filter(|_| has_more).map(str::to_owned) })
    }

    /// Waits until a batch is over.
    ///
    /// # Errors
    ///
    /// [`BatchError::NoBatch`]; [`BatchError::Draining`] when the engine shuts down before: the
    /// batch goes on in the next.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect on the batch.
    pub async fn wait(&self, caller: &Caller, id: &str) -> Result<BatchRecord, BatchError> {
        let (parsed, _) = self.find(caller, id).await?;
        loop {
            let live = self.registry()?.live(&parsed);
            let mut changed = live.as_ref().map(|live| live.changed.subscribe());
            drop(live);
            let (_, summary) = self.find(caller, id).await?;
            if summary.state().is_final() {
                return self.get(caller, id).await;
            }
            let Some(changed) = &mut changed else { return Err(BatchError::Draining) };
            let _ = changed.changed().await;
        }
    }

    /// A batch's events that come after the one with this number; 0 is from its beginning.
    ///
    /// # Errors
    ///
    /// [`BatchError::NoBatch`]; [`BatchError::Malformed`] when the batch has no event of this number
    /// yet, which nobody can have been told.
    pub async fn events(
        &self,
        caller: &Caller,
        id: &str,
        after: u64,
    ) -> Result<BatchEvents, BatchError> {
        let (id, summary) = self.find(caller, id).await?;
        if after > summary.events {
            let last = summary.events;
            let problem =
                format!("of {after} is after the last event, which has the number {last}");
            return Err(BatchError::Malformed { field: "after", problem });
        }
        let recipe = self.registry()?.journal.recipe(&id).await?;
        let changed = self.registry()?.live(&id).map(|live| live.changed.subscribe());
        Ok(BatchEvents {
            batches: self.clone(),
            names: Names::of(&recipe)?,
            id,
            after,
            read: VecDeque::new(),
            changed,
            is_over: summary.state().is_final() && after == summary.events,
        })
    }

    /// What a run of a step has printed, or prints still: of its how manieth run is `attempt`, from
    /// 1; without that, of its last one. Before its first run there is nothing. What earlier runs
    /// printed is kept as long as the batch is.
    ///
    /// # Errors
    ///
    /// [`BatchError::NoBatch`], [`BatchError::NoStep`], [`BatchError::NoAttempt`].
    pub async fn output(
        &self,
        caller: &Caller,
        id: &str,
        step: &str,
        stream: Stream,
        attempt: Option<u32>,
    ) -> Result<StepOutput, BatchError> {
        let registry = self.registry()?;
        // Before it is looked at: so none is taken for over that was run again since.
        let live = id.parse().ok().and_then(|id| registry.live(&id));
        let record = self.get(caller, id).await?;
        let missing = || BatchError::NoStep(step.chars().take(80).collect());
        let place = record.steps.iter().position(|known| known.id == step).ok_or_else(missing)?;
        let live = live.map(|live| (registry.journal.clone(), live));
        let number = u32::try_from(place).map_err(|_| missing())?;
        // Whoever follows a step that has not begun waits for its first run.
        let last = record.steps[place].attempt.max(1);
        let attempt = attempt.unwrap_or(last);
        if !(1..=last).contains(&attempt) {
            let step = record.steps[place].id.clone();
            return Err(BatchError::NoAttempt { step, attempt, last });
        }
        let outputs = registry.policy.outputs.clone();
        Ok(StepOutput::new(outputs, live, record.info.id, number, (attempt, last), stream))
    }

    /// Cancels a batch: what runs is stopped, what waits is left out. Gives the record, as it is at
    /// its end, or after 30 seconds. Does nothing to a batch that is over.
    ///
    /// # Errors
    ///
    /// [`BatchError::NoBatch`]; [`BatchError::Draining`] when the engine shuts down.
    ///
    /// # Cancel safety
    ///
    /// The cancellation takes its course when the future is dropped.
    pub async fn cancel(&self, caller: &Caller, id: &str) -> Result<BatchRecord, BatchError> {
        let (parsed, summary) = self.find(caller, id).await?;
        if !summary.state().is_final() {
            if let Some(live) = self.registry()?.live(&parsed) {
                live.cancel.send_replace(true);
            }
            if let Ok(Err(error)) = timeout(CANCEL_WITHIN, self.wait(caller, id)).await {
                return Err(error);
            }
        }
        self.get(caller, id).await
    }

    pub(crate) async fn find(
        &self,
        caller: &Caller,
        id: &str,
    ) -> Result<(BatchId, Summary), BatchError> {
        self.may(caller)?;
        let missing = || BatchError::NoBatch(id.chars().take(80).collect());
        let parsed: BatchId = id.parse().map_err(|_| missing())?;
        let summary = self.registry()?.journal.summary(&parsed).await?;
        match summary.filter(|summary| summary.user == caller.user().as_str()) {
            Some(summary) => Ok((parsed, summary)),
            None => Err(missing()),
        }
    }
}

impl BatchEvents {
    /// Whether no event follows any more: the batch is over, and its last event was given, or came
    /// before those that were asked for.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Waits for the next event; `None` after the last, or when the engine shuts down.
    ///
    /// # Errors
    ///
    /// [`BatchError`] when the store can't be read.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Option<BatchEvent>, BatchError> {
        loop {
            if let Some(event) = self.read.pop_front() {
                self.after = event.seq;
                self.is_over = matches!(event.what, Happening::Finished { .. });
                return Ok(Some(event));
            }
            if self.is_over {
                return Ok(None);
            }
            if let Some(changed) = &mut self.changed {
                changed.borrow_and_update();
            }
            let registry = self.batches.registry()?;
            let rows = registry.journal.events(&self.id, self.after, EVENTS_READ).await?;
            let is_empty = rows.is_empty();
            for (seq, row) in rows {
                if let What::Started { step, .. } = &row.what
                    && *step as usize >= self.names.steps.len()
                {
                    // Of a kind whose steps are not known beforehand.
                    self.names.learn(&registry.journal.steps(&self.id).await?);
                }
                let what = self.names.happening(row.what);
                self.read.push_back(BatchEvent { seq, time: time(row.time), what });
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

/// A batch with its steps, of what is written of it.
pub(crate) fn record(
    id: &BatchId,
    summary: &Summary,
    recipe: &Recipe,
    rows: Vec<(u32, StepRow)>,
) -> Result<BatchRecord, BatchError> {
    let mut names = Names::of(recipe)?;
    names.learn(&rows);
    let mut all = vec![StepRow::default(); names.steps.len()];
    for (place, row) in rows {
        if let Some(known) = all.get_mut(place as usize) {
            *known = row;
        }
    }
    let steps = all.iter().enumerate().map(|(place, row)| names.info(place, row)).collect();
    Ok(BatchRecord { info: summary.info(id).ok_or(BatchError::Damaged)?, steps })
}

impl Names {
    fn of(recipe: &Recipe) -> Result<Self, BatchError> {
        if recipe.kind != PLAN {
            return Ok(Self { steps: Vec::new() });
        }
        let plan: PlanData = serde_json::from_str(&recipe.text).map_err(|_| BatchError::Damaged)?;
        let mut before: Option<String> = None;
        let mut steps = Vec::with_capacity(plan.steps.len());
        for (place, step) in plan.steps.into_iter().enumerate() {
            let id = step.id_at(place);
            let needs = step.0.depends_on.unwrap_or_else(|| before.into_iter().collect());
            before = Some(id.clone());
            steps.push((id, step.0.command, needs));
        }
        Ok(Self { steps })
    }

    /// Takes in the steps that only their rows tell of.
    fn learn(&mut self, rows: &[(u32, StepRow)]) {
        for (place, row) in rows {
            let place = *place as usize;
            let Some(step) = &row.step else { continue };
            while self.steps.len() <= place {
                self.steps.push(((self.steps.len() + 1).to_string(), String::new(), Vec::new()));
            }
            self.steps[place] = (step.0.id_at(place), step.0.command().to_owned(), Vec::new());
        }
    }

    fn info(&self, place: usize, row: &StepRow) -> StepInfo {
        let known = self.steps.get(place).cloned();
        let (id, command, depends_on) =
            known.unwrap_or_else(|| ((place + 1).to_string(), String::new(), Vec::new()));
        row.info(id, command, depends_on)
    }

    fn id(&self, place: u32) -> String {
        let known = self.steps.get(place as usize).map(|(id, ..)| id.clone());
        known.unwrap_or_else(|| (place as usize + 1).to_string())
    }

    fn happening(&self, what: What) -> Happening {
        match what {
            What::Queued => Happening::Queued,
            What::Begun => Happening::Begun,
            What::Started { step, attempt, .. } => {
                Happening::Started { step: self.id(step), attempt }
            }
            What::Ended { step, row } => Happening::Ended(Box::new(self.info(step as usize, &row))),
            What::Due { step } => Happening::Due { step: self.id(step) },
            What::Skipped { step, reason } => Happening::Skipped { step: self.id(step), reason },
            What::Cancelling => Happening::Cancelling,
            What::Finished { state, exit_code } => {
                Happening::Finished { state: batch_state(&state), exit_code }
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
