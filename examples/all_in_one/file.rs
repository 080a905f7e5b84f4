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
    /// the directory that the server is started in.
    pub(crate) root: Option<PathBuf>,
    /// Shell of terminal sessions: an absolute path, or a name on the commands' PATH. Below root it is a file as
    /// any other: callers with `files` can replace it. Default: bash, or sh where there is none.
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
    /// Tokens of users, each `USER=TOKEN SCOPE…`; a token without scopes has all scopes of its user but
    /// `admin`. Default: none. A file with tokens must not be readable by other users of the host.
    #[serde(default)]
    pub(crate) token: Vec<String>,
    /// File of tokens, one `USER=TOKEN SCOPE…` a line, in which a token's hash can stand for the token, as
    /// `all-in-one token USER` makes it; it is read again when it changes. Default: none.
    pub(crate) tokens: Option<PathBuf>,
    /// Directory of users' SSH keys: a file for each user, named after the user, in OpenSSH's format.
    /// Default: none.
    pub(crate) authorized_keys: Option<PathBuf>,
    /// User that clients without credentials are treated as. Default: none.
    pub(crate) anonymous: Option<String>,
    /// Scopes of users; see [`users.NAME`](#usersname).
    #[serde(default)]
    pub(crate) users: BTreeMap<String, UserTable>,
    /// Time in seconds that running commands have, when the server is ended by SIGTERM, to end by
    /// themselves. Those that still run after it get SIGTERM, and SIGKILL after `[limits] kill-grace`;
    /// then connections that are still open are closed. With the defaults the server usually ends
    /// within 10 seconds after `grace`; up to about a minute if programs can't be ended or the disk
    /// accepts no writes. Default 30.
    pub(crate) grace: Option<u64>,
    /// Program whose arguments the words of a command are; see [`program`](#program).
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
    /// Address `HOST:PORT`, where port 0 stands for any free port, or a UNIX socket: `unix:PATH`, or
    /// `unix:PATH,mode=0660` for other permissions than 0600; `off` starts no such server. Default
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
    /// Maximum memory in bytes of the bodies of all requests together while they are read. Answers that their
    /// clients have not read yet may take as much again, and so may requests that follow the events of
    /// batches. Of each of these one caller may have half of what the others leave. All of it is within
    /// `[limits] max-buffered-bytes`, which is lower by default. Default 268435456 (256 MiB).
    pub(crate) max_buffered: Option<usize>,
}

/// `[ws]`: WebSocket server and web console. `ws = "ADDR"` sets the address alone.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct WsTable {
    /// Address `HOST:PORT`, where port 0 stands for any free port, or a UNIX socket: `unix:PATH`, or
    /// `unix:PATH,mode=0660` for other permissions than 0600; `off` starts no such server. Default
    /// `127.0.0.1:8081`.
    pub(crate) address: Option<String>,
    /// Origins whose pages may open terminals. Default: the server's own origin.
    #[serde(default)]
    pub(crate) allow_origins: Vec<String>,
    /// Maximum number of WebSockets open at once; the next one is refused with 503. Default 1024.
    pub(crate) max_clients: Option<usize>,
    /// Address of the console as browsers see it, if it is another one than the header `Host` names, as
    /// behind some proxies. Default: what `Host` names.
    pub(crate) public_url: Option<String>,
}

