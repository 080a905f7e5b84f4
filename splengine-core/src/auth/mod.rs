//! Callers, their rights, and the credentials that they show.

mod access;
mod accounts;
mod address_range;
mod authenticator;
mod caller;
mod penalties;
mod revocation;
mod scope;
mod secret;
mod source;
mod token;

pub use crate::user_name::{ParseUserNameError, UserName};
pub use access::Access;
pub use accounts::{AccountList, Accounts};
pub use address_range::{AddressRange, ParseAddressRangeError};
pub use authenticator::{
    AuthError, Authenticator, Credentials, NoAuthenticator, SharedAuthenticator,
};
pub use caller::{Caller, Guest};
pub use penalties::GuessingPolicy;
pub(crate) use penalties::Penalties;
pub use revocation::Revocation;
pub(crate) use revocation::Revocations;
pub use scope::{ParseScopeError, Scope, Scopes};
pub use secret::Secret;
pub use source::CredentialSource;
pub use token::{ParseTokenHashError, StaticTokens, TokenError, TokenHash};
