//! Callers, their rights, and the credentials that they show.
//!
//! A [`Caller`] is a user with [`Scopes`], and what every operation of the engine is done for. A
//! server gets it from an [`Authenticator`]: [`StaticTokens`] is a fixed list of bearer tokens,
//! [`Accounts`] one of users and tokens that can be replaced at run time, and any type can implement
//! the trait. Servers ask it by [`Engine::authenticate`](crate::Engine::authenticate), which bounds
//! guesses by a [`GuessingPolicy`]. A [`Revocation`] takes the rights of callers back, wherever they
//! are kept.

mod access;
mod accounts;
mod address_range;
mod authenticator;
mod authorization;
mod caller;
mod client;
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
pub use penalties::GuessingPolicy;
pub(crate) use penalties::Penalties;
pub use revocation::Revocation;
pub(crate) use revocation::Revocations;
pub use scope::{ParseScopeError, Scope, Scopes};
pub use secret::Secret;
pub use source::CredentialSource;
pub use token::{ParseTokenHashError, StaticTokens, TokenError, TokenHash};
pub use unix_peer::UnixPeer;
