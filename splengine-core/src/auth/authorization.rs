use crate::auth::{Credentials, Secret};

impl Credentials {
    /// Reads the credentials of a request: `values` are those of its `Authorization` fields, of which
    /// there may be one. Where there is none the credentials are [`Credentials::None`].
    ///
    /// ```
    /// use splengine_core::auth::{AuthorizationError, Credentials};
    ///
    /// let shown = Credentials::from_authorization([b"bearer 7Fr4..." as &[u8]])?;
    /// assert!(matches!(shown, Credentials::Bearer(token) if token.expose() == "7Fr4..."));
    ///
    /// let twice = Credentials::from_authorization([b"Bearer a" as &[u8], b"Bearer b"]);
    /// assert_eq!(twice.unwrap_err(), AuthorizationError::Several);
    /// # Ok::<(), AuthorizationError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`AuthorizationError::Several`] where there is more than one value: which of them a proxy has
    /// checked can't be known. [`AuthorizationError::Form`] for a value that has characters beside
    /// visible ASCII, spaces and tabs, or is no [bearer token](Self::parse_bearer).
    pub fn from_authorization<'a>(
        values: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self, AuthorizationError> {
        let mut values = values.into_iter();
        let value = match (values.next(), values.next()) {
            (None, _) => return Ok(Self::None),
            (Some(value), None) => value,
            (Some(_), Some(_)) => return Err(AuthorizationError::Several),
        };
        let is_text = value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
        let text = std::str::from_utf8(value).ok().filter(|_| is_text);
        text.and_then(Self::parse_bearer).ok_or(AuthorizationError::Form)
    }

    /// Reads `Bearer TOKEN` (RFC 6750, section 2.1), whose first word may be in any case; `None` for
    /// anything else. Whitespace around the token is no part of it.
    ///
    /// ```
    /// use splengine_core::auth::Credentials;
    ///
    /// assert!(Credentials::parse_bearer("Bearer 7Fr4...").is_some());
    /// assert!(Credentials::parse_bearer("Basic YTpi").is_none());
    /// ```
    #[must_use]
    pub fn parse_bearer(text: &str) -> Option<Self> {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| Self::Bearer(Secret::new(token.trim())))
    }
}

/// Failure to read credentials out of `Authorization` fields. It repeats nothing of what they hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorizationError {
    /// More than one field.
    #[error("credentials must stand in one Authorization header, not several")]
    Several,
    /// A field that is no bearer token.
    #[error("credentials must be of the form `Bearer TOKEN`")]
    Form,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bearer_token_is_read() {
        let read = |values: &[&str]| {
            let values = values.iter().map(|value| value.as_bytes());
            Credentials::from_authorization(values).map(|shown| match shown {
                Credentials::Bearer(token) => Some(token.expose().to_owned()),
                _ => None,
            })
        };
        assert_eq!(read(&[]), Ok(None));
        for value in ["Bearer abc", "bearer abc", "BEARER  abc ", "Bearer \tabc"] {
            assert_eq!(read(&[value]), Ok(Some("abc".to_owned())), "{value}");
        }
        for value in ["", "abc", "Basic YTpi", "Bearer\tabc", "Bearer ä", "Bearer\u{a0}abc"] {
            assert_eq!(read(&[value]), Err(AuthorizationError::Form), "{value}");
        }
        assert_eq!(read(&["Bearer a", "Bearer a"]), Err(AuthorizationError::Several));
    }
}
