//! Who is let in.

use axum::http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use splengine_core::{
    AuthError, Authenticator as _, Caller, Credentials, Secret, is_anybodys_name,
};

use crate::app::App;
use crate::login::{self, GUEST_PREFIX, TOKEN_PREFIX};

/// Who opens a WebSocket.
pub(crate) enum Entrant {
    Known(Caller),
    /// A page that is to show a ticket in its first frame.
    WithTicket,
}

/// A refusal before the upgrade.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) detail: &'static str,
}

/// Judges the headers of an upgrade.
pub(crate) async fn judge(app: &App, headers: &HeaderMap) -> Result<Entrant, Refusal> {
    let from_page = match headers.get(ORIGIN) {
        None => false,
        Some(origin) => {
            if !is_allowed(app, origin.to_str().unwrap_or_default(), headers) {
                let detail = "terminals can't be opened from pages of this origin";
                return Err(Refusal { status: StatusCode::FORBIDDEN, detail });
            }
            true
        }
    };
    if headers.contains_key(AUTHORIZATION) {
        let caller = by_header(app, headers).await?;
        return Ok(Entrant::Known(caller));
    }
    if from_page && let Some(caller) = by_cookie(app, headers).await {
        return Ok(Entrant::Known(caller));
    }
    match app.authenticator.authenticate(Credentials::None).await {
        Ok(_) if is_foreign_name(app, headers) => {
            let detail = "under this name nobody is let in without credentials; its origin would \
                          have to be allowed";
            Err(Refusal { status: StatusCode::FORBIDDEN, detail })
        }
        Ok(caller) => Ok(Entrant::Known(caller)),
        Err(AuthError::Unavailable(source)) => Err(unavailable(source.as_ref())),
        Err(_) if from_page => Ok(Entrant::WithTicket),
        Err(_) => {
            let detail = "credentials are required: an Authorization header with a bearer token";
            Err(Refusal { status: StatusCode::UNAUTHORIZED, detail })
        }
    }
}

/// Whether a page of `origin` may act here: one of this door itself, or of an origin that was
/// allowed. Browsers send `null` for pages that have none.
pub(crate) fn is_allowed(app: &App, origin: &str, headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let own = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    (own.is_some() && own == host) || app.options.origins.iter().any(|allowed| allowed == origin)
}

/// Of a page that a browser found under anybody's name, no more is known than of any other.
fn is_foreign_name(app: &App, headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) else { return false };
    let is_host = |origin: &String| origin.split_once("://").is_some_and(|(_, own)| own == host);
    is_anybodys_name(host) && !app.options.origins.iter().any(is_host)
}

async fn by_header(app: &App, headers: &HeaderMap) -> Result<Caller, Refusal> {
    let refused = |detail| Refusal { status: StatusCode::UNAUTHORIZED, detail };
    let mut shown = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (shown.next(), shown.next()) else {
        return Err(refused("credentials must stand in one Authorization header, not several"));
    };
    let token = value.to_str().ok().and_then(|value| value.split_once(' '));
    let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let Some((_, token)) = token else {
        return Err(refused("credentials must be of the form `Bearer TOKEN`"));
    };
    let credentials = Credentials::Bearer(Secret::new(token.trim()));
    app.authenticator.authenticate(credentials).await.map_err(|error| match error {
        AuthError::Unavailable(source) => unavailable(source.as_ref()),
        _ => refused("the credentials are not valid"),
    })
}

/// Who is logged in, by the cookie that the login gave.
pub(crate) async fn by_cookie(app: &App, headers: &HeaderMap) -> Option<Caller> {
    let name = login::cookie_name(headers);
    for header in headers.get_all(COOKIE) {
        for pair in header.to_str().ok()?.split(';') {
            let Some((found, value)) = pair.trim().split_once('=') else { continue };
            if found != name {
                continue;
            }
            if let Some(token) = value.strip_prefix(TOKEN_PREFIX) {
                let credentials = Credentials::Bearer(Secret::new(token));
                return app.authenticator.authenticate(credentials).await.ok();
            }
            let guest = app.guests.find(value.strip_prefix(GUEST_PREFIX)?)?;
            return app.engine.sessions().stands(&guest).then_some(guest);
        }
    }
    None
}

fn unavailable(source: &(dyn std::error::Error + Send + Sync)) -> Refusal {
    tracing::error!(%source, "credentials can't be checked");
    let detail = "credentials can't be checked at the moment";
    Refusal { status: StatusCode::SERVICE_UNAVAILABLE, detail }
}
