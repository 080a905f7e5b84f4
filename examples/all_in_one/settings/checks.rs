//! Settings that can each be, but not together, or that would leave nothing to serve.

use super::{Settings, UsageError};
use crate::file::File;

/// As many processes as Linux can have, and so as many runs.
const MAX_RUNS: u64 = 4_194_304;

type Value = Option<u64>;

/// A setting of the file: its table, its key and what was given.
struct Given<'a>(&'a str, &'a str, Value);

impl Given<'_> {
    fn wrong(&self, problem: &str) -> UsageError {
        let Self(table, key, value) = self;
        UsageError::new(&format!("[{table}] {key} = {}", value.unwrap_or_default()), problem)
    }
}

/// Checks what the tables of the file bound against each other.
pub(super) fn file(file: &File) -> Result<(), UsageError> {
    for setting in positive(file) {
        if setting.2 == Some(0) {
            return Err(setting.wrong("is too little: it takes at least 1"));
        }
    }
    let runs = Given("limits", "max-running", wide(file.limits.max_running));
    if runs.2.is_some_and(|count| count > MAX_RUNS) {
        return Err(runs.wrong(&format!("is too much: {MAX_RUNS} at most")));
    }
    for (part, whole, default) in pairs(file) {
        let Some(value) = part.2 else { continue };
        let bound = whole.2.or(default);
        if let Some(bound) = bound.filter(|bound| value > *bound) {
            let by_default = if whole.2.is_none() { " by default" } else { "" };
            let problem = format!("is more than `{}`, which is {bound}{by_default}", whole.1);
            return Err(part.wrong(&problem));
        }
    }
    Ok(())
}

fn wide(count: Option<usize>) -> Value {
    count.and_then(|count| u64::try_from(count).ok())
}

/// Those of which 0 would leave nothing.
fn positive(file: &File) -> Vec<Given<'static>> {
    let (limits, sessions, batches) = (&file.limits, &file.sessions, &file.batches);
    vec![
        Given("http", "max-body", wide(file.http.max_body)),
        Given("http", "max-buffered", wide(file.http.max_buffered)),
        Given("ws", "max-clients", wide(file.ws.max_clients)),
        Given("avro", "max-frame", wide(file.avro.max_frame)),
        Given("limits", "max-running", wide(limits.max_running)),
        Given("limits", "max-running-per-caller", wide(limits.max_running_per_caller)),
        Given("limits", "timeout", limits.timeout),
        Given("limits", "max-timeout", limits.max_timeout),
        Given("sessions", "max", wide(sessions.max)),
        Given("sessions", "max-per-caller", wide(sessions.max_per_caller)),
        Given("sessions", "max-clients", wide(sessions.max_clients)),
        Given("batches", "max-steps", wide(batches.max_steps)),
        Given("batches", "max-open-steps", wide(batches.max_open_steps)),
        Given("batches", "max-open-steps-per-caller", wide(batches.max_open_steps_per_caller)),
        Given("batches", "parallelism", wide(batches.parallelism)),
        Given("batches", "max-parallelism", wide(batches.max_parallelism)),
    ]
}

type Pair = (Given<'static>, Given<'static>, Value);

