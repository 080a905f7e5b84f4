//! Requests for batches: steps, and their order.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::execute::{
    Background, CommandParts, CommandSpec, Reason, Request, Stdin, Stream, command_builders,
};
use crate::ids::{IntoId, SessionId};
use crate::os::{LimitKind, Limits};
use crate::quota::LargeWorkPermit;
use crate::time::duration_millis;

/// Steps to run, as a caller asks for them.
///
/// ```
/// use splengine_core::{BatchRequest, Step};
/// use splengine_core::batch::FailFast;
///
/// let request = BatchRequest::new()
///     .step(Step::new("make all").id("build"))
///     .step(Step::new("make test").retries(2))
///     .step(Step::new("./report").after(["build"]))
///     .parallelism(4)
///     .fail_fast(FailFast::Soon);
/// ```
#[derive(Debug, Clone, Default)]
pub struct BatchRequest {
    pub(crate) plan: PlanData,
    pub(crate) permit: Option<LargeWorkPermit>,
}

/// Step of a batch: a command, and when it is to run.
///
/// ```
/// use std::time::Duration;
/// use splengine_core::Step;
/// use splengine_core::batch::RunIf;
///
/// let build = Step::new("make all").id("build").timeout(Duration::from_secs(600)).retries(1);
/// let report = Step::new("./report-failure").id("report").after(["build"]).run_if(RunIf::Failure);
/// let clean = Step::new("make clean").after(["build", "report"]).run_if(RunIf::Always);
/// # drop((build, report, clean));
/// ```
#[derive(Debug, Clone)]
pub struct Step(pub(crate) StepData);

/// Condition under which a step runs: how the steps that it depends on have ended. A step that was not
/// needed counts as a success, one that was left out because something failed as a failure.
///
/// ```
/// use splengine_core::batch::{BatchPolicy, RunIf, StepState};
/// use splengine_core::store::MemoryStore;
/// use splengine_core::{BatchRequest, Caller, Engine, LocalExecutor, Step};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let outputs = tempfile::tempdir()?;
/// # let policy = BatchPolicy::new(MemoryStore::new(), outputs.path());
/// # let engine = Engine::builder(LocalExecutor::new(".")?).batches(policy).build()?;
/// # let alice = Caller::new("alice")?.with_all_scopes();
/// let request = BatchRequest::new()
///     .step(Step::new("false").id("build"))
///     .step(Step::new("true").id("publish"))
///     .step(Step::new("true").id("report").after(["build"]).run_if(RunIf::Failure));
/// let id = engine.batches().submit(&alice, request, None).await?.record.info.id;
/// let steps = engine.batches().wait(&alice, &id).await?.steps;
/// let states: Vec<_> = steps.iter().map(|step| step.state).collect();
/// assert_eq!(states, [StepState::Failed, StepState::Skipped, StepState::Succeeded]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunIf {
    /// All have succeeded.
    #[default]
    Success,
    /// Any of them has failed.
    Failure,
    /// All have ended, however; also when the batch is cancelled, unless it is cancelled a second time.
    /// For a step that depends on none it is the same as [`RunIf::Success`].
    Always,
}

/// Reaction of a batch to a step that has failed for good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailFast {
    /// All that does not depend on it continues.
    #[default]
    Never,
    /// Steps that run continue; nothing more is started but steps that run on failure or always.
    Soon,
    /// Steps that run are stopped, too.
    Now,
}

/// Moment at which the program and the directory of a step are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StepCheck {
    /// The submission of the batch, which is refused where they are missing.
    Early,
    /// The start of the step, which fails where they are missing: steps before it may make
    /// them.
    Late,
}

