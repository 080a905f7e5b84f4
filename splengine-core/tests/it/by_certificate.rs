//! An authenticator that knows users by their certificates. The tests of other servers include it.

use std::sync::{Arc, Mutex};

use splengine_core::Caller;
use splengine_core::auth::{
    AuthError, Authenticator, CertificateFingerprint, CredentialKind, CredentialSource, Credentials,
};

pub(crate) const BOBS_TOKEN: &str = "bobs-very-long-token";

/// The certificate with this fingerprint is that of `alice`, and `bob` has a token; nobody else is let in.
#[derive(Clone)]
pub(crate) struct ByCertificate {
    alice: CertificateFingerprint,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// What was shown, and which certificate the connection had.
pub(crate) type Asked = (Option<CredentialKind>, Option<CertificateFingerprint>);

impl ByCertificate {
    pub(crate) fn new(alice: CertificateFingerprint) -> Self {
        Self { alice, asked: Arc::default() }
    }

    /// What it was asked about since the last time.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().expect("no panic"))
    }
}

impl Authenticator for ByCertificate {
    async fn authenticate(
        &self,
        credentials: Credentials,
        source: &CredentialSource,
    ) -> Result<Caller, AuthError> {
        let of_connection = source.certificate().map(|certificate| certificate.fingerprint());
        self.asked.lock().expect("no panic").push((credentials.kind(), of_connection));
        let user = match credentials {
            Credentials::Certificate(shown) if shown.fingerprint() == self.alice => "alice",
            Credentials::Bearer(token) if token.expose() == BOBS_TOKEN => "bob",
            Credentials::None => return Err(AuthError::Missing),
            _ => return Err(AuthError::Invalid),
        };
        let caller = Caller::new(user).map_err(|_| AuthError::Invalid)?;
        Ok(caller.with_all_scopes())
    }

    fn accepts(&self, kind: CredentialKind) -> bool {
        matches!(kind, CredentialKind::Certificate | CredentialKind::Bearer)
    }
}
