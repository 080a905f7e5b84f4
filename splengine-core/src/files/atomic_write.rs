//! Writing a whole file, so that it is there whole or not at all.

use std::ffi::OsString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, fchmod, fstat, openat, unlinkat};
use rustix::io::{Errno, write};

use crate::files::error::{NO_FILE, shown};
use crate::files::open_files::OpenPermit;
use crate::files::rename::{NameIn, rename_new, rename_over};
use crate::files::resolve::{Entry, names_directory};
use crate::files::temporary::temporary_name;
use crate::files::usage::Tracked;
use crate::files::{FileError, FileInfo, FileKind, ServedFiles};
use crate::os::{give_name, nameless, permissions, sync_data, without_writing};
use crate::process::await_inherited_closed;

/// A file that was written whole.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Replaced {
    /// Attributes of the file.
    pub info: FileInfo,
    /// `true` if no file had its name before.
    pub is_new: bool,
}

/// What is to be true of what has a name, if anything has.
pub(crate) type Condition = Box<dyn Fn(Option<&FileInfo>) -> bool + Send>;

/// A file in the making, which takes another's place when it is finished; or is removed.
pub(crate) struct Replacement {
    shared: Arc<ServedFiles>,
    condition: Condition,
    entry: Entry,
    file: Tracked,
    /// Its name until it has its own, where it needs one.
    temporary: Option<OsString>,
    path: PathBuf,
    written: u64,
    limit: u64,
    is_in_place: bool,
    permit: OpenPermit,
}

impl Replacement {
    pub(crate) fn begin(
        shared: &Arc<ServedFiles>,
        path: &Path,
        mode: Option<u32>,
        condition: Condition,
        permit: OpenPermit,
    ) -> Result<Self, FileError> {
        let (entry, present) = place_of(shared, path)?;
        if !condition(present.as_ref()) {
            return Err(FileError::Changed { path: shown(path) });
        }
        shared.check_room(&entry, path)?;
        let mode = present.map(|info| info.mode).or(mode);
        let (file, temporary) = make(&entry).map_err(FileError::of(path))?;
        let file = shared.track(file, path)?;
        let (path, limit) = (path.to_owned(), shared.max_file_size);
        let made = Self {
            shared: Arc::clone(shared),
            condition,
            entry,
            file,
            temporary,
            path,
            written: 0,
            limit,
            is_in_place: false,
            permit,
        };
        made.file.claim(made.permit.user(), 0, &made.path)?;
        if let Some(mode) = mode {
            let mode = shared.kept_mode(permissions(mode), false);
            fchmod(&made.file, mode).map_err(FileError::of(&made.path))?;
        }
        Ok(made)
    }

    pub(crate) fn write(&mut self, mut data: &[u8]) -> Result<(), FileError> {
        self.written = self.written.saturating_add(data.len() as u64);
        if self.written > self.limit {
            return Err(FileError::TooLarge { path: shown(&self.path), limit: self.limit });
        }
        let below_floor = FileError::below_floor(&self.path);
        self.shared.reserve.check(&self.file, data.len() as u64).map_err(below_floor)?;
        self.file.claim(self.permit.user(), self.written, &self.path)?;
        while !data.is_empty() {
            match write(&self.file, data) {
                Ok(0) => return Err(FileError::NoRoom { path: shown(&self.path) }),
                Ok(written) => data = &data[written..],
                Err(Errno::INTR) => {}
                Err(error) => return Err(FileError::of_errno(&self.path, error)),
            }
        }
        Ok(())
    }

    /// Puts it in place, once it is on the disk: after a crash there is the old or the new.
    pub(crate) fn finish(mut self) -> Result<Replaced, FileError> {
        sync_data(&self.file).map_err(FileError::of(&self.path))?;
        self.stop_writing().map_err(FileError::of(&self.path))?;
        let is_new = self.put_in_place()?;
        self.is_in_place = true;
        let info = fstat(&self.file).map_err(FileError::of(&self.path))?.into();
        Ok(Replaced { info, is_new })
    }

    /// Keeps the file without the right to write it: the kernel runs no program that anybody may
    /// still write. Whoever finds it by its name can run it at once.
    fn stop_writing(&mut self) -> rustix::io::Result<()> {
        let name = self.temporary.as_deref().map(|name| (self.entry.directory.as_fd(), name));
        if let Some(file) = without_writing(self.file.as_fd(), name)? {
            self.file.hold_by(file);
        }
        await_inherited_closed();
        Ok(())
    }

    /// Whether nothing had the name.
    fn put_in_place(&mut self) -> Result<bool, FileError> {
        let shared = Arc::clone(&self.shared);
        let _locked = shared.path_locks.lock(&self.entry.place);
        for _ in 0..TRIES {
            let present = self.entry.look().map_err(FileError::of(&self.path))?;
            if !(self.condition)(present.as_ref()) {
                break;
            }
            let _replaced = Tracked::of_name(shared.usage.as_ref(), &self.entry, &self.path)?;
            let put = if present.is_some() { self.take_place() } else { self.appear() };
            match put {
                Ok(()) => return Ok(present.is_none()),
                // Some program made it at this moment.
                Err(Errno::EXIST) if present.is_none() => {}
                Err(error) => return Err(FileError::of_errno(&self.path, error)),
            }
        }
        Err(FileError::Changed { path: shown(&self.path) })
    }

