use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, fstat, fstatvfs, openat, statat};
use rustix::io::Errno;

use crate::blocking::blocking;
use crate::files::quota::OpenPermit;
use crate::files::{DiskSpace, FileError, FileInfo, Shared};
use crate::protected::Identity;

/// A directory that is being read, some of it at a time, in the order that its file system has.
///
/// ```
/// use std::path::Path;
/// use splengine_core::files::FilePolicy;
/// use splengine_core::{Caller, Engine, LocalExecutor};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let root = tempfile::tempdir()?;
/// # let root = root.path();
/// # let policy = FilePolicy::new(root)?;
/// # let engine = Engine::builder(LocalExecutor::new(root)?).files(policy).build()?;
/// # let (files, alice) = (engine.files(), Caller::with_all_scopes("alice".parse()?));
/// for name in ["/c", "/a", "/b"] {
///     files.replace(&alice, Path::new(name), &b""[..]).await?;
/// }
/// let listing = files.list(&alice, Path::new("/")).await?;
/// let (entries, has_more) = listing.page(None, 2).await?;
/// let names: Vec<_> = entries.iter().map(|entry| entry.name.to_string_lossy()).collect();
/// assert_eq!((&names[..], has_more), (&["a".into(), "b".into()][..], true));
///
/// // The next page begins after the last name.
/// let last = entries.last().map(|entry| entry.name.as_os_str());
/// let (entries, has_more) = files.list(&alice, Path::new("/")).await?.page(last, 2).await?;
/// assert!(entries.len() == 1 && !has_more);
/// # Ok(())
/// # }
/// ```
pub struct FileListing(Arc<Mutex<Inner>>);

struct Inner {
    shared: Arc<Shared>,
    directory: Dir,
    place: PathBuf,
    id: Identity,
    path: PathBuf,
    _permit: OpenPermit,
}

/// Entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileEntry {
    /// Name in the directory: any bytes but `/` and NUL.
    pub name: OsString,
    /// Attributes of it; if it is a link, of the link. Of one that can't be looked at, only its
    /// kind: the rest is 0, and its times are 1970.
    pub info: FileInfo,
}

impl FileListing {
    /// Maximum number of entries that one [`next`](Self::next) gives.
    pub const MAX_BATCH: usize = 256;
    /// Maximum number of entries of a [`page`](Self::page).
    pub const MAX_PAGE: usize = 10_000;

    pub(crate) fn open(
        shared: &Arc<Shared>,
        path: &Path,
        permit: OpenPermit,
    ) -> Result<Self, FileError> {
        let found = shared.tree.find_directory(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(&found.handle, ".", flags, Mode::empty())
            .and_then(Dir::new)
            .map_err(FileError::of(path))?;
        Ok(Self(Arc::new(Mutex::new(Inner {
            shared: Arc::clone(shared),
            directory,
            place: found.place,
            id: found.info.id,
            path: path.to_owned(),
            _permit: permit,
        }))))
    }

    /// The next entries, [`MAX_BATCH`](Self::MAX_BATCH) of them at most; none when there are no
    /// more. What is made or removed meanwhile may or may not be among them. `.` and `..` never
    /// are, nor is what is hidden.
    ///
    /// # Errors
    ///
    /// [`FileError`] when the file system reports an error.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, those entries are lost.
    pub async fn next(&self) -> Result<Vec<FileEntry>, FileError> {
        let inner = Arc::clone(&self.0);
        blocking(move || inner.lock().unwrap_or_else(PoisonError::into_inner).next()).await
    }

    /// The rest, in the order of the names' bytes, of which only those that come after `after`:
    /// `most` of them at most, from 1 to [`MAX_PAGE`](Self::MAX_PAGE); and whether there are more.
    /// No more than a page is held at any time.
    ///
    /// # Errors
    ///
    /// [`FileError`] when the file system reports an error.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, so is the listing: begin another one.
    pub async fn page(
        self,
        after: Option<&OsStr>,
        most: usize,
    ) -> Result<(Vec<FileEntry>, bool), FileError> {
        let most = most.clamp(1, Self::MAX_PAGE);
        let mut page = BTreeMap::new();
        let mut is_all = true;
        loop {
            let batch = self.next().await?;
            if batch.is_empty() {
                break;
            }
            for entry in
                batch.into_iter().filter(|entry| after.is_none_or(|after| *entry.name > *after))
            {
                page.insert(entry.name, entry.info);
                if page.len() > most {
                    page.pop_last();
                    is_all = false;
                }
            }
        }
        let entries = page.into_iter().map(|(name, info)| FileEntry { name, info });
        Ok((entries.collect(), !is_all))
    }

    /// Returns what is known of the directory now.
    ///
    /// # Errors
    ///
    /// [`FileError`] when the file system reports an error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn info(&self) -> Result<FileInfo, FileError> {
        self.look(|directory| fstat(directory).map(FileInfo::from)).await
    }

    /// Returns how much room there is where the directory is.
    ///
    /// # Errors
    ///
    /// [`FileError`] when the file system reports an error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn space(&self) -> Result<DiskSpace, FileError> {
        self.look(|directory| fstatvfs(directory).map(DiskSpace::from)).await
    }

    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(BorrowedFd<'_>) -> rustix::io::Result<T> + Send + 'static,
    ) -> Result<T, FileError> {
        let inner = Arc::clone(&self.0);
        blocking(move || {
            let inner = inner.lock().unwrap_or_else(PoisonError::into_inner);
            inner.directory.fd().and_then(look).map_err(FileError::of(&inner.path))
        })
        .await
    }
}

impl Inner {
    fn next(&mut self) -> Result<Vec<FileEntry>, FileError> {
        let view = self.shared.tree.view();
        let mut batch = Vec::new();
        while batch.len() < FileListing::MAX_BATCH {
            let Some(read) = self.directory.read() else { break };
            let read = read.map_err(FileError::of(&self.path))?;
            let name = OsStr::from_bytes(read.file_name().to_bytes());
            let is_hidden =
                || view.names(self.id, name) || self.shared.tree.is_hidden(&self.place.join(name));
            if name == "." || name == ".." || is_hidden() {
                continue;
            }
            let directory = self.directory.fd().map_err(FileError::of(&self.path))?;
            let info = match statat(directory, read.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => FileInfo::from(stat),
                // Removed since.
                Err(Errno::NOENT) => continue,
                // One that can't be looked at shall not hide the others: it is there, and its file
                // system is not, say.
                Err(_) => FileInfo::unknown(read.file_type()),
            };
            if !view.holds(info.id) {
                let name = OsString::from_vec(name.as_bytes().to_vec());
                batch.push(FileEntry { name, info });
            }
        }
        Ok(batch)
    }
}

impl fmt::Debug for FileListing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileListing").finish_non_exhaustive()
    }
}