/// Failures of a step that are worth another run.
///
/// ```
/// use splengine_core::{Reason, Step};
/// use splengine_core::batch::RetryOn;
///
/// let step = Step::new("fetch").retries(3).retry_on(
///     RetryOn::new().exit_codes([75]).reasons([Reason::TimedOut]),
/// );
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct RetryOn {
    pub(crate) exit_codes: Vec<i32>,
    /// By their names.
    pub(crate) reasons: Vec<String>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct PlanData {
    pub(crate) name: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
    /// Milliseconds.
    pub(crate) timeout: Option<u64>,
    pub(crate) steps: Vec<Step>,
    pub(crate) parallelism: Option<usize>,
    pub(crate) fail_fast: FailFast,
    pub(crate) workdir: Option<String>,
    pub(crate) session_id: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct StepData {
    pub(crate) id: Option<String>,
    pub(crate) command: CommandParts<String>,
    pub(crate) stdin: Option<Bytes>,
    /// Milliseconds, as all times here.
    pub(crate) timeout: Option<u64>,
    pub(crate) idle_timeout: Option<u64>,
    /// Names of variables.
    pub(crate) mask: Vec<String>,
    pub(crate) output_limit: Option<u64>,
    pub(crate) limits: BTreeMap<String, u64>,
    /// The session that it belongs to.
    pub(crate) session_id: Option<String>,
    pub(crate) depends_on: Option<Vec<String>>,
    pub(crate) run_if: RunIf,
    pub(crate) retries: u32,
    pub(crate) retry_delay: u64,
    pub(crate) rerun_on_restart: bool,
    pub(crate) retry_on: Option<RetryOn>,
    pub(crate) allow_failure: bool,
    pub(crate) check: Option<StepCheck>,
    pub(crate) stdin_from: Option<StdinFrom>,
    pub(crate) stdin_open: bool,
    /// The names of its variables, where these are kept apart.
    pub(crate) env_names: Vec<String>,
}

/// A stream of an earlier step that a step reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StdinFrom {
    /// Its id.
    pub(crate) step: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) is_stderr: bool,
    /// Where it was run, if that was an earlier batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ran_in: Option<EarlierRun>,
}

/// A run of a step in a batch that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EarlierRun {
    pub(crate) batch: String,
    pub(crate) place: u32,
}

impl StdinFrom {
    pub(crate) fn stream(&self) -> Stream {
        if self.is_stderr { Stream::Stderr } else { Stream::Stdout }
    }
}

impl RetryOn {
    /// Maximum number of exit codes.
    pub const MAX_EXIT_CODES: usize = 256;
    /// Maximum number of reasons.
    pub const MAX_REASONS: usize = 16;

    /// Makes a selection of no failures.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds exit codes, as they are reported: 124 of a run whose time was up, 128 + n of one that a
    /// signal ended, 127 where there is no such program.
    pub fn exit_codes(mut self, codes: impl IntoIterator<Item = i32>) -> Self {
        self.exit_codes.extend(codes);
        self
    }

    /// Adds runs that end for these reasons. A run that was cancelled is never run again.
    pub fn reasons(mut self, reasons: impl IntoIterator<Item = Reason>) -> Self {
        self.reasons.extend(reasons.into_iter().map(|reason| reason.name().to_owned()));
        self
    }

    /// How many exit codes, and how many reasons.
    pub(crate) fn counts(&self) -> [usize; 2] {
        [self.exit_codes.len(), self.reasons.len()]
    }

    /// Whether it names nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.exit_codes.is_empty() && self.reasons.is_empty()
    }

    /// Whether a run that ended so is among them.
    pub(crate) fn holds(&self, exit_code: Option<i32>, reason: Option<Reason>) -> bool {
        exit_code.is_some_and(|code| self.exit_codes.contains(&code))
            || reason.is_some_and(|reason| self.reasons.iter().any(|name| name == reason.name()))
    }
}

impl PlanData {
    /// Returns about how many bytes of memory it takes, with what may be refused for its size.
    pub(crate) fn bytes(&self) -> usize {
        let texts = [&self.name, &self.workdir, &self.session_id].into_iter().flatten();
        let labels = self.labels.iter().map(|(name, value)| PIECE_BYTES + name.len() + value.len());
        let steps = self.steps.iter().map(Step::input_bytes);
        texts.map(String::len).chain(labels).chain(steps).sum()
    }
}

