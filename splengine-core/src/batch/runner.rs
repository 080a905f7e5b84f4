//! Drives one batch: performs what its job asks for, and writes everything down before it tells.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::batch::journal::set;
use crate::batch::output::{OutputQuota, OutputWriter};
use crate::batch::registry::{Live, Registry, Room};
use crate::batch::row::{EventRow, StepRow, StepSpec, Summary, What, kept, key, now};
use crate::batch::step_run::{CANCELLED_CODE, Ending, LOST_CODE, StepRun, not_started};
use crate::batch::{BatchJob, BatchState, JobAction, JobEvent, Outcome, StepState};
use crate::caller::Caller;
use crate::engine::{Engine, Offered, Permit};
use crate::execute::{ExecuteError, Reason};
use crate::id::BatchId;
use crate::store::Change;

pub(crate) struct Driver {
    pub(crate) engine: Engine,
    pub(crate) id: BatchId,
    pub(crate) caller: Caller,
    pub(crate) job: Box<dyn BatchJob>,
    pub(crate) live: Arc<Live>,
    pub(crate) room: Room,
    pub(crate) summary: Summary,
    pub(crate) steps: Vec<Brief>,
    running: HashMap<usize, oneshot::Sender<()>>,
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
    is_cancelled: bool,
    /// Its job asked for what can't be.
    is_broken: bool,
    /// The engine takes no more: what is left is for the next.
    is_paused: bool,
    is_over: bool,
    inputs: mpsc::Sender<Input>,
    told: mpsc::Receiver<Input>,
}

/// As much of a step as is kept in memory.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Brief {
    pub(crate) state: StepState,
    pub(crate) attempt: u32,
    pub(crate) started: Option<u64>,
}

/// What a batch is gone on with.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// To be started, and was not.
    pub(crate) issued: Vec<usize>,
    /// Was started, and its end was not seen.
    pub(crate) lost: Vec<usize>,
    /// Waits to be run again for so long still.
    pub(crate) delayed: Vec<(usize, Duration)>,
    /// Has failed and is to be run again.
    pub(crate) results: HashMap<usize, StepRow>,
    /// Its job has not even heard of its beginning.
    pub(crate) is_new: bool,
    pub(crate) is_cancelled: bool,
}

enum Input {
    Admitted(usize, Permit),
    /// The engine takes no more.
    Refused(usize),
    Ended(usize, Box<Ending>),
    Due(usize),
}

/// What is to be done, and what is to be written before.
#[derive(Default)]
struct Turn {
    changes: Vec<Change>,
    after: Vec<After>,
}

enum After {
    Launch { step: usize, permit: Permit, mark: Option<String> },
    Wait { step: usize, delay: Duration },
    Stop { step: usize },
}

impl Driver {
    pub(crate) fn new(
        engine: &Engine,
        id: BatchId,
        caller: Caller,
        job: Box<dyn BatchJob>,
        live: Arc<Live>,
        room: Room,
        summary: Summary,
    ) -> Self {
        let (inputs, told) = mpsc::channel(INPUTS);
        let steps = vec![Brief::default(); job.steps().len()];
        Self {
            engine: engine.clone(),
            id,
            caller,
            job,
            live,
            room,
            summary,
            steps,
            running: HashMap::new(),
            waiting: HashMap::new(),
            unasked: BTreeSet::new(),
            delayed: 0,
            results: HashMap::new(),
            actions: VecDeque::new(),
            is_cancelled: false,
            is_broken: false,
            is_paused: false,
            is_over: false,
            inputs,
            told,
        }
    }

    /// Drives it in a task of its own, to its end or the engine's.
    pub(crate) fn spawn(self, pending: Pending) {
        let (engine, id) = (self.engine.clone(), self.id.clone());
        tokio::spawn(async move {
            let driving = tokio::spawn(self.drive(pending)).await;
            if let Err(error) = driving {
                tracing::error!(%error, batch = %id, "the driver of a batch failed");
            }
            if let Some(registry) = &engine.0.batches {
                registry.end(&id);
            }
        });
    }