/// `[avro]`: Avro RPC server. `avro = "ADDR"` sets the address alone.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct AvroTable {
    /// Address `HOST:PORT`, where port 0 stands for any free port, or a UNIX socket: `unix:PATH`, or
    /// `unix:PATH,mode=0660` for other permissions than 0600; `off` starts no such server. Default
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
    /// Address `HOST:PORT`, where port 0 stands for any free port, or a UNIX socket: `unix:PATH`, or
    /// `unix:PATH,mode=0660` for other permissions than 0600; `off` starts no such server. Default
    /// `127.0.0.1:2222`.
    pub(crate) address: Option<String>,
    /// Files of private host keys in OpenSSH's format; a missing one is created, of ed25519. The first must
    /// be of ed25519, others may be of ECDSA or RSA. Default: `runtime/ssh/host_ed25519_key` below root.
    #[serde(default)]
    pub(crate) host_keys: Vec<PathBuf>,
    /// File of public keys of the authorities that sign users' certificates. Default: none.
    pub(crate) trusted_ca: Option<PathBuf>,
    /// File of public keys that are refused, whoever shows them. Default: none.
    pub(crate) revoked_keys: Option<PathBuf>,
    /// File of lines `USER:$argon2id$…`, with which passwords are accepted. Default: none; passwords are
    /// refused.
    pub(crate) passwords: Option<PathBuf>,
    /// Files of certificates of the host keys. Default: none.
    #[serde(default)]
    pub(crate) host_certificates: Vec<PathBuf>,
    /// Algorithms that clients may choose from: the set `strict`, `default` or `compatible`; or a table of
    /// `set` and the lists `key-exchanges`, `ciphers` and `macs`, each of which replaces the set's own.
    /// Default `default`.
    #[serde(default)]
    pub(crate) algorithms: AlgorithmsTable,
    /// How clients are told of the signal that ended a command: `name`, or `status` for the exit status 128 +
    /// number. Default `name`.
    #[serde(default)]
    pub(crate) signals: SignalsWord,
    /// Whether the old protocol of scp is served beside SFTP. Default true.
    pub(crate) scp: Option<bool>,
    /// Targets to which clients may have connections forwarded: `HOST:PORT`, `HOST:*`, or the path of a
    /// socket. Default: none.
    #[serde(default)]
    pub(crate) permit_open: Vec<String>,
    /// Names of the variables that clients may set; a `*` at the end matches any rest. Replaces the default
    /// list: repeat the names you still want. Variables that make a program run other code (`PATH`, `LD_*`,
    /// `BASH_ENV` and the like) are never accepted. Default `LANG`, `LC_*`, `TZ`, `COLORTERM`.
    pub(crate) accept_env: Option<Vec<String>>,
    /// Maximum number of connections served at once, at least 1. Default 1024.
    pub(crate) max_connections: Option<NonZeroU32>,
    /// Directory for data that clients have sent and programs have not read yet, beyond what is kept in
    /// memory. Default `runtime/ssh/unread` below root.
    pub(crate) unread_directory: Option<PathBuf>,
    /// Maximum number of bytes that one caller may have in `unread-directory`; a channel that would exceed it
    /// is closed. Default 1073741824 (1 GiB).
    pub(crate) max_unread_per_caller: Option<u64>,
    /// Maximum number of bytes that all callers together may have in `unread-directory`; a channel that would
    /// exceed it is closed. Default 4294967296 (4 GiB).
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