impl BatchRequest {
    /// Maximum number of labels of a batch.
    pub const MAX_LABELS: usize = 32;

    /// Makes a request without steps yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the name that people call the batch by; at most 200 characters.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.plan.name = Some(name.into());
        self
    }

    /// Adds a step.
    #[must_use]
    pub fn step(mut self, step: Step) -> Self {
        self.plan.steps.push(step);
        self
    }

    /// Adds a label, by which batches are found again: see
    /// [`BatchFilter::label`](crate::batch::BatchFilter::label). A name has 1 to 63 of
    /// `A-Z a-z 0-9 . _ / -`, a value at most 200 characters, none of them a control character; a
    /// batch has at most [`MAX_LABELS`](Self::MAX_LABELS), 32.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.plan.labels.insert(name.into(), value.into());
        self
    }

    /// Sets how long the batch may take from the start of its first step, at most a year. Then what
    /// runs is stopped and nothing more is started but steps that run on failure or always, and it has
    /// failed, with exit code 124 where no step failed before. Default: no bound.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.plan.timeout = Some(duration_millis(timeout));
        self
    }

    /// Sets the maximum number of steps that run at once. Default: as many as the host has
    /// processors.
    #[must_use]
    pub fn parallelism(mut self, count: usize) -> Self {
        self.plan.parallelism = Some(count);
        self
    }

    /// Sets how the batch reacts to a step that has failed. Default: [`FailFast::Never`].
    #[must_use]
    pub fn fail_fast(mut self, fail_fast: FailFast) -> Self {
        self.plan.fail_fast = fail_fast;
        self
    }

    /// Sets the directory of steps that name none; default root.
    #[must_use]
    pub fn workdir(mut self, workdir: impl Into<String>) -> Self {
        self.plan.workdir = Some(workdir.into());
        self
    }

    /// Takes the directory and environment that this session has now. With a text that is no id the batch is
    /// refused as for a session that is not there.
    #[must_use]
    pub fn session_id(mut self, session_id: impl IntoId<SessionId>) -> Self {
        let text = session_id.into_id().map_or_else(|text| text, |id| id.as_str().to_owned());
        self.plan.session_id = Some(text);
        self
    }

    /// Sets the permit under which the request was read: the engine checks it, and reads the record that
    /// it gives, under the same, and gives that back then.
    /// Otherwise a request from [64 KiB](crate::quota::LargeWork::MIN_BYTES) on waits for a permit of its
    /// caller's.
    #[must_use]
    pub fn large_work_permit(mut self, permit: LargeWorkPermit) -> Self {
        self.permit = Some(permit);
        self
    }
}

impl Step {
    /// Maximum number of ids in [`after`](Self::after).
    pub const MAX_DEPENDENCIES: usize = 1 << 16;

    /// Asks for `command`, which is split into words by [`split_words`](crate::execute::split_words).
    pub fn new(command: impl Into<String>) -> Self {
        CommandSpec::new(command).into()
    }

    /// Asks for the command that consists of these words, verbatim, as
    /// [`Request::argv`](crate::Request::argv) says.
    pub fn argv(words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        CommandSpec::argv(words).into()
    }

