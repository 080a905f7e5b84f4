//! Watches on directories.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io, mem::MaybeUninit};

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::fs::{AtFlags, statat};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, timeout_at};

use crate::blocking::blocking;
use crate::files::coalesce::{MAX_PENDING, Pending, Raw};
use crate::files::open_files::OpenPermit;
use crate::files::{FileError, FileEvent, ServedFiles};
use crate::os::{identity, path_of};
use crate::process::watch;

/// Watch on one directory, on that itself and not on those below it, as by inotify(7) of Linux: it
/// tells changes by every process of this host. Takes one of the inotify instances that the kernel
/// lets this process's user have, until it is dropped.
///
/// Neither what is [hidden](crate::files::FilePolicy::hide) is told of, nor files that
/// [`replace`](crate::Files::replace) is still writing; nor changes of the content of a file whose name
/// is `#` and digits, which is what the kernel calls those that have none. To know the whole directory,
/// watch it first and list it then.
///
/// ```
/// use std::path::Path;
/// use splengine_core::files::{FileEvent, FilePolicy};
/// use splengine_core::{Caller, Engine, LocalExecutor};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let root = tempfile::tempdir()?;
/// # let root = root.path();
/// # let policy = FilePolicy::new();
/// # let engine = Engine::builder(LocalExecutor::new(root)?).files(policy).build()?;
/// # let (files, alice) = (engine.files(), Caller::new("alice")?.with_all_scopes());
/// let mut watch = files.watch(&alice, Path::new("/")).await?;
/// files.make_directory(&alice, Path::new("/reports"), None).await?;
/// let created = FileEvent::Created { name: "reports".into(), is_directory: true };
/// assert_eq!(watch.next().await, Some(created));
/// # Ok(())
/// # }
/// ```
pub struct FileWatch {
    inotify: AsyncFd<OwnedFd>,
    /// Read, and not yet in `pending`.
    raw: Vec<Raw>,
    pending: Pending,
    /// Until when the other half of a rename is waited for.
    half_until: Option<Instant>,
    /// Without a handle of the directory: the kernel tells of its end once nobody has one.
    shared: Arc<ServedFiles>,
    place: PathBuf,
    id: (u64, u64),
    permit: OpenPermit,
}

impl FileWatch {
    /// Maximum number of events that are kept for a slow reader; if more happen, it is told
    /// [`FileEvent::Overflow`] instead.
    pub const MAX_PENDING: usize = MAX_PENDING;

    pub(crate) fn open(
        shared: &Arc<ServedFiles>,
        path: &Path,
        permit: OpenPermit,
    ) -> Result<Self, FileError> {
        let found = shared.tree.find_directory(path)?;
        let refused = |errno| refusal(path, errno);
        let inotify =
            inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(refused)?;
        let directory = found.handle.directory().map_err(refused)?;
        inotify::add_watch(&inotify, path_of(directory), told_of()).map_err(refused)?;
        let inotify = watch(inotify, Interest::READABLE).map_err(|error| {
            Errno::from_io_error(&error).map_or_else(|| FileError::Internal(error), refused)
        })?;
        Ok(Self {
            inotify,
            raw: Vec::new(),
            pending: Pending::default(),
            half_until: None,
            shared: Arc::clone(shared),
            place: found.place,
            id: found.info.id,
            permit,
        })
    }

    /// Waits for the next event; `None` after [`FileEvent::Gone`], or without it should the kernel
    /// fail to tell of more. When a directory above is moved, it goes on.
    ///
    /// The kernel tells of a rename in two halves. If another event comes between them, or the
    /// second is 100 ms late, it is a [`Removed`](FileEvent::Removed) and a
    /// [`Created`](FileEvent::Created).
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, nothing is lost.
    pub async fn next(&mut self) -> Option<FileEvent> {
        let mut reads = 0;
        loop {
            self.sift().await;
            // First all that has happened, so that what happened often is told once; but who
            // changes it without a pause shall not keep it from being told.
            if reads < MAX_READS && !self.pending.is_gone {
                reads += 1;
                match self.read() {
                    Ok(()) => continue,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => {
                        tracing::error!(%error, "a directory can't be watched any more");
                        self.pending.is_gone = true;
                    }
                }
            }
            if let Some(event) = self.pending.pop() {
                return Some(event);
            }
            if self.pending.is_gone || self.more().await.is_err() {
                return None;
            }
            reads = 0;
        }
    }

