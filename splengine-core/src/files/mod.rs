//! Files below one root directory, as callers may use them.
//!
//! [`FilePolicy`] says below which directory an engine serves files, what of it is hidden, and how much at once.
//! [`Files`] has the operations; [`OpenFile`], [`FileListing`] and [`FileWatch`] are what it opens.
//! No path, link or rename leads out of root or to what is hidden.

mod atomic_write;
mod attributes;
#[cfg(target_os = "linux")]
mod coalesce;
mod error;
mod event;
#[expect(clippy::module_inception, reason = "the type that the folder is named for")]
mod files;
mod info;
mod list;
#[cfg(not(target_os = "linux"))]
mod no_owners;
#[cfg(not(target_os = "linux"))]
mod no_watch;
mod open;
mod open_files;
#[cfg(target_os = "linux")]
mod owners;
mod path_locks;
mod policy;
mod rename;
mod resolve;
mod temporary;
mod usage;
#[cfg(target_os = "linux")]
mod watch;
mod write;

pub use atomic_write::Replaced;
pub use attributes::SetAttributes;
pub use error::FileError;
pub use event::FileEvent;
pub use files::Files;
pub use info::{DiskSpace, FileInfo, FileKind, FileRevision};
pub use list::{FileEntry, FileListing};
#[cfg(not(target_os = "linux"))]
pub(crate) use no_owners::{check_attributes, owner_of, set_owner, visit_owned};
#[cfg(not(target_os = "linux"))]
pub use no_watch::FileWatch;
pub use open::{OpenFile, OpenOptions};
#[cfg(target_os = "linux")]
pub(crate) use owners::{check_attributes, owner_of, set_owner, visit_owned};
pub use policy::FilePolicy;
pub(crate) use policy::{OpenedFiles, ServedFiles};
pub(crate) use resolve::Tree;
#[cfg(target_os = "linux")]
pub use watch::FileWatch;
