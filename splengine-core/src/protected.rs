//! Files and directories that callers must not reach, known by what they are and not by their names.

use std::collections::{HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use tokio::time::Instant;

use crate::os::{Handle, Identity, SEARCH, identity, modified};

/// Paths of the host whose files are protected. A path need not lead to anything yet, and may lead
/// to something else later, as when an editor puts a new file in place of the old one.
#[derive(Debug, Default)]
pub(crate) struct Protected(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    items: Vec<Item>,
    view: Option<(Instant, Arc<View>)>,
}

#[derive(Debug)]
struct Item {
    /// Absolute.
    path: PathBuf,
    /// What it led to when it was looked at, oldest first, as long as that has a name. An open handle
    /// keeps its inode number from being given to another file; without one it is not remembered.
    seen: Vec<(Option<OwnedFd>, Identity)>,
    children: Children,
}

/// What is directly in a protected directory, as when its time of change was this.
#[derive(Debug, Default)]
struct Children {
    of: Option<(Identity, (i64, u64))>,
    read_at: Duration,
    ids: Vec<Identity>,
}

/// What is protected now.
#[derive(Debug, Default)]
pub(crate) struct View {
    ids: HashSet<Identity>,
    /// Names by which the server reaches them, or will: a directory and a name in it.
    names: Vec<(Identity, OsString, NameMatch)>,
    /// The directories on the way to them.
    above: HashSet<Identity>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NameMatch {
    /// A name of something protected.
    Protected,
    /// The same, which nothing has yet.
    Missing,
    /// A name on the way to it.
    Above,
}

impl Protected {
    /// Protects what `path` leads to; a relative path starts from the current directory.
    pub(crate) fn add(&mut self, path: &Path) -> std::io::Result<()> {
        let path = std::path::absolute(path)?;
        let state = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.items.push(Item { path, seen: Vec::new(), children: Children::default() });
        state.view = None;
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).items.is_empty()
    }

    /// What is protected now, or was [`FRESH_FOR`] ago. Looks at the disk.
    pub(crate) fn view(&self) -> Arc<View> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, view)) = &state.view
            && (at.elapsed() < FRESH_FOR || state.items.is_empty())
        {
            return Arc::clone(view);
        }
        let mut view = View::default();
        for item in &mut state.items {
            item.look(&mut view);
        }
        let view = Arc::new(view);
        state.view = Some((Instant::now(), Arc::clone(&view)));
        view
    }
}

impl View {
    /// Whether what has this identity is protected.
    pub(crate) fn holds(&self, id: Identity) -> bool {
        self.ids.contains(&id)
    }

    /// Whether this name in this directory is that of something protected. A name that nothing has
    /// yet is meant in upper and lower case alike, since some file systems make no difference.
    pub(crate) fn names(&self, directory: Identity, name: &OsStr) -> bool {
        let is_it = |known: &OsStr, is: NameMatch| match is {
            NameMatch::Protected => known == name,
            NameMatch::Missing => known == name || is_same_ignoring_case(known, name),
            NameMatch::Above => false,
        };
        self.names.iter().any(|(of, known, is)| *of == directory && is_it(known, *is))
    }

    /// Whether the way to something protected leads through what has this name and identity: to
    /// rename or to remove it would put something else there.
    pub(crate) fn leads_through(
        &self,
        directory: Identity,
        name: &OsStr,
        id: Option<Identity>,
    ) -> bool {
        self.names.iter().any(|(of, known, _)| *of == directory && known == name)
            || id.is_some_and(|id| self.is_above(id))
    }

    /// Whether it is a directory on the way to something protected.
    pub(crate) fn is_above(&self, id: Identity) -> bool {
        self.above.contains(&id)
    }

    /// Whether `directory` is protected or lies in one that is, up to but without `top`.
    pub(crate) fn holds_directory(&self, directory: impl AsFd, top: Identity) -> bool {
        if self.ids.is_empty() {
            return false;
        }
        let Ok(mut here) = openat(&directory, ".", SEARCH, Mode::empty()) else {
            return UNSEARCHABLE;
        };
        let mut before = None;
        for _ in 0..MAX_STEPS {
            let Ok(stat) = fstat(&here) else { return false };
            let id = identity(&stat);
            if id == top || before == Some(id) {
                return false;
            }
            if self.holds(id) {
                return true;
            }
            before = Some(id);
            match openat(&here, "..", SEARCH, Mode::empty()) {
                Ok(parent) => here = parent,
                Err(_) => return UNSEARCHABLE,
            }
        }
        false
    }
}

