use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::ErrorKind;
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
    /// visible ASCII, spaces and tabs, or is neither a [bearer token](Self::parse_bearer) nor a
    /// [name and password](Self::parse_basic).
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
        let shown =
            text.and_then(|text| Self::parse_bearer(text).or_else(|| Self::parse_basic(text)));
        shown.ok_or(AuthorizationError::Form)
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

    /// Reads `Basic BASE64` (RFC 7617, section 2), whose first word may be in any case: a name and a
    /// password in UTF-8, parted by the first colon. `None` for anything else.
    ///
    /// ```
    /// use splengine_core::auth::Credentials;
    ///
    /// let Some(Credentials::Password { user, password, .. }) =
    ///     Credentials::parse_basic("Basic YWxpY2U6Y29ycmVjdDpob3JzZQ==")
    /// else {
    ///     panic!("well-formed");
    /// };
    /// assert_eq!((user.as_str(), password.expose()), ("alice", "correct:horse"));
    /// assert!(Credentials::parse_basic("Basic YWxpY2U=").is_none());
    /// ```
    #[must_use]
    pub fn parse_basic(text: &str) -> Option<Self> {
        let (scheme, encoded) = text.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = BASE64_STANDARD.decode(encoded.trim()).ok()?;
        let decoded = Secret::new(String::from_utf8(decoded).ok()?);
        let (user, password) = decoded.expose().split_once(':')?;
        let has_controls = decoded.expose().chars().any(char::is_control);
        (!has_controls).then(|| Self::password(user, Secret::new(password)))
    }
}

/// Failure to read credentials out of `Authorization` fields. It repeats nothing of what they hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorizationError {
    /// More than one field.
    #[error("credentials must stand in one Authorization header, not several")]
    Several,
    /// A field that is neither a bearer token nor a name and password.
    #[error("credentials must be of the form `Bearer TOKEN`")]
    Form,
}

impl AuthorizationError {
    /// The kind, for an adapter's table: [`Malformed`](ErrorKind::Malformed) for several fields, and
    /// [`Unauthenticated`](ErrorKind::Unauthenticated) for one in another form.
    #[must_use]
    pub fn kind(self) -> ErrorKind {
        match self {
            Self::Several => ErrorKind::Malformed,
            Self::Form => ErrorKind::Unauthenticated,
        }
    }
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
                Credentials::Password { user, password } => {
                    Some(format!("{user} {}", password.expose()))
                }
                _ => None,
            })
        };
        assert_eq!(read(&[]), Ok(None));
        for value in ["Bearer abc", "bearer abc", "BEARER  abc ", "Bearer \tabc"] {
            assert_eq!(read(&[value]), Ok(Some("abc".to_owned())), "{value}");
        }
        for value in ["Basic YTpi", "basic YTpi", "BASIC  YTpi "] {
            assert_eq!(read(&[value]), Ok(Some("a b".to_owned())), "{value}");
        }
        // No colon; a line break; bytes that are no text.
        for value in ["Basic YWI=", "Basic YTpiCg==", "Basic /zp/", "Basic YTpi YTpi"] {
            assert_eq!(read(&[value]), Err(AuthorizationError::Form), "{value}");
        }
        for value in ["", "abc", "Basic a:b", "Bearer\tabc", "Bearer ä", "Bearer\u{a0}abc"] {
            assert_eq!(read(&[value]), Err(AuthorizationError::Form), "{value}");
        }
        assert_eq!(read(&["Bearer a", "Bearer a"]), Err(AuthorizationError::Several));
    }
}
