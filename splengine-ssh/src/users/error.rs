use std::io;
use std::path::PathBuf;

/// A file or directory that can't say who may come in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UsersError {
    /// It can't be read, or is not there.
    #[error("failed to read `{}`", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is a directory, or something else that is no file.
    #[error("`{}` is not a file", path.display())]
    NotAFile {
        /// Which.
        path: PathBuf,
    },
    /// It is not a directory.
    #[error("`{}` is not a directory with one file for each user", path.display())]
    NotADirectory {
        /// Which.
        path: PathBuf,
    },
    /// Others than its owner can write it, and so let anybody in.
    #[error(
        "`{}` can be written by others than its owner (mode {mode:04o}): take that away with \
         `chmod go-w`", path.display()
    )]
    Writable {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Its owner is neither root nor the user that this process runs as.
    #[error(
        "`{}` belongs to the user with id {owner}: it must belong to root or to the user this \
         server runs as", path.display()
    )]
    Owner {
        /// Which.
        path: PathBuf,
        /// The id of its owner.
        owner: u32,
    },
    /// It is too long to be such a file.
    #[error("`{}` is longer than 1 MiB", path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
    },
    /// A line of it makes no sense.
    #[error("`{}`, line {line}: {reason}", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it, and what would be right. Nothing of the line itself.
        reason: String,
    },
}
