//! The version of what is written of batches.

use serde::{Deserialize, Serialize};

use crate::batch::records::key;
use crate::store::{Change, REPAIRED, Store, StoreFault};

/// The version of a store's rows. A store of a later minor version is read and written as one of
/// this version is; one of another major version is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct StoreFormat {
    major: u32,
    minor: u32,
}

impl StoreFormat {
    /// Since 2.0 the inputs of steps are kept apart: an earlier version would run steps without them.
    /// Since 3.0 the end of a batch says under which time it is kept, and steps that run always are
    /// begun when a batch is cancelled: replayed by another rule, its events would mean another thing.
    const CURRENT: Self = Self { major: 3, minor: 0 };
    /// What was written before there were minor versions.
    const FIRST: Self = Self { major: 1, minor: 0 };

    fn parse(bytes: &[u8]) -> Option<Self> {
        match bytes {
            b"1" => Some(Self::FIRST),
            _ => serde_json::from_slice(bytes).ok(),
        }
    }
}

impl std::fmt::Display for StoreFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Finds out whether the store is of a version that is known, and marks one that is new or of an
/// earlier minor version as of this one. Gives whether it is new. Blocks.
pub(crate) fn agree(store: &dyn Store) -> Result<bool, StoreFault> {
    let current = StoreFormat::CURRENT;
    let found = store.get(key::FORMAT)?;
    let is_new = found.is_none() && store.scan(&[0], &[0xff; 8], false, 1)?.is_empty();
    let found = match &found {
        // What was lost in a store that was repaired is what this version wrote.
        None if store.get(REPAIRED)?.is_some() => current,
        None => StoreFormat::FIRST,
        Some(bytes) => StoreFormat::parse(bytes)
            .ok_or_else(|| StoreFault::Damaged("its format version can't be read".to_owned()))?,
    };
    if found.major > current.major {
        let (found, known) = (found.to_string(), current.to_string());
        return Err(StoreFault::Newer { found, known });
    }
    if !is_new && found.major < current.major {
        let (found, known) = (found.to_string(), current.to_string());
        return Err(StoreFault::Older { found, known });
    }
    if is_new || found < current {
        let value = serde_json::to_vec(&current).unwrap_or_default();
        store.commit(&[Change::set(key::FORMAT, value)])?;
    }
    Ok(is_new)
}
