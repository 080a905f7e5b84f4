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
use splengine_core::net::ConnectionLimits;

use crate::complaint;
use crate::own_files;
use crate::settings::UsageError;
use crate::tokens;

/// Top level of the file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct File {
    /// Directory outside which no command runs and no file is served. Default: `/spl` if there is one, else
    /// the current directory.
    pub(crate) root: Option<PathBuf>,
    /// Shell of terminal sessions: an absolute path, or a name on the commands' PATH. Default: bash, or sh
    /// where there is none.
    pub(crate) shell: Option<String>,
    /// HTTP server; see [`http`](#http).
    #[serde(default, deserialize_with = "text_or_table")]
    pub(crate) http: HttpTable,
    /// WebSocket server; see [`ws`](#ws).
    #[serde(default, deserialize_with = "text_or_table")]
    pub(crate) ws: WsTable,
    /// SSH server; see [`ssh`](#ssh).
    #[serde(default, deserialize_with = "text_or_table")]
    pub(crate) ssh: SshTable,
    /// Avro RPC server; see [`avro`](#avro).
    #[serde(default, deserialize_with = "text_or_table")]
    pub(crate) avro: AvroTable,
    /// Tokens of users, each `USER=TOKEN SCOPE…`, with scopes or without. Default: none. A file with
    /// tokens must not be readable by other users of the host.
    #[serde(default)]
    pub(crate) token: Vec<String>,
    /// File of such lines, in which a token's hash can take its place; it is read again when it
    /// changes. Default: none.
    pub(crate) tokens: Option<PathBuf>,
    /// Directory of users' SSH keys: a file for each user, named after the user, in OpenSSH's format.
    /// Default: none.
    pub(crate) authorized_keys: Option<PathBuf>,
    /// User that clients without credentials are treated as. Default: none.
    pub(crate) anonymous: Option<String>,
    /// Scopes of users; see [`users.NAME`](#usersname).
    #[serde(default)]
    pub(crate) users: BTreeMap<String, UserTable>,
    /// Time in seconds that running commands have, after SIGTERM, to end by themselves. What still runs then
    /// has `[limits] kill-grace` until SIGKILL, and connections that linger are closed after it: the server
    /// ends up to 10 seconds after `grace`, with the defaults. Default 30.
    pub(crate) grace: Option<u64>,
    /// The program that commands are given to; see [`program`](#program).
    #[serde(default, deserialize_with = "text_or_table")]
    pub(crate) program: ProgramTable,
    /// How commands are run; see [`commands`](#commands).
    #[serde(default)]
    pub(crate) commands: CommandsTable,
    /// Limits of runs; see [`limits`](#limits).
    #[serde(default)]
    pub(crate) limits: LimitsTable,
    /// Environment of commands; see [`environment`](#environment).
    #[serde(default)]
    pub(crate) environment: EnvironmentTable,
    /// Use of cgroups; see [`cgroup`](#cgroup).
    #[serde(default)]
    pub(crate) cgroup: CgroupTable,
    /// Terminal sessions; see [`sessions`](#sessions).
    #[serde(default)]
    pub(crate) sessions: SessionsTable,
    /// Durable batches; see [`batches`](#batches).
    #[serde(default)]
    pub(crate) batches: BatchesTable,
    /// Bounds on connections; see [`connections`](#connections).
    #[serde(default)]
    pub(crate) connections: ConnectionsTable,
    /// Free space on the disk; see [`disk`](#disk).
    #[serde(default)]
    pub(crate) disk: DiskTable,
    /// Files of callers; see [`files`](#files).
    #[serde(default)]
    pub(crate) files: FilesTable,
    /// Penalties for failed authentications; see [`guessing`](#guessing).
    #[serde(default)]
    pub(crate) guessing: GuessingTable,
    /// The file as it is, without what is read again while the server runs.
    #[serde(skip)]
    fixed: toml::Table,
}

/// `[users.NAME]`: rights of one user. The NAME `"*"` matches all users that are not named.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct UserTable {
    /// Scopes of the user: `execute`, `sessions`, `watch`, `files`, `admin`. Required.
    pub(crate) scopes: Vec<String>,
}

