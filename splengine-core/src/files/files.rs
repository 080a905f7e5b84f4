use std::fmt;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, fstatvfs, mkdirat, symlinkat, unlinkat};
use rustix::io::Errno;

use crate::auth::{Caller, Scope};
use crate::blocking::blocking;
use crate::files::error::shown;
use crate::files::rename::{rename_new, rename_over};
use crate::files::resolve::{names_directory, stays_below};
use crate::files::usage::{Tracked, Usage};
use crate::files::{
    DiskSpace, FileError, FileInfo, FileKind, FileListing, FileWatch, OpenFile, OpenOptions,
    Replaced, ServedFiles, SetAttributes,
};
use crate::os::permissions;

/// The files below root, as a [`Caller`] with [`Scope::Files`] may use them: all but those that are
/// [hidden](crate::files::FilePolicy::hide), as far as the operating system lets this process. Got from
/// [`Engine::files`](crate::Engine::files); cheap to clone.
///
/// A path is bytes, 4096 of them at most, leading through 128 directories and 40 links at most. It
/// begins at root, with a `/` or without; root's own name before it is taken away. Links are
/// followed, unless it says otherwise, as long as they stay below root; absolute ones only where they
/// begin with root's own name.
///
/// ```
/// use std::path::Path;
/// use splengine_core::{Caller, Engine, LocalExecutor};
/// use splengine_core::files::{FilePolicy, OpenOptions};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let root = std::env::temp_dir().join(format!("splengine-doc-files-{}", std::process::id()));
/// # std::fs::create_dir_all(&root)?;
/// let engine = Engine::builder(LocalExecutor::new(&root)?).files(FilePolicy::new()).build()?;
/// let (files, alice) = (engine.files(), Caller::new("alice")?.with_all_scopes());
/// files.replace(&alice, Path::new("/greeting"), &b"hello"[..]).await?;
/// let file = files.open(&alice, Path::new("/greeting"), OpenOptions::new().read()).await?;
/// assert_eq!(file.read_at(1, 100).await?, "ello");
/// # std::fs::remove_dir_all(&root)?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// Every method that takes a caller fails with [`FileError::NoFiles`] where the engine serves none, and
/// with [`FileError::Forbidden`] for a caller without [`Scope::Files`]. One that looks up a path fails
/// with [`FileError::NotFound`], [`FileError::NotDirectory`], [`FileError::Outside`],
/// [`FileError::Denied`], [`FileError::BadPath`] or [`FileError::Impossible`], as each of them says,
/// with [`FileError::Exhausted`] when the host is short of resources, and with [`FileError::Internal`]
/// when the file system fails. One that makes a name fails with [`FileError::NoDirectory`] when the
/// directory that it is to be in does not exist, and one that takes space with [`FileError::NoRoom`],
/// [`FileError::BelowFloor`] or [`FileError::OverQuota`]. The methods name what they return besides.
///
/// # Cancel safety
///
/// Of all methods: what was begun is done even if the future is dropped, unless the method says
/// otherwise.
#[derive(Clone)]
pub struct Files {
    shared: Option<Arc<ServedFiles>>,
}

impl Files {
    pub(crate) fn new(shared: Option<Arc<ServedFiles>>) -> Self {
        Self { shared }
    }

    /// Returns what is [hidden](crate::files::FilePolicy::hide), as paths below root: for servers that
    /// hand a part of the tree to a program that does not know it.
    #[must_use]
    pub fn hidden(&self) -> Vec<PathBuf> {
        self.shared.as_ref().map(|shared| shared.tree.hidden().to_vec()).unwrap_or_default()
    }

