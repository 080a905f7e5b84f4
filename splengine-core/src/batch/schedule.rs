//! Which step of a graph runs next.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::batch::plan::{PlanData, dependencies};
use crate::batch::{BatchError, BatchJob, FailFast, JobAction, JobEvent, Outcome, RunIf, Step};

/// The rule of a [`BatchRequest`](crate::BatchRequest). Every event takes time in proportion to the
/// steps that it concerns.
#[derive(Debug)]
pub(crate) struct Schedule {
    steps: Vec<Step>,
    parallelism: usize,
    fail_fast: FailFast,
    dependents: Vec<Vec<usize>>,
    states: Vec<State>,
    /// The steps that may run and have no place yet, in their order.
    ready: BTreeSet<usize>,
    running: usize,
    /// So many are not over.
    left: usize,
    /// A step has failed for good, and nothing more is to be started.
    halted: bool,
    cancelled: bool,
}

#[derive(Debug, Clone, Copy)]
struct State {
    phase: Phase,
    /// So many of those that it depends on are not over.
    missing: usize,
    /// One of them, or of theirs, has failed.
    after_failure: bool,
    runs: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Pending,
    Ready,
    Running,
    Delayed,
    Over,
}

impl Schedule {
    pub(crate) fn new(plan: PlanData, parallelism: usize) -> Result<Self, BatchError> {
        let needs = dependencies(&plan.steps)?;
        let mut dependents = vec![Vec::new(); needs.len()];
        for (step, needed) in needs.iter().enumerate() {
            for other in needed {
                dependents[*other].push(step);
            }
        }
        let states = needs.iter().map(|needed| State {
            phase: Phase::Pending,
            missing: needed.len(),
            after_failure: false,
            runs: 0,
        });
        Ok(Self {
            parallelism: plan.parallelism.unwrap_or(parallelism).max(1),
            fail_fast: plan.fail_fast,
            dependents,
            states: states.collect(),
            ready: BTreeSet::new(),
            running: 0,
            left: plan.steps.len(),
            halted: false,
            cancelled: false,
            steps: plan.steps,
        })
    }

    /// All that it depends on is over: it may run, or is left out, and so are those that wait for
    /// it then.
    fn decide(&mut self, first: usize, actions: &mut Vec<JobAction>) {
        let mut open = vec![first];
        while let Some(step) = open.pop() {
            if self.states[step].phase != Phase::Pending {
                continue;
            }
            let run_if = self.steps[step].0.run_if;
            let after_failure = self.states[step].after_failure;
            let (reason, failed) = match run_if {
                _ if self.cancelled => ("the batch was cancelled", true),
                RunIf::Success if after_failure => ("a step before it failed", true),
                RunIf::Success if self.halted => ("another step failed", true),
                RunIf::Failure if !after_failure => ("no step before it failed", false),
                _ => {
                    self.states[step].phase = Phase::Ready;
                    self.ready.insert(step);
                    continue;
                }
            };
            actions.push(JobAction::Skip { step, reason: reason.to_owned() });
            self.close(step, failed, &mut open);
        }
    }

    /// It is over; adds those that only waited for it.
    fn close(&mut self, step: usize, failed: bool, open: &mut Vec<usize>) {
        self.states[step].phase = Phase::Over;
        self.left -= 1;
        for index in 0..self.dependents[step].len() {
            let next = self.dependents[step][index];
            let state = &mut self.states[next];
            state.missing -= 1;
            state.after_failure |= failed;
            if state.missing == 0 {
                open.push(next);
            }
        }
    }

