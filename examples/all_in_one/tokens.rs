//! Who may come in.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use splengine_core::{Caller, Scope, Secret, StaticTokens};

use crate::settings::UsageError;

/// Adds `USER=TOKEN`, after blanks perhaps the names of scopes; all of them when there are none.
/// The complaint never repeats the token.
pub(crate) fn insert(
    tokens: &mut StaticTokens,
    entry: &str,
    source: &str,
) -> Result<(), UsageError> {
    let complaint = |problem: &dyn std::fmt::Display| UsageError::new(source, &problem.to_string());
    let mut words = entry.split_whitespace();
    let (user, token) = words
        .next()
        .and_then(|word| word.split_once('='))
        .ok_or_else(|| complaint(&"wants the form USER=TOKEN"))?;
    let user = user.parse().map_err(|error| complaint(&error))?;
    let scopes: Vec<Scope> =
        words.map(str::parse).collect::<Result<_, _>>().map_err(|error| complaint(&error))?;
    let caller = if scopes.is_empty() {
        Caller::with_all_scopes(user)
    } else {
        scopes.into_iter().fold(Caller::new(user), Caller::with)
    };
    tokens.insert(&Secret::new(token), caller).map_err(|error| complaint(&error))
}

/// Adds all entries of a file that others can't read.
pub(crate) fn insert_file(tokens: &mut StaticTokens, path: &Path) -> Result<(), UsageError> {
    let name = format!("--tokens {}", path.display());
    let caused = |error| UsageError::caused(&name, &error);
    let mode = std::fs::metadata(path).map_err(caused)?.permissions().mode();
    if mode & 0o007 != 0 {
        let problem = "every user of this host can get at it; chmod 600 it first";
        return Err(UsageError::new(&name, problem));
    }
    let text = std::fs::read_to_string(path).map_err(caused)?;
    for (number, line) in (1..).zip(text.lines()) {
        let entry = line.split('#').next().unwrap_or_default().trim();
        if !entry.is_empty() {
            insert(tokens, entry, &format!("{name} line {number}"))?;
        }
    }
    Ok(())
}

/// A token of 128 random bits.
pub(crate) fn make() -> Result<Secret, UsageError> {
    let mut random = [0u8; 16];
    getrandom::fill(&mut random).map_err(|error| UsageError::caused("a random token", &error))?;
    Ok(Secret::new(random.map(|byte| format!("{byte:02x}")).concat()))
}
