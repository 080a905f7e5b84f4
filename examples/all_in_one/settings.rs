//! The settings that result from flags, environment and file.

mod address;
mod checks;
mod stores;

use std::ffi::OsString;
use std::fmt;
use std::num::NonZeroU32;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use splengine_core::auth::{Accounts, AddressRange, GuessingPolicy, Secret};
use splengine_core::engine::EngineBuilder;
use splengine_core::execute::{LimitKind, Program};
use splengine_core::files::FilePolicy;
use splengine_core::local::{CgroupMode, Environment, PtyHost};
use splengine_core::{Limits, UserName};
use splengine_ssh::{Algorithms, HostKeys, Users};

use crate::args::Args;
use crate::file::{
    AlgorithmSet, AlgorithmsTable, AvroTable, BatchesTable, CommandsTable, ConnectionsTable,
    DiskTable, EnvironmentTable, File, FilesTable, GuessingTable, LimitsTable, ProgramTable,
    SessionsTable, SshTable,
};
use crate::own_files::OwnFiles;
pub(crate) use crate::settings::address::Address;
pub(crate) use crate::settings::stores::{batches_dir, store_error};
use crate::tokens::{self, Empty, Tokens};

pub(crate) struct Settings {
    pub(crate) root: PathBuf,
    pub(crate) http: Option<Address>,
    /// Who there is, by which tokens and with which rights.
    pub(crate) accounts: Accounts,
    /// What is read again while the server runs.
    pub(crate) args: Args,
    pub(crate) file: File,
    /// Whoever shows no credentials.
    pub(crate) anonymous: Option<UserName>,
    /// The token that was made since none was configured.
    pub(crate) made_token: Option<Secret>,
    pub(crate) grace: Duration,
    pub(crate) environment: Environment,
    pub(crate) cgroup: CgroupMode,
    pub(crate) base_path: Option<String>,
    pub(crate) allow_origins: Vec<String>,
    pub(crate) max_connections: Option<NonZeroU32>,
    pub(crate) header_timeout: Option<Duration>,
    pub(crate) keep_alive_timeout: Option<Duration>,
    pub(crate) max_body: Option<usize>,
    pub(crate) max_buffered: Option<usize>,
    pub(crate) ws: Option<Address>,
    pub(crate) ws_origins: Vec<String>,
    pub(crate) ws_clients: Option<usize>,
    pub(crate) public_url: Option<String>,
    pub(crate) avro: Option<Address>,
    pub(crate) avro_table: AvroTable,
    pub(crate) ssh: Option<Address>,
    pub(crate) ssh_table: SshTable,
    /// Whether a setting of the SSH server was given.
    ssh_is_wanted: bool,
    /// What to call the setting of the keys in a complaint.
    users: String,
    authorized_keys: Option<PathBuf>,
    pub(crate) own_files: OwnFiles,
    shell: Option<String>,
    sessions: SessionsTable,
    batches: BatchesTable,
    pub(crate) connections: ConnectionsTable,
    disk: DiskTable,
    files: FilesTable,
    guessing: GuessingTable,
    program: Program,
    commands: CommandsTable,
    request_env: Option<Vec<String>>,
    limits: LimitsTable,
    default_limits: Limits,
    max_limits: Limits,
}

/// With this word this program is no server, but keeps a server's terminals.
pub(crate) const HOLD_TERMINALS: &str = "--hold-terminals";

/// Something that was asked for and can't be; names the flag, variable or key.
#[derive(Debug)]
pub(crate) struct UsageError(String);

impl UsageError {
    pub(crate) fn new(culprit: &str, problem: &str) -> Self {
        Self(format!("{culprit}: {problem}"))
    }

    /// The same, after the file of `--config` where it is about a table of it.
    pub(crate) fn of_file(self, file: Option<&Path>) -> Self {
        match file {
            Some(file) if self.0.starts_with('[') => {
                Self(format!("--config {}: {}", file.display(), self.0))
            }
            _ => self,
        }
    }

