//! Headers that several routes read, and the values of those that they write.

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};

use crate::problem::Problem;

/// What the `Content-Type` says that the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyKind {
    Json,
    Input,
}

impl BodyKind {
    /// A type is demanded: without one, or with one of the three that forms have, a browser sends
    /// a page's request to any site without asking that site first.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = value.unwrap_or_default().split(';').next().unwrap_or_default();
        match essence.trim().to_ascii_lowercase().as_str() {
            "application/json" => Ok(Self::Json),
            name if name.starts_with("application/") && name.ends_with("+json") => Ok(Self::Json),
            "application/octet-stream" => Ok(Self::Input),
            _ => Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "Content-Type must be application/json, or application/octet-stream for a body that \
                 is the command's input",
            )),
        }
    }
}

pub(crate) fn demand_json(headers: &HeaderMap) -> Result<(), Problem> {
    match BodyKind::of(headers) {
        Ok(BodyKind::Json) => Ok(()),
        _ => {
            let detail = "Content-Type must be application/json";
            Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail))
        }
    }
}

/// The key under which a request is done no more than once.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let key = match (keys.next(), keys.next()) {
        (None, _) => return Ok(None),
        (Some(key), None) => key.to_str().unwrap_or_default(),
        (Some(_), Some(_)) => {
            return Err(Problem::malformed("there is more than one `Idempotency-Key`"));
        }
    };
    let is_key = (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_key {
        let detail = "`Idempotency-Key` is 1 to 255 visible ASCII characters";
        return Err(Problem::malformed(detail));
    }
    Ok(Some(key))
}

pub(crate) const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// What we write into headers is made of ids and numbers.
pub(crate) fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
