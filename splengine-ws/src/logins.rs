//! The browsers that are logged in. A cookie is a random number, which stands for nothing but an
//! entry here; the entry ends with a log out, with time, or for others.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use splengine_core::auth::{
    Authenticator as _, CredentialSource, Credentials, Revocation, Secret, SharedAuthenticator,
};
use splengine_core::{Caller, Engine};
use tokio::time::Instant;

use crate::login_file::{self, Row};
use crate::login_id::{Hash, LoginId};

/// The logins of one server: at most [`MAX_LOGINS`], and [`MAX_LOGINS_PER_USER`] of one user or, for
/// guests, of one session. Beyond that the one that was used least recently ends.
#[derive(Debug)]
pub(crate) struct Logins {
    entries: Mutex<HashMap<Hash, Entry>>,
    /// Where they are kept, for the next process. One writes at a time.
    file: Option<Arc<tokio::sync::Mutex<File>>>,
    /// How often anything has changed.
    changes: AtomicU64,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    /// How many changes it holds.
    written: u64,
}

/// A login that something goes on by: it is not idle.
#[derive(Debug, Clone)]
pub(crate) struct LoginUse {
    /// When it ends, at the latest.
    pub(crate) until: Instant,
    _in_use: Arc<()>,
}

#[derive(Debug)]
struct Entry {
    /// Of which there is a bounded number: a user's name, or the session of guests.
    of: String,
    /// Nobody yet, in one that the process before has left.
    caller: Option<Caller>,
    revocation: Revocation,
    began: SystemTime,
    until: Instant,
    seen: Instant,
    in_use: Arc<()>,
    /// The token, sealed with the login's id, for one that outlives this process.
    sealed: Option<Vec<u8>>,
}

impl Entry {
    fn is_over(&self, engine: &Engine, now: Instant) -> bool {
        let is_idle = Arc::strong_count(&self.in_use) == 1 && now - self.seen >= IDLE_TIMEOUT;
        let has_lost_rights = self
            .caller
            .as_ref()
            .is_some_and(|caller| caller.is_revoked() || !engine.sessions().is_share_valid(caller));
        now >= self.until || is_idle || has_lost_rights
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // However it ends, whatever goes on by it ends with it.
        self.revocation.revoke();
    }
}

impl Logins {
    /// Those that `file` holds, if there is one.
    pub(crate) fn open(file: Option<PathBuf>) -> Self {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let rows = file.as_deref().map(login_file::read).unwrap_or_default();
        let entry = |row: Row| {
            let age = wall.duration_since(row.began).unwrap_or_default();
            let entry = Entry {
                of: row.user,
                caller: None,
                revocation: Revocation::new(),
                began: row.began,
                until: now + LIFETIME.saturating_sub(age),
                seen: now,
                in_use: Arc::default(),
                sealed: Some(row.sealed),
            };
            (row.hash, entry)
        };
        let entries = rows.into_iter().take(MAX_LOGINS).map(entry).collect();
        let file = file.map(|path| Arc::new(tokio::sync::Mutex::new(File { path, written: 0 })));
        Self { entries: Mutex::new(entries), file, changes: AtomicU64::new(0) }
    }

    /// Logs `caller` in, with this token, or as a guest. `None` where the system has no random numbers.
    pub(crate) async fn add(
        &self,
        engine: &Engine,
        caller: Caller,
        token: Option<&Secret>,
    ) -> Option<LoginId> {
        let id = LoginId::random()?;
        let sealed = match (&self.file, token) {
            (Some(_), Some(token)) => Some(login_file::seal(&id, token)?),
            _ => None,
        };
        let of = match caller.guest() {
            Some(guest) => format!("guests of {}", guest.session),
            None => caller.user().to_string(),
        };
        let (revocation, now) = (Revocation::new(), Instant::now());
        let entry = Entry {
            caller: Some(caller.revocable(&revocation)),
            revocation,
            began: SystemTime::now(),
            until: now + LIFETIME,
            seen: now,
            in_use: Arc::default(),
            sealed,
            of,
        };
        {
            let mut entries = self.lock();
            entries.retain(|_, entry| !entry.is_over(engine, now));
            make_room(&mut entries, &entry.of);
            entries.insert(id.hash(), entry);
        }
        self.write().await;
        Some(id)
    }

