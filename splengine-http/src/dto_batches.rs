//! The wire types of batches.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use splengine_core::{
    BatchEvent, BatchInfo, BatchList, BatchRecord, BatchRequest, FailFast, Happening, Reason,
    RetryOn, RunIf, Step, StepCheck, StepCounts, StepInfo, StepState, Stream,
};
use utoipa::ToSchema;

use crate::dto::{
    BackgroundDto, EncodingDto, ExecuteRequestDto, GapDto, LimitsDto, SlowReaderDto, millis,
};
use crate::dto_sessions::rfc3339;
use crate::problem::Problem;

/// A batch to be run.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object with `steps`")]
#[schema(as = BatchRequest)]
pub(crate) struct BatchRequestDto {
    /// What to call it.
    name: Option<String>,
    /// The steps. Without `dependsOn` each waits for the one before it.
    steps: Vec<StepDto>,
    /// By what it is found again; names have 1 to 63 of `A-Z a-z 0-9 . _ / -`.
    labels: Option<BTreeMap<String, String>>,
    /// How long it may take from the start of its first step, in milliseconds.
    #[schema(minimum = 1)]
    timeout: Option<u64>,
    /// How many steps run at once; the number of processors when left out.
    #[schema(minimum = 1)]
    parallelism: Option<usize>,
    /// What becomes of it when a step has failed: `never` lets go on what does not depend on that
    /// step, `soon` starts nothing more, `now` also stops what runs. `never` when left out.
    fail_fast: Option<FailFastDto>,
    /// Where steps run that do not say.
    workdir: Option<String>,
    /// Takes the directory and environment that this session has now.
    session_id: Option<String>,
}

/// One step: a command, and when it is to run.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object with `command`")]
#[schema(as = BatchStepRequest)]
pub(crate) struct StepDto {
    /// Its name within the batch; its number, from 1, when left out.
    id: Option<String>,
    /// The command, split into words as a POSIX shell would; one with unquoted operators of a shell
    /// is refused.
    command: String,
    /// Has the command run by a shell, where that is allowed here and the caller may have sessions.
    shell: Option<bool>,
    /// Further words, taken verbatim.
    args: Option<Vec<String>>,
    /// Where to run it, below root; where the batch says when left out.
    workdir: Option<String>,
    /// Variables for its environment.
    env: Option<BTreeMap<String, String>>,
    /// What it reads on standard input; nothing when left out. `open`, without `stdinEncoding`, keeps
    /// it open while the step runs, for `POST /api/v1/batches/{id}/steps/{step}/stdin`.
    stdin: Option<String>,
    /// Has it read what another step printed, for which it waits.
    stdin_from: Option<StdinFromDto>,
    /// How `stdin` is encoded; `utf8` when left out.
    stdin_encoding: Option<EncodingDto>,
    /// How long one run of it may take, in milliseconds.
    #[schema(minimum = 1)]
    timeout: Option<u64>,
    /// How long one run of it may print nothing, in milliseconds; over it, it is ended as `timedOut`.
    #[schema(minimum = 1)]
    idle_timeout: Option<u64>,
    /// Names of variables of `env` whose values are replaced by `***` in its output.
    mask: Option<Vec<String>>,
    /// How many bytes of each output stream to keep.
    output_limit: Option<u64>,
    /// How its output is encoded in the answer to `wait`; `utf8` when left out.
    pub(crate) output_encoding: Option<EncodingDto>,
    /// What becomes of background processes when it exits; `kill` when left out.
    background: Option<BackgroundDto>,
    /// What it may use.
    limits: Option<LimitsDto>,
    /// Has no effect here: what a step prints is kept as fast as it prints.
    #[expect(dead_code, reason = "a member of each command, which may stand here, too")]
    slow_reader: Option<SlowReaderDto>,
    /// The ids of the steps that must be over before; the step before it when left out.
    depends_on: Option<Vec<String>>,
    /// When it runs, by what became of those; `success` when left out.
    run_if: Option<RunIfDto>,
    /// How many times it is run again when it fails.
    retries: Option<u32>,
    /// How long to wait before that, in milliseconds; twice as long each further time.
    retry_delay: Option<u64>,
    /// Runs it again when the engine ended while it ran, whatever it had done by then.
    rerun_on_restart: Option<bool>,
    /// After which failures it is run again; after any when left out.
    retry_on: Option<RetryOnDto>,
    /// Whether the batch goes on as if it had succeeded when it fails, and does not fail with it.
    allow_failure: Option<bool>,
    /// When its program and its directory are looked for; `early` when left out where it depends on
    /// no step, else `late`.
    check: Option<StepCheckDto>,
}

