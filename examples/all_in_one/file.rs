//! The file of `--config`.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use splengine_core::ConnectionLimits;

use crate::own_files;
use crate::settings::UsageError;
use crate::tokens;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct File {
    pub(crate) root: Option<PathBuf>,
    pub(crate) shell: Option<String>,
    #[serde(default, deserialize_with = "text_or_table")]
    pub(crate) http: HttpTable,
    #[serde(default, deserialize_with = "text_or_table")]
    pub(crate) ws: WsTable,
    #[serde(default, deserialize_with = "text_or_table")]
    pub(crate) ssh: SshTable,
    #[serde(default, deserialize_with = "text_or_table")]
    pub(crate) avro: AvroTable,
    #[serde(default)]
    pub(crate) token: Vec<String>,
    pub(crate) tokens: Option<PathBuf>,
    pub(crate) authorized_keys: Option<PathBuf>,
    pub(crate) anonymous: Option<String>,
    /// By their names; `*` is whoever is not named.
    #[serde(default)]
    pub(crate) users: BTreeMap<String, UserTable>,
    pub(crate) grace: Option<u64>,
    #[serde(default, deserialize_with = "text_or_table")]
    pub(crate) program: ProgramTable,
    #[serde(default)]
    pub(crate) commands: CommandsTable,
    #[serde(default)]
    pub(crate) limits: LimitsTable,
    #[serde(default)]
    pub(crate) environment: EnvironmentTable,
    #[serde(default)]
    pub(crate) cgroup: CgroupTable,
    #[serde(default)]
    pub(crate) sessions: SessionsTable,
    #[serde(default)]
    pub(crate) batches: BatchesTable,
    #[serde(default)]
    pub(crate) connections: ConnectionsTable,
    #[serde(default)]
    pub(crate) disk: DiskTable,
    #[serde(default)]
    pub(crate) files: FilesTable,
    #[serde(default)]
    pub(crate) guessing: GuessingTable,
    /// As it stands there, without what is read again while the server runs.
    #[serde(skip)]
    fixed: toml::Table,
}

/// `[users.NAME]`
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct UserTable {
    pub(crate) scopes: Vec<String>,
}

/// `http = "ADDR"` for short.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct HttpTable {
    pub(crate) address: Option<String>,
    #[serde(default)]
    pub(crate) allow_origins: Vec<String>,
    pub(crate) max_connections: Option<NonZeroU32>,
    /// Milliseconds.
    pub(crate) header_timeout: Option<NonZeroU64>,
    /// Milliseconds.
    pub(crate) keep_alive_timeout: Option<NonZeroU64>,
    /// Bytes.
    pub(crate) max_body: Option<usize>,
    /// Bytes of all bodies together that are being read.
    pub(crate) max_buffered: Option<usize>,
}

/// `ws = "ADDR"` for short.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct WsTable {
    pub(crate) address: Option<String>,
    #[serde(default)]
    pub(crate) allow_origins: Vec<String>,
    pub(crate) max_clients: Option<usize>,
    /// Where people find the console, when that is not the address: behind a proxy.
    pub(crate) public_url: Option<String>,
}

/// `avro = "ADDR"` for short.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct AvroTable {
    pub(crate) address: Option<String>,
    pub(crate) max_connections: Option<NonZeroU32>,
    /// Bytes.
    pub(crate) max_frame: Option<usize>,
    /// A file of certificates in PEM; with it TLS is served, too.
    pub(crate) certificates: Option<PathBuf>,
    /// The file of their private key in PEM.
    pub(crate) private_key: Option<PathBuf>,
    /// Whether clients without TLS are served beside those with it; true when left out.
    pub(crate) plain_text: Option<bool>,
}

