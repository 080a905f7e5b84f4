//! Errors on the wire: problem details (RFC 9457).

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};
use splengine_core::auth::{AuthError, AuthorizationError};
use splengine_core::quota::{LargeWorkError, MemoryError};
use splengine_core::text::camel_case;
use splengine_core::{BatchError, ErrorKind, ExecuteError, Field, SessionError};
use utoipa::ToSchema;

/// An error: problem details (RFC 9457), with `error` for simple clients.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemDto {
    /// A URI that names the kind of problem; `about:blank`, the status says it all.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    /// The status code again.
    status: u16,
    /// What is wrong, and what would be right.
    detail: String,
    /// The same as `detail`.
    error: String,
    /// Where in the body it is: a JSON pointer (RFC 6901).
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<String>,
}

/// A refusal, ready to be answered.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    retry_after: Option<Duration>,
    pointer: Option<String>,
    /// Beside those that each problem has.
    members: Map<String, Value>,
}

impl Problem {
    /// Makes a refusal with this status, for the reason that `detail` tells.
    #[must_use]
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let (detail, members) = (detail.into(), Map::new());
        Self { status, detail, retry_after: None, pointer: None, members }
    }

    /// Whether it is for want of something that will be there again.
    pub(crate) fn is_shortage(&self) -> bool {
        self.retry_after.is_some()
    }

    /// Sets the time after which the request may work. Default 1 s, where it may at all.
    #[must_use]
    pub fn retry_after(self, retry_after: Option<Duration>) -> Self {
        Self { retry_after, ..self }
    }

    /// The same of a place in the body, by its JSON pointer.
    pub(crate) fn at(mut self, pointer: String) -> Self {
        self.pointer = Some(pointer);
        self
    }

    /// Adds a member to the document.
    #[must_use]
    pub fn member(mut self, name: &str, value: Value) -> Self {
        self.members.insert(name.to_owned(), value);
        self
    }

    pub(crate) fn into_detail(self) -> String {
        self.detail
    }

    #[cfg(test)]
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    #[cfg(test)]
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    pub(crate) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(crate) fn of_kind(kind: ErrorKind, detail: String, retry_after: Option<Duration>) -> Self {
        let status = status(kind);
        let detail = if status.is_server_error() && retry_after.is_none() {
            // Whatever went wrong inside is for the log, not for the caller.
            match status {
                StatusCode::SERVICE_UNAVAILABLE => "the service can't answer at the moment".into(),
                StatusCode::INSUFFICIENT_STORAGE => detail,
                _ => "the engine failed to do it".into(),
            }
        } else {
            detail
        };
        Self { retry_after, ..Self::new(status, detail) }
    }

    /// The answer, whose document is whole.
    pub(crate) fn into_whole_response(self) -> http::Response<Bytes> {
        let Self { status, detail, retry_after, pointer, members } = self;
        let body = ProblemDto {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            error: detail.clone(),
            detail,
            pointer,
        };
        let text = match serde_json::to_value(&body) {
            Ok(Value::Object(mut all)) if !members.is_empty() => {
                all.extend(members);
                serde_json::to_string(&all)
            }
            _ => serde_json::to_string(&body),
        };
        let mut response = http::Response::new(Bytes::from(text.unwrap_or_default()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        let wants_retry =
            [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&status);
        if wants_retry {
            let seconds = retry_after.unwrap_or(Duration::from_secs(1)).as_secs_f64().ceil();
            headers.insert(RETRY_AFTER, HeaderValue::from((seconds as u64).max(1)));
        }
        response
    }
}

/// The name of a field as JSON has it.
fn json_name(field: Field) -> String {
    camel_case(field.name())
}

/// The one table from a refusal's kind to its status.
fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Malformed => StatusCode::BAD_REQUEST,
        ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Impossible => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::NoRoom => StatusCode::INSUFFICIENT_STORAGE,
        ErrorKind::CallerLimit => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<MemoryError> for Problem {
    fn from(error: MemoryError) -> Self {
        Self::of_kind(error.kind(), error.to_string(), Some(error.retry_after()))
    }
}

impl From<LargeWorkError> for Problem {
    fn from(error: LargeWorkError) -> Self {
        Self::of_kind(error.kind(), error.to_string(), Some(error.retry_after()))
    }
}

impl From<ExecuteError> for Problem {
    fn from(error: ExecuteError) -> Self {
        Self::of_kind(error.kind(), error.message(json_name), error.retry_after())
    }
}

impl From<SessionError> for Problem {
    fn from(error: SessionError) -> Self {
        Self::of_kind(error.kind(), error.message(json_name), error.retry_after())
    }
}

impl From<BatchError> for Problem {
    fn from(error: BatchError) -> Self {
        Self::of_kind(error.kind(), error.message(json_name), error.retry_after())
    }
}

impl From<AuthorizationError> for Problem {
    fn from(error: AuthorizationError) -> Self {
        Self::of_kind(error.kind(), error.to_string(), None)
    }
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        Self::of_kind(error.kind(), error.to_string(), error.retry_after())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.into_whole_response().map(Body::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_status() {
        for &kind in ErrorKind::ALL {
            let expected = kind == ErrorKind::Internal;
            assert_eq!(status(kind) == StatusCode::INTERNAL_SERVER_ERROR, expected, "{kind:?}");
        }
    }

    #[test]
    fn the_inside_stays_inside() {
        let error = ExecuteError::internal("secret path /x");
        assert!(!Problem::from(error).detail.contains("secret"));
    }
}
