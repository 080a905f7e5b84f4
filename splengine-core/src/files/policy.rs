use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::DiskReserve;
use crate::files::FileError;
use crate::files::quota::{OpenCount, Walks};
use crate::files::tree::{Entry, Tree, check_proc};
use crate::files::turns::Turns;
use crate::local::Root;

/// Which files an engine serves, and how many at once.
///
/// ```
/// use splengine_core::FilePolicy;
///
/// let policy = FilePolicy::new(std::env::temp_dir())?.hide("runtime")?.max_open(128);
/// # Ok::<(), splengine_core::FilePolicyError>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct FilePolicy {
    tree: Tree,
    max_file_size: u64,
    max_open: usize,
    max_open_per_caller: usize,
    max_watches: usize,
}

/// What all handles on an engine's files share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) tree: Tree,
    pub(crate) reserve: DiskReserve,
    /// Apart from each other, so that downloads which nobody reads keep nobody from a short look.
    pub(crate) readers: Arc<OpenCount>,
    pub(crate) writers: Arc<OpenCount>,
    pub(crate) listings: Arc<OpenCount>,
    pub(crate) watches: Arc<OpenCount>,
    pub(crate) walks: Arc<Walks>,
    pub(crate) turns: Turns,
    pub(crate) max_file_size: u64,
}

impl Shared {
    /// Whether there is room for something new in a directory: for a block of it.
    pub(crate) fn check_room(&self, entry: &Entry, path: &Path) -> Result<(), FileError> {
        let checked = self.reserve.check(&entry.directory, BLOCK_BYTES);
        checked.map_err(FileError::below_floor(path))
    }
}

/// Why files can't be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilePolicyError {
    /// The root is no directory that can be opened.
    #[error("the root `{}` can't be opened", path.display())]
    Root {
        /// As it was given.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What is to be hidden is not below root, or is root itself.
    #[error("`{}` can't be hidden", path.display())]
    Hidden {
        /// As it was given.
        path: PathBuf,
        /// Why not.
        #[source]
        source: FileError,
    },
    /// Files are opened by their handles, and those stand in `/proc`.
    #[error("/proc/self/fd can't be used")]
    Proc(#[source] io::Error),
}

impl FilePolicy {
    /// The defaults, for all files below `root`, on Linux 5.6 or newer.
    ///
    /// # Errors
    ///
    /// When `root` can't be opened as a directory, or `/proc` is missing.
    pub fn new(root: impl AsRef<Path>) -> Result<Self, FilePolicyError> {
        let path = root.as_ref();
        let root = Root::open(path)
            .map_err(|source| FilePolicyError::Root { path: path.to_owned(), source })?;
        check_proc().map_err(|error| FilePolicyError::Proc(error.into()))?;
        let tree = Tree::new(root).map_err(|error| FilePolicyError::Root {
            path: path.to_owned(),
            source: error.into(),
        })?;
        Ok(Self {
            tree,
            max_file_size: 1 << 40,
            max_open: 256,
            max_open_per_caller: usize::MAX,
            max_watches: 64,
        })
    }

    /// Hides a part of the tree: for callers it does not exist, by whatever name or link, and
    /// nothing can be made in its place. `path` is below root and need not be there yet. Of what is
    /// in a directory, other names (hard links) are known of what is directly in it, of 4096 files
    /// at most.
    ///
    /// # Errors
    ///
    /// For a path that is not below root, or is root itself.
    pub fn hide(mut self, path: impl AsRef<Path>) -> Result<Self, FilePolicyError> {
        let path = path.as_ref();
        self.tree
            .hide(path)
            .map_err(|source| FilePolicyError::Hidden { path: path.to_owned(), source })?;
        Ok(self)
    }

    /// Hides a file or a directory of the host, by what it is (its device and inode) and not by its
    /// name: for what the server reads its tokens, keys and configuration from. Unlike with
    /// [`hide`](Self::hide), `path` is one of the host; it may lie outside root, and a relative one
    /// starts from the current directory. It need not be there yet.
    ///
    /// For callers it does not exist, be it reached by its path, a link, a hard link, a mount, or in
    /// other case. Nothing can be made in its place, and neither a directory on the way to it nor a
    /// link there can be renamed, replaced or removed, nor a directory's permission bits be changed.
    /// A file that takes its place later is hidden, too, and the one before as long as it has a
    /// name. In a directory, all is hidden that is below it.
    ///
    /// Programs that callers run are not bound by this.
    ///
    /// # Errors
    ///
    /// For root itself.
    pub fn protect(mut self, path: impl AsRef<Path>) -> Result<Self, FilePolicyError> {
        let path = path.as_ref();
        self.tree
            .protect(path)
            .map_err(|source| FilePolicyError::Hidden { path: path.to_owned(), source })?;
        Ok(self)
    }

    /// Whether what a path of the host leads to, or would, lies below root by one of its names.
    #[must_use]
    pub fn is_below_root(&self, path: impl AsRef<Path>) -> bool {
        self.tree.is_below_root(path.as_ref())
    }

    /// How large a file may become by what callers write, in bytes. Default 1 TiB. What would make
    /// it larger is refused.
    pub fn max_file_size(mut self, bytes: u64) -> Self {
        self.max_file_size = bytes;
        self
    }

    /// Maximum number of files that are open at once to be read, default 256. As many again may be
    /// open to be written, and as many directories to be listed; each is a file descriptor of this
    /// process. The next is refused ([`FileError::Full`]).
    ///
    /// One caller may have as many open as are still free ([`FileError::CallerLimit`]): one alone
    /// half of all, two a third each, so that there is a place for who has none yet. Besides, one
    /// descriptor is held for a moment for each directory of a path that is being walked: of four
    /// paths at once, two of one caller; further ones wait.
    pub fn max_open(mut self, count: usize) -> Self {
        self.max_open = count;
        self
    }

    /// Maximum of each of these for one caller, however many are free. Default: no other than what
    /// [`max_open`](Self::max_open) tells.
    pub fn max_open_per_caller(mut self, count: usize) -> Self {
        self.max_open_per_caller = count;
        self
    }

    /// Maximum number of directories that are [watched](crate::Files::watch) at once, shared among
    /// callers as [open files](Self::max_open) are. The next is refused. Default 64, since the kernel
    /// lets a user have 128 where nobody set another number.
    pub fn max_watches(mut self, count: usize) -> Self {
        self.max_watches = count;
        self
    }

    pub(crate) fn into_shared(self, reserve: DiskReserve) -> Shared {
        let policy = self;
        let count = |what| OpenCount::new(what, policy.max_open, policy.max_open_per_caller);
        Shared {
            tree: policy.tree,
            reserve,
            readers: count("files open to be read"),
            writers: count("files open to be written"),
            listings: count("open directories"),
            watches: OpenCount::new("watched directories", policy.max_watches, usize::MAX),
            walks: Walks::new(),
            turns: Turns::default(),
            max_file_size: policy.max_file_size,
        }
    }
}

/// What a directory, a link or an empty file takes of most file systems at most.
const BLOCK_BYTES: u64 = 4096;
