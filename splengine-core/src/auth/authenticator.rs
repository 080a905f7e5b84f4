use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::auth::{Caller, ClientCertificate, CredentialSource, Secret, UnixPeer};
use crate::error::ErrorKind;

/// Proof of identity that a client has shown.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Credentials {
    /// No credentials were shown.
    None,
    /// A bearer token (RFC 6750).
    Bearer(Secret),
    /// A name and a password: of the scheme `Basic` (RFC 7617) of HTTP, or of the method `password` of
    /// SSH (RFC 4252, section 8).
    #[non_exhaustive]
    Password {
        /// Name of the user, as the client wrote it: it need not be a
        /// [`UserName`](crate::UserName).
        user: String,
        /// Password that the client showed.
        password: Secret,
    },
    /// A name and a public key, whose private key the client has: of the method `publickey` of SSH
    /// (RFC 4252, section 7).
    #[non_exhaustive]
    PublicKey {
        /// Name of the user, as the client wrote it.
        user: String,
        /// The key as a line of OpenSSH's authorized_keys without options or comment (sshd(8)):
        /// `ssh-ed25519 AAAA…`.
        key: String,
    },
    /// The process at the other end of a UNIX socket, which has shown nothing else. Over SSH it is not
    /// asked about; there, and beside other credentials, it is told by
    /// [`CredentialSource::unix_peer`] alone.
    UnixPeer(UnixPeer),
    /// The certificate of a client of TLS that has shown nothing else. The server's TLS has verified it. Which
    /// user it stands for, and whether it was revoked, is for the [`Authenticator`] to say. Beside other
    /// credentials it is told by [`CredentialSource::certificate`] alone.
    Certificate(ClientCertificate),
}

/// Kind of [`Credentials`] that a client may show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CredentialKind {
    /// A bearer token ([`Credentials::Bearer`]).
    Bearer,
    /// A password ([`Credentials::Password`]).
    Password,
    /// A public key ([`Credentials::PublicKey`]).
    PublicKey,
    /// The process behind a UNIX socket ([`Credentials::UnixPeer`]).
    UnixPeer,
    /// A client certificate of TLS ([`Credentials::Certificate`]).
    Certificate,
}

impl Credentials {
    /// Makes credentials of a name and a password.
    pub fn password(user: impl Into<String>, password: Secret) -> Self {
        Self::Password { user: user.into(), password }
    }

    /// Makes credentials of a name and a public key, a line of OpenSSH's authorized_keys without
    /// options or comment.
    pub fn public_key(user: impl Into<String>, key: impl Into<String>) -> Self {
        Self::PublicKey { user: user.into(), key: key.into() }
    }

    /// Returns the kind; `None` for [`Credentials::None`].
    #[must_use]
    pub fn kind(&self) -> Option<CredentialKind> {
        match self {
            Self::None => None,
            Self::Bearer(_) => Some(CredentialKind::Bearer),
            Self::Password { .. } => Some(CredentialKind::Password),
            Self::PublicKey { .. } => Some(CredentialKind::PublicKey),
            Self::UnixPeer(_) => Some(CredentialKind::UnixPeer),
            Self::Certificate(_) => Some(CredentialKind::Certificate),
        }
    }

    /// Returns these credentials or, if they are none, those of the connection that they would come by: its
    /// certificate, else its process, whichever of them `authenticator` [accepts](Authenticator::accepts).
    /// [`Engine::authenticate`](crate::Engine::authenticate) does so itself; a server does it before where it
    /// has to know what its client is let in by.
    ///
    /// ```
    /// use splengine_core::auth::{
    ///     ClientCertificate, CredentialSource, Credentials, StaticTokens,
    /// };
    ///
    /// let certificate = ClientCertificate::new(&b"the bytes of a certificate"[..]);
    /// let source = CredentialSource::new("http", None).with_certificate(certificate);
    /// // It accepts tokens alone.
    /// let shown = Credentials::None.or_of_connection(&source, &StaticTokens::new());
    /// assert!(matches!(shown, Credentials::None));
    /// ```
    #[must_use]
    pub fn or_of_connection(
        self,
        source: &CredentialSource,
        authenticator: &impl Authenticator,
    ) -> Self {
        if !matches!(self, Self::None) {
            return self;
        }
        let certificate = source.certificate().cloned().map(Self::Certificate);
        let peer = source.unix_peer().map(Self::UnixPeer);
        let accepted = |shown: &Self| shown.kind().is_some_and(|kind| authenticator.accepts(kind));
        [certificate, peer].into_iter().flatten().find(accepted).unwrap_or(Self::None)
    }

