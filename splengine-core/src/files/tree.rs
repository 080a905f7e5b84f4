//! Finding what a path names: below root, and nothing that is hidden.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstat, open, openat, readlinkat, statat};
use rustix::io::Errno;

use crate::files::error::shown;
use crate::files::replace::is_temporary;
use crate::files::{FileError, FileInfo, FileKind};
use crate::local::Root;

/// What lies below root. Each step of a path is taken with a handle of the directory before it, and
/// links are read and followed here, step by step: the kernel's own confined walk (openat2) knows
/// nothing of what is hidden, so that `hidden/x/../..` would tell whether `x` is there.
#[derive(Debug)]
pub(crate) struct Tree {
    root: Root,
    /// Below root.
    hidden: Vec<PathBuf>,
    /// The same directories under whatever name, as mounts give them.
    hidden_ids: Vec<(u64, u64)>,
}

/// Something that is there.
#[derive(Debug)]
pub(crate) struct Found {
    /// Names it, and gives no right to its content (`O_PATH`).
    pub(crate) handle: OwnedFd,
    pub(crate) info: FileInfo,
    /// Where it is below root, without a link on the way.
    pub(crate) place: PathBuf,
}

/// A name in a directory, whether something has it or not.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) directory: OwnedFd,
    pub(crate) name: OsString,
    pub(crate) place: PathBuf,
}

impl Entry {
    /// What has the name, if anything has; if that is a link, the link.
    pub(crate) fn look(&self) -> rustix::io::Result<Option<FileInfo>> {
        match statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat.into())),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether the last name of a path, if it is a link, is followed as those before it are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Followed,
    Itself,
}

impl Tree {
    pub(crate) fn new(root: Root) -> Self {
        Self { root, hidden: Vec::new(), hidden_ids: Vec::new() }
    }

    /// Hides what `path` names, and what it leads to; it need not be there yet.
    pub(crate) fn hide(&mut self, path: &Path) -> Result<(), FileError> {
        let steps = self.steps(path)?;
        let is_name = |step: &OsString| step != "..";
        if steps.is_empty() || !steps.iter().all(is_name) {
            return Err(FileError::bad_path(path, "must be below root, and hold no `..`"));
        }
        let written: PathBuf = steps.iter().collect();
        // As much of it as is there, by whatever links, and the rest.
        let led_to = written.ancestors().find_map(|there| {
            let found = self.find(there).ok()?;
            Some((found, written.strip_prefix(there).ok()?.to_owned()))
        });
        if let Some((found, rest)) = led_to {
            let is_whole = rest.as_os_str().is_empty();
            self.hidden_ids.extend((is_whole && found.is_directory()).then_some(found.info.id));
            self.hidden.push(if is_whole { found.place } else { found.place.join(rest) });
        }
        self.hidden.push(written);
        self.hidden.dedup();
        Ok(())
    }

    /// What `path` leads to.
    pub(crate) fn find(&self, path: &Path) -> Result<Found, FileError> {
        let found = self.walk(path, self.steps(path)?, Last::Followed)?;
        if names_directory(path) && !found.is_directory() {
            return Err(FileError::NotDirectory { path: shown(path) });
        }
        Ok(found)
    }

    /// The directory that `path` leads to.
    pub(crate) fn find_directory(&self, path: &Path) -> Result<Found, FileError> {
        let found = self.find(path)?;
        if found.is_directory() {
            return Ok(found);
        }
        Err(FileError::NotDirectory { path: shown(path) })
    }

    /// What `path` names, if that is a link the link itself.
    pub(crate) fn find_itself(&self, path: &Path) -> Result<Found, FileError> {
        self.walk(path, self.steps(path)?, Last::Itself)
    }

