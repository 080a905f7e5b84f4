use std::io;
use std::path::PathBuf;

use crate::files::FileError;
use crate::os::LimitKind;
use crate::store::StoreFault;

/// Reason for which an engine can't be built: a setting that is invalid, or something that one names
/// and that can't be opened.
///
/// ```
/// use std::time::Duration;
/// use splengine_core::engine::BuildError;
/// use splengine_core::files::FilePolicy;
/// use splengine_core::{Engine, LocalExecutor};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let built = Engine::builder(LocalExecutor::new(".")?)
///     .default_timeout(Duration::from_secs(7200))
///     .max_timeout(Duration::from_secs(3600))
///     .build();
/// assert!(matches!(built, Err(BuildError::DefaultOverMaximum("timeout"))));
///
/// let files = FilePolicy::new().root("/nowhere");
/// let built = Engine::builder(LocalExecutor::new(".")?).files(files).build();
/// assert!(matches!(built, Err(BuildError::FileRoot { .. })));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A bound of zero would let nothing run.
    #[error("`{0}` must be at least 1")]
    Zero(&'static str),
    /// A default that is greater than its maximum.
    #[error("the default of `{0}` is over its maximum")]
    DefaultOverMaximum(&'static str),
    /// A default limit that the executor can't enforce here.
    #[error("the limit `{}` can't be enforced here", .0.name())]
    NotEnforced(LimitKind),
    /// Neither the executor nor the policy of files names their [root](crate::files::FilePolicy::root).
    #[error("files have no root: the executor has none, and `FilePolicy::root` was not set")]
    NoFileRoot,
    /// The root of [files](crate::files::FilePolicy::new) can't be opened.
    #[error("the root of files `{}` must be a directory that can be opened", path.display())]
    FileRoot {
        /// Path as it was given, or the executor's root.
        path: PathBuf,
        /// Error of the operating system.
        #[source]
        source: io::Error,
    },
    /// A path that is to be [hidden](crate::files::FilePolicy::hide) is not below the root of files, or
    /// is that itself.
    #[error("`{}` can't be hidden from callers", path.display())]
    HiddenPath {
        /// Path as it was given.
        path: PathBuf,
        /// Reason for which the path can't be hidden.
        #[source]
        source: FileError,
    },
    /// A path that is to be [protected](crate::files::FilePolicy::protect) leads to the root of files.
    #[error("`{}` can't be protected from callers", path.display())]
    ProtectedPath {
        /// Path as it was given.
        path: PathBuf,
        /// Reason for which the path can't be protected.
        #[source]
        source: FileError,
    },
    /// The root's file system has no extended attributes of users, in which the owner of a file is
    /// noted: what callers' files hold can't be
    /// [bounded](crate::files::FilePolicy::max_caller_bytes).
    #[error(
        "what callers' files hold can't be counted below `{}`: \
         its file system must have extended attributes of users", path.display()
    )]
    CallerBytes {
        /// Path of the root as it was given.
        path: PathBuf,
        /// Error of the operating system.
        #[source]
        source: io::Error,
    },
    /// Files are opened by their handles, and those stand in `/proc`.
    #[error("files can't be served without /proc/self/fd: proc(5) must be mounted")]
    Proc(#[source] io::Error),
    /// The [directory of sessions](crate::session::SessionPolicy::store) can't be made, opened or
    /// written.
    #[error(
        "sessions can't be kept in `{}`, which must be a directory that can be written",
        path.display()
    )]
    SessionStore {
        /// Path as it was given.
        path: PathBuf,
        /// Error of the operating system.
        #[source]
        source: io::Error,
    },
    /// Another engine uses the [directory of sessions](crate::session::SessionPolicy::store).
    #[error(
        "the sessions in `{}` are in use by {}: one engine uses a directory at a time",
        path.display(), crate::lock::holder(*pid)
    )]
    SessionStoreInUse {
        /// Path as it was given.
        path: PathBuf,
        /// The number of the process that uses it, if that is known.
        pid: Option<u32>,
    },
    /// The [directory of outputs](crate::batch::BatchPolicy::new) of batches can't be made or opened.
    #[error(
        "outputs of batches can't be kept in `{}`, which must be a directory that can be written",
        path.display()
    )]
    BatchOutputs {
        /// Path as it was given.
        path: PathBuf,
        /// Error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The [store](crate::batch::BatchPolicy::new) of batches can't be used:
    /// [`StoreFault::Newer`] when a later version wrote it, [`StoreFault::Older`] when an earlier
    /// version wrote it in a format that is not supported any more.
    #[error("batches can't be kept in their store")]
    BatchStore(#[source] StoreFault),
    /// The host lacks the resources.
    #[error("a thread can't be started")]
    Thread(#[source] io::Error),
}
