use std::io;

/// Failure to listen on an address.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {address}")]
#[non_exhaustive]
pub struct BindError {
    /// The address.
    pub address: String,
    /// Error of the operating system.
    #[source]
    pub source: io::Error,
}

impl BindError {
    /// Makes the error of listening on `address`.
    pub fn new(address: impl Into<String>, source: io::Error) -> Self {
        Self { address: address.into(), source }
    }
}