    /// A name that is there, or is to be. Its directory must be.
    pub(crate) fn entry(&self, path: &Path) -> Result<Entry, FileError> {
        let mut steps = self.steps(path)?;
        let name = steps.pop_back().filter(|name| name != "..");
        let name = name.ok_or_else(|| FileError::bad_path(path, "does not end in a name"))?;
        let directory = self.walk(path, steps, Last::Followed)?;
        if !directory.is_directory() {
            return Err(FileError::NotDirectory { path: shown(path) });
        }
        if directory.place.components().count() >= MOST_STEPS {
            return Err(FileError::impossible(path, TOO_DEEP));
        }
        let place = directory.place.join(&name);
        Ok(Entry { directory: directory.handle, name, place })
    }

    /// As [`entry`](Self::entry), for a name that something has.
    pub(crate) fn old_entry(&self, path: &Path) -> Result<Entry, FileError> {
        let entry = self.entry(path)?;
        if self.is_hidden(&entry.place) { Err(FileError::not_found(path)) } else { Ok(entry) }
    }

    /// As [`entry`](Self::entry), for a name that is to be given.
    pub(crate) fn new_entry(&self, path: &Path) -> Result<Entry, FileError> {
        let entry = self.entry(path).map_err(|error| match error {
            FileError::NotFound { path } => FileError::NoDirectory { path },
            error => error,
        })?;
        if self.is_hidden(&entry.place) {
            return Err(FileError::Denied { path: shown(path) });
        }
        Ok(entry)
    }

    pub(crate) fn hidden(&self) -> &[PathBuf] {
        &self.hidden
    }

    /// Whether nobody is told of it: it was hidden, or is a file in the making.
    pub(crate) fn is_hidden(&self, place: &Path) -> bool {
        self.hidden.iter().any(|hidden| place.starts_with(hidden))
            || place.file_name().is_some_and(is_temporary)
    }

    /// Whether it is a hidden directory under another name.
    pub(crate) fn is_hidden_id(&self, info: &FileInfo) -> bool {
        self.hidden_ids.contains(&info.id)
    }

    /// Whether something hidden is below it, or would be.
    pub(crate) fn holds_hidden(&self, place: &Path) -> bool {
        self.hidden.iter().any(|hidden| hidden.starts_with(place))
    }

    /// Where `place` is for a client: an absolute path that leads there again.
    pub(crate) fn absolute(&self, place: &Path) -> PathBuf {
        let absolute = Path::new("/").join(place);
        if self.root.is_own_name(&absolute) { self.root.path().join(place) } else { absolute }
    }

    /// Where an absolute target of a link is for a client; `None` outside root.
    pub(crate) fn target(&self, target: &Path) -> Option<PathBuf> {
        let below = self.root.is_own_name(target).then(|| self.root.below_root(target))?;
        Some(self.absolute(&below))
    }

    /// The names of a path, `..` among them, from root.
    fn steps(&self, path: &Path) -> Result<VecDeque<OsString>, FileError> {
        self.check(path)?;
        Ok(steps_of(&self.root.below_root(path)))
    }

    /// Whether it is a path at all.
    pub(crate) fn check(&self, path: &Path) -> Result<(), FileError> {
        let length = path.as_os_str().len();
        if length > LONGEST_PATH {
            return Err(FileError::bad_path(path, "is longer than 4096 bytes"));
        }
        if path.as_os_str().as_bytes().contains(&0) {
            return Err(FileError::bad_path(path, "holds a NUL byte"));
        }
        Ok(())
    }

