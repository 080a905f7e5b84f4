//! Owners of files, which are kept in an attribute, and a walk over all files with an owner.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::str;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, XattrFlags, fsetxattr, getxattr, lgetxattr, openat,
    statat,
};
use rustix::io::Errno;

use crate::files::FileInfo;
use crate::os::{Identity, path_of};
use crate::user_name::UserName;

/// A file or a directory that belongs to a caller.
pub(crate) struct Owned {
    pub(crate) id: Identity,
    pub(crate) owner: UserName,
    /// Of a directory 0.
    pub(crate) size: u64,
}

/// Notes whose an open file is. The permission bits must let its owner on the host write it.
pub(crate) fn set_owner(file: impl AsFd, owner: &UserName) -> rustix::io::Result<()> {
    fsetxattr(file, ATTRIBUTE, owner.as_str().as_bytes(), XattrFlags::empty())
}

/// Whether a directory's file system has such attributes.
pub(crate) fn check_attributes(directory: impl AsFd) -> rustix::io::Result<()> {
    match getxattr(path_of(directory.as_fd()), ATTRIBUTE, &mut [0; MAX_NAME_BYTES]) {
        Err(Errno::NODATA | Errno::RANGE) => Ok(()),
        got => got.map(drop),
    }
}

/// Whose an open file is, be it open as a path only; `None` where nobody is named.
pub(crate) fn owner_of(file: impl AsFd) -> rustix::io::Result<Option<UserName>> {
    owner_at(|name| getxattr(path_of(file.as_fd()), ATTRIBUTE, name))
}

fn owner_at(
    read: impl FnOnce(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Option<UserName>> {
    let mut name = [0; MAX_NAME_BYTES];
    match read(&mut name) {
        Ok(length) => Ok(str::from_utf8(&name[..length]).ok().and_then(|name| name.parse().ok())),
        // Nobody's, or no name; or something that has no attributes of users: a link, a pipe.
        Err(Errno::NODATA | Errno::RANGE | Errno::OPNOTSUPP | Errno::PERM) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Visits all files and directories below `root` that belong to callers, whatever their mounts; of
/// several names of one, one. Returns whether all could be looked at.
///
/// Holds a descriptor for each level, at most [`MAX_LEVELS`]; what is deeper is not visited.
pub(crate) fn visit_owned(root: BorrowedFd<'_>, mut visit: impl FnMut(Owned)) -> bool {
    let mut is_complete = true;
    let mut linked = HashSet::new();
    let Ok(top) = open_directory(root, OsStr::new(".")) else { return false };
    let mut levels = vec![top];
    while let Some(directory) = levels.last_mut() {
        let Some(entry) = directory.read() else {
            levels.pop();
            continue;
        };
        let (Ok(entry), Ok(here)) = (entry, directory.fd()) else {
            is_complete = false;
            levels.pop();
            continue;
        };
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => statat(here, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode)),
            kind => kind,
        };
        if !matches!(kind, FileType::RegularFile | FileType::Directory) {
            continue;
        }
        match look(here, name) {
            Ok(Some((owned, links))) => {
                let is_new = links < 2 || linked.len() >= MAX_LINKED || linked.insert(owned.id);
                if is_new || kind == FileType::Directory {
                    visit(owned);
                }
            }
            Ok(None) | Err(Errno::NOENT) => {}
            Err(_) => is_complete = false,
        }
        if kind == FileType::Directory {
            match open_directory(here, name) {
                Ok(_) if levels.len() >= MAX_LEVELS => is_complete = false,
                Ok(next) => levels.push(next),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(_) => is_complete = false,
            }
        }
    }
    is_complete
}

/// What is known of a name of a file that is somebody's, and how many it has.
fn look(directory: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<Option<(Owned, u64)>> {
    let path = path_of(directory).join(name);
    let Some(owner) = owner_at(|owner| lgetxattr(&path, ATTRIBUTE, owner))? else {
        return Ok(None);
    };
    let info = FileInfo::from(statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?);
    let size = if info.is_directory() { 0 } else { info.size };
    Ok(Some((Owned { id: info.id, owner, size }, info.links)))
}

fn open_directory(directory: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<Dir> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(directory, Path::new(name), flags, Mode::empty()).and_then(Dir::new)
}

const ATTRIBUTE: &str = "user.splengine.owner";
/// As long as a user's name may be.
const MAX_NAME_BYTES: usize = 64;
const MAX_LEVELS: usize = 1024;
/// Of so many files with several names it is remembered that they were visited.
const MAX_LINKED: usize = 65_536;
