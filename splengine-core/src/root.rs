//! The root, and working directories below it, through a directory capability.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use rustix::fs::fstat;

use crate::execute::{ExecuteError, NOT_A_PATH, OUTSIDE_ROOT};
use crate::os::identity;
use crate::protected::Protected;

/// The directory outside which no working directory and no file may lie.
#[derive(Debug)]
pub(crate) struct Root {
    dir: Dir,
    /// As it was given, and as it is.
    names: [PathBuf; 2],
}

impl Root {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let absolute = std::path::absolute(path)?;
        let canonical = path.canonicalize()?;
        let dir = Dir::open_ambient_dir(&canonical, ambient_authority())?;
        Ok(Self { dir, names: [absolute, canonical] })
    }

    /// As it was given, absolute.
    pub(crate) fn given(&self) -> &Path {
        &self.names[0]
    }

    /// As the kernel names it.
    pub(crate) fn path(&self) -> &Path {
        &self.names[1]
    }

    /// The capability.
    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Whether an absolute path begins with root's own name.
    pub(crate) fn is_own_name(&self, path: &Path) -> bool {
        self.names.iter().any(|name| name.parent().is_some() && path.starts_with(name))
    }

    /// Whether a path of the host begins with one of root's names.
    pub(crate) fn contains(&self, path: &Path) -> bool {
        self.names.iter().any(|name| path.starts_with(name))
    }

    /// Whether a path is one of root's names.
    pub(crate) fn is_named(&self, path: &Path) -> bool {
        self.names.iter().any(|name| path == name)
    }

    /// The directory `workdir` below root, whatever links lie on the way; root itself for `None`.
    /// What is `protected` is not there.
    #[cfg_attr(
        not(any(feature = "local", test)),
        expect(dead_code, reason = "only executors of this host work in directories")
    )]
    pub(crate) fn workdir(
        &self,
        workdir: Option<&str>,
        protected: &Protected,
    ) -> Result<OwnedFd, ExecuteError> {
        let path = Path::new(workdir.unwrap_or_default());
        let below = self.below_root(path);
        let opened = if below.as_os_str().is_empty() {
            self.dir.try_clone()
        } else {
            self.dir.open_dir(below).and_then(|dir| {
                let top = identity(&fstat(&self.dir)?);
                match protected.view().holds_directory(&dir, top) {
                    true => Err(io::ErrorKind::NotFound.into()),
                    false => Ok(dir),
                }
            })
        };
        opened.map(|dir| OwnedFd::from(dir.into_std_file())).map_err(|error| {
            let problem = match error.kind() {
                io::ErrorKind::NotFound => "does not exist below root",
                io::ErrorKind::NotADirectory => "is not a directory",
                io::ErrorKind::PermissionDenied if error.raw_os_error().is_none() => OUTSIDE_ROOT,
                io::ErrorKind::PermissionDenied => "can't be entered",
                io::ErrorKind::InvalidInput | io::ErrorKind::InvalidFilename => NOT_A_PATH,
                _ if error.raw_os_error() == Some(libc::ELOOP) => "has too many links on its way",
                _ => return exhausted_or_internal(error),
            };
            let workdir = workdir.unwrap_or_default().chars().take(200).collect();
            ExecuteError::Workdir { workdir, problem }
        })
    }

    /// An absolute path is taken below root, unless it begins with root's own name.
    pub(crate) fn below_root(&self, path: &Path) -> PathBuf {
        let below = self.names.iter().find_map(|name| path.strip_prefix(name).ok()).unwrap_or(path);
        below.components().filter(|part| *part != Component::RootDir).collect()
    }
}

pub(crate) fn exhausted_or_internal(error: io::Error) -> ExecuteError {
    let passing = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EAGAIN, libc::ENOSPC];
    if error.raw_os_error().is_some_and(|code| passing.contains(&code)) {
        ExecuteError::Exhausted { retry_after: std::time::Duration::from_secs(1), source: error }
    } else {
        ExecuteError::internal(error)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn problem(root: &Root, workdir: &str) -> Option<String> {
        root.workdir(Some(workdir), &Protected::default()).err().map(|error| error.to_string())
    }

    #[test]
    fn nothing_outside_root_is_reached() {
        let base = tempfile::tempdir().expect("a directory");
        let path = base.path().join("root");
        fs::create_dir_all(path.join("data/deep")).expect("made");
        fs::create_dir(base.path().join("outside")).expect("made");
        fs::write(path.join("file"), "").expect("made");
        symlink("../outside", path.join("relative")).expect("made");
        symlink("/etc", path.join("absolute")).expect("made");
        symlink("data", path.join("inside")).expect("made");
        symlink("loop", path.join("loop")).expect("made");
        let root = Root::open(&path).expect("opened");

        for fine in ["", ".", "/", "data", "data/deep/..", "/data", "inside/deep", "./data/"] {
            assert_eq!(problem(&root, fine), None, "{fine}");
        }
        let own_name = path.join("data/deep");
        assert_eq!(problem(&root, own_name.to_str().expect("text")), None);
        for (bad, why) in [
            ("..", "outside root"),
            ("/..", "outside root"),
            ("data/../../outside", "outside root"),
            ("relative", "outside root"),
            ("absolute", "outside root"),
            ("missing", "does not exist"),
            ("file", "is not a directory"),
            ("loop", "too many links"),
            ("a\0b", "is not a path"),
        ] {
            let problem = problem(&root, bad).expect(bad);
            assert!(problem.contains(why), "{bad}: {problem}");
        }
        let outside = base.path().join("outside");
        assert!(problem(&root, outside.to_str().expect("text")).is_some());
    }
}