/// `[sessions]`: terminal sessions.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct SessionsTable {
    /// Maximum number of sessions at once. Default 256.
    pub(crate) max: Option<usize>,
    /// Maximum number of one caller's sessions at once. Default 64.
    pub(crate) max_per_caller: Option<usize>,
    /// Maximum number of clients that are attached to one session at once. Default 64.
    pub(crate) max_clients: Option<usize>,
    /// Maximum memory in bytes of the arguments and variables of the commands of all sessions; the next
    /// session is refused. Default 67108864 (64 MiB).
    pub(crate) max_command_bytes: Option<usize>,
    /// Maximum memory in bytes of the arguments and variables of the commands of one caller's sessions; the
    /// next session is refused. Default: half of what the others leave of `max-command-bytes`.
    pub(crate) max_command_bytes_per_caller: Option<usize>,
    /// Number of lines that are kept above the screen of a session, as far as `max-screen-bytes` allows; one
    /// takes 16 to 20 bytes a column. Default 300.
    pub(crate) scrollback: Option<usize>,
    /// Maximum memory in bytes of the screens of all sessions together, of which one caller alone may have
    /// half. A cell counts 40 bytes; the first 512 KiB of each session, which are 200 columns by 60 rows, are
    /// not counted. A session or a change of size that would exceed it is refused; of the lines above screens
    /// the oldest are dropped. Screens drawn for clients that have not read them yet may take half as much.
    /// Default 134217728 (128 MiB).
    pub(crate) max_screen_bytes: Option<usize>,
    /// Number of bytes of a session's output that are kept in memory, at least 131072: a client whose
    /// connection broke continues within them. Default 1048576 (1 MiB).
    pub(crate) log: Option<usize>,
    /// Time in milliseconds without input and output after which a session is ended; 0 is never. Default 0.
    pub(crate) idle_timeout: Option<u64>,
    /// Time in milliseconds without a client after which a session is ended; 0 is never. Default 604800000 (7
    /// days).
    pub(crate) detached_timeout: Option<u64>,
    /// Age in milliseconds at which a session is ended; 0 is never. Default 0.
    pub(crate) max_age: Option<u64>,
    /// Time in milliseconds before a session is ended for idleness, for having no client, or for its age, at
    /// which its clients are warned. Default 60000.
    pub(crate) warning: Option<u64>,
    /// Whether a session is kept, though it is idle or has no client, while a program runs in the foreground
    /// of its shell. Default true.
    pub(crate) busy_stays: Option<bool>,
    /// Time in milliseconds for which a session whose program has ended stays in the list. Default 600000.
    pub(crate) ended_retention: Option<u64>,
    /// Whose window sets the size of a terminal: that of the client in control (`controller`), the smallest
    /// or the largest of those that may type (`smallest`, `largest`), or nobody's (`fixed`). Default
    /// `controller`.
    #[serde(default)]
    pub(crate) size: SizeWord,
    /// What is recorded of sessions: `off` (nothing), `output` or `output-and-input`. Default `output`.
    #[serde(default)]
    pub(crate) recording: RecordingWord,
    /// Maximum number of bytes of a recording; beyond it the session continues without a recording, as
    /// it does if the disk is full or accepts no writes for 10 seconds. A program that prints faster
    /// than its recording is written is slowed down. Default 16777216 (16 MiB).
    pub(crate) max_recording: Option<u64>,
    /// Maximum memory in bytes for screens that are read without attaching: live ones, those of a recording,
    /// and saved ones. One caller alone may have half of it. Sessions that are being written to disk may take
    /// as much again. Default 134217728 (128 MiB).
    pub(crate) max_read_bytes: Option<usize>,
    /// Time in milliseconds that a client which reads a screen, a recording or a saved session waits for
    /// memory (`max-read-bytes`), and for its turn to read files: one read at a time for each caller, two for
    /// all. Then the read is refused with 429 or 503; with 0 it is refused at once. Default 10000.
    pub(crate) read_timeout: Option<u64>,
    /// Time in milliseconds for saving all sessions when the server ends, if it is longer than `grace`.
    /// Sessions that are not saved by then are logged. Default 10000.
    pub(crate) save_timeout: Option<u64>,
    /// Whether sessions are kept on disk, in `runtime/sessions` below root, so that they can be saved,
    /// recorded, and listed as lost after a crash. Default: true, but false if that directory does not exist
    /// and can't be created.
    pub(crate) keep: Option<bool>,
    /// Whether the programs of sessions go on while the server is restarted; needs `keep`. Default false.
    #[serde(default)]
    pub(crate) survive: bool,
}

/// `[connections]`: bounds on the connections of each server.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct ConnectionsTable {
    /// Maximum number of unauthenticated connections of one server, at least 1; one of them is closed for the
    /// next one. Default 1024; 512 for SSH.
    pub(crate) max_unauthenticated: Option<NonZeroU32>,
    /// Maximum number of unauthenticated connections of one address, or of one IPv6 network of 64 bits, on
    /// which the client has sent nothing for a second; at least 1. Of more the oldest are closed. Default 32;
    /// 20 for SSH.
    pub(crate) max_unauthenticated_per_address: Option<NonZeroU32>,
    /// Time in milliseconds for a client to authenticate on a new connection or to send a whole request, at
    /// least 1; the SSH server has `[ssh] login-grace` instead. Default 10000.
    pub(crate) unauthenticated_timeout: Option<NonZeroU64>,
    /// Time in milliseconds, at least 1, after which the connection of an authenticated client is closed if
    /// the client has taken nothing of what is written to it. Default 300000.
    pub(crate) write_timeout: Option<NonZeroU64>,
    /// Time in milliseconds, at least 1, after which the connection of an unauthenticated client is closed if
    /// the client has taken nothing of what is written to it. Default 30000.
    pub(crate) unauthenticated_write_timeout: Option<NonZeroU64>,
}

