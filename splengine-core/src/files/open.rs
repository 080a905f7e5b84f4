use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, OFlags, fstat, openat, unlinkat};
use rustix::io::{Errno, pread, pwrite};

use crate::blocking::blocking;
use crate::error::Field;
use crate::files::error::{NO_FILE, shown};
use crate::files::open_files::OpenPermit;
use crate::files::resolve::{Resolved, names_directory};
use crate::files::usage::Tracked;
use crate::files::{DiskSpace, FileError, FileInfo, FileKind, ServedFiles, SetAttributes};
use crate::os::{permissions, sync};
use crate::process::await_inherited_closed;
use crate::quota::DiskReserve;
use crate::user_name::UserName;

/// Options with which a file is opened.
///
/// ```
/// use splengine_core::files::OpenOptions;
///
/// let options = OpenOptions::new().write().create().truncate();
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct OpenOptions {
    read: bool,
    write: bool,
    append: bool,
    create: bool,
    create_new: bool,
    truncate: bool,
    mode: Option<u32>,
}

/// An open file. Cheap to clone; it is closed when the last clone is dropped.
///
/// ```
/// use std::path::Path;
/// use splengine_core::files::{FilePolicy, OpenOptions, SetAttributes};
/// use splengine_core::{Caller, Engine, LocalExecutor};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let root = tempfile::tempdir()?;
/// # let root = root.path();
/// # let policy = FilePolicy::new();
/// # let engine = Engine::builder(LocalExecutor::new(root)?).files(policy).build()?;
/// # let (files, alice) = (engine.files(), Caller::new("alice")?.with_all_scopes());
/// let options = OpenOptions::new().read().write().create_new().mode(0o640);
/// let file = files.open(&alice, Path::new("/log"), options).await?;
/// file.write_at(0, "hello".into()).await?;
/// assert_eq!(file.read_at(1, 3).await?, "ell");
/// file.set(SetAttributes::new().size(2)).await?;
/// assert_eq!(file.info().await?.size, 2);
/// file.sync().await?;
/// file.close().await;
/// # Ok(())
/// # }
/// ```
///
/// # Cancel safety
///
/// What was begun of a read, a write or a change is done even if its future is dropped.
#[derive(Clone)]
pub struct OpenFile(Arc<Inner>);

struct Inner {
    file: Tracked,
    path: PathBuf,
    options: OpenOptions,
    max_file_size: u64,
    reserve: DiskReserve,
    permit: OpenPermit,
}

impl OpenOptions {
    /// Makes options that allow nothing yet: add [`read`](Self::read), [`write`](Self::write) or
    /// [`append`](Self::append).
    pub fn new() -> Self {
        Self::default()
    }

    /// Allows it to be read.
    pub fn read(mut self) -> Self {
        self.read = true;
        self
    }

    /// Allows it to be written.
    pub fn write(mut self) -> Self {
        self.write = true;
        self
    }

    /// Allows it to be written at its end only, wherever that then is.
    pub fn append(mut self) -> Self {
        (self.write, self.append) = (true, true);
        self
    }

    /// Creates the file if it does not exist.
    pub fn create(mut self) -> Self {
        self.create = true;
        self
    }

    /// Creates the file, and fails if something has its name, even a link to nothing.
    pub fn create_new(mut self) -> Self {
        self.create_new = true;
        self
    }

    /// Empties an existing file when it is opened.
    pub fn truncate(mut self) -> Self {
        self.truncate = true;
        self
    }

