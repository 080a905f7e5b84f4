//! Finding out who asks.

mod accounts;
mod authenticator;
mod revocation;
mod secret;
mod token;

pub use accounts::{AccountList, Accounts};
pub use authenticator::{
    AuthError, Authenticator, Credentials, NoAuthenticator, SharedAuthenticator,
};
pub use revocation::Revocation;
pub(crate) use revocation::Revocations;
pub use secret::Secret;
pub use token::{ParseTokenHashError, StaticTokens, TokenError, TokenHash};
