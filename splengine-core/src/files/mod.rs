//! Files below root, as callers may use them.

mod change;
mod error;
mod handle;
mod info;
mod list;
mod open;
mod owners;
mod pending;
mod policy;
mod quota;
mod rename;
mod replace;
mod tree;
mod turns;
mod usage;
mod watch;
mod write;

pub use change::FileChanges;
pub use error::FileError;
pub use handle::Files;
pub use info::{DiskSpace, FileInfo, FileKind, FileRevision};
pub use list::{FileEntry, FileListing};
pub use open::{OpenFile, OpenOptions};
pub(crate) use policy::Shared;
pub use policy::{FilePolicy, FilePolicyError};
pub use replace::Replaced;
pub use watch::{FileEvent, FileWatch};
