//! Certificates of clients, which the TLS of a server has verified.

use splengine_core::auth::{
    AuthError, Authenticator, CertificateFingerprint, ClientCertificate, CredentialKind,
    CredentialSource, Credentials, Secret, StaticTokens, UnixPeer,
};
use splengine_core::{Caller, Engine, LocalExecutor};

use crate::by_certificate::{BOBS_TOKEN, ByCertificate};

const ALICE: &[u8] = b"alice's certificate";
const OTHER: &[u8] = b"somebody else's";

fn engine() -> Engine {
    let executor = LocalExecutor::new(".").expect("set up");
    Engine::builder(executor).build().expect("built")
}

fn with_certificate(der: &[u8]) -> CredentialSource {
    let source = CredentialSource::new("test", Some([192, 0, 2, 1].into()));
    source.with_certificate(ClientCertificate::new(der))
}

#[tokio::test]
async fn a_client_that_shows_nothing_is_known_by_its_certificate() {
    let engine = engine();
    let alice = CertificateFingerprint::of(ALICE);
    let users = ByCertificate::new(alice);
    let known = engine.authenticate(&users, Credentials::None, &with_certificate(ALICE)).await;
    assert_eq!(known.expect("let in").user().as_str(), "alice");
    assert_eq!(users.asked(), [(Some(CredentialKind::Certificate), Some(alice))]);
    for _ in 0..50 {
        let other = with_certificate(OTHER);
        let refused = engine.authenticate(&users, Credentials::None, &other).await;
        assert!(matches!(refused, Err(AuthError::Invalid)), "it is no guess: {refused:?}");
    }
    assert!(engine.stats().authentication_failures.is_empty());
    let without = CredentialSource::new("test", None);
    let refused = engine.authenticate(&users, Credentials::None, &without).await;
    assert!(matches!(refused, Err(AuthError::Missing)), "{refused:?}");
}

#[tokio::test]
async fn beside_other_credentials_a_certificate_is_told() {
    let engine = engine();
    let alice = CertificateFingerprint::of(ALICE);
    let users = ByCertificate::new(alice);
    let shown = Credentials::Bearer(Secret::new(BOBS_TOKEN));
    let known = engine.authenticate(&users, shown, &with_certificate(ALICE)).await;
    assert_eq!(known.expect("let in").user().as_str(), "bob");
    assert_eq!(users.asked(), [(Some(CredentialKind::Bearer), Some(alice))]);
    // It is let in by these or not at all.
    let shown = Credentials::Bearer(Secret::new("another-very-long-token"));
    let refused = engine.authenticate(&users, shown, &with_certificate(ALICE)).await;
    assert!(matches!(refused, Err(AuthError::Invalid)), "{refused:?}");
}

#[tokio::test]
async fn whoever_does_not_accept_certificates_is_not_asked_about_any() {
    let guest = Caller::new("guest").expect("a name");
    let tokens = StaticTokens::new().allow_anonymous(guest.clone());
    let known = engine().authenticate(&tokens, Credentials::None, &with_certificate(ALICE)).await;
    assert_eq!(known.expect("let in"), guest);
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_heeded_while_its_address_is_blocked() {
    let engine = engine();
    let users = ByCertificate::new(CertificateFingerprint::of(ALICE));
    let source = with_certificate(ALICE);
    for guess in 0..8 {
        let shown = Credentials::Bearer(Secret::new(format!("guess {guess}")));
        engine.authenticate(&users, shown, &source).await.expect_err("it is none");
    }
    assert!(engine.blocked_for(&source).is_some());
    let known = engine.authenticate(&users, Credentials::None, &source).await;
    assert_eq!(known.expect("let in").user().as_str(), "alice");
}

/// Accepts these kinds.
struct Accepting(&'static [CredentialKind]);

impl Authenticator for Accepting {
    async fn authenticate(
        &self,
        _: Credentials,
        _: &CredentialSource,
    ) -> Result<Caller, AuthError> {
        Err(AuthError::Invalid)
    }

    fn accepts(&self, kind: CredentialKind) -> bool {
        self.0.contains(&kind)
    }
}

#[test]
fn a_certificate_comes_before_the_process_behind_a_socket() {
    use CredentialKind::{Certificate, UnixPeer as Peer};
    let source = CredentialSource::unix("test", UnixPeer::new(7, 1, None));
    let source = source.with_certificate(ClientCertificate::new(ALICE));
    for (accepted, used, is_open_to_rebinding) in [
        (&[Peer, Certificate][..], Some(Certificate), false),
        (&[Certificate], Some(Certificate), false),
        (&[Peer], Some(Peer), true),
        (&[], None, true),
    ] {
        let shown = Credentials::None.or_of_connection(&source, &Accepting(accepted));
        assert_eq!(shown.kind(), used);
        assert_eq!(shown.are_open_to_rebinding(), is_open_to_rebinding);
    }
    let shown = Credentials::password("alice", Secret::new("correct-horse"));
    let shown = shown.or_of_connection(&source, &Accepting(&[Peer, Certificate]));
    assert_eq!(shown.kind(), Some(CredentialKind::Password));
}

#[test]
fn a_request_has_the_certificate_of_its_connection_or_its_own() {
    let of = |found: Option<&CredentialSource>, own: Option<&[u8]>| {
        let own = own.map(ClientCertificate::new);
        let source = CredentialSource::of_request("test", found, None, own.as_ref());
        source.certificate().map(|certificate| certificate.der().to_vec())
    };
    let connection = with_certificate(OTHER);
    assert_eq!(of(None, None), None);
    assert_eq!(of(Some(&connection), None).as_deref(), Some(OTHER));
    assert_eq!(of(Some(&connection), Some(ALICE)).as_deref(), Some(ALICE));
    assert_eq!(of(None, Some(ALICE)).as_deref(), Some(ALICE));
}

/// It goes into logs.
#[test]
fn a_certificate_is_shown_by_its_fingerprint() {
    let shown = Credentials::Certificate(ClientCertificate::new(ALICE));
    let fingerprint = CertificateFingerprint::of(ALICE);
    assert_eq!(format!("{shown:?}"), format!("Certificate(ClientCertificate({fingerprint}))"));
}
