//! One run of a step, from its place to its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::batch::output::OutputWriter;
use crate::batch::registry::Live;
use crate::batch::row::StepRow;
use crate::batch::stdin::{Source, open_stdin};
use crate::batch::{BatchError, Outcome};
use crate::caller::Caller;
use crate::engine::{Engine, Permit};
use crate::execute::{End, Event, ExecuteError, Reason, Request, Run};

/// How a run of a step ended.
pub(crate) struct Ending {
    pub(crate) outcome: Outcome,
    pub(crate) row: StepRow,
    /// What it left on disk.
    pub(crate) bytes: u64,
}

/// One run of a step.
pub(crate) struct StepRun {
    pub(crate) engine: Engine,
    pub(crate) caller: Caller,
    pub(crate) writer: OutputWriter,
    pub(crate) live: Arc<Live>,
    pub(crate) stopped: oneshot::Receiver<Reason>,
    /// The step's, for errors.
    pub(crate) id: String,
    pub(crate) place: u32,
    pub(crate) opens_stdin: bool,
    /// What it reads, if another step has printed it.
    pub(crate) source: Option<Source>,
}

impl StepRun {
    /// Runs it, keeps what it prints, and tells how it ended.
    pub(crate) async fn finish(
        self,
        mut request: Request,
        permit: Arc<Permit>,
        mark: Option<String>,
    ) -> Ending {
        let Self { engine, caller, mut writer, live, mut stopped, id, place, opens_stdin, source } =
            self;
        let limit = request.output_limit.unwrap_or(engine.0.policy.default_output_limit);
        request.output_limit = Some(limit);
        if let Some(source) = source {
            match source.open().await {
                Ok(stdin) => request.stdin = stdin,
                Err(error) => return not_started(&id, error),
            }
        }
        let _open = opens_stdin.then(|| {
            let (ours, stdin) = open_stdin();
            request.stdin = stdin;
            live.set_stdin(place, Some(ours));
            ClosesStdin(Arc::clone(&live), place)
        });
        let mut run: Run = match engine.launch(&caller, request, permit, mark).await {
            Ok(run) => run,
            Err(error) => return not_started(&id, error),
        };
        let stopper = run.stopper();
        let (mut is_stopped, mut listens) = (false, true);
        let end = loop {
            let event = tokio::select! {
                event = run.next() => event,
                told = &mut stopped, if listens => {
                    // An error is no wish: the driver has gone, with its engine.
                    listens = false;
                    if let Ok(reason) = told {
                        is_stopped = true;
                        match reason {
                            Reason::TimedOut => stopper.time_out(),
                            _ => stopper.stop(),
                        }
                    }
                    continue;
                }
            };
            match event {
                Some(Event::Output { stream, data }) => {
                    writer.write(stream, data).await;
                    live.printed.send_replace(());
                }
                Some(Event::Lost { stream, bytes }) => writer.leave_out(stream, bytes).await,
                Some(Event::End(end)) => break end,
                None => break lost_end(),
            }
        };
        let is_shut_down = end.reason == Reason::Cancelled && !is_stopped;
        let (outcome, reason) = match end.reason {
            // The engine shut down: its caller did not want it to end.
            Reason::Cancelled if is_shut_down => (Outcome::Lost, Reason::Lost),
            Reason::Cancelled => (Outcome::Cancelled, end.reason),
            Reason::Lost => (Outcome::Lost, end.reason),
            _ if end.success() => (Outcome::Succeeded, end.reason),
            _ => (Outcome::Failed, end.reason),
        };
        let [stdout_gap, stderr_gap] = writer.gaps;
        let row = StepRow {
            reason: Some(reason.name().to_owned()),
            problem: writer.problem.map(str::to_owned),
            exit_code: Some(if is_shut_down { LOST_CODE } else { end.exit_code }),
            // What its engine ended it with tells nothing of one that is lost.
            signal: end
                .signal
                .filter(|_| outcome != Outcome::Lost)
                .map(|signal| signal.to_string()),
            duration: u64::try_from(end.duration.as_millis()).ok(),
            stdout_bytes: end.stdout_bytes,
            stderr_bytes: end.stderr_bytes,
            stdout_gap,
            stderr_gap,
            ..StepRow::default()
        };
        Ending { outcome, row, bytes: writer.bytes() }
    }
}

/// Takes the standard input of a step away when it does not run any more.
struct ClosesStdin(Arc<Live>, u32);

impl Drop for ClosesStdin {
    fn drop(&mut self) {
        self.0.set_stdin(self.1, None);
    }
}

/// The end of a step that could not be started.
pub(crate) fn not_started(id: &str, error: ExecuteError) -> Ending {
    let exit_code = match &error {
        ExecuteError::ProgramNotFound(_) => 127,
        ExecuteError::ProgramUnusable { .. } => 126,
        _ => LOST_CODE,
    };
    let error = BatchError::Command { step: id.to_owned(), source: Box::new(error) };
    let row = StepRow {
        problem: Some(error.to_string()),
        exit_code: Some(exit_code),
        ..StepRow::default()
    };
    Ending { outcome: Outcome::Failed, row, bytes: 0 }
}

fn lost_end() -> End {
    End {
        reason: Reason::Lost,
        exit_code: LOST_CODE,
        signal: None,
        duration: Duration::ZERO,
        stdout_bytes: 0,
        stderr_bytes: 0,
        stdout_truncated: false,
        stderr_truncated: false,
    }
}

pub(crate) const LOST_CODE: i32 = 125;
pub(crate) const TIMED_OUT_CODE: i32 = 124;
pub(crate) const CANCELLED_CODE: i32 = 130;
