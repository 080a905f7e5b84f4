//! Resuming the batches that an engine before this one left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::auth::{Caller, Scope};
use crate::batch::Batches;
use crate::batch::driver::{Driver, DriverInit, ResumeState, StepProgress};
use crate::batch::records::{EventKind, EventRow, StepRow, Summary, key, now};
use crate::batch::registry::Registry;
use crate::batch::{BatchError, BatchJob, JobAction, JobEvent, Outcome, Step, StepState};
use crate::execute::Reason;
use crate::ids::BatchId;
use crate::quota::CallerLargeWork;

/// A batch as it stood.
struct Left {
    id: BatchId,
    summary: Summary,
    events: Vec<EventRow>,
}

impl Batches {
    /// Goes on with all batches that are not over, unless that was done; gives how many those were,
    /// or nothing where that can't be read. It takes its course when the future is dropped.
    pub(crate) async fn resume(&self) -> Option<usize> {
        let Ok(registry) = self.registry() else { return Some(0) };
        if let Some(resumed) = registry.resumed.get() {
            return *resumed;
        }
        let (batches, registry) = (self.clone(), Arc::clone(registry));
        let resuming = tokio::spawn(async move {
            *registry.resumed.get_or_init(|| resume(&batches, &registry)).await
        });
        resuming.await.ok().flatten()
    }

    /// Goes on with what an engine before this one left if nobody has told this one to, so that none
    /// of it is waited for in vain.
    pub(crate) async fn resume_late(&self) {
        let is_resumed = self.registry().is_ok_and(|registry| registry.resumed.initialized());
        if is_resumed || !self.runner.is_open() {
            return;
        }
        if let Some(count @ 1..) = self.resume().await {
            tracing::warn!(count, "batches are resumed by the first use; call `Engine::resume`");
        }
    }
}

async fn resume(batches: &Batches, registry: &Arc<Registry>) -> Option<usize> {
    let left = match read(batches, registry).await {
        Ok(left) => left,
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, "batches can't be gone on with");
            return None;
        }
    };
    registry.watch();
    forget_strays(registry).await;
    // What their steps left running is ended before anything is told of them or run again.
    let marks = left.iter().flat_map(|left| marks(&left.events)).collect();
    batches.runner.executor.sweep_boxed(marks).await;
    let mut count = 0;
    for left in left {
        let id = left.id.clone();
        match go_on(batches, registry, left).await {
            Ok(()) => count += 1,
            // One that can't be read must not hold up the others.
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, batch = %id, "a batch can't be gone on with");
            }
        }
    }
    Some(count)
}

async fn read(batches: &Batches, registry: &Registry) -> Result<Vec<Left>, BatchError> {
    let journal = &registry.journal;
    let rows = journal.scan_all(key::open(""), key::open("\u{7f}")).await?;
    let mut left = Vec::new();
    for (row, _) in rows {
        let id: Option<BatchId> = key::last_part(&row).and_then(|id| id.parse().ok());
        let Some(id) = id else { continue };
        match read_one(batches, registry, &id).await {
            Ok(one) => left.push(one),
            Err(_) => tracing::error!(batch = %id, "a batch is damaged and stays as it is"),
        }
    }
    Ok(left)
}

async fn read_one(
    batches: &Batches,
    registry: &Registry,
    id: &BatchId,
) -> Result<Left, BatchError> {
    let summary = registry.journal.summary(id).await?.ok_or(BatchError::Damaged)?;
    let work = work_of(batches, &summary)?;
    let mut events = Vec::new();
    let mut after = 0;
    loop {
        let rows = registry.journal.events(id, after, READ_AT_ONCE, &work).await?;
        let Some((last, _)) = rows.last() else { break };
        after = *last;
        events.extend(rows.into_iter().map(|(_, event)| event));
    }
    Ok(Left { id: id.clone(), summary, events })
}

