//! Files below root, as callers may use them.

mod atomic_write;
mod attributes;
mod coalesce;
mod error;
#[expect(clippy::module_inception, reason = "the type that the folder is named for")]
mod files;
mod info;
mod list;
mod open;
mod owners;
mod path_locks;
mod policy;
mod quota;
mod rename;
mod resolve;
mod usage;
mod watch;
mod write;

pub use atomic_write::Replaced;
pub use attributes::SetAttributes;
pub use error::FileError;
pub use files::Files;
pub use info::{DiskSpace, FileInfo, FileKind, FileRevision};
pub use list::{FileEntry, FileListing};
pub use open::{OpenFile, OpenOptions};
pub(crate) use policy::Shared;
pub use policy::{FilePolicy, FilePolicyError};
pub use watch::{FileEvent, FileWatch};