    /// Sets the permission bits of a file that is made. Default `0o666`. Of all bits only those of
    /// `0o777` are taken, and of those what this process's umask leaves.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode & 0o777);
        self
    }

    pub(crate) fn writes(&self) -> bool {
        self.write
    }

    fn check(&self) -> Result<(), FileError> {
        let problem = if !self.read && !self.write {
            "must be to read, to write or to append"
        } else if (self.create || self.create_new || self.truncate) && !self.write {
            "to create or to truncate must be to write, too"
        } else {
            return Ok(());
        };
        Err(FileError::Malformed { field: Field::Options, problem })
    }

    fn flags(&self) -> OFlags {
        let mut flags = match (self.read, self.write) {
            (true, true) => OFlags::RDWR,
            (false, true) => OFlags::WRONLY,
            _ => OFlags::RDONLY,
        };
        flags.set(OFlags::APPEND, self.append);
        // No pipe can be behind it; but nothing shall hang if ever.
        flags | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY
    }

    fn open_found(
        &self,
        shared: &ServedFiles,
        found: &Resolved,
        user: &UserName,
        path: &Path,
    ) -> Result<Tracked, FileError> {
        match found.info.kind {
            FileKind::File => {}
            FileKind::Directory => return Err(FileError::IsDirectory { path: shown(path) }),
            _ => return Err(FileError::impossible(path, NO_FILE)),
        }
        let file = found.open(self.flags()).map_err(FileError::of(path))?;
        let file = shared.track(file, path)?;
        if self.truncate {
            file.resize(user, 0, path)?;
        }
        Ok(file)
    }

    fn make(
        &self,
        shared: &ServedFiles,
        user: &UserName,
        path: &Path,
    ) -> Result<Tracked, FileError> {
        let entry = shared.tree.new_entry(path)?;
        if names_directory(path) {
            return Err(FileError::IsDirectory { path: shown(path) });
        }
        shared.check_room(&entry, path)?;
        let flags = self.flags() | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = permissions(self.mode.unwrap_or(0o666));
        let made = openat(&entry.directory, &entry.name, flags, shared.making_mode(mode));
        let file = shared.track(made.map_err(FileError::of(path))?, path)?;
        let claimed = file.claim(user, 0, path).and_then(|()| shared.end_making(&file, mode, path));
        if claimed.is_err() {
            let _ = unlinkat(&entry.directory, &entry.name, AtFlags::empty());
        }
        claimed.map(|()| file)
    }

    fn open(
        &self,
        shared: &ServedFiles,
        user: &UserName,
        path: &Path,
    ) -> Result<Tracked, FileError> {
        self.check()?;
        if self.create_new {
            return self.make(shared, user, path);
        }
        for _ in 0..TRIES {
            match shared.tree.find(path) {
                Err(FileError::NotFound { .. }) if self.create => {}
                found => return self.open_found(shared, &found?, user, path),
            }
            match self.make(shared, user, path) {
                // Somebody else was first; or it is a link to a file that is not there.
                Err(FileError::Exists { .. }) => {}
                made => return made,
            }
        }
        Err(FileError::impossible(path, "is a link that leads nowhere"))
    }
}

impl OpenFile {
    /// Maximum number of bytes that one [`read_at`](Self::read_at) gives: 256 KiB.
    pub const MAX_READ: usize = 256 * 1024;

    pub(crate) fn open(
        shared: &ServedFiles,
        path: &Path,
        options: &OpenOptions,
        permit: OpenPermit,
    ) -> Result<Self, FileError> {
        Ok(Self(Arc::new(Inner {
            file: options.open(shared, permit.user(), path)?,
            path: path.to_owned(),
            options: options.clone(),
            max_file_size: shared.max_file_size,
            reserve: shared.reserve.clone(),
            permit,
        })))
    }