    pub(crate) fn caused(culprit: &str, error: &dyn std::error::Error) -> Self {
        let mut text = format!("{culprit}: {error}");
        let mut cause = error.source();
        while let Some(error) = cause {
            text += &format!(": {error}");
            cause = error.source();
        }
        Self(text)
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

impl Settings {
    pub(crate) fn gather(args: Args) -> Result<Self, UsageError> {
        let file = args.config.as_deref().map(File::read).transpose()?.unwrap_or_default();
        checks::file(&file)?;
        unknown_variables();
        let asks_for_ssh = args.ssh.is_some() || file.ssh.address.is_some();
        let own_files = OwnFiles::gather(&args, &file);
        let read = file.clone();
        let authorized_keys = authorized_keys(&args, &file);
        // They keep nobody out of the other servers.
        let has_keys = authorized_keys.is_some()
            || file.ssh.trusted_ca.is_some()
            || file.ssh.passwords.is_some();

        let tokens = Tokens::gather(&args, &file, Empty::Refused)?;
        let has_credentials = !tokens.is_empty();
        let mut accounts = tokens.into_list();
        let (mut made_token, mut anonymous) = (None, None::<UserName>);
        match args.anonymous.as_ref().or(file.anonymous.as_ref()) {
            Some(user) => {
                let user: UserName = user
                    .parse()
                    .map_err(|error| UsageError::caused(&args.culprit("anonymous"), &error))?;
                accounts = accounts.allow_anonymous(user.clone());
                anonymous = Some(user);
            }
            None if !has_credentials && authorized_keys.is_none() => {
                let token = tokens::make()?;
                tokens::add_made(&mut accounts, &token)?;
                made_token = Some(token);
            }
            None => {}
        }

        let ws_address = args.ws.clone().or(file.ws.address);
        let ws_address = ws_address.as_deref().unwrap_or("127.0.0.1:8081");
        let http_address = args.http.clone().or(file.http.address);
        let http_address = http_address.as_deref().unwrap_or("127.0.0.1:8080");
        let avro_address = args.avro.clone().or_else(|| file.avro.address.clone());
        let avro_address = avro_address.as_deref().unwrap_or("127.0.0.1:9090");
        let ssh_address = args.ssh.clone().or_else(|| file.ssh.address.clone());
        let ssh_address = ssh_address.as_deref().unwrap_or("127.0.0.1:2222");
        let (default_limits, max_limits) = limits_of_runs(&file.limits);
        let path = children_path(&file.environment);
        let settings = Self {
            root: root(args.root.clone().or(file.root), &args.culprit("root"))?,
            http: Address::parse(&args.culprit("http"), http_address, has_credentials)?,
            accounts: Accounts::new(accounts),
            ws: Address::parse(&args.culprit("ws"), ws_address, has_credentials)?,
            avro: Address::parse(&args.culprit("avro"), avro_address, has_credentials)?,
            ssh: Address::parse(&args.culprit("ssh"), ssh_address, has_keys)?,
            ssh_is_wanted: args.ssh.is_some()
                || file.ssh.address.is_some()
                || !file.ssh.host_keys.is_empty()
                || has_keys,
            ssh_table: file.ssh,
            users: args.culprit("authorized_keys"),
            authorized_keys,
            own_files,
            avro_table: file.avro,
            ws_origins: file.ws.allow_origins,
            ws_clients: file.ws.max_clients,
            public_url: file.ws.public_url.map(public_url).transpose()?,
            shell: shell(&args, file.shell, &path)?,
            sessions: file.sessions,
            batches: file.batches,
            connections: file.connections,
            disk: file.disk,
            files: file.files,
            guessing: file.guessing,
            made_token,
            grace: grace(&args, file.grace)?,
            environment: environment(file.environment.inherit.as_deref(), file.environment.set)?,
            cgroup: cgroup(file.cgroup.mode.as_deref())?,
            base_path: file.http.base_path,
            allow_origins: file.http.allow_origins,
            max_connections: file.http.max_connections,
            header_timeout: file
                .http
                .header_timeout
                .map(|milliseconds| Duration::from_millis(milliseconds.get())),
            keep_alive_timeout: file
                .http
                .keep_alive_timeout
                .map(|milliseconds| Duration::from_millis(milliseconds.get())),
            max_body: file.http.max_body,
            max_buffered: file.http.max_buffered,
            commands: file.commands,
            program: profile(&args, file.program, &path)?,
            request_env: file.environment.request,
            limits: file.limits,
            default_limits,
            max_limits,
            anonymous,
            file: read,
            args,
        };
        settings.check_servers(asks_for_ssh)?;
        Ok(settings)
    }

    /// Who may come in over SSH.
    pub(crate) fn ssh_users(&self) -> Result<Users, UsageError> {
        let table = &self.ssh_table;
        let settings = [
            (&*self.users, &self.authorized_keys, Users::authorized_keys as fn(Users, _) -> Users),
            ("[ssh] trusted-ca", &table.trusted_ca, Users::trusted_ca),
            ("[ssh] revoked-keys", &table.revoked_keys, Users::revoked_keys),
            ("[ssh] passwords", &table.passwords, Users::passwords),
        ];
        let mut users = Users::new().accounts(self.accounts.clone());
        for (setting, path, set) in settings {
            if let Some(path) = path {
                // Alone, so that the setting is named which is wrong.
                let checked = set(Users::new(), path).check();
                checked.map_err(|error| UsageError::caused(setting, &error))?;
                users = set(users, path);
            }
        }
        Ok(users)
    }

    /// Returns the host keys, by which SSH clients know this server; `None` where they can't be kept and
    /// nobody has asked for the SSH server.
    pub(crate) fn host_keys(&self) -> Result<Option<HostKeys>, UsageError> {
        match self.opened_host_keys() {
            Err(error) if !self.ssh_is_wanted => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "there is no SSH server");
                Ok(None)
            }
            keys => Ok(Some(self.certified(keys?)?)),
        }
    }