    fn walk(
        &self,
        path: &Path,
        mut steps: VecDeque<OsString>,
        last: Last,
    ) -> Result<Found, FileError> {
        let mut way: Vec<(OwnedFd, OsString, FileInfo)> = Vec::new();
        let mut links = 0;
        while let Some(step) = steps.pop_front() {
            let here = way.last().map_or(self.root.directory(), |(handle, ..)| handle.as_fd());
            if step == ".." {
                if way.pop().is_none() {
                    return Err(FileError::Outside { path: shown(path) });
                }
                continue;
            }
            let handle = look(here, &step).map_err(FileError::of(path))?;
            let info: FileInfo = fstat(&handle).map_err(FileError::of(path))?.into();
            if self.is_hidden_id(&info) || self.is_hidden(&place_of(&way).join(&step)) {
                return Err(FileError::not_found(path));
            }
            let is_last = steps.is_empty();
            if info.kind == FileKind::Link && !(is_last && last == Last::Itself) {
                links += 1;
                if links > MOST_LINKS {
                    return Err(FileError::impossible(path, "has too many links on its way"));
                }
                let target = link_target(&handle).map_err(FileError::of(path))?;
                let target = if !target.is_absolute() {
                    target
                } else if self.root.is_own_name(&target) {
                    way.clear();
                    self.root.below_root(&target)
                } else {
                    return Err(FileError::Outside { path: shown(path) });
                };
                for step in steps_of(&target).into_iter().rev() {
                    steps.push_front(step);
                }
                if steps.len() + way.len() > MOST_STEPS {
                    return Err(FileError::impossible(path, TOO_DEEP));
                }
                continue;
            }
            if !is_last && !info.is_directory() {
                return Err(FileError::NotDirectory { path: shown(path) });
            }
            if way.len() >= MOST_STEPS {
                return Err(FileError::impossible(path, TOO_DEEP));
            }
            way.push((handle, step, info));
        }
        let place = place_of(&way);
        let (handle, info) = match way.pop() {
            Some((handle, _, info)) => (handle, info),
            None => {
                let root = self.root.directory();
                let handle = root.try_clone_to_owned().map_err(FileError::Internal)?;
                (handle, fstat(root).map_err(FileError::of(path))?.into())
            }
        };
        Ok(Found { handle, info, place })
    }
}

impl Found {
    pub(crate) fn is_directory(&self) -> bool {
        self.info.is_directory()
    }

    /// Its very self, by a path that no rename can turn to something else.
    pub(crate) fn magic_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.handle.as_raw_fd()))
    }

    /// Opens it for its content.
    pub(crate) fn open(&self, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        open(self.magic_path(), flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
    }
}

/// Whether the paths by which files are opened are there.
pub(crate) fn check_proc() -> rustix::io::Result<()> {
    openat(CWD, "/proc/self/fd", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map(drop)
}

/// Whether it ends in a slash, or in one and a dot, and so can't be the name of a file.
pub(crate) fn names_directory(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    bytes.ends_with(b"/") || bytes.ends_with(b"/.")
}

/// Whether a link at `place` with this target stays below root, as far as the words go.
pub(crate) fn stays_below(place: &Path, target: &Path) -> bool {
    let mut depth = place.components().count().saturating_sub(1);
    for part in target.components() {
        match part {
            Component::ParentDir if depth == 0 => return false,
            Component::ParentDir => depth -= 1,
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            _ => return false,
        }
    }
    true
}

/// Where a link leads, as it was written.
pub(crate) fn link_target(link: impl AsFd) -> rustix::io::Result<PathBuf> {
    let target = readlinkat(link, "", Vec::new())?;
    Ok(OsString::from_vec(target.into_bytes()).into())
}

fn look(directory: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(directory, name, flags, Mode::empty())
}

fn place_of(way: &[(OwnedFd, OsString, FileInfo)]) -> PathBuf {
    way.iter().map(|(_, name, _)| name).collect()
}

fn steps_of(path: &Path) -> VecDeque<OsString> {
    let steps = path.components().filter(|part| !matches!(part, Component::CurDir));
    steps.map(|part| part.as_os_str().to_owned()).collect()
}

const LONGEST_PATH: usize = 4096;
/// As many as the kernel follows.
const MOST_LINKS: usize = 40;
/// A handle is held for each step.
const MOST_STEPS: usize = 128;
const TOO_DEEP: &str = "is deeper than 128 directories";
