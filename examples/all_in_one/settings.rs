//! What flags, environment and file come to together.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::Duration;

use splengine_core::{
    Caller, CgroupMode, EngineBuilder, Environment, LimitKind, Limits, Program, Secret,
    SharedAuthenticator, StaticTokens,
};

use crate::args::Args;
use crate::file::{File, LimitsTable, ProgramTable};
use crate::tokens;

pub(crate) struct Settings {
    pub(crate) root: PathBuf,
    pub(crate) http: Option<Vec<SocketAddr>>,
    pub(crate) tokens: SharedAuthenticator,
    /// The token that was made since none was configured.
    pub(crate) made_token: Option<Secret>,
    pub(crate) grace: Duration,
    pub(crate) environment: Environment,
    pub(crate) cgroup: CgroupMode,
    pub(crate) allow_origins: Vec<String>,
    pub(crate) max_connections: Option<usize>,
    pub(crate) header_timeout: Option<Duration>,
    pub(crate) max_body: Option<usize>,
    program: Program,
    request_env: Option<Vec<String>>,
    limits: LimitsTable,
    default_limits: Limits,
    max_limits: Limits,
}

/// Something that was asked for and can't be; names the flag, variable or key.
#[derive(Debug)]
pub(crate) struct UsageError(String);

impl UsageError {
    pub(crate) fn new(culprit: &str, problem: &str) -> Self {
        Self(format!("{culprit}: {problem}"))
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
        warn_of_missing_doors(&args, &file);
        let (http, program) = (file.http, file.program);
        let token_entries = if args.token.is_empty() { file.token } else { args.token };
        let token_file = args.tokens.or(file.tokens);
        let anonymous = args.anonymous.or(file.anonymous);
        let has_keys = args.authorized_keys.or(file.authorized_keys).is_some();
        let has_credentials = !token_entries.is_empty() || token_file.is_some() || has_keys;

        let mut accepted = StaticTokens::new();
        for entry in &token_entries {
            tokens::insert(&mut accepted, entry, "--token")?;
        }
        if let Some(path) = &token_file {
            tokens::insert_file(&mut accepted, path)?;
        }
        let mut made_token = None;
        match &anonymous {
            Some(user) => {
                let user =
                    user.parse().map_err(|error| UsageError::caused("--anonymous", &error))?;
                accepted = accepted.allow_anonymous(Caller::with_all_scopes(user));
            }
            None if !has_credentials => {
                let token = tokens::make()?;
                let admin = "admin".parse().map_err(|error| UsageError::caused("admin", &error))?;
                accepted
                    .insert(&token, Caller::with_all_scopes(admin))
                    .map_err(|error| UsageError::caused("a random token", &error))?;
                made_token = Some(token);
            }
            None => {}
        }

        let http_address =
            args.http.or(http.address).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
        let (default_limits, max_limits) = limits_of_runs(&file.limits)?;
        Ok(Self {
            root: root(args.root.or(file.root))?,
            http: address("--http", &http_address, has_credentials)?,
            tokens: SharedAuthenticator::new(accepted),
            made_token,
            grace: Duration::from_secs(args.grace.or(file.grace).unwrap_or(30)),
            environment: environment(file.environment.inherit.as_deref(), file.environment.set),
            cgroup: match file.cgroup.mode.as_deref() {
                None | Some("auto") => CgroupMode::Auto,
                Some("off") => CgroupMode::Off,
                Some(path) => CgroupMode::At(path.into()),
            },
            allow_origins: http.allow_origins,
            max_connections: http.max_connections,
            header_timeout: http.header_timeout.map(Duration::from_millis),
            max_body: http.max_body,
            program: profile(args.program, program)?,
            request_env: file.environment.request,
            limits: file.limits,
            default_limits,
            max_limits,
        })
    }

