use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;

use crate::error::{ErrorKind, Field};
use crate::quota::BelowFloor;

/// Failure of an operation on a file. A path is shown as it was given, 200 characters of it at most.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The engine serves no files.
    #[error("this engine serves no files")]
    NoFiles,
    /// The caller lacks the right.
    #[error("{0}")]
    Forbidden(&'static str),
    /// There is no such file, or it is hidden.
    #[error("`{path}` does not exist")]
    NotFound {
        /// Path that was asked for.
        path: String,
    },
    /// The directory that something is to be made in is not there.
    #[error("the directory that `{path}` is to be in does not exist")]
    NoDirectory {
        /// Path that was to be made.
        path: String,
    },
    /// A file or directory of that name exists already.
    #[error("`{path}` exists already")]
    Exists {
        /// Path that was asked for.
        path: String,
    },
    /// The file does not meet the condition of a change.
    #[error("`{path}` is not, or no longer, as the condition says; look at it again")]
    Changed {
        /// Path that was asked for.
        path: String,
    },
    /// A directory that is not empty.
    #[error("`{path}` is not empty")]
    NotEmpty {
        /// Path that was asked for.
        path: String,
    },
    /// A directory, where a file is wanted.
    #[error("`{path}` is a directory")]
    IsDirectory {
        /// Path that was asked for.
        path: String,
    },
    /// No directory, where one is wanted.
    #[error("`{path}` is not a directory, or leads through something that is none")]
    NotDirectory {
        /// Path that was asked for.
        path: String,
    },
    /// A program that runs, or a mount point.
    #[error("`{path}` is in use, and can't be changed now")]
    Busy {
        /// Path that was asked for.
        path: String,
    },
    /// The operating system, or the engine, does not permit access.
    #[error("`{path}` may not be used like this: permission denied")]
    Denied {
        /// Path that was asked for.
        path: String,
    },
    /// The path leads out of root, itself or by a link.
    #[error("`{path}` is outside root")]
    Outside {
        /// Path that was asked for.
        path: String,
    },
    /// Operation that is not possible with this file here.
    #[error("`{path}` {problem}")]
    Impossible {
        /// Path that was asked for.
        path: String,
        /// Reason for which the operation is not possible.
        problem: &'static str,
    },
    /// An invalid path.
    #[error("`{path}` is not a path: it {problem}")]
    BadPath {
        /// Path that was asked for.
        path: String,
        /// Description of what is wrong with the path, or what would be right.
        problem: &'static str,
    },
    /// An invalid value.
    #[error("`{field}` {problem}")]
    Malformed {
        /// The member's name.
        field: Field,
        /// Description of what is wrong with the field, and what would be right.
        problem: &'static str,
    },
    /// A file that would be larger than the limit.
    #[error("`{path}` would be larger than the {limit} bytes that a file may have here")]
    TooLarge {
        /// Path that was asked for.
        path: String,
        /// Maximum size of a file, in bytes.
        limit: u64,
    },
    /// The disk is full, or the caller's part of it.
    #[error("there is no room left on the disk for `{path}`")]
    NoRoom {
        /// Path that was asked for.
        path: String,
    },
    /// The caller's files would hold more than [they may](crate::files::FilePolicy::max_caller_bytes).
    #[error(
        "`{path}` can't be written: all files of yours together may hold {limit} bytes; \
         remove some first"
    )]
    OverQuota {
        /// Path that was asked for.
        path: String,
        /// Maximum number of bytes that the caller's files may hold.
        limit: u64,
    },
    /// The write would leave less free space than the [floor](crate::engine::EngineBuilder::disk_floor).
    #[error("`{path}` can't be written: {source}")]
    BelowFloor {
        /// Path that was asked for.
        path: String,
        /// Floor that the write would go below.
        source: BelowFloor,
    },
    /// The content that was to be written could not be read to its end.
    #[error("what was to be written broke off")]
    Content(#[source] io::Error),
    /// The caller has as many files open, or directories watched, as one caller may.
    #[error("you have reached your limit of {limit} {what}; close one first")]
    CallerLimit {
        /// Noun for what is at its limit, in the plural.
        what: &'static str,
        /// Maximum number that may be open.
        limit: usize,
    },
    /// The maximum number of open files or watched directories is reached.
    #[error("there are {limit} {what} already, as many as this engine has; try again later")]
    Full {
        /// Noun for what is at its limit, in the plural.
        what: &'static str,
        /// Maximum number that may be open.
        limit: usize,
    },
    /// The host lacks a resource at the moment.
    #[error("the host is short of resources; try again in a second")]
    Exhausted,
    /// Failure inside the engine, which no request should cause. The source is for the log.
    #[error("the engine failed to do it")]
    Internal(#[source] io::Error),
}

impl FileError {
    /// Returns the message with the names of fields as `name` spells them: for adapters whose protocol
    /// has another spelling than Rust's.
    #[must_use]
    pub fn message(&self, name: impl Fn(Field) -> String) -> String {
        match self {
            Self::Malformed { field, problem } => format!("`{}` {problem}", name(*field)),
            other => other.to_string(),
        }
    }

    /// Returns the error's kind, which adapters map to a status.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } | Self::NoDirectory { .. } => ErrorKind::NotFound,
            Self::Exists { .. }
            | Self::Changed { .. }
            | Self::NotEmpty { .. }
            | Self::IsDirectory { .. }
            | Self::NotDirectory { .. }
            | Self::Busy { .. } => ErrorKind::Conflict,
            Self::Forbidden(_) | Self::Denied { .. } => ErrorKind::Forbidden,
            Self::NoFiles | Self::Outside { .. } | Self::Impossible { .. } => ErrorKind::Impossible,
            Self::BadPath { .. } | Self::Malformed { .. } | Self::Content(_) => {
                ErrorKind::Malformed
            }
            Self::TooLarge { .. }
            | Self::NoRoom { .. }
            | Self::OverQuota { .. }
            | Self::BelowFloor { .. } => ErrorKind::NoRoom,
            Self::CallerLimit { .. } => ErrorKind::CallerLimit,
            Self::Full { .. } | Self::Exhausted => ErrorKind::Unavailable,
            Self::Internal(_) => ErrorKind::Internal,
        }
    }

    /// Returns the time after which to try again, if that can help.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let passes = matches!(
            self,
            Self::CallerLimit { .. } | Self::Full { .. } | Self::Exhausted | Self::Busy { .. }
        );
        passes.then_some(Duration::from_secs(1))
    }

    pub(crate) fn not_found(path: &Path) -> Self {
        Self::NotFound { path: shown(path) }
    }

    pub(crate) fn below_floor(path: &Path) -> impl Fn(BelowFloor) -> Self {
        |source| Self::BelowFloor { path: shown(path), source }
    }

    pub(crate) fn impossible(path: &Path, problem: &'static str) -> Self {
        Self::Impossible { path: shown(path), problem }
    }

    pub(crate) fn bad_path(path: &Path, problem: &'static str) -> Self {
        Self::BadPath { path: shown(path), problem }
    }

    /// What the operating system says of `path`.
    pub(crate) fn of(path: &Path) -> impl Fn(Errno) -> Self {
        |errno| Self::of_errno(path, errno)
    }

    pub(crate) fn of_errno(path: &Path, errno: Errno) -> Self {
        let shown = || shown(path);
        match errno {
            Errno::NOENT => Self::NotFound { path: shown() },
            Errno::EXIST => Self::Exists { path: shown() },
            Errno::NOTEMPTY => Self::NotEmpty { path: shown() },
            Errno::ISDIR => Self::IsDirectory { path: shown() },
            Errno::NOTDIR => Self::NotDirectory { path: shown() },
            Errno::BUSY | Errno::TXTBSY => Self::Busy { path: shown() },
            Errno::ACCESS | Errno::PERM | Errno::ROFS => Self::Denied { path: shown() },
            Errno::NAMETOOLONG => Self::bad_path(path, "has a name that is too long"),
            // Names that this file system can't hold.
            Errno::ILSEQ => Self::bad_path(path, "has a name that can't be written here"),
            Errno::LOOP => Self::impossible(path, "has too many links on its way"),
            Errno::XDEV => Self::impossible(path, "would have to go to another file system"),
            Errno::NXIO | Errno::NODEV => Self::impossible(path, NO_FILE),
            Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS => {
                Self::impossible(path, "is on a file system that can't do this, or not with it")
            }
            Errno::MLINK => Self::impossible(path, "would be in a directory that is full"),
            Errno::NOSPC | Errno::DQUOT => Self::NoRoom { path: shown() },
            Errno::FBIG => Self::TooLarge { path: shown(), limit: i64::MAX as u64 },
            Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN => Self::Exhausted,
            _ => {
                let error = io::Error::from(errno);
                tracing::error!(%error, "a file can't be used");
                Self::Internal(error)
            }
        }
    }
}

