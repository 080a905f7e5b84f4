//! Writing a whole file, so that it is there whole or not at all.

use std::ffi::OsString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, fchmod, fdatasync, fstat, openat, statat, unlinkat};
use rustix::io::{Errno, write};

use crate::files::error::{NO_FILE, shown};
use crate::files::quota::OpenPermit;
use crate::files::rename::{At, rename_new, rename_over};
use crate::files::tree::{Entry, names_directory};
use crate::files::{FileError, FileInfo, FileKind, Shared};
use crate::id::random_text;

/// A file that was written whole.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Replaced {
    /// What is known of it.
    pub info: FileInfo,
    /// Whether nothing had its name before.
    pub is_new: bool,
}

/// What is to be true of what has a name, if anything has.
pub(crate) type Condition = Box<dyn Fn(Option<&FileInfo>) -> bool + Send>;

/// A file in the making, which takes another's place when it is finished; or is removed.
pub(crate) struct Replacement {
    shared: Arc<Shared>,
    condition: Condition,
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
        shared: &Arc<Shared>,
        path: &Path,
        mode: Option<u32>,
        condition: Condition,
        permit: OpenPermit,
    ) -> Result<Self, FileError> {
        let (entry, present) = place_of(shared, path)?;
        if !condition(present.as_ref()) {
            return Err(FileError::Changed { path: shown(path) });
        }
        let mode = present.map(|info| info.mode).or(mode);
        let temporary = OsString::from(format!("{TEMPORARY}{}", random_text()));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let new = Mode::from_raw_mode(0o666);
        let file = openat(&entry.directory, &temporary, flags | OFlags::CLOEXEC, new)
            .map_err(FileError::of(path))?;
        let (path, limit) = (path.to_owned(), shared.max_file_size);
        let made = Self {
            shared: Arc::clone(shared),
            condition,
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
            let mode = Mode::from_raw_mode(mode & 0o777);
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
    pub(crate) fn finish(mut self) -> Result<Replaced, FileError> {
        fdatasync(&self.file).map_err(FileError::of(&self.path))?;
        let is_new = self.put_in_place()?;
        self.is_in_place = true;
        let info = fstat(&self.file).map_err(FileError::of(&self.path))?.into();
        Ok(Replaced { info, is_new })
    }

    /// Whether nothing had the name.
    fn put_in_place(&self) -> Result<bool, FileError> {
        let Self { entry, path, .. } = self;
        let _turn = self.shared.turns.take(&entry.place);
        for _ in 0..TRIES {
            let present = match statat(&entry.directory, &entry.name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Some(FileInfo::from(stat)),
                Err(Errno::NOENT) => None,
                Err(error) => return Err(FileError::of_errno(path, error)),
            };
            if !(self.condition)(present.as_ref()) {
                break;
            }
            let from = At(entry.directory.as_fd(), &self.temporary);
            if present.is_some() {
                let renamed = rename_over(from, entry.at());
                return renamed.map(|()| false).map_err(FileError::of(path));
            }
            match rename_new(from, entry.at()) {
                Ok(()) => return Ok(true),
                // Some program made it at this moment.
                Err(Errno::EXIST) => {}
                Err(error) => return Err(FileError::of_errno(path, error)),
            }
        }
        Err(FileError::Changed { path: shown(path) })
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.is_in_place {
            let _ = unlinkat(&self.entry.directory, &self.temporary, AtFlags::empty());
        }
    }
}

/// Where the file is to be, and what is known of the one that is there.
fn place_of(shared: &Shared, path: &Path) -> Result<(Entry, Option<FileInfo>), FileError> {
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
    Ok((shared.tree.new_entry(&found.place)?, Some(found.info)))
}

/// How the names of files in the making begin.
pub(crate) const TEMPORARY: &str = ".splengine-";
const TRIES: u32 = 8;