    /// The engine with everything that was asked for.
    pub(crate) fn configure(&self, mut engine: EngineBuilder) -> EngineBuilder {
        let limits = &self.limits;
        engine = engine
            .program(self.program.clone())
            .default_limits(self.default_limits)
            .max_limits(self.max_limits);
        if let Some(names) = &self.request_env {
            engine = engine.request_env(names);
        }
        let counts = [
            (limits.max_running, EngineBuilder::max_running as Set<usize>),
            (limits.max_running_per_caller, EngineBuilder::max_running_per_caller),
            (limits.max_waiting, EngineBuilder::max_waiting),
            (limits.max_waiting_per_caller, EngineBuilder::max_waiting_per_caller),
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
        engine
    }
}

type Set<T> = fn(EngineBuilder, T) -> EngineBuilder;

fn root(asked: Option<PathBuf>) -> Result<PathBuf, UsageError> {
    let root = match asked {
        Some(root) => root,
        None if PathBuf::from("/spl").is_dir() => "/spl".into(),
        None => ".".into(),
    };
    if root.is_dir() {
        Ok(root)
    } else {
        Err(UsageError::new(&format!("--root {}", root.display()), "is not a directory"))
    }
}

/// The addresses behind `text`; `None` for `off`. Beyond loopback only with credentials: whoever
/// reaches the port would be in.
fn address(
    flag: &str,
    text: &str,
    has_credentials: bool,
) -> Result<Option<Vec<SocketAddr>>, UsageError> {
    if text == "off" {
        return Ok(None);
    }
    let culprit = format!("{flag} {text}");
    let addresses: Vec<SocketAddr> = text
        .to_socket_addrs()
        .map_err(|_| UsageError::new(&culprit, "is no address; wanted is HOST:PORT, or `off`"))?
        .collect();
    if !has_credentials && !addresses.iter().all(|address| address.ip().is_loopback()) {
        let problem = "is not loopback, and that takes credentials: give --token or --tokens";
        return Err(UsageError::new(&culprit, problem));
    }
    Ok(Some(addresses))
}

fn profile(path: Option<String>, table: ProgramTable) -> Result<Program, UsageError> {
    let path = path.or(table.path);
    if let Some(path) = path.as_deref().filter(|path| path.contains('/')) {
        if !std::path::Path::new(path).is_absolute() {
            let culprit = format!("--program {path}");
            return Err(UsageError::new(&culprit, "must be an absolute path, or a name on PATH"));
        }
        if !std::path::Path::new(path).is_file() {
            return Err(UsageError::new(&format!("--program {path}"), "is not a file"));
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

fn environment(
    inherit: Option<&[String]>,
    set: std::collections::BTreeMap<String, String>,
) -> Environment {
    let inherited = match inherit {
        None => Environment::inherited(),
        Some(names) => {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            Environment::minimal().inherit(&names)
        }
    };
    set.into_iter().fold(inherited, |environment, (name, value)| environment.set(name, value))
}

/// `memory` and its like, with `max-memory` and its like for the most that a request may ask for.
fn limits_of_runs(table: &LimitsTable) -> Result<(Limits, Limits), UsageError> {
    let (mut default, mut max) = (Limits::default(), Limits::default());
    for (key, value) in &table.of_runs {
        let (name, limits) = match key.strip_prefix("max-") {
            Some(name) => (name, &mut max),
            None => (key.as_str(), &mut default),
        };
        let kind = match name {
            "cpu-time" => LimitKind::CpuTime,
            "memory" => LimitKind::Memory,
            "open-files" => LimitKind::OpenFiles,
            "processes" => LimitKind::Processes,
            "file-size" => LimitKind::FileSize,
            _ => return Err(UsageError::new("[limits]", &format!("there is no key `{key}`"))),
        };
        *limits = limits.with(kind, *value);
    }
    Ok((default, max))
}

/// What belongs to doors that this build does not have is no error, so that one configuration
/// serves every version; but nobody shall take it for done.
fn warn_of_missing_doors(args: &Args, file: &File) {
    let off = |value: &Option<String>| value.as_deref().is_none_or(|value| value == "off");
    for (flag, unused) in [
        ("ws", off(&args.ws) && off(&file.ws)),
        ("ssh", off(&args.ssh) && off(&file.ssh)),
        ("avro", off(&args.avro) && off(&file.avro)),
        ("shell", args.shell.is_none() && file.shell.is_none()),
        ("authorized-keys", args.authorized_keys.is_none() && file.authorized_keys.is_none()),
    ] {
        if !unused {
            tracing::warn!("this build has no door that `{flag}` belongs to; it is ignored");
        }
    }
}