/// `[batches]`: durable batches.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct BatchesTable {
    /// Whether batches are served; they are stored in `runtime/batches` below root. Default: true, but false
    /// if that directory does not exist and can't be created.
    pub(crate) enabled: Option<bool>,
    /// Maximum number of steps of one batch. Default 10000.
    pub(crate) max_steps: Option<usize>,
    /// Maximum number of steps of all batches that are not over; a batch that would exceed it is refused.
    /// Default 200000.
    pub(crate) max_open_steps: Option<usize>,
    /// Maximum number of steps of one caller's batches that are not over; a batch that would exceed it is
    /// refused. Default 50000.
    pub(crate) max_open_steps_per_caller: Option<usize>,
    /// Maximum memory in bytes of the commands, arguments, variables and standard input of all steps of
    /// batches that are not over; the next batch is refused. Default 67108864 (64 MiB).
    pub(crate) max_open_bytes: Option<usize>,
    /// Maximum memory in bytes of the commands, arguments, variables and standard input of the steps of one
    /// caller's batches that are not over; the next batch is refused. Default: half of what the others leave
    /// of `max-open-bytes`.
    pub(crate) max_open_bytes_per_caller: Option<usize>,
    /// Maximum number of steps that run at once of a batch that sets no `parallelism`. Default: the number of
    /// the host's CPUs.
    pub(crate) parallelism: Option<usize>,
    /// Maximum `parallelism` that a batch may set. Default 1024.
    pub(crate) max_parallelism: Option<usize>,
    /// Time in milliseconds for which a batch, with its output, is kept after its end. Default 604800000 (7
    /// days).
    pub(crate) keep_for: Option<u64>,
    /// Maximum number of batches that are kept after their end; beyond it the oldest of the caller who has
    /// most are removed. Default 100000.
    pub(crate) keep_count: Option<usize>,
    /// Maximum number of bytes on disk of batches that are kept after their end, with their output; beyond it
    /// the oldest of the caller whose batches take most are removed. The output of batches that are not over
    /// may take as much again; what they print beyond that is not kept. Default 10737418240 (10 GiB).
    pub(crate) keep_bytes: Option<u64>,
    /// Maximum number of one caller's batches that are kept after their end; beyond it the oldest are
    /// removed. Default 10000.
    pub(crate) keep_count_per_caller: Option<usize>,
    /// Maximum number of bytes on disk of one caller's batches that are kept after their end, with their
    /// output; beyond it the oldest are removed. The output of the caller's batches that are not over may
    /// take as much again; what they print beyond that is not kept. Default 2147483648 (2 GiB).
    pub(crate) keep_bytes_per_caller: Option<u64>,
    /// Time in milliseconds for which the variables and the standard input of a batch's steps are kept on
    /// disk after its end, so that it can be run again; 0 removes them at its end. Default 3600000 (1 hour).
    pub(crate) keep_inputs_for: Option<u64>,
    /// Time in milliseconds for which the idempotency key of a batch is known after the batch's end, even if
    /// the batch is removed. Default 86400000 (24 hours).
    pub(crate) keep_keys_for: Option<u64>,
    /// Maximum number of idempotency keys that are known of one caller's batches that were removed; beyond it
    /// the oldest are forgotten. Default 10000.
    pub(crate) keep_keys_per_caller: Option<usize>,
    /// Number of bytes of disk space that are reserved for the store of batches, so that accepted batches go
    /// on when the disk is full; 0 reserves none. Default 8388608 (8 MiB).
    pub(crate) reserve: Option<u64>,
}

/// `[disk]`: free space on the disk.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct DiskTable {
    /// Free space in bytes that is left on each file system that is written to for callers; a write that
    /// would take more is refused. 0 is off. Default 268435456 (256 MiB), or 1 % of a file system of less
    /// than 25 GiB.
    pub(crate) floor: Option<u64>,
}

