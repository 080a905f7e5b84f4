//! Flags, each of which can also come from `SPLENGINE_<FLAG>`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{CommandFactory as _, FromArgMatches as _, Parser};

use crate::settings::UsageError;

/// Runs commands for others: over HTTP, WebSocket, SSH and Avro RPC.
#[derive(Debug, Clone, Default, Parser)]
#[command(
    name = "all-in-one",
    version,
    after_help = "Each flag can also come from SPLENGINE_<FLAG>, \
    or from the file of --config, whose keys are the flags' names. A flag outranks the environment, \
    which outranks the file. `all-in-one token USER` makes a token; `all-in-one export-batches` and \
    `all-in-one repair-batches` read and repair the store of batches. Each has a --help of its own."
)]
pub(crate) struct Args {
    /// The directory outside which no command runs and no file is served [default: /spl if there is one,
    /// else the current directory]
    #[arg(long, value_name = "DIR", env = "SPLENGINE_ROOT")]
    pub(crate) root: Option<PathBuf>,
    /// The program whose arguments the words of a command are [default: none; the first word of a command
    /// names its program]
    #[arg(long, value_name = "PATH", env = "SPLENGINE_PROGRAM")]
    pub(crate) program: Option<String>,
    /// The shell of terminal sessions [default: bash, or sh where there is none]
    #[arg(long, value_name = "PATH", env = "SPLENGINE_SHELL")]
    pub(crate) shell: Option<String>,
    /// Address of the HTTP server: HOST:PORT, where port 0 stands for any free port, or a UNIX socket,
    /// unix:PATH or unix:PATH,mode=0660; `off` starts no such server [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR", env = "SPLENGINE_HTTP")]
    pub(crate) http: Option<String>,
    /// Address of the WebSocket server, as for --http [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR", env = "SPLENGINE_WS")]
    pub(crate) ws: Option<String>,
    /// Address of the SSH server, as for --http [default: 127.0.0.1:2222]
    #[arg(long, value_name = "ADDR", env = "SPLENGINE_SSH")]
    pub(crate) ssh: Option<String>,
    /// Address of the Avro RPC server, as for --http [default: 127.0.0.1:9090]
    #[arg(long, value_name = "ADDR", env = "SPLENGINE_AVRO")]
    pub(crate) avro: Option<String>,
    /// A user's token, USER=TOKEN; can be given several times, in the environment with commas or line ends
    /// between. Other users of the host can see the flag: --tokens is safer
    #[arg(long, value_name = "USER=TOKEN", env = "SPLENGINE_TOKEN", hide_env_values = true)]
    pub(crate) token: Vec<String>,
    /// A file of tokens, one `USER=TOKEN SCOPE…` per line, with scopes or without; # begins a comment.
    /// A token's hash can stand for the token, as `all-in-one token USER` makes it. Other users of the
    /// host must not be able to read the file
    #[arg(long, value_name = "FILE", env = "SPLENGINE_TOKENS")]
    pub(crate) tokens: Option<PathBuf>,
    /// A directory of users' SSH keys, in OpenSSH's format: a file for each user, named after the user
    #[arg(long, value_name = "DIR", env = "SPLENGINE_AUTHORIZED_KEYS")]
    pub(crate) authorized_keys: Option<PathBuf>,
    /// The user that clients without credentials are treated as
    #[arg(long, value_name = "USER", env = "SPLENGINE_ANONYMOUS")]
    pub(crate) anonymous: Option<String>,
    /// The file of further settings, in TOML [default: none]
    #[arg(long, value_name = "FILE", env = "SPLENGINE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Time in seconds that running commands have, when the server is ended by SIGTERM, to end by
    /// themselves; the server usually ends within 10 seconds after that, up to about a minute if
    /// programs can't be ended or the disk accepts no writes [default: 30]
    #[arg(long, value_name = "SECONDS", env = "SPLENGINE_GRACE")]
    pub(crate) grace: Option<String>,
    /// What the flags that were given are to be called in a complaint.
    #[arg(skip)]
    names: BTreeMap<String, String>,
}

impl Args {
    /// What this process was called with. Asked for help, it gives it, and ends the process.
    pub(crate) fn gather() -> Result<Self, UsageError> {
        let mut matches = Self::command().try_get_matches().map_err(|error| refusal(&error))?;
        let names = matches
            .ids()
            .filter_map(|id| match matches.value_source(id.as_str())? {
                ValueSource::EnvVariable => {
                    Some((id.to_string(), format!("SPLENGINE_{}", id.as_str().to_uppercase())))
                }
                _ => Some((id.to_string(), flag(id.as_str()))),
            })
            .collect();
        let args = Self::from_arg_matches_mut(&mut matches).map_err(|error| refusal(&error))?;
        Ok(Self { names, ..args })
    }

    /// Names of all variables of the environment that are settings.
    pub(crate) fn variables() -> Vec<String> {
        let command = Self::command();
        let names = command.get_arguments().filter_map(|argument| argument.get_env());
        names.filter_map(|name| name.to_str().map(str::to_owned)).collect()
    }

    /// What to call the setting with this name in a complaint: after where it came from.
    pub(crate) fn culprit(&self, name: &str) -> String {
        self.names.get(name).cloned().unwrap_or_else(|| match &self.config {
            Some(file) => format!("`{}` in {}", name.replace('_', "-"), file.display()),
            None => flag(name),
        })
    }
}

fn flag(name: &str) -> String {
    format!("--{}", name.replace('_', "-"))
}

/// In one line, and without what may be a token that lost its flag.
pub(crate) fn refusal(error: &clap::Error) -> UsageError {
    if !error.use_stderr() {
        error.exit();
    }
    match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(argument))) => {
            let name = argument.split('=').next().unwrap_or_default();
            if name.starts_with('-') {
                UsageError::new(name, "there is no such flag")
            } else {
                UsageError::new("arguments", "one belongs to no flag; all begin with `--`")
            }
        }
        _ => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            UsageError::new("arguments", line.trim_start_matches("error: "))
        }
    }
}