/// `[http]`: HTTP server. `http = "ADDR"` sets the address alone.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct HttpTable {
    /// Address `HOST:PORT`, where port 0 is a free one, or a UNIX socket: `unix:PATH`, or
    /// `unix:PATH,mode=0660` for other permissions than 0600; `off` leaves the server out. Default
    /// `127.0.0.1:8080`.
    pub(crate) address: Option<String>,
    /// Path below which clients find the server, such as `/engine`, if a proxy removes it before it
    /// passes requests on. Default: none.
    pub(crate) base_path: Option<String>,
    /// Origins whose pages may use the server from a browser (CORS). Default: none.
    #[serde(default)]
    pub(crate) allow_origins: Vec<String>,
    /// Maximum number of connections served at once, at least 1. Default 1024.
    pub(crate) max_connections: Option<NonZeroU32>,
    /// Time in milliseconds for the head of a request to arrive, at least 1. Default 30000.
    pub(crate) header_timeout: Option<NonZeroU64>,
    /// Time in milliseconds for which a connection may be idle, at least 1. Default 75000.
    pub(crate) keep_alive_timeout: Option<NonZeroU64>,
    /// Maximum size in bytes of a JSON body; a larger one is refused with 413. Default 16777216 (16 MiB).
    pub(crate) max_body: Option<usize>,
    /// Maximum memory in bytes of all bodies together while they are read; one caller has half of what
    /// the others leave. As
    /// much again is for answers that their clients have not read yet, and as much for followers of
    /// batches. Default 268435456 (256 MiB).
    pub(crate) max_buffered: Option<usize>,
}

/// `[ws]`: WebSocket server and web console. `ws = "ADDR"` sets the address alone.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct WsTable {
    /// Address `HOST:PORT`, where port 0 is a free one, or a UNIX socket: `unix:PATH`, or
    /// `unix:PATH,mode=0660` for other permissions than 0600; `off` leaves the server out. Default
    /// `127.0.0.1:8081`.
    pub(crate) address: Option<String>,
    /// Origins whose pages may open terminals. Default: the server's own.
    #[serde(default)]
    pub(crate) allow_origins: Vec<String>,
    /// Maximum number of WebSockets open at once; the next one is refused with 503. Default 1024.
    pub(crate) max_clients: Option<usize>,
    /// Address of the console as browsers see it, if that is not the server's own: behind a proxy.
    /// Default: what `Host` says.
    pub(crate) public_url: Option<String>,
}

/// `[avro]`: Avro RPC server. `avro = "ADDR"` sets the address alone.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct AvroTable {
    /// Address `HOST:PORT`, where port 0 is a free one, or a UNIX socket: `unix:PATH`, or
    /// `unix:PATH,mode=0660` for other permissions than 0600; `off` leaves the server out. Default
    /// `127.0.0.1:9090`.
    pub(crate) address: Option<String>,
    /// Maximum number of connections served at once, at least 1. Default 1024.
    pub(crate) max_connections: Option<NonZeroU32>,
    /// Maximum size in bytes of a message; over HTTP a larger one is refused with 413. Default 16777216 (16
    /// MiB).
    pub(crate) max_frame: Option<usize>,
    /// File of certificates in PEM, with which TLS is served; needs `private-key`. Default: none.
    pub(crate) certificates: Option<PathBuf>,
    /// File of the certificates' private key in PEM, which other users of the host must not be able to read.
    /// Default: none.
    pub(crate) private_key: Option<PathBuf>,
    /// Whether clients without TLS are served beside those with it; `false` needs `certificates`. Default
    /// true.
    pub(crate) plain_text: Option<bool>,
}

