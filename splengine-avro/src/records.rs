//! The records of the protocol.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::datum::{Timestamp, records, symbols};

records! {
    /// A command to run: the protocol's frozen record.
    ///
    /// ```
    /// use splengine_avro::Command;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let command = Command {
    ///     command: "echo".to_owned(),
    ///     args: vec!["two words".to_owned()],
    ///     workdir: None,
    ///     session_id: None,
    /// };
    /// // As a message of Kafka's, without and with a schema registry.
    /// assert_eq!(Command::from_single_object(command.to_single_object())?, command);
    /// assert_eq!(Command::from_registry_form(command.to_registry_form(7))?, (7, command));
    /// # Ok(())
    /// # }
    /// ```
    #[expect(clippy::exhaustive_structs, reason = "the protocol froze it")]
    pub struct Command {
        /// The command, split into words as a POSIX shell would.
        pub command: String,
        /// Further words, verbatim.
        pub args: Vec<String>,
        /// Working directory, below root.
        pub workdir: Option<String>,
        /// The session in whose directory and environment to run it.
        pub session_id: Option<String>,
    }

    /// End of a command: the protocol's frozen record.
    #[expect(clippy::exhaustive_structs, reason = "the protocol froze it")]
    pub struct ExecutionResult {
        /// Exit code of the command, or the number that stands for another end.
        pub exit_code: i32,
        /// Standard output of the command, with U+FFFD for what is no UTF-8.
        pub stdout: String,
        /// Standard error of the command, with U+FFFD for what is no UTF-8.
        pub stderr: String,
        /// Duration of the execution, in milliseconds.
        pub duration: i64,
        /// The session that it belonged to.
        pub session_id: String,
    }

    pub(crate) struct BatchJob {
        pub(crate) commands: Vec<Command>,
        pub(crate) job_id: Option<String>,
        pub(crate) stop_on_error: bool,
        pub(crate) parallelism: i32,
        pub(crate) timeout_ms: Option<i64>,
        pub(crate) workdir: Option<String>,
        pub(crate) session_id: Option<String>,
        pub(crate) labels: BTreeMap<String, String>,
    }

    pub(crate) struct BatchResult {
        pub(crate) job_id: String,
        pub(crate) results: Vec<ExecutionResult>,
        pub(crate) succeeded: i32,
        pub(crate) failed: i32,
        pub(crate) skipped: i32,
        pub(crate) duration: i64,
    }

    pub(crate) struct EngineInfo {
        pub(crate) service: String,
        pub(crate) version: String,
        pub(crate) r#type: String,
        pub(crate) interfaces: BTreeMap<String, String>,
        pub(crate) capabilities: Vec<String>,
    }

    pub(crate) struct EngineError {
        pub(crate) code: ErrorCode,
        pub(crate) message: String,
        pub(crate) retryable: bool,
        pub(crate) details: BTreeMap<String, String>,
    }

    pub(crate) struct Limits {
        pub(crate) cpu_time: Option<i64>,
        pub(crate) memory: Option<i64>,
        pub(crate) open_files: Option<i64>,
        pub(crate) file_size: Option<i64>,
        pub(crate) processes: Option<i64>,
        pub(crate) address_space: Option<i64>,
    }

    pub(crate) struct RunRequest {
        pub(crate) command: String,
        pub(crate) args: Vec<String>,
        pub(crate) workdir: Option<String>,
        pub(crate) session_id: Option<String>,
        pub(crate) env: BTreeMap<String, String>,
        pub(crate) stdin: Option<Bytes>,
        pub(crate) timeout: Option<i64>,
        pub(crate) output_limit: Option<i64>,
        pub(crate) background: Background,
        pub(crate) limits: Option<Limits>,
        pub(crate) idle_timeout: Option<i64>,
        pub(crate) mask: Vec<String>,
        pub(crate) shell: bool,
    }

    pub(crate) struct RunResult {
        pub(crate) success: bool,
        pub(crate) exit_code: i32,
        pub(crate) stdout: Bytes,
        pub(crate) stderr: Bytes,
        pub(crate) duration: i64,
        pub(crate) session_id: String,
        pub(crate) reason: Reason,
        pub(crate) signal: Option<String>,
        pub(crate) stdout_bytes: i64,
        pub(crate) stderr_bytes: i64,
        pub(crate) stdout_truncated: bool,
        pub(crate) stderr_truncated: bool,
        pub(crate) stdout_gap: Option<i64>,
        pub(crate) stderr_gap: Option<i64>,
        pub(crate) cpu_time: Option<i64>,
        pub(crate) peak_memory: Option<i64>,
        pub(crate) processes: Option<i64>,
    }

    pub(crate) struct RetryOn {
        pub(crate) exit_codes: Vec<i32>,
        pub(crate) reasons: Vec<Reason>,
    }

    pub(crate) struct StdinFrom {
        pub(crate) step: String,
        pub(crate) stream: OutputStream,
    }

    pub(crate) struct Step {
        pub(crate) command: String,
        pub(crate) args: Vec<String>,
        pub(crate) workdir: Option<String>,
        pub(crate) env: BTreeMap<String, String>,
        pub(crate) stdin: Option<Bytes>,
        pub(crate) timeout: Option<i64>,
        pub(crate) output_limit: Option<i64>,
        pub(crate) background: Background,
        pub(crate) limits: Option<Limits>,
        pub(crate) id: Option<String>,
        pub(crate) depends_on: Option<Vec<String>>,
        pub(crate) run_if: RunIf,
        pub(crate) retries: i32,
        pub(crate) retry_delay: i64,
        pub(crate) rerun_on_restart: bool,
        pub(crate) idle_timeout: Option<i64>,
        pub(crate) mask: Vec<String>,
        pub(crate) shell: bool,
        pub(crate) retry_on: Option<RetryOn>,
        pub(crate) allow_failure: bool,
        pub(crate) check: Option<StepCheck>,
        pub(crate) stdin_from: Option<StdinFrom>,
        pub(crate) open_stdin: bool,
    }

    pub(crate) struct BatchRequest {
        pub(crate) steps: Vec<Step>,
        pub(crate) name: Option<String>,
        pub(crate) parallelism: Option<i32>,
        pub(crate) fail_fast: FailFast,
        pub(crate) workdir: Option<String>,
        pub(crate) session_id: Option<String>,
        pub(crate) idempotency_key: Option<String>,
        pub(crate) labels: BTreeMap<String, String>,
        pub(crate) timeout: Option<i64>,
    }

    pub(crate) struct StepCounts {
        pub(crate) total: i64,
        pub(crate) queued: i64,
        pub(crate) running: i64,
        pub(crate) retrying: i64,
        pub(crate) succeeded: i64,
        pub(crate) failed: i64,
        pub(crate) skipped: i64,
        pub(crate) cancelled: i64,
    }

    pub(crate) struct StepRecord {
        pub(crate) id: String,
        pub(crate) command: String,
        pub(crate) depends_on: Vec<String>,
        pub(crate) state: StepState,
        pub(crate) attempt: i32,
        pub(crate) reason: Option<Reason>,
        pub(crate) problem: Option<String>,
        pub(crate) exit_code: Option<i32>,
        pub(crate) signal: Option<String>,
        pub(crate) started: Option<Timestamp>,
        pub(crate) ended: Option<Timestamp>,
        pub(crate) duration: Option<i64>,
        pub(crate) stdout_bytes: i64,
        pub(crate) stderr_bytes: i64,
        pub(crate) stdout_truncated: bool,
        pub(crate) stderr_truncated: bool,
        pub(crate) args: Vec<String>,
        pub(crate) workdir: Option<String>,
        pub(crate) env: Vec<String>,
        pub(crate) allow_failure: bool,
        pub(crate) stdout_gap: Option<Gap>,
        pub(crate) stderr_gap: Option<Gap>,
        pub(crate) cpu_time: Option<i64>,
        pub(crate) peak_memory: Option<i64>,
        pub(crate) processes: Option<i64>,
    }

    pub(crate) struct Gap {
        pub(crate) at: i64,
        pub(crate) bytes: i64,
    }

    pub(crate) struct StepResult {
        pub(crate) batch_id: String,
        pub(crate) id: String,
        pub(crate) command: String,
        pub(crate) depends_on: Vec<String>,
        pub(crate) state: StepState,
        pub(crate) attempt: i32,
        pub(crate) reason: Option<Reason>,
        pub(crate) problem: Option<String>,
        pub(crate) exit_code: Option<i32>,
        pub(crate) signal: Option<String>,
        pub(crate) started: Option<Timestamp>,
        pub(crate) ended: Option<Timestamp>,
        pub(crate) duration: Option<i64>,
        pub(crate) stdout: Bytes,
        pub(crate) stderr: Bytes,
        pub(crate) stdout_bytes: i64,
        pub(crate) stderr_bytes: i64,
        pub(crate) stdout_truncated: bool,
        pub(crate) stderr_truncated: bool,
        pub(crate) stdout_gap: Option<i64>,
        pub(crate) stderr_gap: Option<i64>,
    }

    pub(crate) struct BatchInfo {
        pub(crate) batch_id: String,
        pub(crate) user: String,
        pub(crate) name: Option<String>,
        pub(crate) state: BatchState,
        pub(crate) created: Timestamp,
        pub(crate) started: Option<Timestamp>,
        pub(crate) ended: Option<Timestamp>,
        pub(crate) counts: StepCounts,
        pub(crate) exit_code: i32,
        pub(crate) rerun_of: Option<String>,
        pub(crate) last_event: i64,
        pub(crate) labels: BTreeMap<String, String>,
        pub(crate) timeout: Option<i64>,
        pub(crate) duration: Option<i64>,
    }

    pub(crate) struct BatchRecord {
        pub(crate) batch: BatchInfo,
        pub(crate) steps: Vec<StepRecord>,
    }

    pub(crate) struct BatchPage {
        pub(crate) batches: Vec<BatchInfo>,
        pub(crate) next_cursor: Option<String>,
    }

    pub(crate) struct BatchEvent {
        pub(crate) seq: i64,
        pub(crate) time: Timestamp,
        pub(crate) event: String,
        pub(crate) step: Option<String>,
        pub(crate) attempt: Option<i32>,
        pub(crate) problem: Option<String>,
        pub(crate) result: Option<StepRecord>,
        pub(crate) state: Option<BatchState>,
        pub(crate) exit_code: Option<i32>,
    }

    pub(crate) struct EventPage {
        pub(crate) events: Vec<BatchEvent>,
        pub(crate) next: i64,
        pub(crate) over: bool,
    }

    pub(crate) struct OutputPart {
        pub(crate) data: Bytes,
        pub(crate) next: i64,
        pub(crate) over: bool,
        pub(crate) attempt: i32,
    }

    pub(crate) struct SessionRequest {
        pub(crate) command: Option<String>,
        pub(crate) args: Vec<String>,
        pub(crate) workdir: Option<String>,
        pub(crate) env: BTreeMap<String, String>,
        pub(crate) cols: Option<i32>,
        pub(crate) rows: Option<i32>,
        pub(crate) name: Option<String>,
    }

    pub(crate) struct SessionInfo {
        pub(crate) session_id: String,
        pub(crate) user: String,
        pub(crate) name: Option<String>,
        pub(crate) title: String,
        pub(crate) created: Timestamp,
        pub(crate) last_activity: Timestamp,
        pub(crate) cols: i32,
        pub(crate) rows: i32,
        pub(crate) workdir: Option<String>,
        pub(crate) clients: i32,
        pub(crate) state: SessionState,
        pub(crate) exit_code: Option<i32>,
        pub(crate) signal: Option<String>,
    }

    pub(crate) struct SessionOutput {
        pub(crate) epoch: String,
        pub(crate) offset: i64,
        pub(crate) next: i64,
        pub(crate) data: Bytes,
        pub(crate) screen: bool,
        pub(crate) session: SessionInfo,
        pub(crate) over: bool,
    }

    pub(crate) struct SavedSession {
        pub(crate) saved_id: String,
        pub(crate) session_id: String,
        pub(crate) name: Option<String>,
        pub(crate) created: Timestamp,
        pub(crate) cols: i32,
        pub(crate) rows: i32,
        pub(crate) workdir: Option<String>,
    }

    pub(crate) struct FileStatus {
        pub(crate) kind: FileKind,
        pub(crate) size: i64,
        pub(crate) modified: Timestamp,
        pub(crate) mode: i32,
    }

    pub(crate) struct FileChunk {
        pub(crate) data: Bytes,
        pub(crate) offset: i64,
        pub(crate) size: i64,
        pub(crate) at_end: bool,
    }
}