    fn opened_host_keys(&self) -> Result<HostKeys, UsageError> {
        let wrong = |error: &dyn std::error::Error| UsageError::caused("[ssh] host-keys", error);
        let Some((first, others)) = self.ssh_table.host_keys.split_first() else {
            let directory = self.root.join("runtime/ssh");
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&directory)
                .map_err(|error| wrong(&error))?;
            let keys = HostKeys::open_or_create(directory.join("host_ed25519_key"));
            return keys.map_err(|error| wrong(&error));
        };
        let first = HostKeys::open_or_create(first).map_err(|error| wrong(&error))?;
        others.iter().try_fold(first, |keys, path| keys.and(path).map_err(|error| wrong(&error)))
    }

    fn certified(&self, keys: HostKeys) -> Result<HostKeys, UsageError> {
        let wrong =
            |error: &dyn std::error::Error| UsageError::caused("[ssh] host-certificates", error);
        let mut paths = self.ssh_table.host_certificates.iter();
        paths.try_fold(keys, |keys, path| keys.certificate(path).map_err(|error| wrong(&error)))
    }

    /// As many runs as may have background processes that are kept.
    pub(crate) fn max_background_runs(&self) -> Option<usize> {
        self.commands.max_background_runs
    }

    /// The PTY host of terminals, if sessions are to survive this process.
    pub(crate) fn pty_host(&self) -> Result<Option<PtyHost>, UsageError> {
        if !self.sessions.survive {
            return Ok(None);
        }
        let pty_host = PtyHost::new(self.sessions_dir(), [HOLD_TERMINALS]);
        pty_host.map(Some).map_err(|error| UsageError::caused("[sessions] survive", &error))
    }

    fn sessions_dir(&self) -> PathBuf {
        self.root.join("runtime/sessions")
    }

    /// All that is below root but what the server itself keeps there (others' recordings, what their
    /// batches printed), and what it reads its settings and secrets from.
    fn files(&self) -> FilePolicy {
        let mut policy = FilePolicy::new().hide("runtime");
        // One caller alone has half of them, which is what one client of SFTP may have open.
        if getrlimit(Resource::Nofile).current.is_none_or(|limit| limit >= 16_384) {
            policy = policy.max_open(2304);
        }
        let bound = self.files.max_bytes_per_caller.into_iter();
        self.own_files.hide(&self.root, bound.fold(policy, FilePolicy::max_caller_bytes))
    }

    /// Where the console's logins are kept for the next start.
    pub(crate) fn logins(&self) -> PathBuf {
        self.root.join("runtime/logins")
    }

    fn guessing(&self) -> Result<GuessingPolicy, UsageError> {
        let table = &self.guessing;
        let mut policy = GuessingPolicy::new();
        let times = [
            (table.penalty, GuessingPolicy::penalty as fn(GuessingPolicy, Duration) -> _),
            (table.threshold, GuessingPolicy::threshold),
            (table.max_penalty, GuessingPolicy::max_penalty),
        ];
        for (value, set) in times {
            policy = value.map(Duration::from_millis).into_iter().fold(policy, set);
        }
        let ranges = table.exempt.iter().map(|text| text.parse::<AddressRange>());
        let ranges = ranges.collect::<Result<Vec<_>, _>>();
        let wrong = |error: &dyn std::error::Error| UsageError::caused("[guessing] exempt", error);
        Ok(policy.exempt(ranges.map_err(|error| wrong(&error))?))
    }

    /// The engine with everything that was asked for.
    pub(crate) fn configure(&self, mut engine: EngineBuilder) -> Result<EngineBuilder, UsageError> {
        let limits = &self.limits;
        engine = engine
            .program(self.program.clone())
            .shell_commands(self.commands.shell)
            .sessions(self.sessions()?)
            .files(self.files())
            .guessing(self.guessing()?)
            .default_limits(self.default_limits)
            .max_limits(self.max_limits);
        engine = self.disk.floor.into_iter().fold(engine, EngineBuilder::disk_floor);
        engine = self.batches()?.into_iter().fold(engine, EngineBuilder::batches);
        if let Some(names) = &self.request_env {
            engine = engine.request_env(names);
        }
        let counts = [
            (limits.max_running, EngineBuilder::max_running as Set<usize>),
            (limits.max_running_per_caller, EngineBuilder::max_running_per_caller),
            (limits.max_waiting, EngineBuilder::max_waiting),
            (limits.max_waiting_per_caller, EngineBuilder::max_waiting_per_caller),
            (limits.max_input_bytes, EngineBuilder::max_input_bytes),
            (limits.max_input_bytes_per_caller, EngineBuilder::max_input_bytes_per_caller),
            (limits.max_captured_bytes, EngineBuilder::max_captured_bytes),
            (limits.max_buffered_bytes, EngineBuilder::max_buffered_bytes),
        ];
        for (value, set) in counts {
            engine = value.into_iter().fold(engine, set);
        }
        let times = [
            (limits.timeout, EngineBuilder::default_timeout as Set<Duration>),
            (limits.max_timeout, EngineBuilder::max_timeout),
            (limits.kill_grace, EngineBuilder::grace),
        ];
        for (value, set) in times {
            engine = value.map(Duration::from_millis).into_iter().fold(engine, set);
        }
        let sizes = [
            (limits.output, EngineBuilder::default_output_limit as Set<u64>),
            (limits.max_output, EngineBuilder::max_output_limit),
        ];
        for (value, set) in sizes {
            engine = value.into_iter().fold(engine, set);
        }
        Ok(engine)
    }
}

