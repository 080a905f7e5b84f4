//! Logging a browser in: a token or a ticket, for a cookie that no script can read.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ORIGIN};
use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use splengine_core::auth::{AuthError, CredentialSource, Credentials, Secret};
use splengine_core::{Caller, Scope};
use splengine_http::problem::Problem;
use splengine_http::read_body;

use crate::auth::{self, Present};
use crate::context::Context;
use crate::cookie::set_cookie;
use crate::logins::LIFETIME;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    token: Option<String>,
    ticket: Option<String>,
    /// Whether another user who is logged in may be logged out for it.
    #[serde(default = "yes")]
    replace: bool,
}

fn yes() -> bool {
    true
}

#[derive(Default, Deserialize)]
pub(crate) struct Logout {
    /// Of all browsers of the user.
    #[serde(default)]
    everywhere: bool,
}

pub(crate) async fn login(
    State(context): State<Arc<Context>>,
    extensions: Extensions,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    refuse_foreign(&context, &headers)?;
    let is_json = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/json"));
    if !is_json {
        let detail = "Content-Type must be application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let body = read_body(&headers, body, &context.login_limits).await?;
    // What is wrong with it is not repeated: it may be a secret.
    let Ok(login) = serde_json::from_slice::<Login>(&body) else {
        let detail = "the body must be an object with `token` or `ticket`";
        return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
    };
    let source = auth::source(&extensions);
    let present = auth::by_cookie(&context, &headers, &source).await;
    let (caller, token) = match (login.token, login.ticket) {
        (Some(token), None) => {
            let token = Secret::new(token);
            let shown = Credentials::Bearer(token.clone());
            match context.engine.authenticate(&context.authenticator, shown, &source).await {
                Ok(caller) => (caller, Some(token)),
                Err(error) => return Err(refusal(&error, "the token is not valid")),
            }
        }
        (None, Some(ticket)) => {
            // It works once: who is to be asked first is asked before it is used up.
            if let Some(present) = present.as_ref().filter(|_| !login.replace) {
                return Err(somebody_else(&present.caller, None));
            }
            match redeem(&context, ticket, &source).await {
                Ok(guest) => (guest, None),
                Err(error) => {
                    let detail =
                        "the link is not valid any more: it was used or revoked, or has expired";
                    return Err(refusal(&error, detail));
                }
            }
        }
        _ => {
            let detail = "the body must have one of `token` and `ticket`";
            return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
        }
    };
    if let Some(present) = present {
        if !login.replace {
            if present.caller == caller {
                // What this browser has open goes on.
                return Ok(Json(who(&caller)).into_response());
            }
            if present.caller.guest().is_some() || present.caller.user() != caller.user() {
                return Err(somebody_else(&present.caller, Some(&caller)));
            }
        }
        context.logins.end(&present.id).await;
    }
    let Some(id) = context.logins.add(&context.engine, caller.clone(), token.as_ref()).await else {
        let detail = "there are no random numbers at the moment";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail));
    };
    let mut response = Json(who(&caller)).into_response();
    set_cookie(&mut response, &headers, id.expose(), LIFETIME);
    Ok(response)
}

/// Who a ticket lets in.
pub(crate) async fn redeem(
    context: &Context,
    ticket: String,
    source: &CredentialSource,
) -> Result<Caller, AuthError> {
    let ticket = Secret::new(ticket);
    let redeemed = async {
        let caller = context.engine.sessions().redeem(&ticket).map_err(|_| AuthError::Invalid)?;
        if caller.is_revoked() { Err(AuthError::Invalid) } else { Ok(caller) }
    };
    context.engine.check_secret(&ticket, source, redeemed).await
}

/// Asks whether another user is to be logged out.
fn somebody_else(present: &Caller, wanted: Option<&Caller>) -> Problem {
    let detail =
        "somebody else is logged in in this browser; `replace` must be true to log them out";
    Problem::new(StatusCode::CONFLICT, detail)
        .member("user", who(present))
        .member("wanted", wanted.map_or(Value::Null, who))
}

/// Why nobody is let in; `detail` is for what is not valid.
fn refusal(error: &AuthError, detail: &str) -> Problem {
    match error {
        AuthError::Throttled { retry_after, .. } => {
            let refused = Problem::new(StatusCode::TOO_MANY_REQUESTS, error.to_string());
            refused.retry_after(Some(*retry_after))
        }
        AuthError::Unavailable(_) => auth::unavailable(),
        _ => Problem::new(StatusCode::UNAUTHORIZED, detail),
    }
}

/// Ends the login of this browser, and what is open by it; with `?everywhere=true` all logins of its
/// user.
pub(crate) async fn logout(
    State(context): State<Arc<Context>>,
    query: Result<Query<Logout>, QueryRejection>,
    extensions: Extensions,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    refuse_foreign(&context, &headers)?;
    // What it says makes no difference.
    read_body(&headers, body, &context.login_limits).await?;
    let Ok(Query(Logout { everywhere })) = query else {
        let detail = "`everywhere` must be true or false";
        return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
    };
    let source = auth::source(&extensions);
    if let Some(Present { caller, id, .. }) = auth::by_cookie(&context, &headers, &source).await {
        if everywhere {
            context.logins.end_all(&caller).await;
        }
        context.logins.end(&id).await;
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    set_cookie(&mut response, &headers, "", Duration::ZERO);
    Ok(response)
}

/// Who is logged in.
pub(crate) async fn me(
    State(context): State<Arc<Context>>,
    known: Option<Extension<Caller>>,
    extensions: Extensions,
    headers: HeaderMap,
) -> Response {
    let source = auth::source(&extensions);
    let caller = match known {
        // The application around this service knows who asks.
        Some(Extension(caller)) => Some(caller),
        None => match auth::by_cookie(&context, &headers, &source).await {
            Some(present) => Some(present.caller),
            None => {
                let shown = Credentials::None;
                context.engine.authenticate(&context.authenticator, shown, &source).await.ok()
            }
        },
    };
    let mut response = match caller {
        Some(caller) => Json(who(&caller)).into_response(),
        None => Problem::new(StatusCode::UNAUTHORIZED, "nobody is logged in").into_response(),
    };
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn who(caller: &Caller) -> Value {
    let guest = caller.guest().map_or(Value::Null, |guest| {
        json!({
            "sessionId": guest.session.as_str(),
            "access": guest.access.name(),
            "expires": humantime::format_rfc3339_millis(guest.expires).to_string(),
        })
    });
    let scopes: Vec<&str> = match guest {
        Value::Null => caller.scopes().iter().map(Scope::name).collect(),
        _ => Vec::new(),
    };
    json!({"user": caller.user().as_str(), "guest": guest, "scopes": scopes})
}

fn refuse_foreign(context: &Context, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default();
    if auth::is_allowed(context, origin, headers) {
        return Ok(());
    }
    Err(Problem::new(StatusCode::FORBIDDEN, auth::foreign_origin(context, origin, headers)))
}