/// `[ssh]`: SSH server. `ssh = "ADDR"` sets the address alone.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct SshTable {
    /// Address `HOST:PORT`, where port 0 is a free one, or a UNIX socket: `unix:PATH`, or
    /// `unix:PATH,mode=0660` for other permissions than 0600; `off` leaves the server out. Default
    /// `127.0.0.1:2222`.
    pub(crate) address: Option<String>,
    /// Files of private host keys in OpenSSH's format; a missing one is created, of ed25519. The first
    /// is of ed25519, others may be of ECDSA or RSA. Default: `runtime/ssh/host_ed25519_key` below
    /// root.
    #[serde(default)]
    pub(crate) host_keys: Vec<PathBuf>,
    /// File of public keys of the authorities that sign users' certificates. Default: none.
    pub(crate) trusted_ca: Option<PathBuf>,
    /// File of public keys that are refused. Default: none.
    pub(crate) revoked_keys: Option<PathBuf>,
    /// File of lines `USER:$argon2id$…`, with which passwords are accepted. Default: none, and no passwords.
    pub(crate) passwords: Option<PathBuf>,
    /// Files of certificates of the host keys. Default: none.
    #[serde(default)]
    pub(crate) host_certificates: Vec<PathBuf>,
    /// Set of algorithms: `strict`, `default` or `compatible`; or a table of `set` and the lists
    /// `key-exchanges`, `ciphers` and `macs`, each of which replaces the set's own. Default `default`.
    #[serde(default)]
    pub(crate) algorithms: AlgorithmsTable,
    /// How clients are told of the signal that ended a command: `name`, or `status` for the exit status 128 +
    /// number. Default `name`.
    #[serde(default)]
    pub(crate) signals: SignalsWord,
    /// Whether the old protocol of scp is served. Default true.
    pub(crate) scp: Option<bool>,
    /// Targets to which connections are forwarded: `HOST:PORT`, `HOST:*`, or the path of a socket. Default:
    /// none.
    #[serde(default)]
    pub(crate) permit_open: Vec<String>,
    /// Names of the variables that clients may set; a `*` at the end matches any rest. Default `LANG`,
    /// `LC_*`, `TZ`, `COLORTERM`.
    pub(crate) accept_env: Option<Vec<String>>,
    /// Maximum number of connections served at once, at least 1. Default 1024.
    pub(crate) max_connections: Option<NonZeroU32>,
    /// Directory for what clients have sent and programs have not read yet, beyond what is kept in
    /// memory. Default `runtime/ssh/unread` below root.
    pub(crate) unread_directory: Option<PathBuf>,
    /// Maximum number of bytes that one caller has there. Default 1073741824 (1 GiB).
    pub(crate) max_unread_per_caller: Option<u64>,
    /// Maximum number of bytes that all callers have there. Default 4294967296 (4 GiB).
    pub(crate) max_unread: Option<u64>,
    /// Time in milliseconds for a client to authenticate, at least 1. Default 120000.
    pub(crate) login_grace: Option<NonZeroU64>,
    /// Time in milliseconds after which a silent client is asked whether it is there, at least 1; after three
    /// questions without an answer its connection is closed. Default 30000.
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
    /// Set that the lists change. Default `default`.
    #[serde(default)]
    pub(crate) set: AlgorithmSet,
    /// Names of key exchanges, preferred first. Default: those of the set.
    pub(crate) key_exchanges: Option<Vec<String>>,
    /// Names of ciphers, preferred first. Default: those of the set.
    pub(crate) ciphers: Option<Vec<String>>,
    /// Names of message authentication codes, preferred first. Default: those of the set.
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