/// Whose keys let whom in over SSH.
pub(crate) fn authorized_keys(args: &Args, file: &File) -> Option<PathBuf> {
    args.authorized_keys.clone().or_else(|| file.authorized_keys.clone())
}

/// The algorithms that SSH clients may choose from.
pub(crate) fn algorithms(table: &AlgorithmsTable) -> Result<Algorithms, UsageError> {
    let (set, lists) = match table {
        AlgorithmsTable::Set(set) => (*set, None),
        AlgorithmsTable::Lists(lists) => (lists.set, Some(lists)),
    };
    let mut algorithms = match set {
        AlgorithmSet::Strict => Algorithms::strict(),
        AlgorithmSet::Default => Algorithms::new(),
        AlgorithmSet::Compatible => Algorithms::compatible(),
    };
    let Some(lists) = lists else { return Ok(algorithms) };
    let wrong = |key: &str, error: &dyn std::error::Error| {
        UsageError::caused(&format!("[ssh] algorithms.{key}"), error)
    };
    if let Some(names) = &lists.key_exchanges {
        let listed = algorithms.key_exchanges(names.iter().map(String::as_str));
        algorithms = listed.map_err(|error| wrong("key-exchanges", &error))?;
    }
    if let Some(names) = &lists.ciphers {
        let listed = algorithms.ciphers(names.iter().map(String::as_str));
        algorithms = listed.map_err(|error| wrong("ciphers", &error))?;
    }
    if let Some(names) = &lists.macs {
        let listed = algorithms.macs(names.iter().map(String::as_str));
        algorithms = listed.map_err(|error| wrong("macs", &error))?;
    }
    Ok(algorithms)
}

