use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, fchmod, fstat, openat};

use crate::files::FileError;
use crate::files::open_files::{OpenCount, Walks};
use crate::files::path_locks::PathLocks;
use crate::files::resolve::{Entry, Tree};
use crate::files::usage::{Tracked, Usage};
use crate::quota::DiskReserve;
use crate::user_name::UserName;

/// Choice of the files that an engine serves, and bounds on how many at once.
///
/// ```
/// use splengine_core::files::FilePolicy;
/// use splengine_core::{Engine, LocalExecutor};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let root = tempfile::tempdir()?;
/// # let root = root.path();
/// // The files below the executor's root.
/// let policy = FilePolicy::new().hide("runtime").max_open(128);
/// let engine = Engine::builder(LocalExecutor::new(root)?).files(policy).build()?;
/// # drop(engine);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct FilePolicy {
    /// Where it is not the executor's.
    pub(crate) root: Option<PathBuf>,
    /// Below root.
    pub(crate) hidden: Vec<PathBuf>,
    /// On the host.
    pub(crate) protected: Vec<PathBuf>,
    /// The bytes that a caller's files below root may hold.
    pub(crate) max_caller_bytes: Option<u64>,
    max_file_size: u64,
    max_open: usize,
    max_open_per_caller: usize,
    max_watches: usize,
}

/// What a policy names, opened.
#[derive(Debug)]
pub(crate) struct OpenedFiles {
    pub(crate) tree: Tree,
    /// Its root, where what callers' files hold is bounded.
    pub(crate) counted: Option<OwnedFd>,
    /// Whether commands work below the same root.
    pub(crate) is_root_of_commands: bool,
}

/// What all handles on an engine's files share.
#[derive(Debug)]
pub(crate) struct ServedFiles {
    pub(crate) tree: Tree,
    /// Whether commands work below the same root.
    pub(crate) is_root_of_commands: bool,
    pub(crate) reserve: DiskReserve,
    /// Apart from each other, so that downloads which nobody reads keep nobody from a short look.
    pub(crate) readers: OpenCount,
    pub(crate) writers: OpenCount,
    pub(crate) listings: OpenCount,
    pub(crate) watches: OpenCount,
    pub(crate) walks: Arc<Walks>,
    pub(crate) path_locks: PathLocks,
    pub(crate) max_file_size: u64,
    /// `None` where nobody's files are bounded.
    pub(crate) usage: Option<Arc<Usage>>,
}

impl ServedFiles {
    /// Whether there is room for something new in a directory: for a block of it.
    pub(crate) fn check_room(&self, entry: &Entry, path: &Path) -> Result<(), FileError> {
        let checked = self.reserve.check(&entry.directory, BLOCK_BYTES);
        checked.map_err(FileError::below_floor(path))
    }

    /// Holds an open file.
    pub(crate) fn track(&self, file: OwnedFd, path: &Path) -> Result<Tracked, FileError> {
        Tracked::new(self.usage.as_ref(), file, path)
    }

    /// Makes a directory that is new a caller's.
    pub(crate) fn claim_directory(
        &self,
        entry: &Entry,
        user: &UserName,
        path: &Path,
    ) -> Result<(), FileError> {
        if self.usage.is_none() {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(&entry.directory, &entry.name, flags, Mode::empty());
        self.track(made.map_err(FileError::of(path))?, path)?.claim(user, 0, path)
    }

    /// The permission bits that something is made with, so that it can be noted whose it is.
    pub(crate) fn making_mode(&self, mode: Mode) -> Mode {
        if self.usage.is_some() { mode | Mode::RUSR | Mode::WUSR } else { mode }
    }

    /// Takes from a file that was made so what it was not to have.
    pub(crate) fn end_making(
        &self,
        file: &Tracked,
        mode: Mode,
        path: &Path,
    ) -> Result<(), FileError> {
        if self.usage.is_none() || mode.contains(Mode::WUSR) {
            return Ok(());
        }
        let stat = fstat(file).map_err(FileError::of(path))?;
        let bits = Mode::from_raw_mode(stat.st_mode & 0o777) - Mode::WUSR;
        fchmod(file, bits).map_err(FileError::of(path))
    }

    /// The permission bits that something may be given, so that a count of what callers' files hold
    /// comes to it.
    pub(crate) fn kept_mode(&self, mode: Mode, is_directory: bool) -> Mode {
        match is_directory {
            _ if self.usage.is_none() => mode,
            true => mode | Mode::RWXU,
            false => mode | Mode::RUSR,
        }
    }
}

impl Default for FilePolicy {
    fn default() -> Self {
        Self::new()
    }
}

impl FilePolicy {
    /// Makes a policy with the defaults, for all files below the root of the engine's executor
    /// ([`Execute::root`](crate::Execute::root)), on Linux 5.6 or newer. An engine is not built
    /// ([`BuildError::NoFileRoot`](crate::engine::BuildError::NoFileRoot)) where the executor has none and no
    /// other [`root`](Self::root) is set.
    pub fn new() -> Self {
        Self {
            root: None,
            hidden: Vec::new(),
            protected: Vec::new(),
            max_caller_bytes: None,
            max_file_size: 1 << 40,
            max_open: 256,
            max_open_per_caller: usize::MAX,
            max_watches: 64,
        }
    }

