use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, fstatvfs, openat, statat};
use rustix::io::Errno;

use crate::blocking::blocking;
use crate::files::open_files::OpenPermit;
use crate::files::{DiskSpace, FileError, FileInfo, ServedFiles};
use crate::os::Identity;
use crate::protected::View;
use crate::quota::LargeWork;

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
/// # let policy = FilePolicy::new();
/// # let engine = Engine::builder(LocalExecutor::new(root)?).files(policy).build()?;
/// # let (files, alice) = (engine.files(), Caller::new("alice")?.with_all_scopes());
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
pub struct FileListing {
    inner: Arc<Mutex<Inner>>,
    shared: Arc<ServedFiles>,
    permit: OpenPermit,
}

struct Inner {
    shared: Arc<ServedFiles>,
    directory: Dir,
    place: PathBuf,
    id: Identity,
    path: PathBuf,
}

/// The first names in the order of their bytes, of those after one of them.
struct FirstNames {
    after: Option<OsString>,
    max: usize,
    names: BTreeMap<OsString, FileType>,
    /// How long the names may be together, and are.
    max_bytes: usize,
    bytes: usize,
    has_more: bool,
    /// All names of the directory were seen.
    is_done: bool,
}

impl FirstNames {
    fn insert(&mut self, name: &OsStr, kind: FileType) {
        if self.after.as_deref().is_some_and(|after| name <= after) {
            return;
        }
        // What follows the last is left out once something was: a shorter one may not take its place.
        self.has_more |= self.names.len() >= self.max;
        if self.has_more
            && self.names.last_key_value().is_none_or(|(last, _)| name >= last.as_os_str())
        {
            return;
        }
        if self.names.insert(name.to_owned(), kind).is_none() {
            self.bytes += name.len();
        }
        while self.names.len() > self.max || self.is_full() && self.names.len() > 1 {
            self.has_more = true;
            let Some((last, _)) = self.names.pop_last() else { break };
            self.bytes -= last.len();
        }
    }

    fn is_full(&self) -> bool {
        self.bytes > self.max_bytes
    }
}

/// Entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileEntry {
    /// Name in the directory: any bytes but `/` and NUL.
    pub name: OsString,
    /// Attributes of it; if it is a link, of the link. If they can't be read, only the kind is set: the
    /// rest is 0, and the times are 1970.
    pub info: FileInfo,
}

impl FileListing {
    /// Maximum number of entries that one [`next`](Self::next) gives.
    pub const MAX_BATCH: usize = 256;
    /// Maximum number of entries of a [`page`](Self::page).
    pub const MAX_PAGE: usize = 10_000;

    pub(crate) fn open(
        shared: &Arc<ServedFiles>,
        path: &Path,
        permit: OpenPermit,
    ) -> Result<Self, FileError> {
        let found = shared.tree.find_directory(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = found.handle.directory();
        let directory = handle
            .and_then(|handle| openat(handle, ".", flags, Mode::empty()))
            .and_then(Dir::new)
            .map_err(FileError::of(path))?;
        let inner = Inner {
            shared: Arc::clone(shared),
            directory,
            place: found.place,
            id: found.info.id,
            path: path.to_owned(),
        };
        Ok(Self { inner: Arc::new(Mutex::new(inner)), shared: Arc::clone(shared), permit })
    }

    /// Returns the next entries, [`MAX_BATCH`](Self::MAX_BATCH) of them at most; none when there are no
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
        self.next_few(Self::MAX_BATCH).await
    }

    /// Returns the next entries as [`next`](Self::next) does, `most` of them at most, from 1 to
    /// [`MAX_BATCH`](Self::MAX_BATCH): for callers that pass them on in parts, and keep none meanwhile.
    ///
    /// # Errors
    ///
    /// [`FileError`] when the file system reports an error.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, those entries are lost.
    pub async fn next_few(&self, most: usize) -> Result<Vec<FileEntry>, FileError> {
        let most = most.clamp(1, Self::MAX_BATCH);
        self.work(move |inner| inner.next(most)).await
    }

    /// Returns the rest, in the order of the names' bytes, of which only those that come after `after`:
    /// `most` of them at most, from 1 to [`MAX_PAGE`](Self::MAX_PAGE), whose names are no longer
    /// together than [1 MiB](LargeWork::MAX_PAGE_BYTES); and whether there are more. No more than a page
    /// is held at any time.
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
        let mut after = after.map(OsStr::to_owned);
        let mut entries = Vec::new();
        let mut bytes_left = LargeWork::MAX_PAGE_BYTES;
        loop {
            let mut first = FirstNames {
                after: after.take(),
                max: most - entries.len(),
                names: BTreeMap::new(),
                max_bytes: bytes_left,
                bytes: 0,
                has_more: false,
                is_done: false,
            };
            while !first.is_done {
                first = self.work(move |inner| inner.read_names(first)).await?;
            }
            let has_more = first.has_more;
            after = first.names.last_key_value().map(|(name, _)| name.clone());
            let mut names = first.names.into_iter();
            loop {
                let batch: Vec<_> = names.by_ref().take(Self::MAX_BATCH).collect();
                if batch.is_empty() {
                    break;
                }
                for entry in self.work(move |inner| inner.look_at(batch)).await? {
                    bytes_left = bytes_left.saturating_sub(entry.name.len());
                    entries.push(entry);
                }
            }
            // Some that were there may be gone, and others are to take their places.
            if !has_more || entries.len() >= most || bytes_left < MAX_NAME_BYTES {
                return Ok((entries, has_more));
            }
            self.work(|inner| {
                inner.directory.rewind();
                Ok(())
            })
            .await?;
        }
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

