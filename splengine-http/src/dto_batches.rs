//! The wire types of what is told of batches: records, results and events.

use std::collections::BTreeMap;

use serde::Serialize;
use splengine_core::batch::{
    BatchEvent, BatchEventKind, BatchInfo, BatchList, BatchRecord, StepCounts, StepInfo, StepState,
};
use utoipa::ToSchema;

use crate::dto::{GapDto, millis};
use crate::dto_sessions::rfc3339;

/// A batch.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Batch)]
pub(crate) struct BatchDto {
    batch_id: String,
    /// The same as `batchId`.
    id: String,
    /// Whose it is.
    user: String,
    name: Option<String>,
    /// `queued`, `running`, `succeeded`, `failed` or `cancelled`.
    state: &'static str,
    created: String,
    /// When its first step was started.
    started: Option<String>,
    ended: Option<String>,
    /// By what it is found again.
    labels: BTreeMap<String, String>,
    /// How long it may take, in milliseconds.
    timeout: Option<u64>,
    /// From the first start to the end, or until now, in milliseconds.
    duration: u64,
    /// That of the first step whose failure counts, else 130 if cancelled, 124 if its time was up, else 0; null before.
    exit_code: Option<i32>,
    counts: StepCountsDto,
    /// The batch that it runs again.
    rerun_of: Option<String>,
    /// The number of its last event.
    last_event: u64,
}

/// How many steps are in which state.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StepCounts)]
pub(crate) struct StepCountsDto {
    total: u64,
    queued: u64,
    running: u64,
    retrying: u64,
    succeeded: u64,
    failed: u64,
    skipped: u64,
    cancelled: u64,
}

impl From<StepCounts> for StepCountsDto {
    fn from(counts: StepCounts) -> Self {
        Self {
            total: counts.total,
            queued: counts.queued,
            running: counts.running,
            retrying: counts.retrying,
            succeeded: counts.succeeded,
            failed: counts.failed,
            skipped: counts.skipped,
            cancelled: counts.cancelled,
        }
    }
}

impl From<BatchInfo> for BatchDto {
    fn from(info: BatchInfo) -> Self {
        Self {
            batch_id: info.id.to_string(),
            id: info.id.to_string(),
            user: info.user.to_string(),
            name: info.name,
            state: info.state.name(),
            created: rfc3339(info.created),
            started: info.started.map(rfc3339),
            ended: info.ended.map(rfc3339),
            labels: info.labels,
            timeout: info.timeout.map(millis),
            duration: millis(info.duration.unwrap_or_default()),
            exit_code: info.state.is_final().then_some(info.exit_code),
            counts: info.counts.into(),
            rerun_of: info.rerun_of.map(|id| id.to_string()),
            last_event: info.last_event,
        }
    }
}

/// A batch with its steps.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BatchRecord)]
pub(crate) struct BatchRecordDto {
    #[serde(flatten)]
    pub(crate) batch: BatchDto,
    /// In their order.
    pub(crate) steps: Vec<StepInfoDto>,
}

impl From<BatchRecord> for BatchRecordDto {
    fn from(record: BatchRecord) -> Self {
        let steps = record.steps.into_iter().map(Into::into).collect();
        Self { batch: record.info.into(), steps }
    }
}

/// A page of batches.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = BatchList)]
pub(crate) struct BatchListDto {
    /// The newest first.
    batches: Vec<BatchDto>,
    /// What `cursor` is to be for the next page; null on the last.
    next_cursor: Option<String>,
    /// The same as `nextCursor`.
    cursor: Option<String>,
}

impl From<BatchList> for BatchListDto {
    fn from(list: BatchList) -> Self {
        let batches = list.batches.into_iter().map(Into::into).collect();
        Self { batches, next_cursor: list.next.clone(), cursor: list.next }
    }
}

/// A step, as it stands.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = BatchStep)]
pub(crate) struct StepInfoDto {
    id: String,
    command: String,
    args: Vec<String>,
    /// Where it runs; null is root.
    workdir: Option<String>,
    /// The names of the variables that it is given.
    env: Vec<String>,
    /// Whether the batch goes on as if it had succeeded when it fails.
    allow_failure: bool,
    depends_on: Vec<String>,
    /// `queued`, `running`, `retrying`, `succeeded`, `failed`, `skipped` or `cancelled`.
    state: &'static str,
    /// How many times it was started.
    attempt: u32,
    /// Why its last run ended, as of an execution; of a skipped step, why it was left out.
    reason: Option<String>,
    /// Why it could not be started.
    error: Option<String>,
    exit_code: Option<i32>,
    /// The signal that ended it, such as `SIGSEGV`.
    signal: Option<String>,
    started: Option<String>,
    ended: Option<String>,
    /// How long its last run took, in milliseconds.
    duration: Option<u64>,
    /// All that it wrote to standard output, in bytes, kept or not.
    stdout_bytes: u64,
    stderr_bytes: u64,
    /// Whether a part of standard output was left out.
    stdout_truncated: bool,
    stderr_truncated: bool,
    /// Which part of standard output was left out.
    stdout_gap: Option<GapDto>,
    stderr_gap: Option<GapDto>,
    /// The processor time of its last run, in milliseconds; null where that is not known.
    cpu_time: Option<u64>,
    /// The most memory that a process of its last run had, in bytes; null where that is not known.
    peak_memory: Option<u64>,
    /// The most processes and threads that its last run had at once; null where that is not known.
    processes: Option<u64>,
}