/// `[sessions]`: terminal sessions. A time of 0 switches its limit off.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct SessionsTable {
    /// Maximum number of sessions at once. Default 256.
    pub(crate) max: Option<usize>,
    /// Maximum number of one caller's sessions at once. Default 64.
    pub(crate) max_per_caller: Option<usize>,
    /// Maximum number of clients that are attached to one session. Default 64.
    pub(crate) max_clients: Option<usize>,
    /// Maximum number of bytes of arguments and variables that all sessions hold in memory. Default 67108864
    /// (64 MiB).
    pub(crate) max_command_bytes: Option<usize>,
    /// Maximum number of such bytes of one caller's sessions. Default: half of what the others leave of
    /// `max-command-bytes`.
    pub(crate) max_command_bytes_per_caller: Option<usize>,
    /// Number of lines that are kept above the screen, as far as `max-screen-bytes` allows; one takes 16 to
    /// 20 bytes a column. Default 300.
    pub(crate) scrollback: Option<usize>,
    /// Number of bytes of memory that the screens of all sessions take together; of it one caller alone may
    /// have half. A cell counts 40 bytes, and 512 KiB of each session are not counted: 200 columns by 60 rows.
    /// Sessions and sizes beyond it are refused; lines above a screen go, the oldest first. Screens that wait
    /// to be read by clients may take half as much. Default 134217728 (128 MiB).
    pub(crate) max_screen_bytes: Option<usize>,
    /// Number of bytes of output that are kept for clients to resume from, at least 131072. Default 1048576
    /// (1 MiB).
    pub(crate) log: Option<usize>,
    /// Time in milliseconds without input and output after which a session is ended. Default 0.
    pub(crate) idle_timeout: Option<u64>,
    /// Time in milliseconds without a client after which a session is ended. Default 604800000 (7 days).
    pub(crate) detached_timeout: Option<u64>,
    /// Age in milliseconds at which a session is ended. Default 0.
    pub(crate) max_age: Option<u64>,
    /// Time in milliseconds before such an end at which clients are warned. Default 60000.
    pub(crate) warning: Option<u64>,
    /// Whether a session is not ended for its idleness, or for having no client, while a program runs
    /// in the foreground. Default true.
    pub(crate) busy_stays: Option<bool>,
    /// Time in milliseconds for which a session whose program has ended stays in the list. Default 600000.
    pub(crate) ended_retention: Option<u64>,
    /// Whose window sets the size: `controller`, `smallest`, `largest` or `fixed`. Default
    /// `controller`.
    #[serde(default)]
    pub(crate) size: SizeWord,
    /// What is recorded: `off`, `output` or `output-and-input`. Default `output`.
    #[serde(default)]
    pub(crate) recording: RecordingWord,
    /// Maximum number of bytes of a recording; beyond it the session continues without a recording, as
    /// it does if the disk is full or accepts no writes for 10 seconds. A program that prints faster
    /// than its recording is written is slowed down. Default 16777216 (16 MiB).
    pub(crate) max_recording: Option<u64>,
    /// Number of bytes of memory that screens take which are read: as they are, as they were at some time of a
    /// recording, or saved ones; of it one caller alone may have half. What is written of sessions may take
    /// as much again. Default 134217728 (128 MiB).
    pub(crate) max_read_bytes: Option<usize>,
    /// Time in milliseconds for which a read of such a screen waits for that memory, and for its turn to read
    /// files: one at a time of each caller, two in all. Beyond it it is refused with 429 or 503; 0 waits for
    /// nothing. Default 10000.
    pub(crate) read_timeout: Option<u64>,
    /// Time in milliseconds that all sessions together have to be saved when the server ends, where
    /// `grace` is shorter. Sessions that are not saved by then are logged; 0 is none. Default 10000.
    pub(crate) save_timeout: Option<u64>,
    /// Whether sessions are kept on disk. Default true, or false if root was never written to and is
    /// not writable.
    pub(crate) keep: Option<bool>,
    /// Whether sessions continue while the server is restarted; needs `keep`. Default false.
    #[serde(default)]
    pub(crate) survive: bool,
}

/// `[connections]`: bounds on the connections of each server.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct ConnectionsTable {
    /// Maximum number of unauthenticated connections, at least 1. Default 1024; 512 for SSH.
    pub(crate) max_unauthenticated: Option<NonZeroU32>,
    /// Maximum number of silent unauthenticated connections of one address, or of one IPv6 network of 64
    /// bits, at least 1. Default 32; 20 for SSH.
    pub(crate) max_unauthenticated_per_address: Option<NonZeroU32>,
    /// Time in milliseconds for a new connection to authenticate or to send a whole request, at least 1; SSH
    /// has `login-grace`. Default 10000.
    pub(crate) unauthenticated_timeout: Option<NonZeroU64>,
    /// Time in milliseconds for which an authenticated client may take nothing of what is written to it, at
    /// least 1. Default 300000.
    pub(crate) write_timeout: Option<NonZeroU64>,
    /// Time in milliseconds for which an unauthenticated client may take nothing of what is written to it, at
    /// least 1. Default 30000.
    pub(crate) unauthenticated_write_timeout: Option<NonZeroU64>,
}

