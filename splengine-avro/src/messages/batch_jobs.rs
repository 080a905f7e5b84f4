//! `BatchJob`s: batches that are waited for.

use std::time::Duration;

use splengine_core::batch::{
    BatchInfo, BatchResults, BatchState, FailFast, StepInfo, StepResult, StepState, Submitted,
};
use splengine_core::quota::LargeWorkPermit;
use splengine_core::{BatchError, BatchRequest, Reason, Step};
use tokio::time::{Instant, timeout_at};

use crate::context::CallContext;
use crate::error::Failure;
use crate::messages::batches::count_of;
use crate::messages::run::in_text;
use crate::messages::{int, millis, positive};
use crate::records::{BatchJob, BatchResult, ExecutionResult};

pub(crate) async fn execute(
    ask: &CallContext<'_>,
    job: Job,
    permit: LargeWorkPermit,
) -> Result<(ExecutionResult, Reason), Failure> {
    let done = Done::of(ask, job, permit).await?;
    let reason = done.reason();
    let (mut stdout, mut stderr) = (String::new(), String::new());
    for result in &done.results {
        stdout.push_str(&result.stdout);
        stderr.push_str(&result.stderr);
    }
    let result = ExecutionResult {
        exit_code: if done.is_overdue { Reason::TimedOut.exit_code() } else { done.info.exit_code },
        stdout,
        stderr,
        duration: done.duration,
        session_id: done.session_id,
    };
    Ok((result, reason))
}

pub(crate) async fn execute_detailed(
    ask: &CallContext<'_>,
    job: Job,
    permit: LargeWorkPermit,
) -> Result<(BatchResult, Reason), Failure> {
    let job_id = job.key.clone();
    let done = Done::of(ask, job, permit).await?;
    let reason = done.reason();
    let counts = done.info.counts;
    let result = BatchResult {
        job_id: job_id.unwrap_or_else(|| done.info.id.to_string()),
        results: done.results,
        succeeded: int(counts.succeeded),
        failed: int(counts.failed + counts.cancelled),
        skipped: int(counts.skipped),
        duration: done.duration,
    };
    Ok((result, reason))
}

pub(crate) async fn cancel(ask: &CallContext<'_>, job: String) -> Result<bool, Failure> {
    let batches = ask.engine.batches();
    let id = match batches.submitted_with(&ask.caller, &job).await {
        Ok(id) => id.to_string(),
        Err(BatchError::NoBatch(_)) => job,
        Err(error) => return Err(error.into()),
    };
    let was_over = batches.get(&ask.caller, &id).await?.info.state.is_final();
    if !was_over {
        batches.cancel(&ask.caller, &id).await?;
    }
    Ok(!was_over)
}

/// A job that is over.
struct Done {
    info: BatchInfo,
    /// The one that all commands were given; empty where each had its own.
    session_id: String,
    results: Vec<ExecutionResult>,
    duration: i64,
    is_overdue: bool,
}