/// What takes time of what is done for a batch's caller.
fn work_of(batches: &Batches, summary: &Summary) -> Result<CallerLargeWork, BatchError> {
    let user = summary.user.parse().map_err(|_| BatchError::Damaged)?;
    Ok(batches.runner.large_work.of(&user, None))
}

/// The marks of the steps whose end was not seen.
fn marks(events: &[EventRow]) -> Vec<String> {
    let mut open = BTreeMap::new();
    for event in events {
        match &event.what {
            EventKind::Started { step, mark: Some(mark), .. } => {
                open.insert(*step, mark.clone());
            }
            EventKind::Ended { step, .. } => {
                open.remove(step);
            }
            _ => {}
        }
    }
    open.into_values().collect()
}

async fn go_on(batches: &Batches, registry: &Arc<Registry>, left: Left) -> Result<(), BatchError> {
    let Left { id, mut summary, events } = left;
    let work = work_of(batches, &summary)?;
    let recipe = registry.journal.recipe(&id, &work).await?;
    let inputs = if summary.has_inputs {
        let (outputs, of) = (registry.outputs.clone(), id.clone());
        let inputs = crate::blocking::blocking(move || outputs.read_inputs(&of)).await;
        let inputs = inputs.map_err(|error| BatchError::Internal(error.into()))?;
        Some(inputs.ok_or(BatchError::Damaged)?)
    } else {
        None
    };
    let bytes = recipe.text.len() + events.len() * size_of::<EventRow>();
    let maker = batches.clone();
    let make = move || {
        let mut job = maker.make(&recipe, inputs)?;
        let (pending, progress) = replay(&mut *job, &events);
        Ok::<_, String>((job, pending, progress, events.len() as u64))
    };
    let made = work.run(bytes, make).await.map_err(|error| {
        tracing::error!(error, batch = %id, "the job of a batch can't be made again");
        BatchError::Damaged
    });
    let (job, pending, progress, last_event) = made?;
    let caller = Caller::new(&summary.user).map_err(|_| BatchError::Damaged)?;
    // That the caller may do what the steps need was checked before the batch was accepted.
    let caller = caller.with(Scope::Execute).with(Scope::Sessions);
    let open = progress.iter().filter(|step| !step.state.is_final()).count();
    let bytes = job.steps().iter().map(Step::input_bytes).sum();
    let held = registry.inputs.reserve_always(caller.user(), bytes);
    let quota = registry.step_quota(caller.user(), open, held, true)?;
    summary.events = last_event;
    let live = registry.begin(&id, caller.user(), summary.events);
    if let Some(started) = summary.started {
        // What passed without an engine only the clock of the wall can tell.
        let passed = now().saturating_sub(started).max(summary.duration.unwrap_or(0));
        live.begin(Duration::from_millis(passed));
    }
    registry.has_printed(&live, summary.bytes);
    let mut driver = Driver::new(
        &batches.runner,
        registry,
        DriverInit { id, caller, job, live, quota, summary },
    );
    driver.steps = progress;
    driver.spawn(pending);
    Ok(())
}