symbols! {
    pub(crate) enum ErrorCode {
        Unknown = "UNKNOWN",
        InvalidRequest = "INVALID_REQUEST",
        UnknownCommand = "UNKNOWN_COMMAND",
        SessionNotFound = "SESSION_NOT_FOUND",
        Unauthenticated = "UNAUTHENTICATED",
        PermissionDenied = "PERMISSION_DENIED",
        DeadlineExceeded = "DEADLINE_EXCEEDED",
        ResourceExhausted = "RESOURCE_EXHAUSTED",
        Cancelled = "CANCELLED",
        Unavailable = "UNAVAILABLE",
        Internal = "INTERNAL",
        NotFound = "NOT_FOUND",
        Conflict = "CONFLICT",
    }

    pub(crate) enum Background {
        Kill = "kill",
        Keep = "keep",
    }

    pub(crate) enum Reason {
        Unknown = "unknown",
        Exited = "exited",
        Signaled = "signaled",
        TimedOut = "timedOut",
        Cancelled = "cancelled",
        OutOfMemory = "outOfMemory",
        Lost = "lost",
    }

    pub(crate) enum RunIf {
        Success = "success",
        Failure = "failure",
        Always = "always",
    }

    pub(crate) enum StepCheck {
        Early = "early",
        Late = "late",
    }

    pub(crate) enum FailFast {
        Never = "never",
        Soon = "soon",
        Now = "now",
    }

    pub(crate) enum BatchState {
        Unknown = "unknown",
        Queued = "queued",
        Running = "running",
        Succeeded = "succeeded",
        Failed = "failed",
        Cancelled = "cancelled",
    }

    pub(crate) enum StepState {
        Unknown = "unknown",
        Queued = "queued",
        Running = "running",
        Retrying = "retrying",
        Succeeded = "succeeded",
        Failed = "failed",
        Skipped = "skipped",
        Cancelled = "cancelled",
    }

    pub(crate) enum OutputStream {
        Stdout = "stdout",
        Stderr = "stderr",
    }

    pub(crate) enum FileKind {
        Other = "other",
        File = "file",
        Directory = "directory",
        Link = "link",
    }

    pub(crate) enum SessionState {
        Unknown = "unknown",
        Running = "running",
        Exited = "exited",
        Lost = "lost",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::datum::{Fields, Symbols as _};
    use crate::protocol;

    /// The types of the protocol, by their names.
    fn types() -> BTreeMap<String, Value> {
        let protocol: Value = serde_json::from_str(protocol::text()).expect("JSON");
        let types = protocol["types"].as_array().expect("an array").iter();
        types
            .map(|each| (each["name"].as_str().expect("a name").to_owned(), each.clone()))
            .collect()
    }

    fn in_camel_case(name: &str) -> String {
        let mut words = name.trim_start_matches("r#").split('_');
        let first = words.next().unwrap_or_default().to_owned();
        words.fold(first, |text, word| text + &word[..1].to_uppercase() + &word[1..])
    }

    fn matches<T: Fields>(types: &mut BTreeMap<String, Value>) {
        let declared = types.remove(T::NAME).unwrap_or_else(|| panic!("{} is declared", T::NAME));
        let declared: Vec<(String, Value)> = declared["fields"]
            .as_array()
            .expect("an array")
            .iter()
            .map(|field| {
                (field["name"].as_str().expect("a name").to_owned(), field["type"].clone())
            })
            .collect();
        let ours: Vec<_> =
            T::fields().into_iter().map(|(name, schema)| (in_camel_case(name), schema)).collect();
        assert_eq!(ours, declared, "{}", T::NAME);
    }

    #[test]
    fn every_type_is_as_the_protocol_has_it() {
        let mut types = types();
        matches::<Command>(&mut types);
        matches::<ExecutionResult>(&mut types);
        matches::<BatchJob>(&mut types);
        matches::<BatchResult>(&mut types);
        matches::<EngineInfo>(&mut types);
        matches::<EngineError>(&mut types);
        matches::<Limits>(&mut types);
        matches::<RunRequest>(&mut types);
        matches::<RunResult>(&mut types);
        matches::<RetryOn>(&mut types);
        matches::<StdinFrom>(&mut types);
        matches::<Gap>(&mut types);
        matches::<Step>(&mut types);
        matches::<BatchRequest>(&mut types);
        matches::<StepCounts>(&mut types);
        matches::<StepRecord>(&mut types);
        matches::<StepResult>(&mut types);
        matches::<BatchInfo>(&mut types);
        matches::<BatchRecord>(&mut types);
        matches::<BatchPage>(&mut types);
        matches::<BatchEvent>(&mut types);
        matches::<EventPage>(&mut types);
        matches::<OutputPart>(&mut types);
        matches::<SessionRequest>(&mut types);
        matches::<SessionInfo>(&mut types);
        matches::<SessionOutput>(&mut types);
        matches::<SavedSession>(&mut types);
        matches::<FileStatus>(&mut types);
        matches::<FileChunk>(&mut types);
        let mut enums = |name: &str, ours: Vec<&str>| {
            let declared = types.remove(name).unwrap_or_else(|| panic!("{name} is declared"));
            assert_eq!(declared["symbols"], serde_json::json!(ours), "{name}");
        };
        macro_rules! same {
            ($($name:ident)*) => {$(
                enums(stringify!($name), $name::ALL.iter().map(|each| each.symbol()).collect());
            )*};
        }
        same!(ErrorCode Background Reason RunIf StepCheck FailFast BatchState StepState OutputStream SessionState FileKind);
        assert_eq!(types.keys().collect::<Vec<_>>(), Vec::<&String>::new(), "no type is left");
    }
}