    /// Sets the directory whose files are served, where that is not the executor's root: another one of
    /// this host, or that of an executor which has none. It is opened when the engine is
    /// [built](crate::engine::EngineBuilder::build); a relative path starts from the current directory at
    /// that time. Default: the executor's root.
    ///
    /// Where commands work below another directory, a path that a client sees in one place means another
    /// file in the other, or none: [`Files::is_root_of_commands`](crate::Files::is_root_of_commands) tells
    /// servers. Of the servers here, SSH then refuses rsync, a command whose paths are those of files.
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
    /// // Clients reach only what commands have put into one directory.
    /// std::fs::create_dir(root.join("out"))?;
    /// std::fs::write(root.join("out/report"), "fine")?;
    /// let policy = FilePolicy::new().root(root.join("out"));
    /// let engine = Engine::builder(LocalExecutor::new(root)?).files(policy).build()?;
    /// let alice = Caller::new("alice")?.with_all_scopes();
    /// assert_eq!(engine.files().stat(&alice, Path::new("/report")).await?.size, 4);
    /// assert!(!engine.files().is_root_of_commands());
    /// # Ok(())
    /// # }
    /// ```
    pub fn root(mut self, path: impl AsRef<Path>) -> Self {
        self.root = Some(path.as_ref().to_owned());
        self
    }

    /// Hides a part of the tree: for callers it does not exist, by whatever name or link, and
    /// nothing can be made in its place. `path` is below root and need not be there yet; an engine is
    /// not built ([`BuildError::HiddenPath`](crate::engine::BuildError::HiddenPath)) with one that is
    /// not below root, or is root itself. Of what is in a directory, other names (hard links) are known
    /// of what is directly in it, of 4096 files at most. Default: nothing is hidden.
    ///
    /// ```
    /// use std::path::Path;
    /// use splengine_core::files::{FileError, FilePolicy};
    /// use splengine_core::{Caller, Engine, LocalExecutor};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let root = tempfile::tempdir()?;
    /// # let root = root.path();
    /// std::fs::write(root.join("secret"), "hidden")?;
    /// let policy = FilePolicy::new().hide("secret");
    /// let engine = Engine::builder(LocalExecutor::new(root)?).files(policy).build()?;
    /// let alice = Caller::new("alice")?.with_all_scopes();
    /// let found = engine.files().stat(&alice, Path::new("/secret")).await;
    /// assert!(matches!(found, Err(FileError::NotFound { .. })));
    /// # Ok(())
    /// # }
    /// ```
    pub fn hide(mut self, path: impl AsRef<Path>) -> Self {
        self.hidden.push(path.as_ref().to_owned());
        self
    }

    /// Hides a file or a directory of the host, by what it is (its device and inode) and not by its
    /// name: for what the server reads its tokens, keys and configuration from. Unlike in
    /// [`hide`](Self::hide), `path` is one of the host; it may lie outside root, and a relative one
    /// starts from the current directory at the time the engine is built. It need not be there yet. An
    /// engine is not built ([`BuildError::ProtectedPath`](crate::engine::BuildError::ProtectedPath)) with
    /// one that leads to root itself. Default: nothing is protected.
    ///
    /// For callers it does not exist, be it reached by its path, a link, a hard link, a mount, or in
    /// other case. Nothing can be made in its place, and neither a directory on the way to it nor a
    /// link there can be renamed, replaced or removed, nor a directory's permission bits be changed.
    /// A file that takes its place later is hidden, too, and the one before as long as it has a
    /// name. In a directory, all is hidden that is below it.
    ///
    /// Programs that callers run are not bound by this.
    pub fn protect(mut self, path: impl AsRef<Path>) -> Self {
        self.protected.push(path.as_ref().to_owned());
        self
    }

