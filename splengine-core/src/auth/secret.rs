use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};

/// A text that never shows in `Debug` output and is wiped from memory when dropped.
///
/// ```
/// use splengine_core::auth::Secret;
///
/// let secret = Secret::new("correct-horse");
/// assert_eq!(format!("{secret:?}"), "Secret(…)");
/// assert_eq!(secret.expose(), "correct-horse");
/// ```
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Wraps `text` as a secret.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// Returns the text itself: for comparing and hashing, never for a log or a message.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
