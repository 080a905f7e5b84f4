//! Performs the actions that a job returns.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{AfterWrite, Driver, Effects, Input, StepProgress, place};
use crate::batch::records::{EventKind, StepRow, now};
use crate::batch::{BatchState, JobAction, Outcome, Step, StepState};
use crate::run::{Offered, Permit};

impl Driver {
    pub(super) fn apply(&mut self, action: JobAction, effects: &mut Effects) {
        if self.is_over || self.is_broken {
            return;
        }
        let known = self.job.steps().len();
        if known > self.steps.len() {
            let bytes = self.job.steps()[self.steps.len()..].iter().map(Step::input_bytes).sum();
            self.quota.grow(known - self.steps.len(), bytes);
            let mut counts = self.summary.counts();
            counts.total += (known - self.steps.len()) as u64;
            counts.queued += (known - self.steps.len()) as u64;
            self.summary.set_counts(counts);
            self.steps.resize(known, StepProgress::default());
        }
        let is_waiting =
            |step: &usize| self.waiting.contains_key(step) || self.unasked.contains(step);
        let is_busy = |step: &usize| self.running.contains_key(step) || is_waiting(step);
        match action {
            JobAction::Start { step } if step < known && !is_busy(&step) => {
                self.request_slot(step, effects)
            }
            JobAction::Wait { step, delay } if step < known && !is_busy(&step) => {
                self.set_state(step, StepState::Retrying);
                self.delayed += 1;
                effects.after.push(AfterWrite::Wait { step, delay });
            }
            JobAction::Skip { step, reason } if step < known && !is_busy(&step) => {
                let (state, row) = self.left_out(step, reason);
                self.close_step(step, state, row, effects);
            }
            JobAction::Withdraw { step, reason } => {
                if self.take_back(step) {
                    let (state, row) = self.left_out(step, reason);
                    self.finish_step(step, Outcome::Cancelled, state, row, effects);
                }
            }
            JobAction::Stop { step } if self.running.contains_key(&step) => {
                effects.after.push(AfterWrite::Stop { step });
            }
            JobAction::Stop { step } => {
                if self.take_back(step) {
                    let (state, row) = match self.results.remove(&step) {
                        Some(row) => (row.result(), row),
                        None => {
                            (StepState::Cancelled, StepRow { ended: Some(now()), ..self.row(step) })
                        }
                    };
                    self.finish_step(step, Outcome::Cancelled, state, row, effects);
                }
            }
            JobAction::Tolerate { step } if step < known && !is_busy(&step) => {
                self.failures.forget(place(step));
                self.summary.failure = self.failures.first();
            }
            JobAction::Finish
                if self.running.is_empty()
                    && self.waiting.is_empty()
                    && self.unasked.is_empty() =>
            {
                self.finish_batch(effects);
            }
            action => self.break_off(&format!("asks for {action:?}, which can't be"), effects),
        }
    }

    /// Asks for no place any more for a step that has none; `false` when it has begun.
    fn take_back(&mut self, step: usize) -> bool {
        match self.waiting.remove(&step) {
            Some(asked) => {
                asked.abort();
                true
            }
            None => self.unasked.remove(&step),
        }
    }

    /// Ends a batch whose job does not do what it should.
    pub(super) fn break_off(&mut self, what: &str, effects: &mut Effects) {
        tracing::error!(batch = %self.id, "the job of a batch {what}");
        self.is_broken = true;
        effects.after.extend(self.running.keys().map(|step| AfterWrite::Stop { step: *step }));
        for (_, asked) in self.waiting.drain() {
            asked.abort();
        }
        self.unasked.clear();
    }

    /// Asks the engine for a place for a step.
    pub(super) fn request_slot(&mut self, step: usize, effects: &mut Effects) {
        match self.runner.admission.offer_unbounded(self.caller.user()) {
            Ok(Offered::Now(permit)) => self.start(step, permit, effects),
            Ok(Offered::Later(place)) => {
                let inputs = self.inputs.clone();
                let asking = tokio::spawn(async move {
                    let _ = inputs
                        .send(match place.turn().await {
                            Ok(permit) => Input::Admitted(step, permit),
                            Err(_) => Input::Refused(step),
                        })
                        .await;
                });
                self.waiting.insert(step, asking.abort_handle());
            }
            Err(_) => {
                self.unasked.insert(step);
                self.is_paused = true;
            }
        }
    }

    /// Writes down that it starts, and starts it then.
    pub(super) fn start(&mut self, step: usize, permit: Permit, effects: &mut Effects) {
        let mark = self.runner.executor.mark();
        self.results.remove(&step);
        self.steps[step].attempt += 1;
        self.steps[step].started = Some(now());
        self.set_state(step, StepState::Running);
        self.failures.forget(place(step));
        self.summary.failure = self.failures.first();
        if self.summary.started.is_none() {
            self.summary.started = Some(now());
            self.live.begin(Duration::ZERO);
            let timeout = self.summary.timeout.map(Duration::from_millis);
            self.deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        }
        if self.summary.state() == BatchState::Queued {
            self.set_batch_state(BatchState::Running, effects);
        }
        let row = self.row(step);
        self.put(effects, step, row);
        let attempt = self.steps[step].attempt;
        self.note(effects, EventKind::Started { step: place(step), attempt, mark: mark.clone() });
        // Known to run from here on; the sender comes with the launch.
        self.running.insert(step, oneshot::channel().0);
        effects.after.push(AfterWrite::Launch { step, permit, mark });
    }
}