/// Tells the job again what happened; what it asked for and did not come about is pending.
fn replay(job: &mut dyn BatchJob, events: &[EventRow]) -> (ResumeState, Vec<StepProgress>) {
    let mut progress: Vec<StepProgress> = Vec::new();
    let mut issued = BTreeSet::new();
    let mut running = BTreeSet::new();
    let mut delayed = BTreeMap::new();
    let mut pending = ResumeState { is_new: true, ..ResumeState::default() };
    for event in events {
        let told = match &event.what {
            EventKind::Begun => {
                pending.is_new = false;
                Some(JobEvent::Begun)
            }
            EventKind::Started { step, attempt, .. } => {
                pending.failures.forget(*step);
                let step = *step as usize;
                issued.remove(&step);
                running.insert(step);
                pending.results.remove(&step);
                if let Some(of_step) = progress.get_mut(step) {
                    *of_step = StepProgress {
                        state: StepState::Running,
                        attempt: *attempt,
                        started: Some(event.time),
                    };
                }
                None
            }
            EventKind::Ended { step, row } => {
                pending.failures.note(*step, row.state(), row.exit_code);
                let step = *step as usize;
                delayed.remove(&step);
                if let Some(of_step) = progress.get_mut(step) {
                    of_step.state = row.state();
                }
                if row.state() == StepState::Retrying && row.attempt > 0 {
                    pending.results.insert(step, StepRow::clone(row));
                } else {
                    pending.results.remove(&step);
                }
                // The job was not told of one that only waited to be run again: it gave it up.
                let ended = if issued.remove(&step) {
                    Some(Outcome::Cancelled)
                } else {
                    running.remove(&step).then(|| outcome(row))
                };
                let (exit_code, reason) = (row.exit_code, row.reason());
                ended.map(|outcome| JobEvent::Ended { step, outcome, exit_code, reason })
            }
            EventKind::Due { step } => {
                delayed.remove(&(*step as usize));
                Some(JobEvent::Due { step: *step as usize })
            }
            EventKind::Skipped { step, .. } => {
                let step = *step as usize;
                delayed.remove(&step);
                if let Some(of_step) = progress.get_mut(step) {
                    of_step.state = StepState::Skipped;
                }
                let outcome = Outcome::Cancelled;
                let (exit_code, reason) = (None, None);
                let ended = JobEvent::Ended { step, outcome, exit_code, reason };
                issued.remove(&step).then_some(ended)
            }
            EventKind::Cancelling => {
                pending.cancels = 1;
                Some(JobEvent::Cancelled)
            }
            EventKind::Aborting => {
                pending.cancels = 2;
                Some(JobEvent::Aborted)
            }
            EventKind::TimedOut => {
                pending.is_timed_out = true;
                Some(JobEvent::TimedOut)
            }
            EventKind::Queued | EventKind::Finished { .. } => None,
        };
        let Some(told) = told else { continue };
        for action in job.on_event(told) {
            match action {
                JobAction::Start { step } => {
                    issued.insert(step);
                }
                JobAction::Wait { step, delay } => {
                    let due = event.time.saturating_add(crate::time::duration_millis(delay));
                    delayed.insert(step, due);
                }
                JobAction::Tolerate { step } => {
                    pending.failures.forget(u32::try_from(step).unwrap_or(u32::MAX));
                }
                _ => {}
            }
        }
        progress.resize(job.steps().len(), StepProgress::default());
    }
    progress.resize(job.steps().len(), StepProgress::default());
    pending.lost = running.into_iter().collect();
    pending.issued = issued.into_iter().collect();
    let left = |due: u64| Duration::from_millis(due.saturating_sub(now()));
    pending.delayed = delayed.into_iter().map(|(step, due)| (step, left(due))).collect();
    (pending, progress)
}

fn outcome(row: &StepRow) -> Outcome {
    let reason = row.reason.as_deref().unwrap_or_default();
    let state = match row.state() {
        StepState::Retrying => row.result(),
        state => state,
    };
    match state {
        StepState::Succeeded => Outcome::Succeeded,
        StepState::Cancelled => Outcome::Cancelled,
        _ if reason == Reason::Lost.name() => Outcome::Lost,
        _ => Outcome::Failed,
    }
}

/// Removes what is left of batches that are there no more.
async fn forget_strays(registry: &Registry) {
    let outputs = registry.outputs.clone();
    let names = crate::blocking::blocking(move || outputs.all()).await;
    for name in names {
        let Ok(id) = name.parse::<BatchId>() else { continue };
        if matches!(registry.journal.summary(&id).await, Ok(None)) {
            if registry.keeps_strays {
                tracing::warn!(
                    batch = name,
                    "the store does not know this batch: its output stays"
                );
                continue;
            }
            let outputs = registry.outputs.clone();
            crate::blocking::blocking(move || outputs.remove(&name)).await;
        }
    }
}

const READ_AT_ONCE: usize = 1024;