    /// Sets how large a file may become by what callers write, in bytes. Default 1 TiB. What would
    /// make it larger is refused.
    pub fn max_file_size(mut self, bytes: u64) -> Self {
        self.max_file_size = bytes;
        self
    }

    /// Sets the maximum number of files that are open at once to be read, default 256. As many again
    /// may be open to be written, and as many directories to be listed; each is a file descriptor of
    /// this process. The next is refused ([`FileError::Full`]).
    ///
    /// One caller may have as many open as are still free ([`FileError::CallerLimit`]): one alone half
    /// of all, two a third each, so that a caller who has none yet can open one. Besides, one
    /// descriptor is held for a moment for each directory of a path that is being walked: of four paths
    /// at once, two of one caller; further ones wait.
    pub fn max_open(mut self, count: usize) -> Self {
        self.max_open = count;
        self
    }

    /// Sets the maximum number of files that one caller has open to be read, to be written, and of
    /// directories to be listed, each by itself and however many are free. The next is refused
    /// ([`FileError::CallerLimit`]). Default: no bound besides the one of [`max_open`](Self::max_open).
    pub fn max_open_per_caller(mut self, count: usize) -> Self {
        self.max_open_per_caller = count;
        self
    }

    /// Sets the maximum number of directories that are [watched](crate::Files::watch) at once, shared
    /// among callers as [open files](Self::max_open) are. The next is refused: with
    /// [`FileError::CallerLimit`] beyond the caller's share, else with [`FileError::Full`]. Default 64,
    /// since the kernel lets a user have 128 unless configured otherwise.
    pub fn max_watches(mut self, count: usize) -> Self {
        self.max_watches = count;
        self
    }

    /// Sets the maximum number of bytes that the files of one caller hold together. Default: none. What
    /// would make them hold more is refused ([`FileError::OverQuota`]); removing, cutting and renaming
    /// never are.
    ///
    /// A file belongs to the caller who wrote to it last through [`Files`](crate::Files), with all of
    /// its size: a caller who writes to a file of another caller, or of none, takes it over. It counts
    /// with its size in blocks of 4096 bytes, holes included, and one block more; a directory with one
    /// block; until its last name is removed and no process has it open. A file that replaces another
    /// is written beside it first: there must be space for both. Symbolic links count nothing.
    ///
    /// Whose a file is stands in its attribute `user.splengine.owner`. All files below root are counted
    /// when the engine is built, which takes seconds where there are millions, and again before a
    /// caller is refused, though for at most a twentieth of the time. So what programs remove is free
    /// again; what they write by themselves belongs to no caller, and is not bounded. For the counts,
    /// files remain readable and directories usable for the engine's own user, whatever permission bits
    /// callers give them. Below 1024 directories nothing is counted; nor is what the host hides from
    /// the engine's user, of which the log tells.
    ///
    /// An engine is not built ([`BuildError::CallerBytes`](crate::engine::BuildError::CallerBytes)) where
    /// root's file system has no such attributes, nor elsewhere than on Linux. Where another one is mounted below root, nothing can
    /// be written to it without them.
    pub fn max_caller_bytes(mut self, bytes: u64) -> Self {
        self.max_caller_bytes = Some(bytes);
        self
    }

    /// Serves the files that were opened by this policy. Counts what callers' files hold where that is
    /// bounded, which blocks, and may for long.
    pub(crate) fn serve(self, opened: OpenedFiles, reserve: DiskReserve) -> ServedFiles {
        let (policy, OpenedFiles { tree, counted, is_root_of_commands }) = (self, opened);
        let count = |what| OpenCount::new(what, policy.max_open, policy.max_open_per_caller);
        let counted = counted.zip(policy.max_caller_bytes);
        let usage = counted.map(|(root, bytes)| Usage::count(root, bytes));
        ServedFiles {
            tree,
            is_root_of_commands,
            reserve,
            readers: count("files open to be read"),
            writers: count("files open to be written"),
            listings: count("open directories"),
            watches: OpenCount::new("watched directories", policy.max_watches, usize::MAX),
            walks: Walks::new(),
            path_locks: PathLocks::default(),
            max_file_size: policy.max_file_size,
            usage,
        }
    }
}

/// What a directory, a link or an empty file takes of most file systems at most.
const BLOCK_BYTES: u64 = 4096;