/// The certificates and the private key of the Avro RPC server, if it is to serve TLS.
pub(crate) fn avro_tls(table: &AvroTable) -> Result<Option<(Vec<u8>, Secret)>, UsageError> {
    let read = |path: &Path, key: &str| {
        crate::own_files::read(path, &format!("[avro] {key} = {}", path.display()))
    };
    match (&table.certificates, &table.private_key) {
        (None, None) if table.plain_text == Some(false) => {
            let problem = "takes certificates and a private-key: without TLS nobody is served";
            Err(UsageError::new("[avro] plain-text = false", problem))
        }
        (None, None) => Ok(None),
        (Some(certificates), Some(key)) => {
            let name = format!("[avro] private-key = {}", key.display());
            crate::tokens::refuse_open_file(key, &name, "a private key")?;
            let text = String::from_utf8(read(key, "private-key")?);
            let text = text.map_err(|_| UsageError::new("[avro] private-key", "is no PEM"))?;
            Ok(Some((read(certificates, "certificates")?, Secret::new(text))))
        }
        _ => {
            let problem = "only one is set: TLS takes both, each the path of a PEM file";
            Err(UsageError::new("[avro] certificates and private-key", problem))
        }
    }
}

type Set<T> = fn(EngineBuilder, T) -> EngineBuilder;

pub(crate) fn root(asked: Option<PathBuf>, culprit: &str) -> Result<PathBuf, UsageError> {
    let root = match asked {
        Some(root) => root,
        None if PathBuf::from("/spl").is_dir() => "/spl".into(),
        None => ".".into(),
    };
    let culprit = format!("{culprit} {}", root.display());
    if !root.is_dir() {
        return Err(UsageError::new(&culprit, "is not a directory"));
    }
    // What is looked up in it takes the right to enter it, which every command does.
    match root.join(".").metadata() {
        Ok(_) => Ok(root),
        Err(error) => {
            let problem = format!("can't be entered by the server's user: {error}");
            Err(UsageError::new(&culprit, &problem))
        }
    }
}

fn grace(args: &Args, file: Option<u64>) -> Result<Duration, UsageError> {
    let seconds = match &args.grace {
        Some(text) => text.trim().parse().map_err(|_| {
            let culprit = format!("{} {text}", args.culprit("grace"));
            UsageError::new(&culprit, "is not a whole number of seconds")
        })?,
        None => file.unwrap_or(30),
    };
    Ok(Duration::from_secs(seconds))
}

fn profile(
    args: &Args,
    table: ProgramTable,
    children_path: &OsString,
) -> Result<Program, UsageError> {
    let path = args.program.clone().or(table.path);
    if let Some(path) = &path {
        let refused =
            |problem| Err(UsageError::new(&format!("{} {path}", args.culprit("program")), problem));
        if path.contains('/') {
            if !Path::new(path).is_absolute() {
                return refused("must be an absolute path, or a name on PATH");
            }
            if !Path::new(path).is_file() {
                return refused("is not a file");
            }
            if !is_program(Path::new(path)) {
                return refused("is not executable");
            }
        } else if !std::env::split_paths(children_path).any(|dir| is_program(&dir.join(path))) {
            return refused("is not on the PATH that commands get");
        }
    }
    let mut program = path.map_or_else(Program::any, Program::at);
    if let Some(pattern) = table.failure.stdout {
        program = program
            .failure_in_stdout(&pattern)
            .map_err(|error| UsageError::caused("[program] failure.stdout", &error))?;
    }
    if let Some(pattern) = table.failure.stderr {
        program = program
            .failure_in_stderr(&pattern)
            .map_err(|error| UsageError::caused("[program] failure.stderr", &error))?;
    }
    Ok(program.refuse_arguments(table.refuse_arguments))
}