    /// Who is logged in by this id.
    pub(crate) async fn find(
        &self,
        engine: &Engine,
        (authenticator, source): (&SharedAuthenticator, &CredentialSource),
        id: &LoginId,
    ) -> Option<(Caller, LoginUse)> {
        let (hash, now) = (id.hash(), Instant::now());
        let token = {
            let mut entries = self.lock();
            let entry = entries.get_mut(&hash)?;
            if entry.is_over(engine, now) {
                entries.remove(&hash);
                return None;
            }
            entry.seen = now;
            match &entry.caller {
                Some(caller) => return Some((caller.clone(), entry.used())),
                None => login_file::open(id, entry.sealed.as_deref()?)?,
            }
        };
        // Left by the process before: whether its token is valid yet is to be asked.
        let caller = authenticator.authenticate(Credentials::Bearer(token), source).await.ok()?;
        let mut entries = self.lock();
        let entry = entries.get_mut(&hash)?;
        let caller = caller.revocable(&entry.revocation);
        let caller = entry.caller.get_or_insert(caller).clone();
        Some((caller, entry.used()))
    }

    /// Logs out.
    pub(crate) async fn end(&self, id: &LoginId) {
        if self.lock().remove(&id.hash()).is_some() {
            self.write().await;
        }
    }

    /// Logs out every browser of `caller`'s user; a guest only where they are.
    pub(crate) async fn end_all(&self, caller: &Caller) {
        let is_meant = |entry: &Entry| entry.of == caller.user().as_str();
        if caller.guest().is_none() {
            self.lock().retain(|_, entry| !is_meant(entry));
            self.write().await;
        }
    }

    /// # Cancel safety
    ///
    /// What has begun to be written is written to its end.
    async fn write(&self) {
        let Some(file) = &self.file else { return };
        let change = self.changes.fetch_add(1, Relaxed) + 1;
        let mut file = Arc::clone(file).lock_owned().await;
        // Whoever wrote while this one waited may have written this change, too.
        if file.written >= change {
            return;
        }
        let holds = self.changes.load(Relaxed);
        let rows: Vec<Row> = {
            let entries = self.lock();
            let sealed = entries.iter().filter_map(|(hash, entry)| {
                let (user, began) = (entry.of.clone(), entry.began);
                Some(Row { hash: *hash, user, began, sealed: entry.sealed.clone()? })
            });
            sealed.collect()
        };
        let writing = tokio::task::spawn_blocking(move || {
            file.written = holds;
            if let Err(error) = login_file::write(&file.path, &rows) {
                let file = file.path.display();
                tracing::warn!(%error, %file, "logins can't be kept for a restart");
            }
        });
        drop(writing.await);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Hash, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn used(&self) -> LoginUse {
        LoginUse { until: self.until, _in_use: Arc::clone(&self.in_use) }
    }
}

/// Ends what is used least recently, of those who have most.
fn make_room(entries: &mut HashMap<Hash, Entry>, of: &str) {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for entry in entries.values() {
        *counts.entry(&entry.of).or_default() += 1;
    }
    let from = if counts.get(of).is_some_and(|count| *count >= MAX_LOGINS_PER_USER) {
        Some(of.to_owned())
    } else if entries.len() >= MAX_LOGINS {
        counts.into_iter().max_by_key(|(_, count)| *count).map(|(of, _)| of.to_owned())
    } else {
        None
    };
    let Some(from) = from else { return };
    let theirs = entries.iter().filter(|(_, entry)| entry.of == from);
    let least = theirs.min_by_key(|(_, entry)| (Arc::strong_count(&entry.in_use) > 1, entry.seen));
    if let Some(hash) = least.map(|(hash, _)| *hash) {
        entries.remove(&hash);
    }
}

/// However much it is used.
pub(crate) const LIFETIME: Duration = Duration::from_hours(7 * 24);
const IDLE_TIMEOUT: Duration = Duration::from_hours(24);
const MAX_LOGINS: usize = 4096;
const MAX_LOGINS_PER_USER: usize = 32;

#[cfg(test)]
mod tests {
    use splengine_core::auth::StaticTokens;
    use splengine_core::{LocalExecutor, Scope};
    use tokio::time::advance;

    use super::*;

    fn engine() -> Engine {
        let executor = LocalExecutor::new(std::env::temp_dir()).expect("set up");
        Engine::builder(executor).build().expect("built")
    }

