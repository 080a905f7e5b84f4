//! The wire types. Core types are not serialised; these are.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use splengine_core::engine::ExecutionInfo;
use splengine_core::execute::{Background, Gap, SlowReader, Stream};
use splengine_core::{End, Request};
use utoipa::ToSchema;

use crate::bounded;
use crate::dto_sessions::rfc3339;

/// A command to run.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object with `command`")]
#[schema(as = ExecuteRequest)]
pub(crate) struct ExecuteRequestDto {
    /// The command. Split into words as a POSIX shell would (quotes and backslashes, no expansion
    /// of anything); never given to a shell, unless `shell` says so. Unquoted `;` `&` `|` `<` `>`,
    /// backtick, `$(` and line ends are refused in it, since who writes them expects a shell.
    #[schema(example = "data transform")]
    pub(crate) command: String,
    /// Has the command run by a shell, where that is allowed here and the caller may have sessions;
    /// `args` follow it as `"$@"`. `false` when left out.
    pub(crate) shell: Option<bool>,
    /// Further words, taken verbatim.
    #[serde(default, deserialize_with = "bounded::list::<{ Request::MAX_ARGS }, _, _>")]
    pub(crate) args: Option<Vec<String>>,
    /// Where to run it, below root; root itself when left out.
    pub(crate) workdir: Option<String>,
    /// Runs it in this session's present directory and environment.
    pub(crate) session_id: Option<String>,
    /// Variables for its environment.
    #[serde(default, deserialize_with = "bounded::map::<{ Request::MAX_VARIABLES }, _, _>")]
    pub(crate) env: Option<BTreeMap<String, String>>,
    /// What it reads on standard input; nothing when left out.
    pub(crate) stdin: Option<String>,
    /// How `stdin` is encoded; `utf8` when left out.
    pub(crate) stdin_encoding: Option<EncodingDto>,
    /// How long it may run, in milliseconds.
    #[schema(minimum = 1)]
    pub(crate) timeout: Option<u64>,
    /// How long it may print nothing, in milliseconds; over it, it is ended as `timedOut`.
    #[schema(minimum = 1)]
    pub(crate) idle_timeout: Option<u64>,
    /// Names of variables, of `env` or the session, whose values are replaced by `***` in the output.
    #[serde(
        default,
        deserialize_with = "bounded::list::<{ Request::MAX_MASKED_VARIABLES }, _, _>"
    )]
    pub(crate) mask: Option<Vec<String>>,
    /// How many bytes of each output stream to keep. Over it the run goes on; the first and the
    /// last half are kept.
    pub(crate) output_limit: Option<u64>,
    /// How the output is encoded; `utf8` when left out, with each bad sequence replaced by U+FFFD.
    pub(crate) output_encoding: Option<EncodingDto>,
    /// What becomes of background processes when it exits; `kill` when left out.
    pub(crate) background: Option<BackgroundDto>,
    /// What it may use.
    pub(crate) limits: Option<LimitsDto>,
    /// Of a stream: what to do when it is read too slowly; `wait` when left out.
    pub(crate) slow_reader: Option<SlowReaderDto>,
    /// Runs it as a batch of one step, and answers at once.
    #[serde(rename = "async")]
    pub(crate) asynchronous: Option<bool>,
}

/// How bytes are put into text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Encoding)]
pub(crate) enum EncodingDto {
    #[default]
    Utf8,
    Base64,
}

/// What becomes of background processes.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Background)]
pub(crate) enum BackgroundDto {
    Kill,
    Keep,
}

impl From<BackgroundDto> for Background {
    fn from(dto: BackgroundDto) -> Self {
        match dto {
            BackgroundDto::Kill => Self::Kill,
            BackgroundDto::Keep => Self::Keep,
        }
    }
}

/// What to do when a stream is read too slowly.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = SlowReader)]
pub(crate) enum SlowReaderDto {
    /// The program waits.
    Wait,
    /// The program goes on; what could not be sent is lost, and an event `lost` tells how much.
    Lose,
}

impl From<SlowReaderDto> for SlowReader {
    fn from(dto: SlowReaderDto) -> Self {
        match dto {
            SlowReaderDto::Wait => Self::Wait,
            SlowReaderDto::Lose => Self::Lose,
        }
    }
}

/// Bounds on what a run may use. One that can't be enforced here is refused.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object of limits")]
#[schema(as = Limits)]
pub(crate) struct LimitsDto {
    /// Processor time in milliseconds.
    pub(crate) cpu_time: Option<u64>,
    /// Bytes of memory that the whole run uses.
    pub(crate) memory: Option<u64>,
    /// Open files of each process.
    pub(crate) open_files: Option<u64>,
    /// Processes and threads of the whole run.
    pub(crate) processes: Option<u64>,
    /// Bytes of any file written.
    pub(crate) file_size: Option<u64>,
    /// Bytes of address space of each process; many programs reserve far more than they use.
    pub(crate) address_space: Option<u64>,
}

