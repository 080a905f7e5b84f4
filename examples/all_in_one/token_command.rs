//! `all-in-one token USER [SCOPE…]`: makes a token.

use std::fs::OpenOptions;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Parser;
use splengine_core::auth::TokenHash;
use splengine_core::{Scope, UserName};

use crate::args::refusal;
use crate::settings::UsageError;
use crate::tokens;

/// With this word first this program is no server, but makes a token.
pub(crate) const NAME: &str = "token";

/// Makes a random token of 128 bits. Prints the token on standard output, this once, and on standard
/// error the line that stands for it in the file of tokens, which holds only its hash.
#[derive(Debug, Parser)]
#[command(name = "all-in-one token")]
struct TokenArgs {
    /// Whose token it is
    user: String,
    #[arg(help = scope_help())]
    scope: Vec<String>,
    /// Adds the line to this file, which is made if it is not there, instead of printing it
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
}

fn scope_help() -> String {
    let names = tokens::scope_names();
    format!("Scopes of the token: {names} [default: all scopes of its user but admin]")
}

pub(crate) fn run() -> Result<(), UsageError> {
    let args = std::env::args_os().skip(1);
    let args = TokenArgs::try_parse_from(args).map_err(|error| refusal(&error))?;
    let user = args.user.parse::<UserName>();
    let user = user.map_err(|error| UsageError::caused("USER", &error))?;
    let scopes = args.scope.iter().map(|scope| scope.parse::<Scope>());
    let scopes: Vec<Scope> =
        scopes.collect::<Result<_, _>>().map_err(|error| UsageError::caused("SCOPE", &error))?;
    let token = tokens::make()?;
    let hash =
        TokenHash::of(&token).map_err(|error| UsageError::caused("a random token", &error))?;
    let names = scopes.iter().map(|scope| format!(" {}", scope.name()));
    let line = format!("{user}={hash}{}\n", names.collect::<String>());
    match &args.tokens {
        Some(path) => append(path, &line)?,
        None => drop(std::io::stderr().write_all(line.as_bytes())),
    }
    let printed = writeln!(std::io::stdout(), "{}", token.expose());
    printed.map_err(|error| UsageError::caused("standard output", &error))
}

fn append(path: &Path, line: &str) -> Result<(), UsageError> {
    let name = format!("--tokens {}", path.display());
    let caused = |error: std::io::Error| UsageError::caused(&name, &error);
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o600);
    let mut file = options.open(path).map_err(caused)?;
    tokens::refuse_open_file(path, &name, "tokens")?;
    let mut last = [b'\n'];
    if file.metadata().map_err(caused)?.len() > 0 {
        file.seek(SeekFrom::End(-1)).map_err(caused)?;
        file.read_exact(&mut last).map_err(caused)?;
    }
    // In one write, which the server reads whole or not at all.
    let begun = if last == [b'\n'] { "" } else { "\n" };
    file.write_all(format!("{begun}{line}").as_bytes()).map_err(caused)?;
    file.sync_all().map_err(caused)
}
