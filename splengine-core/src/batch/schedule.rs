//! The rule by which steps of a graph are started.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::batch::graph::dependencies;
use crate::batch::plan::PlanData;
use crate::batch::{BatchError, BatchJob, FailFast, JobAction, JobEvent, Outcome, RunIf, Step};
use crate::execute::Reason;

/// The rule of a [`BatchRequest`](crate::BatchRequest). Every event takes time in proportion to the
/// steps that it concerns.
#[derive(Debug)]
pub(crate) struct Schedule {
    steps: Vec<Step>,
    parallelism: usize,
    fail_fast: FailFast,
    /// The steps that each depends on.
    needs: Vec<Vec<usize>>,
    /// The steps that depend on each.
    dependents: Vec<Vec<usize>>,
    states: Vec<State>,
    /// The steps that may run and have no place yet, in their order.
    ready: BTreeSet<usize>,
    running: usize,
    /// So many are not over.
    left: usize,
    stop: Stop,
}

#[derive(Debug, Clone, Copy)]
struct State {
    phase: Phase,
    /// So many of those that it depends on are not over.
    missing: usize,
    /// One of them, or of theirs, has failed.
    after_failure: bool,
    /// It has failed, or was left out since something failed, and nothing has handled that.
    failed: bool,
    /// It was run, and that did not succeed.
    ran_badly: bool,
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

/// Why not all that could run is started; each lets run what the next does, or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stop {
    No,
    /// A step has failed for good.
    Failed,
    TimedOut,
    Cancelled,
    Aborted,
}

