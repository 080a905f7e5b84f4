//! Commits the events of a batch, and performs what follows from them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;

use super::{AfterWrite, Driver, Effects, Input, StepProgress, place};
use crate::batch::journal::set;
use crate::batch::output_writer::{OutputQuota, OutputWriter};
use crate::batch::records::{EventKind, EventRow, PLAN, StepRow, key, now};
use crate::batch::registry::Registry;
use crate::batch::stdin::StepOutputSource;
use crate::batch::step_record::StepSpec;
use crate::batch::step_run::{StepRun, not_started};
use crate::batch::{BatchState, Step, StepState};
use crate::execute::{ExecuteError, Reason};
use crate::run::Permit;
use crate::store::Change;
use crate::time::duration_millis;

impl Driver {
    /// Writes down what happened, tells it, and does what follows from it; `false` when the engine
    /// ended before it could be written.
    pub(super) async fn commit(&mut self, registry: &Registry, effects: &mut Effects) -> bool {
        if !effects.changes.is_empty() {
            let mut changes = std::mem::take(&mut effects.changes);
            self.summary.duration = self.live.elapsed().map(duration_millis);
            changes.push(set(key::summary(&self.id), &self.summary));
            let mut pause = Duration::from_millis(100);
            while let Err(error) = registry.journal.commit(changes.clone()).await {
                // What is not on disk has not happened: nobody is told, nothing is started.
                tracing::error!(%error, batch = %self.id, "a batch waits for its store");
                if *registry.closed.borrow() {
                    return false;
                }
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
            self.live.changed.send_replace(self.summary.events);
        }
        for after in std::mem::take(&mut effects.after) {
            match after {
                AfterWrite::Launch { step, permit, mark } => {
                    self.launch(registry, step, permit, mark)
                }
                AfterWrite::Wait { step, delay } => {
                    let inputs = self.inputs.clone();
                    tokio::spawn(async move {
                        tokio::select! {
                            () = sleep(delay) => {
                                let _ = inputs.send(Input::Due(step)).await;
                            }
                            () = inputs.closed() => {}
                        }
                    });
                }
                AfterWrite::Stop { step } => {
                    if let Some(stop) = self.running.insert(step, oneshot::channel().0) {
                        let _ = stop.send(match self.is_timed_out && self.cancels == 0 {
                            true => Reason::TimedOut,
                            false => Reason::Cancelled,
                        });
                    }
                }
            }
        }
        true
    }

    fn launch(&mut self, registry: &Registry, step: usize, permit: Permit, mark: Option<String>) {
        let (stop, stopped) = oneshot::channel();
        self.running.insert(step, stop);
        let attempt = self.steps[step].attempt;
        let outputs = registry.outputs.clone();
        let quota = OutputQuota {
            registry: Arc::clone(&self.registry),
            live: Arc::clone(&self.live),
            reserve: self.runner.reserve.clone(),
        };
        let run = StepRun {
            runner: Arc::clone(&self.runner),
            caller: self.caller.clone(),
            writer: OutputWriter::new(outputs, self.id.clone(), place(step), attempt, quota),
            live: Arc::clone(&self.live),
            stopped,
            id: self.job.steps()[step].id_at(step),
            place: place(step),
            opens_stdin: self.job.steps()[step].0.stdin_open,
            source: self.source(registry, step),
        };
        let spec = self.job.steps()[step].clone();
        let (inputs, runner) = (self.inputs.clone(), Arc::clone(&self.runner));
        let id = run.id.clone();
        tokio::spawn(async move {
            // Kept until the end is told, so that no step of this batch has the place before what
            // the end means for it is known.
            let permit = Arc::new(permit);
            let running = tokio::spawn(run.finish(spec, Arc::clone(&permit), mark));
            let ending = running.await.unwrap_or_else(|error| {
                tracing::error!(%error, "a step of a batch failed");
                not_started(&id, ExecuteError::internal(error))
            });
            let mut told = std::pin::pin!(inputs.send(Input::Ended(step, Box::new(ending))));
            tokio::select! {
                biased;
                _ = &mut told => return,
                // Nothing more is let in, and the driver may wait for a disk that takes nothing.
                () = runner.stopped() => drop(permit),
            }
            let _ = told.await;
        });
    }

    /// What a step reads that another has printed.
    fn source(&self, registry: &Registry, step: usize) -> Option<StepOutputSource> {
        let steps = self.job.steps();
        let from = steps[step].0.stdin_from.as_ref()?;
        let (batch, at) = match &from.ran_in {
            Some(run) => (run.batch.parse().ok()?, run.place),
            None => {
                let is_it = |(at, step): (usize, &Step)| step.has_id_at(&from.step, at);
                (self.id.clone(), place(steps.iter().enumerate().position(is_it)?))
            }
        };
        Some(StepOutputSource {
            outputs: registry.outputs.clone(),
            journal: registry.journal.clone(),
            work: self.runner.large_work.of(self.caller.accounted_user(), None),
            batch,
            place: at,
            id: from.step.clone(),
            stream: from.stream(),
        })
    }

    pub(super) fn note(&mut self, effects: &mut Effects, what: EventKind) {
        self.summary.events += 1;
        let event = EventRow { time: now(), what };
        effects.changes.push(set(key::event(&self.id, self.summary.events), &event));
    }

    pub(super) fn put(&self, effects: &mut Effects, step: usize, mut row: StepRow) {
        if self.summary.kind != PLAN {
            row.step = self.job.steps().get(step).map(|step| StepSpec(step.without_inputs()));
        }
        effects.changes.push(set(key::step(&self.id, place(step)), &row));
    }

    /// What is written of a step that has no end.
    pub(super) fn row(&self, step: usize) -> StepRow {
        let StepProgress { state, attempt, started } = self.steps[step];
        let mut row = StepRow { attempt, started, ..StepRow::default() };
        row.set_state(state);
        row
    }

    pub(super) fn set_state(&mut self, step: usize, state: StepState) {
        let mut counts = self.summary.counts();
        counts.shift(self.steps[step].state, state);
        self.summary.set_counts(counts);
        self.steps[step].state = state;
    }

    pub(super) fn set_batch_state(&mut self, state: BatchState, effects: &mut Effects) {
        let (user, id) = (&self.summary.user, self.id.as_str());
        effects.changes.push(Change::remove(key::of_user_in(user, self.summary.state(), id)));
        effects.changes.push(Change::set(key::of_user_in(user, state, id), []));
        self.summary.state = state.name().to_owned();
    }
}