    /// Until there is something to be read, or a rename's other half is not waited for any longer.
    async fn more(&mut self) -> io::Result<()> {
        consume_budget().await;
        if self.pending.half.is_none() {
            return self.inotify.readable().await.map(drop);
        }
        let until = *self.half_until.get_or_insert_with(|| Instant::now() + PATIENCE);
        if let Ok(ready) = timeout_at(until, self.inotify.readable()).await {
            return ready.map(drop);
        }
        self.half_until = None;
        self.pending.give_up_half();
        Ok(())
    }

    /// Reads some of what the kernel has, without waiting.
    fn read(&mut self) -> io::Result<()> {
        let Self { inotify, raw, .. } = self;
        inotify.try_io(Interest::READABLE, |fd| Ok(read_some(fd.as_fd(), raw)?))
    }

    /// What was read becomes pending, but for what is hidden.
    async fn sift(&mut self) {
        if self.raw.is_empty() {
            return;
        }
        let under_other_names = self.hidden_under_other_names().await;
        self.half_until = None;
        for raw in self.raw.drain(..) {
            let is_hidden = raw.name.as_ref().is_some_and(|name| {
                self.shared.tree.is_hidden(&self.place.join(name))
                    || under_other_names.contains(name)
            });
            self.pending.take(raw, is_hidden);
        }
    }

    /// The names here that something hidden has now besides its own, given by someone who sees it.
    async fn hidden_under_other_names(&self) -> HashSet<OsString> {
        if !self.shared.tree.hides_anything() {
            return HashSet::new();
        }
        let mut names: HashSet<_> = self.raw.iter().filter_map(|raw| raw.name.clone()).collect();
        if names.is_empty() {
            return names;
        }
        let (shared, id) = (Arc::clone(&self.shared), self.id);
        let path = shared.tree.absolute(&self.place);
        let walk = Arc::clone(&shared.walks).enter(self.permit.user()).await;
        blocking(move || {
            let found = shared.tree.find(&path).ok().filter(|found| found.info.id == id);
            let view = shared.tree.view();
            names.retain(|name| {
                let look = |handle| statat(handle, name, AtFlags::SYMLINK_NOFOLLOW).ok();
                let stat =
                    found.as_ref().and_then(|found| found.handle.directory().ok()).and_then(look);
                view.names(id, name) || stat.is_some_and(|stat| view.holds(identity(&stat)))
            });
            drop(walk);
            names
        })
        .await
    }
}

impl fmt::Debug for FileWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileWatch").finish_non_exhaustive()
    }
}

fn read_some(inotify: BorrowedFd<'_>, raw: &mut Vec<Raw>) -> rustix::io::Result<()> {
    let mut buffer = [MaybeUninit::uninit(); READ_BYTES];
    let mut reader = Reader::new(inotify, &mut buffer);
    loop {
        match reader.next() {
            Ok(event) => raw.push(Raw {
                flags: event.events(),
                cookie: event.cookie(),
                name: event.file_name().map(|name| OsString::from_vec(name.to_bytes().to_vec())),
            }),
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error),
        }
        if reader.is_buffer_empty() {
            return Ok(());
        }
    }
}

fn refusal(path: &Path, errno: Errno) -> FileError {
    match errno {
        // So many watches has this user that the kernel lets no more be; the disk is not full.
        Errno::NOSPC => FileError::Exhausted,
        _ => FileError::of_errno(path, errno),
    }
}

fn told_of() -> WatchFlags {
    WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::MOVED_FROM
        | WatchFlags::MOVED_TO
        | WatchFlags::MODIFY
        | WatchFlags::CLOSE_WRITE
        | WatchFlags::ATTRIB
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF
        | WatchFlags::ONLYDIR
        // A removed file that is still open has no name to tell of.
        | WatchFlags::EXCL_UNLINK
}

/// Many events; one takes 272 bytes at most.
const READ_BYTES: usize = 8192;
/// As much as the kernel keeps of one directory by default, 16384 events with short names.
const MAX_READS: u32 = 64;
const PATIENCE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_has_too_many_watches_is_no_full_disk() {
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOSPC, Errno::NOMEM] {
            let error = refusal(Path::new("a"), errno);
            assert_eq!(error.kind(), crate::ErrorKind::Unavailable, "{errno:?}");
            assert!(error.retry_after().is_some(), "{errno:?}");
        }
        assert_eq!(refusal(Path::new("a"), Errno::ACCESS).kind(), crate::ErrorKind::Forbidden);
    }
}