    async fn drive(mut self, pending: Pending) {
        let registry = Arc::clone(&self.engine.0);
        let Some(registry) = &registry.batches else { return };
        let mut cancel = self.live.cancel.subscribe();
        let mut closed = registry.closed.subscribe();
        let mut turn = Turn::default();
        self.go_on(pending, &mut turn);
        loop {
            self.settle(&mut turn);
            if !self.write(registry, &mut turn).await {
                return;
            }
            if self.is_over {
                registry.has_ended(&self.summary);
            }
            if self.is_over || (self.is_paused && self.running.is_empty()) {
                self.waiting.values().for_each(AbortHandle::abort);
                return;
            }
            tokio::select! {
                input = self.told.recv() => {
                    let mut next = input;
                    while let Some(input) = next {
                        self.take(input, &mut turn);
                        next = self.told.try_recv().ok();
                    }
                }
                told = cancel.wait_for(|cancel| *cancel), if !self.is_cancelled => {
                    drop(told);
                    self.is_cancelled = true;
                    self.note(&mut turn, What::Cancelling);
                    self.tell(JobEvent::Cancelled);
                    self.act(&mut turn);
                }
                _ = closed.wait_for(|closed| *closed), if !self.is_paused => self.is_paused = true,
            }
        }
    }

    fn go_on(&mut self, pending: Pending, turn: &mut Turn) {
        self.is_cancelled = pending.is_cancelled;
        self.results = pending.results;
        // Before anything is told: they may be withdrawn.
        self.unasked.extend(&pending.issued);
        if pending.is_new {
            self.note(turn, What::Begun);
            self.tell(JobEvent::Begun);
            self.act(turn);
        }
        for (step, delay) in pending.delayed {
            self.delayed += 1;
            turn.after.push(After::Wait { step, delay });
        }
        for step in pending.lost {
            let row = StepRow {
                reason: Some(Reason::Lost.name().to_owned()),
                exit_code: Some(LOST_CODE),
                ..StepRow::default()
            };
            self.ended(step, Ending { outcome: Outcome::Lost, row, bytes: 0 }, turn);
            self.act(turn);
        }
        for step in pending.issued {
            if self.unasked.remove(&step) {
                self.ask(step, turn);
            }
        }
    }

    fn take(&mut self, input: Input, turn: &mut Turn) {
        match input {
            Input::Admitted(step, permit) => {
                if self.waiting.remove(&step).is_some() {
                    self.start(step, permit, turn);
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
                    self.ended(step, *ending, turn);
                }
            }
            Input::Due(step) => {
                self.delayed -= 1;
                if self.steps[step].state == StepState::Retrying {
                    self.due(step, turn);
                }
            }
        }
        self.act(turn);
    }

    /// Tells the job what happened. Whatever it is told is written down in the same order.
    fn tell(&mut self, event: JobEvent) {
        if !self.is_over && !self.is_broken {
            self.actions.extend(self.job.on_event(event));
        }
    }

    /// Ends a batch in which nothing would happen any more.
    fn settle(&mut self, turn: &mut Turn) {
        let is_idle = self.running.is_empty() && self.waiting.is_empty();
        if self.is_over || !is_idle || self.is_paused {
            return;
        }
        if !self.is_broken && self.delayed == 0 {
            self.break_off("does nothing more and is not over", turn);
        }
        if self.is_broken {
            self.finish(turn);
        }
    }

    fn act(&mut self, turn: &mut Turn) {
        while let Some(action) = self.actions.pop_front() {
            self.perform(action, turn);
        }
    }

