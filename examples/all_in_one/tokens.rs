//! Users, their tokens and their rights.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use splengine_core::auth::{AccountList, Scopes, Secret, TokenError, TokenHash};
use splengine_core::{Scope, UserName};

use crate::args::Args;
use crate::file::File;
use crate::own_files;
use crate::settings::UsageError;

/// The accounts that flags, environment and files name. No complaint repeats what may be a part of a
/// token.
#[derive(Default)]
pub(crate) struct Tokens {
    list: AccountList,
}

/// Whether a file of tokens must hold one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Empty {
    /// At the start, where it is a mistake.
    Refused,
    /// Later, when the last one may have been taken out.
    Taken,
}

impl Tokens {
    /// All that is configured.
    pub(crate) fn gather(args: &Args, file: &File, empty: Empty) -> Result<Self, UsageError> {
        let mut tokens = Self::default();
        for (name, user) in &file.users {
            tokens.bound(name, &user.scopes)?;
        }
        let entries = if args.token.is_empty() { &file.token } else { &args.token };
        let entries = entries.iter().flat_map(|entry| entry.split([',', '\n']));
        for entry in entries.filter(|entry| !entry.trim().is_empty()) {
            tokens.insert(entry, &args.culprit("token"))?;
        }
        if let Some(path) = token_file(args, file) {
            tokens.insert_file(&path, &args.culprit("tokens"), empty)?;
        }
        for user in tokens.list.users_with_excess_scopes() {
            tracing::warn!(%user, "a token names scopes that [users] does not give; it has less");
        }
        Ok(tokens)
    }

    /// Takes `[users.NAME]`.
    fn bound(&mut self, name: &str, scopes: &[String]) -> Result<(), UsageError> {
        let source = format!("[users.{}]", name.escape_debug());
        let caused = |error: &dyn std::error::Error| UsageError::caused(&source, error);
        let scopes = scopes.iter().map(|scope| scope.parse::<Scope>());
        let scopes: Scopes = scopes.collect::<Result<_, _>>().map_err(|error| caused(&error))?;
        let list = std::mem::take(&mut self.list);
        self.list = match name {
            "*" => list.others(scopes),
            _ => list.user(name.parse().map_err(|error| caused(&error))?, scopes),
        };
        Ok(())
    }

    /// Adds `USER=TOKEN`, or the token's hash in its place; after blanks perhaps the names of scopes,
    /// all but `admin` when there are none.
    pub(crate) fn insert(&mut self, entry: &str, source: &str) -> Result<(), UsageError> {
        let complaint = |problem: &str| UsageError::new(source, problem);
        let mut words = entry.split_whitespace();
        let (user, token) = words
            .next()
            .and_then(|word| word.split_once('='))
            .ok_or_else(|| complaint("wants the form USER=TOKEN, or USER=sha256:HEX"))?;
        let user: UserName = user.parse().map_err(|error| UsageError::caused(source, &error))?;
        let scopes: Vec<Scope> = words.map(str::parse).collect::<Result<_, _>>().map_err(|_| {
            complaint(&format!(
                "what stands after the token is no scope; there are: {}",
                scope_names()
            ))
        })?;
        let scopes = if scopes.is_empty() { Scopes::USER } else { scopes.into_iter().collect() };
        let hash = if token.starts_with("sha256:") {
            token.parse().map_err(|error| UsageError::caused(source, &error))?
        } else {
            let hash = TokenHash::of(&Secret::new(token));
            hash.map_err(|error: TokenError| UsageError::caused(source, &error))?
        };
        self.list
            .token(hash, user, scopes)
            .map_err(|error: TokenError| UsageError::caused(source, &error))
    }

    /// Adds all entries of a file that others can't read.
    fn insert_file(&mut self, path: &Path, source: &str, empty: Empty) -> Result<(), UsageError> {
        let name = format!("{source} {}", path.display());
        refuse_open_file(path, &name, "tokens")?;
        let text = own_files::read_text(path, &name)?;
        let mut is_empty = true;
        for (number, line) in (1..).zip(text.lines()) {
            let entry = line.split('#').next().unwrap_or_default().trim();
            if !entry.is_empty() {
                self.insert(entry, &format!("{name} line {number}"))?;
                is_empty = false;
            }
        }
        if is_empty && empty == Empty::Refused {
            return Err(UsageError::new(&name, "holds no token"));
        }
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.list.has_tokens()
    }

    pub(crate) fn into_list(self) -> AccountList {
        self.list
    }
}

/// Which file of tokens there is.
pub(crate) fn token_file(args: &Args, file: &File) -> Option<PathBuf> {
    args.tokens.clone().or_else(|| file.tokens.clone())
}

/// Secrets that every user of the host can read are none. The group may: that is how an
/// orchestrator hands a mounted secret to a server that is not root.
pub(crate) fn refuse_open_file(path: &Path, name: &str, what: &str) -> Result<(), UsageError> {
    let metadata = std::fs::metadata(path).map_err(|error| UsageError::caused(name, &error))?;
    if metadata.permissions().mode() & 0o007 != 0 {
        let problem =
            format!("holds {what}, and every user of this host can get at it; chmod 600 it first");
        return Err(UsageError::new(name, &problem));
    }
    Ok(())
}

/// A token of 128 random bits.
pub(crate) fn make() -> Result<Secret, UsageError> {
    let mut random = [0u8; 16];
    getrandom::fill(&mut random).map_err(|error| UsageError::caused("a random token", &error))?;
    Ok(Secret::new(random.map(|byte| format!("{byte:02x}")).concat()))
}

/// Gives every right to `admin` by a token that was made since none was configured.
pub(crate) fn add_made(list: &mut AccountList, token: &Secret) -> Result<(), UsageError> {
    let caused = |error: &dyn std::error::Error| UsageError::caused("a random token", error);
    let admin = "admin".parse().map_err(|error| caused(&error))?;
    let hash = TokenHash::of(token).map_err(|error| caused(&error))?;
    list.token(hash, admin, Scopes::ALL).map_err(|error| caused(&error))
}

/// The names of all scopes, in one line.
pub(crate) fn scope_names() -> String {
    let names: Vec<_> = Scope::ALL.iter().map(|scope| scope.name()).collect();
    names.join(", ")
}
