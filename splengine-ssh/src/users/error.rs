use std::io;
use std::path::PathBuf;

use super::key::KeyError;

/// Failure of a file or directory of users.
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
    /// A line of the file is malformed.
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

/// Why a line is skipped. What its options hold is never part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LineError {
    #[error("it is longer than {max_bytes} bytes")]
    TooLong { max_bytes: usize },
    #[error("it has a NUL byte in it")]
    Nul,
    #[error("its option {0} is none, or none that takes what is given it")]
    UnknownOption(usize),
    #[error("option `{0}` wants a value in double quotes, those within it written as \\\"")]
    Quotes(&'static str),
    #[error("after its option {0} there must be a comma or a space")]
    Separator(usize),
    #[error("option `{0}` is given twice")]
    Twice(&'static str),
    #[error(
        "option `from` takes addresses, networks (10.0.0.0/8) and patterns of them (10.0.*), parted \
         by commas, with `!` before those to refuse; names are not looked up"
    )]
    From,
    #[error("option `principals` takes names parted by commas")]
    Principals,
    #[error("option `expiry-time` takes YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS, in UTC")]
    Time,
    #[error("option `environment` takes NAME=value, with a name of A-Z a-z 0-9 _")]
    Environment,
    #[error("option `permitopen` takes HOST:PORT, either of which may be `*`")]
    PermitOpen,
    #[error("option `background` takes `keep` or `kill`")]
    Background,
    #[error("option `verify-required` can't be kept here: whether a PIN was given is not told")]
    Verify,
    #[error(
        "whether a key in a device was touched is not told here: it is taken with the option \
         `no-touch-required` only"
    )]
    Touch,
    #[error("options are for authorized_keys: a key alone belongs here")]
    Options,
    #[error(transparent)]
    Key(#[from] KeyError),
}