    /// Returns whether a browser shows them, of its own accord, to any server that a page's name leads to: none,
    /// and the process behind a UNIX socket. Who is let in by these has to call the server by a name that is not
    /// open to DNS rebinding ([`OriginPolicy::is_anonymous_allowed`](crate::net::OriginPolicy::is_anonymous_allowed)).
    /// A certificate is not one of them: a browser shows it only to a server whose own certificate has the name
    /// of the page.
    #[must_use]
    pub fn are_open_to_rebinding(&self) -> bool {
        match self {
            Self::None | Self::UnixPeer(_) => true,
            Self::Bearer(_)
            | Self::Password { .. }
            | Self::PublicKey { .. }
            | Self::Certificate(_) => false,
        }
    }
}

/// Reason for which a client was not recognised.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The client showed nothing.
    #[error("credentials are required")]
    Missing,
    /// Credentials that are not valid. Why is not said: it would help a guesser.
    #[error("the credentials are not valid")]
    Invalid,
    /// Credentials of a kind that the authenticator does not [accept](Authenticator::accepts).
    #[error("credentials must be of the form `Bearer TOKEN`")]
    Unsupported,
    /// Too many credentials from the same address, or for the same user, were not valid. Those of this
    /// client were not checked.
    #[error("too many credentials from there were not valid; try again in {} s", retry_after.as_secs().saturating_add(1))]
    #[non_exhaustive]
    Throttled {
        /// Time after which to try again.
        retry_after: Duration,
    },
    /// The authenticator itself can't answer now.
    #[error("credentials can't be checked at the moment")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl AuthError {
    /// Returns the error's kind, which adapters map to a status.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing | Self::Invalid | Self::Unsupported => ErrorKind::Unauthenticated,
            Self::Throttled { .. } => ErrorKind::CallerLimit,
            Self::Unavailable(_) => ErrorKind::Unavailable,
        }
    }

    /// Returns the time after which to try again, where that is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Throttled { retry_after } => Some(*retry_after),
            _ => None,
        }
    }
}

/// Finds the caller behind a client's credentials, in the same way for all servers. Implement it with a
/// plain `async fn`:
///
/// ```
/// use splengine_core::Caller;
/// use splengine_core::auth::{
///     AuthError, Authenticator, CredentialKind, CredentialSource, Credentials, Secret,
/// };
///
/// /// Users of a directory, who show their password over HTTP and over SSH.
/// struct Directory;
///
/// impl Directory {
///     async fn knows(&self, user: &str, password: &Secret) -> bool {
///         (user, password.expose()) == ("alice", "correct-horse")
///     }
/// }
///
/// impl Authenticator for Directory {
///     async fn authenticate(
///         &self,
///         credentials: Credentials,
///         source: &CredentialSource,
///     ) -> Result<Caller, AuthError> {
///         // Whoever is on this machine needs none.
///         if source.address().is_some_and(|address| address.is_loopback())
///             && matches!(credentials, Credentials::None)
///         {
///             return Caller::new("guest").map_err(|_| AuthError::Invalid);
///         }
///         match credentials {
///             Credentials::Password { user, password, .. } if self.knows(&user, &password).await => {
///                 let caller = Caller::new(&user).map_err(|_| AuthError::Invalid)?;
///                 Ok(caller.with_all_scopes())
///             }
///             Credentials::None => Err(AuthError::Missing),
///             _ => Err(AuthError::Invalid),
///         }
///     }
///
///     fn accepts(&self, kind: CredentialKind) -> bool {
///         kind == CredentialKind::Password
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let source = CredentialSource::new("http", Some([192, 0, 2, 1].into()));
/// let shown = Credentials::password("alice", Secret::new("correct-horse"));
/// assert_eq!(Directory.authenticate(shown, &source).await?.user().as_str(), "alice");
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(note = "implement `Authenticator`, or use `StaticTokens`")]
pub trait Authenticator: Send + Sync + 'static {
    /// Returns the caller behind `credentials`, which a client from `source` shows: none, or some of
    /// a kind that this authenticator [accepts](Self::accepts).
    ///
    /// A server may ask again about the same credentials: about a public key before and after the
    /// client has shown that it has the private one, about any when their owner's rights may have
    /// changed. The answer takes effect once the client has shown everything that its method asks for.
    ///
    /// # Errors
    ///
    /// [`AuthError`] when nobody is recognised or the question can't be answered.
    ///
    /// # Cancel safety
    ///
    /// Adapters drop the future when the client goes away.
    fn authenticate(
        &self,
        credentials: Credentials,
        source: &CredentialSource,
    ) -> impl Future<Output = Result<Caller, AuthError>> + Send;

    /// Returns whether a client may be recognised by credentials of this kind. Others are refused
    /// without calling [`authenticate`](Self::authenticate), and do not count as failures. Default:
    /// bearer tokens alone.
    fn accepts(&self, kind: CredentialKind) -> bool {
        kind == CredentialKind::Bearer
    }
}

