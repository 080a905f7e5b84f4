//! Writing a whole file, so that it is there whole or not at all.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, fchmod, fdatasync, fstat, openat, renameat, unlinkat};
use rustix::io::{Errno, write};

use crate::files::error::{NO_FILE, shown};
use crate::files::quota::OpenPermit;
use crate::files::tree::{Entry, names_directory};
use crate::files::{FileError, FileInfo, FileKind, Shared};
use crate::id::random_text;

/// A file in the making, which takes another's place when it is finished; or is removed.
#[derive(Debug)]
pub(crate) struct Replacement {
    entry: Entry,
    file: OwnedFd,
    /// Its name until it has its own.
    temporary: OsString,
    path: PathBuf,
    written: u64,
    limit: u64,
    is_in_place: bool,
    _permit: OpenPermit,
}

impl Replacement {
    pub(crate) fn begin(
        shared: &Shared,
        path: &Path,
        permit: OpenPermit,
    ) -> Result<Self, FileError> {
        let (entry, mode) = place_of(shared, path)?;
        let temporary = OsString::from(format!(".splengine-{}", random_text()));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let new = Mode::from_raw_mode(0o666);
        let file = openat(&entry.directory, &temporary, flags | OFlags::CLOEXEC, new)
            .map_err(FileError::of(path))?;
        let (path, limit) = (path.to_owned(), shared.max_file_size);
        let made = Self {
            entry,
            file,
            temporary,
            path,
            written: 0,
            limit,
            is_in_place: false,
            _permit: permit,
        };
        if let Some(mode) = mode {
            fchmod(&made.file, mode).map_err(FileError::of(&made.path))?;
        }
        Ok(made)
    }

    pub(crate) fn write(&mut self, mut data: &[u8]) -> Result<(), FileError> {
        self.written = self.written.saturating_add(data.len() as u64);
        if self.written > self.limit {
            return Err(FileError::TooLarge { path: shown(&self.path), limit: self.limit });
        }
        while !data.is_empty() {
            match write(&self.file, data) {
                Ok(0) => return Err(FileError::NoRoom { path: shown(&self.path) }),
                Ok(written) => data = &data[written..],
                Err(Errno::INTR) => {}
                Err(error) => return Err(FileError::of_errno(&self.path, error)),
            }
        }
        Ok(())
    }

    /// Puts it in place, once it is on the disk: after a crash there is the old or the new.
    pub(crate) fn finish(mut self) -> Result<FileInfo, FileError> {
        fdatasync(&self.file).map_err(FileError::of(&self.path))?;
        let directory = &self.entry.directory;
        renameat(directory, &self.temporary, directory, &self.entry.name)
            .map_err(FileError::of(&self.path))?;
        self.is_in_place = true;
        Ok(fstat(&self.file).map_err(FileError::of(&self.path))?.into())
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.is_in_place {
            let _ = unlinkat(&self.entry.directory, &self.temporary, AtFlags::empty());
        }
    }
}

/// Where the file is to be, and the permission bits of the one that is there.
fn place_of(shared: &Shared, path: &Path) -> Result<(Entry, Option<Mode>), FileError> {
    let found = match shared.tree.find(path) {
        Ok(found) => found,
        Err(FileError::NotFound { .. }) => {
            let entry = shared.tree.new_entry(path)?;
            if names_directory(path) {
                return Err(FileError::IsDirectory { path: shown(path) });
            }
            return match shared.tree.find_itself(path) {
                Ok(_) => Err(FileError::impossible(path, "is a link that leads nowhere")),
                Err(_) => Ok((entry, None)),
            };
        }
        Err(error) => return Err(error),
    };
    match found.info.kind {
        FileKind::File => {}
        FileKind::Directory => return Err(FileError::IsDirectory { path: shown(path) }),
        _ => return Err(FileError::impossible(path, NO_FILE)),
    }
    // What may not be written may not be replaced either.
    found.open(OFlags::WRONLY | OFlags::NONBLOCK).map_err(FileError::of(path))?;
    let mode = Mode::from_raw_mode(found.info.mode & 0o777);
    Ok((shared.tree.new_entry(&found.place)?, Some(mode)))
}
