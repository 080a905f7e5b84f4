//! Authentication of clients.

use axum::http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode};
use splengine_core::Caller;
use splengine_core::auth::{AuthError, ClientCertificate, CredentialSource, Credentials};
use splengine_core::net::PeerAddress;
use splengine_http::problem::Problem;

use crate::context::Context;
use crate::cookie::cookie_name;
use crate::login_id::LoginId;
use crate::logins::LoginUse;

/// Who opens a WebSocket.
pub(crate) enum Authenticated {
    /// By their login, if by any.
    Known(Caller, Option<LoginUse>),
    /// A page that is to show a ticket in its first frame.
    WithTicket(CredentialSource),
}

/// Who is logged in in a browser.
pub(crate) struct Present {
    pub(crate) caller: Caller,
    pub(crate) id: LoginId,
    pub(crate) login: LoginUse,
}

/// Where the credentials of a request come from.
pub(crate) fn source(extensions: &Extensions) -> CredentialSource {
    let peer = extensions.get::<PeerAddress>().map(|peer| peer.ip);
    let certificate = extensions.get::<ClientCertificate>();
    CredentialSource::of_request("ws", extensions.get(), peer, certificate)
}

/// Authenticates the client of an upgrade by the headers.
pub(crate) async fn authenticate(
    context: &Context,
    parts: &Parts,
) -> Result<Authenticated, Problem> {
    let (headers, source) = (&parts.headers, source(&parts.extensions));
    let from_page = match headers.get(ORIGIN) {
        None => false,
        Some(origin) => {
            let origin = origin.to_str().unwrap_or_default();
            if !is_allowed(context, origin, headers) {
                let detail = foreign_origin(context, origin, headers);
                return Err(Problem::new(StatusCode::FORBIDDEN, detail));
            }
            true
        }
    };
    // The application around this service knows who asks.
    if let Some(caller) = parts.extensions.get::<Caller>() {
        return Ok(Authenticated::Known(caller.clone(), None));
    }
    if headers.contains_key(AUTHORIZATION) {
        let caller = by_header(context, headers, &source).await?;
        return Ok(Authenticated::Known(caller, None));
    }
    if from_page && let Some(present) = by_cookie(context, headers, &source).await {
        return Ok(Authenticated::Known(present.caller, Some(present.login)));
    }
    let shown = Credentials::None.or_of_connection(&source, &context.authenticator);
    let may_be_let_in = !shown.are_open_to_rebinding()
        || context.options.origins.is_anonymous_allowed(host(headers));
    match context.engine.authenticate(&context.authenticator, shown, &source).await {
        Ok(_) if !may_be_let_in => {
            let detail = "under this name nobody is let in without credentials; its origin would \
                          have to be allowed";
            Err(Problem::new(StatusCode::FORBIDDEN, detail))
        }
        Ok(caller) => Ok(Authenticated::Known(caller, None)),
        Err(AuthError::Unavailable(_)) => Err(unavailable()),
        Err(_) if from_page => Ok(Authenticated::WithTicket(source)),
        Err(_) => {
            let detail = "credentials are required: an Authorization header with a bearer token";
            Err(Problem::new(StatusCode::UNAUTHORIZED, detail))
        }
    }
}

/// Whether a page of `origin` may act here.
pub(crate) fn is_allowed(context: &Context, origin: &str, headers: &HeaderMap) -> bool {
    context.options.origins.is_allowed(origin, host(headers))
}

/// The name under which a client has found this server.
fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(HOST).and_then(|host| host.to_str().ok())
}

/// Says why a page of `origin` may not act here, and what an administrator can do about it where it is
/// the console's own, behind a proxy that passes another `Host` on. Logged, too, but not all the time:
/// any client can send such requests.
pub(crate) fn foreign_origin(context: &Context, origin: &str, headers: &HeaderMap) -> String {
    let host = host(headers).unwrap_or_default();
    let short = |text: &str| text.chars().take(MAX_SHOWN_CHARS).collect::<String>();
    let (origin, host) = (short(origin), short(host));
    if let Some(unlogged) = context.refused_origins.take(()) {
        tracing::warn!(
            origin,
            host,
            unlogged,
            "refused a page whose origin is not this host; if it is the console behind a proxy, let \
             the proxy pass on the Host header as it came (nginx: `proxy_set_header Host $http_host`), \
             or list the origin in `[ws] allow-origins`"
        );
    }
    format!(
        "pages of the origin `{origin}` may not be used with the host `{host}`, which this request \
         names; behind a proxy, pass the Host header on as it came (nginx: `proxy_set_header Host \
         $http_host`), or allow the origin (`[ws] allow-origins`)"
    )
}

async fn by_header(
    context: &Context,
    headers: &HeaderMap,
    source: &CredentialSource,
) -> Result<Caller, Problem> {
    let values = headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes);
    let credentials = Credentials::from_authorization(values)?;
    let known = context.engine.authenticate(&context.authenticator, credentials, source).await;
    known.map_err(|error| match error {
        AuthError::Unavailable(_) => unavailable(),
        AuthError::Throttled { retry_after, .. } => {
            let detail = "too many credentials from there were not valid";
            Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).retry_after(Some(retry_after))
        }
        error @ AuthError::Unsupported => Problem::new(StatusCode::UNAUTHORIZED, error.to_string()),
        _ => Problem::new(StatusCode::UNAUTHORIZED, "the credentials are not valid"),
    })
}

/// Who is logged in, by the cookie that the login gave. One that stands for nothing is no failure: it
/// can't be guessed, and every browser has one some time after its login is over.
pub(crate) async fn by_cookie(
    context: &Context,
    headers: &HeaderMap,
    source: &CredentialSource,
) -> Option<Present> {
    let name = cookie_name(headers);
    let cookies = headers.get_all(COOKIE).iter().filter_map(|header| header.to_str().ok());
    let pairs = cookies.flat_map(|header| header.split(';'));
    let values = pairs.filter_map(|pair| match pair.trim().split_once('=') {
        Some((found, value)) if found == name => Some(value),
        _ => None,
    });
    // There may be one of each directory above.
    for id in values.filter_map(LoginId::parse).take(MAX_COOKIES) {
        if let Some((caller, login)) =
            context.logins.find(&context.engine, (&context.authenticator, source), &id).await
        {
            return Some(Present { caller, id, login });
        }
    }
    None
}

/// The answer where credentials can't be checked, of which the log says more.
pub(crate) fn unavailable() -> Problem {
    let detail = "credentials can't be checked at the moment";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
}

const MAX_COOKIES: usize = 8;
/// Of what a request names, so much is repeated.
const MAX_SHOWN_CHARS: usize = 200;