    /// Returns whether commands work below the root of these files, so that a relative path means the same
    /// to both: for servers that hand paths to a program. `false` where no files are served, and where the
    /// executor does not tell its [root](crate::Execute::root).
    #[must_use]
    pub fn is_root_of_commands(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.is_root_of_commands)
    }

    /// Converts a host path, as commands see it, to one that the other methods take: an absolute path
    /// must begin with root's own path on the host, a relative one begins in root. For adapters whose
    /// clients see the same paths as commands.
    ///
    /// # Errors
    ///
    /// [`FileError::NoFiles`]; [`FileError::Outside`] for a path that does not begin in root. `..` and
    /// links behind that beginning are checked when the path is used.
    pub fn from_host(&self, path: &Path) -> Result<PathBuf, FileError> {
        let shared = self.shared.as_ref().ok_or(FileError::NoFiles)?;
        shared.tree.host_path(path).ok_or_else(|| FileError::Outside { path: shown(path) })
    }

    /// Returns where on the host a path is that a method gave: the inverse of
    /// [`from_host`](Self::from_host). Relative ones, such as those of links, stay as they are.
    #[must_use]
    pub fn to_host(&self, path: PathBuf) -> PathBuf {
        match &self.shared {
            Some(shared) if path.is_absolute() => shared.tree.on_host(&path),
            _ => path,
        }
    }

    /// Returns `path` of the host, without `.` and `..`, if it is a directory on the way to root: all
    /// that callers may know of it is that it exists.
    #[must_use]
    pub fn above_root(&self, path: &Path) -> Option<PathBuf> {
        self.shared.as_ref()?.tree.above_root(path)
    }

    /// Returns whether `path` leads to something that is hidden, as far as it leads anywhere: for
    /// adapters that hand it to a program. Takes no scope, and is false where no files are served.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn is_hidden(&self, path: &Path) -> bool {
        let Some(shared) = self.shared.clone() else { return false };
        let path = path.to_owned();
        blocking(move || shared.tree.leads_to_hidden(&path)).await
    }

    /// Returns what is known of what `path` leads to.
    ///
    /// ```
    /// use std::path::Path;
    /// use splengine_core::files::{FileError, FileKind, FilePolicy};
    /// use splengine_core::{Caller, Engine, LocalExecutor};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let root = tempfile::tempdir()?;
    /// # let root = root.path();
    /// # let policy = FilePolicy::new();
    /// # let engine = Engine::builder(LocalExecutor::new(root)?).files(policy).build()?;
    /// # let (files, alice) = (engine.files(), Caller::new("alice")?.with_all_scopes());
    /// files.replace(&alice, Path::new("/greeting"), &b"hello"[..]).await?;
    /// let info = files.stat(&alice, Path::new("/greeting")).await?;
    /// assert_eq!((info.kind, info.size), (FileKind::File, 5));
    /// let missing = files.stat(&alice, Path::new("/nothing")).await;
    /// assert!(matches!(missing, Err(FileError::NotFound { .. })));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [all methods](Files#errors).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn stat(&self, caller: &Caller, path: &Path) -> Result<FileInfo, FileError> {
        self.with(caller, path, |shared, path| Ok(shared.tree.find(path)?.info)).await
    }

    /// Returns what is known of what `path` names; if that is a link, of the link.
    ///
    /// # Errors
    ///
    /// As [all methods](Files#errors).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn stat_link(&self, caller: &Caller, path: &Path) -> Result<FileInfo, FileError> {
        self.with(caller, path, |shared, path| Ok(shared.tree.find_itself(path)?.info)).await
    }

    /// Opens a regular file. Nothing else is opened, so that no call waits for the other end of a pipe.
    ///
    /// # Errors
    ///
    /// As [all methods](Files#errors); [`FileError::IsDirectory`]; [`FileError::Malformed`] for options
    /// that contradict each other; [`FileError::Exists`] when a file that is to be
    /// [new](OpenOptions::create_new) has a name that is taken; [`FileError::Busy`] for a program that
    /// runs; [`FileError::CallerLimit`] and [`FileError::Full`] when too many files are open.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the file may have been made or emptied.
    pub async fn open(
        &self,
        caller: &Caller,
        path: &Path,
        options: OpenOptions,
    ) -> Result<OpenFile, FileError> {
        let shared = self.shared(caller)?;
        let count = if options.writes() { &shared.writers } else { &shared.readers };
        let permit = count.permit(caller.user())?;
        self.with(caller, path, move |shared, path| OpenFile::open(shared, path, &options, permit))
            .await
    }

    /// Opens a directory to read what is in it.
    ///
    /// # Errors
    ///
    /// As [all methods](Files#errors); [`FileError::CallerLimit`] and [`FileError::Full`] when too many
    /// directories are open.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the directory is closed again.
    pub async fn list(&self, caller: &Caller, path: &Path) -> Result<FileListing, FileError> {
        let permit = self.shared(caller)?.listings.permit(caller.user())?;
        self.with(caller, path, move |shared, path| FileListing::open(shared, path, permit)).await
    }

    /// Watches a directory, from now on: what changes in that itself, not in those below it.
    ///
    /// # Errors
    ///
    /// As [all methods](Files#errors); [`FileError::CallerLimit`] and [`FileError::Full`] when too many
    /// directories are watched; [`FileError::Exhausted`] when this process's user watches as much as
    /// the kernel lets it. Elsewhere than on Linux [`FileError::Impossible`].
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, nothing is watched.
    pub async fn watch(&self, caller: &Caller, path: &Path) -> Result<FileWatch, FileError> {
        let permit = self.shared(caller)?.watches.permit(caller.user())?;
        self.with(caller, path, move |shared, path| FileWatch::open(shared, path, permit)).await
    }

    /// Makes a directory. Of `mode` only the bits of `0o777` are taken, and of those what this
    /// process's umask leaves; `None` is `0o777`.
    ///
    /// # Errors
    ///
    /// As [all methods](Files#errors); [`FileError::Exists`] when something has that name.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the directory may have been made or not.
    pub async fn make_directory(
        &self,
        caller: &Caller,
        path: &Path,
        mode: Option<u32>,
    ) -> Result<(), FileError> {
        let user = caller.user().clone();
        self.with(caller, path, move |shared, path| {
            let entry = shared.tree.new_entry(path)?;
            shared.check_room(&entry, path)?;
            let mode = shared.kept_mode(permissions(mode.unwrap_or(0o777)), true);
            mkdirat(&entry.directory, &entry.name, mode).map_err(FileError::of(path))?;
            let claimed = shared.claim_directory(&entry, &user, path);
            if claimed.is_err() {
                let _ = unlinkat(&entry.directory, &entry.name, AtFlags::REMOVEDIR);
            }
            claimed
        })
        .await
    }

    /// Removes a file, or whatever else has that name and is no directory; of a link, the link.
    ///
    /// # Errors
    ///
    /// As [all methods](Files#errors).
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the file may be there or not.
    pub async fn remove_file(&self, caller: &Caller, path: &Path) -> Result<(), FileError> {
        self.remove_file_if(caller, path, |_| true).await
    }

    /// Removes a file as [`remove_file`](Self::remove_file) does, if `condition` is true of what
    /// has the name.
    ///
    /// # Errors
    ///
    /// As [all methods](Files#errors); [`FileError::Changed`] when the condition is not true.
    ///
    /// # Cancel safety
    ///
    /// As of [`remove_file`](Self::remove_file).
    pub async fn remove_file_if(
        &self,
        caller: &Caller,
        path: &Path,
        condition: impl FnOnce(&FileInfo) -> bool + Send + 'static,
    ) -> Result<(), FileError> {
        self.with(caller, path, move |shared, path| {
            let entry = shared.tree.movable_entry(path)?;
            let _locked = shared.path_locks.lock(&entry.place);
            let info = entry.look().map_err(FileError::of(path))?;
            if !condition(&info.ok_or_else(|| FileError::not_found(path))?) {
                return Err(FileError::Changed { path: shown(path) });
            }
            let _removed = Tracked::of_name(shared.usage.as_ref(), &entry, path)?;
            unlinkat(&entry.directory, &entry.name, AtFlags::empty()).map_err(FileError::of(path))
        })
        .await
    }

    /// Removes a directory that is empty.
    ///
    /// # Errors
    ///
    /// As [all methods](Files#errors); [`FileError::NotEmpty`] when the directory holds something,
    /// [`FileError::Denied`] when that is hidden, or something hidden is to be below it;
    /// [`FileError::Busy`] for a mount point.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the directory may be there or not.
    pub async fn remove_directory(&self, caller: &Caller, path: &Path) -> Result<(), FileError> {
        self.with(caller, path, move |shared, path| {
            let entry = shared.tree.movable_entry(path)?;
            let _removed = Tracked::of_name(shared.usage.as_ref(), &entry, path)?;
            unlinkat(&entry.directory, &entry.name, AtFlags::REMOVEDIR).map_err(FileError::of(path))
        })
        .await
    }

    /// Gives something another name, in one step; of a link, the link. With `replace` it takes the
    /// place of a file, or of an empty directory if it is one itself.
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
    /// # let policy = FilePolicy::new();
    /// # let engine = Engine::builder(LocalExecutor::new(root)?).files(policy).build()?;
    /// # let (files, alice) = (engine.files(), Caller::new("alice")?.with_all_scopes());
    /// let (draft, report) = (Path::new("/draft"), Path::new("/report"));
    /// files.replace(&alice, draft, &b"new"[..]).await?;
    /// files.replace(&alice, report, &b"old"[..]).await?;
    /// let refused = files.rename(&alice, draft, report, false).await;
    /// assert!(matches!(refused, Err(FileError::Exists { .. })));
    /// files.rename(&alice, draft, report, true).await?;
    /// assert_eq!(files.stat(&alice, report).await?.size, 3);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [all methods](Files#errors); [`FileError::Exists`] when something has the new name and
    /// `replace` is false; [`FileError::IsDirectory`], [`FileError::NotDirectory`] or
    /// [`FileError::NotEmpty`] when what has it can't be replaced; [`FileError::Busy`]. Few file
    /// systems can't check the new name in the same step; there it may replace what is made at the same
    /// moment.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, it has the old name or the new one.
    pub async fn rename(
        &self,
        caller: &Caller,
        from: &Path,
        to: &Path,
        replace: bool,
    ) -> Result<(), FileError> {
        self.rename_if(caller, from, to, replace, |_| true).await.map(drop)
    }

    /// Renames as [`rename`](Self::rename) does, if `condition` is true of what is to get the other
    /// name.
    ///
    /// # Errors
    ///
    /// As [`rename`](Self::rename); [`FileError::Changed`] when the condition is not true.
    ///
    /// # Cancel safety
    ///
    /// As of [`rename`](Self::rename).
    pub async fn rename_if(
        &self,
        caller: &Caller,
        from: &Path,
        to: &Path,
        replace: bool,
        condition: impl FnOnce(&FileInfo) -> bool + Send + 'static,
    ) -> Result<Replaced, FileError> {
        let to = to.to_owned();
        self.with(caller, from, move |shared, from| {
            let old = shared.tree.movable_entry(from)?;
            let new = shared.tree.new_entry(&to)?;
            shared.tree.check_movable(&new, &to)?;
            let _locked = shared.path_locks.lock_both(&old.place, &new.place);
            let info = old.look().map_err(FileError::of(from))?;
            let info = info.ok_or_else(|| FileError::not_found(from))?;
            for path in [from, &to] {
                if names_directory(path) && !info.is_directory() {
                    return Err(FileError::NotDirectory { path: shown(path) });
                }
            }
            if !condition(&info) {
                return Err(FileError::Changed { path: shown(from) });
            }
            let is_new = new.look().map_err(FileError::of(&to))?.is_none();
            let usage = shared.usage.as_ref();
            let _moved = Tracked::of_name(usage, &old, from)?;
            let _replaced = Tracked::of_name(usage, &new, &to)?;
            let _moving = usage.filter(|_| info.is_directory()).map(Usage::moving);
            let (at, to_be) = (old.at(), new.at());
            let renamed = if replace { rename_over(at, to_be) } else { rename_new(at, to_be) };
            renamed.map_err(|error| match error {
                Errno::EXIST | Errno::NOTEMPTY | Errno::ISDIR | Errno::NOTDIR => {
                    FileError::of_errno(&to, error)
                }
                Errno::INVAL => FileError::impossible(from, "can't be moved into itself"),
                _ => FileError::of_errno(from, error),
            })?;
            let info = new.look().map_err(FileError::of(&to))?.unwrap_or(info);
            Ok(Replaced { info, is_new })
        })
        .await
    }

    /// Returns where `path` is, without a link on the way: absolute, below root. Its last name need
    /// not be there yet.
    ///
    /// # Errors
    ///
    /// As [all methods](Files#errors).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn canonical(&self, caller: &Caller, path: &Path) -> Result<PathBuf, FileError> {
        self.with(caller, path, |shared, path| {
            let place = match shared.tree.find(path) {
                Ok(found) => found.place,
                Err(FileError::NotFound { .. }) => shared.tree.entry(path)?.place,
                Err(error) => return Err(error),
            };
            Ok(shared.tree.absolute(&place))
        })
        .await
    }

    /// Returns where a link leads, as it was written.
    ///
    /// # Errors
    ///
    /// As [all methods](Files#errors); [`FileError::Outside`] when the target is not below root.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn read_link(&self, caller: &Caller, path: &Path) -> Result<PathBuf, FileError> {
        self.with(caller, path, |shared, path| {
            let found = shared.tree.find_itself(path)?;
            if found.info.kind != FileKind::Link {
                return Err(FileError::impossible(path, "is not a link"));
            }
            let target = found.handle.link_target().map_err(FileError::of(path))?;
            let below = if target.is_absolute() {
                shared.tree.target(&target)
            } else {
                stays_below(&found.place, &target).then_some(target)
            };
            below.ok_or_else(|| FileError::Outside { path: shown(path) })
        })
        .await
    }

    /// Makes a link at `path` that leads to `target`, which need not be there. It is meant from the
    /// directory that the link is in, or is absolute and begins with root's own name.
    ///
    /// # Errors
    ///
    /// As [all methods](Files#errors); [`FileError::Outside`] for a target that leaves root.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the link may have been made or not.
    pub async fn symlink(
        &self,
        caller: &Caller,
        target: &Path,
        path: &Path,
    ) -> Result<(), FileError> {
        let target = target.to_owned();
        self.with(caller, path, move |shared, path| {
            let entry = shared.tree.new_entry(path)?;
            if target.as_os_str().is_empty() {
                return Err(FileError::bad_path(
                    &target,
                    "is empty, which no link's target can be",
                ));
            }
            shared.tree.check(&target)?;
            let is_below = if target.is_absolute() {
                shared.tree.is_target(&target)
            } else {
                stays_below(&entry.place, &target)
            };
            if !is_below {
                return Err(FileError::Outside { path: shown(&target) });
            }
            shared.check_room(&entry, path)?;
            symlinkat(&target, &entry.directory, &entry.name).map_err(FileError::of(path))
        })
        .await
    }

    /// Gives a regular file another name beside its own, `to`; of a link, what it leads to.
    ///
    /// # Errors
    ///
    /// As [all methods](Files#errors); [`FileError::Exists`] when something has the name `to`;
    /// [`FileError::Impossible`] for what is no regular file, and where
    /// [`FilePolicy::max_caller_bytes`](crate::files::FilePolicy::max_caller_bytes) is set, since the
    /// file's owner could not be told.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the second name may have been given or not.
    pub async fn hard_link(
        &self,
        caller: &Caller,
        path: &Path,
        to: &Path,
    ) -> Result<(), FileError> {
        let to = to.to_owned();
        self.with(caller, path, move |shared, path| {
            let found = shared.tree.find(path)?;
            if found.info.kind != FileKind::File {
                return Err(FileError::impossible(path, "is not a file"));
            }
            if shared.usage.is_some() {
                let problem = "can't have a second name: what callers' files hold is bounded here";
                return Err(FileError::impossible(path, problem));
            }
            let entry = shared.tree.new_entry(&to)?;
            shared.check_room(&entry, &to)?;
            // Its very self, whatever has its name by now.
            let linked = found.handle.link(entry.directory.as_fd(), &entry.name);
            linked.map_err(FileError::of(&to))
        })
        .await
    }

    /// Changes attributes of what `path` leads to.
    ///
    /// # Errors
    ///
    /// As [all methods](Files#errors); [`FileError::IsDirectory`] for the size of a directory;
    /// [`FileError::TooLarge`]. Then a part of the changes may have been made.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, all of the changes may be made or none; an error leaves a part of
    /// them in any case.
    pub async fn set(
        &self,
        caller: &Caller,
        path: &Path,
        changes: SetAttributes,
    ) -> Result<(), FileError> {
        let user = caller.user().clone();
        self.with(caller, path, move |shared, path| {
            let found = shared.tree.find(path)?;
            changes.apply(shared, &found, &user, path)
        })
        .await
    }

    /// Changes attributes of what `path` names; if that is a link, of the link, of which only the times
    /// can be changed.
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set).
    ///
    /// # Cancel safety
    ///
    /// As of [`set`](Self::set).
    pub async fn set_link(
        &self,
        caller: &Caller,
        path: &Path,
        changes: SetAttributes,
    ) -> Result<(), FileError> {
        let user = caller.user().clone();
        self.with(caller, path, move |shared, path| {
            let found = shared.tree.find_itself(path)?;
            if found.info.kind == FileKind::Link {
                return changes.apply_to_link(&shared.tree.old_entry(path)?, path);
            }
            changes.apply(shared, &found, &user, path)
        })
        .await
    }

    /// Returns the free space of the file system that `path` leads to.
    ///
    /// # Errors
    ///
    /// As [all methods](Files#errors).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn space(&self, caller: &Caller, path: &Path) -> Result<DiskSpace, FileError> {
        self.with(caller, path, |shared, path| {
            let found = shared.tree.find(path)?;
            Ok(fstatvfs(found.handle.on_file_system()).map_err(FileError::of(path))?.into())
        })
        .await
    }

    pub(crate) async fn with<T: Send + 'static>(
        &self,
        caller: &Caller,
        path: &Path,
        work: impl FnOnce(&Arc<ServedFiles>, &Path) -> Result<T, FileError> + Send + 'static,
    ) -> Result<T, FileError> {
        let shared = Arc::clone(self.shared(caller)?);
        let path = path.to_owned();
        let walk = Arc::clone(&shared.walks).enter(caller.user()).await;
        blocking(move || {
            let done = work(&shared, &path);
            drop(walk);
            done
        })
        .await
    }

    /// Refuses a caller who may not use files, or a file of `size` bytes, which is larger than a file
    /// may be: for adapters, before they read the body of a request.
    ///
    /// # Errors
    ///
    /// [`FileError::Forbidden`], [`FileError::NoFiles`], [`FileError::TooLarge`].
    pub fn check_write(&self, caller: &Caller, path: &Path, size: u64) -> Result<(), FileError> {
        let limit = self.shared(caller)?.max_file_size;
        if size > limit {
            return Err(FileError::TooLarge { path: shown(path), limit });
        }
        Ok(())
    }

    pub(crate) fn shared(&self, caller: &Caller) -> Result<&Arc<ServedFiles>, FileError> {
        let shared = self.shared.as_ref().ok_or(FileError::NoFiles)?;
        if caller.may(Scope::Files) {
            return Ok(shared);
        }
        Err(FileError::Forbidden(match caller.guest() {
            Some(_) => "a guest may use the session shared with them only",
            None => "this takes the scope `files`",
        }))
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files").finish_non_exhaustive()
    }
}
