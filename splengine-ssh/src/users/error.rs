use std::io;
use std::path::PathBuf;

/// A file or directory that can't say who may come in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UsersError {
    /// The file can't be read, or is not there.
    #[error("failed to read `{}`", path.display())]
    Unreadable {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The path is a directory, or something else that is no file.
    #[error("`{}` is not a file", path.display())]
    NotAFile {
        /// Path that was given.
        path: PathBuf,
    },
    /// The path is not a directory.
    #[error("`{}` is not a directory with one file for each user", path.display())]
    NotADirectory {
        /// Path that was given.
        path: PathBuf,
    },
    /// The file can be written by others than its owner, who could let themselves in.
    #[error(
        "`{}` can be written by others than its owner (mode {mode:04o}): take that away with \
         `chmod go-w`", path.display()
    )]
    Writable {
        /// Path of the file.
        path: PathBuf,
        /// Permission bits of the file.
        mode: u32,
    },
    /// The file's owner is neither root nor the user that this process runs as.
    #[error(
        "`{}` belongs to the user with id {owner}: it must belong to root or to the user this \
         server runs as", path.display()
    )]
    Owner {
        /// Path of the file.
        path: PathBuf,
        /// The id of its owner.
        owner: u32,
    },
    /// The file is too long to be such a file.
    #[error("`{}` is longer than 1 MiB", path.display())]
    TooLarge {
        /// Path of the file.
        path: PathBuf,
    },
    /// A line of it makes no sense.
    #[error("`{}`, line {line}: {reason}", path.display())]
    Line {
        /// Path of the file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// Description of what is wrong with the line, and what would be right. Nothing of the line
        /// itself.
        reason: String,
    },
}