impl Done {
    async fn of(ask: &CallContext<'_>, job: Job, permit: LargeWorkPermit) -> Result<Self, Failure> {
        let begun = Instant::now();
        let Job { request, session_id, timeout, key } = job;
        let batches = ask.engine.batches();
        let request = request.large_work_permit(permit.clone());
        let Submitted { record, is_new, .. } =
            batches.submit(&ask.caller, request, key.as_deref()).await?;
        let id = record.info.id.to_string();
        // It may take much memory, and long.
        let _ = permit.run(|| drop(record)).await;
        drop(permit);
        let until = timeout.and_then(|time| begun.checked_add(time));
        let until = [until, ask.deadline].into_iter().flatten().min();
        let waited = match until {
            None => Ok(batches.wait_info(&ask.caller, &id).await),
            Some(until) => timeout_at(until, batches.wait_info(&ask.caller, &id)).await,
        };
        let is_overdue = waited.is_err();
        match waited {
            Ok(over) => drop(over?),
            Err(_) if is_new => drop(batches.cancel(&ask.caller, &id).await?),
            // Somebody else's, who may have more time.
            Err(_) => return Err(Failure::overdue()),
        };
        let reader = batches.result_reader(&ask.caller, &id).await?;
        // Held until there are texts of it, whose memory is reserved as that of an answer.
        let _held = ask.reserve_outputs(reader.total_bytes()).await?;
        let BatchResults { info, steps, .. } = reader.read_all().await?;
        let steps: Vec<_> = steps.into_iter().filter(|result| result.step.attempt > 0).collect();
        let outputs = steps.iter().flat_map(|StepResult { step, stdout, stderr, .. }| {
            [(stdout.clone(), step.stdout_gap), (stderr.clone(), step.stderr_gap)]
        });
        let mut texts = in_text(ask, outputs.collect()).await?.into_iter();
        let results = steps.iter().map(|result| {
            let (stdout, stderr) = (texts.next(), texts.next());
            self::result(&result.step, stdout, stderr, &session_id)
        });
        let results = results.collect();
        let duration = millis(info.duration.unwrap_or_else(|| begun.elapsed()));
        Ok(Self { info, session_id, results, duration, is_overdue })
    }

    /// Why it was over as a whole.
    fn reason(&self) -> Reason {
        match self.info.state {
            _ if self.is_overdue => Reason::TimedOut,
            BatchState::Cancelled => Reason::Cancelled,
            _ => Reason::Exited,
        }
    }
}

/// What a `BatchJob` asks for.
pub(crate) struct Job {
    request: BatchRequest,
    /// The session that all commands were given; empty where each has its own.
    session_id: String,
    timeout: Option<Duration>,
    /// Its client's name for it, under which it is made no more than once.
    key: Option<String>,
}

pub(crate) fn job(job: BatchJob) -> Result<Job, Failure> {
    let timeout = match job.timeout_ms {
        None => None,
        Some(0) => return Err(Failure::invalid("`timeoutMs` must be at least 1")),
        Some(time) => Some(Duration::from_millis(positive("timeoutMs", time)?)),
    };
    let mut request = BatchRequest::new()
        .parallelism(count_of("parallelism", job.parallelism)?)
        .fail_fast(if job.stop_on_error { FailFast::Soon } else { FailFast::Never });
    if let Some(workdir) = job.workdir {
        request = request.workdir(workdir);
    }
    let mut session = job.session_id;
    let mut steps = Vec::with_capacity(job.commands.len());
    for command in job.commands {
        if let Some(id) = command.session_id
            && *session.get_or_insert_with(|| id.clone()) != id
        {
            let message = "the commands of a batch must all name the same `sessionId`";
            return Err(Failure::invalid(message));
        }
        // None waits for another but for its place.
        let mut step = Step::new(command.command).args(command.args).independent();
        if let Some(workdir) = command.workdir {
            step = step.workdir(workdir);
        }
        steps.push(step);
    }
    if let Some(id) = &session {
        request = request.session_id(id);
    }
    let request = steps.into_iter().fold(request, BatchRequest::step);
    let (session_id, key) = (session.unwrap_or_default(), job.job_id);
    Ok(Job { request, session_id, timeout, key })
}

fn result(
    step: &StepInfo,
    stdout: Option<String>,
    stderr: Option<String>,
    session_id: &str,
) -> ExecutionResult {
    let mut stderr = stderr.unwrap_or_default();
    // What could not be started has printed nothing itself.
    if step.reason.is_none() && step.state == StepState::Failed {
        stderr.push_str(step.problem.as_deref().unwrap_or_default());
    }
    ExecutionResult {
        exit_code: step.exit_code.unwrap_or(Reason::Lost.exit_code()),
        stdout: stdout.unwrap_or_default(),
        stderr,
        duration: step.duration.map_or(0, millis),
        session_id: session_id.to_owned(),
    }
}

impl BatchResult {
    /// The length of its output.
    pub(crate) fn size(&self) -> usize {
        self.results.iter().map(ExecutionResult::size).sum()
    }
}
