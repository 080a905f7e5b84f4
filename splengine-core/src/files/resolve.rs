//! Resolution of paths: below root, and to nothing that is hidden.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, OFlags, fstat, stat, statat};
use rustix::io::Errno;

use crate::files::error::shown;
use crate::files::temporary::is_temporary;
use crate::files::{FileError, FileInfo, FileKind};
use crate::os::{Handle, Identity, identity};
use crate::protected::{Protected, View};
use crate::root::Root;

/// What lies below root. Each step of a path is taken with a handle of the directory before it, and
/// links are read and followed here, step by step: the kernel's own confined walk (openat2) knows
/// nothing of what is hidden, so that `hidden/x/../..` would tell whether `x` is there.
#[derive(Debug)]
pub(crate) struct Tree {
    root: Root,
    root_id: Identity,
    /// Below root.
    hidden: Vec<PathBuf>,
    /// The same under whatever name, and what is hidden that is not known by a place below root.
    protected: Protected,
}

/// Something that is there.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// Names it, and gives no right to its content.
    pub(crate) handle: Handle,
    pub(crate) info: FileInfo,
    /// Where it is below root, without a link on the way.
    pub(crate) place: PathBuf,
}

/// A name in a directory, whether something has it or not.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) directory: OwnedFd,
    pub(crate) directory_id: Identity,
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
    pub(crate) fn new(root: Root) -> rustix::io::Result<Self> {
        let root_id = identity(&fstat(root.directory())?);
        Ok(Self { root, root_id, hidden: Vec::new(), protected: Protected::default() })
    }

    /// The directory.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.directory()
    }

    /// Whether a path of the host leads to root.
    pub(crate) fn is_root(&self, path: &Path) -> bool {
        stat(path).is_ok_and(|stat| identity(&stat) == self.root_id)
    }

    /// Hides what `path` names, and what it leads to; it need not be there yet.
    pub(crate) fn hide(&mut self, path: &Path) -> Result<(), FileError> {
        let steps = self.steps(path)?;
        let is_name = |step: &OsString| step != "..";
        if steps.is_empty() || !steps.iter().all(is_name) {
            return Err(FileError::bad_path(path, "must be below root, and hold no `..`"));
        }
        let written: PathBuf = steps.iter().collect();
        self.protected.add(&self.root.path().join(&written)).map_err(FileError::Internal)?;
        self.hide_below(written);
        Ok(())
    }

    /// Hides what a path of the host leads to, wherever that is.
    pub(crate) fn protect(&mut self, path: &Path) -> Result<(), FileError> {
        let absolute = std::path::absolute(path).map_err(FileError::Internal)?;
        if self.is_root(&absolute) {
            return Err(FileError::bad_path(path, "is root itself; it must be outside root"));
        }
        self.protected.add(&absolute).map_err(FileError::Internal)?;
        for place in self.places_of(&absolute) {
            self.hide_below(place);
        }
        Ok(())
    }

    /// Where below root a path of the host leads, as it is written and without links.
    fn places_of(&self, absolute: &Path) -> Vec<PathBuf> {
        // As much of it as is there, and the rest.
        let canonical = absolute.ancestors().find_map(|there| {
            let rest = absolute.strip_prefix(there).ok()?;
            Some(there.canonicalize().ok()?.join(rest))
        });
        let leads_up = |path: &Path| path.components().any(|part| part == Component::ParentDir);
        let paths = [Some(absolute.to_owned()), canonical].into_iter().flatten();
        paths
            .filter(|path| self.root.contains(path) && !leads_up(path))
            .map(|path| self.root.below_root(&path))
            .collect()
    }

    fn hide_below(&mut self, written: PathBuf) {
        // As much of it as is there, by whatever links, and the rest.
        let led_to = written.ancestors().find_map(|there| {
            let found = self.walk(there, steps_of(there), Last::Followed, &View::default()).ok()?;
            Some(found.place.join(written.strip_prefix(there).ok()?))
        });
        self.hidden.extend(led_to);
        self.hidden.push(written);
        self.hidden.sort_unstable();
        self.hidden.dedup();
    }

    /// What `path` leads to.
    pub(crate) fn find(&self, path: &Path) -> Result<Resolved, FileError> {
        let found = self.walk(path, self.steps(path)?, Last::Followed, &self.view())?;
        if names_directory(path) && !found.is_directory() {
            return Err(FileError::NotDirectory { path: shown(path) });
        }
        Ok(found)
    }

    /// The directory that `path` leads to.
    pub(crate) fn find_directory(&self, path: &Path) -> Result<Resolved, FileError> {
        let found = self.find(path)?;
        if found.is_directory() {
            return Ok(found);
        }
        Err(FileError::NotDirectory { path: shown(path) })
    }

    /// What `path` names, if that is a link the link itself.
    pub(crate) fn find_itself(&self, path: &Path) -> Result<Resolved, FileError> {
        self.walk(path, self.steps(path)?, Last::Itself, &self.view())
    }

    /// A name that is there, or is to be. Its directory must be.
    pub(crate) fn entry(&self, path: &Path) -> Result<Entry, FileError> {
        let mut steps = self.steps(path)?;
        let name = steps.pop_back().filter(|name| name != "..");
        let name = name.ok_or_else(|| FileError::bad_path(path, "does not end in a name"))?;
        let directory = self.walk(path, steps, Last::Followed, &self.view())?;
        if !directory.is_directory() {
            return Err(FileError::NotDirectory { path: shown(path) });
        }
        if directory.place.components().count() >= MAX_STEPS {
            return Err(FileError::impossible(path, TOO_DEEP));
        }
        let (directory_id, place) = (directory.info.id, directory.place.join(&name));
        let directory = directory.handle.into_directory().map_err(FileError::of(path))?;
        Ok(Entry { directory, directory_id, name, place })
    }

    /// As [`entry`](Self::entry), for a name that something has.
    pub(crate) fn old_entry(&self, path: &Path) -> Result<Entry, FileError> {
        let entry = self.entry(path)?;
        if self.hides(&entry, path)? { Err(FileError::not_found(path)) } else { Ok(entry) }
    }

    /// As [`old_entry`](Self::old_entry), for a name that is to be taken away. What is hidden is not
    /// to get another place by that, nor something else its place.
    pub(crate) fn movable_entry(&self, path: &Path) -> Result<Entry, FileError> {
        let entry = self.old_entry(path)?;
        self.check_movable(&entry, path)?;
        Ok(entry)
    }

    /// Whether the name may be taken from what has it.
    pub(crate) fn check_movable(&self, entry: &Entry, path: &Path) -> Result<(), FileError> {
        let id = entry.look().map_err(FileError::of(path))?.map(|info| info.id);
        let leads_on = self.view().leads_through(entry.directory_id, &entry.name, id);
        if leads_on || self.holds_hidden(&entry.place) {
            return Err(FileError::Denied { path: shown(path) });
        }
        Ok(())
    }

    /// As [`entry`](Self::entry), for a name that is to be given.
    pub(crate) fn new_entry(&self, path: &Path) -> Result<Entry, FileError> {
        let entry = self.entry(path).map_err(|error| match error {
            FileError::NotFound { path } => FileError::NoDirectory { path },
            error => error,
        })?;
        if self.hides(&entry, path)? {
            return Err(FileError::Denied { path: shown(path) });
        }
        Ok(entry)
    }

    /// Whether its permission bits may change: not those of a directory on the way to something
    /// hidden, since others could then put something else there.
    pub(crate) fn check_mode_changeable(
        &self,
        found: &Resolved,
        path: &Path,
    ) -> Result<(), FileError> {
        if self.view().is_above(found.info.id) {
            return Err(FileError::Denied { path: shown(path) });
        }
        Ok(())
    }

    /// Whether `path` leads to something hidden, as far as it leads anywhere.
    pub(crate) fn leads_to_hidden(&self, path: &Path) -> bool {
        let Ok(steps) = self.steps(path) else { return false };
        let mut leads = false;
        let _ = self.walk_with(path, steps, Last::Followed, &self.view(), &mut leads);
        leads
    }

    /// Whether a name, or what has it, is hidden.
    fn hides(&self, entry: &Entry, path: &Path) -> Result<bool, FileError> {
        let view = self.view();
        if self.is_hidden(&entry.place) || view.names(entry.directory_id, &entry.name) {
            return Ok(true);
        }
        let present = entry.look().map_err(FileError::of(path))?;
        Ok(present.is_some_and(|info| view.holds(info.id)))
    }

    /// What is hidden whatever its place.
    pub(crate) fn view(&self) -> Arc<View> {
        self.protected.view()
    }

    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "only watches ask"))]
    pub(crate) fn hides_anything(&self) -> bool {
        !self.protected.is_empty()
    }

    pub(crate) fn hidden(&self) -> &[PathBuf] {
        &self.hidden
    }

    /// Whether nobody is told of it: it was hidden, or is a file in the making.
    pub(crate) fn is_hidden(&self, place: &Path) -> bool {
        self.hidden.iter().any(|hidden| place.starts_with(hidden))
            || place.file_name().is_some_and(is_temporary)
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

    /// `path` as the host names it, relative ones from root, with root's own name in front; `None`
    /// where the words lead elsewhere. What stands behind root's name is left as it is.
    pub(crate) fn host_path(&self, path: &Path) -> Option<PathBuf> {
        if !path.is_absolute() {
            return Some(self.root.path().join(path));
        }
        let mut parts = path.components().peekable();
        let mut before = PathBuf::new();
        while !self.root.is_named(&before) || parts.peek() == Some(&Component::ParentDir) {
            match parts.next()? {
                Component::RootDir => before.push("/"),
                Component::Normal(name) => before.push(name),
                Component::ParentDir => drop(before.pop()),
                _ => {}
            }
        }
        let below = self.on_host(&parts.collect::<PathBuf>());
        // What must be a directory must still be one.
        Some(if names_directory(path) { below.join("") } else { below })
    }

    /// `path`, without `.` and `..`, if it is a directory of the host on the way to root.
    pub(crate) fn above_root(&self, path: &Path) -> Option<PathBuf> {
        let mut place = PathBuf::new();
        for part in self.root.path().join(path).components() {
            match part {
                Component::ParentDir => drop(place.pop()),
                Component::CurDir => {}
                part => place.push(part),
            }
        }
        (self.root.path().starts_with(&place) && place != self.root.path()).then_some(place)
    }

    /// Where a path of ours is on the host.
    pub(crate) fn on_host(&self, path: &Path) -> PathBuf {
        match self.root.below_root(path) {
            // Without a slash at its end.
            below if below.as_os_str().is_empty() => self.root.path().to_owned(),
            below => self.root.path().join(below),
        }
    }

    /// Whether an absolute target of a link is meant to be below root.
    pub(crate) fn is_target(&self, target: &Path) -> bool {
        self.root.is_own_name(target) && stays_below(Path::new(""), &self.root.below_root(target))
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
        if length > MAX_PATH_BYTES {
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
        steps: VecDeque<OsString>,
        last: Last,
        view: &View,
    ) -> Result<Resolved, FileError> {
        self.walk_with(path, steps, last, view, &mut false)
    }

    /// The same; says besides whether it ended at something hidden.
    fn walk_with(
        &self,
        path: &Path,
        mut steps: VecDeque<OsString>,
        last: Last,
        view: &View,
        is_hidden: &mut bool,
    ) -> Result<Resolved, FileError> {
        let mut way: Vec<(Handle, OsString, FileInfo)> = Vec::new();
        let mut links = 0;
        while let Some(step) = steps.pop_front() {
            let here_id = way.last().map_or(self.root_id, |(_, _, info)| info.id);
            if step == ".." {
                if way.pop().is_none() {
                    return Err(FileError::Outside { path: shown(path) });
                }
                continue;
            }
            // The name alone is enough, be something there or not.
            if view.names(here_id, &step) || self.is_hidden(&place_of(&way).join(&step)) {
                *is_hidden = true;
                return Err(FileError::not_found(path));
            }
            let here = match way.last() {
                Some((handle, _, _)) => handle.directory().map_err(FileError::of(path))?,
                None => self.root.directory(),
            };
            let (handle, stat) = Handle::look(here, &step).map_err(FileError::of(path))?;
            let info = FileInfo::from(stat);
            if view.holds(info.id) {
                *is_hidden = true;
                return Err(FileError::not_found(path));
            }
            let is_last = steps.is_empty();
            if info.kind == FileKind::Link && !(is_last && last == Last::Itself) {
                links += 1;
                if links > MAX_LINKS {
                    return Err(FileError::impossible(path, "has too many links on its way"));
                }
                let target = handle.link_target().map_err(FileError::of(path))?;
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
                if steps.len() + way.len() > MAX_STEPS {
                    return Err(FileError::impossible(path, TOO_DEEP));
                }
                continue;
            }
            if !is_last && !info.is_directory() {
                return Err(FileError::NotDirectory { path: shown(path) });
            }
            if way.len() >= MAX_STEPS {
                return Err(FileError::impossible(path, TOO_DEEP));
            }
            way.push((handle, step, info));
        }
        let place = place_of(&way);
        let (handle, info) = match way.pop() {
            Some((handle, _, info)) => (handle, info),
            None => {
                let root = self.root.directory();
                let handle = Handle::of_directory(root).map_err(FileError::Internal)?;
                (handle, fstat(root).map_err(FileError::of(path))?.into())
            }
        };
        Ok(Resolved { handle, info, place })
    }
}

impl Resolved {
    pub(crate) fn is_directory(&self) -> bool {
        self.info.is_directory()
    }

    /// Opens it for its content.
    pub(crate) fn open(&self, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        self.handle.open(flags)
    }
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

fn place_of(way: &[(Handle, OsString, FileInfo)]) -> PathBuf {
    way.iter().map(|(_, name, _)| name).collect()
}

fn steps_of(path: &Path) -> VecDeque<OsString> {
    let steps = path.components().filter(|part| !matches!(part, Component::CurDir));
    steps.map(|part| part.as_os_str().to_owned()).collect()
}

const MAX_PATH_BYTES: usize = 4096;
/// As many as the kernel follows.
const MAX_LINKS: usize = 40;
/// A handle is held for each step.
const MAX_STEPS: usize = 128;
const TOO_DEEP: &str = "is deeper than 128 directories";