impl Item {
    fn look(&mut self, view: &mut View) {
        self.seen.retain(|(file, _)| {
            file.as_ref().is_some_and(|file| fstat(file).is_ok_and(|stat| has_name(&stat)))
        });
        if let Some((handle, stat)) = self.walk(view) {
            let id = identity(&stat);
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                if let Ok(directory) = handle.directory() {
                    self.children.look(directory, &stat);
                }
                view.ids.extend(&self.children.ids);
            }
            if !self.seen.iter().any(|(_, seen)| *seen == id) {
                if self.seen.len() >= MAX_SEEN {
                    self.seen.remove(0);
                }
                self.seen.push((handle.keep(), id));
            }
        }
        view.ids.extend(self.seen.iter().map(|(_, id)| id));
    }

    /// What the path leads to, through whatever links; and all names on the way.
    fn walk(&self, view: &mut View) -> Option<(Handle, Stat)> {
        let mut steps = steps_of(&self.path);
        let root = openat(CWD, "/", SEARCH, Mode::empty()).ok()?;
        let mut way = vec![Handle::look(root.as_fd(), OsStr::new(".")).ok()?];
        for _ in 0..MAX_STEPS {
            let Some(step) = steps.pop_front() else { break };
            if step == ".." {
                if way.len() > 1 {
                    way.pop();
                }
                continue;
            }
            let (here, stat) = way.last()?;
            let directory = identity(stat);
            let is_last = steps.is_empty();
            let found = here.directory().and_then(|here| Handle::look(here, &step));
            let Ok((handle, stat)) = found else {
                // Whoever made it would decide what is there.
                view.names.push((directory, step, NameMatch::Missing));
                return None;
            };
            view.names.push((
                directory,
                step,
                if is_last { NameMatch::Protected } else { NameMatch::Above },
            ));
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Symlink => {
                    let target = handle.link_target().ok()?;
                    if is_last {
                        view.ids.insert(identity(&stat));
                    }
                    if target.is_absolute() {
                        way.truncate(1);
                    }
                    for step in steps_of(&target).into_iter().rev() {
                        steps.push_front(step);
                    }
                }
                _ if is_last => return Some((handle, stat)),
                _ => {
                    view.above.insert(identity(&stat));
                    way.push((handle, stat));
                }
            }
        }
        // It ends in `..`, or has no end.
        steps.is_empty().then(|| way.pop()).flatten()
    }
}

impl Children {
    fn look(&mut self, directory: BorrowedFd<'_>, stat: &Stat) {
        let changed = modified(stat);
        let of = Some((identity(stat), changed));
        let changed_at = Duration::new(u64::try_from(changed.0).unwrap_or_default(), 0);
        // What changed again in the same tick of the file system's clock looks unchanged.
        if self.of == of && changed_at + CLOCK_TICK < self.read_at {
            return;
        }
        self.read_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.of = of;
        self.ids.clear();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(directory, ".", flags, Mode::empty());
        let Ok(mut entries) = opened.and_then(Dir::new) else { return };
        while let Some(Ok(entry)) = entries.read() {
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            if self.ids.len() >= MAX_CHILDREN {
                break;
            }
            if let Ok(stat) = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                self.ids.push(identity(&stat));
            }
        }
    }
}

fn has_name(stat: &Stat) -> bool {
    stat.st_nlink > 0
}

fn is_same_ignoring_case(a: &OsStr, b: &OsStr) -> bool {
    a.to_string_lossy().to_lowercase() == b.to_string_lossy().to_lowercase()
}

fn steps_of(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}