    fn perform(&mut self, action: JobAction, turn: &mut Turn) {
        if self.is_over || self.is_broken {
            return;
        }
        let known = self.job.steps().len();
        if known > self.steps.len() {
            self.room.grow(known - self.steps.len());
            let mut counts = self.summary.counts();
            counts.total += (known - self.steps.len()) as u64;
            counts.queued += (known - self.steps.len()) as u64;
            self.summary.set_counts(counts);
            self.steps.resize(known, Brief::default());
        }
        let is_waiting =
            |step: &usize| self.waiting.contains_key(step) || self.unasked.contains(step);
        let is_busy = |step: &usize| self.running.contains_key(step) || is_waiting(step);
        match action {
            JobAction::Start { step } if step < known && !is_busy(&step) => self.ask(step, turn),
            JobAction::Wait { step, delay } if step < known && !is_busy(&step) => {
                self.set_state(step, StepState::Retrying);
                self.delayed += 1;
                turn.after.push(After::Wait { step, delay });
            }
            JobAction::Skip { step, reason } if step < known && !is_busy(&step) => {
                let (state, row) = self.left_out(step, reason);
                self.close(step, state, row, turn);
            }
            JobAction::Withdraw { step, reason } => {
                if self.take_back(step) {
                    let (state, row) = self.left_out(step, reason);
                    self.conclude(step, Outcome::Cancelled, state, row, turn);
                }
            }
            JobAction::Stop { step } if self.running.contains_key(&step) => {
                turn.after.push(After::Stop { step });
            }
            JobAction::Stop { step } => {
                if self.take_back(step) {
                    let (state, row) = match self.results.remove(&step) {
                        Some(row) => (row.result(), row),
                        None => {
                            (StepState::Cancelled, StepRow { ended: Some(now()), ..self.row(step) })
                        }
                    };
                    self.conclude(step, Outcome::Cancelled, state, row, turn);
                }
            }
            JobAction::Finish
                if self.running.is_empty()
                    && self.waiting.is_empty()
                    && self.unasked.is_empty() =>
            {
                self.finish(turn);
            }
            action => self.break_off(&format!("asks for {action:?}, which can't be"), turn),
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
    fn break_off(&mut self, what: &str, turn: &mut Turn) {
        tracing::error!(batch = %self.id, "the job of a batch {what}");
        self.is_broken = true;
        turn.after.extend(self.running.keys().map(|step| After::Stop { step: *step }));
        for (_, asked) in self.waiting.drain() {
            asked.abort();
        }
        self.unasked.clear();
    }

    /// Asks the engine for a place for a step.
    fn ask(&mut self, step: usize, turn: &mut Turn) {
        match self.engine.0.admission.offer_unbounded(self.caller.user()) {
            Ok(Offered::Now(permit)) => self.start(step, permit, turn),
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
    fn start(&mut self, step: usize, permit: Permit, turn: &mut Turn) {
        let mark = self.engine.0.executor.mark();
        self.results.remove(&step);
        self.steps[step].attempt += 1;
        self.steps[step].started = Some(now());
        self.set_state(step, StepState::Running);
        if self.summary.started.is_none() {
            self.summary.started = Some(now());
        }
        if self.summary.state() == BatchState::Queued {
            self.set_batch_state(BatchState::Running, turn);
        }
        let row = self.row(step);
        self.put(turn, step, row);
        let attempt = self.steps[step].attempt;
        self.note(turn, What::Started { step: place(step), attempt, mark: mark.clone() });
        // Known to run from here on; the sender comes with the launch.
        self.running.insert(step, oneshot::channel().0);
        turn.after.push(After::Launch { step, permit, mark });
    }

    fn ended(&mut self, step: usize, ending: Ending, turn: &mut Turn) {
        let Ending { outcome, mut row, bytes } = ending;
        self.summary.bytes += bytes;
        let state = match outcome {
            Outcome::Succeeded => StepState::Succeeded,
            Outcome::Cancelled => StepState::Cancelled,
            Outcome::Failed | Outcome::Lost => StepState::Failed,
        };
        row.attempt = self.steps[step].attempt;
        row.started = self.steps[step].started.filter(|_| row.attempt > 0);
        row.ended = Some(now());
        self.conclude(step, outcome, state, row, turn);
    }

    /// Tells the job that a step has ended, and writes down what became of it.
    fn conclude(
        &mut self,
        step: usize,
        outcome: Outcome,
        state: StepState,
        row: StepRow,
        turn: &mut Turn,
    ) {
        // What its job makes of it comes first: whether it is run again is part of what is told.
        let actions = if self.is_broken {
            Vec::new()
        } else {
            self.job.on_event(JobEvent::Ended { step, outcome })
        };
        let again = actions.iter().any(|action| {
            matches!(action, JobAction::Wait { step: other, .. } | JobAction::Start { step: other }
                if *other == step)
        });
        if again && row.attempt > 0 {
            self.results.insert(step, row.clone());
        }
        self.close(step, if again { StepState::Retrying } else { state }, row, turn);
        self.actions.extend(actions);
    }

    /// What a step that is not run, or not again, is left as: one that has run, as that left it.
    fn left_out(&mut self, step: usize, reason: String) -> (StepState, StepRow) {
        match self.results.remove(&step) {
            Some(row) => (row.result(), row),
            None => (StepState::Skipped, StepRow { problem: Some(reason), ..self.row(step) }),
        }
    }

    /// Writes down that a step has come to this.
    fn close(&mut self, step: usize, state: StepState, mut row: StepRow, turn: &mut Turn) {
        if state == StepState::Failed
            && self.summary.failure.is_none_or(|(first, _)| place(step) < first)
        {
            self.summary.failure = Some((place(step), row.exit_code.unwrap_or(LOST_CODE)));
        }
        if state.is_final() {
            self.room.shrink();
        }
        self.set_state(step, state);
        row.set_state(state);
        self.put(turn, step, row.clone());
        let what = match (state, row.problem.clone()) {
            (StepState::Skipped, Some(reason)) => What::Skipped { step: place(step), reason },
            _ => What::Ended { step: place(step), row: Box::new(row) },
        };
        self.note(turn, what);
    }

    fn due(&mut self, step: usize, turn: &mut Turn) {
        self.note(turn, What::Due { step: place(step) });
        self.tell(JobEvent::Due { step });
    }

    fn finish(&mut self, turn: &mut Turn) {
        for step in 0..self.steps.len() {
            if !self.steps[step].state.is_final() {
                let (state, row) = self.left_out(step, "the batch ended without it".to_owned());
                self.close(step, state, row, turn);
            }
        }
        let counts = self.summary.counts();
        let state = if self.is_cancelled {
            BatchState::Cancelled
        } else if self.is_broken || counts.failed + counts.cancelled > 0 {
            BatchState::Failed
        } else {
            BatchState::Succeeded
        };
        let code = match state {
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
        self.set_batch_state(state, turn);
        let exit_code = self.summary.exit_code();
        self.note(turn, What::Finished { state: state.name().to_owned(), exit_code });
        turn.changes.push(Change::remove(key::open(self.id.as_str())));
        // By a clock that does not jump: see `Registry::now`.
        let when = self.engine.0.batches.as_ref().map_or(ended, Registry::now);
        let kept = kept(self.summary.bytes, &self.summary.user);
        turn.changes.push(Change::set(key::ended(when, self.id.as_str()), kept));
        if self.summary.has_inputs {
            turn.changes.push(Change::set(key::inputs(when, self.id.as_str()), []));
        }
    }

    /// Writes down what happened, tells it, and does what follows from it; `false` when the engine
    /// ended before it could be written.
    async fn write(&mut self, registry: &Registry, turn: &mut Turn) -> bool {
        if !turn.changes.is_empty() {
            let mut changes = std::mem::take(&mut turn.changes);
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
        for after in std::mem::take(&mut turn.after) {
            match after {
                After::Launch { step, permit, mark } => self.launch(registry, step, permit, mark),
                After::Wait { step, delay } => {
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
                After::Stop { step } => {
                    if let Some(stop) = self.running.insert(step, oneshot::channel().0) {
                        let _ = stop.send(());
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
        let outputs = registry.policy.outputs.clone();
        let quota = OutputQuota { engine: self.engine.clone(), live: Arc::clone(&self.live) };
        let run = StepRun {
            engine: self.engine.clone(),
            caller: self.caller.clone(),
            writer: OutputWriter::new(outputs, self.id.clone(), place(step), attempt, quota),
            live: Arc::clone(&self.live),
            stopped,
        };
        let request = self.job.steps()[step].request();
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            // Kept until the end is told, so that no step of this batch has the place before what
            // the end means for it is known.
            let permit = Arc::new(permit);
            let running = tokio::spawn(run.finish(request, Arc::clone(&permit), mark));
            let ending = running.await.unwrap_or_else(|error| {
                tracing::error!(%error, "a step of a batch failed");
                not_started(&ExecuteError::internal(error))
            });
            let _ = inputs.send(Input::Ended(step, Box::new(ending))).await;
            drop(permit);
        });
    }

    fn note(&mut self, turn: &mut Turn, what: What) {
        self.summary.events += 1;
        let event = EventRow { time: now(), what };
        turn.changes.push(set(key::event(&self.id, self.summary.events), &event));
    }

    fn put(&self, turn: &mut Turn, step: usize, mut row: StepRow) {
        if self.summary.kind != PLAN {
            row.step = self.job.steps().get(step).map(|step| StepSpec(step.without_inputs()));
        }
        turn.changes.push(set(key::step(&self.id, place(step)), &row));
    }

    /// What is written of a step that has no end.
    fn row(&self, step: usize) -> StepRow {
        let Brief { state, attempt, started } = self.steps[step];
        let mut row = StepRow { attempt, started, ..StepRow::default() };
        row.set_state(state);
        row
    }

    fn set_state(&mut self, step: usize, state: StepState) {
        let mut counts = self.summary.counts();
        counts.shift(self.steps[step].state, state);
        self.summary.set_counts(counts);
        self.steps[step].state = state;
    }

    fn set_batch_state(&mut self, state: BatchState, turn: &mut Turn) {
        let (user, id) = (&self.summary.user, self.id.as_str());
        turn.changes.push(Change::remove(key::of_user_in(user, self.summary.state(), id)));
        turn.changes.push(Change::set(key::of_user_in(user, state, id), []));
        self.summary.state = state.name().to_owned();
    }
}

fn place(step: usize) -> u32 {
    u32::try_from(step).unwrap_or(u32::MAX)
}

pub(crate) const PLAN: &str = "plan";
/// Beyond so many words a step waits until its driver has heard them.
const INPUTS: usize = 64;