impl From<StepInfo> for StepInfoDto {
    fn from(info: StepInfo) -> Self {
        let is_skipped = info.state == StepState::Skipped;
        let (reason, error) = if is_skipped {
            (info.problem, None)
        } else {
            (info.reason.map(|reason| reason.name().to_owned()), info.problem)
        };
        Self {
            id: info.id,
            command: info.command,
            args: info.args,
            workdir: info.workdir,
            env: info.env,
            allow_failure: info.allow_failure,
            depends_on: info.depends_on,
            state: info.state.name(),
            attempt: info.attempt,
            reason,
            error,
            exit_code: info.exit_code,
            signal: info.signal,
            started: info.started.map(rfc3339),
            ended: info.ended.map(rfc3339),
            duration: info.duration.map(millis),
            stdout_bytes: info.stdout_bytes,
            stderr_bytes: info.stderr_bytes,
            stdout_truncated: info.stdout_gap.is_some(),
            stderr_truncated: info.stderr_gap.is_some(),
            stdout_gap: info.stdout_gap.map(Into::into),
            stderr_gap: info.stderr_gap.map(Into::into),
            cpu_time: info.cpu_time.map(millis),
            peak_memory: info.peak_memory,
            processes: info.processes,
        }
    }
}

/// A batch that was waited for.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = BatchResult)]
pub(crate) struct BatchResultDto {
    #[serde(flatten)]
    pub(crate) batch: BatchDto,
    /// Whether all went well.
    pub(crate) success: bool,
    /// What all steps printed on standard output, in their order; in base64 where all steps asked for
    /// that.
    pub(crate) stdout: String,
    /// The same of standard error.
    pub(crate) stderr: String,
    /// Whether a part of it was left out.
    pub(crate) stdout_truncated: bool,
    pub(crate) stderr_truncated: bool,
    pub(crate) steps: Vec<StepResultDto>,
}

/// A step with what it printed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BatchStepResult)]
pub(crate) struct StepResultDto {
    #[serde(flatten)]
    pub(crate) step: StepInfoDto,
    /// What it printed on standard output.
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// An event of a batch: the data of a server-sent event. `event` and `type` say the same; `seq`
/// counts from 1, without a gap, and is the event's id.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = BatchEvent)]
pub(crate) struct BatchEventDto {
    /// `queued`, `begun`, `started`, `ended`, `due`, `skipped`, `cancelling`, `aborting` (cancelled
    /// for the second time), `timedOut` or `finished`.
    pub(crate) event: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    pub(crate) seq: u64,
    time: String,
    /// The id of the step that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<String>,
    /// What state that step, or of `finished` the batch, is in now.
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    /// Why it ended, or was left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Why it could not be started.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stdout_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr_bytes: Option<u64>,
    /// Which part of standard output was left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    stdout_gap: Option<GapDto>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr_gap: Option<GapDto>,
    /// The processor time of the run, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_time: Option<u64>,
    /// The most memory that one of its processes had, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_memory: Option<u64>,
    /// The most processes and threads that it had at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    processes: Option<u64>,
}

impl From<BatchEvent> for BatchEventDto {
    fn from(event: BatchEvent) -> Self {
        let mut dto = Self {
            event: "",
            kind: "",
            seq: event.seq,
            time: rfc3339(event.time),
            step: None,
            state: "running",
            attempt: None,
            reason: None,
            error: None,
            exit_code: None,
            signal: None,
            duration: None,
            stdout_bytes: None,
            stderr_bytes: None,
            stdout_gap: None,
            stderr_gap: None,
            cpu_time: None,
            peak_memory: None,
            processes: None,
        };
        let name = match event.what {
            BatchEventKind::Queued => {
                dto.state = "queued";
                "queued"
            }
            BatchEventKind::Begun => "begun",
            BatchEventKind::Started { step, attempt } => {
                dto.step = Some(step);
                dto.attempt = Some(attempt);
                "started"
            }
            BatchEventKind::Ended(info) => {
                let info = StepInfoDto::from(*info);
                dto.step = Some(info.id);
                dto.state = info.state;
                dto.attempt = Some(info.attempt);
                dto.reason = info.reason;
                dto.error = info.error;
                dto.exit_code = info.exit_code;
                dto.signal = info.signal;
                dto.duration = info.duration;
                dto.stdout_bytes = Some(info.stdout_bytes);
                dto.stderr_bytes = Some(info.stderr_bytes);
                dto.stdout_gap = info.stdout_gap;
                dto.stderr_gap = info.stderr_gap;
                dto.cpu_time = info.cpu_time;
                dto.peak_memory = info.peak_memory;
                dto.processes = info.processes;
                "ended"
            }
            BatchEventKind::Due { step } => {
                dto.step = Some(step);
                dto.state = "queued";
                "due"
            }
            BatchEventKind::Skipped { step, reason } => {
                dto.step = Some(step);
                dto.state = "skipped";
                dto.reason = Some(reason);
                "skipped"
            }
            BatchEventKind::Cancelling => "cancelling",
            BatchEventKind::Aborting => "aborting",
            BatchEventKind::TimedOut => "timedOut",
            BatchEventKind::Finished { state, exit_code } => {
                dto.state = state.name();
                dto.exit_code = Some(exit_code);
                "finished"
            }
            _ => "other",
        };
        dto.event = name;
        dto.kind = name;
        dto
    }
}