/// `ssh = "ADDR"` for short.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct SshTable {
    pub(crate) address: Option<String>,
    /// Files of ed25519 keys; one that is not there is made.
    #[serde(default)]
    pub(crate) host_keys: Vec<PathBuf>,
    /// A file of the public keys of authorities that sign users' certificates.
    pub(crate) trusted_ca: Option<PathBuf>,
    /// A file of keys that let nobody in.
    pub(crate) revoked_keys: Option<PathBuf>,
    /// A file of `user:$argon2id$…`; with it passwords are taken.
    pub(crate) passwords: Option<PathBuf>,
    /// Files of certificates of the host keys.
    #[serde(default)]
    pub(crate) host_certificates: Vec<PathBuf>,
    #[serde(default)]
    pub(crate) algorithms: AlgorithmsTable,
    #[serde(default)]
    pub(crate) signals: SignalsWord,
    /// Whether the old protocol of scp is served; true when left out.
    pub(crate) scp: Option<bool>,
    /// `HOST:PORT`s and paths of sockets that connections are forwarded to.
    #[serde(default)]
    pub(crate) permit_open: Vec<String>,
    /// The variables that clients may set.
    pub(crate) accept_env: Option<Vec<String>>,
    pub(crate) max_connections: Option<NonZeroU32>,
    /// Where what clients send, and programs have not read yet, is kept beyond what is in memory;
    /// `runtime/ssh/unread` below root when left out.
    pub(crate) unread_directory: Option<PathBuf>,
    /// Bytes of it that one caller may have there.
    pub(crate) max_unread_per_caller: Option<u64>,
    /// Bytes of it that all may have there.
    pub(crate) max_unread: Option<u64>,
    /// Milliseconds.
    pub(crate) login_grace: Option<NonZeroU64>,
    /// Milliseconds.
    pub(crate) keepalive: Option<NonZeroU64>,
}

/// `algorithms = "SET"`, or a set and lists instead of some of its own.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "`strict`, `default`, `compatible`, or a table with lists of names")]
pub(crate) enum AlgorithmsTable {
    Set(AlgorithmSet),
    Lists(AlgorithmLists),
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct AlgorithmLists {
    #[serde(default)]
    pub(crate) set: AlgorithmSet,
    pub(crate) key_exchanges: Option<Vec<String>>,
    pub(crate) ciphers: Option<Vec<String>>,
    pub(crate) macs: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum AlgorithmSet {
    Strict,
    #[default]
    Default,
    Compatible,
}

impl Default for AlgorithmsTable {
    fn default() -> Self {
        Self::Set(AlgorithmSet::Default)
    }
}

/// How clients are told of the signal that ended a command.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SignalsWord {
    /// By its name.
    #[default]
    Name,
    /// By an exit status of 128 and its number.
    Status,
}

/// Times are in milliseconds and 0 is off, sizes in bytes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct SessionsTable {
    pub(crate) max: Option<usize>,
    pub(crate) max_per_caller: Option<usize>,
    pub(crate) max_clients: Option<usize>,
    /// Lines.
    pub(crate) scrollback: Option<usize>,
    pub(crate) log: Option<usize>,
    pub(crate) idle_timeout: Option<u64>,
    pub(crate) detached_timeout: Option<u64>,
    pub(crate) max_age: Option<u64>,
    pub(crate) warning: Option<u64>,
    /// Whether a program in the foreground holds the idle and detached ends back.
    pub(crate) busy_stays: Option<bool>,
    pub(crate) ended_retention: Option<u64>,
    #[serde(default)]
    pub(crate) size: SizeWord,
    #[serde(default)]
    pub(crate) recording: RecordingWord,
    pub(crate) max_recording: Option<u64>,
    /// `false` keeps nothing of them on disk. Else it is kept, but below a root that was never
    /// written to and can't be.
    pub(crate) keep: Option<bool>,
    /// Whether they go on when the server ends, to be gone on with by the next.
    #[serde(default)]
    pub(crate) survive: bool,
}

/// Bounds on the connections of each server; times are in milliseconds.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct ConnectionsTable {
    pub(crate) max_unauthenticated: Option<NonZeroU32>,
    pub(crate) max_unauthenticated_per_address: Option<NonZeroU32>,
    /// Of HTTP and WebSocket; SSH has `login-grace`.
    pub(crate) unauthenticated_timeout: Option<NonZeroU64>,
    pub(crate) write_timeout: Option<NonZeroU64>,
    pub(crate) unauthenticated_write_timeout: Option<NonZeroU64>,
}

