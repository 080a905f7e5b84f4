//! Owners of files on systems where no attribute keeps them: there are none, and an engine with a bound on what
//! callers' files hold is not built.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;

use crate::os::Identity;
use crate::user_name::UserName;

/// A file or a directory that belongs to a caller.
pub(crate) struct Owned {
    pub(crate) id: Identity,
    pub(crate) owner: UserName,
    pub(crate) size: u64,
}

pub(crate) fn set_owner(_file: impl AsFd, _owner: &UserName) -> rustix::io::Result<()> {
    Err(Errno::OPNOTSUPP)
}

/// Whether a directory's file system has such attributes.
pub(crate) fn check_attributes(_directory: impl AsFd) -> rustix::io::Result<()> {
    Err(Errno::OPNOTSUPP)
}

pub(crate) fn owner_of(_file: impl AsFd) -> rustix::io::Result<Option<UserName>> {
    Ok(None)
}

/// Visits nothing.
pub(crate) fn visit_owned(_root: BorrowedFd<'_>, _visit: impl FnMut(Owned)) -> bool {
    true
}