/// `[batches]`: durable batches.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct BatchesTable {
    /// Whether batches are served. Default true, or false if root was never written to and is not
    /// writable.
    pub(crate) enabled: Option<bool>,
    /// Maximum number of steps of one batch. Default 10000.
    pub(crate) max_steps: Option<usize>,
    /// Maximum number of steps of all batches that are not over. Default 200000.
    pub(crate) max_open_steps: Option<usize>,
    /// Maximum number of steps of one caller's batches that are not over. Default 50000.
    pub(crate) max_open_steps_per_caller: Option<usize>,
    /// Maximum number of bytes of commands, arguments, variables and standard input that the steps of all
    /// batches that are not over hold in memory. Default 67108864 (64 MiB).
    pub(crate) max_open_bytes: Option<usize>,
    /// Maximum number of such bytes of one caller's batches. Default: half of what the others leave of
    /// `max-open-bytes`.
    pub(crate) max_open_bytes_per_caller: Option<usize>,
    /// Number of steps that run at once, of a batch that sets none. Default: the number of the host's
    /// CPUs.
    pub(crate) parallelism: Option<usize>,
    /// Maximum parallelism that is granted. Default 1024.
    pub(crate) max_parallelism: Option<usize>,
    /// Time in milliseconds for which a batch is kept after its end. Default 604800000 (7 days).
    pub(crate) keep_for: Option<u64>,
    /// Maximum number of batches kept, of which the oldest of the caller who has most go first. Default
    /// 100000.
    pub(crate) keep_count: Option<usize>,
    /// Maximum number of bytes of output kept. Default 10737418240 (10 GiB).
    pub(crate) keep_bytes: Option<u64>,
    /// Maximum number of one caller's batches kept. Default 10000.
    pub(crate) keep_count_per_caller: Option<usize>,
    /// Maximum number of bytes of output kept of one caller's batches. Default 2147483648 (2 GiB).
    pub(crate) keep_bytes_per_caller: Option<u64>,
    /// Time in milliseconds for which variables and standard input of the steps are kept after the end.
    /// Default 3600000.
    pub(crate) keep_inputs_for: Option<u64>,
    /// Time in milliseconds for which idempotency keys are known after the end. Default 86400000.
    pub(crate) keep_keys_for: Option<u64>,
    /// Maximum number of idempotency keys known of one caller's batches that are gone. Default 10000.
    pub(crate) keep_keys_per_caller: Option<usize>,
    /// Number of bytes on the disk that are reserved for the store. Default 8388608 (8 MiB).
    pub(crate) reserve: Option<u64>,
}

/// `[disk]`: free space on the disk.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct DiskTable {
    /// Number of bytes that callers leave free on the disk below root; 0 is off. Default 268435456 (256 MiB),
    /// or 1 % of a file system of less than 25 GiB.
    pub(crate) floor: Option<u64>,
}

/// `[files]`: files of callers.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct FilesTable {
    /// Maximum number of bytes that the files of one caller hold together. Default: none.
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

/// `[guessing]`: penalties of addresses for failed authentications.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct GuessingTable {
    /// Penalty in milliseconds of one failure. Default 5000.
    pub(crate) penalty: Option<u64>,
    /// Sum of penalties in milliseconds at which the address is blocked: its credentials are refused
    /// unchecked. Default 30000.
    pub(crate) threshold: Option<u64>,
    /// Maximum sum of penalties in milliseconds, and so the longest time for which an address is blocked.
    /// Default 60000.
    pub(crate) max_penalty: Option<u64>,
    /// Addresses and networks (`10.0.0.0/8`) that get no penalties: proxies that bound guesses
    /// themselves. Default: none.
    #[serde(default)]
    pub(crate) exempt: Vec<String>,
}

/// `[program]`: the program that commands are given to. `program = "PATH"` sets the path alone.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct ProgramTable {
    /// Program that a command's words are given to: an absolute path, or a name on the commands' PATH.
    /// Default: the command's first word.
    pub(crate) path: Option<String>,
    /// Regular expressions `stdout` and `stderr`: a run whose output matches has failed, whatever its exit
    /// code is. Default: none.
    #[serde(default)]
    pub(crate) failure: Failure,
    /// Texts that no word of a command may contain, since the program reads them as syntax. Default:
    /// none.
    #[serde(default)]
    pub(crate) refuse_arguments: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Failure {
    /// Regular expression of standard output. Default: none.
    pub(crate) stdout: Option<String>,
    /// Regular expression of standard error. Default: none.
    pub(crate) stderr: Option<String>,
}

/// `[commands]`: how commands are run.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct CommandsTable {
    /// Whether callers who may have sessions may have a command run by a shell: by `"shell": true`, and over
    /// SSH each of their command lines. Default false.
    #[serde(default)]
    pub(crate) shell: bool,
    /// Maximum number of runs whose background processes are kept, of which a caller alone may have half.
    /// Default 512.
    pub(crate) max_kept: Option<usize>,
}