/// Times are in milliseconds, sizes in bytes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct BatchesTable {
    /// `false` serves without batches. Else they are served, but below a root that was never
    /// written to and can't be.
    pub(crate) enabled: Option<bool>,
    pub(crate) max_steps: Option<usize>,
    pub(crate) max_open_steps: Option<usize>,
    pub(crate) max_open_steps_per_caller: Option<usize>,
    /// Of what the steps of batches that are not over hold in memory.
    pub(crate) max_open_bytes: Option<usize>,
    pub(crate) max_open_bytes_per_caller: Option<usize>,
    pub(crate) parallelism: Option<usize>,
    pub(crate) max_parallelism: Option<usize>,
    pub(crate) keep_for: Option<u64>,
    pub(crate) keep_count: Option<usize>,
    pub(crate) keep_bytes: Option<u64>,
    pub(crate) keep_count_per_caller: Option<usize>,
    pub(crate) keep_bytes_per_caller: Option<u64>,
    /// How long variables and standard input are kept after the end.
    pub(crate) keep_inputs_for: Option<u64>,
    /// How long idempotency keys are known after the end.
    pub(crate) keep_keys_for: Option<u64>,
    /// How many of them are known of one caller's batches that are gone.
    pub(crate) keep_keys_per_caller: Option<usize>,
    /// Room on the disk that is kept for the store.
    pub(crate) reserve: Option<u64>,
}

/// Sizes are in bytes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct DiskTable {
    /// What callers leave free on the disk; 0 is off.
    pub(crate) floor: Option<u64>,
}

/// Sizes are in bytes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct FilesTable {
    /// What the files of one caller may hold together; any number when left out.
    pub(crate) max_bytes_per_caller: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SizeWord {
    #[default]
    Controller,
    Smallest,
    Largest,
    Fixed,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RecordingWord {
    Off,
    #[default]
    Output,
    OutputAndInput,
}

/// What failed authentications cost the address that they come from, in milliseconds.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct GuessingTable {
    /// Of one.
    pub(crate) penalty: Option<u64>,
    /// From this sum on the address is shut out.
    pub(crate) threshold: Option<u64>,
    /// The largest sum, and so the longest time out.
    pub(crate) max_penalty: Option<u64>,
    /// Addresses and networks that get no penalties: proxies with bounds of their own.
    #[serde(default)]
    pub(crate) exempt: Vec<String>,
}

/// `program = "PATH"` for short.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct ProgramTable {
    pub(crate) path: Option<String>,
    #[serde(default)]
    pub(crate) failure: Failure,
    #[serde(default)]
    pub(crate) refuse_arguments: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Failure {
    pub(crate) stdout: Option<String>,
    pub(crate) stderr: Option<String>,
}

/// How commands are run.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct CommandsTable {
    /// Whether callers who may have sessions may have a command run by a shell: by `"shell": true`,
    /// and over SSH each of their command lines. Not when left out.
    #[serde(default)]
    pub(crate) shell: bool,
    /// As many runs as may have background processes that are kept; 256 when left out.
    pub(crate) max_kept: Option<usize>,
}

/// Times are in milliseconds, sizes in bytes. Of each run, by default and (`max-…`) at most: `cpu-time`,
/// `memory` and `processes`, which need a writable cgroup, `open-files`, `file-size`, `address-space`. One
/// that can't be enforced here keeps the server from starting.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct LimitsTable {
    pub(crate) max_running: Option<usize>,
    pub(crate) max_running_per_caller: Option<usize>,
    pub(crate) max_waiting: Option<usize>,
    pub(crate) max_waiting_per_caller: Option<usize>,
    /// Of what executions that run or wait hold in memory: arguments, variables, standard input.
    pub(crate) max_input_bytes: Option<usize>,
    pub(crate) max_input_bytes_per_caller: Option<usize>,
    pub(crate) timeout: Option<u64>,
    pub(crate) max_timeout: Option<u64>,
    /// From TERM to KILL.
    pub(crate) kill_grace: Option<u64>,
    pub(crate) output: Option<u64>,
    pub(crate) max_output: Option<u64>,
    #[serde(flatten)]
    pub(crate) of_runs: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EnvironmentTable {
    /// Instead of the usual list. Commands have `HOME`, `USER`, `LOGNAME`, `SHELL`, `LANG` and `PATH`
    /// in any case.
    pub(crate) inherit: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) set: BTreeMap<String, String>,
    /// What requests may set; anything when left out.
    pub(crate) request: Option<Vec<String>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CgroupTable {
    /// `auto`, `off`, or a directory.
    pub(crate) mode: Option<String>,
}