impl Stop {
    fn lets_run(self, run_if: RunIf) -> bool {
        match self {
            Self::No => true,
            Self::Failed | Self::TimedOut => run_if != RunIf::Success,
            Self::Cancelled => run_if == RunIf::Always,
            Self::Aborted => false,
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::No | Self::Failed => "another step failed",
            Self::TimedOut => "the time of the batch was up",
            Self::Cancelled | Self::Aborted => "the batch was cancelled",
        }
    }
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
            failed: false,
            ran_badly: false,
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
            stop: Stop::No,
            steps: plan.steps,
            needs,
        })
    }

    /// When it runs. What depends on nothing cleans up nothing.
    fn run_if(&self, step: usize) -> RunIf {
        match self.steps[step].0.run_if {
            RunIf::Always if self.needs[step].is_empty() => RunIf::Success,
            run_if => run_if,
        }
    }

    fn may_run(&self, step: usize) -> bool {
        self.stop.lets_run(self.run_if(step))
    }

    /// All that it depends on is over: it may run, or is left out, and so are those that wait for
    /// it then.
    fn decide(&mut self, first: usize, actions: &mut Vec<JobAction>) {
        let mut open = vec![first];
        while let Some(step) = open.pop() {
            if self.states[step].phase != Phase::Pending {
                continue;
            }
            let after_failure = self.states[step].after_failure;
            let (reason, failed) = match self.run_if(step) {
                _ if self.stop >= Stop::TimedOut && !self.may_run(step) => {
                    (self.stop.reason(), true)
                }
                RunIf::Success if after_failure => ("a step before it failed", true),
                RunIf::Failure if !after_failure => ("no step before it failed", false),
                _ if !self.may_run(step) => (self.stop.reason(), true),
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
        self.states[step].failed = failed;
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

    fn ended(&mut self, step: usize, end: End, actions: &mut Vec<JobAction>) {
        if self.states[step].phase != Phase::Running {
            return;
        }
        self.running -= 1;
        let outcome = end.outcome;
        if let Some(delay) = self.again(step, end).filter(|_| self.may_run(step)) {
            if outcome == Outcome::Lost && self.steps[step].0.rerun_on_restart {
                // It does not count.
                self.states[step].runs -= 1;
            }
            self.states[step].phase = Phase::Delayed;
            self.states[step].ran_badly = true;
            actions.push(JobAction::Wait { step, delay });
            return;
        }
        let mut open = Vec::new();
        let ran_badly = outcome != Outcome::Succeeded;
        // One that was stopped before it ever failed did not fail by itself.
        let has_failed = match outcome {
            Outcome::Succeeded => false,
            Outcome::Cancelled => self.states[step].ran_badly,
            Outcome::Failed | Outcome::Lost => true,
        };
        self.states[step].ran_badly = ran_badly;
        let failed = ran_badly && !self.allows(step, has_failed, actions);
        self.close(step, failed, &mut open);
        if failed && self.stop == Stop::No && self.fail_fast != FailFast::Never {
            self.halt(Stop::Failed, actions, &mut open);
        }
        if !ran_badly && self.run_if(step) == RunIf::Failure {
            self.handled(step, actions);
        }
        for next in open {
            self.decide(next, actions);
        }
    }

    /// Whether a step that has failed may; says so then.
    fn allows(&self, step: usize, has_failed: bool, actions: &mut Vec<JobAction>) -> bool {
        let is_allowed = has_failed && self.steps[step].0.allow_failure;
        if is_allowed {
            actions.push(JobAction::Tolerate { step });
        }
        is_allowed
    }

    /// After how long it is run again, if its failure is one for that.
    fn again(&self, step: usize, end: End) -> Option<Duration> {
        let (data, runs) = (&self.steps[step].0, self.states[step].runs);
        match end.outcome {
            Outcome::Lost if data.rerun_on_restart => Some(Duration::ZERO),
            Outcome::Failed | Outcome::Lost if runs <= data.retries => {
                let on = data.retry_on.as_ref();
                let factor = 1u32 << (runs - 1).min(20);
                let delay = Duration::from_millis(data.retry_delay).saturating_mul(factor);
                on.is_none_or(|on| on.holds(end.exit_code, end.reason))
                    .then_some(delay.min(MAX_RETRY_DELAY))
            }
            _ => None,
        }
    }

    /// A step that runs on failure has succeeded: the failures that it ran for are tolerated. No
    /// failure is looked at twice.
    fn handled(&mut self, step: usize, actions: &mut Vec<JobAction>) {
        let mut open = self.needs[step].clone();
        while let Some(step) = open.pop() {
            if !std::mem::take(&mut self.states[step].failed) {
                continue;
            }
            if self.states[step].ran_badly {
                actions.push(JobAction::Tolerate { step });
            }
            open.extend(&self.needs[step]);
        }
    }

    /// Nothing more is started but what cleans up.
    fn halt(&mut self, stop: Stop, actions: &mut Vec<JobAction>, open: &mut Vec<usize>) {
        if stop <= self.stop {
            return;
        }
        self.stop = stop;
        for step in 0..self.steps.len() {
            if self.may_run(step) {
                continue;
            }
            match self.states[step].phase {
                Phase::Ready => {
                    self.ready.remove(&step);
                    let reason = stop.reason().to_owned();
                    self.give_up(step, reason, actions, open);
                }
                Phase::Delayed => {
                    let reason = format!("{}, and it is not run again", stop.reason());
                    self.give_up(step, reason, actions, open);
                }
                Phase::Running => {
                    // Of those that are to run, some may wait for the engine still.
                    if stop < Stop::Cancelled {
                        let reason = stop.reason().to_owned();
                        actions.push(JobAction::Withdraw { step, reason });
                    }
                    if stop != Stop::Failed || self.fail_fast == FailFast::Now {
                        actions.push(JobAction::Stop { step });
                    }
                }
                // When all that it waits for is over: what cleans up comes after that.
                Phase::Pending | Phase::Over => {}
            }
        }
    }

    /// A step that was to be run, perhaps again, is not.
    fn give_up(
        &mut self,
        step: usize,
        reason: String,
        actions: &mut Vec<JobAction>,
        open: &mut Vec<usize>,
    ) {
        actions.push(JobAction::Skip { step, reason });
        let is_allowed = self.allows(step, self.states[step].ran_badly, actions);
        self.close(step, !is_allowed, open);
    }

    fn halt_all(&mut self, stop: Stop, actions: &mut Vec<JobAction>) {
        let mut open = Vec::new();
        self.halt(stop, actions, &mut open);
        for next in open {
            self.decide(next, actions);
        }
    }
}

/// How a run of a step has ended.
#[derive(Debug, Clone, Copy)]
struct End {
    outcome: Outcome,
    exit_code: Option<i32>,
    reason: Option<Reason>,
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
            JobEvent::Ended { step, outcome, exit_code, reason } => {
                self.ended(step, End { outcome, exit_code, reason }, &mut actions);
            }
            JobEvent::Due { step } => {
                if self.states[step].phase == Phase::Delayed {
                    self.states[step].phase = Phase::Ready;
                    self.ready.insert(step);
                }
            }
            JobEvent::TimedOut => self.halt_all(Stop::TimedOut, &mut actions),
            JobEvent::Cancelled => self.halt_all(Stop::Cancelled, &mut actions),
            JobEvent::Aborted => self.halt_all(Stop::Aborted, &mut actions),
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

const MAX_RETRY_DELAY: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests;
