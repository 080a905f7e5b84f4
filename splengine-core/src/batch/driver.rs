//! Drives one batch: performs what its job asks for, and writes everything down before it tells.

mod conclude;
mod perform;
mod write;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use crate::auth::Caller;
use crate::batch::failures::Failures;
use crate::batch::records::{EventKind, StepRow, Summary};
use crate::batch::registry::{LiveBatch, Registry, StepQuota};
use crate::batch::step_run::{LOST_CODE, StepEnd};
use crate::batch::{BatchJob, JobAction, JobEvent, Outcome, Step, StepState};
use crate::execute::Reason;
use crate::ids::BatchId;
use crate::quota::LargeWork;
use crate::run::{Permit, Runner};
use crate::store::Change;

pub(crate) struct Driver {
    pub(crate) runner: Arc<Runner>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) id: BatchId,
    pub(crate) caller: Caller,
    pub(crate) job: Box<dyn BatchJob>,
    pub(crate) live: Arc<LiveBatch>,
    pub(crate) quota: StepQuota,
    pub(crate) summary: Summary,
    pub(crate) steps: Vec<StepProgress>,
    running: HashMap<usize, oneshot::Sender<Reason>>,
    /// Steps in the engine's queue.
    waiting: HashMap<usize, AbortHandle>,
    /// Are to run, and the engine is not asked for a place, or takes no more.
    unasked: BTreeSet<usize>,
    delayed: usize,
    /// How those that are to be run again ended the last time.
    results: HashMap<usize, StepRow>,
    /// What its job asked for and was not done yet. One at a time: what is done may have the job
    /// ask for more, which comes after what it asked for before.
    actions: VecDeque<JobAction>,
    failures: Failures,
    /// How often its caller has cancelled it, as far as its job was told.
    cancels: u8,
    /// When its time is up, once its first step was started.
    deadline: Option<Instant>,
    is_timed_out: bool,
    /// Its job asked for what can't be.
    is_broken: bool,
    /// The engine takes no more: what is left is for the next.
    is_paused: bool,
    is_over: bool,
    inputs: mpsc::Sender<Input>,
    told: mpsc::Receiver<Input>,
}

/// How far a step has come: as much of it as is kept in memory.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StepProgress {
    pub(crate) state: StepState,
    pub(crate) attempt: u32,
    pub(crate) started: Option<u64>,
}

/// State with which a batch is resumed.
#[derive(Debug, Default)]
pub(crate) struct ResumeState {
    /// To be started, and was not.
    pub(crate) issued: Vec<usize>,
    /// Was started, and its end was not seen.
    pub(crate) lost: Vec<usize>,
    /// Waits to be run again for so long still.
    pub(crate) delayed: Vec<(usize, Duration)>,
    /// Has failed and is to be run again.
    pub(crate) results: HashMap<usize, StepRow>,
    /// Its job was not even told that it has begun.
    pub(crate) is_new: bool,
    /// How often its caller has cancelled it.
    pub(crate) cancels: u8,
    pub(crate) is_timed_out: bool,
    pub(crate) failures: Failures,
}

enum Input {
    Admitted(usize, Permit),
    /// The engine takes no more.
    Refused(usize),
    Ended(usize, Box<StepEnd>),
    Due(usize),
}

/// What a driver drives.
pub(crate) struct DriverInit {
    pub(crate) id: BatchId,
    pub(crate) caller: Caller,
    pub(crate) job: Box<dyn BatchJob>,
    pub(crate) live: Arc<LiveBatch>,
    pub(crate) quota: StepQuota,
    pub(crate) summary: Summary,
}

/// What is to be done, and what is to be written before.
#[derive(Default)]
struct Effects {
    changes: Vec<Change>,
    after: Vec<AfterWrite>,
}

enum AfterWrite {
    Launch { step: usize, permit: Permit, mark: Option<String> },
    Wait { step: usize, delay: Duration },
    Stop { step: usize },
}

impl Driver {
    pub(crate) fn new(runner: &Arc<Runner>, registry: &Arc<Registry>, init: DriverInit) -> Self {
        let DriverInit { id, caller, job, live, quota, summary } = init;
        let (inputs, told) = mpsc::channel(INPUTS);
        let steps = vec![StepProgress::default(); job.steps().len()];
        Self {
            runner: Arc::clone(runner),
            registry: Arc::clone(registry),
            id,
            caller,
            job,
            live,
            quota,
            summary,
            steps,
            running: HashMap::new(),
            waiting: HashMap::new(),
            unasked: BTreeSet::new(),
            delayed: 0,
            results: HashMap::new(),
            actions: VecDeque::new(),
            failures: Failures::default(),
            cancels: 0,
            deadline: None,
            is_timed_out: false,
            is_broken: false,
            is_paused: false,
            is_over: false,
            inputs,
            told,
        }
    }

    /// Drives it in a task of its own, to its end or the engine's.
    pub(crate) fn spawn(self, pending: ResumeState) {
        let (registry, id) = (Arc::clone(&self.registry), self.id.clone());
        tokio::spawn(async move {
            let driving = tokio::spawn(self.drive(pending)).await;
            if let Err(error) = driving {
                tracing::error!(%error, batch = %id, "the driver of a batch failed");
            }
            registry.end(&id);
        });
    }

    async fn drive(mut self, pending: ResumeState) {
        self.drive_to_end(pending).await;
        let bytes = self.job.steps().iter().map(Step::input_bytes).sum();
        LargeWork::free(bytes, self.job);
    }

