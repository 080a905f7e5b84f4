use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::auth::Caller;
use crate::auth::Secret;
use crate::error::ErrorKind;

/// Proof of identity that a client has shown.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Credentials {
    /// No credentials.
    None,
    /// A bearer token (RFC 6750).
    Bearer(Secret),
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
    /// Too much that was shown from the same address, or for the same user, was not valid. What
    /// this client showed was not looked at.
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
    /// The kind, for an adapter's table.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing | Self::Invalid => ErrorKind::Unauthenticated,
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

/// Tells who a client is from what it shows. Implement it with a plain `async fn`:
///
/// ```
/// use splengine_core::Caller;
/// use splengine_core::auth::{AuthError, Authenticator, Credentials};
///
/// struct Everyone(Caller);
///
/// impl Authenticator for Everyone {
///     async fn authenticate(&self, _: Credentials) -> Result<Caller, AuthError> {
///         Ok(self.0.clone())
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(note = "implement `Authenticator`, or use `StaticTokens`")]
pub trait Authenticator: Send + Sync + 'static {
    /// The caller behind `credentials`.
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
    ) -> impl Future<Output = Result<Caller, AuthError>> + Send;
}

/// Any [`Authenticator`], shared by the adapters that one `main` wires together.
///
/// ```
/// use splengine_core::auth::{Authenticator, Credentials, SharedAuthenticator, StaticTokens};
/// use splengine_core::Caller;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let guest = Caller::new("guest")?;
/// let shared = SharedAuthenticator::new(StaticTokens::new().allow_anonymous(guest.clone()));
/// // Two servers have one authenticator.
/// let (http, avro) = (shared.clone(), shared);
/// assert_eq!(http.authenticate(Credentials::None).await?, guest);
/// assert_eq!(avro.authenticate(Credentials::None).await?, guest);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SharedAuthenticator(Arc<dyn DynAuthenticator>);

impl SharedAuthenticator {
    /// Shares `authenticator`.
    pub fn new(authenticator: impl Authenticator) -> Self {
        Self(Arc::new(authenticator))
    }
}

impl Authenticator for SharedAuthenticator {
    async fn authenticate(&self, credentials: Credentials) -> Result<Caller, AuthError> {
        self.0.authenticate_boxed(credentials).await
    }
}

impl fmt::Debug for SharedAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedAuthenticator").finish_non_exhaustive()
    }
}

/// Stands in a server's builder where the authenticator is still to come.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct NoAuthenticator;

impl NoAuthenticator {
    /// Makes the placeholder of an authenticator that is not given yet.
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
/// use splengine_core::auth::{AuthError, Authenticator, Credentials, HostAuthenticator, Secret};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let shown = Credentials::Bearer(Secret::new("whatever"));
/// let known = HostAuthenticator::new().authenticate(shown).await;
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
    async fn authenticate(&self, credentials: Credentials) -> Result<Caller, AuthError> {
        Err(match credentials {
            Credentials::None => AuthError::Missing,
            _ => AuthError::Invalid,
        })
    }
}

/// The object-safe twin of [`Authenticator`].
trait DynAuthenticator: Send + Sync {
    fn authenticate_boxed(
        &self,
        credentials: Credentials,
    ) -> Pin<Box<dyn Future<Output = Result<Caller, AuthError>> + Send + '_>>;
}

impl<A: Authenticator> DynAuthenticator for A {
    fn authenticate_boxed(
        &self,
        credentials: Credentials,
    ) -> Pin<Box<dyn Future<Output = Result<Caller, AuthError>> + Send + '_>> {
        Box::pin(self.authenticate(credentials))
    }
}
