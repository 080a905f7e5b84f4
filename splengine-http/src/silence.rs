//! Signs of life in streams of events that are silent.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::Extensions;
use axum::http::request::Parts;
use splengine_core::net::ConnectionHandle;
use tokio::time::sleep;

/// Tells when something should be sent although nothing has happened: for proxies, which cut silent
/// connections, and to find out whether a client that sends no more still listens.
#[derive(Debug, Clone)]
pub(crate) struct Silence(Option<ConnectionHandle>);

impl Silence {
    /// That of a request with these extensions.
    pub(crate) fn of(extensions: &Extensions) -> Self {
        Self(extensions.get().cloned())
    }

    /// What `work` gives; nothing where it takes too long.
    pub(crate) async fn unless_too_long<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let half_closed = async {
            match &self.0 {
                Some(connection) => connection.read_closed().await,
                None => std::future::pending().await,
            }
            sleep(HALF_CLOSED_INTERVAL).await;
        };
        tokio::select! {
            biased;
            done = work => Some(done),
            () = sleep(INTERVAL) => None,
            () = half_closed => None,
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Silence {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.extensions))
    }
}

/// Proxies cut silent connections after a minute or less.
const INTERVAL: Duration = Duration::from_secs(10);
/// The same to a client that has left, or has ended what it sends.
const HALF_CLOSED_INTERVAL: Duration = Duration::from_secs(1);
