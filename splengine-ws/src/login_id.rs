//! The number by which a login is known.

use sha2::{Digest as _, Sha256};
use splengine_core::auth::Secret;

/// What stands in a cookie: 256 random bits, in hexadecimal digits.
pub(crate) struct LoginId(Secret);

/// What is kept of a login's number.
pub(crate) type Hash = [u8; 32];

impl LoginId {
    /// `None` where the system has no random numbers.
    pub(crate) fn random() -> Option<Self> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).ok()?;
        Some(Self(Secret::new(hex(&random))))
    }

    /// The one in a cookie.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_id = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_id.then(|| Self(Secret::new(text)))
    }

    pub(crate) fn expose(&self) -> &str {
        self.0.expose()
    }

    pub(crate) fn hash(&self) -> Hash {
        Sha256::digest(self.0.expose()).into()
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
