use crate::auth::{
    AuthError, Authenticator, Caller, CredentialKind, CredentialSource, Credentials, Scopes,
};

/// User on whose behalf a [`ServerClient`](crate::testing::conformance::ServerClient) asks a server.
///
/// ```
/// use splengine_core::testing::conformance::TestUser;
///
/// /// What a client of HTTP sends.
/// fn header(user: TestUser) -> String {
///     user.token().map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"))
/// }
///
/// assert_eq!(header(TestUser::Anonymous), "");
/// assert!(header(TestUser::Alice).starts_with("Authorization: Bearer "));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TestUser {
    /// A user with every right over their own things ([`Scopes::USER`](crate::auth::Scopes::USER)).
    Alice,
    /// Another user with the same rights.
    Bob,
    /// A user with valid credentials and without any right.
    Unprivileged,
    /// A client with a token that is not valid.
    Unknown,
    /// A client that shows no credentials.
    Anonymous,
}

impl TestUser {
    /// All users of the suite.
    pub const ALL: &[Self] =
        &[Self::Alice, Self::Bob, Self::Unprivileged, Self::Unknown, Self::Anonymous];

    /// Returns the name of the user, for protocols in which a client says it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Alice => "alice",
            Self::Bob => "bob",
            Self::Unprivileged => "unprivileged",
            Self::Unknown => "unknown",
            Self::Anonymous => "anonymous",
        }
    }

    /// Token or password that the client shows; `None` if it shows nothing.
    #[must_use]
    pub fn token(self) -> Option<&'static str> {
        match self {
            Self::Alice => Some("the-very-long-token-of-alice"),
            Self::Bob => Some("the-very-long-token-of-bob"),
            Self::Unprivileged => Some("the-very-long-token-of-unprivileged"),
            Self::Unknown => Some("a-token-that-was-never-given"),
            Self::Anonymous => None,
        }
    }

    fn scopes(self) -> Option<Scopes> {
        match self {
            Self::Alice | Self::Bob => Some(Scopes::USER),
            Self::Unprivileged => Some(Scopes::NONE),
            Self::Unknown | Self::Anonymous => None,
        }
    }
}

/// [`Authenticator`] that knows each [`TestUser`] by their token: as a bearer token, or as a password with
/// their name.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct TestUsers;

impl Authenticator for TestUsers {
    async fn authenticate(
        &self,
        credentials: Credentials,
        _: &CredentialSource,
    ) -> Result<Caller, AuthError> {
        let (name, token) = match &credentials {
            Credentials::None => return Err(AuthError::Missing),
            Credentials::Bearer(token) => (None, token),
            Credentials::Password { user, password } => (Some(user.as_str()), password),
            _ => return Err(AuthError::Invalid),
        };
        let is_shown = |user: &TestUser| {
            user.token() == Some(token.expose()) && name.is_none_or(|name| name == user.name())
        };
        let user = TestUser::ALL.iter().copied().find(is_shown).ok_or(AuthError::Invalid)?;
        let scopes = user.scopes().ok_or(AuthError::Invalid)?;
        let caller = Caller::new(user.name()).map_err(|_| AuthError::Invalid)?;
        Ok(caller.with_scopes(scopes))
    }

    fn accepts(&self, kind: CredentialKind) -> bool {
        matches!(kind, CredentialKind::Bearer | CredentialKind::Password)
    }
}
