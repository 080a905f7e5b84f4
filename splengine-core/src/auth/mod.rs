//! Finding out who asks.

mod accounts;
mod address_range;
mod authenticator;
mod penalties;
mod revocation;
mod secret;
mod source;
mod token;

pub use accounts::{AccountList, Accounts};
pub use address_range::{AddressRange, ParseAddressRangeError};
pub use authenticator::{
    AuthError, Authenticator, Credentials, NoAuthenticator, SharedAuthenticator,
};
pub use penalties::GuessingPolicy;
pub(crate) use penalties::Penalties;
pub use revocation::Revocation;
pub(crate) use revocation::Revocations;
pub use secret::Secret;
pub use source::CredentialSource;
pub use token::{ParseTokenHashError, StaticTokens, TokenError, TokenHash};
