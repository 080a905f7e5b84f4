//! Files that say who may come in: read whole each time, and only if nobody else can have written
//! them, as sshd's StrictModes has it.

use std::fs::{self, File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::error::UsersError;

/// The bytes of a file, whose directory is looked at too: whoever can write that can put another
/// file in its place, unless it is sticky, as `/tmp` is.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, UsersError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    check(parent, &metadata(parent)?, STICKY)?;
    // Before it is opened: opening a pipe would wait for a writer.
    if !metadata(path)?.is_file() {
        return Err(UsersError::NotAFile { path: path.to_owned() });
    }
    let unreadable = |source| UsersError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    check(path, &file.metadata().map_err(unreadable)?, 0)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(UsersError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

/// Whether the names in a directory are its owner's alone. In a sticky one others can make more.
pub(super) fn check_directory(path: &Path) -> Result<(), UsersError> {
    let metadata = metadata(path)?;
    if !metadata.is_dir() {
        return Err(UsersError::NotADirectory { path: path.to_owned() });
    }
    check(path, &metadata, 0)
}

/// With any bit of `excuse` in its mode it may be writable.
fn check(path: &Path, metadata: &Metadata, excuse: u32) -> Result<(), UsersError> {
    let path = || path.to_owned();
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(UsersError::Owner { path: path(), owner });
    }
    if mode & 0o022 != 0 && mode & excuse == 0 {
        return Err(UsersError::Writable { path: path(), mode });
    }
    Ok(())
}

fn metadata(path: &Path) -> Result<Metadata, UsersError> {
    fs::metadata(path).map_err(|source| UsersError::Unreadable { path: path.to_owned(), source })
}

/// In bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Nobody but its owner can move or remove a file in such a directory.
const STICKY: u32 = 0o1000;