/// A part, the whole that it is of, and what that is where it is not given.
fn pairs(file: &File) -> Vec<Pair> {
    let (limits, sessions, batches) = (&file.limits, &file.sessions, &file.batches);
    let guessing = &file.guessing;
    let pair = |table, part: (&'static str, Value), whole: (&'static str, Value), default| {
        (Given(table, part.0, part.1), Given(table, whole.0, whole.1), default)
    };
    let counts = |table, part: (&'static str, _), whole: (&'static str, _), default| {
        pair(table, (part.0, wide(part.1)), (whole.0, wide(whole.1)), Some(default))
    };
    vec![
        counts(
            "limits",
            ("max-running-per-caller", limits.max_running_per_caller),
            ("max-running", limits.max_running),
            64,
        ),
        counts(
            "limits",
            ("max-waiting-per-caller", limits.max_waiting_per_caller),
            ("max-waiting", limits.max_waiting),
            1024,
        ),
        counts(
            "limits",
            ("max-input-bytes-per-caller", limits.max_input_bytes_per_caller),
            ("max-input-bytes", limits.max_input_bytes),
            64 << 20,
        ),
        pair(
            "limits",
            ("timeout", limits.timeout),
            ("max-timeout", limits.max_timeout),
            Some(86_400_000),
        ),
        pair(
            "limits",
            ("output", limits.output),
            ("max-output", limits.max_output),
            Some(64 << 20),
        ),
        pair("limits", ("cpu-time", limits.cpu_time), ("max-cpu-time", limits.max_cpu_time), None),
        pair("limits", ("memory", limits.memory), ("max-memory", limits.max_memory), None),
        pair(
            "limits",
            ("processes", limits.processes),
            ("max-processes", limits.max_processes),
            None,
        ),
        pair(
            "limits",
            ("open-files", limits.open_files),
            ("max-open-files", limits.max_open_files),
            None,
        ),
        pair(
            "limits",
            ("file-size", limits.file_size),
            ("max-file-size", limits.max_file_size),
            None,
        ),
        pair(
            "limits",
            ("address-space", limits.address_space),
            ("max-address-space", limits.max_address_space),
            None,
        ),
        counts("sessions", ("max-per-caller", sessions.max_per_caller), ("max", sessions.max), 256),
        counts(
            "sessions",
            ("max-command-bytes-per-caller", sessions.max_command_bytes_per_caller),
            ("max-command-bytes", sessions.max_command_bytes),
            64 << 20,
        ),
        counts(
            "batches",
            ("max-open-steps-per-caller", batches.max_open_steps_per_caller),
            ("max-open-steps", batches.max_open_steps),
            200_000,
        ),
        counts(
            "batches",
            ("max-steps", batches.max_steps),
            ("max-open-steps", batches.max_open_steps),
            200_000,
        ),
        counts(
            "batches",
            ("max-open-bytes-per-caller", batches.max_open_bytes_per_caller),
            ("max-open-bytes", batches.max_open_bytes),
            64 << 20,
        ),
        counts(
            "batches",
            ("parallelism", batches.parallelism),
            ("max-parallelism", batches.max_parallelism),
            1024,
        ),
        counts(
            "batches",
            ("keep-count-per-caller", batches.keep_count_per_caller),
            ("keep-count", batches.keep_count),
            100_000,
        ),
        pair(
            "batches",
            ("keep-bytes-per-caller", batches.keep_bytes_per_caller),
            ("keep-bytes", batches.keep_bytes),
            Some(10 << 30),
        ),
        pair(
            "guessing",
            ("threshold", guessing.threshold),
            ("max-penalty", guessing.max_penalty),
            Some(60_000),
        ),
    ]
}

impl Settings {
    /// Checks that there is a server, and warns if no user can log in over SSH, or the keys are of no use.
    pub(super) fn check_servers(&self, asks_for_ssh: bool) -> Result<(), UsageError> {
        let has_keys = self.authorized_keys.is_some()
            || self.ssh_table.trusted_ca.is_some()
            || self.ssh_table.passwords.is_some();
        if [&self.http, &self.ws, &self.ssh, &self.avro].iter().all(|server| server.is_none()) {
            let problem = "all servers are `off`; at least one takes an address";
            return Err(UsageError::new("--http, --ws, --ssh and --avro", problem));
        }
        if self.ssh.is_some() && asks_for_ssh && !has_keys {
            tracing::warn!(
                "nobody can log in to the SSH server: set --authorized-keys, or `trusted-ca` or `passwords` \
                 below [ssh]"
            );
        }
        if self.ssh.is_none() && has_keys {
            tracing::warn!(
                "the SSH server is `off`: authorized keys, certificates and passwords let nobody in"
            );
        }
        Ok(())
    }
}
