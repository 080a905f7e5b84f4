//! Names of users.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The name of a user: 1 to 64 of `A-Z a-z 0-9 . _ @ -`, beginning with a letter or digit.
///
/// ```
/// use splengine_core::UserName;
///
/// let name: UserName = "alice@example.org".parse()?;
/// assert_eq!(name.as_str(), "alice@example.org");
/// assert!("-rf".parse::<UserName>().is_err());
/// # Ok::<(), splengine_core::auth::ParseUserNameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserName(Arc<str>);

/// A text that is not a [`UserName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a user name is 1 to 64 of A-Z a-z 0-9 . _ @ -, and begins with a letter or digit")]
#[non_exhaustive]
pub struct ParseUserNameError;

impl UserName {
    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UserName {
    type Err = ParseUserNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let well_formed = (1..=64).contains(&text.len())
            && text.as_bytes()[0].is_ascii_alphanumeric()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte));
        if well_formed { Ok(Self(text.into())) } else { Err(ParseUserNameError) }
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserName({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["a", "alice", "A.b_c@d-e", "0"] {
            assert!(good.parse::<UserName>().is_ok(), "{good}");
        }
        let long = "a".repeat(65);
        for bad in ["", "-a", "a b", "a/b", "ü", "a\0", long.as_str()] {
            assert!(bad.parse::<UserName>().is_err(), "{bad}");
        }
    }
}
