//! Handles of files that give no right to their content (`O_PATH`). What a handle names is reached by its path below
//! `/proc/self/fd`, which no rename can turn to something else.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use rustix::fs::{
    Access, AtFlags, CWD, Mode, OFlags, Stat, Timestamps, accessat, chmodat, fstat, linkat, open,
    openat, readlinkat, utimensat,
};
use rustix::io::Errno;

/// Opens a directory to find names in it, and for nothing else.
pub(crate) const SEARCH: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Something that is there, whatever its names are by now.
#[derive(Debug)]
pub(crate) struct Handle(OwnedFd);

impl Handle {
    /// What has a name in a directory; if that is a link, the link.
    pub(crate) fn look(
        directory: BorrowedFd<'_>,
        name: &OsStr,
    ) -> rustix::io::Result<(Self, Stat)> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = openat(directory, name, flags, Mode::empty())?;
        let stat = fstat(&handle)?;
        Ok((Self(handle), stat))
    }

    pub(crate) fn of_directory(directory: BorrowedFd<'_>) -> io::Result<Self> {
        directory.try_clone_to_owned().map(Self)
    }

    /// A directory, to find names in it.
    pub(crate) fn directory(&self) -> rustix::io::Result<BorrowedFd<'_>> {
        Ok(self.0.as_fd())
    }

    /// The same, to be kept.
    pub(crate) fn into_directory(self) -> rustix::io::Result<OwnedFd> {
        Ok(self.0)
    }

    /// Something on the same file system.
    pub(crate) fn on_file_system(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// What keeps its number from being given to another file, and tells whether it has a name still.
    pub(crate) fn keep(self) -> Option<OwnedFd> {
        Some(self.0)
    }

    /// Opens it for its content.
    pub(crate) fn open(&self, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        open(self.path(), flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
    }

    /// Where a link leads, as it was written.
    pub(crate) fn link_target(&self) -> rustix::io::Result<PathBuf> {
        let target = readlinkat(&self.0, "", Vec::new())?;
        Ok(OsString::from_vec(target.into_bytes()).into())
    }

    /// Whether this process may write it; without opening it, since no program can be run meanwhile.
    pub(crate) fn check_writable(&self) -> rustix::io::Result<()> {
        accessat(CWD, self.path(), Access::WRITE_OK, AtFlags::EACCESS)
    }

    pub(crate) fn set_mode(&self, mode: Mode) -> rustix::io::Result<()> {
        chmodat(CWD, self.path(), mode, AtFlags::empty())
    }

    pub(crate) fn set_times(&self, times: &Timestamps) -> rustix::io::Result<()> {
        utimensat(CWD, self.path(), times, AtFlags::empty())
    }

    /// Gives it another name, which nothing has.
    pub(crate) fn link(&self, directory: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
        linkat(CWD, self.path(), directory, name, AtFlags::SYMLINK_FOLLOW)
    }

    /// Its very self, by a path that no rename can turn to something else.
    fn path(&self) -> PathBuf {
        path_of(self.0.as_fd())
    }
}

/// Whether the paths of handles are there.
pub(crate) fn check_handles() -> rustix::io::Result<()> {
    openat(CWD, "/proc/self/fd", SEARCH, Mode::empty()).map(drop)
}

/// The path of what is open, be it open as a handle only.
pub(crate) fn path_of(file: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// A new file without a name, to be written; `None` where the file system has no such files.
pub(crate) fn nameless(
    directory: BorrowedFd<'_>,
    mode: Mode,
) -> rustix::io::Result<Option<OwnedFd>> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::TMPFILE;
    match openat(directory, ".", flags, mode) {
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => Ok(None),
        made => made.map(Some),
    }
}

/// Gives a file without a name one, which nothing has.
pub(crate) fn give_name(
    file: BorrowedFd<'_>,
    directory: BorrowedFd<'_>,
    name: &OsStr,
) -> rustix::io::Result<()> {
    linkat(CWD, path_of(file), directory, name, AtFlags::SYMLINK_FOLLOW)
}

/// The same file without the right to write it. `_name` is what it has now, if it has one.
pub(crate) fn without_writing(
    file: BorrowedFd<'_>,
    _name: Option<(BorrowedFd<'_>, &OsStr)>,
) -> rustix::io::Result<Option<OwnedFd>> {
    open(path_of(file), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map(Some)
}