impl ConnectionsTable {
    /// `limits` with what the table says.
    pub(crate) fn apply(self, limits: ConnectionLimits) -> ConnectionLimits {
        let counts = [
            (self.max_unauthenticated, ConnectionLimits::max_unauthenticated as SetLimit<usize>),
            (
                self.max_unauthenticated_per_address,
                ConnectionLimits::max_unauthenticated_per_address,
            ),
        ];
        let limits = counts.into_iter().fold(limits, |limits, (count, set)| match count {
            Some(count) => set(limits, usize::try_from(count.get()).unwrap_or(usize::MAX)),
            None => limits,
        });
        let times = [
            (
                self.unauthenticated_timeout,
                ConnectionLimits::unauthenticated_timeout as SetLimit<Duration>,
            ),
            (self.write_timeout, ConnectionLimits::write_timeout),
            (self.unauthenticated_write_timeout, ConnectionLimits::unauthenticated_write_timeout),
        ];
        times.into_iter().fold(limits, |limits, (time, set)| match time {
            Some(time) => set(limits, Duration::from_millis(time.get())),
            None => limits,
        })
    }
}

type SetLimit<T> = fn(ConnectionLimits, T) -> ConnectionLimits;

impl From<String> for HttpTable {
    fn from(address: String) -> Self {
        Self { address: Some(address), ..Self::default() }
    }
}

impl From<String> for WsTable {
    fn from(address: String) -> Self {
        Self { address: Some(address), ..Self::default() }
    }
}

impl From<String> for AvroTable {
    fn from(address: String) -> Self {
        Self { address: Some(address), ..Self::default() }
    }
}

impl From<String> for SshTable {
    fn from(address: String) -> Self {
        Self { address: Some(address), ..Self::default() }
    }
}

impl From<String> for ProgramTable {
    fn from(path: String) -> Self {
        Self { path: Some(path), ..Self::default() }
    }
}

/// A table, or the text that is its most important entry.
fn text_or_table<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Deserialize<'de> + From<String>,
    D: Deserializer<'de>,
{
    struct Either<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de> + From<String>> Visitor<'de> for Either<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text or a table")
        }

        fn visit_str<E>(self, text: &str) -> Result<T, E> {
            Ok(text.to_owned().into())
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }
    }

    deserializer.deserialize_any(Either(PhantomData))
}

impl File {
    pub(crate) fn read(path: &Path) -> Result<Self, UsageError> {
        let name = format!("--config {}", path.display());
        let text = own_files::read_text(path, &name)?;
        let mut file: Self = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            UsageError::new(&name, &format!("line {line}: {}", error.message()))
        })?;
        if !file.token.is_empty() {
            tokens::refuse_open_file(path, &name, "tokens")?;
        }
        file.fixed = toml::from_str(&text).unwrap_or_default();
        file.fixed.retain(|key, _| !READ_AGAIN.contains(&key));
        Ok(file)
    }

    /// The keys of the settings that `other` has otherwise, and that are not read again while the server
    /// runs.
    pub(crate) fn differing<'a>(&'a self, other: &'a Self) -> Vec<&'a str> {
        let keys = self.fixed.keys().chain(other.fixed.keys());
        let mut keys: Vec<&str> = keys
            .filter(|key| self.fixed.get(*key) != other.fixed.get(*key))
            .map(String::as_str)
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}

const READ_AGAIN: [&str; 3] = ["token", "tokens", "users"];
