//! Authentications, and what is done about those that fail.

use std::time::Duration;

use crate::auth::{AuthError, Authenticator, Caller, CredentialSource, Credentials, Secret};
use crate::engine::Engine;

impl Engine {
    /// Returns who is behind `credentials`, as `authenticator` says, within the engine's
    /// [policy](crate::engine::EngineBuilder::guessing) against guessing: each failure is logged and
    /// counted, its answer is held back for up to a second, and an address with many is blocked for a
    /// while. A client without credentials ([`Credentials::None`]) or with a public key does not count
    /// as a failure, and is never refused because of failures. Passwords are checked as
    /// [`check_password`](Self::check_password) does.
    ///
    /// For a client that shows nothing, the authenticator is asked about its
    /// [certificate](Credentials::Certificate), if TLS has verified one, or else, behind a UNIX socket, about its
    /// [process](Credentials::UnixPeer), if it accepts such credentials. What it says of these is no failure
    /// either.
    ///
    /// ```
    /// use splengine_core::{Caller, Engine, LocalExecutor};
    /// use splengine_core::auth::{AuthError, CredentialSource, Credentials, Secret, StaticTokens};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
    /// let mut tokens = StaticTokens::new();
    /// let alice = Caller::new("alice")?.with_all_scopes();
    /// tokens.insert(&Secret::new("a-long-and-random-token"), alice.clone())?;
    ///
    /// let source = CredentialSource::new("http", Some([192, 0, 2, 1].into()));
    /// let shown = Credentials::Bearer(Secret::new("a-long-and-random-token"));
    /// assert_eq!(engine.authenticate(&tokens, shown, &source).await?, alice);
    /// let shown = Credentials::Bearer(Secret::new("a-guess"));
    /// let refused = engine.authenticate(&tokens, shown, &source).await;
    /// assert!(matches!(refused, Err(AuthError::Invalid)));
    /// assert_eq!(engine.stats().authentication_failures, [("http", 1)]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`AuthError::Unsupported`] for credentials that `authenticator` does not
    /// [accept](Authenticator::accepts); [`AuthError::Throttled`] for an address that is blocked,
    /// before `authenticator` is asked; else the error of `authenticator`. [`AuthError::Invalid`] for a
    /// caller that [is revoked](Caller::is_revoked).
    ///
    /// # Cancel safety
    ///
    /// A failure stays counted when the future is dropped while its answer is held back.
    pub async fn authenticate(
        &self,
        authenticator: &impl Authenticator,
        credentials: Credentials,
        source: &CredentialSource,
    ) -> Result<Caller, AuthError> {
        let check = async |credentials| {
            let caller = authenticator.authenticate(credentials, source).await;
            let caller = caller.inspect_err(|error| self.0.guessing.log_outage(error, source))?;
            if caller.is_revoked() { Err(AuthError::Invalid) } else { Ok(caller) }
        };
        let credentials = credentials.or_of_connection(source, authenticator);
        if credentials.kind().is_some_and(|kind| !authenticator.accepts(kind)) {
            return Err(AuthError::Unsupported);
        }
        match &credentials {
            // Neither keys nor uids nor certificates are secrets: to guess one is of no use.
            Credentials::None
            | Credentials::PublicKey { .. }
            | Credentials::UnixPeer(_)
            | Credentials::Certificate(_) => check(credentials).await,
            Credentials::Password { user, password } => {
                let (user, password) = (user.clone(), password.clone());
                self.check_password(&user, &password, source, check(credentials)).await
            }
            Credentials::Bearer(token) => {
                let token = token.clone();
                self.check_secret(&token, source, check(credentials)).await
            }
        }
    }

    /// Checks whether `secret` is valid, as `check` says, within the same bounds as
    /// [`authenticate`](Self::authenticate): for what no [`Authenticator`] knows, such as tickets.
    ///
    /// # Errors
    ///
    /// [`AuthError::Throttled`] for an address that is blocked, before `check` is polled; else what
    /// `check` says. [`AuthError::Invalid`] alone counts as a failure.
    ///
    /// # Cancel safety
    ///
    /// That of `check`; a failure stays counted.
    pub async fn check_secret<T>(
        &self,
        secret: &Secret,
        source: &CredentialSource,
        check: impl Future<Output = Result<T, AuthError>>,
    ) -> Result<T, AuthError> {
        let guessing = &self.0.guessing;
        if let Some(left) = guessing.blocked_for(source)
            && !source.was_valid(secret)
        {
            return Err(guessing.refuse(left));
        }
        let checked = check.await;
        match &checked {
            Ok(_) => source.is_valid(secret),
            Err(error) => guessing.answer(error, source, None, secret).await,
        }
        checked
    }

    /// Checks whether `password` is that of `user`, as `check` says. Beside the bounds of
    /// [`check_secret`](Self::check_secret), attempts at one user's password from all addresses
    /// together are spaced once some have failed: at most one each second, each of which waits up to
    /// ten seconds for its turn, but for those from an address from which the user's password was shown
    /// within 30 days. This never affects public keys.
    ///
    /// ```
    /// use splengine_core::auth::{AuthError, CredentialSource, Secret};
    /// use splengine_core::{Engine, LocalExecutor};
    ///
    /// /// Stands for a lookup in a directory, which takes its time.
    /// async fn directory_knows(user: &str, password: &Secret) -> Result<(), AuthError> {
    ///     let is_right = (user, password.expose()) == ("alice", "correct-horse");
    ///     is_right.then_some(()).ok_or(AuthError::Invalid)
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
    /// let source = CredentialSource::new("http", Some([192, 0, 2, 1].into()));
    /// let password = Secret::new("correct-horse");
    /// let check = directory_knows("alice", &password);
    /// engine.check_password("alice", &password, &source, check).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`AuthError::Throttled`] for an address that is blocked, or if too many attempts wait; else the
    /// error of `check`.
    ///
    /// # Cancel safety
    ///
    /// That of `check`; a turn that was waited for is used up, and a failure stays counted.
    pub async fn check_password<T>(
        &self,
        user: &str,
        password: &Secret,
        source: &CredentialSource,
        check: impl Future<Output = Result<T, AuthError>>,
    ) -> Result<T, AuthError> {
        let guessing = &self.0.guessing;
        if let Some(left) = guessing.blocked_for(source) {
            return Err(guessing.refuse(left));
        }
        guessing.turn(source, user).await?;
        let checked = check.await;
        match &checked {
            Ok(_) => guessing.succeed(source, user),
            Err(error) => guessing.answer(error, source, Some(user), password).await,
        }
        checked
    }

    /// Counts a connection that has ended without a login, though its client tried: for servers on
    /// which single attempts, such as offers of keys, are no failures.
    pub fn count_failed_login(&self, source: &CredentialSource) {
        self.0.guessing.fail(source, None, None);
    }

    /// Returns how long the address of `source` is still blocked: for servers that refuse connections.
    /// The refusal is counted.
    #[must_use]
    pub fn blocked_for(&self, source: &CredentialSource) -> Option<Duration> {
        let left = self.0.guessing.blocked_for(source)?;
        self.0.guessing.refuse(left);
        Some(left)
    }
}