/// Any [`Authenticator`], shared by the adapters that one `main` wires together.
///
/// ```
/// use splengine_core::auth::{
///     Authenticator, CredentialSource, Credentials, SharedAuthenticator, StaticTokens,
/// };
/// use splengine_core::Caller;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let guest = Caller::new("guest")?;
/// let shared = SharedAuthenticator::new(StaticTokens::new().allow_anonymous(guest.clone()));
/// // Two servers have one authenticator.
/// let (http, avro) = (shared.clone(), shared);
/// let source = CredentialSource::new("http", None);
/// assert_eq!(http.authenticate(Credentials::None, &source).await?, guest);
/// assert_eq!(avro.authenticate(Credentials::None, &source).await?, guest);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SharedAuthenticator(Arc<dyn DynAuthenticator>);

impl SharedAuthenticator {
    /// Wraps `authenticator` for several servers.
    pub fn new(authenticator: impl Authenticator) -> Self {
        Self(Arc::new(authenticator))
    }
}

impl Authenticator for SharedAuthenticator {
    async fn authenticate(
        &self,
        credentials: Credentials,
        source: &CredentialSource,
    ) -> Result<Caller, AuthError> {
        self.0.authenticate_boxed(credentials, source).await
    }

    fn accepts(&self, kind: CredentialKind) -> bool {
        self.0.accepts_boxed(kind)
    }
}

impl fmt::Debug for SharedAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedAuthenticator").finish_non_exhaustive()
    }
}

/// Placeholder in a server's builder until the authenticator is set.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct NoAuthenticator;

impl NoAuthenticator {
    /// Makes the placeholder of an authenticator that is not set yet.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

/// [`Authenticator`] that recognises no caller by credentials: for a service that is nested in an
/// application which authenticates its requests itself, and puts the [`Caller`] into their extensions.
/// No client gets past the application by a token.
///
/// ```
/// use splengine_core::auth::{
///     AuthError, Authenticator, CredentialSource, Credentials, HostAuthenticator, Secret,
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let shown = Credentials::Bearer(Secret::new("whatever"));
/// let source = CredentialSource::new("http", None);
/// let known = HostAuthenticator::new().authenticate(shown, &source).await;
/// assert!(matches!(known, Err(AuthError::Invalid)));
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct HostAuthenticator;

impl HostAuthenticator {
    /// Returns an authenticator that leaves everything to the application around the service.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl Authenticator for HostAuthenticator {
    async fn authenticate(
        &self,
        credentials: Credentials,
        _: &CredentialSource,
    ) -> Result<Caller, AuthError> {
        Err(match credentials {
            Credentials::None => AuthError::Missing,
            _ => AuthError::Invalid,
        })
    }
}

/// The dyn-compatible counterpart of [`Authenticator`].
trait DynAuthenticator: Send + Sync {
    fn authenticate_boxed<'a>(
        &'a self,
        credentials: Credentials,
        source: &'a CredentialSource,
    ) -> Pin<Box<dyn Future<Output = Result<Caller, AuthError>> + Send + 'a>>;

    fn accepts_boxed(&self, kind: CredentialKind) -> bool;
}

impl<A: Authenticator> DynAuthenticator for A {
    fn authenticate_boxed<'a>(
        &'a self,
        credentials: Credentials,
        source: &'a CredentialSource,
    ) -> Pin<Box<dyn Future<Output = Result<Caller, AuthError>> + Send + 'a>> {
        Box::pin(self.authenticate(credentials, source))
    }

    fn accepts_boxed(&self, kind: CredentialKind) -> bool {
        self.accepts(kind)
    }
}
