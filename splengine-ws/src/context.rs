//! The state that all routes and WebSockets share.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use splengine_core::auth::SharedAuthenticator;
use splengine_core::net::{LogBudget, OriginPolicy};
use splengine_core::quota::{
    CallerBudgets, CallerPlace, CallerPlaces, GatherLimits, MemoryBudget, PlaceError,
};
use splengine_core::session::SessionPolicy;
use splengine_core::{Caller, Engine};
use splengine_http::HttpService;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::logins::Logins;

/// What is set up once for all requests.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) origins: OriginPolicy,
    pub(crate) console: bool,
    pub(crate) max_clients: usize,
    pub(crate) max_message: usize,
    pub(crate) max_buffered: usize,
    pub(crate) ping_every: Duration,
    pub(crate) max_linger: Duration,
}

/// The engine, the options and whatever else requests share.
pub(crate) struct Context {
    pub(crate) engine: Engine,
    pub(crate) authenticator: SharedAuthenticator,
    pub(crate) logins: Logins,
    pub(crate) options: Options,
    /// Of lines on origins that are refused.
    pub(crate) refused_origins: LogBudget,
    pub(crate) api: HttpService,
    /// The places of WebSockets whose callers are known.
    clients: CallerPlaces,
    /// Of those whose callers are not known yet, where no limits of connections bound them.
    pub(crate) unknown_clients: Arc<Semaphore>,
    /// Of those that were refused and are told why.
    pub(crate) refused_clients: CallerPlaces,
    /// The shares of callers in what messages hold that are being read or wait to be typed.
    pub(crate) budgets: CallerBudgets,
    /// The part of all that that clients have of whom nobody is recognised yet.
    pub(crate) unknown: MemoryBudget,
    /// Of the bodies of logins, whose clients are not authenticated yet.
    pub(crate) login_limits: GatherLimits,
    /// Turns true when everybody is to leave.
    pub(crate) closing: watch::Sender<bool>,
}

impl Context {
    pub(crate) fn new(
        engine: Engine,
        authenticator: SharedAuthenticator,
        api: HttpService,
        options: Options,
        logins: Option<PathBuf>,
    ) -> Self {
        let budget = engine.memory_budget(options.max_buffered);
        let unknown = budget.share(options.max_buffered / 4);
        let clients = CallerPlaces::new(options.max_clients);
        let unknown_clients = Semaphore::new(options.max_clients.min(Semaphore::MAX_PERMITS));
        let refused_clients = CallerPlaces::bounded(options.max_clients, MAX_REFUSED_PER_CALLER);
        Self {
            engine,
            authenticator,
            logins: Logins::open(logins),
            options,
            refused_origins: LogBudget::new(1),
            api,
            clients,
            unknown_clients: Arc::new(unknown_clients),
            refused_clients,
            login_limits: GatherLimits::new(MAX_LOGIN_BYTES, LOGIN_TIMEOUT, &unknown),
            budgets: CallerBudgets::new(&budget),
            unknown,
            closing: watch::channel(false).0,
        }
    }

    /// Takes the place of a WebSocket of `caller`.
    pub(crate) fn take_place(&self, caller: &Caller) -> Result<CallerPlace, PlaceError> {
        let user = caller.accounted_user();
        match caller.guest() {
            Some(_) => self.clients.take_guest(user, caller.user(), MAX_CLIENTS_PER_GUEST),
            None => self.clients.take(user),
        }
    }

    pub(crate) async fn close(&self) {
        self.closing.send_replace(true);
        // Each WebSocket has a receiver.
        let gone = self.closing.closed();
        if timeout(self.options.max_linger, gone).await.is_err() {
            tracing::info!("some clients did not leave in time");
        }
    }
}

/// Twice as many as a session takes of clients with one share.
const MAX_CLIENTS_PER_GUEST: usize = 2 * SessionPolicy::MAX_CLIENTS_PER_SHARE;
const MAX_REFUSED_PER_CALLER: usize = 8;
const MAX_LOGIN_BYTES: usize = 4 << 10;
const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);
