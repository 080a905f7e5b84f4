//! Users, tokens, keys and certificates, which are read again while the server runs.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use splengine_avro::Tls;
use splengine_core::UserName;
use splengine_core::auth::{Accounts, Secret};
use splengine_ssh::Users;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use crate::args::Args;
use crate::file::File;
use crate::servers::Opened;
use crate::settings::{self, Settings, UsageError};
use crate::tokens::{self, Empty, Tokens};

/// All that can be read again, and what it is given to.
pub(crate) struct Reload {
    args: Args,
    /// As it was at the start.
    file: File,
    accounts: Accounts,
    made_token: Option<Secret>,
    /// The user for clients without credentials, as at the start.
    anonymous: Option<UserName>,
    users: Option<Users>,
    tls: Option<Tls>,
    hangups: Signal,
}

/// Of one file that is looked at: where it lies, how large it is and when it was changed, or that it
/// can't be found.
type Stamp = (PathBuf, Option<[i128; 5]>);

impl Reload {
    /// What can be read again of what these were made of.
    pub(crate) fn new(settings: &Settings, opened: &Opened, hangups: Signal) -> Self {
        Self {
            args: settings.args.clone(),
            file: settings.file.clone(),
            accounts: settings.accounts.clone(),
            made_token: settings.made_token.clone(),
            anonymous: settings.anonymous.clone(),
            users: opened.users.clone(),
            tls: opened.tls.clone(),
            hangups,
        }
    }

    /// SIGHUP, which is no end any more from then on.
    pub(crate) fn hangups() -> std::io::Result<Signal> {
        signal(SignalKind::hangup())
    }

    /// Reads everything again on SIGHUP, and when a file has changed and been left alone for a while:
    /// half of one is not read.
    pub(crate) async fn run(mut self) {
        let mut file = self.file.clone();
        let mut read = stamps(self.watched(&file)).await;
        let mut changed = None;
        let mut next = Instant::now() + POLL_INTERVAL;
        loop {
            let is_told = tokio::select! {
                Some(()) = self.hangups.recv() => true,
                () = sleep_until(next) => false,
            };
            next = Instant::now() + POLL_INTERVAL;
            let now = stamps(self.watched(&file)).await;
            if !is_told {
                if now == read {
                    changed = None;
                    continue;
                }
                let is_settled = changed.as_ref() == Some(&now);
                changed = Some(now.clone());
                if !is_settled {
                    continue;
                }
            }
            changed = None;
            read = now;
            tracing::info!(is_told, "reading users, tokens, keys and certificates again");
            self = match tokio::task::spawn_blocking(move || {
                let latest = self.read();
                (self, latest)
            })
            .await
            {
                Ok((reload, Some(latest))) => {
                    // Where it names other files, these are read for once more than they need be.
                    file = latest;
                    reload
                }
                Ok((reload, None)) => reload,
                Err(error) => {
                    tracing::error!(%error, "nothing is read again any more");
                    return;
                }
            };
        }
    }

    /// Each by itself: what is wrong with one leaves that one as it was.
    fn read(&self) -> Option<File> {
        let file = match self.read_accounts() {
            Ok(file) => Some(file),
            Err(error) => {
                tracing::error!(%error, "users and tokens stay as they were");
                None
            }
        };
        if let Some(tls) = &self.tls
            && let Err(error) = self.read_tls(tls)
        {
            tracing::error!(%error, "the certificates stay as they were");
        }
        if let Some(users) = &self.users {
            users.recheck();
        }
        file
    }

    fn read_accounts(&self) -> Result<File, UsageError> {
        let file = self.args.config.as_deref().map(File::read).transpose()?.unwrap_or_default();
        let tokens = Tokens::gather(&self.args, &file, Empty::Taken)?;
        let is_without = tokens.is_empty();
        let mut list = tokens.into_list();
        if let Some(token) = self.made_token.as_ref().filter(|_| is_without) {
            tokens::add_made(&mut list, token)?;
        }
        if let Some(user) = &self.anonymous {
            list = list.allow_anonymous(user.clone());
        }
        let revoked = self.accounts.replace(list);
        tracing::info!(
            revoked,
            "users and tokens were read; those who have less must log in again"
        );
        let fixed = self.file.differing(&file);
        if !fixed.is_empty() {
            tracing::warn!(
                settings = fixed.join(", "),
                "changed settings count from the next start on"
            );
        }
        Ok(file)
    }

    fn read_tls(&self, tls: &Tls) -> Result<(), UsageError> {
        let Some((certificates, key)) = settings::avro_tls(&self.file.avro)? else { return Ok(()) };
        let replaced = tls.replace(&certificates, &key);
        replaced.map_err(|error| UsageError::caused("[avro] certificates", &error))
    }

    fn watched(&self, file: &File) -> Watched {
        let (ssh, avro) = (&self.file.ssh, &self.file.avro);
        let files = [&ssh.trusted_ca, &ssh.revoked_keys, &ssh.passwords];
        let files = files.into_iter().chain([&avro.certificates, &avro.private_key]);
        let files = files.flatten().cloned().chain(self.args.config.clone());
        Watched {
            files: files.chain(tokens::token_file(&self.args, file)).collect(),
            keys: settings::authorized_keys(&self.args, &self.file),
        }
    }
}

struct Watched {
    files: Vec<PathBuf>,
    /// A directory, whose files count, too.
    keys: Option<PathBuf>,
}

async fn stamps(watched: Watched) -> Vec<Stamp> {
    let looked = tokio::task::spawn_blocking(move || {
        let Watched { mut files, keys } = watched;
        if let Some(keys) = keys {
            let entries = std::fs::read_dir(&keys).into_iter().flatten().flatten();
            let mut entries: Vec<_> =
                entries.map(|entry| entry.path()).take(MAX_KEY_FILES).collect();
            entries.sort_unstable();
            files.push(keys);
            files.append(&mut entries);
        }
        files.into_iter().map(stamp).collect()
    });
    looked.await.unwrap_or_default()
}

fn stamp(path: PathBuf) -> Stamp {
    let look = |path: &Path| {
        let found = std::fs::metadata(path).ok()?;
        let time = |seconds: i64, rest: i64| i128::from(seconds) << 64 | i128::from(rest);
        Some([
            i128::from(found.dev()),
            i128::from(found.ino()),
            i128::from(found.size()),
            time(found.mtime(), found.mtime_nsec()),
            time(found.ctime(), found.ctime_nsec()),
        ])
    };
    let looked = look(&path);
    (path, looked)
}

/// How often files are looked at; what has changed is read when it is the same the next time.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Of users' keys. Beyond it a change counts from the next login on, and on SIGHUP.
const MAX_KEY_FILES: usize = 10_000;