    fn caller(name: &str) -> Caller {
        Caller::new(name).expect("a name").with_all_scopes()
    }

    fn source() -> CredentialSource {
        CredentialSource::new("ws", None)
    }

    fn tokens() -> SharedAuthenticator {
        let mut tokens = StaticTokens::new();
        tokens.insert(&Secret::new("alices-very-long-token"), caller("alice")).expect("a token");
        SharedAuthenticator::new(tokens)
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_ends_with_time_or_idle() {
        let (engine, logins) = (engine(), Logins::open(None));
        let id = logins.add(&engine, caller("alice"), None).await.expect("random");
        let (alice, used) =
            logins.find(&engine, (&tokens(), &source()), &id).await.expect("logged in");
        advance(IDLE_TIMEOUT * 2).await;
        drop(logins.find(&engine, (&tokens(), &source()), &id).await.expect("in use"));
        drop(used);
        advance(IDLE_TIMEOUT - Duration::from_secs(1)).await;
        assert!(logins.find(&engine, (&tokens(), &source()), &id).await.is_some());
        advance(IDLE_TIMEOUT).await;
        assert!(alice.may(Scope::Execute));
        assert!(logins.find(&engine, (&tokens(), &source()), &id).await.is_none());
        assert!(alice.is_revoked());
        let id = logins.add(&engine, caller("alice"), None).await.expect("random");
        let (_, used) = logins.find(&engine, (&tokens(), &source()), &id).await.expect("logged in");
        advance(LIFETIME - Duration::from_secs(1)).await;
        assert!(logins.find(&engine, (&tokens(), &source()), &id).await.is_some());
        advance(Duration::from_secs(1)).await;
        assert!(logins.find(&engine, (&tokens(), &source()), &id).await.is_none());
        drop(used);
    }

    #[tokio::test(start_paused = true)]
    async fn one_users_logins_end_no_other_users() {
        let (engine, logins) = (engine(), Logins::open(None));
        let bobs = logins.add(&engine, caller("bob"), None).await.expect("random");
        let mut all = Vec::new();
        for _ in 0..MAX_LOGINS_PER_USER + 2 {
            advance(Duration::from_secs(1)).await;
            all.push(logins.add(&engine, caller("alice"), None).await.expect("random"));
        }
        for (place, id) in all.iter().enumerate() {
            let is_there = logins.find(&engine, (&tokens(), &source()), id).await.is_some();
            assert_eq!(is_there, place >= 2, "{place}");
        }
        assert!(logins.find(&engine, (&tokens(), &source()), &bobs).await.is_some());
    }

    #[tokio::test]
    async fn a_login_outlives_the_process_but_not_its_token() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("runtime/logins");
        let (engine, logins) = (engine(), Logins::open(Some(path.clone())));
        let token = Secret::new("alices-very-long-token");
        let id = logins.add(&engine, caller("alice"), Some(&token)).await.expect("random");
        let over = logins.add(&engine, caller("alice"), Some(&token)).await.expect("random");
        logins.end(&over).await;
        drop(logins);
        let kept = std::fs::read(&path).expect("written");
        for secret in [token.expose(), id.expose()] {
            let secret = secret.as_bytes();
            assert!(!kept.windows(secret.len()).any(|bytes| bytes == secret), "in clear");
        }
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).expect("there"));
        assert_eq!(mode & 0o777, 0o600);
        let logins = Logins::open(Some(path.clone()));
        let (alice, _) =
            logins.find(&engine, (&tokens(), &source()), &id).await.expect("logged in");
        assert_eq!(alice, caller("alice"));
        assert!(logins.find(&engine, (&tokens(), &source()), &over).await.is_none());
        logins.end_all(&alice).await;
        assert!(alice.is_revoked());
        assert!(logins.find(&engine, (&tokens(), &source()), &id).await.is_none());
        let id = logins.add(&engine, caller("alice"), Some(&token)).await.expect("random");
        let logins = Logins::open(Some(path.clone()));
        let nobody = SharedAuthenticator::new(StaticTokens::new());
        assert!(logins.find(&engine, (&nobody, &source()), &id).await.is_none());
        std::fs::write(&path, b"something else\n").expect("written");
        assert!(
            Logins::open(Some(path)).find(&engine, (&tokens(), &source()), &id).await.is_none()
        );
    }
}