    async fn drive_to_end(&mut self, pending: ResumeState) {
        let registry = &*Arc::clone(&self.registry);
        let mut cancel = self.live.cancel.subscribe();
        let mut closed = registry.closed.subscribe();
        let mut effects = Effects::default();
        self.go_on(pending, &mut effects);
        loop {
            self.check_stalled(&mut effects);
            if self.is_over {
                // A caller that is told of the end may submit the next batch at once.
                self.quota.give_back_inputs();
            }
            if !self.commit(registry, &mut effects).await {
                return;
            }
            if self.is_over {
                registry.has_ended(&self.summary);
            }
            if self.is_over || (self.is_paused && self.running.is_empty()) {
                self.waiting.values().for_each(AbortHandle::abort);
                return;
            }
            let cancels = self.cancels;
            let deadline = self.deadline.filter(|_| !self.is_timed_out && cancels == 0);
            tokio::select! {
                input = self.told.recv() => {
                    let mut next = input;
                    while let Some(input) = next {
                        self.on_input(input, &mut effects);
                        next = self.told.try_recv().ok();
                    }
                }
                told = cancel.wait_for(|wished| *wished > cancels), if cancels < MAX_CANCELS => {
                    drop(told);
                    self.cancel(&mut effects);
                }
                () = until(deadline) => self.time_out(&mut effects),
                _ = closed.wait_for(|closed| *closed), if !self.is_paused => self.is_paused = true,
            }
        }
    }

    fn go_on(&mut self, pending: ResumeState, effects: &mut Effects) {
        self.cancels = pending.cancels;
        self.is_timed_out = pending.is_timed_out;
        self.failures = pending.failures;
        self.results = pending.results;
        if let (Some(timeout), Some(passed)) = (self.summary.timeout, self.live.elapsed()) {
            let left = Duration::from_millis(timeout).saturating_sub(passed);
            self.deadline = Instant::now().checked_add(left);
        }
        // Before anything is told: they may be withdrawn.
        self.unasked.extend(&pending.issued);
        if pending.is_new {
            self.note(effects, EventKind::Begun);
            self.notify_job(JobEvent::Begun);
            self.run_actions(effects);
        }
        for (step, delay) in pending.delayed {
            self.delayed += 1;
            effects.after.push(AfterWrite::Wait { step, delay });
        }
        for step in pending.lost {
            let row = StepRow {
                reason: Some(Reason::Lost.name().to_owned()),
                exit_code: Some(LOST_CODE),
                ..StepRow::default()
            };
            self.on_step_end(step, StepEnd { outcome: Outcome::Lost, row, bytes: 0 }, effects);
            self.run_actions(effects);
        }
        for step in pending.issued {
            if self.unasked.remove(&step) {
                self.request_slot(step, effects);
            }
        }
    }

    fn on_input(&mut self, input: Input, effects: &mut Effects) {
        match input {
            Input::Admitted(step, permit) => {
                if self.waiting.remove(&step).is_some() {
                    self.start(step, permit, effects);
                }
            }
            Input::Refused(step) => {
                if self.waiting.remove(&step).is_some() {
                    self.unasked.insert(step);
                }
                self.is_paused = true;
            }
            Input::Ended(step, ending) => {
                if self.running.remove(&step).is_some() {
                    self.on_step_end(step, *ending, effects);
                }
            }
            Input::Due(step) => {
                self.delayed -= 1;
                if self.steps[step].state == StepState::Retrying {
                    self.due(step, effects);
                }
            }
        }
        self.run_actions(effects);
    }

    /// Its caller cancels it.
    fn cancel(&mut self, effects: &mut Effects) {
        self.cancels += 1;
        let (what, event) = match self.cancels {
            1 => (EventKind::Cancelling, JobEvent::Cancelled),
            _ => (EventKind::Aborting, JobEvent::Aborted),
        };
        self.note(effects, what);
        self.notify_job(event);
        self.run_actions(effects);
    }

    /// Its time is up.
    fn time_out(&mut self, effects: &mut Effects) {
        self.is_timed_out = true;
        self.note(effects, EventKind::TimedOut);
        self.notify_job(JobEvent::TimedOut);
        self.run_actions(effects);
    }

    /// Tells the job what happened. Whatever it is told is written down in the same order.
    fn notify_job(&mut self, event: JobEvent) {
        if !self.is_over && !self.is_broken {
            self.actions.extend(self.job.on_event(event));
        }
    }

    /// Ends a batch in which nothing would happen any more.
    fn check_stalled(&mut self, effects: &mut Effects) {
        let is_idle = self.running.is_empty() && self.waiting.is_empty();
        if self.is_over || !is_idle || self.is_paused {
            return;
        }
        if !self.is_broken && self.delayed == 0 {
            self.break_off("does nothing more and is not over", effects);
        }
        if self.is_broken {
            self.finish_batch(effects);
        }
    }

    fn run_actions(&mut self, effects: &mut Effects) {
        while let Some(action) = self.actions.pop_front() {
            self.apply(action, effects);
        }
    }
}

/// Waits until then; for ever without a time.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn place(step: usize) -> u32 {
    u32::try_from(step).unwrap_or(u32::MAX)
}

/// Number of messages beyond which a step waits until its driver has taken them.
const INPUTS: usize = 64;
/// Number of cancellations that a job is told of: the first ends the batch with its clean-up, the
/// second stops that, too.
const MAX_CANCELS: u8 = 2;
