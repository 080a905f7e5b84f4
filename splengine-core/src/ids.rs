//! Identifiers of sessions, batches, executions and shares.
//!
//! Each is parsed from a text: a text that is no id of its kind is refused. Clients treat them as
//! opaque.

use std::cell::RefCell;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use crate::user_name::UserName;

/// The name of the session that a process belongs to, handed to it as `SPL_SESSION_ID`.
///
/// Looks like `spl-<user>-<unguessable>`; the last part carries 128 random bits. Clients treat it
/// as opaque text.
///
/// ```
/// use splengine_core::ids::SessionId;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let id = SessionId::new(&"alice".parse()?);
/// assert!(id.as_str().starts_with("spl-alice-"));
/// assert_eq!(id.as_str().parse::<SessionId>()?, id);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Arc<str>);

/// A text that is not a [`SessionId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a session id; ids look like `spl-<user>-<random part>`")]
#[non_exhaustive]
pub struct ParseSessionIdError(String);

impl SessionId {
    /// Makes a new id for `user`.
    ///
    /// # Panics
    ///
    /// When the operating system has no randomness to give, which Linux excludes after boot.
    #[must_use]
    pub fn new(user: &UserName) -> Self {
        Self(random_after(&["spl-", user.as_str(), "-"], |text| text.into()))
    }

    /// Returns the id as text.
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
                Self(random_after(&[$prefix], |text| text.into()))
            }

            /// Returns the id as text.
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
    /// The name of an execution that runs or waits. Opaque text.
    ExecutionId, ParseExecutionIdError, "exec-"
}
random_id! {
    /// The name of a share, by which it is taken back; it gives no access. Opaque text.
    ShareId, ParseShareIdError, "share-"
}

/// The name of a batch. Opaque text; ids sort in the order in which the batches were made.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId(Arc<str>);

/// A text that is not a [`BatchId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no batch id; they look like `batch-<32 hexadecimal digits>`")]
#[non_exhaustive]
pub struct ParseBatchIdError(String);

impl BatchId {
    /// A fresh one: milliseconds, a count within them, and 64 random bits.
    pub(crate) fn new() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let millis = since_epoch.map_or(0, |since| since.as_millis() as u64) << 16;
        let next = |last: u64| Some(millis.max(last + 1));
        let last = LAST.fetch_update(Relaxed, Relaxed, next).unwrap_or(millis);
        let (place, random) = (millis.max(last + 1), u64::from_ne_bytes(random_bytes()));
        Self(format!("batch-{place:016x}{random:016x}").into())
    }

    /// Returns the id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BatchId {
    type Err = ParseBatchIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        match text.strip_prefix("batch-") {
            Some(digits) if digits.len() == 32 && digits.bytes().all(is_digit) => {
                Ok(Self(text.into()))
            }
            _ => Err(ParseBatchIdError(text.chars().take(80).collect())),
        }
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BatchId({})", self.0)
    }
}

/// Id of what a session can be [restored](crate::SessionRequest::restore) from: a saved session, or one that was
/// lost with its engine.
///
/// ```
/// use splengine_core::SessionRequest;
/// use splengine_core::ids::{RestorableId, SessionId};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let lost = SessionId::new(&"alice".parse()?);
/// let request = SessionRequest::new().restore(&lost);
/// # drop(request);
/// // Of a text, such as a client sends, too.
/// let request = SessionRequest::new().restore(lost.as_str());
/// # drop(request);
/// assert_eq!(RestorableId::from(lost.clone()), RestorableId::Lost(lost));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RestorableId {
    /// Id of a saved session.
    Saved(SavedId),
    /// Id of a session that was lost.
    Lost(SessionId),
}

impl From<SavedId> for RestorableId {
    fn from(id: SavedId) -> Self {
        Self::Saved(id)
    }
}

impl From<SessionId> for RestorableId {
    fn from(id: SessionId) -> Self {
        Self::Lost(id)
    }
}

/// Id of a kind, or a text that may be one: the parameter by which methods are given the object that
/// they act on.
///
/// It is implemented for each id, by value and by reference, and for `&str` and `&String`, as they
/// come from outside. A method given a text that is no id answers as for an id that nothing has.
/// An id of another kind does not compile.
///
/// ```
/// use splengine_core::ids::{IntoId, SessionId};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let id = SessionId::new(&"alice".parse()?);
/// assert_eq!(IntoId::<SessionId>::into_id(&id), Ok(id.clone()));
/// assert_eq!(IntoId::<SessionId>::into_id(id.as_str()), Ok(id));
/// assert_eq!(IntoId::<SessionId>::into_id("nope"), Err("nope".to_owned()));
/// # Ok(())
/// # }
/// ```
pub trait IntoId<Id> {
    /// Returns the id.
    ///
    /// # Errors
    ///
    /// The first 80 characters of a text that is no such id.
    fn into_id(self) -> Result<Id, String>;
}