/// `[limits]`: limits of runs. One that the host can't enforce keeps the server from starting.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct LimitsTable {
    /// Maximum number of runs at once. Default 64.
    pub(crate) max_running: Option<usize>,
    /// Maximum number of one caller's runs at once. Default: seven eighths of `max-running`.
    pub(crate) max_running_per_caller: Option<usize>,
    /// Maximum number of runs that wait; the next one is refused. Default 1024.
    pub(crate) max_waiting: Option<usize>,
    /// Maximum number of one caller's runs that wait. Default 512.
    pub(crate) max_waiting_per_caller: Option<usize>,
    /// Maximum number of bytes of arguments, variables and standard input that the runs that run or wait
    /// hold in memory. Default 67108864 (64 MiB).
    pub(crate) max_input_bytes: Option<usize>,
    /// Maximum number of such bytes of one caller's runs. Default: half of what the others leave of
    /// `max-input-bytes`.
    pub(crate) max_input_bytes_per_caller: Option<usize>,
    /// Maximum number of bytes of output that is kept in memory until a run is answered, or its end: of
    /// commands that are answered in one piece all that is kept, of others the last half of their output
    /// limit. A caller may have half of what the others leave. Beyond it a run keeps no more than it has by then, as if its output
    /// limit were that; 16384 bytes of each stream are kept in any case. Default 134217728 (128 MiB).
    pub(crate) max_captured_bytes: Option<usize>,
    /// Maximum number of bytes of memory that all servers and the engine hold together for what passes
    /// through: messages and bodies that are read, answers that are not read yet, captured output, screens
    /// drawn for clients, saved sessions and records of batches that are read. A caller may have half of
    /// what the others leave, of all together. Default 201326592 (192 MiB).
    pub(crate) max_buffered_bytes: Option<usize>,
    /// Time limit in milliseconds of runs that name none. Default: `max-timeout`.
    pub(crate) timeout: Option<u64>,
    /// Maximum time limit in milliseconds that is granted. Default 86400000 (24 hours).
    pub(crate) max_timeout: Option<u64>,
    /// Time in milliseconds from SIGTERM to SIGKILL. Default 5000.
    pub(crate) kill_grace: Option<u64>,
    /// Number of bytes kept of each stream of a run that names none. Default 16777216 (16 MiB).
    pub(crate) output: Option<u64>,
    /// Maximum number of such bytes that is granted. Default 67108864 (64 MiB).
    pub(crate) max_output: Option<u64>,
    /// Processor time in milliseconds of each process of a run that names none. Default: no limit.
    pub(crate) cpu_time: Option<u64>,
    /// Maximum processor time in milliseconds that is granted. Default: any.
    pub(crate) max_cpu_time: Option<u64>,
    /// Memory in bytes of a run that names none. Needs a writable cgroup. Default: no limit.
    pub(crate) memory: Option<u64>,
    /// Maximum memory in bytes that is granted. Needs a writable cgroup. Default: any.
    pub(crate) max_memory: Option<u64>,
    /// Number of processes of a run that names none. Needs a writable cgroup. Default: no limit.
    pub(crate) processes: Option<u64>,
    /// Maximum number of processes that is granted. Needs a writable cgroup. Default: any.
    pub(crate) max_processes: Option<u64>,
    /// Number of open files of each process of a run that names none. Default: no limit.
    pub(crate) open_files: Option<u64>,
    /// Maximum number of open files that is granted. Default: any.
    pub(crate) max_open_files: Option<u64>,
    /// Size in bytes of each file that a run writes that names none. Default: no limit.
    pub(crate) file_size: Option<u64>,
    /// Maximum file size in bytes that is granted. Default: any.
    pub(crate) max_file_size: Option<u64>,
    /// Address space in bytes of each process of a run that names none. Default: no limit.
    pub(crate) address_space: Option<u64>,
    /// Maximum address space in bytes that is granted. Default: any.
    pub(crate) max_address_space: Option<u64>,
}

/// `[environment]`: environment of commands. They have `HOME`, `USER`, `LOGNAME`, `SHELL`, `LANG` and `PATH`
/// in any case.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EnvironmentTable {
    /// Names of the server's variables that commands inherit; a `*` at the end matches any rest.
    /// Default `PATH`, `HOME`, `USER`, `LOGNAME`, `SHELL`, `LANG`, `LC_*`, `TZ`, `TMPDIR`.
    pub(crate) inherit: Option<Vec<String>>,
    /// Variables that commands have. Default: none.
    #[serde(default)]
    pub(crate) set: BTreeMap<String, String>,
    /// Names of the variables that requests may set. Default: any.
    pub(crate) request: Option<Vec<String>>,
}

/// `[cgroup]`: use of cgroups, version 2.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CgroupTable {
    /// `auto` (where a writable one is found), `off`, or a directory. Default `auto`.
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
            let start = error.span().map_or(0, |span| span.start);
            UsageError::new(&name, &complaint::of(&text, start, error.message()))
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