    /// Bytes from `offset` on: `most` of them, but never more than [`MAX_READ`](Self::MAX_READ);
    /// fewer only where the file ends, none at its end or beyond.
    ///
    /// # Errors
    ///
    /// [`FileError::Denied`] when it was not opened to be read, and any other when
    /// the file system reports an error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn read_at(&self, offset: u64, most: usize) -> Result<Bytes, FileError> {
        self.check(self.0.options.read)?;
        self.with(move |inner| inner.read_at(offset, most.min(Self::MAX_READ))).await
    }

    /// Writes all of `data` at `offset`; at the end if it was opened to
    /// [append](OpenOptions::append), whatever `offset` is. Writes that overlap, and were not waited
    /// for, are done in any order.
    ///
    /// # Errors
    ///
    /// [`FileError::Denied`] when it was not opened to be written, [`FileError::TooLarge`],
    /// [`FileError::BelowFloor`], [`FileError::OverQuota`]; [`FileError::NoRoom`]: then a part of `data` may have been written.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped after it was polled, `data` is written all the same, though its errors
    /// are lost.
    pub async fn write_at(&self, offset: u64, data: Bytes) -> Result<(), FileError> {
        self.check(self.0.options.write)?;
        self.with(move |inner| inner.write_at(offset, &data)).await
    }

    /// Returns what is known of the file now.
    ///
    /// # Errors
    ///
    /// [`FileError`] when the file system reports an error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn info(&self) -> Result<FileInfo, FileError> {
        self.with(Inner::info).await
    }

    /// Changes the file's attributes.
    ///
    /// # Errors
    ///
    /// As [`Files::set`](crate::Files::set); the size only of a file that was opened to be written.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped after it was polled, the changes are made all the same.
    pub async fn set(&self, changes: SetAttributes) -> Result<(), FileError> {
        self.check(self.0.options.write || !changes.sets_size())?;
        self.with(move |inner| {
            let (file, user) = (&inner.file, inner.permit.user());
            changes.apply_to_open(file, user, &inner.path, inner.max_file_size)
        })
        .await
    }

    /// Waits until all that was written is on the disk.
    ///
    /// # Errors
    ///
    /// [`FileError`] when the file system reports an error.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, it isn't known whether all was written to the disk.
    pub async fn sync(&self) -> Result<(), FileError> {
        self.with(|inner| sync(&inner.file).map_err(FileError::of(&inner.path))).await
    }

    /// Closes the file. When this returns, and no other clone is left, the file can be run as a program:
    /// until then a child that was just being started may still have it open to be written, and the
    /// kernel runs no such file. Dropping the last clone closes it as well, without waiting.
    ///
    /// # Cancel safety
    ///
    /// It is closed even if the future is dropped.
    pub async fn close(self) {
        if self.0.options.writes() {
            blocking(move || {
                drop(self);
                await_inherited_closed();
            })
            .await;
        }
    }

    /// Returns the free space of the file system that the file is on.
    ///
    /// # Errors
    ///
    /// [`FileError`] when the file system reports an error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn space(&self) -> Result<DiskSpace, FileError> {
        self.with(|inner| {
            let stat = rustix::fs::fstatvfs(&inner.file).map_err(FileError::of(&inner.path))?;
            Ok(stat.into())
        })
        .await
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, FileError> + Send + 'static,
    ) -> Result<T, FileError> {
        let inner = Arc::clone(&self.0);
        blocking(move || work(&inner)).await
    }

    fn check(&self, is_allowed: bool) -> Result<(), FileError> {
        if is_allowed { Ok(()) } else { Err(FileError::Denied { path: shown(&self.0.path) }) }
    }
}

impl Inner {
    fn read_at(&self, offset: u64, most: usize) -> Result<Bytes, FileError> {
        // So far no file reaches.
        if offset.checked_add(most as u64).is_none_or(|end| end > LAST_OFFSET) {
            return Ok(Bytes::new());
        }
        let mut data = Vec::with_capacity(most);
        while data.len() < most {
            let at = offset + data.len() as u64;
            match pread(&self.file, spare_capacity(&mut data), at) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(FileError::of_errno(&self.path, error)),
            }
            data.truncate(most);
        }
        Ok(data.into())
    }

    fn write_at(&self, offset: u64, mut data: &[u8]) -> Result<(), FileError> {
        let mut at = if self.options.append { self.info()?.size } else { offset };
        let limit = self.max_file_size.min(LAST_OFFSET);
        if at.checked_add(data.len() as u64).is_none_or(|end| end > limit) {
            return Err(FileError::TooLarge { path: shown(&self.path), limit });
        }
        let below_floor = FileError::below_floor(&self.path);
        self.reserve.check(&self.file, data.len() as u64).map_err(below_floor)?;
        let (user, length) = (self.permit.user(), data.len() as u64);
        match self.options.append {
            // Where it ends then depends on others who write to it.
            true => self.file.claim_more(user, length, &self.path)?,
            false => self.file.claim(user, at + length, &self.path)?,
        }
        while !data.is_empty() {
            match pwrite(&self.file, data, at) {
                Ok(0) => return Err(FileError::NoRoom { path: shown(&self.path) }),
                Ok(written) => {
                    data = &data[written..];
                    at += written as u64;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(FileError::of_errno(&self.path, error)),
            }
        }
        Ok(())
    }

    fn info(&self) -> Result<FileInfo, FileError> {
        Ok(fstat(&self.file).map_err(FileError::of(&self.path))?.into())
    }
}

impl fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenFile")
            .field("path", &self.0.path)
            .field("options", &self.0.options)
            .finish_non_exhaustive()
    }
}

const TRIES: u32 = 3;
const LAST_OFFSET: u64 = i64::MAX as u64;
