//! Users who may log in.

mod address;
mod authorized_keys;
mod certificate;
mod error;
mod file;
mod grant;
mod key;
mod options;
mod password;
mod sources;
#[cfg(test)]
mod testing;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, Certificate, PublicKey};
use splengine_core::auth::{
    Accounts, AuthError, Authenticator, CredentialKind, Credentials, Secret, SharedAuthenticator,
};
use splengine_core::net::{LogBudget, Peer};
use splengine_core::{Caller, UserName};
use tokio::sync::watch;

#[cfg(any(fuzzing, test))]
pub(crate) use self::authorized_keys::{lines, parse, parse_plain};
pub use self::error::UsersError;
pub(crate) use self::grant::Grant;
use self::grant::Refusal;
use self::key::KeyError;
use self::options::Options;
use self::password::Passwords;
use self::sources::{Client, Sources};

/// Users who may log in, by keys, certificates or passwords. A new list has none.
///
/// Every file is read again at each attempt to log in, so that a key or a line that was removed or
/// added takes effect at once. [`accounts`](Self::accounts) define what a user may do; without them
/// every user has every right but `admin`. A file must belong to root or to the user that the server
/// runs as, and no other user may be able to write it or its directory; otherwise it is ignored, with a
/// warning in the log, as is a malformed line; except in [`revoked_keys`](Self::revoked_keys), where
/// either refuses every key. A server is not [opened](crate::SshServerBuilder::listen) with files that
/// are so from the beginning.
///
/// ```no_run
/// use splengine_ssh::Users;
///
/// # fn example() -> Result<(), splengine_ssh::UsersError> {
/// let users = Users::new()
///     .authorized_keys("/etc/splengine/authorized_keys")
///     .trusted_ca("/etc/splengine/user_ca.pub")
///     .revoked_keys("/etc/splengine/revoked_keys");
/// // As a server does when it is opened.
/// users.check()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Users {
    sources: Sources,
    passwords: Option<Passwords>,
    authenticator: Option<SharedAuthenticator>,
    rechecks: watch::Sender<u64>,
    /// Of lines on those who are refused.
    refusals: Arc<LogBudget>,
    /// Of lines on credentials that the authenticator can't check.
    outages: Arc<LogBudget>,
}

/// The credentials of a login, to check them again.
#[derive(Clone)]
pub(crate) struct Entry {
    user: String,
    from: Peer,
    shown: Presented,
    grant: Arc<Grant>,
}

#[derive(Clone)]
enum Presented {
    Key(KeyData),
    Certificate(Box<Certificate>),
    /// The password's hash.
    Password(String),
    /// A key that the authenticator knows.
    KnownKey(KeyData),
    /// A password that the authenticator knows.
    KnownPassword,
}

