//! The wire types of requests for batches.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use splengine_core::batch::{FailFast, RetryOn, RunIf, StepCheck};
use splengine_core::execute::Stream;
use splengine_core::{BatchRequest, Reason, Request, Step};
use utoipa::ToSchema;

use crate::bounded;
use crate::dto::{BackgroundDto, EncodingDto, ExecuteRequestDto, LimitsDto, SlowReaderDto};
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
    #[serde(default, deserialize_with = "bounded::map::<{ BatchRequest::MAX_LABELS }, _, _>")]
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
    #[serde(default, deserialize_with = "bounded::list::<{ Request::MAX_ARGS }, _, _>")]
    args: Option<Vec<String>>,
    /// Where to run it, below root; where the batch says when left out.
    workdir: Option<String>,
    /// Variables for its environment.
    #[serde(default, deserialize_with = "bounded::map::<{ Request::MAX_VARIABLES }, _, _>")]
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
    #[serde(
        default,
        deserialize_with = "bounded::list::<{ Request::MAX_MASKED_VARIABLES }, _, _>"
    )]
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
    #[serde(default, deserialize_with = "bounded::list::<{ Step::MAX_DEPENDENCIES }, _, _>")]
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
    #[serde(default, deserialize_with = "bounded::list::<{ RetryOn::MAX_EXIT_CODES }, _, _>")]
    exit_codes: Option<Vec<i32>>,
    /// Reasons, as they are reported, but `cancelled`.
    #[serde(default, deserialize_with = "bounded::list::<{ RetryOn::MAX_REASONS }, _, _>")]
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
            request = request.session_id(&session_id);
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
                // Said in any case: without it, `open` is no text.
                stdin_encoding: Some(self.stdin_encoding.unwrap_or_default()),
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

/// The `stdin` of a step that keeps it open.
const OPEN: &str = "open";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_but_a_cancellation_is_read() {
        for &reason in Reason::ALL {
            let json = serde_json::Value::from(reason.name());
            let read = serde_json::from_value::<RetryReasonDto>(json).ok().map(Reason::from);
            assert_eq!(read, (reason != Reason::Cancelled).then_some(reason), "{reason:?}");
        }
    }
}