fn shell(
    args: &Args,
    file: Option<String>,
    children_path: &OsString,
) -> Result<Option<String>, UsageError> {
    let Some(shell) = args.shell.clone().or(file) else { return Ok(None) };
    let refused =
        |problem| Err(UsageError::new(&format!("{} {shell}", args.culprit("shell")), problem));
    if shell.contains('/') {
        if !Path::new(&shell).is_absolute() {
            return refused("must be an absolute path, or a name on PATH");
        }
        if !is_program(Path::new(&shell)) {
            return refused("is not an executable file");
        }
    } else if !std::env::split_paths(children_path).any(|dir| is_program(&dir.join(&shell))) {
        return refused("is not on the PATH that commands get");
    }
    Ok(Some(shell))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// Where commands will look for programs.
fn children_path(table: &EnvironmentTable) -> OsString {
    let is_inherited = table
        .inherit
        .as_ref()
        .is_none_or(|names| names.iter().any(|pattern| names_variable(pattern, "PATH")));
    let inherited = std::env::var_os("PATH").filter(|_| is_inherited);
    let given = table.set.get("PATH").map(OsString::from);
    given.or(inherited).unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into())
}

fn names_variable(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start))
}

fn environment(
    inherit: Option<&[String]>,
    set: std::collections::BTreeMap<String, String>,
) -> Result<Environment, UsageError> {
    let mut environment = match inherit {
        None => Environment::inherited(),
        Some(names) => {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            if let Some(pattern) = names.iter().find(|name| names_variable(name, "SPLENGINE_TOKEN"))
            {
                let problem =
                    format!("`{pattern}` would give the server's tokens to every command");
                return Err(UsageError::new("[environment] inherit", &problem));
            }
            Environment::minimal().inherit(&names).with_usual()
        }
    };
    for (name, value) in set {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            let problem = "a name is not empty and holds no `=`, and neither it nor its value NUL";
            return Err(UsageError::new(&format!("[environment] set.{name}"), problem));
        }
        environment = environment.set(name, value);
    }
    Ok(environment)
}

/// Limits of runs that name none, and the most that a request may ask for.
fn limits_of_runs(table: &LimitsTable) -> (Limits, Limits) {
    let all = [
        (LimitKind::CpuTime, table.cpu_time, table.max_cpu_time),
        (LimitKind::Memory, table.memory, table.max_memory),
        (LimitKind::Processes, table.processes, table.max_processes),
        (LimitKind::OpenFiles, table.open_files, table.max_open_files),
        (LimitKind::FileSize, table.file_size, table.max_file_size),
        (LimitKind::AddressSpace, table.address_space, table.max_address_space),
    ];
    let with = |limits: Limits, kind, value| match value {
        Some(value) => limits.with(kind, value),
        None => limits,
    };
    all.into_iter().fold(<(Limits, Limits)>::default(), |(default, max), (kind, value, most)| {
        (with(default, kind, value), with(max, kind, most))
    })
}

fn cgroup(mode: Option<&str>) -> Result<CgroupMode, UsageError> {
    match mode {
        None | Some("auto") => Ok(CgroupMode::Auto),
        Some("off") => Ok(CgroupMode::Off),
        Some(path) if path.starts_with('/') => Ok(CgroupMode::At(path.into())),
        Some(other) => {
            let problem = "is none of `auto`, `off` and the absolute path of a cgroup's directory";
            Err(UsageError::new(&format!("[cgroup] mode = {other}"), problem))
        }
    }
}

/// Warns of variables that look like a setting, such as one that is misspelt.
fn unknown_variables() {
    let known: Vec<String> = Args::variables();
    // Its own tests and build script have some, too.
    let others =
        ["SPLENGINE_TEST_", "SPLENGINE_WS_", "SPLENGINE_SERVER", "SPLENGINE_RELEASE_SERVER"];
    for (name, _) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with("SPLENGINE_")) else {
            continue;
        };
        if !known.iter().any(|one| one == name)
            && !others.iter().any(|other| name.starts_with(other))
        {
            tracing::warn!(name, "the environment has a variable that is no setting: see --help");
        }
    }
}

/// The address of the console's directory: with a slash at its end, since what the page loads is
/// relative to it.
fn public_url(url: String) -> Result<String, UsageError> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let is_url = rest.is_some_and(|rest| !rest.starts_with('/') && !rest.is_empty());
    if !is_url || url.contains(['#', '?', ' ']) {
        let problem = format!(
            "`{url}` is not the address of a page; such look like `https://example.org/console/`"
        );
        return Err(UsageError::new("[ws] public-url", &problem));
    }
    Ok(if url.ends_with('/') { url } else { url + "/" })
}
