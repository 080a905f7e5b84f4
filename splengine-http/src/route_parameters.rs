//! Parameters of a route's path.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;

use crate::problem::Problem;

/// The values of the `N` parameters of a route. Those of routers around this one, which come before, are
/// left out.
pub(crate) struct RouteParameters<const N: usize>(pub(crate) [String; N]);

impl<const N: usize, S: Sync> FromRequestParts<S> for RouteParameters<N> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let all = RawPathParams::from_request_parts(parts, &()).await;
        let all = all.map_err(|error| Problem::malformed(error.to_string()))?;
        let all: Vec<String> = all.iter().map(|(_, value)| value.to_owned()).collect();
        let own = all.last_chunk().cloned();
        own.map(Self).ok_or_else(|| Problem::malformed("the path has too few parts"))
    }
}
