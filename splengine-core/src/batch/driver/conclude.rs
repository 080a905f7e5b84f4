//! The ends of steps, and of the batch.

use super::{Driver, Effects, place};
use crate::batch::records::{EventKind, StepRow, kept, key, now};
use crate::batch::step_run::{CANCELLED_CODE, LOST_CODE, StepEnd, TIMED_OUT_CODE};
use crate::batch::{BatchState, JobAction, JobEvent, Outcome, StepState};
use crate::store::Change;
use crate::time::duration_millis;

impl Driver {
    pub(super) fn on_step_end(&mut self, step: usize, ending: StepEnd, effects: &mut Effects) {
        let StepEnd { outcome, mut row, bytes } = ending;
        self.summary.bytes += bytes;
        let state = match outcome {
            Outcome::Succeeded => StepState::Succeeded,
            Outcome::Cancelled => StepState::Cancelled,
            Outcome::Failed | Outcome::Lost => StepState::Failed,
        };
        row.attempt = self.steps[step].attempt;
        row.started = self.steps[step].started.filter(|_| row.attempt > 0);
        row.ended = Some(now());
        self.finish_step(step, outcome, state, row, effects);
    }

    /// Tells the job that a step has ended, and writes down what became of it.
    pub(super) fn finish_step(
        &mut self,
        step: usize,
        outcome: Outcome,
        state: StepState,
        row: StepRow,
        effects: &mut Effects,
    ) {
        // What its job makes of it comes first: whether it is run again is part of what is told.
        let actions = if self.is_broken {
            Vec::new()
        } else {
            {
                let (exit_code, reason) = (row.exit_code, row.reason());
                self.job.on_event(JobEvent::Ended { step, outcome, exit_code, reason })
            }
        };
        let again = actions.iter().any(|action| {
            matches!(action, JobAction::Wait { step: other, .. } | JobAction::Start { step: other }
                if *other == step)
        });
        if again && row.attempt > 0 {
            self.results.insert(step, row.clone());
        }
        self.close_step(step, if again { StepState::Retrying } else { state }, row, effects);
        self.actions.extend(actions);
    }

    /// What a step that is not run, or not again, is left as: one that has run, as that left it.
    pub(super) fn left_out(&mut self, step: usize, reason: String) -> (StepState, StepRow) {
        match self.results.remove(&step) {
            Some(row) => (row.result(), row),
            None => (StepState::Skipped, StepRow { problem: Some(reason), ..self.row(step) }),
        }
    }

    /// Writes down that a step has come to this.
    pub(super) fn close_step(
        &mut self,
        step: usize,
        state: StepState,
        mut row: StepRow,
        effects: &mut Effects,
    ) {
        self.failures.note(place(step), state, row.exit_code);
        self.summary.failure = self.failures.first();
        if state.is_final() {
            self.quota.shrink();
        }
        self.set_state(step, state);
        row.set_state(state);
        self.put(effects, step, row.clone());
        let what = match (state, row.problem.clone()) {
            (StepState::Skipped, Some(reason)) => EventKind::Skipped { step: place(step), reason },
            _ => EventKind::Ended { step: place(step), row: Box::new(row) },
        };
        self.note(effects, what);
    }

    pub(super) fn due(&mut self, step: usize, effects: &mut Effects) {
        self.note(effects, EventKind::Due { step: place(step) });
        self.notify_job(JobEvent::Due { step });
    }

    pub(super) fn finish_batch(&mut self, effects: &mut Effects) {
        for step in 0..self.steps.len() {
            if !self.steps[step].state.is_final() {
                let (state, row) = self.left_out(step, "the batch ended without it".to_owned());
                self.close_step(step, state, row, effects);
            }
        }
        let state = if self.cancels > 0 {
            BatchState::Cancelled
        } else if self.is_broken || self.is_timed_out || !self.failures.is_empty() {
            BatchState::Failed
        } else {
            BatchState::Succeeded
        };
        let code = match state {
            BatchState::Failed if self.is_timed_out => Some(TIMED_OUT_CODE),
            BatchState::Failed => Some(LOST_CODE),
            BatchState::Cancelled => Some(CANCELLED_CODE),
            _ => None,
        };
        if self.summary.failure.is_none() {
            self.summary.failure = code.map(|code| (u32::MAX, code));
        }
        self.is_over = true;
        let ended = now();
        self.summary.ended = Some(ended);
        self.summary.duration = self.live.elapsed().map(duration_millis);
        self.set_batch_state(state, effects);
        let exit_code = self.summary.exit_code();
        self.note(effects, EventKind::Finished { state: state.name().to_owned(), exit_code });
        effects.changes.push(Change::remove(key::open(self.id.as_str())));
        // By a clock that does not jump: see `Registry::now`.
        let when = self.registry.now();
        self.summary.filed = Some(when);
        let kept = kept(self.summary.stored_bytes(), &self.summary.user);
        effects.changes.push(Change::set(key::ended(when, self.id.as_str()), kept));
        if self.summary.has_inputs {
            effects.changes.push(Change::set(key::inputs(when, self.id.as_str()), []));
        }
    }
}
