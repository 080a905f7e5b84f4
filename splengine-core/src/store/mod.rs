//! Stores of keys and values that survive a crash, in which batches are kept.
//!
//! [`Store`] is the trait. With the feature `redb`, `RedbStore` keeps one in a file, and
//! `SalvagedStore` reads what is left of a damaged one; [`MemoryStore`] is for tests.

mod memory;
#[cfg(feature = "redb")]
mod redb;
#[cfg(feature = "redb")]
mod reserve;
#[cfg(feature = "redb")]
mod salvage;

use std::io;

use crate::quota::ReleasedSpace;

pub use memory::MemoryStore;
#[cfg(feature = "redb")]
pub use redb::RedbStore;
#[cfg(feature = "redb")]
pub use salvage::{Repaired, SalvagedStore};

/// Keys and values, in the order of their keys, that survive a crash. The engine keeps batches in it.
/// All calls may block; the engine makes them on threads that may. One engine uses a store at a time: a
/// store on disk should refuse to be opened a second time, with [`StoreFault::InUse`].
///
/// ```
/// use splengine_core::store::{Change, MemoryStore, Rows, Store, StoreFault};
///
/// /// A store that counts its commits.
/// #[derive(Default)]
/// struct Counted(MemoryStore, std::sync::atomic::AtomicU64);
///
/// impl Store for Counted {
///     fn commit(&self, changes: &[Change]) -> Result<(), StoreFault> {
///         self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
///         self.0.commit(changes)
///     }
///     fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
///         self.0.get(key)
///     }
///     fn scan(
///         &self,
///         from: &[u8],
///         until: &[u8],
///         backwards: bool,
///         most: usize,
///     ) -> Result<Rows, StoreFault> {
///         self.0.scan(from, until, backwards, most)
///     }
/// }
/// ```
pub trait Store: Send + Sync + 'static {
    /// Makes all of these changes, or none. When it returns, they are on disk.
    ///
    /// # Errors
    ///
    /// [`StoreFault`] when they are not on disk, or that is not known. The engine then makes the same
    /// changes again.
    fn commit(&self, changes: &[Change]) -> Result<(), StoreFault>;

    /// The value of a key.
    ///
    /// # Errors
    ///
    /// [`StoreFault`] when it can't be read.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault>;

    /// Reads at most `most` keys from `from` on and before `until`, with their values: the first ones
    /// in ascending order, or, if `backwards` is set, the last ones in descending order.
    ///
    /// # Errors
    ///
    /// [`StoreFault`] when they can't be read.
    fn scan(
        &self,
        from: &[u8],
        until: &[u8],
        backwards: bool,
        most: usize,
    ) -> Result<Rows, StoreFault>;

    /// Checks whether new work may be kept in the store. The engine asks before it accepts a batch, and
    /// refuses that otherwise; commits for work that was accepted before are made all the same. So a
    /// store can reserve space for them. Default: always.
    ///
    /// # Errors
    ///
    /// [`StoreFault::Full`] while there is no room for new work.
    fn accepts(&self) -> Result<(), StoreFault> {
        Ok(())
    }

    /// Returns the reserved space that the store has released on a full disk, and will take again: no
    /// data of callers is written there meanwhile. Default: none.
    fn released_space(&self) -> Option<ReleasedSpace> {
        None
    }
}

/// Keys and their values.
pub type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// Change of one row of a [`Store`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// Key of the row.
    pub key: Vec<u8>,
    /// New value of the row; `None` removes the row.
    pub value: Option<Vec<u8>>,
}

impl Change {
    /// Sets the value of `key`.
    pub fn set(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), value: Some(value.into()) }
    }

    /// Removes `key`, if it exists.
    pub fn remove(key: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), value: None }
    }
}

/// The key of a row that tells that not all of a store could be read when it was repaired.
pub(crate) const REPAIRED: &[u8] = b"repaired";

/// Reason for which a store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreFault {
    /// The disk is full.
    #[error("there is no room left on the disk")]
    Full,
    /// Another process uses the store.
    #[error("the store is in use by {}", crate::lock::holder(*pid))]
    InUse {
        /// The number of that process, if it is known.
        pid: Option<u32>,
    },
    /// The data on disk is not what was written.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// Written by a later version, whose format this one does not know.
    #[error(
        "the store has the format {found}, and this version knows {known}; use a later version"
    )]
    Newer {
        /// The format's version, `MAJOR.MINOR`.
        found: String,
        /// The latest version that is known here.
        known: String,
    },
    /// Written by an earlier version, whose format this one can't resume.
    #[error(
        "the store has the format {found}, with which this version, whose is {known}, can't go on; use \
         the version that wrote it, or a new root"
    )]
    Older {
        /// The format's version, `MAJOR.MINOR`.
        found: String,
        /// The version that is known here.
        known: String,
    },
    /// The store can't be read or written.
    #[error("the store can't be used")]
    Io(#[source] io::Error),
}

impl From<io::Error> for StoreFault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io(error),
        }
    }
}