    fn appear(&self) -> rustix::io::Result<()> {
        match &self.temporary {
            Some(name) => rename_new(NameIn(self.entry.directory.as_fd(), name), self.entry.at()),
            None => self.link(self.entry.at()),
        }
    }

    fn take_place(&mut self) -> rustix::io::Result<()> {
        if self.temporary.is_none() {
            self.link_temporarily()?;
        }
        let name = self.temporary.as_deref().unwrap_or_default();
        rename_over(NameIn(self.entry.directory.as_fd(), name), self.entry.at())
    }

    fn link_temporarily(&mut self) -> rustix::io::Result<()> {
        let name = temporary_name();
        self.link(NameIn(self.entry.directory.as_fd(), &name))?;
        self.temporary = Some(name);
        Ok(())
    }

    /// Gives a file without a name one that nothing has.
    fn link(&self, to: NameIn<'_>) -> rustix::io::Result<()> {
        give_name(self.file.as_fd(), to.0, to.1)
    }
}

/// A new file: without a name where the file system has such, so that a crash leaves nothing.
fn make(entry: &Entry) -> rustix::io::Result<(OwnedFd, Option<OsString>)> {
    let mode = Mode::from_raw_mode(0o666);
    if let Some(file) = nameless(entry.directory.as_fd(), mode)? {
        return Ok((file, None));
    }
    let name = temporary_name();
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    Ok((openat(&entry.directory, &name, flags, mode)?, Some(name)))
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if let Some(name) = self.temporary.as_ref().filter(|_| !self.is_in_place) {
            let _ = unlinkat(&self.entry.directory, name, AtFlags::empty());
        }
    }
}

/// Where the file is to be, and what is known of the one that is there.
fn place_of(shared: &ServedFiles, path: &Path) -> Result<(Entry, Option<FileInfo>), FileError> {
    let found = match shared.tree.find(path) {
        Ok(found) => found,
        Err(FileError::NotFound { .. }) => {
            let entry = shared.tree.new_entry(path)?;
            if names_directory(path) {
                return Err(FileError::IsDirectory { path: shown(path) });
            }
            return match shared.tree.find_itself(path) {
                Ok(_) => Err(FileError::impossible(path, "is a link that leads nowhere")),
                Err(_) => Ok((entry, None)),
            };
        }
        Err(error) => return Err(error),
    };
    match found.info.kind {
        FileKind::File => {}
        FileKind::Directory => return Err(FileError::IsDirectory { path: shown(path) }),
        _ => return Err(FileError::impossible(path, NO_FILE)),
    }
    // What may not be written may not be replaced either. It is not opened to find that out, since
    // it could not be run meanwhile; and a program that runs is not written.
    match found.handle.check_writable() {
        Err(Errno::TXTBSY) => {}
        checked => checked.map_err(FileError::of(path))?,
    }
    Ok((shared.tree.new_entry(&found.place)?, Some(found.info)))
}

const TRIES: u32 = 8;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::files::resolve::Tree;
    use crate::files::temporary::is_temporary;
    use crate::files::{FilePolicy, OpenedFiles};
    use crate::quota::DiskReserve;
    use crate::root::Root;

    /// As where the file system has no files without a name.
    #[test]
    fn a_file_that_has_a_name_before_its_own_leaves_nothing_of_it() {
        let root = tempfile::tempdir().expect("a directory");
        let tree = Tree::new(Root::open(root.path()).expect("opened")).expect("a root");
        let opened = OpenedFiles { tree, counted: None, is_root_of_commands: true };
        let shared = Arc::new(FilePolicy::new().serve(opened, DiskReserve::default()));
        let user = "alice".parse().expect("a name");
        let begin = || {
            let permit = shared.writers.permit(&user).expect("one");
            let path = Path::new("file");
            let mut made = Replacement::begin(&shared, path, None, Box::new(|_| true), permit)?;
            made.link_temporarily().expect("linked");
            made.write(b"content")?;
            Ok::<_, FileError>(made)
        };
        let names = || {
            let entries = fs::read_dir(root.path()).expect("read").flatten();
            entries.map(|entry| entry.file_name()).collect::<Vec<_>>()
        };
        let made = begin().expect("begun");
        assert!(names().iter().all(|name| is_temporary(name)) && names().len() == 1);
        drop(made);
        assert!(names().is_empty());
        for is_new in [true, false] {
            let replaced = begin().and_then(Replacement::finish).expect("written");
            assert_eq!(replaced.is_new, is_new);
            assert_eq!(names(), ["file"]);
        }
        assert_eq!(fs::read(root.path().join("file")).expect("read"), b"content");
    }
}
