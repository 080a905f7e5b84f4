//! Names that are given and taken.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{AtFlags, FileType, linkat, renameat, statat, unlinkat};
#[cfg(any(target_os = "linux", target_vendor = "apple"))]
use rustix::fs::{RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::files::resolve::Entry;

/// A name in a directory.
#[derive(Clone, Copy)]
pub(crate) struct NameIn<'a>(pub(crate) BorrowedFd<'a>, pub(crate) &'a OsStr);

impl Entry {
    pub(crate) fn at(&self) -> NameIn<'_> {
        NameIn(self.directory.as_fd(), &self.name)
    }
}

pub(crate) fn rename_over(old: NameIn<'_>, new: NameIn<'_>) -> rustix::io::Result<()> {
    renameat(old.0, old.1, new.0, new.1)
}

#[cfg(any(target_os = "linux", target_vendor = "apple"))]
pub(crate) fn rename_new(old: NameIn<'_>, new: NameIn<'_>) -> rustix::io::Result<()> {
    match renameat_with(old.0, old.1, new.0, new.1, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => rename_new_in_steps(old, new),
        renamed => renamed,
    }
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
pub(crate) fn rename_new(old: NameIn<'_>, new: NameIn<'_>) -> rustix::io::Result<()> {
    rename_new_in_steps(old, new)
}

/// For systems and file systems without `RENAME_NOREPLACE`: a second name, which never replaces anything, and
/// then the first one's removal; where there are no second names, a look before.
fn rename_new_in_steps(old: NameIn<'_>, new: NameIn<'_>) -> rustix::io::Result<()> {
    let stat = statat(old.0, old.1, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        match linkat(old.0, old.1, new.0, new.1, AtFlags::empty()) {
            Ok(()) => return unlinkat(old.0, old.1, AtFlags::empty()),
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => {}
            Err(error) => return Err(error),
        }
    }
    match statat(new.0, new.1, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Err(Errno::EXIST),
        Err(Errno::NOENT) => rename_over(old, new),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::files::resolve::Tree;
    use crate::root::Root;

    #[test]
    fn without_help_of_the_file_system_a_new_name_replaces_nothing() {
        let root = tempfile::tempdir().expect("a directory");
        for file in ["a", "b"] {
            fs::write(root.path().join(file), file).expect("written");
            fs::create_dir(root.path().join(format!("{file}-directory"))).expect("made");
        }
        let tree = Tree::new(Root::open(root.path()).expect("opened")).expect("a root");
        let entry = |name: &str| tree.entry(Path::new(name)).expect("a name");
        let rename = |from, to| rename_new_in_steps(entry(from).at(), entry(to).at());

        for from in ["a", "a-directory"] {
            for to in ["b", "b-directory"] {
                assert_eq!(rename(from, to), Err(Errno::EXIST), "{from} {to}");
            }
            assert_eq!(rename(from, "new"), Ok(()), "{from}");
            assert_eq!(rename(from, "newer"), Err(Errno::NOENT), "{from}");
            assert_eq!(rename("new", from), Ok(()), "{from}");
        }
        assert_eq!(fs::read_dir(root.path()).expect("read").count(), 4);
    }
}
