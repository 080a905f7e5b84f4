//! Certificates of the server, and what is demanded of those of clients.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use splengine_core::auth::Secret;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// The certificates and the private key that TLS is served with, and the authorities of the certificates that
/// clients show, if they are [asked](Self::client_ca) for any. All of these can be replaced while the server
/// runs; all clones share them.
///
/// ```no_run
/// use splengine_avro::{ClientCertificates, Tls};
/// use splengine_core::auth::Secret;
///
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let read = || -> std::io::Result<_> {
///     Ok((std::fs::read("chain.pem")?, Secret::new(std::fs::read_to_string("key.pem")?)))
/// };
/// let (certificates, key) = read()?;
/// let tls = Tls::new(&certificates, &key)?
///     .client_ca(&std::fs::read("clients.pem")?, ClientCertificates::Required)?;
/// // … given to `AvroServer::serve_tls`. When they have been renewed:
/// let (certificates, key) = read()?;
/// tls.replace(&certificates, &key)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Tls(Arc<RwLock<State>>);

/// Demand on clients of TLS to show a certificate. Of clients without TLS it says nothing: see
/// [`AvroServer::plain_text`](crate::AvroServer::plain_text).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClientCertificates {
    /// A certificate or none. One that can't be verified is refused all the same.
    Optional,
    /// A certificate is required: a client without one is refused in the handshake.
    Required,
}

/// Certificates or a key that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{what} can't be used")]
#[non_exhaustive]
pub struct TlsError {
    what: &'static str,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// What new connections are served with.
struct State {
    own: Arc<CertifiedKey>,
    /// Who verifies clients, if they are asked for certificates.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// Made of these.
    acceptor: TlsAcceptor,
}

impl Tls {
    /// A chain of certificates and its private key, both in PEM. Clients are asked for no certificates.
    ///
    /// # Errors
    ///
    /// [`TlsError`] when they can't be read or do not fit each other.
    pub fn new(certificates: &[u8], key: &Secret) -> Result<Self, TlsError> {
        let own = read_own(certificates, key)?;
        let acceptor = make_acceptor(&own, None)?;
        Ok(Self(Arc::new(RwLock::new(State { own, verifier: None, acceptor }))))
    }

    /// Asks clients for a certificate that one of these `authorities` (PEM) has signed, itself or by
    /// certificates between them that the client sends. One that has another signer, is not valid now or is not
    /// meant for clients (extended key usage) is refused in the handshake; lists of revoked certificates are not
    /// read. The verified one is known to the engine's authenticator on every call of its connection: as
    /// [`Credentials::Certificate`](splengine_core::auth::Credentials::Certificate) where the call shows no
    /// credentials, else by [`CredentialSource::certificate`](splengine_core::auth::CredentialSource::certificate).
    /// To know who it is, the authenticator has to accept that kind of credentials.
    ///
    /// Sessions of TLS are then not resumed, so that the certificate of each connection is verified anew. A
    /// client may send 32 KiB until its handshake is done, and 16 KiB where it is asked for none. Clients
    /// without TLS are served as before, unless [`plain_text`](crate::AvroServer::plain_text) is false.
    ///
    /// # Errors
    ///
    /// [`TlsError`] when the authorities can't be read, or there is none.
    pub fn client_ca(
        self,
        authorities: &[u8],
        demanded: ClientCertificates,
    ) -> Result<Self, TlsError> {
        self.replace_client_ca(authorities, demanded)?;
        Ok(self)
    }

    /// Serves new connections with these from now on. Open connections keep what they began with. What is
    /// demanded of clients stays as it is.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new); the certificates and the key are then not changed.
    pub fn replace(&self, certificates: &[u8], key: &Secret) -> Result<(), TlsError> {
        let own = read_own(certificates, key)?;
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        state.acceptor = make_acceptor(&own, state.verifier.as_ref())?;
        state.own = own;
        Ok(())
    }

    /// Asks the clients of new connections for certificates of these authorities from now on, as
    /// [`client_ca`](Self::client_ca) does. Open connections are not verified again: their callers lose
    /// their rights when an authenticator [revokes](splengine_core::auth::Revocation) them.
    ///
    /// # Errors
    ///
    /// As [`client_ca`](Self::client_ca); what is demanded is then not changed.
    pub fn replace_client_ca(
        &self,
        authorities: &[u8],
        demanded: ClientCertificates,
    ) -> Result<(), TlsError> {
        let verifier = Some(make_verifier(authorities, demanded)?);
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        state.acceptor = make_acceptor(&state.own, verifier.as_ref())?;
        state.verifier = verifier;
        Ok(())
    }

    /// What a new connection is served with, and how many bytes its client may send until its handshake is done.
    pub(crate) fn acceptor(&self) -> (TlsAcceptor, usize) {
        let state = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let max_bytes = match state.verifier {
            Some(_) => MAX_HANDSHAKE_BYTES_WITH_CERTIFICATES,
            None => MAX_HANDSHAKE_BYTES,
        };
        (state.acceptor.clone(), max_bytes)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl TlsError {
    fn of<E>(what: &'static str) -> impl Fn(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        move |source| Self { what, source: source.into() }
    }
}

fn read_own(certificates: &[u8], key: &Secret) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = CertificateDer::pem_slice_iter(certificates)
        .collect::<Result<Vec<_>, _>>()
        .map_err(TlsError::of("the certificates"))?;
    let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes())
        .map_err(TlsError::of("the private key"))?;
    let own = CertifiedKey::from_der(chain, key, &provider());
    own.map(Arc::new).map_err(TlsError::of("the certificates with this key"))
}

fn make_verifier(
    authorities: &[u8],
    demanded: ClientCertificates,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let what = "the authorities of clients";
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(authorities) {
        let authority = authority.map_err(TlsError::of(what))?;
        roots.add(authority).map_err(TlsError::of(what))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let builder = match demanded {
        ClientCertificates::Optional => builder.allow_unauthenticated(),
        ClientCertificates::Required => builder,
    };
    builder.build().map_err(TlsError::of(what))
}

fn make_acceptor(
    own: &Arc<CertifiedKey>,
    verifier: Option<&Arc<dyn ClientCertVerifier>>,
) -> Result<TlsAcceptor, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::of("TLS"))?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
        None => builder.with_no_client_auth(),
    };
    let own = SingleCertAndKey::from(Arc::clone(own));
    let mut config = builder.with_cert_resolver(Arc::new(own));
    if verifier.is_some() {
        // A session that is resumed has the certificate of its first connection, which may have expired.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(default_provider())
}

/// A hello has up to about 2 KiB.
const MAX_HANDSHAKE_BYTES: usize = 16 << 10;
/// A chain of certificates has a few KiB.
const MAX_HANDSHAKE_BYTES_WITH_CERTIFICATES: usize = 32 << 10;
