//! Flags, each of which can also come from `SPLENGINE_<FLAG>`.

use std::path::PathBuf;

use clap::Parser;

/// Runs commands for others, over HTTP.
#[derive(Debug, Default, Parser)]
#[command(
    name = "all-in-one",
    version,
    after_help = "Each flag can also come from SPLENGINE_<FLAG>, \
    or from the file of --config, whose keys are the flags' names. A flag outranks the environment, \
    which outranks the file."
)]
pub(crate) struct Args {
    /// The directory outside which no command runs [default: /spl if there is one, else the
    /// current directory]
    #[arg(long, value_name = "DIR", env = "SPLENGINE_ROOT")]
    pub(crate) root: Option<PathBuf>,
    /// The program that commands are given to [default: the command's first word]
    #[arg(long, value_name = "PATH", env = "SPLENGINE_PROGRAM")]
    pub(crate) program: Option<String>,
    /// The shell of terminal sessions
    #[arg(long, value_name = "PATH", env = "SPLENGINE_SHELL")]
    pub(crate) shell: Option<String>,
    /// Where the HTTP door is; `off` leaves it out, port 0 takes a free one [default:
    /// 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR", env = "SPLENGINE_HTTP")]
    pub(crate) http: Option<String>,
    /// Where the WebSocket door is
    #[arg(long, value_name = "ADDR", env = "SPLENGINE_WS")]
    pub(crate) ws: Option<String>,
    /// Where the SSH door is
    #[arg(long, value_name = "ADDR", env = "SPLENGINE_SSH")]
    pub(crate) ssh: Option<String>,
    /// Where the Avro RPC door is
    #[arg(long, value_name = "ADDR", env = "SPLENGINE_AVRO")]
    pub(crate) avro: Option<String>,
    /// A user's token; can be given several times, in the environment with commas between.
    /// Other users of the host can see it: --tokens is safer
    #[arg(
        long,
        value_name = "USER=TOKEN",
        env = "SPLENGINE_TOKEN",
        hide_env_values = true,
        value_delimiter = ','
    )]
    pub(crate) token: Vec<String>,
    /// A file of tokens, one USER=TOKEN a line, after blanks perhaps the user's scopes; # begins a
    /// comment. Other users of the host must not be able to read it
    #[arg(long, value_name = "FILE", env = "SPLENGINE_TOKENS")]
    pub(crate) tokens: Option<PathBuf>,
    /// A directory of users' SSH keys
    #[arg(long, value_name = "DIR", env = "SPLENGINE_AUTHORIZED_KEYS")]
    pub(crate) authorized_keys: Option<PathBuf>,
    /// Takes whoever shows no credentials for this user
    #[arg(long, value_name = "USER", env = "SPLENGINE_ANONYMOUS")]
    pub(crate) anonymous: Option<String>,
    /// A TOML file
    #[arg(long, value_name = "FILE", env = "SPLENGINE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// How long running commands have, after SIGTERM, to end by themselves [default: 30]
    #[arg(long, value_name = "SECONDS", env = "SPLENGINE_GRACE")]
    pub(crate) grace: Option<u64>,
}