macro_rules! into_id {
    ($($id:ty),*) => {$(
        impl IntoId<$id> for $id {
            fn into_id(self) -> Result<$id, String> {
                Ok(self)
            }
        }
        impl IntoId<$id> for &$id {
            fn into_id(self) -> Result<$id, String> {
                Ok(self.clone())
            }
        }
        impl IntoId<$id> for &str {
            fn into_id(self) -> Result<$id, String> {
                self.parse().map_err(|_| self.chars().take(80).collect())
            }
        }
        impl IntoId<$id> for &String {
            fn into_id(self) -> Result<$id, String> {
                self.as_str().into_id()
            }
        }
    )*};
}

into_id!(SessionId, SavedId, ExecutionId, ShareId, BatchId);

macro_rules! into_restorable_id {
    ($($id:ty),*) => {$(
        impl IntoId<RestorableId> for $id {
            fn into_id(self) -> Result<RestorableId, String> {
                Ok(self.into())
            }
        }
        impl IntoId<RestorableId> for &$id {
            fn into_id(self) -> Result<RestorableId, String> {
                Ok(self.clone().into())
            }
        }
    )*};
}

into_restorable_id!(RestorableId, SavedId, SessionId);

impl IntoId<RestorableId> for &str {
    fn into_id(self) -> Result<RestorableId, String> {
        let session: Result<SessionId, _> = self.into_id();
        let saved = |_| IntoId::<SavedId>::into_id(self).map(RestorableId::Saved);
        session.map(RestorableId::Lost).or_else(saved)
    }
}

impl IntoId<RestorableId> for &String {
    fn into_id(self) -> Result<RestorableId, String> {
        self.as_str().into_id()
    }
}

/// Whether it may come from [`random_text`].
pub(crate) fn is_random_text(text: &str) -> bool {
    text.len() == RANDOM_CHARS && text.bytes().all(|byte| ALPHABET.contains(&byte))
}

/// 128 random bits in RFC 4648 base32, lower case, no padding: safe in a URL, a file name and a
/// shell word, and without `-`, which parts an id's fields.
pub(crate) fn random_text() -> String {
    random_after(&[], |text| text.to_owned())
}

/// The same, after these parts, none of them longer than a user's name.
fn random_after<T>(parts: &[&str], done: impl FnOnce(&str) -> T) -> T {
    let bits = u128::from_be_bytes(random_bytes());
    let (mut text, mut length) = ([0; 128], 0);
    for part in parts {
        text[length..length + part.len()].copy_from_slice(part.as_bytes());
        length += part.len();
    }
    for i in 0..RANDOM_CHARS {
        text[length + i] = ALPHABET[(bits >> (5 * i)) as usize & 31];
    }
    let text = str::from_utf8(&text[..length + RANDOM_CHARS]);
    done(text.expect("the parts are texts, and the alphabet is ASCII"))
}

/// From the kernel, many at a time: asking it costs more than all else that a fresh id does. Each
/// byte is given out once, and wiped.
fn random_bytes<const N: usize>() -> [u8; N] {
    const POOL: usize = 1024;
    thread_local! {
        static LEFT: RefCell<([u8; POOL], usize)> = const { RefCell::new(([0; POOL], 0)) };
    }
    LEFT.with_borrow_mut(|(pool, left)| {
        if *left < N {
            getrandom::fill(pool).expect("the kernel's random source never fails once seeded");
            *left = POOL;
        }
        let mut bytes = [0; N];
        bytes.swap_with_slice(&mut pool[*left - N..*left]);
        *left -= N;
        bytes
    })
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
    fn batches_are_in_the_order_of_their_making() {
        let ids: Vec<BatchId> = (0..1000).map(|_| BatchId::new()).collect();
        assert!(ids.is_sorted());
        assert_eq!(ids[0].as_str().parse::<BatchId>().as_ref(), Ok(&ids[0]));
        assert!("batch-x".parse::<BatchId>().is_err());
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
