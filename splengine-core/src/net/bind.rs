use std::io;

/// An address that can't be had.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {address}")]
#[non_exhaustive]
pub struct BindError {
    /// The address.
    pub address: String,
    /// What the operating system said.
    #[source]
    pub source: io::Error,
}

impl BindError {
    /// That `address` can't be had.
    pub fn new(address: impl Into<String>, source: io::Error) -> Self {
        Self { address: address.into(), source }
    }
}