/// What a step reads that another has printed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object with `step`")]
#[schema(as = StdinFrom)]
pub(crate) struct StdinFromDto {
    /// The id of the step.
    step: String,
    /// `stdout` when left out.
    stream: Option<StreamDto>,
}

/// A stream that a step prints on.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = OutputStream)]
pub(crate) enum StreamDto {
    Stdout,
    Stderr,
}

/// Failures after which a step is run again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
#[schema(as = RetryOn)]
pub(crate) struct RetryOnDto {
    /// Exit codes, as they are reported.
    exit_codes: Option<Vec<i32>>,
    /// Reasons, as they are reported, but `cancelled`.
    reasons: Option<Vec<RetryReasonDto>>,
}

/// Why a run of a step failed.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RetryReason)]
pub(crate) enum RetryReasonDto {
    Exited,
    Signaled,
    TimedOut,
    OutOfMemory,
    Lost,
}

/// When the program and the directory of a step are looked for.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = StepCheck)]
pub(crate) enum StepCheckDto {
    /// When the batch is submitted.
    Early,
    /// When the step starts: steps before it may make them.
    Late,
}

/// What becomes of a batch when a step has failed.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = FailFast)]
pub(crate) enum FailFastDto {
    Never,
    Soon,
    Now,
}

/// When a step runs.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = RunIf)]
pub(crate) enum RunIfDto {
    Success,
    Failure,
    Always,
}

impl BatchRequestDto {
    /// How the output of each step is encoded.
    pub(crate) fn encodings(&self) -> Vec<EncodingDto> {
        self.steps.iter().map(|step| step.output_encoding.unwrap_or_default()).collect()
    }

    pub(crate) fn into_request(self) -> Result<BatchRequest, Problem> {
        let mut request = BatchRequest::new();
        for (place, step) in self.steps.into_iter().enumerate() {
            request = request.step(step.into_step(place)?);
        }
        if let Some(name) = self.name {
            request = request.name(name);
        }
        for (name, value) in self.labels.unwrap_or_default() {
            request = request.label(name, value);
        }
        if let Some(timeout) = self.timeout {
            request = request.timeout(Duration::from_millis(timeout));
        }
        if let Some(count) = self.parallelism {
            request = request.parallelism(count);
        }
        if let Some(workdir) = self.workdir {
            request = request.workdir(workdir);
        }
        if let Some(session_id) = self.session_id {
            request = request.session_id(session_id);
        }
        Ok(match self.fail_fast {
            Some(FailFastDto::Soon) => request.fail_fast(FailFast::Soon),
            Some(FailFastDto::Now) => request.fail_fast(FailFast::Now),
            Some(FailFastDto::Never) | None => request,
        })
    }
}

