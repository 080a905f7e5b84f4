use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{
    AtFlags, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, fchmod, futimens, utimensat,
};

use crate::files::error::{NO_FILE, shown};
use crate::files::resolve::{Entry, Resolved};
use crate::files::usage::Tracked;
use crate::files::{FileError, FileKind, ServedFiles};
use crate::os::permissions;
use crate::process::await_inherited_closed;
use crate::user_name::UserName;

/// Changes to a file's attributes; what is not named stays.
///
/// ```
/// use splengine_core::files::SetAttributes;
///
/// let changes = SetAttributes::new().size(0).mode(0o640);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct SetAttributes {
    size: Option<u64>,
    mode: Option<u32>,
    modified: Option<SystemTime>,
    accessed: Option<SystemTime>,
}

impl SetAttributes {
    /// Makes a set of changes that changes nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cuts a file to this many bytes, or fills it up with zeros.
    pub fn size(mut self, bytes: u64) -> Self {
        self.size = Some(bytes);
        self
    }

    /// Sets the permission bits. Of all bits only those of `0o777` are taken: setuid, setgid and
    /// sticky are never given.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode & 0o777);
        self
    }

    /// Sets the time at which the content changed last.
    pub fn modified(mut self, time: SystemTime) -> Self {
        self.modified = Some(time);
        self
    }

    /// Sets the time at which the file was read last.
    pub fn accessed(mut self, time: SystemTime) -> Self {
        self.accessed = Some(time);
        self
    }

    pub(crate) fn apply(
        &self,
        shared: &ServedFiles,
        found: &Resolved,
        user: &UserName,
        path: &Path,
    ) -> Result<(), FileError> {
        if self.mode.is_some() {
            shared.tree.check_mode_changeable(found, path)?;
        }
        if let Some(size) = self.size_within(path, shared.max_file_size)? {
            match found.info.kind {
                FileKind::File => {}
                FileKind::Directory => return Err(FileError::IsDirectory { path: shown(path) }),
                _ => return Err(FileError::impossible(path, NO_FILE)),
            }
            let file = found.open(OFlags::WRONLY | OFlags::NONBLOCK);
            let file = shared.track(file.map_err(FileError::of(path))?, path)?;
            file.resize(user, size, path)?;
            drop(file);
            await_inherited_closed();
        }
        if let Some(mode) = self.mode_bits() {
            let mode = shared.kept_mode(mode, found.is_directory());
            found.handle.set_mode(mode).map_err(FileError::of(path))?;
        }
        if let Some(times) = self.times() {
            found.handle.set_times(&times).map_err(FileError::of(path))?;
        }
        Ok(())
    }

    pub(crate) fn apply_to_link(&self, entry: &Entry, path: &Path) -> Result<(), FileError> {
        if self.size.is_some() || self.mode.is_some() {
            return Err(FileError::impossible(path, "is a link: only its times can be set"));
        }
        if let Some(times) = self.times() {
            utimensat(&entry.directory, &entry.name, &times, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(FileError::of(path))?;
        }
        Ok(())
    }

    pub(crate) fn apply_to_open(
        &self,
        file: &Tracked,
        user: &UserName,
        path: &Path,
        limit: u64,
    ) -> Result<(), FileError> {
        if let Some(size) = self.size_within(path, limit)? {
            file.resize(user, size, path)?;
        }
        if let Some(mode) = self.mode_bits() {
            let mode = if file.is_counted() { mode | Mode::RUSR } else { mode };
            fchmod(file, mode).map_err(FileError::of(path))?;
        }
        if let Some(times) = self.times() {
            futimens(file, &times).map_err(FileError::of(path))?;
        }
        Ok(())
    }

    pub(crate) fn sets_size(&self) -> bool {
        self.size.is_some()
    }

    fn size_within(&self, path: &Path, limit: u64) -> Result<Option<u64>, FileError> {
        match self.size {
            Some(size) if size > limit => Err(FileError::TooLarge { path: shown(path), limit }),
            size => Ok(size),
        }
    }

    fn mode_bits(&self) -> Option<Mode> {
        self.mode.map(permissions)
    }

    fn times(&self) -> Option<Timestamps> {
        (self.modified.is_some() || self.accessed.is_some()).then(|| Timestamps {
            last_access: timespec(self.accessed),
            last_modification: timespec(self.modified),
        })
    }
}

fn timespec(time: Option<SystemTime>) -> Timespec {
    let Some(time) = time else { return Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT } };
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => Timespec {
            tv_sec: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: since.subsec_nanos().into(),
        },
        Err(error) => {
            let before = error.duration();
            let part = i64::from(before.subsec_nanos());
            let whole = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            let borrowed = i64::from(part > 0);
            Timespec { tv_sec: -whole - borrowed, tv_nsec: borrowed * 1_000_000_000 - part }
        }
    }
}
