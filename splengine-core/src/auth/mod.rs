//! Callers, their rights, and the credentials that they show.
//!
//! A [`Caller`] is a user with [`Scopes`], and what every operation of the engine is done for. A
//! server gets it from an [`Authenticator`]: [`StaticTokens`] is a fixed list of bearer tokens,
//! [`Accounts`] one of users and tokens that can be replaced at run time, and any type can implement
//! the trait. Servers ask it by [`Engine::authenticate`](crate::Engine::authenticate), which bounds
//! guesses by a [`GuessingPolicy`]. A [`Revocation`] takes the rights of callers back, wherever they
//! are kept.
//!
//! Most [`Credentials`] are shown with a request. Those of a connection are used where its client shows no
//! others, and the authenticator [accepts](Authenticator::accepts) their kind: the [certificate](ClientCertificate)
//! of a TLS client, else the [process](UnixPeer) behind a UNIX socket. This crate has no TLS and verifies no
//! certificate: the server that hands one on has done so. Beside other credentials, both are told by the
//! [`CredentialSource`].
//!
//! ```
//! use std::collections::HashMap;
//!
//! use splengine_core::auth::{
//!     AuthError, Authenticator, CertificateFingerprint, ClientCertificate, CredentialKind, CredentialSource,
//!     Credentials,
//! };
//! use splengine_core::{Caller, Engine, LocalExecutor};
//!
//! /// Users by the fingerprints of their certificates.
//! struct Certificates(HashMap<CertificateFingerprint, Caller>);
//!
//! impl Authenticator for Certificates {
//!     async fn authenticate(
//!         &self,
//!         credentials: Credentials,
//!         _: &CredentialSource,
//!     ) -> Result<Caller, AuthError> {
//!         let Credentials::Certificate(shown) = credentials else { return Err(AuthError::Missing) };
//!         self.0.get(&shown.fingerprint()).cloned().ok_or(AuthError::Invalid)
//!     }
//!
//!     fn accepts(&self, kind: CredentialKind) -> bool {
//!         kind == CredentialKind::Certificate
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let verified: &[u8] = b"the bytes of a certificate";
//! let alice = Caller::new("alice")?.with_all_scopes();
//! let users = Certificates(HashMap::from([(CertificateFingerprint::of(verified), alice.clone())]));
//! let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
//! // What a server does with the certificate of a connection.
//! let source = CredentialSource::new("http", Some([192, 0, 2, 1].into()))
//!     .with_certificate(ClientCertificate::new(verified));
//! assert_eq!(engine.authenticate(&users, Credentials::None, &source).await?, alice);
//! # Ok(())
//! # }
//! ```

mod access;
mod accounts;
mod address_range;
mod authenticator;
mod authorization;
mod caller;
mod client;
mod client_certificate;
mod penalties;
mod revocation;
mod scope;
mod secret;
mod source;
mod token;
mod unix_peer;

pub use crate::user_name::{ParseUserNameError, UserName};
pub use access::Access;
pub use accounts::{AccountList, Accounts};
pub use address_range::{AddressRange, ParseAddressRangeError};
pub use authenticator::{
    AuthError, Authenticator, CredentialKind, Credentials, HostAuthenticator, NoAuthenticator,
    SharedAuthenticator,
};
pub use authorization::AuthorizationError;
pub use caller::{Caller, Guest};
pub(crate) use client::Client;
pub use client::Network;
pub use client_certificate::{CertificateFingerprint, ClientCertificate, ParseFingerprintError};
pub use penalties::GuessingPolicy;
pub(crate) use penalties::Penalties;
pub use revocation::Revocation;
pub(crate) use revocation::Revocations;
pub use scope::{ParseScopeError, Scope, Scopes};
pub use secret::Secret;
pub use source::CredentialSource;
pub use token::{ParseTokenHashError, StaticTokens, TokenError, TokenHash};
pub use unix_peer::UnixPeer;
