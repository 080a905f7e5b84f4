//! Who may come in.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use splengine_core::{Caller, Scope, Secret, StaticTokens, TokenError, UserName};

use crate::settings::UsageError;

/// The tokens that were configured. No complaint repeats what may be a part of one.
#[derive(Default)]
pub(crate) struct Tokens {
    accepted: StaticTokens,
    owners: HashMap<String, UserName>,
}

impl Tokens {
    /// Adds `USER=TOKEN`, after blanks perhaps the names of scopes; all of them when there are
    /// none.
    pub(crate) fn insert(&mut self, entry: &str, source: &str) -> Result<(), UsageError> {
        let complaint = |problem: &str| UsageError::new(source, problem);
        let mut words = entry.split_whitespace();
        let (user, token) = words
            .next()
            .and_then(|word| word.split_once('='))
            .ok_or_else(|| complaint("wants the form USER=TOKEN"))?;
        let user: UserName = user.parse().map_err(|error| UsageError::caused(source, &error))?;
        let scopes: Vec<Scope> = words.map(str::parse).collect::<Result<_, _>>().map_err(|_| {
            complaint(&format!("what stands after the token is no scope; {SCOPES}"))
        })?;
        let caller = if scopes.is_empty() {
            Caller::with_all_scopes(user.clone())
        } else {
            scopes.into_iter().fold(Caller::new(user.clone()), Caller::with)
        };
        self.accepted
            .insert(&Secret::new(token), caller)
            .map_err(|error: TokenError| UsageError::caused(source, &error))?;
        match self.owners.insert(token.to_owned(), user.clone()) {
            Some(other) if other != user => {
                Err(complaint(&format!("`{other}` and `{user}` have the same token")))
            }
            _ => Ok(()),
        }
    }

    /// Adds all entries of a file that others can't read.
    pub(crate) fn insert_file(&mut self, path: &Path, source: &str) -> Result<(), UsageError> {
        let name = format!("{source} {}", path.display());
        refuse_open_file(path, &name)?;
        let text = std::fs::read_to_string(path).map_err(|e| UsageError::caused(&name, &e))?;
        let mut is_empty = true;
        for (number, line) in (1..).zip(text.lines()) {
            let entry = line.split('#').next().unwrap_or_default().trim();
            if !entry.is_empty() {
                self.insert(entry, &format!("{name} line {number}"))?;
                is_empty = false;
            }
        }
        if is_empty {
            return Err(UsageError::new(&name, "holds no token"));
        }
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    pub(crate) fn into_accepted(self) -> StaticTokens {
        self.accepted
    }
}

/// Secrets that every user of the host can read are none. The group may: that is how an
/// orchestrator hands a mounted secret to a server that is not root.
pub(crate) fn refuse_open_file(path: &Path, name: &str) -> Result<(), UsageError> {
    let metadata = std::fs::metadata(path).map_err(|error| UsageError::caused(name, &error))?;
    if metadata.permissions().mode() & 0o007 != 0 {
        let problem = "holds tokens, and every user of this host can get at it; chmod 600 it first";
        return Err(UsageError::new(name, problem));
    }
    Ok(())
}

/// A token of 128 random bits.
pub(crate) fn make() -> Result<Secret, UsageError> {
    let mut random = [0u8; 16];
    getrandom::fill(&mut random).map_err(|error| UsageError::caused("a random token", &error))?;
    Ok(Secret::new(random.map(|byte| format!("{byte:02x}")).concat()))
}

const SCOPES: &str = "there are: execute, sessions, watch, files";