    /// Sets the name of the step within the batch: 1 to 64 of `A-Z a-z 0-9 . _ -`, but not `.` or
    /// `..`. Default: its number, from 1.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.0.id = Some(id.into());
        self
    }

    /// Sets what the step reads on its standard input; default nothing (`/dev/null`).
    #[must_use]
    pub fn stdin(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.0.stdin = Some(Bytes::copy_from_slice(bytes.as_ref()));
        self
    }

    /// Sets how long one run of the step may take. Default and maximum are the engine's.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.0.timeout = Some(duration_millis(timeout));
        self
    }

    /// Sets how long one run of the step may print nothing before it is ended. Default: for ever.
    /// See [`Request::idle_timeout`].
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.0.idle_timeout = Some(duration_millis(timeout));
        self
    }

    /// Replaces the value of this variable by `***` in what it prints. See [`Request::mask`].
    #[must_use]
    pub fn mask(mut self, name: impl Into<String>) -> Self {
        self.0.mask.push(name.into());
        self
    }

    /// Sets how many bytes of each stream are kept: the first and the last half. Default and
    /// maximum are the engine's.
    #[must_use]
    pub fn output_limit(mut self, bytes: u64) -> Self {
        self.0.output_limit = Some(bytes);
        self
    }

    /// Sets what the step may use; the engine's defaults stand where this sets none.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        let set = |kind: &LimitKind| Some((kind.name().to_owned(), limits.value(*kind)?));
        self.0.limits = LimitKind::ALL.iter().filter_map(set).collect();
        self
    }

    /// Sets the ids of the steps that must have ended before the step runs. Default: the step before it.
    #[must_use]
    pub fn after(mut self, ids: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.0.depends_on = Some(ids.into_iter().map(Into::into).collect());
        self
    }

    /// Makes the step depend on no other: it may begin at once.
    ///
    /// ```
    /// use splengine_core::{BatchRequest, Step};
    ///
    /// let both = BatchRequest::new()
    ///     .step(Step::new("make docs"))
    ///     .step(Step::new("make tests").independent())
    ///     .parallelism(2);
    /// # drop(both);
    /// ```
    #[must_use]
    pub fn independent(mut self) -> Self {
        self.0.depends_on = Some(Vec::new());
        self
    }

    /// Sets when the step runs, by how those have ended. Default: [`RunIf::Success`].
    #[must_use]
    pub fn run_if(mut self, run_if: RunIf) -> Self {
        self.0.run_if = run_if;
        self
    }

    /// Sets how many times more the step is run when it fails, at most 1000; all steps of a batch may be
    /// run 100,000 times together. Default 0.
    #[must_use]
    pub fn retries(mut self, count: u32) -> Self {
        self.0.retries = count;
        self
    }

    /// Sets the time to wait before the step is run again; twice as long each further time, at most
    /// an hour. Default: not at all.
    #[must_use]
    pub fn retry_delay(mut self, delay: Duration) -> Self {
        self.0.retry_delay = duration_millis(delay);
        self
    }

    /// Sets whether the step is run again if the engine ended while it ran, whatever it had done by
    /// then; this uses up none of its [`retries`](Self::retries). Default: no. It is then run again
    /// only if it has retries left and [`retry_on`](Self::retry_on) accepts the reason
    /// [`Reason::Lost`] or the exit code 125; else it has failed.
    #[must_use]
    pub fn rerun_on_restart(mut self, rerun: bool) -> Self {
        self.0.rerun_on_restart = rerun;
        self
    }

    /// Sets the failures after which the step is run again, as often as [`retries`](Self::retries) says.
    /// Default: after any.
    #[must_use]
    pub fn retry_on(mut self, failures: RetryOn) -> Self {
        self.0.retry_on = Some(failures);
        self
    }

    /// Sets whether the batch continues as if the step had succeeded when it fails, and does not fail
    /// with it. Default: no.
    #[must_use]
    pub fn allow_failure(mut self, allow: bool) -> Self {
        self.0.allow_failure = allow;
        self
    }

    /// Sets when the step's program and directory are looked for. Default: [`StepCheck::Early`] where
    /// it depends on no step, else [`StepCheck::Late`]. What no step can make, such as a directory
    /// outside root, is always refused early.
    #[must_use]
    pub fn check(mut self, check: StepCheck) -> Self {
        self.0.check = Some(check);
        self
    }

    /// Connects the step's standard input to the kept output of another step's last run on a stream. The
    /// step waits for that step as if it [depended](Self::after) on it, besides others. Where a part of
    /// the output was not kept, over its limit, the step fails and is not started. Default: none.
    #[must_use]
    pub fn stdin_from(mut self, step: impl Into<String>, stream: Stream) -> Self {
        let is_stderr = stream == Stream::Stderr;
        self.0.stdin_from = Some(StdinFrom { step: step.into(), is_stderr, ran_in: None });
        self
    }

    /// Keeps its standard input open while it runs, to be written by
    /// [`Batches::write_stdin`](crate::Batches::write_stdin). Default: it is not.
    #[must_use]
    pub fn open_stdin(mut self) -> Self {
        self.0.stdin_open = true;
        self
    }

    /// Returns the command of the step, as it was given; of an [`argv`](Self::argv) the first word, quoted
    /// where it has to be.
    #[must_use]
    pub fn command(&self) -> &str {
        self.0.command.text.as_deref().unwrap_or_default()
    }

    /// The id of the step in this place of a batch.
    pub(crate) fn id_at(&self, place: usize) -> String {
        self.0.id.clone().unwrap_or_else(|| (place + 1).to_string())
    }

    /// Whether this is the id of the step in this place.
    pub(crate) fn has_id_at(&self, id: &str, place: usize) -> bool {
        match &self.0.id {
            Some(own) => own == id,
            None => id.parse() == Ok(place + 1),
        }
    }

    /// The memory, in bytes, that what a caller gave for the step takes for as long as its batch is not
    /// over.
    pub(crate) fn input_bytes(&self) -> usize {
        let data = &self.0;
        let texts = |texts: &[String]| -> usize {
            texts.iter().map(|text| size_of::<String>() + PIECE_BYTES + text.len()).sum()
        };
        let command = &data.command;
        let variables = command.env.iter().map(|(name, value)| {
            size_of::<(String, String)>() + PIECE_BYTES + name.len() + value.len()
        });
        let codes = data.retry_on.as_ref().map_or(0, |on| on.exit_codes.len() * size_of::<i32>());
        PIECE_BYTES
            + [&command.text, &data.id, &command.workdir]
                .map(|text| text.as_ref().map_or(0, String::len))
                .iter()
                .sum::<usize>()
            + [&command.args, &data.mask, &data.env_names]
                .map(|list| texts(list))
                .iter()
                .sum::<usize>()
            // The record has them, too.
            + 2 * data.depends_on.as_deref().map_or(0, texts)
            + variables.sum::<usize>()
            + data.stdin.as_ref().map_or(0, Bytes::len)
            + codes
    }

    /// The same without variables and standard input, which are not for the record.
    pub(crate) fn without_inputs(&self) -> Self {
        let mut data = self.0.clone();
        let env = std::mem::take(&mut data.command.env);
        data.env_names = env.into_iter().map(|(name, _)| name).collect();
        Self(StepData { stdin: None, ..data })
    }

    /// As a request for one run.
    pub(crate) fn request(&self) -> Request {
        let data = &self.0;
        let mut request = Request::from(CommandSpec(data.command.clone()));
        request.timeout = data.timeout.map(Duration::from_millis);
        request.idle_timeout = data.idle_timeout.map(Duration::from_millis);
        request.mask = data.mask.clone();
        request.output_limit = data.output_limit;
        request.belongs_to = data.session_id.as_ref().and_then(|id| id.parse().ok());
        request.limits = LimitKind::ALL.iter().fold(Limits::default(), |limits, kind| {
            match data.limits.get(kind.name()) {
                Some(value) => limits.with(*kind, *value),
                None => limits,
            }
        });
        if let Some(stdin) = &data.stdin {
            request.stdin = Stdin::bytes(stdin.clone());
        }
        request
    }
}

command_builders!(Step, String, 0.command);

impl From<CommandSpec> for Step {
    fn from(spec: CommandSpec) -> Self {
        Self(StepData { command: spec.0, ..StepData::default() })
    }
}

/// About the memory of a small piece of what a step was given, beside its text: that of its allocations, and
/// of the copies that stand in the plan, the record and what is written.
const PIECE_BYTES: usize = 64;

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