/// How a run ended.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ExecuteEnd)]
pub(crate) struct EndDto {
    /// Whether it exited by itself with code 0.
    success: bool,
    /// Its own exit code, or the one that stands for `reason`.
    exit_code: i32,
    /// From its start to its end, in milliseconds.
    duration: u64,
    /// The value that it found in `SPL_SESSION_ID`.
    session_id: String,
    /// Why it ended.
    #[schema(value_type = ReasonDto)]
    reason: &'static str,
    /// The signal that ended it, such as `SIGSEGV`.
    #[schema(required = true)]
    signal: Option<String>,
    /// All that it wrote to standard output, in bytes.
    stdout_bytes: u64,
    /// All that it wrote to standard error, in bytes.
    stderr_bytes: u64,
    /// Whether a part of standard output was left out.
    stdout_truncated: bool,
    /// Whether a part of standard error was left out.
    stderr_truncated: bool,
    /// Which part of standard output was left out.
    #[schema(required = true)]
    stdout_gap: Option<GapDto>,
    /// Which part of standard error was left out.
    #[schema(required = true)]
    stderr_gap: Option<GapDto>,
    /// The processor time that it used, in milliseconds; null where that is not known.
    #[schema(required = true)]
    cpu_time: Option<u64>,
    /// The most memory that one of its processes had, in bytes; null where that is not known, as of one
    /// that has less than this server.
    #[schema(required = true)]
    peak_memory: Option<u64>,
    /// The most processes and threads that it had at once; null where that is not known.
    #[schema(required = true)]
    processes: Option<u64>,
}

/// A part of a stream that was left out; at line ends, where there are any.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = Gap)]
pub(crate) struct GapDto {
    /// After so many bytes of what was kept.
    at: u64,
    /// How many bytes are missing.
    bytes: u64,
}

impl From<Gap> for GapDto {
    fn from(gap: Gap) -> Self {
        Self { at: gap.at, bytes: gap.bytes }
    }
}

/// Why a run ended.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Reason)]
#[expect(dead_code, reason = "describes core's enum to the OpenAPI document; a test compares them")]
pub(crate) enum ReasonDto {
    Exited,
    Signaled,
    TimedOut,
    Cancelled,
    OutOfMemory,
    Lost,
}

impl EndDto {
    pub(crate) fn new(end: &End, session_id: &str) -> Self {
        Self {
            success: end.success(),
            exit_code: end.exit_code,
            duration: millis(end.duration),
            session_id: session_id.to_owned(),
            reason: end.reason.name(),
            signal: end.signal.map(|signal| signal.to_string()),
            stdout_bytes: end.stdout_bytes,
            stderr_bytes: end.stderr_bytes,
            stdout_truncated: end.stdout_truncated,
            stderr_truncated: end.stderr_truncated,
            stdout_gap: end.stdout_gap.map(Into::into),
            stderr_gap: end.stderr_gap.map(Into::into),
            cpu_time: end.usage.cpu_time.map(millis),
            peak_memory: end.usage.peak_memory,
            processes: end.usage.processes,
        }
    }

    /// Why it was no success, in words.
    pub(crate) fn failure(&self) -> Option<String> {
        (!self.success).then(|| match (self.reason, &self.signal) {
            ("exited", _) => format!("the command exited with code {}", self.exit_code),
            ("timedOut", _) => "the command ran out of its time".to_owned(),
            ("signaled", Some(signal)) => format!("the command was ended by {signal}"),
            ("outOfMemory", _) => "the command ran out of memory".to_owned(),
            ("cancelled", _) => "the command was cancelled".to_owned(),
            _ => "what became of the command is not known".to_owned(),
        })
    }
}