/// A path for a person: 200 characters, none of them control characters.
pub(crate) fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    text.chars().take(200).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

pub(crate) const NO_FILE: &str =
    "is neither a file nor a directory, but a pipe, a device or a socket";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_has_its_kind() {
        for (errno, kind) in [
            (Errno::NOENT, ErrorKind::NotFound),
            (Errno::NOSPC, ErrorKind::NoRoom),
            (Errno::DQUOT, ErrorKind::NoRoom),
            (Errno::FBIG, ErrorKind::NoRoom),
            (Errno::EXIST, ErrorKind::Conflict),
            (Errno::NOTEMPTY, ErrorKind::Conflict),
            (Errno::ISDIR, ErrorKind::Conflict),
            (Errno::NOTDIR, ErrorKind::Conflict),
            (Errno::ACCESS, ErrorKind::Forbidden),
            (Errno::ROFS, ErrorKind::Forbidden),
            (Errno::NAMETOOLONG, ErrorKind::Malformed),
            (Errno::XDEV, ErrorKind::Impossible),
            (Errno::LOOP, ErrorKind::Impossible),
            (Errno::MFILE, ErrorKind::Unavailable),
            (Errno::IO, ErrorKind::Internal),
        ] {
            let error = FileError::of_errno(Path::new("a/b"), errno);
            assert_eq!(error.kind(), kind, "{errno:?}: {error}");
        }
    }

    #[test]
    fn a_path_is_shown_in_bounds() {
        let error = FileError::not_found(Path::new(&("\u{1b}[31m".to_owned() + &"x".repeat(5000))));
        let text = error.to_string();
        assert!(text.chars().count() < 230 && !text.contains('\u{1b}'), "{text}");
    }
}
