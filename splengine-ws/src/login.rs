//! Logging a browser in: a token or a ticket, for a cookie that no script can read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, HOST, ORIGIN, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use splengine_core::{AuthError, Authenticator as _, Caller, Credentials, Secret};
use splengine_http::read_body;

use crate::app::App;
use crate::entry;

/// The guests that are logged in, by the secret in their cookie. They last as long as their shares.
#[derive(Debug, Default)]
pub(crate) struct Guests(Mutex<HashMap<String, Caller>>);

impl Guests {
    pub(crate) fn find(&self, secret: &str) -> Option<Caller> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(secret).cloned()
    }

    /// Makes room by forgetting those whose share does not stand; `None` when there is none.
    fn add(&self, app: &App, caller: &Caller) -> Option<String> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).ok()?;
        let secret: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut guests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        guests.retain(|_, caller| app.engine.sessions().stands(caller));
        if guests.len() >= MOST_GUESTS {
            return None;
        }
        guests.insert(secret.clone(), caller.clone());
        Some(secret)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    token: Option<String>,
    ticket: Option<String>,
}

pub(crate) async fn login(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    if let Some(refusal) = refuse_foreign(&app, &headers) {
        return refusal;
    }
    let is_json = headers
        .get(axum::http::header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/json"));
    if !is_json {
        let detail = "Content-Type must be application/json";
        return problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail);
    }
    let body = match read_body(&headers, body, &app.login_limits).await {
        Ok(body) => body,
        Err(error) => return problem(error.status(), &error.to_string()),
    };
    // What is wrong with it is not repeated: it may be a secret.
    let Ok(login) = serde_json::from_slice::<Login>(&body) else {
        let detail = "the body must be an object with `token` or `ticket`";
        return problem(StatusCode::BAD_REQUEST, detail);
    };
    let (caller, cookie) = match (login.token, login.ticket) {
        (Some(token), None) => {
            let credentials = Credentials::Bearer(Secret::new(token.clone()));
            match app.authenticator.authenticate(credentials).await {
                Ok(caller) => (caller, format!("{TOKEN_PREFIX}{token}")),
                Err(AuthError::Unavailable(_)) => {
                    let detail = "credentials can't be checked at the moment";
                    return problem(StatusCode::SERVICE_UNAVAILABLE, detail);
                }
                Err(_) => return problem(StatusCode::UNAUTHORIZED, "the token is not valid"),
            }
        }
        (None, Some(ticket)) => {
            let sessions = app.engine.sessions();
            let redeemed = sessions.redeem(&Secret::new(ticket)).ok();
            let guest = redeemed.and_then(|caller| {
                let secret = app.guests.add(&app, &caller)?;
                Some((caller, format!("{GUEST_PREFIX}{secret}")))
            });
            let Some(guest) = guest else {
                let detail = "the link is not valid any more: it was used, taken back or too old";
                return problem(StatusCode::UNAUTHORIZED, detail);
            };
            guest
        }
        _ => {
            let detail = "the body must have one of `token` and `ticket`";
            return problem(StatusCode::BAD_REQUEST, detail);
        }
    };
    let mut response = Json(who(&caller)).into_response();
    set_cookie(&mut response, &headers, &cookie, COOKIE_SECONDS);
    response
}

pub(crate) async fn logout(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if let Some(refusal) = refuse_foreign(&app, &headers) {
        return refusal;
    }
    // What it says makes no difference.
    if let Err(error) = read_body(&headers, body, &app.login_limits).await {
        return problem(error.status(), &error.to_string());
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    set_cookie(&mut response, &headers, "", 0);
    response
}

/// Who is logged in.
pub(crate) async fn me(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let caller = match entry::by_cookie(&app, &headers).await {
        Some(caller) => Some(caller),
        None => app.authenticator.authenticate(Credentials::None).await.ok(),
    };
    let mut response = match caller {
        Some(caller) => Json(who(&caller)).into_response(),
        None => problem(StatusCode::UNAUTHORIZED, "nobody is logged in"),
    };
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Browsers send cookies to all ports of a host: each door has its own.
pub(crate) fn cookie_name(headers: &HeaderMap) -> String {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let port = host.rsplit_once(':').map(|(_, port)| port).unwrap_or_default();
    let port = if port.bytes().all(|byte| byte.is_ascii_digit()) { port } else { "" };
    format!("splengine{port}")
}

fn set_cookie(response: &mut Response, asked: &HeaderMap, value: &str, seconds: u32) {
    let name = cookie_name(asked);
    let secure = asked.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
    let secure = if secure { "; Secure" } else { "" };
    // Without a path it is for the directory of the page, whatever that is behind a proxy.
    let cookie = format!("{name}={value}; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}");
    if let Ok(mut cookie) = HeaderValue::from_str(&cookie) {
        cookie.set_sensitive(true);
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
}

fn who(caller: &Caller) -> Value {
    let guest = caller.guest().map(|guest| {
        json!({
            "sessionId": guest.session.as_str(),
            "access": guest.access.name(),
            "expires": humantime::format_rfc3339_millis(guest.expires).to_string(),
        })
    });
    json!({"user": caller.user().as_str(), "guest": guest})
}

fn refuse_foreign(app: &App, headers: &HeaderMap) -> Option<Response> {
    let origin = headers.get(ORIGIN)?.to_str().unwrap_or_default();
    (!entry::is_allowed(app, origin, headers))
        .then(|| problem(StatusCode::FORBIDDEN, "pages of this origin can't log in here"))
}

/// Problem details (RFC 9457), as the HTTP door gives them.
pub(crate) fn problem(status: StatusCode, detail: &str) -> Response {
    let body = json!({
        "type": "about:blank",
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "detail": detail,
        "error": detail,
    });
    let mut response = (status, body.to_string()).into_response();
    let headers = response.headers_mut();
    headers.insert(
        axum::http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(axum::http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(axum::http::header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

pub(crate) const TOKEN_PREFIX: &str = "t.";
pub(crate) const GUEST_PREFIX: &str = "g.";
const COOKIE_SECONDS: u32 = 7 * 24 * 3600;
const MOST_GUESTS: usize = 4096;