/// `[files]`: files of callers.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct FilesTable {
    /// Maximum number of bytes that the files of one caller hold together; a write beyond it is refused.
    /// Needs a file system with extended attributes. Default: no maximum.
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
    /// Milliseconds that one failed authentication adds to its address's penalty, which decreases with time;
    /// at `threshold` the address is blocked. 0 switches penalties off. Default 5000.
    pub(crate) penalty: Option<u64>,
    /// Penalty in milliseconds at which an address is blocked: credentials from it are refused unchecked.
    /// Default 30000.
    pub(crate) threshold: Option<u64>,
    /// Maximum penalty in milliseconds of an address, and so the longest time for which it is blocked.
    /// Default 60000.
    pub(crate) max_penalty: Option<u64>,
    /// Addresses and networks (`10.0.0.0/8`) that get no penalties, such as proxies that bound guesses
    /// themselves. Attempts at one user's password are spaced for them, too. A uid, as of a proxy on a UNIX
    /// socket, can't be exempted. Default: none.
    #[serde(default)]
    pub(crate) exempt: Vec<String>,
}

/// `[program]`: program whose arguments the words of a command are. `program = "PATH"` sets the path alone.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct ProgramTable {
    /// Program whose arguments the words of a command are: an absolute path, or a name on the commands' PATH.
    /// Below root it is a file as any other: callers with `files` can replace it. Default: none; the first word
    /// of a command names its program.
    pub(crate) path: Option<String>,
    /// Table of regular expressions, `stdout` and `stderr`: a run that exits with 0, but prints a line on
    /// that stream that matches, is reported with exit code 1. Default: none.
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
    /// Whether callers with the scope `sessions` may have commands run by a shell: commands of requests with
    /// `"shell": true`, and every command line over SSH. Default false.
    #[serde(default)]
    pub(crate) shell: bool,
    /// Maximum number of runs whose background processes are kept after their end; one more is refused. One
    /// caller alone may have half of them. Default 512.
    pub(crate) max_background_runs: Option<usize>,
}

