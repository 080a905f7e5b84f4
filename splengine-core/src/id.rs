//! Identifiers.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::caller::UserName;

/// The name of the session that a process belongs to, handed to it as `SPL_SESSION_ID`.
///
/// Looks like `spl-<user>-<unguessable>`; the last part carries 128 random bits. Clients treat it
/// as opaque text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Arc<str>);

/// A text that is not a [`SessionId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a session id; ids look like `spl-<user>-<random part>`")]
#[non_exhaustive]
pub struct ParseSessionIdError(String);

impl SessionId {
    /// A fresh id for `user`.
    ///
    /// # Panics
    ///
    /// When the operating system has no randomness to give, which Linux excludes after boot.
    #[must_use]
    pub fn new(user: &UserName) -> Self {
        Self(format!("spl-{user}-{}", random_text()).into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SessionId {
    type Err = ParseSessionIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shown = || ParseSessionIdError(text.chars().take(80).collect());
        let (user, random) =
            text.strip_prefix("spl-").and_then(|rest| rest.rsplit_once('-')).ok_or_else(shown)?;
        let well_formed = user.parse::<UserName>().is_ok() && is_random_text(random);
        if well_formed { Ok(Self(text.into())) } else { Err(shown()) }
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({})", self.0)
    }
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident, $error:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        #[doc = concat!("A text that is not a [`", stringify!($name), "`].")]
        #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
        #[error("`{0}` is no id of this kind; they look like `{prefix}<random part>`", prefix = $prefix)]
        #[non_exhaustive]
        pub struct $error(String);

        impl $name {
            pub(crate) fn new() -> Self {
                Self(format!(concat!($prefix, "{}"), random_text()).into())
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text.strip_prefix($prefix) {
                    Some(random) if is_random_text(random) => Ok(Self(text.into())),
                    _ => Err($error(text.chars().take(80).collect())),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

random_id! {
    /// The name of a saved session. Opaque text.
    SavedId, ParseSavedIdError, "saved-"
}
random_id! {
    /// The name of a share: who has it can take the share back, not use it. Opaque text.
    ShareId, ParseShareIdError, "share-"
}

fn is_random_text(text: &str) -> bool {
    text.len() == RANDOM_CHARS && text.bytes().all(|byte| ALPHABET.contains(&byte))
}

/// 128 random bits in RFC 4648 base32, lower case, no padding: safe in a URL, a file name and a
/// shell word, and without `-`, which parts an id's fields.
pub(crate) fn random_text() -> String {
    let mut random = [0u8; 16];
    getrandom::fill(&mut random).expect("the kernel's random source never fails once seeded");
    let bits = u128::from_be_bytes(random);
    (0..RANDOM_CHARS).map(|i| char::from(ALPHABET[(bits >> (5 * i)) as usize & 31])).collect()
}

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const RANDOM_CHARS: usize = 26;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_parse_back_and_differ() {
        let user: UserName = "al-ice".parse().expect("valid");
        let id = SessionId::new(&user);
        assert_eq!(id.as_str().parse::<SessionId>().as_ref(), Ok(&id));
        assert_ne!(id, SessionId::new(&user));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "spl-",
            "spl-a-short",
            "x-a-aaaaaaaaaaaaaaaaaaaaaaaaaa",
            "spl--aaaaaaaaaaaaaaaaaaaaaaaaaa",
        ] {
            assert!(text.parse::<SessionId>().is_err(), "{text}");
        }
    }
}