/// Whether a directory is taken for protected whose parents can't be looked at. With `O_PATH` it is one that can't be
/// entered, and so not one that can be worked in; elsewhere it may only be one that can't be read.
const UNSEARCHABLE: bool = !cfg!(target_os = "linux");
/// How long what was seen is taken for what is there. The protected names themselves are compared
/// with each access, so that only other names of a file that was just replaced are seen late.
const FRESH_FOR: Duration = Duration::from_millis(20);
const CLOCK_TICK: Duration = Duration::from_secs(2);
/// Maximum number of files that one path is remembered to have led to.
const MAX_SEEN: usize = 16;
/// Maximum number of files in a protected directory that are also known by other names.
const MAX_CHILDREN: usize = 4096;
/// Maximum number of names on the way to one path, links' included.
const MAX_STEPS: usize = 256;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    fn id(path: &Path) -> Identity {
        let file = fs::symlink_metadata(path).expect("is there");
        (file.dev(), file.ino())
    }

    fn protected(path: &Path) -> Protected {
        let mut protected = Protected::default();
        protected.add(path).expect("a path");
        protected
    }

    /// As it is now, without waiting until what was seen is old.
    fn now(protected: &Protected) -> Arc<View> {
        protected.0.lock().expect("a lock").view = None;
        protected.view()
    }

    #[test]
    fn a_file_is_known_by_what_it_is_and_by_its_names() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("real")).expect("made");
        fs::write(at("real/file"), "x").expect("written");
        symlink("real", at("link")).expect("made");
        symlink("link/file", at("other")).expect("made");
        let protected = protected(&at("other"));
        let view = now(&protected);
        assert!(view.holds(id(&at("real/file"))) && view.holds(id(&at("other"))));
        let top = id(dir.path());
        assert!(view.names(top, "other".as_ref()) && view.names(id(&at("real")), "file".as_ref()));
        assert!(!view.names(top, "real".as_ref()) && !view.names(top, "file".as_ref()));
        for name in ["other", "link", "real"] {
            assert!(view.leads_through(top, name.as_ref(), None), "{name}");
        }
        assert!(view.leads_through((0, 0), "x".as_ref(), Some(id(&at("real")))));
        assert!(view.is_above(top) && !view.leads_through(top, "else".as_ref(), None));
    }

    #[test]
    fn what_it_was_before_is_protected_as_long_as_it_is_there() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "x").expect("written");
        let protected = protected(&at("file"));
        let old = id(&at("file"));
        assert!(now(&protected).holds(old));
        fs::rename(at("file"), at("file~")).expect("renamed");
        fs::write(at("new"), "y").expect("written");
        fs::rename(at("new"), at("file")).expect("renamed");
        let new = id(&at("file"));
        let view = now(&protected);
        assert!(view.holds(old) && view.holds(new) && old != new);
        fs::remove_file(at("file~")).expect("removed");
        let view = now(&protected);
        assert!(!view.holds(old) && view.holds(new));
    }

    #[test]
    fn what_is_not_there_yet_has_its_name_taken() {
        let dir = tempfile::tempdir().expect("a directory");
        let top = id(dir.path());
        let protected = protected(&dir.path().join("conf/tokens"));
        let view = now(&protected);
        assert!(view.names(top, "conf".as_ref()) && view.names(top, "CONF".as_ref()));
        fs::create_dir(dir.path().join("conf")).expect("made");
        let view = now(&protected);
        assert!(!view.names(top, "conf".as_ref()));
        assert!(view.names(id(&dir.path().join("conf")), "Tokens".as_ref()));
    }

    #[test]
    fn what_is_in_a_protected_directory_is_protected() {
        let dir = tempfile::tempdir().expect("a directory");
        let keys = dir.path().join("keys");
        fs::create_dir_all(keys.join("deep/er")).expect("made");
        let protected = protected(&keys);
        assert!(now(&protected).holds(id(&keys)));
        fs::write(keys.join("alice"), "x").expect("written");
        fs::hard_link(keys.join("alice"), dir.path().join("alice")).expect("linked");
        let view = now(&protected);
        assert!(view.holds(id(&dir.path().join("alice"))));
        let inside = fs::File::open(keys.join("deep/er")).expect("opened");
        assert!(view.holds_directory(inside, id(dir.path())));
        let outside = fs::File::open(dir.path()).expect("opened");
        assert!(!view.holds_directory(outside, id(Path::new("/"))));
    }
}
