//! The state that all routes share.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::Request;
use bytes::Bytes;
use splengine_core::Engine;
use splengine_core::auth::SharedAuthenticator;
use splengine_core::net::OriginPolicy;
use splengine_core::quota::CallerBudgets;
use tower::util::BoxCloneSyncService;

use crate::answers::AnswerBudgets;
use crate::base_path::BasePath;
use crate::encoded::DecoderBudgets;
use crate::idempotency::IdempotencyCache;
use crate::metrics::HttpMetrics;
use crate::result_formats::ResultFormat;

/// A service that answers for a path.
pub(crate) type Mounted =
    BoxCloneSyncService<Request, axum::http::Response<axum::body::Body>, Infallible>;

/// What is set up once for all requests.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) mounted: Vec<(String, Mounted)>,
    /// Of a batch's results, beside JSON.
    pub(crate) forms: Vec<ResultFormat>,
    pub(crate) origins: OriginPolicy,
    pub(crate) max_body: usize,
    pub(crate) body_timeout: Duration,
    pub(crate) max_buffered: usize,
    pub(crate) interfaces: BTreeMap<String, String>,
    /// Where clients find the routes, if that was told.
    pub(crate) base_path: Option<BasePath>,
    /// Where people find the console.
    pub(crate) console: Option<String>,
}

/// The engine, the options and whatever else requests share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Context(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) authenticator: SharedAuthenticator,
    pub(crate) options: Options,
    /// The shares of callers in what the bodies hold that are being read.
    pub(crate) budgets: CallerBudgets,
    /// What decoders of compressed bodies hold, a quarter of all that.
    pub(crate) decoders: DecoderBudgets,
    /// What answers hold that lie whole in memory until they are read.
    pub(crate) answers: AnswerBudgets,
    /// What followers of batches hold for as long as they follow, apart from answers that end.
    pub(crate) followers: AnswerBudgets,
    pub(crate) metrics: HttpMetrics,
    pub(crate) idempotency: IdempotencyCache,
    /// The OpenAPI document, once a client has asked for it.
    pub(crate) openapi: OnceLock<Bytes>,
}

impl std::ops::Deref for Context {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Context {
    pub(crate) fn new(
        engine: Engine,
        authenticator: SharedAuthenticator,
        options: Options,
    ) -> Self {
        let metrics = HttpMetrics::default();
        let budget = engine.memory_budget(options.max_buffered);
        let budgets = CallerBudgets::new(&budget);
        let decoders = DecoderBudgets::new(&budget, options.max_buffered / 4);
        let (idempotency, openapi) = (IdempotencyCache::default(), OnceLock::new());
        Self(Arc::new(Shared {
            answers: AnswerBudgets::new(&engine, options.max_buffered),
            followers: AnswerBudgets::new(&engine, options.max_buffered),
            engine,
            authenticator,
            options,
            budgets,
            decoders,
            metrics,
            idempotency,
            openapi,
        }))
    }
}