    /// Returns the free space of the file system that the directory is on.
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
        self.work(move |inner| {
            inner.directory.fd().and_then(look).map_err(FileError::of(&inner.path))
        })
        .await
    }

    /// Does a piece of work, when it is the turn of the caller, of whom no more than two are done at
    /// once. Work that has begun is done even if the future is dropped.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Inner) -> Result<T, FileError> + Send + 'static,
    ) -> Result<T, FileError> {
        let inner = Arc::clone(&self.inner);
        let walk = Arc::clone(&self.shared.walks).enter(self.permit.user()).await;
        blocking(move || {
            let done = work(&mut inner.lock().unwrap_or_else(PoisonError::into_inner));
            drop(walk);
            done
        })
        .await
    }
}

impl Inner {
    fn next(&mut self, most: usize) -> Result<Vec<FileEntry>, FileError> {
        let view = self.shared.tree.view();
        let mut batch = Vec::new();
        while batch.len() < most {
            let Some((name, kind)) = self.read_name(&view)? else { break };
            batch.extend(self.entry(&view, name, kind)?);
        }
        Ok(batch)
    }

    /// Reads so many further names, without a look at what they name.
    fn read_names(&mut self, mut first: FirstNames) -> Result<FirstNames, FileError> {
        let view = self.shared.tree.view();
        for _ in 0..NAMES_AT_ONCE {
            match self.read_name(&view)? {
                Some((name, kind)) => first.insert(&name, kind),
                None => {
                    first.is_done = true;
                    break;
                }
            }
        }
        Ok(first)
    }

    fn look_at(&mut self, names: Vec<(OsString, FileType)>) -> Result<Vec<FileEntry>, FileError> {
        let view = self.shared.tree.view();
        let entries = names.into_iter().map(|(name, kind)| self.entry(&view, name, kind));
        entries.filter_map(Result::transpose).collect()
    }

    /// The next name that is not hidden.
    fn read_name(&mut self, view: &View) -> Result<Option<(OsString, FileType)>, FileError> {
        while let Some(read) = self.directory.read() {
            let read = read.map_err(FileError::of(&self.path))?;
            let name = OsStr::from_bytes(read.file_name().to_bytes());
            let is_hidden =
                || view.names(self.id, name) || self.shared.tree.is_hidden(&self.place.join(name));
            if name != "." && name != ".." && !is_hidden() {
                return Ok(Some((name.to_owned(), read.file_type())));
            }
        }
        Ok(None)
    }

    /// What is known of what `name` names; `None` for what is hidden or was removed since.
    fn entry(
        &self,
        view: &View,
        name: OsString,
        kind: FileType,
    ) -> Result<Option<FileEntry>, FileError> {
        let directory = self.directory.fd().map_err(FileError::of(&self.path))?;
        let info = match statat(directory, name.as_os_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => FileInfo::from(stat),
            Err(Errno::NOENT) => return Ok(None),
            // One that can't be looked at shall not hide the others: it is there, and its file
            // system is not, say.
            Err(_) => FileInfo::unknown(kind),
        };
        Ok((!view.holds(info.id)).then_some(FileEntry { name, info }))
    }
}

impl fmt::Debug for FileListing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileListing").finish_non_exhaustive()
    }
}

/// With less room a page is full.
const MAX_NAME_BYTES: usize = 255;
/// Names that are read in one piece of work.
const NAMES_AT_ONCE: usize = 4096;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::files::resolve::Tree;
    use crate::files::{FilePolicy, OpenedFiles};
    use crate::quota::DiskReserve;
    use crate::root::Root;

    #[tokio::test]
    async fn each_piece_of_a_listing_waits_for_the_turn_of_its_caller() {
        let root = tempfile::tempdir().expect("a directory");
        std::fs::write(root.path().join("a"), "").expect("written");
        let tree = Tree::new(Root::open(root.path()).expect("opened")).expect("a root");
        let opened = OpenedFiles { tree, counted: None, is_root_of_commands: true };
        let shared = Arc::new(FilePolicy::new().serve(opened, DiskReserve::default()));
        let alice = "alice".parse().expect("a name");
        let permit = shared.listings.permit(&alice).expect("a place");
        let listing = FileListing::open(&shared, Path::new("/"), permit).expect("opened");
        let enter = |user| Arc::clone(&shared.walks).enter(user);
        let others = [enter(&alice).await, enter(&alice).await];
        let waits = timeout(Duration::from_millis(100), listing.next()).await;
        assert!(waits.is_err(), "it has no turn");
        let waits = timeout(Duration::from_millis(100), listing.info()).await;
        assert!(waits.is_err(), "it has no turn");
        drop(others);
        assert_eq!(listing.next().await.expect("read").len(), 1);
        let others = [enter(&alice).await, enter(&alice).await];
        let waits = timeout(Duration::from_millis(100), listing.page(None, 1)).await;
        assert!(waits.is_err(), "it has no turn");
        drop(others);
    }

    #[test]
    fn the_first_names_are_kept_in_their_order() {
        let after = Some("b".into());
        let mut first = FirstNames {
            after,
            max: 2,
            names: BTreeMap::new(),
            max_bytes: 10,
            bytes: 0,
            has_more: false,
            is_done: false,
        };
        for name in ["e", "b", "d", "a"] {
            first.insert(OsStr::new(name), FileType::RegularFile);
        }
        assert!(!first.has_more);
        for name in ["c", "f"] {
            first.insert(OsStr::new(name), FileType::RegularFile);
        }
        let names: Vec<_> = first.names.into_keys().collect();
        assert_eq!((names, first.has_more), (vec!["c".into(), "d".into()], true));
    }
}
