//! The cookie of a login.

use std::time::Duration;

use axum::http::header::{HOST, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;

/// Browsers send cookies to all ports of a host: each server has its own, and what is in it says
/// nothing to any other. Over TLS no other host, and nothing in clear, can set it.
pub(crate) fn cookie_name(headers: &HeaderMap) -> String {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let port = host.rsplit_once(':').map(|(_, port)| port).unwrap_or_default();
    let port = if port.bytes().all(|byte| byte.is_ascii_digit()) { port } else { "" };
    let prefix = if is_over_tls(headers) { "__Host-" } else { "" };
    format!("{prefix}splengine{port}")
}

/// As the proxy says that is in front. Who makes it up makes their own cookie stricter, and that is
/// all.
fn is_over_tls(headers: &HeaderMap) -> bool {
    headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https")
}

pub(crate) fn set_cookie(response: &mut Response, asked: &HeaderMap, value: &str, time: Duration) {
    let (name, seconds) = (cookie_name(asked), time.as_secs());
    // Without a path it is for the directory of the page, whatever that is behind a proxy; but the
    // name's prefix demands one.
    let over_tls = if is_over_tls(asked) { "; Secure; Path=/" } else { "" };
    let cookie = format!("{name}={value}; HttpOnly; SameSite=Strict; Max-Age={seconds}{over_tls}");
    if let Ok(mut cookie) = HeaderValue::from_str(&cookie) {
        cookie.set_sensitive(true);
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
}
