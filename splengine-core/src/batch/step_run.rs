//! One run of a step, from its place to its end.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::auth::Caller;
use crate::batch::open_stdin::open_stdin;
use crate::batch::output_writer::OutputWriter;
use crate::batch::records::StepRow;
use crate::batch::registry::LiveBatch;
use crate::batch::stdin::StepOutputSource;
use crate::batch::{BatchError, Outcome, Step};
use crate::error::ErrorKind;
use crate::execute::{End, Event, ExecuteError, Reason, Run, Stopper};
use crate::quota::LargeWork;
use crate::run::{Permit, Runner};
use crate::time::duration_millis;

/// How a run of a step ended.
pub(crate) struct StepEnd {
    pub(crate) outcome: Outcome,
    pub(crate) row: StepRow,
    /// What it left on disk.
    pub(crate) bytes: u64,
}

/// One run of a step.
pub(crate) struct StepRun {
    pub(crate) runner: Arc<Runner>,
    pub(crate) caller: Caller,
    pub(crate) writer: OutputWriter,
    pub(crate) live: Arc<LiveBatch>,
    pub(crate) stopped: oneshot::Receiver<Reason>,
    /// The step's, for errors.
    pub(crate) id: String,
    pub(crate) place: u32,
    pub(crate) opens_stdin: bool,
    /// What it reads, if another step has printed it.
    pub(crate) source: Option<StepOutputSource>,
}

impl StepRun {
    /// Runs it, keeps what it prints, and tells how it ended.
    pub(crate) async fn finish(
        self,
        step: Step,
        permit: Arc<Permit>,
        mark: Option<String>,
    ) -> StepEnd {
        let step = Arc::new(step);
        let Self { runner, caller, mut writer, live, mut stopped, id, place, opens_stdin, source } =
            self;
        let _open = opens_stdin.then(|| ClosesStdin(Arc::clone(&live), place));
        let launch = Launch {
            runner: &runner,
            caller: &caller,
            permit: &permit,
            mark: &mark,
            id: &id,
            source: source.as_ref(),
            opens_stdin: opens_stdin.then_some((&*live, place)),
        };
        let mut run = match launch.when_there_is_room(&step, &mut stopped).await {
            Ok(run) => run,
            Err(ending) => return *ending,
        };
        // The program has it.
        LargeWork::free(step.input_bytes(), step);
        let mut stop =
            Stop { told: stopped, stopper: run.stopper(), listens: true, is_stopped: false };
        let end = loop {
            let event = tokio::select! {
                event = run.next() => event,
                () = stop.heard() => continue,
            };
            match event {
                Some(Event::Output { stream, data }) => {
                    let written = unless_stuck(&runner, writer.write(stream, data));
                    if stop.heard_during(written).await.is_none() {
                        writer.give_up(stream);
                    }
                    live.printed.send_replace(());
                }
                Some(Event::Lost { stream, bytes }) => {
                    let noted = unless_stuck(&runner, writer.leave_out(stream, bytes));
                    if stop.heard_during(noted).await.is_none() {
                        writer.give_up(stream);
                    }
                }
                Some(Event::End(end)) => break end,
                None => break End::never_begun(Reason::Lost),
            }
        };
        if let Some(shortage) = run.shortage() {
            writer.problem.get_or_insert(match shortage.kind() {
                ErrorKind::CallerLimit => CALLER_CAPTURED,
                _ => ALL_CAPTURED,
            });
        }
        let is_shut_down = end.reason == Reason::Cancelled && !stop.is_stopped;
        let (outcome, reason) = match end.reason {
            // The engine shut down: its caller did not want it to end.
            Reason::Cancelled if is_shut_down => (Outcome::Lost, Reason::Lost),
            Reason::Cancelled => (Outcome::Cancelled, end.reason),
            Reason::Lost => (Outcome::Lost, end.reason),
            _ if end.success() => (Outcome::Succeeded, end.reason),
            _ => (Outcome::Failed, end.reason),
        };
        let [stdout_gap, stderr_gap] = writer.gaps;
        // Beside what is over the limit, what could not be written is missing.
        let lost = |gap: Option<u64>, printed: u64, written: u64| {
            gap.map(|_| printed.saturating_sub(written))
        };
        let [stdout_written, stderr_written] = writer.written;
        let row = StepRow {
            reason: Some(reason.name().to_owned()),
            problem: writer.problem.map(str::to_owned),
            exit_code: Some(if is_shut_down { LOST_CODE } else { end.exit_code }),
            // What its engine ended it with tells nothing of one that is lost.
            signal: end
                .signal
                .filter(|_| outcome != Outcome::Lost)
                .map(|signal| signal.to_string()),
            duration: Some(duration_millis(end.duration)),
            stdout_bytes: end.stdout_bytes,
            stderr_bytes: end.stderr_bytes,
            stdout_gap,
            stderr_gap,
            stdout_lost: lost(stdout_gap, end.stdout_bytes, stdout_written),
            stderr_lost: lost(stderr_gap, end.stderr_bytes, stderr_written),
            cpu_time: end.usage.cpu_time.map(duration_millis),
            peak_memory: end.usage.peak_memory,
            processes: end.usage.processes,
            ..StepRow::default()
        };
        StepEnd { outcome, row, bytes: writer.bytes() }
    }
}

/// The wish that a run ends.
struct Stop {
    told: oneshot::Receiver<Reason>,
    stopper: Stopper,
    listens: bool,
    is_stopped: bool,
}

impl Stop {
    /// Ends the run when that is wished; once.
    async fn heard(&mut self) {
        if !self.listens {
            return std::future::pending().await;
        }
        let told = (&mut self.told).await;
        self.listens = false;
        // An error is no wish: the driver has gone, with its engine.
        let Ok(reason) = told else { return };
        self.is_stopped = true;
        match reason {
            Reason::TimedOut => self.stopper.time_out(),
            _ => self.stopper.stop(),
        }
    }