impl StepDto {
    fn into_step(self, place: usize) -> Result<Step, Problem> {
        let mut step = Step::new(self.command)
            .use_shell(self.shell.unwrap_or_default())
            .args(self.args.unwrap_or_default());
        if let Some(id) = self.id {
            step = step.id(id);
        }
        if let Some(workdir) = self.workdir {
            step = step.workdir(workdir);
        }
        for (name, value) in self.env.unwrap_or_default() {
            step = step.env(name, value);
        }
        if let Some(from) = self.stdin_from {
            step = step.stdin_from(
                from.step,
                match from.stream {
                    Some(StreamDto::Stderr) => Stream::Stderr,
                    Some(StreamDto::Stdout) | None => Stream::Stdout,
                },
            );
        }
        let is_open = self.stdin_encoding.is_none() && self.stdin.as_deref() == Some(OPEN);
        if is_open {
            step = step.open_stdin();
        } else if let Some(text) = self.stdin {
            step = match self.stdin_encoding.unwrap_or_default() {
                EncodingDto::Utf8 => step.stdin(text),
                EncodingDto::Base64 => {
                    step.stdin(BASE64_STANDARD.decode(text).map_err(|error| {
                        let detail = format!("`steps[{place}].stdin` is not base64: {error}");
                        Problem::malformed(detail)
                    })?)
                }
            };
        }
        if let Some(timeout) = self.timeout {
            step = step.timeout(Duration::from_millis(timeout));
        }
        if let Some(timeout) = self.idle_timeout {
            step = step.idle_timeout(Duration::from_millis(timeout));
        }
        step = self.mask.unwrap_or_default().into_iter().fold(step, Step::mask);
        if let Some(limit) = self.output_limit {
            step = step.output_limit(limit);
        }
        if let Some(background) = self.background {
            step = step.background(background.into());
        }
        if let Some(limits) = self.limits {
            step = step.limits(limits.into());
        }
        if let Some(ids) = self.depends_on {
            step = step.after(ids);
        }
        step = match self.run_if {
            Some(RunIfDto::Failure) => step.run_if(RunIf::Failure),
            Some(RunIfDto::Always) => step.run_if(RunIf::Always),
            Some(RunIfDto::Success) | None => step,
        };
        if let Some(on) = self.retry_on {
            let reasons = on.reasons.unwrap_or_default().into_iter().map(Into::into);
            let on = RetryOn::new().exit_codes(on.exit_codes.unwrap_or_default()).reasons(reasons);
            step = step.retry_on(on);
        }
        step = match self.check {
            Some(StepCheckDto::Early) => step.check(StepCheck::Early),
            Some(StepCheckDto::Late) => step.check(StepCheck::Late),
            None => step,
        };
        Ok(step
            .allow_failure(self.allow_failure.unwrap_or(false))
            .retries(self.retries.unwrap_or(0))
            .retry_delay(Duration::from_millis(self.retry_delay.unwrap_or(0)))
            .rerun_on_restart(self.rerun_on_restart.unwrap_or(false)))
    }
}

impl From<RetryReasonDto> for Reason {
    fn from(dto: RetryReasonDto) -> Self {
        match dto {
            RetryReasonDto::Exited => Self::Exited,
            RetryReasonDto::Signaled => Self::Signaled,
            RetryReasonDto::TimedOut => Self::TimedOut,
            RetryReasonDto::OutOfMemory => Self::OutOfMemory,
            RetryReasonDto::Lost => Self::Lost,
        }
    }
}

impl ExecuteRequestDto {
    /// The same command as a batch of one step.
    pub(crate) fn into_batch(self) -> Result<BatchRequest, Problem> {
        let dto = BatchRequestDto {
            name: None,
            labels: None,
            timeout: None,
            parallelism: None,
            fail_fast: None,
            workdir: None,
            session_id: self.session_id,
            steps: vec![StepDto {
                id: None,
                command: self.command,
                shell: self.shell,
                args: self.args,
                workdir: self.workdir,
                env: self.env,
                stdin: self.stdin,
                stdin_encoding: self.stdin_encoding,
                stdin_from: None,
                timeout: self.timeout,
                idle_timeout: self.idle_timeout,
                mask: self.mask,
                output_limit: self.output_limit,
                output_encoding: self.output_encoding,
                background: self.background,
                limits: self.limits,
                slow_reader: self.slow_reader,
                depends_on: None,
                run_if: None,
                retries: None,
                retry_delay: None,
                rerun_on_restart: None,
                retry_on: None,
                allow_failure: None,
                check: None,
            }],
        };
        dto.into_request()
    }
}

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
    /// That of the first step whose failure counts, or 0; null while it is not over.
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
            Happening::Queued => {
                dto.state = "queued";
                "queued"
            }
            Happening::Begun => "begun",
            Happening::Started { step, attempt } => {
                dto.step = Some(step);
                dto.attempt = Some(attempt);
                "started"
            }
            Happening::Ended(info) => {
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
            Happening::Due { step } => {
                dto.step = Some(step);
                dto.state = "queued";
                "due"
            }
            Happening::Skipped { step, reason } => {
                dto.step = Some(step);
                dto.state = "skipped";
                dto.reason = Some(reason);
                "skipped"
            }
            Happening::Cancelling => "cancelling",
            Happening::Aborting => "aborting",
            Happening::TimedOut => "timedOut",
            Happening::Finished { state, exit_code } => {
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

/// The `stdin` of a step that keeps it open.
const OPEN: &str = "open";