impl Users {
    /// Makes an empty list, which lets no user in.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives users the rights that they have in `accounts`, as the other servers do that authenticate
    /// with them. An option such as `view-only` takes from these. A user whom `accounts` does not name
    /// has the rights of their tokens, or without a token every right but `admin`; never more than
    /// [`AccountList::others`](splengine_core::auth::AccountList::others).
    ///
    /// ```
    /// use splengine_core::Scope;
    /// use splengine_core::auth::{AccountList, Accounts, Scopes};
    /// use splengine_ssh::Users;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let files = Scopes::NONE.with(Scope::Files);
    /// let accounts = Accounts::new(AccountList::new().user("alice".parse()?, files));
    /// let users = Users::new().accounts(accounts);
    /// # drop(users);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn accounts(mut self, accounts: Accounts) -> Self {
        self.sources.accounts = Some(accounts);
        self
    }

    /// Accepts the keys in `directory`, which holds one file for each user, named after the user, in
    /// OpenSSH's authorized_keys format (sshd(8)). Users are added and removed with their files.
    ///
    /// A file may have up to 1 MiB, a line of it 8 KiB. Keys are of ed25519, ECDSA (NIST P-256, P-384,
    /// P-521) or RSA (2048 to 8192 bits, signing with SHA-2), or of the first two in a device (`sk-…`).
    /// The options `restrict`, `pty`, `no-pty`, `command`, `environment`, `expiry-time` (in UTC),
    /// `from` (addresses, not names), `cert-authority` and `principals` are kept as sshd keeps them,
    /// and `permitopen`, `port-forwarding` and `no-port-forwarding` of connections to targets (see
    /// [`permit_open`](crate::SshServerBuilder::permit_open)); all other forwarding is refused. The
    /// server can't find out whether a key in a device was touched, so such a key is accepted only with
    /// `no-touch-required`, and `verify-required` is refused. Two options are our own: a key with
    /// `view-only` may look at terminals, and nothing else; with `background="keep"` the background
    /// processes of its commands continue, as for a client that sets `SPL_BACKGROUND=keep`, which
    /// `background="kill"` forbids.
    ///
    /// No server is opened where `directory` is none, can't be read, or can be written by others.
    #[must_use]
    pub fn authorized_keys(mut self, directory: impl Into<PathBuf>) -> Self {
        self.sources.authorized_keys = Some(directory.into());
        self
    }

    /// Accepts OpenSSH certificates that name the user as a principal and are signed by one of the keys
    /// in `file`, which has one public key per line.
    ///
    /// Where the user's own file ([`authorized_keys`](Self::authorized_keys)) has lines with `cert-authority` and the same
    /// key, these alone decide. While that file can't be read, or has a malformed line with `cert-authority`, certificates
    /// of the authorities in `file` are refused for the user.
    ///
    /// The critical options `force-command` and `source-address` are enforced; a certificate with
    /// another one is refused. A terminal needs the extension `permit-pty`. A key in a device needs
    /// `no-touch-required`.
    ///
    /// No server is opened where `file` can't be read, can be written by others, or has a line that is no
    /// public key.
    #[must_use]
    pub fn trusted_ca(mut self, file: impl Into<PathBuf>) -> Self {
        self.sources.trusted_ca = Some(file.into());
        self
    }

    /// Accepts passwords, which are refused otherwise. `file` has a line
    /// `user:$argon2id$v=19$m=…,t=…,p=…$salt$hash` for each.
    ///
    /// Only Argon2id is taken, with up to 1 GiB of memory, 64 passes and 16 lanes. Two hashes are
    /// computed at a time, 32 more may wait, and further attempts are refused. A password has 1 to 1024
    /// bytes.
    ///
    /// No server is opened where `file` can't be read, can be written by others, or has a malformed line.
    #[must_use]
    pub fn passwords(mut self, file: impl Into<PathBuf>) -> Self {
        self.passwords = Some(Passwords::new(file.into()));
        self
    }

    /// Refuses the keys in `file`, and all certificates signed by one of them; the file has one public
    /// key or fingerprint (`SHA256:…`) per line.
    ///
    /// No server is opened where `file` can't be read, can be written by others, or has a malformed line. If
    /// it is so later, all keys are refused.
    #[must_use]
    pub fn revoked_keys(mut self, file: impl Into<PathBuf>) -> Self {
        self.sources.revoked_keys = Some(file.into());
        self
    }

    /// Sets an authenticator, as for the other servers, which is asked about keys and passwords that
    /// are not in the files: for users of one's own, such as those of a directory service. It is asked
    /// about the kinds that it [accepts](Authenticator::accepts): public keys of the types and sizes
    /// that [`authorized_keys`](Self::authorized_keys) names, which
    /// [`revoked_keys`](Self::revoked_keys) does not keep out; and passwords of 1 to 1024 bytes. It is
    /// not asked about a key in a device, since the server can't find out whether that was touched. The
    /// caller that it returns keeps its rights, whatever [`accounts`](Self::accounts) say.
    ///
    /// About a key it is asked twice, before and after the client has shown that it has the private
    /// one, and at each [`recheck`](Self::recheck). A caller that it accepted by a password stays
    /// connected until [revoked](splengine_core::Caller::revocable).
    ///
    /// ```
    /// use splengine_core::Caller;
    /// use splengine_core::auth::{
    ///     AuthError, Authenticator, CredentialKind, CredentialSource, Credentials,
    /// };
    /// use splengine_ssh::Users;
    ///
    /// /// Keys that a database knows.
    /// struct Database;
    ///
    /// impl Database {
    ///     async fn owner(&self, key: &str) -> Option<String> {
    ///         # let _ = key;
    ///         Some("alice".to_owned())
    ///     }
    /// }
    ///
    /// impl Authenticator for Database {
    ///     async fn authenticate(
    ///         &self,
    ///         credentials: Credentials,
    ///         _: &CredentialSource,
    ///     ) -> Result<Caller, AuthError> {
    ///         let Credentials::PublicKey { user, key, .. } = credentials else {
    ///             return Err(AuthError::Missing);
    ///         };
    ///         if self.owner(&key).await.as_ref() != Some(&user) {
    ///             return Err(AuthError::Invalid);
    ///         }
    ///         Ok(Caller::new(&user).map_err(|_| AuthError::Invalid)?.with_all_scopes())
    ///     }
    ///
    ///     fn accepts(&self, kind: CredentialKind) -> bool {
    ///         kind == CredentialKind::PublicKey
    ///     }
    /// }
    ///
    /// let users = Users::new().authenticator(Database);
    /// # drop(users);
    /// ```
    #[must_use]
    pub fn authenticator(mut self, authenticator: impl Authenticator) -> Self {
        self.authenticator = Some(SharedAuthenticator::new(authenticator));
        self
    }

    /// Checks the files that were set, as [`SshServerBuilder::bind`](crate::SshServerBuilder::bind) and
    /// [`listen`](crate::SshServerBuilder::listen) do, without opening a server. Files of single users in
    /// the directory of [`authorized_keys`](Self::authorized_keys) are read when these log in. Blocks.
    ///
    /// # Errors
    ///
    /// [`UsersError`], which names the file, and the line if one is malformed.
    pub fn check(&self) -> Result<(), UsersError> {
        self.sources.check()?;
        self.passwords.as_ref().map_or(Ok(()), Passwords::check)
    }

    /// Checks for all open connections whether they would still be accepted on the same terms, and
    /// closes those that would not. To be called when the files may have changed. A connection stays
    /// open if that can't be found out, since a file can't be read or others may write it.
    pub fn recheck(&self) {
        self.rechecks.send_modify(|count| *count += 1);
    }

    /// Is told of each [`recheck`](Self::recheck).
    pub(crate) fn rechecks(&self) -> watch::Receiver<u64> {
        self.rechecks.subscribe()
    }

    /// Whether a user who has logged in would be accepted again.
    pub(crate) async fn would_let_in(&self, entry: &Entry) -> bool {
        let known = match &entry.shown {
            Presented::KnownPassword => return true,
            Presented::KnownKey(key) => {
                let shown = Client { user: &entry.user, from: entry.from };
                let known = self.known_key(&shown, key).await;
                let is_same = |caller: Caller| match caller == entry.grant.caller {
                    true => Ok(()),
                    false => Err(Refusal::Terms),
                };
                Some(known.and_then(is_same))
            }
            _ => None,
        };
        let answer = match known {
            Some(known) => known,
            None => self.ask_again(entry).await,
        };
        match answer {
            Ok(()) | Err(Refusal::Files | Refusal::Busy | Refusal::Unavailable) => true,
            Err(reason) => {
                let (user, from) = (entry.grant.caller.user(), entry.from);
                tracing::info!(%user, %from, how = entry.grant.how, %reason, "let in no longer");
                false
            }
        }
    }

    async fn ask_again(&self, entry: &Entry) -> Result<(), Refusal> {
        let (asked, passwords) = (entry.clone(), self.passwords.clone());
        self.ask(&entry.user, entry.from, move |sources, client| {
            let grant = match &asked.shown {
                Presented::Key(key) => sources.by_key(client, key)?,
                Presented::Certificate(certificate) => {
                    sources.by_certificate(client, certificate)?
                }
                Presented::Password(hash) => {
                    let passwords = passwords.as_ref().ok_or(Refusal::Password)?;
                    return passwords.has(client.user, hash);
                }
                Presented::KnownKey(_) | Presented::KnownPassword => return Ok(()),
            };
            if grant.has_terms_of(&asked.grant) { Ok(()) } else { Err(Refusal::Terms) }
        })
        .await
    }

    /// Whom the authenticator knows by a key that nothing is to be said against.
    async fn known_key(&self, client: &Client<'_>, key: &KeyData) -> Result<Caller, Refusal> {
        let authenticator = self.accepting(CredentialKind::PublicKey)?;
        let asked = key.clone();
        self.ask(client.user, client.from, move |sources, _| sources.check_known(&asked)).await?;
        let line = PublicKey::from(key.clone()).to_openssh();
        let line = line.map_err(|_| Refusal::Key(KeyError::Malformed))?;
        let shown = Credentials::public_key(client.user, line);
        let source = client.from.credential_source("ssh");
        self.known(authenticator.authenticate(shown, &source).await, Refusal::UnknownKey)
    }

    /// The authenticator, if it accepts credentials of this kind.
    fn accepting(&self, kind: CredentialKind) -> Result<&SharedAuthenticator, Refusal> {
        let authenticator = self.authenticator.as_ref().filter(|known| known.accepts(kind));
        authenticator.ok_or(match kind {
            CredentialKind::Password => Refusal::Password,
            _ => Refusal::UnknownKey,
        })
    }

    /// Whether passwords are switched on.
    pub(crate) fn has_passwords(&self) -> bool {
        self.passwords.is_some() || self.accepting(CredentialKind::Password).is_ok()
    }

    /// Whether a client may go on to show that `key` is its own. Where an authority is trusted any
    /// strong key may: whether it is offered with a certificate is not told.
    pub(crate) async fn offered(
        &self,
        user: &str,
        key: &PublicKey,
        algorithm: &Algorithm,
        from: Peer,
    ) -> bool {
        let (key, algorithm) = (key.key_data().clone(), algorithm.clone());
        let what = key::describe(&key);
        let asked = key.clone();
        let answer = self
            .ask(user, from, move |sources, client| sources.offered(client, &asked, &algorithm))
            .await;
        let answer = match answer {
            Err(refusal) if refusal.is_of_nobody() => {
                let known = self.known_key(&Client { user, from }, &key).await;
                known.map(drop).map_err(|known| known.or(refusal))
            }
            answer => answer,
        };
        self.logged(user, from, &what, answer).is_some()
    }

    /// What a client may do that has shown that `key` is its own.
    pub(crate) async fn by_key(&self, user: &str, key: &PublicKey, from: Peer) -> Option<Entry> {
        let key = key.key_data().clone();
        let (what, asked) = (key::describe(&key), key.clone());
        let answer =
            self.ask(user, from, move |sources, client| sources.by_key(client, &asked)).await;
        let answer = match answer {
            Ok(grant) => Ok((Presented::Key(key), grant)),
            Err(refusal) if refusal.is_of_nobody() => {
                let known = self.known_key(&Client { user, from }, &key).await;
                let grant =
                    known.map(|caller| Grant::new(caller, what.clone(), Options::default()));
                grant
                    .map(|grant| (Presented::KnownKey(key), grant))
                    .map_err(|known| known.or(refusal))
            }
            Err(refusal) => Err(refusal),
        };
        let (shown, grant) = self.logged(user, from, &what, answer)?;
        Some(Entry::new(user, from, shown, grant))
    }

    /// What a client may do that has shown that the key of `certificate` is its own.
    pub(crate) async fn by_certificate(
        &self,
        user: &str,
        certificate: &Certificate,
        from: Peer,
    ) -> Option<Entry> {
        let certificate = Box::new(certificate.clone());
        let (what, asked) = (certificate::describe(&certificate), certificate.clone());
        let answer = self
            .ask(user, from, move |sources, client| sources.by_certificate(client, &asked))
            .await;
        let grant = self.logged(user, from, &what, answer)?;
        Some(Entry::new(user, from, Presented::Certificate(certificate), grant))
    }

    /// What a client may do that says `password`.
    pub(crate) async fn by_password(
        &self,
        user: &str,
        password: &Secret,
        from: Peer,
    ) -> Option<Entry> {
        let answer = match &self.passwords {
            Some(passwords) => passwords.verify(user, password).await,
            None => Err(Refusal::Password),
        };
        let answer = match answer {
            Ok(hash) => user
                .parse()
                .map(|user| (Presented::Password(hash), self.sources.caller(user)))
                .map_err(|_| Refusal::UserName),
            Err(Refusal::Password) => self
                .known_password(&Client { user, from }, password)
                .await
                .map(|caller| (Presented::KnownPassword, caller)),
            Err(refusal) => Err(refusal),
        };
        let (shown, caller) = self.logged(user, from, "password", answer)?;
        let grant = Grant::new(caller, "password".to_owned(), Options::default());
        Some(Entry::new(user, from, shown, grant))
    }

    /// Whom the authenticator knows by a password.
    async fn known_password(
        &self,
        client: &Client<'_>,
        password: &Secret,
    ) -> Result<Caller, Refusal> {
        let authenticator = self.accepting(CredentialKind::Password)?;
        password::check_length(password)?;
        let shown = Credentials::password(client.user, password.clone());
        let source = client.from.credential_source("ssh");
        self.known(authenticator.authenticate(shown, &source).await, Refusal::Password)
    }

    /// The caller of an authenticator's answer; `refusal` where it knows nobody.
    fn known(
        &self,
        answer: Result<Caller, AuthError>,
        refusal: Refusal,
    ) -> Result<Caller, Refusal> {
        match answer {
            Ok(caller) if caller.is_revoked() => Err(Refusal::Revoked),
            Ok(caller) => Ok(caller),
            Err(AuthError::Unavailable(error)) => {
                if let Some(unlogged) = self.outages.take(()) {
                    tracing::error!(%error, server = "ssh", unlogged, "credentials can't be checked");
                }
                Err(Refusal::Unavailable)
            }
            Err(_) => Err(refusal),
        }
    }

    fn logged<T>(
        &self,
        user: &str,
        from: Peer,
        what: &str,
        answer: Result<T, Refusal>,
    ) -> Option<T> {
        let reason = match answer {
            Ok(answer) => return Some(answer),
            Err(reason) => reason,
        };
        let unlogged = self.refusals.take(())?;
        let user = user.parse::<UserName>();
        let user = user.as_ref().map_or("?", UserName::as_str);
        tracing::info!(user, %from, what, %reason, unlogged, "refused over SSH");
        None
    }

    async fn ask<T: Send + 'static>(
        &self,
        user: &str,
        from: Peer,
        question: impl FnOnce(&Sources, &Client<'_>) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let (sources, user) = (self.sources.clone(), user.to_owned());
        let answer =
            tokio::task::spawn_blocking(move || question(&sources, &Client { user: &user, from }));
        answer.await.unwrap_or(Err(Refusal::Files))
    }
}

impl Entry {
    fn new(user: &str, from: Peer, shown: Presented, grant: Grant) -> Self {
        Self { user: user.to_owned(), from, shown, grant: Arc::new(grant) }
    }

    pub(crate) fn grant(&self) -> &Arc<Grant> {
        &self.grant
    }
}

impl std::ops::Deref for Entry {
    type Target = Grant;

    fn deref(&self) -> &Grant {
        &self.grant
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users")
            .field("sources", &self.sources)
            .field("authenticator", &self.authenticator)
            .field("has_passwords", &self.has_passwords())
            .finish()
    }
}

#[cfg(test)]
mod tests;
