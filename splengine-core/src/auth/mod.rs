//! Finding out who asks.

mod authenticator;
mod secret;
mod token;

pub use authenticator::{
    AuthError, Authenticator, Credentials, NoAuthenticator, SharedAuthenticator,
};
pub use secret::Secret;
pub use token::{StaticTokens, TokenError};
