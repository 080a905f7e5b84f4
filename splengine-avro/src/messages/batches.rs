//! Durable batches.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use splengine_core::batch::{
    BatchEvent, BatchEventKind, BatchFilter, BatchInfo, BatchRecord, BatchState, FailFast, RetryOn,
    RunIf, StepCheck, StepInfo, StepOutput,
};
use splengine_core::execute::{Gap, Stream};
use splengine_core::quota::{LargeWork, LargeWorkPermit};
use splengine_core::{BatchRequest, Reason, Step};
use tokio::time::{Instant, timeout_at};

use crate::context::{CallContext, MIN_ANSWER_BYTES};
use crate::datum::{Symbols as _, named};
use crate::error::Failure;
use crate::messages::run::{background, limits, reason};
use crate::messages::{int, long, millis, positive, timestamp};
use crate::records;

/// A batch, and the key under which it is made no more than once.
pub(crate) type Asked = (BatchRequest, Option<String>);

/// What a call of `submitBatch` asks for.
pub(crate) fn asked(asked: records::BatchRequest) -> Result<Asked, Failure> {
    let key = asked.idempotency_key.clone();
    Ok((request(asked)?, key))
}

pub(crate) async fn submit(
    ask: &CallContext<'_>,
    (request, key): Asked,
    permit: LargeWorkPermit,
) -> Result<BatchRecord, Failure> {
    let request = request.large_work_permit(permit);
    let submitted = ask.engine.batches().submit(&ask.caller, request, key.as_deref()).await?;
    Ok(submitted.record)
}

fn request(asked: records::BatchRequest) -> Result<BatchRequest, Failure> {
    let mut request = BatchRequest::new().fail_fast(match asked.fail_fast {
        records::FailFast::Never => FailFast::Never,
        records::FailFast::Soon => FailFast::Soon,
        records::FailFast::Now => FailFast::Now,
    });
    if let Some(name) = asked.name {
        request = request.name(name);
    }
    if let Some(count) = asked.parallelism {
        request = request.parallelism(count_of("parallelism", count)?);
    }
    if let Some(workdir) = asked.workdir {
        request = request.workdir(workdir);
    }
    if let Some(id) = asked.session_id {
        request = request.session_id(&id);
    }
    for (name, value) in asked.labels {
        request = request.label(name, value);
    }
    if let Some(timeout) = asked.timeout {
        request = request.timeout(Duration::from_millis(positive("timeout", timeout)?));
    }
    asked.steps.into_iter().try_fold(request, |request, asked| Ok(request.step(step(asked)?)))
}