    /// Does what may take long, and hears the wish meanwhile.
    async fn heard_during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = self.heard() => {}
            }
        }
    }
}

/// Takes the standard input of a step away when it does not run any more.
struct ClosesStdin(Arc<LiveBatch>, u32);

impl Drop for ClosesStdin {
    fn drop(&mut self) {
        self.0.set_stdin(self.1, None);
    }
}

struct Launch<'a> {
    runner: &'a Arc<Runner>,
    caller: &'a Caller,
    permit: &'a Arc<Permit>,
    mark: &'a Option<String>,
    id: &'a str,
    source: Option<&'a StepOutputSource>,
    opens_stdin: Option<(&'a LiveBatch, u32)>,
}

impl Launch<'_> {
    /// Starts the run. A passing shortage of the host is no fault of the step, and takes none of its
    /// retries: it waits for the end of it, at most [`MAX_SHORTAGE`], with its place among those that run.
    async fn when_there_is_room(
        &self,
        step: &Arc<Step>,
        stopped: &mut oneshot::Receiver<Reason>,
    ) -> Result<Run, Box<StepEnd>> {
        let begun = Instant::now();
        let (mut pause, mut listens) = (MIN_PAUSE, true);
        loop {
            let error = match unless_stuck(self.runner, self.once(step)).await {
                Some(Ok(run)) => return Ok(run),
                Some(Err(error)) => error,
                None => return Err(Box::new(not_begun(Outcome::Lost, Reason::Lost))),
            };
            if !error.is_shortage() || begun.elapsed() >= MAX_SHORTAGE {
                return Err(Box::new(not_started(self.id, error)));
            }
            if pause == MIN_PAUSE {
                tracing::warn!(%error, step = self.id, "a step waits to be started");
            }
            let resumes = sleep(pause);
            pause = (pause * 2).min(MAX_PAUSE);
            let (outcome, reason) = tokio::select! {
                () = resumes => continue,
                told = &mut *stopped, if listens => {
                    // An error is no wish: the driver has gone, with its engine.
                    listens = false;
                    match told {
                        Ok(Reason::TimedOut) => (Outcome::Failed, Reason::TimedOut),
                        Ok(_) => (Outcome::Cancelled, Reason::Cancelled),
                        Err(_) => continue,
                    }
                }
                () = self.runner.stopped() => (Outcome::Lost, Reason::Lost),
            };
            return Err(Box::new(not_begun(outcome, reason)));
        }
    }

    async fn once(&self, step: &Arc<Step>) -> Result<Run, ExecuteError> {
        let Self { runner, caller, permit, mark, .. } = self;
        let default = runner.policy.default_output_limit;
        let mut stdin = None;
        if let Some(source) = self.source {
            stdin = Some(source.open().await?);
        }
        if let Some((live, place)) = self.opens_stdin {
            let (ours, theirs) = open_stdin();
            stdin = Some(theirs);
            live.set_stdin(place, Some(ours));
        }
        let (bytes, step) = (step.input_bytes(), Arc::clone(step));
        let request = move || {
            let mut request = step.request();
            request.output_limit = Some(request.output_limit.unwrap_or(default));
            if let Some(stdin) = stdin {
                request.stdin = stdin;
            }
            request
        };
        runner.launch(caller, bytes, request, Arc::clone(permit), (*mark).clone()).await
    }
}

/// Does what may wait for a disk; `None` where the engine ends, and it takes longer than [`DISK_TIMEOUT`] then.
async fn unless_stuck<T>(runner: &Runner, work: impl Future<Output = T>) -> Option<T> {
    let stuck = async {
        runner.stopped().await;
        sleep(DISK_TIMEOUT).await;
    };
    tokio::select! {
        biased;
        done = work => Some(done),
        () = stuck => None,
    }
}

/// The end of one that was told to end before its program ran.
fn not_begun(outcome: Outcome, reason: Reason) -> StepEnd {
    let code = match reason {
        Reason::Cancelled => CANCELLED_CODE,
        Reason::TimedOut => TIMED_OUT_CODE,
        _ => LOST_CODE,
    };
    let (reason, exit_code) = (Some(reason.name().to_owned()), Some(code));
    StepEnd { outcome, row: StepRow { reason, exit_code, ..StepRow::default() }, bytes: 0 }
}

/// The end of a step that could not be started.
pub(crate) fn not_started(id: &str, error: ExecuteError) -> StepEnd {
    let exit_code = error.exit_code().unwrap_or(LOST_CODE);
    let error = BatchError::Command { step: id.to_owned(), source: Box::new(error) };
    let row = StepRow {
        problem: Some(error.to_string()),
        exit_code: Some(exit_code),
        ..StepRow::default()
    };
    StepEnd { outcome: Outcome::Failed, row, bytes: 0 }
}

const CALLER_CAPTURED: &str = "less is kept of the end of what it printed: the output of what you run \
                               takes all of the memory that one caller may have for it";
const ALL_CAPTURED: &str = "less is kept of the end of what it printed: the engine has no memory left \
                            for output";
const MAX_SHORTAGE: Duration = Duration::from_mins(10);
/// At the end of the engine, for as long as each piece of what a step prints may wait for its disk.
const DISK_TIMEOUT: Duration = Duration::from_secs(10);
const MIN_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(2);
pub(crate) const LOST_CODE: i32 = Reason::Lost.exit_code();
pub(crate) const TIMED_OUT_CODE: i32 = Reason::TimedOut.exit_code();
pub(crate) const CANCELLED_CODE: i32 = Reason::Cancelled.exit_code();