/// A run: its output and how it ended.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ExecuteResult)]
pub(crate) struct ExecuteResultDto {
    #[serde(flatten)]
    pub(crate) end: EndDto,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
    /// With `failStatus`, why it was no success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// An event of a streamed run: a line of NDJSON, or the data of a server-sent event. `event` and
/// `type` say the same: the one is what server-sent events call it, the other what the terminal's
/// frames do. `seq` counts over all events of the run, from 0.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = ExecuteEvent)]
pub(crate) enum EventDto {
    Queued(QueuedDto),
    Started(StartedDto),
    Output(OutputDto),
    Lost(LostDto),
    Exit(ExitDto),
}

/// The first event of a run that waits: there is no place for it yet.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = QueuedEvent)]
pub(crate) struct QueuedDto {
    pub(crate) event: QueuedName,
    #[serde(rename = "type")]
    pub(crate) kind: QueuedName,
    pub(crate) seq: u64,
    /// The value that the program will find in `SPL_SESSION_ID`.
    pub(crate) session_id: String,
    /// By which it can be cancelled.
    pub(crate) execution_id: String,
}

/// The program runs: the first event, but for `queued`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = StartedEvent)]
pub(crate) struct StartedDto {
    pub(crate) event: StartedName,
    #[serde(rename = "type")]
    pub(crate) kind: StartedName,
    pub(crate) seq: u64,
    /// The value that the program finds in `SPL_SESSION_ID`.
    pub(crate) session_id: String,
    /// By which it can be cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) execution_id: Option<String>,
}

/// It printed something.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OutputEvent)]
pub(crate) struct OutputDto {
    pub(crate) event: StreamName,
    #[serde(rename = "type")]
    pub(crate) kind: StreamName,
    pub(crate) seq: u64,
    /// What it printed. Never ends inside a character.
    pub(crate) data: String,
}

/// Here a part of its output is missing.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LostEvent)]
pub(crate) struct LostDto {
    pub(crate) event: LostName,
    #[serde(rename = "type")]
    pub(crate) kind: LostName,
    pub(crate) seq: u64,
    pub(crate) stream: StreamName,
    /// How much is missing.
    pub(crate) bytes: u64,
}

/// The last event: how it ended.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ExitEvent)]
pub(crate) struct ExitDto {
    pub(crate) event: ExitName,
    #[serde(rename = "type")]
    pub(crate) kind: ExitName,
    pub(crate) seq: u64,
    #[serde(flatten)]
    pub(crate) end: EndDto,
    /// Why it could not be started, once it had waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum QueuedName {
    Queued,
}

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StartedName {
    Started,
}

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StreamName {
    Stdout,
    Stderr,
}

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LostName {
    Lost,
}

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ExitName {
    Exit,
}

impl From<Stream> for StreamName {
    fn from(stream: Stream) -> Self {
        if stream == Stream::Stderr { Self::Stderr } else { Self::Stdout }
    }
}

/// In milliseconds.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl EventDto {
    /// The event's name, and its place in the order of events.
    pub(crate) fn head(&self) -> (&'static str, u64) {
        match self {
            Self::Queued(QueuedDto { seq, .. }) => ("queued", *seq),
            Self::Started(StartedDto { seq, .. }) => ("started", *seq),
            Self::Output(OutputDto { kind: StreamName::Stdout, seq, .. }) => ("stdout", *seq),
            Self::Output(OutputDto { kind: StreamName::Stderr, seq, .. }) => ("stderr", *seq),
            Self::Lost(LostDto { seq, .. }) => ("lost", *seq),
            Self::Exit(ExitDto { seq, .. }) => ("exit", *seq),
        }
    }
}

/// An execution that runs or waits.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Execution)]
pub(crate) struct ExecutionDto {
    execution_id: String,
    /// Whose it is.
    user: String,
    /// The command, its first 1000 characters.
    command: String,
    /// Its further words, their first 1000 characters in all.
    args: Vec<String>,
    /// `queued` or `running`.
    state: &'static str,
    /// When it was asked for.
    created: String,
    /// When it got its place; null while it waits.
    #[schema(required = true)]
    started: Option<String>,
}

impl From<ExecutionInfo> for ExecutionDto {
    fn from(info: ExecutionInfo) -> Self {
        Self {
            execution_id: info.id.to_string(),
            user: info.user.to_string(),
            command: info.command,
            args: info.args,
            state: info.state.name(),
            created: rfc3339(info.created),
            started: info.started.map(rfc3339),
        }
    }
}

/// What runs or waits.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ExecutionList)]
pub(crate) struct ExecutionListDto {
    /// The oldest first.
    pub(crate) executions: Vec<ExecutionDto>,
}

/// Who asks, and what they may do.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Identity)]
pub(crate) struct IdentityDto {
    pub(crate) user: String,
    pub(crate) scopes: Vec<&'static str>,
    pub(crate) roles: Vec<String>,
}

/// What this server is, and what is switched on.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ServiceDefinition)]
pub(crate) struct ServiceDto {
    /// The service's name.
    pub(crate) service: &'static str,
    /// Its version.
    pub(crate) version: &'static str,
    /// What sort of service it is.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// The servers that are open, and where.
    pub(crate) interfaces: BTreeMap<String, String>,
    /// What is switched on and enforced here.
    pub(crate) capabilities: Vec<String>,
}

/// The state of the server.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Status)]
pub(crate) struct StatusDto {
    /// `healthy`, `ready`, `draining` or `failing`; of a part also `degraded`: it takes work, but
    /// something that was kept before can't be read.
    pub(crate) status: &'static str,
    /// Why it fails, or what is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'static str>,
}

/// Whether the server takes work.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Readiness)]
pub(crate) struct ReadinessDto {
    #[serde(flatten)]
    pub(crate) status: StatusDto,
    /// With `verbose`: each part's state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) parts: Option<BTreeMap<&'static str, StatusDto>>,
}
