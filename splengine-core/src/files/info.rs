use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FileType, Stat, StatVfs, StatVfsMountFlags};

use crate::os::{identity, mode_bits, wide};

/// Kind of file that a name in the tree stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory of files.
    Directory,
    /// A symbolic link.
    Link,
    /// A pipe, a device or a socket: listed, but never opened.
    Other,
}

/// Attributes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileInfo {
    /// Kind of the file.
    pub kind: FileKind,
    /// Length in bytes.
    pub size: u64,
    /// Time at which its content changed last.
    pub modified: SystemTime,
    /// Time at which it was read last, as exactly as its file system keeps that.
    pub accessed: SystemTime,
    /// Permission bits, with those for setuid, setgid and sticky: at most `0o7777`.
    pub mode: u32,
    /// Number of names of the file (hard links).
    pub links: u64,
    /// Number of the user that it belongs to.
    pub uid: u32,
    /// Number of the group that it belongs to.
    pub gid: u32,
    /// Tells this file from every other of the host, as long as it exists.
    pub(crate) id: (u64, u64),
    /// When anything of it changed last: seconds since 1970, and nanoseconds.
    pub(crate) changed: (i64, u64),
}

/// A version of a file: another one after each change of it, when it is created again, written, or gets
/// other permission bits. As exact as the clock of its file system (some milliseconds), and no longer
/// than the file exists. Displayed as hexadecimal digits and hyphens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileRevision {
    id: (u64, u64),
    size: u64,
    changed: (i64, u64),
}

/// Free space of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskSpace {
    /// The size of a block, in bytes: the unit of the next three.
    pub block_size: u64,
    /// Number of all blocks.
    pub blocks: u64,
    /// Number of blocks that are free.
    pub free: u64,
    /// Number of blocks that the engine's own user may still fill.
    pub available: u64,
    /// Number of inodes.
    pub files: u64,
    /// Number of free inodes.
    pub files_free: u64,
    /// Number of inodes that the engine's own user may still use.
    pub files_available: u64,
    /// The number of the file system.
    pub id: u64,
    /// `true` if it is mounted read-only.
    pub is_read_only: bool,
    /// Maximum length of a name in bytes.
    pub max_name: u64,
}

impl FileInfo {
    /// Returns whether `other` is of the same file, by any of its names.
    #[must_use]
    pub fn is_same_file(&self, other: &Self) -> bool {
        self.id == other.id
    }

    /// Of something of which only the name and this are told.
    pub(crate) fn unknown(kind: FileType) -> Self {
        Self {
            kind: kind.into(),
            size: 0,
            modified: UNIX_EPOCH,
            accessed: UNIX_EPOCH,
            mode: 0,
            links: 0,
            uid: 0,
            gid: 0,
            id: (0, 0),
            changed: (0, 0),
        }
    }

    /// Returns the version of the file that was looked at.
    #[must_use]
    pub fn revision(&self) -> FileRevision {
        FileRevision { id: self.id, size: self.size, changed: self.changed }
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.kind == FileKind::Directory
    }
}

impl fmt::Display for FileRevision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id: (device, number), size, changed: (seconds, nanoseconds) } = self;
        write!(f, "{device:x}-{number:x}-{size:x}-{seconds:x}-{nanoseconds:x}")
    }
}

impl From<FileType> for FileKind {
    fn from(kind: FileType) -> Self {
        match kind {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Link,
            _ => Self::Other,
        }
    }
}

impl From<Stat> for FileInfo {
    fn from(stat: Stat) -> Self {
        Self {
            kind: FileType::from_raw_mode(stat.st_mode).into(),
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            modified: time(stat.st_mtime, wide(stat.st_mtime_nsec)),
            accessed: time(stat.st_atime, wide(stat.st_atime_nsec)),
            mode: mode_bits(stat.st_mode),
            links: wide(stat.st_nlink),
            uid: stat.st_uid,
            gid: stat.st_gid,
            id: identity(&stat),
            changed: (stat.st_ctime, wide(stat.st_ctime_nsec)),
        }
    }
}

impl From<StatVfs> for DiskSpace {
    fn from(stat: StatVfs) -> Self {
        Self {
            block_size: stat.f_frsize,
            blocks: stat.f_blocks,
            free: stat.f_bfree,
            available: stat.f_bavail,
            files: stat.f_files,
            files_free: stat.f_ffree,
            files_available: stat.f_favail,
            id: stat.f_fsid,
            is_read_only: stat.f_flag.contains(StatVfsMountFlags::RDONLY),
            max_name: stat.f_namemax,
        }
    }
}

/// Before 1970 as well.
fn time(seconds: i64, nanoseconds: u64) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let whole =
        if seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    let part = Duration::from_nanos(nanoseconds.min(999_999_999));
    whole.and_then(|whole| whole.checked_add(part)).unwrap_or(UNIX_EPOCH)
}