pub(crate) fn count_of(field: &str, count: i32) -> Result<usize, Failure> {
    let count = positive(field, i64::from(count))?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

fn step(asked: records::Step) -> Result<Step, Failure> {
    let mut step = Step::new(asked.command)
        .args(asked.args)
        .background(background(asked.background))
        .run_if(match asked.run_if {
            records::RunIf::Success => RunIf::Success,
            records::RunIf::Failure => RunIf::Failure,
            records::RunIf::Always => RunIf::Always,
        })
        .retries(u32::try_from(positive("retries", i64::from(asked.retries))?).unwrap_or(u32::MAX))
        .retry_delay(Duration::from_millis(positive("retryDelay", asked.retry_delay)?))
        .rerun_on_restart(asked.rerun_on_restart)
        .allow_failure(asked.allow_failure)
        .use_shell(asked.shell);
    if let Some(id) = asked.id {
        step = step.id(id);
    }
    if let Some(workdir) = asked.workdir {
        step = step.workdir(workdir);
    }
    for (name, value) in asked.env {
        step = step.env(name, value);
    }
    if let Some(stdin) = asked.stdin {
        step = step.stdin(stdin);
    }
    if let Some(timeout) = asked.timeout {
        step = step.timeout(Duration::from_millis(positive("timeout", timeout)?));
    }
    if let Some(timeout) = asked.idle_timeout {
        step = step.idle_timeout(Duration::from_millis(positive("idleTimeout", timeout)?));
    }
    step = asked.mask.into_iter().fold(step, Step::mask);
    if let Some(on) = asked.retry_on {
        step = step.retry_on(retry_on(on)?);
    }
    step = match asked.check {
        Some(records::StepCheck::Early) => step.check(StepCheck::Early),
        Some(records::StepCheck::Late) => step.check(StepCheck::Late),
        None => step,
    };
    if let Some(from) = asked.stdin_from {
        step = step.stdin_from(from.step, stream(from.stream));
    }
    if asked.open_stdin {
        step = step.open_stdin();
    }
    if let Some(limit) = asked.output_limit {
        step = step.output_limit(positive("outputLimit", limit)?);
    }
    if let Some(asked) = asked.limits {
        step = step.limits(limits(&asked)?);
    }
    if let Some(ids) = asked.depends_on {
        step = step.after(ids);
    }
    Ok(step)
}

fn retry_on(asked: records::RetryOn) -> Result<RetryOn, Failure> {
    let reasons = asked.reasons.into_iter().map(|reason| {
        let known = Reason::ALL.iter().find(|known| known.name() == reason.symbol()).copied();
        known.ok_or_else(|| Failure::invalid("`retryOn.reasons` names none for which a run ends"))
    });
    let reasons: Vec<Reason> = reasons.collect::<Result<_, _>>()?;
    Ok(RetryOn::new().exit_codes(asked.exit_codes).reasons(reasons))
}

fn stream(stream: records::OutputStream) -> Stream {
    match stream {
        records::OutputStream::Stdout => Stream::Stdout,
        records::OutputStream::Stderr => Stream::Stderr,
    }
}

pub(crate) async fn get(ask: &CallContext<'_>, batch: String) -> Result<BatchRecord, Failure> {
    Ok(ask.engine.batches().get(&ask.caller, &batch).await?)
}

pub(crate) async fn list(
    ask: &CallContext<'_>,
    state: Option<records::BatchState>,
    limit: i32,
    cursor: Option<String>,
    name: Option<String>,
    labels: BTreeMap<String, String>,
) -> Result<records::BatchPage, Failure> {
    let state = state.map(|state| {
        let known = BatchState::ALL.iter().find(|known| known.name() == state.symbol()).copied();
        known.ok_or_else(|| Failure::invalid("`state` is none that a batch can be in"))
    });
    let limit = count_of("limit", limit)?;
    if !(1..=500).contains(&limit) {
        return Err(Failure::invalid("`limit` must be from 1 to 500"));
    }
    let batches = ask.engine.batches();
    let state = state.transpose()?;
    let filter = state.into_iter().fold(BatchFilter::new(), BatchFilter::state);
    let filter = name.into_iter().fold(filter, BatchFilter::name);
    let filter = labels.into_iter().fold(filter, |filter, (name, value)| filter.label(name, value));
    ask.list_turn().await?;
    let page = batches.list(&ask.caller, &filter, cursor.as_deref(), limit).await?;
    let next_cursor = page.next;
    Ok(records::BatchPage {
        batches: page.batches.into_iter().map(Into::into).collect(),
        next_cursor,
    })
}

pub(crate) async fn events(
    ask: &CallContext<'_>,
    batch: String,
    after: i64,
    wait: i64,
) -> Result<records::EventPage, Failure> {
    let after = positive("after", after)?;
    let until = wait_until(wait)?;
    let mut all = ask.engine.batches().events(&ask.caller, &batch, after).await?;
    // What is known of the batch, and what is on the page, until it is written.
    let mut held = ask.reserve_follower(all.memory_bytes()).await?;
    let (mut page, mut next, mut over) = (Vec::new(), after, false);
    let mut bytes = 0;
    while page.len() < MAX_EVENTS && bytes < LargeWork::MAX_PAGE_BYTES {
        // Once there is one, those that are there already go with it.
        let until = if page.is_empty() { until } else { Instant::now() };
        match timeout_at(until, all.next()).await {
            Err(_) => break,
            Ok(event) => match event? {
                Some(event) => {
                    next = event.seq;
                    if let BatchEventKind::Ended(step) = &event.what {
                        bytes += step.memory_bytes();
                    }
                    page.push(event.into());
                    if held.try_resize(all.memory_bytes() + bytes).is_err() {
                        break;
                    }
                }
                None => {
                    // Also when the engine shuts down: the batch goes on in the next.
                    over = ask.engine.is_open();
                    break;
                }
            },
        }
    }
    Ok(records::EventPage { events: page, next: long(next), over })
}

pub(crate) async fn output(
    ask: &CallContext<'_>,
    batch: String,
    step: String,
    stream: records::OutputStream,
    offset: i64,
    wait: i64,
    attempt: Option<i32>,
) -> Result<records::OutputPart, Failure> {
    let attempt = attempt.map(|attempt| {
        let attempt = u32::try_from(attempt).ok().filter(|attempt| *attempt > 0);
        attempt.ok_or_else(|| Failure::invalid("`attempt` must be at least 1"))
    });
    let attempt = attempt.transpose()?;
    let offset = positive("offset", offset)?;
    let until = wait_until(wait)?;
    let stream = self::stream(stream);
    let output = ask.engine.batches().output(&ask.caller, &batch, &step, stream, attempt).await?;
    let mut data = read(ask, &output, offset).await?;
    let mut over = false;
    if data.is_empty() {
        over = match timeout_at(until, output.grows(offset)).await {
            Ok(grows) => !grows?,
            Err(_) => false,
        };
        if !over {
            data = read(ask, &output, offset).await?;
        }
    }
    let attempt = int(u64::from(output.attempt()));
    Ok(records::OutputPart { next: long(offset + data.len() as u64), data, over, attempt })
}

/// Reads a part of an output, once there is memory for it if it is large.
async fn read(ask: &CallContext<'_>, output: &StepOutput, offset: u64) -> Result<Bytes, Failure> {
    let first = output.read(offset, MIN_ANSWER_BYTES).await?;
    if first.len() < MIN_ANSWER_BYTES {
        return Ok(first);
    }
    drop(first);
    ask.reserve_read(MAX_OUTPUT_BYTES).await?;
    Ok(output.read(offset, MAX_OUTPUT_BYTES).await?)
}

pub(crate) async fn rerun(
    ask: &CallContext<'_>,
    batch: String,
    only_failed: bool,
) -> Result<BatchRecord, Failure> {
    Ok(ask.engine.batches().rerun(&ask.caller, &batch, only_failed).await?.record)
}

pub(crate) async fn cancel(ask: &CallContext<'_>, batch: String) -> Result<BatchRecord, Failure> {
    Ok(ask.engine.batches().cancel(&ask.caller, &batch).await?)
}

pub(crate) async fn purge(ask: &CallContext<'_>, batch: String) -> Result<(), Failure> {
    Ok(ask.engine.batches().purge(&ask.caller, &batch).await?)
}

pub(crate) async fn write_stdin(
    ask: &CallContext<'_>,
    batch: String,
    step: String,
    data: Bytes,
    end: bool,
) -> Result<(), Failure> {
    Ok(ask.engine.batches().write_stdin(&ask.caller, &batch, &step, data, end).await?)
}

fn wait_until(wait: i64) -> Result<Instant, Failure> {
    let wait = Duration::from_millis(positive("waitMs", wait)?);
    Ok(Instant::now() + wait.min(MAX_WAIT))
}

impl From<BatchInfo> for records::BatchInfo {
    fn from(info: BatchInfo) -> Self {
        let counts = info.counts;
        Self {
            batch_id: info.id.to_string(),
            user: info.user.to_string(),
            name: info.name,
            state: state(info.state),
            created: timestamp(info.created),
            started: info.started.map(timestamp),
            ended: info.ended.map(timestamp),
            counts: records::StepCounts {
                total: long(counts.total),
                queued: long(counts.queued),
                running: long(counts.running),
                retrying: long(counts.retrying),
                succeeded: long(counts.succeeded),
                failed: long(counts.failed),
                skipped: long(counts.skipped),
                cancelled: long(counts.cancelled),
            },
            exit_code: info.exit_code,
            rerun_of: info.rerun_of.map(|id| id.to_string()),
            last_event: long(info.last_event),
            labels: info.labels,
            timeout: info.timeout.map(millis),
            duration: info.duration.map(millis),
        }
    }
}

impl From<BatchRecord> for records::BatchRecord {
    fn from(record: BatchRecord) -> Self {
        let steps = record.steps.into_iter().map(Into::into).collect();
        Self { batch: record.info.into(), steps }
    }
}

impl From<StepInfo> for records::StepRecord {
    fn from(info: StepInfo) -> Self {
        Self {
            id: info.id,
            command: info.command,
            depends_on: info.depends_on,
            state: named(info.state.name()).unwrap_or(records::StepState::Unknown),
            attempt: int(u64::from(info.attempt)),
            reason: info.reason.map(reason),
            problem: info.problem,
            exit_code: info.exit_code,
            signal: info.signal,
            started: info.started.map(timestamp),
            ended: info.ended.map(timestamp),
            duration: info.duration.map(millis),
            stdout_bytes: long(info.stdout_bytes),
            stderr_bytes: long(info.stderr_bytes),
            stdout_truncated: info.stdout_gap.is_some(),
            stderr_truncated: info.stderr_gap.is_some(),
            args: info.args,
            workdir: info.workdir,
            env: info.env,
            allow_failure: info.allow_failure,
            stdout_gap: info.stdout_gap.map(Into::into),
            stderr_gap: info.stderr_gap.map(Into::into),
            cpu_time: info.cpu_time.map(millis),
            peak_memory: info.peak_memory.map(long),
            processes: info.processes.map(long),
        }
    }
}

impl From<Gap> for records::Gap {
    fn from(gap: Gap) -> Self {
        Self { at: long(gap.at), bytes: long(gap.bytes) }
    }
}

impl From<BatchEvent> for records::BatchEvent {
    fn from(event: BatchEvent) -> Self {
        let mut record = Self {
            seq: long(event.seq),
            time: timestamp(event.time),
            event: String::new(),
            step: None,
            attempt: None,
            problem: None,
            result: None,
            state: None,
            exit_code: None,
        };
        let name = match event.what {
            BatchEventKind::Queued => "queued",
            BatchEventKind::Begun => "begun",
            BatchEventKind::Started { step, attempt } => {
                record.step = Some(step);
                record.attempt = Some(int(u64::from(attempt)));
                "started"
            }
            BatchEventKind::Ended(info) => {
                record.step = Some(info.id.clone());
                record.attempt = Some(int(u64::from(info.attempt)));
                record.exit_code = info.exit_code;
                record.result = Some((*info).into());
                "ended"
            }
            BatchEventKind::Due { step } => {
                record.step = Some(step);
                "due"
            }
            BatchEventKind::Skipped { step, reason } => {
                record.step = Some(step);
                record.problem = Some(reason);
                "skipped"
            }
            BatchEventKind::Cancelling => "cancelling",
            BatchEventKind::Aborting => "aborting",
            BatchEventKind::TimedOut => "timedOut",
            BatchEventKind::Finished { state: how, exit_code } => {
                record.state = Some(state(how));
                record.exit_code = Some(exit_code);
                "finished"
            }
            _ => "other",
        };
        record.event = name.to_owned();
        record
    }
}

fn state(state: BatchState) -> records::BatchState {
    named(state.name()).unwrap_or(records::BatchState::Unknown)
}

const MAX_EVENTS: usize = 256;
const MAX_OUTPUT_BYTES: usize = 1 << 20;
const MAX_WAIT: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use splengine_core::batch::StepState;

    use super::*;

    #[test]
    fn every_state_has_its_symbol() {
        for known in BatchState::ALL {
            assert_ne!(state(*known), records::BatchState::Unknown, "{known:?}");
        }
        for known in StepState::ALL {
            assert!(named::<records::StepState>(known.name()).is_some(), "{known:?}");
        }
    }
}
