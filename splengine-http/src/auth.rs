//! Authentication of requests, and the pages that may send them.

use axum::extract::{FromRequestParts, Request};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use splengine_core::Caller;
use splengine_core::auth::{ClientCertificate, CredentialSource, Credentials};
use splengine_core::net::{ConnectionHandle, PeerAddress};

use crate::context::Context;
use crate::problem::Problem;
use crate::revoked::Recognised;

/// Who asks; a refusal when nobody is recognised.
pub(crate) struct Authenticated(pub(crate) Caller);

impl FromRequestParts<Context> for Authenticated {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, Problem> {
        context.caller(parts).await.map(Self)
    }
}

impl Context {
    /// Who asks. What is answered to them ends when they are revoked.
    pub(crate) async fn caller(&self, parts: &Parts) -> Result<Caller, Problem> {
        let caller = self.authenticate(parts).await?;
        if let Some(recognised) = parts.extensions.get::<Recognised>() {
            recognised.set(&caller);
        }
        if let Some(connection) = parts.extensions.get::<ConnectionHandle>() {
            connection.set_authenticated(&caller);
        }
        Ok(caller)
    }

    async fn authenticate(&self, parts: &Parts) -> Result<Caller, Problem> {
        // Whoever nests this service may know already.
        if let Some(caller) = parts.extensions.get::<Caller>() {
            return Ok(caller.clone());
        }
        let values = parts.headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes);
        let credentials = Credentials::from_authorization(values)?;
        let (found, peer) = (parts.extensions.get(), parts.extensions.get::<PeerAddress>());
        let certificate = parts.extensions.get::<ClientCertificate>();
        let source =
            CredentialSource::of_request("http", found, peer.map(|peer| peer.ip), certificate);
        let credentials = credentials.or_of_connection(&source, &self.authenticator);
        let is_open_to_rebinding = credentials.are_open_to_rebinding();
        let caller = self.engine.authenticate(&self.authenticator, credentials, &source).await?;
        if is_open_to_rebinding {
            self.check_name(parts)?;
        }
        Ok(caller)
    }

    /// Checks the page that sends a request: one that a browser has open may send requests to any address that the
    /// browser reaches, loopback included. What changes something is refused when it comes from a page of another
    /// site.
    pub(crate) fn check_page(&self, request: &Request) -> Result<(), Problem> {
        let headers = request.headers();
        if let Some(origin) = headers.get(ORIGIN).filter(|_| !request.method().is_safe()) {
            let host = host(request.uri(), headers);
            if !self.options.origins.is_allowed(origin.to_str().unwrap_or_default(), host) {
                let detail = "requests from pages of this origin are not allowed";
                return Err(Problem::new(StatusCode::FORBIDDEN, detail));
            }
        }
        Ok(())
    }

    /// Of a page that a browser found under anybody's name, no more is known than of any other.
    fn check_name(&self, parts: &Parts) -> Result<(), Problem> {
        let host = host(&parts.uri, &parts.headers);
        if self.options.origins.is_anonymous_allowed(host) {
            return Ok(());
        }
        let shown: String = host.unwrap_or_default().chars().take(100).collect();
        let detail = format!(
            "under the name `{shown}` nobody is let in without credentials; its origin would have \
             to be allowed"
        );
        Err(Problem::new(StatusCode::FORBIDDEN, detail))
    }
}

/// The name under which a client has found this server.
pub(crate) fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    let authority = uri.authority().map(|authority| authority.as_str());
    authority.or_else(|| headers.get(HOST).and_then(|host| host.to_str().ok()))
}