/// `[limits]`: limits of runs, which are commands that run or wait for their place. A limit that the host
/// can't enforce keeps the server from starting.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct LimitsTable {
    /// Maximum number of commands that run at once; further ones wait. Default 64.
    pub(crate) max_running: Option<usize>,
    /// Maximum number of one caller's commands that run at once; further ones wait. Default: seven eighths of
    /// `max-running`.
    pub(crate) max_running_per_caller: Option<usize>,
    /// Maximum number of commands that wait until they can run; the next one is refused. Steps of batches are
    /// not counted. Default 1024.
    pub(crate) max_waiting: Option<usize>,
    /// Maximum number of one caller's commands that wait until they can run; the next one is refused. Default
    /// 512.
    pub(crate) max_waiting_per_caller: Option<usize>,
    /// Maximum memory in bytes of the arguments, variables and standard input of all commands that run or
    /// wait; the next one is refused. Steps of batches have `[batches] max-open-bytes` instead. Default
    /// 67108864 (64 MiB).
    pub(crate) max_input_bytes: Option<usize>,
    /// Maximum memory in bytes of the arguments, variables and standard input of one caller's commands that
    /// run or wait; the next one is refused. Default: half of what the others leave of `max-input-bytes`.
    pub(crate) max_input_bytes_per_caller: Option<usize>,
    /// Maximum number of bytes of output that is kept in memory: of commands that are answered in one piece
    /// all that is kept, until the answer is written; of others the last half of their output limit, until
    /// they end. One caller may have half of what the others leave. At the maximum, further output of a run
    /// is cut, as if its output limit were reached; the first 16384 bytes of each stream are kept in any
    /// case. Default 134217728 (128 MiB).
    pub(crate) max_captured_bytes: Option<usize>,
    /// Maximum memory in bytes of all data that passes through the engine and all servers together: messages
    /// and bodies that are read, answers that are not read yet, captured output, screens drawn for clients,
    /// saved sessions and records of batches that are read. One caller may have half of what the others leave
    /// of all this. Default 201326592 (192 MiB).
    pub(crate) max_buffered_bytes: Option<usize>,
    /// Time limit in milliseconds of a run whose request sets none. Default: `max-timeout`.
    pub(crate) timeout: Option<u64>,
    /// Maximum time limit in milliseconds that a request may set. Default 86400000 (24 hours).
    pub(crate) max_timeout: Option<u64>,
    /// Time in milliseconds that a run has to end after SIGTERM, before it is ended by SIGKILL. Default 5000.
    pub(crate) kill_grace: Option<u64>,
    /// Number of bytes of output that are kept of each stream of a run whose request sets no `outputLimit`.
    /// Default 16777216 (16 MiB).
    pub(crate) output: Option<u64>,
    /// Maximum `outputLimit` in bytes that a request may set. Default 67108864 (64 MiB).
    pub(crate) max_output: Option<u64>,
    /// Limit in milliseconds on the processor time of each process of a run whose request sets none. Default:
    /// `max-cpu-time`.
    pub(crate) cpu_time: Option<u64>,
    /// Maximum processor time limit in milliseconds that a request may set. Default: no limit.
    pub(crate) max_cpu_time: Option<u64>,
    /// Memory limit in bytes of a run whose request sets none. Needs a writable cgroup. Default:
    /// `max-memory`.
    pub(crate) memory: Option<u64>,
    /// Maximum memory limit in bytes that a request may set, of one run with all of its processes. No
    /// setting bounds the server's own process; SECURITY.md has the sum of what callers can make it
    /// hold. Needs a writable cgroup. Default: no limit.
    pub(crate) max_memory: Option<u64>,
    /// Limit on the number of processes of a run whose request sets none. Needs a writable cgroup. Default:
    /// `max-processes`.
    pub(crate) processes: Option<u64>,
    /// Maximum limit on the number of processes that a request may set. Needs a writable cgroup. Default: no
    /// limit.
    pub(crate) max_processes: Option<u64>,
    /// Limit on the number of open files of each process of a run whose request sets none. Default:
    /// `max-open-files`.
    pub(crate) open_files: Option<u64>,
    /// Maximum limit on the number of open files that a request may set. Default: no limit.
    pub(crate) max_open_files: Option<u64>,
    /// Limit in bytes on the size of each file that is written by a process of a run whose request sets none.
    /// Default: `max-file-size`.
    pub(crate) file_size: Option<u64>,
    /// Maximum limit in bytes on the size of a file that a request may set. Default: no limit.
    pub(crate) max_file_size: Option<u64>,
    /// Limit in bytes on the address space of each process of a run whose request sets none. Default:
    /// `max-address-space`.
    pub(crate) address_space: Option<u64>,
    /// Maximum limit in bytes on the address space of a process that a request may set. Default: no limit.
    pub(crate) max_address_space: Option<u64>,
}

/// `[environment]`: environment of commands. `PATH`, `HOME`, `USER`, `LOGNAME` and `SHELL` are always set,
/// and `LANG` unless `LC_ALL` or `LC_CTYPE` is.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EnvironmentTable {
    /// Names of the server's variables that commands inherit; a `*` at the end matches any rest. Replaces the
    /// default list: repeat the names you still want. A pattern that matches `SPLENGINE_TOKEN` is refused.
    /// Default `PATH`, `HOME`, `USER`, `LOGNAME`, `SHELL`, `LANG`, `LC_*`, `TZ`, `TMPDIR`.
    pub(crate) inherit: Option<Vec<String>>,
    /// Table of variables that commands get; they replace inherited ones, and requests can replace them.
    /// Default: none.
    #[serde(default)]
    pub(crate) set: BTreeMap<String, String>,
    /// Names of the variables that requests may set; a `*` at the end matches any rest. A request that sets
    /// another one is refused. Default: any.
    pub(crate) request: Option<Vec<String>>,
}

/// `[cgroup]`: use of cgroups (version 2).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CgroupTable {
    /// Where the cgroups of runs are made: `auto` below the server's own cgroup if that is writable, `off`
    /// nowhere, or the absolute path of a writable cgroup without processes of its own. Default `auto`.
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
            let start = error.span().filter(|span| span.end > 0).map(|span| span.start);
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