    fn ended(&mut self, step: usize, outcome: Outcome, actions: &mut Vec<JobAction>) {
        if self.states[step].phase != Phase::Running {
            return;
        }
        self.running -= 1;
        let data = &self.steps[step].0;
        let runs = self.states[step].runs;
        let again = match outcome {
            Outcome::Lost if data.rerun_on_restart => Some(Duration::ZERO),
            Outcome::Failed | Outcome::Lost if runs <= data.retries => {
                let factor = 1u32 << (runs - 1).min(20);
                let delay = Duration::from_millis(data.retry_delay).saturating_mul(factor);
                Some(delay.min(LONGEST_DELAY))
            }
            _ => None,
        };
        let may = !self.cancelled && (!self.halted || data.run_if != RunIf::Success);
        if let Some(delay) = again.filter(|_| may) {
            if outcome == Outcome::Lost && data.rerun_on_restart {
                // It does not count.
                self.states[step].runs -= 1;
            }
            self.states[step].phase = Phase::Delayed;
            actions.push(JobAction::Wait { step, delay });
            return;
        }
        let failed = outcome != Outcome::Succeeded;
        let mut open = Vec::new();
        self.close(step, failed, &mut open);
        if failed && !self.cancelled && self.fail_fast != FailFast::Never && !self.halted {
            self.halt(actions, &mut open);
        }
        for next in open {
            self.decide(next, actions);
        }
    }

    /// Nothing more is started, but what cleans up.
    fn halt(&mut self, actions: &mut Vec<JobAction>, open: &mut Vec<usize>) {
        self.halted = true;
        for step in 0..self.steps.len() {
            let cleans_up = self.steps[step].0.run_if != RunIf::Success;
            match self.states[step].phase {
                Phase::Ready if !cleans_up => {
                    self.ready.remove(&step);
                    let reason = "another step failed".to_owned();
                    actions.push(JobAction::Skip { step, reason });
                    self.close(step, true, open);
                }
                Phase::Delayed if !cleans_up => {
                    let reason = "another step failed, and it is not run again".to_owned();
                    actions.push(JobAction::Skip { step, reason });
                    self.close(step, true, open);
                }
                // Of those that are to run, some may wait for the engine still.
                Phase::Running if !cleans_up => {
                    let reason = "another step failed".to_owned();
                    actions.push(JobAction::Withdraw { step, reason });
                    if self.fail_fast == FailFast::Now {
                        actions.push(JobAction::Stop { step });
                    }
                }
                _ => {}
            }
        }
    }

    fn cancel(&mut self, actions: &mut Vec<JobAction>) {
        self.cancelled = true;
        self.ready.clear();
        for step in 0..self.steps.len() {
            match self.states[step].phase {
                Phase::Pending | Phase::Ready | Phase::Delayed => {
                    self.states[step].phase = Phase::Over;
                    self.left -= 1;
                    let reason = "the batch was cancelled".to_owned();
                    actions.push(JobAction::Skip { step, reason });
                }
                Phase::Running => actions.push(JobAction::Stop { step }),
                Phase::Over => {}
            }
        }
    }
}

impl BatchJob for Schedule {
    fn steps(&self) -> &[Step] {
        &self.steps
    }

    fn on_event(&mut self, event: JobEvent) -> Vec<JobAction> {
        let mut actions = Vec::new();
        match event {
            JobEvent::Begun => {
                for step in 0..self.steps.len() {
                    if self.states[step].missing == 0 {
                        self.decide(step, &mut actions);
                    }
                }
            }
            JobEvent::Ended { step, outcome } => self.ended(step, outcome, &mut actions),
            JobEvent::Due { step } => {
                if self.states[step].phase == Phase::Delayed {
                    self.states[step].phase = Phase::Ready;
                    self.ready.insert(step);
                }
            }
            JobEvent::Cancelled => self.cancel(&mut actions),
        }
        while self.running < self.parallelism
            && let Some(step) = self.ready.pop_first()
        {
            let state = &mut self.states[step];
            state.phase = Phase::Running;
            state.runs += 1;
            self.running += 1;
            actions.push(JobAction::Start { step });
        }
        if self.left == 0 {
            actions.push(JobAction::Finish);
        }
        actions
    }
}

const LONGEST_DELAY: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests;
