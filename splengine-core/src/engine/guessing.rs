//! Failed authentications: counted, logged, and held back.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use crate::auth::{AuthError, CredentialSource, GuessingPolicy, Penalties, Secret};
use crate::net::LogBudget;

/// What one engine knows of failed authentications.
#[derive(Debug)]
pub(crate) struct Guessing {
    state: Mutex<State>,
    log: LogBudget,
    /// Of credentials that can't be checked.
    outages: LogBudget,
    blocks: LogBudget,
    refused: AtomicU64,
    /// Answers that are held back, and attempts that wait for their turn.
    held_back: Semaphore,
    /// Whether there was any failure: else nobody is looked up.
    has_failed: AtomicBool,
    /// Nobody outside can tell which texts have the same fingerprint.
    fingerprints: RandomState,
}

#[derive(Debug)]
struct State {
    penalties: Penalties,
    failures: BTreeMap<&'static str, u64>,
}

/// What is counted of authentications.
#[derive(Debug, Default)]
pub(crate) struct AuthenticationCounts {
    pub(crate) failures: Vec<(&'static str, u64)>,
    pub(crate) refused: u64,
    pub(crate) penalised: u64,
    pub(crate) blocked: u64,
}

impl Guessing {
    pub(crate) fn new(policy: GuessingPolicy) -> Self {
        let penalties = Penalties::new(policy);
        Self {
            state: Mutex::new(State { penalties, failures: BTreeMap::new() }),
            log: LogBudget::default(),
            outages: LogBudget::default(),
            blocks: LogBudget::default(),
            refused: AtomicU64::new(0),
            held_back: Semaphore::new(MAX_HELD_BACK),
            has_failed: AtomicBool::new(false),
            fingerprints: RandomState::new(),
        }
    }

    pub(crate) fn counts(&self) -> AuthenticationCounts {
        let mut state = self.lock();
        let (penalised, blocked) = state.penalties.counts(Instant::now());
        AuthenticationCounts {
            failures: state.failures.iter().map(|(server, count)| (*server, *count)).collect(),
            refused: self.refused.load(Relaxed),
            penalised: penalised as u64,
            blocked: blocked as u64,
        }
    }

    pub(super) fn blocked_for(&self, source: &CredentialSource) -> Option<Duration> {
        if !self.has_failed.load(Relaxed) {
            return None;
        }
        self.lock().penalties.blocked_for(source.client(), Instant::now())
    }

    pub(super) fn refuse(&self, retry_after: Duration) -> AuthError {
        self.refused.fetch_add(1, Relaxed);
        AuthError::Throttled { retry_after }
    }

    /// Waits until it is the turn of an attempt at this user's password.
    pub(super) async fn turn(
        &self,
        source: &CredentialSource,
        user: &str,
    ) -> Result<(), AuthError> {
        let user = self.fingerprints.hash_one(user);
        let turn = self.lock().penalties.attempt(user, source.client(), Instant::now());
        let wait = turn.map_err(|retry_after| self.refuse(retry_after))?;
        if !wait.is_zero() {
            let place = self.held_back.try_acquire().map_err(|_| self.refuse(wait))?;
            sleep(wait).await;
            drop(place);
        }
        Ok(())
    }

    /// Counts a failure, and holds its answer back.
    pub(super) async fn answer(
        &self,
        error: &AuthError,
        source: &CredentialSource,
        user: Option<&str>,
        shown: &Secret,
    ) {
        if !matches!(error, AuthError::Invalid) {
            return;
        }
        let delay = self.fail(source, user, Some(shown.expose()));
        // Where too many are held back already, this one is not.
        if let Ok(_place) = self.held_back.try_acquire() {
            sleep(delay).await;
        }
    }

    /// Counts and logs a failure. Returns how long its answer is to be held back.
    pub(super) fn fail(
        &self,
        source: &CredentialSource,
        user: Option<&str>,
        shown: Option<&str>,
    ) -> Duration {
        let fingerprint = self.fingerprints.hash_one((user, shown));
        let (server, client) = (source.server(), source.client());
        let mut state = self.lock();
        self.has_failed.store(true, Relaxed);
        let now = Instant::now();
        *state.failures.entry(server).or_default() += 1;
        let penalised = state.penalties.fail(client, fingerprint, now);
        if let Some(user) = user {
            state.penalties.fail_user(self.fingerprints.hash_one(user), now);
        }
        drop(state);
        let address = client.shown().map(tracing::field::display);
        if let Some(unlogged) = self.log.take(()) {
            // Whatever it is, it goes into the log by its name only if it could be one.
            let user = user.map(|user| user.parse::<crate::user_name::UserName>());
            let user = user.as_ref().map(|user| user.as_ref().map_or("?", |user| user.as_str()));
            tracing::warn!(server, address, user, unlogged, "an authentication failed");
        }
        if let Some(time) = penalised.blocked_for
            && let Some(unlogged) = self.blocks.take(())
        {
            tracing::warn!(server, address, ?time, unlogged, "an address is blocked: it guesses");
        }
        penalised.delay
    }

    /// Logs that an authenticator can't tell who somebody is.
    pub(super) fn log_outage(&self, error: &AuthError, source: &CredentialSource) {
        let AuthError::Unavailable(error) = error else { return };
        if let Some(unlogged) = self.outages.take(()) {
            let server = source.server();
            tracing::error!(%error, server, unlogged, "credentials can't be checked");
        }
    }

    pub(super) fn succeed(&self, source: &CredentialSource, user: &str) {
        let user = self.fingerprints.hash_one(user);
        self.lock().penalties.succeed_user(user, source.client(), Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const MAX_HELD_BACK: usize = 256;
