//! The path that another application serves this one below.

use std::sync::Arc;

use axum::extract::{OriginalUri, Request};

/// Path below which clients find the routes of this server: empty, or one that begins with `/` and does
/// not end with it. An extension of each request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BasePath(Arc<str>);

/// A text that is no base path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a base path; base paths look like `/engine` or `/tools/engine`")]
#[non_exhaustive]
pub struct BasePathError(String);

impl BasePath {
    /// Reads a base path that an administrator has written; a `/` at its end is left away.
    pub(crate) fn parse(text: &str) -> Result<Self, BasePathError> {
        let path = text.strip_suffix('/').unwrap_or(text);
        let is_path = path.is_empty() || path.starts_with('/') && !path.starts_with("//");
        let is_plain = path.parse::<http::uri::PathAndQuery>().is_ok_and(|uri| uri.path() == path);
        if is_path && !path.contains("//") && (path.is_empty() || is_plain) {
            return Ok(Self(path.into()));
        }
        Err(BasePathError(text.chars().take(200).collect()))
    }

    /// What a router of axum has taken away from the path before it handed the request on.
    pub(crate) fn taken_from(request: &Request) -> Self {
        let Some(OriginalUri(original)) = request.extensions().get() else { return Self::none() };
        let (whole, rest) = (original.path(), request.uri().path());
        let base = match whole.strip_suffix(rest) {
            Some(base) => base,
            // Nested at `/engine`, which was asked for without the `/` at its end.
            None if rest == "/" => whole,
            None => return Self::none(),
        };
        // Behind two, a host would begin.
        if base.starts_with("//") { Self::none() } else { Self(base.into()) }
    }

    fn none() -> Self {
        Self(Arc::from(""))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}
