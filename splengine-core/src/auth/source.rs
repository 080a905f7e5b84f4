use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use crate::auth::{Client, ClientCertificate, Network, Secret, UnixPeer};

/// Origin of credentials: what [`Engine::authenticate`](crate::Engine::authenticate) counts
/// and logs failures by. A server makes one for each connection, and puts it into the extensions of
/// each request of HTTP. An application that nests one of our services behind a listener of its own does
/// so itself.
///
/// A connection on which some credentials were valid may continue with these while its address is
/// blocked because of others. Clones belong to the same connection.
///
/// ```
/// use splengine_core::auth::CredentialSource;
///
/// let source = CredentialSource::new("http", Some([192, 0, 2, 1].into()));
/// assert_eq!(source.server(), "http");
/// ```
#[derive(Debug, Clone)]
pub struct CredentialSource {
    server: &'static str,
    client: Client,
    certificate: Option<ClientCertificate>,
    /// Hash of what was valid last.
    valid: Arc<Mutex<Option<[u8; 32]>>>,
}

impl CredentialSource {
    /// A connection to the server of this name, which stands in the log and in metrics: `http`, `ws`,
    /// `ssh`, `avro`. All sources without an address count as one.
    #[must_use]
    pub fn new(server: &'static str, address: Option<IpAddr>) -> Self {
        Self { server, client: address.into(), certificate: None, valid: Arc::default() }
    }

    /// A connection through a UNIX socket to the server of this name. All processes of one user count as
    /// one client. Where nothing else is shown, and the [`Authenticator`](crate::auth::Authenticator)
    /// accepts that, the peer's ids are [credentials](crate::auth::Credentials::UnixPeer).
    #[must_use]
    pub fn unix(server: &'static str, peer: UnixPeer) -> Self {
        Self { server, client: Client::Unix(peer), certificate: None, valid: Arc::default() }
    }

    /// Returns the source with the certificate that TLS has verified on this connection. Where nothing else
    /// is shown, and the [`Authenticator`](crate::auth::Authenticator) accepts that, it is its
    /// [credentials](crate::auth::Credentials::Certificate).
    #[must_use]
    pub fn with_certificate(mut self, certificate: ClientCertificate) -> Self {
        self.certificate = Some(certificate);
        self
    }

    /// Source of a request to the server of this name: the one `found` among the request's extensions,
    /// which may bear the name of a server that this one is nested in; else one of the `address` alone. A
    /// `certificate` among the extensions takes the place of that of the source found.
    #[must_use]
    pub fn of_request(
        server: &'static str,
        found: Option<&Self>,
        address: Option<IpAddr>,
        certificate: Option<&ClientCertificate>,
    ) -> Self {
        let source = match found {
            Some(source) => Self { server, ..source.clone() },
            None => Self::new(server, address),
        };
        match certificate {
            Some(certificate) => source.with_certificate(certificate.clone()),
            None => source,
        }
    }

    /// Returns the name of the server.
    #[must_use]
    pub fn server(&self) -> &'static str {
        self.server
    }

    /// Address of the client, if it has one that is known.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match self.client {
            Client::Ip(address) => Some(address),
            _ => None,
        }
    }

    /// Returns the client's process, of a UNIX socket.
    #[must_use]
    pub fn unix_peer(&self) -> Option<UnixPeer> {
        match self.client {
            Client::Unix(peer) => Some(peer),
            _ => None,
        }
    }

    /// Returns the client's certificate of TLS, if it was verified. It is told beside other credentials,
    /// too.
    #[must_use]
    pub fn certificate(&self) -> Option<&ClientCertificate> {
        self.certificate.as_ref()
    }

    /// Clients that count as one with this one, for bounds by client.
    #[must_use]
    pub fn network(&self) -> Network {
        self.client.network()
    }

    pub(crate) fn client(&self) -> Client {
        self.client
    }

    pub(crate) fn was_valid(&self, secret: &Secret) -> bool {
        let valid = *self.valid.lock().unwrap_or_else(PoisonError::into_inner);
        valid.is_some_and(|valid| valid == hash(secret))
    }

    pub(crate) fn is_valid(&self, secret: &Secret) {
        *self.valid.lock().unwrap_or_else(PoisonError::into_inner) = Some(hash(secret));
    }
}

fn hash(secret: &Secret) -> [u8; 32] {
    Sha256::digest(secret.expose()).into()
}
