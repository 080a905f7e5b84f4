//! The file of a UNIX socket: made with its permissions, in place of one that nobody listens on, and
//! removed at the end.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, connect, listen};

/// A socket's file, removed when this is dropped, unless another has taken its place.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    id: (u64, u64),
}

impl SocketFile {
    /// Listens at `path`.
    pub(crate) fn bind(path: PathBuf, mode: u32) -> io::Result<(UnixListener, Self)> {
        // Of several that find a file that nobody listens on, one removes it.
        let _lock = lock_directory(&path)?;
        remove_stale(&path)?;
        let socket = socket()?;
        bind(&socket, &SocketAddrUnix::new(&path)?)?;
        let made = fs::symlink_metadata(&path)?;
        let file = Self { path, id: (made.dev(), made.ino()) };
        // Nobody can connect before it listens.
        fs::set_permissions(&file.path, Permissions::from_mode(mode & 0o777))?;
        listen(&socket, BACKLOG)?;
        Ok((UnixListener::from(socket), file))
    }
}

/// Removes a socket that nobody listens on.
fn remove_stale(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let taken = |what| Err(io::Error::new(io::ErrorKind::AddrInUse, what));
    if !found.file_type().is_socket() {
        return taken("there is a file that is no socket");
    }
    for _ in 0..CONNECT_ATTEMPTS {
        match connect(socket()?, &SocketAddrUnix::new(path)?) {
            // So many wait to be accepted.
            Ok(()) | Err(Errno::AGAIN) => return taken("somebody listens there"),
            Err(Errno::CONNREFUSED) => {}
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        sleep(CONNECT_INTERVAL);
    }
    fs::remove_file(path)
}

#[cfg(not(target_vendor = "apple"))]
fn socket() -> rustix::io::Result<OwnedFd> {
    use rustix::net::{SocketFlags, socket_with};

    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// In three steps, since no flags say it: a child that is started meanwhile inherits the socket.
#[cfg(target_vendor = "apple")]
fn socket() -> rustix::io::Result<OwnedFd> {
    use rustix::io::{FdFlags, fcntl_setfd, ioctl_fionbio};

    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    ioctl_fionbio(&socket, true)?;
    Ok(socket)
}

/// Locks the directory of `path` against others who do the same; without a lock where it may not be read.
fn lock_directory(path: &Path) -> io::Result<Option<OwnedFd>> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let Ok(directory) = File::open(directory.unwrap_or(Path::new("."))) else { return Ok(None) };
    for _ in 0..LOCK_ATTEMPTS {
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(directory.into())),
            Err(Errno::WOULDBLOCK | Errno::INTR) => sleep(LOCK_INTERVAL),
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::new(io::ErrorKind::WouldBlock, "the directory is locked by another process"))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let found = fs::symlink_metadata(&self.path);
        if found.is_ok_and(|found| (found.dev(), found.ino()) == self.id) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

const BACKLOG: i32 = 1024;
/// How often a socket must refuse before nobody counts as listening there. Elsewhere than on Linux one refuses as well
/// while so many wait to be accepted.
const CONNECT_ATTEMPTS: u32 = if cfg!(target_os = "linux") { 1 } else { 20 };
const CONNECT_INTERVAL: Duration =
    if cfg!(target_os = "linux") { Duration::ZERO } else { Duration::from_millis(50) };
/// How often a directory is tried to be locked: for 5 s, with [`LOCK_INTERVAL`] between.
const LOCK_ATTEMPTS: u32 = 250;
const LOCK_INTERVAL: Duration = Duration::from_millis(20);
