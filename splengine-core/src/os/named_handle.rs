//! Handles of files on systems without `O_PATH`: of a directory a descriptor to find names in it; of anything else
//! the directory that it is in, its name there, and its number, with which each use compares what has the name by
//! then.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use rustix::fs::{
    Access, AtFlags, FileType, Mode, OFlags, Stat, Timestamps, accessat, chmodat, fchmod, fstat,
    linkat, openat, readlinkat, statat, unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::os::stat::{Identity, identity};

/// Opens a directory to find names in it, and for nothing else.
#[cfg(any(target_vendor = "apple", target_os = "freebsd", target_os = "netbsd"))]
pub(crate) const SEARCH: OFlags = OFlags::from_bits_retain(libc::O_SEARCH.cast_unsigned())
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);
/// Opens a directory to find names in it, which here takes the right to list them.
#[cfg(not(any(target_vendor = "apple", target_os = "freebsd", target_os = "netbsd")))]
pub(crate) const SEARCH: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Something that is there.
#[derive(Debug)]
pub(crate) struct Handle(Inner);

#[derive(Debug)]
enum Inner {
    Directory(OwnedFd),
    /// No directory, or one that can't be searched.
    Named {
        directory: OwnedFd,
        name: OsString,
        id: Identity,
        kind: FileType,
    },
}

impl Handle {
    /// What has a name in a directory; if that is a link, the link.
    pub(crate) fn look(
        directory: BorrowedFd<'_>,
        name: &OsStr,
    ) -> rustix::io::Result<(Self, Stat)> {
        let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            match openat(directory, name, SEARCH | OFlags::NOFOLLOW, Mode::empty()) {
                Ok(opened) => {
                    let stat = fstat(&opened)?;
                    return Ok((Self(Inner::Directory(opened)), stat));
                }
                Err(Errno::ACCESS) => {}
                Err(error) => return Err(of_replaced(error)),
            }
        }
        let directory = rustix::io::fcntl_dupfd_cloexec(directory, 0)?;
        let named = Inner::Named { directory, name: name.to_owned(), id: identity(&stat), kind };
        Ok((Self(named), stat))
    }

    pub(crate) fn of_directory(directory: BorrowedFd<'_>) -> io::Result<Self> {
        directory.try_clone_to_owned().map(|directory| Self(Inner::Directory(directory)))
    }

    /// A directory, to find names in it.
    pub(crate) fn directory(&self) -> rustix::io::Result<BorrowedFd<'_>> {
        match &self.0 {
            Inner::Directory(directory) => Ok(directory.as_fd()),
            Inner::Named { .. } => Err(Errno::ACCESS),
        }
    }

    /// The same, to be kept.
    pub(crate) fn into_directory(self) -> rustix::io::Result<OwnedFd> {
        match self.0 {
            Inner::Directory(directory) => Ok(directory),
            Inner::Named { .. } => Err(Errno::ACCESS),
        }
    }

    /// Something on the same file system.
    pub(crate) fn on_file_system(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Inner::Directory(directory) | Inner::Named { directory, .. } => directory.as_fd(),
        }
    }

    /// What keeps its number from being given to another file, and tells whether it has a name still; `None` for what
    /// this process may not read, and for what is neither a file nor a directory.
    pub(crate) fn keep(self) -> Option<OwnedFd> {
        match self.0 {
            Inner::Directory(directory) => Some(directory),
            Inner::Named { kind: FileType::RegularFile, .. } => self.open(OFlags::RDONLY).ok(),
            Inner::Named { .. } => None,
        }
    }

    /// Opens it for its content.
    pub(crate) fn open(&self, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
        let (directory, name, id) = match &self.0 {
            Inner::Directory(directory) => return openat(directory, ".", flags, Mode::empty()),
            Inner::Named { directory, name, id, .. } => (directory, name, id),
        };
        // Nothing hangs if a pipe has the name by now.
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = openat(directory, name, flags, Mode::empty()).map_err(of_replaced)?;
        if identity(&fstat(&file)?) == *id { Ok(file) } else { Err(Errno::NOENT) }
    }

    /// Where a link leads, as it was written.
    pub(crate) fn link_target(&self) -> rustix::io::Result<PathBuf> {
        let Inner::Named { directory, name, .. } = &self.0 else { return Err(Errno::INVAL) };
        let target = readlinkat(directory, name, Vec::new())?;
        self.check_name()?;
        Ok(OsString::from_vec(target.into_bytes()).into())
    }

    /// Whether this process may write it; without opening it, since no program can be run meanwhile.
    pub(crate) fn check_writable(&self) -> rustix::io::Result<()> {
        match &self.0 {
            Inner::Directory(directory) => {
                accessat(directory, ".", Access::WRITE_OK, AtFlags::EACCESS)
            }
            Inner::Named { directory, name, .. } => {
                accessat(directory, name, Access::WRITE_OK, AtFlags::EACCESS)?;
                self.check_name()
            }
        }
    }

    pub(crate) fn set_mode(&self, mode: Mode) -> rustix::io::Result<()> {
        let (directory, name) = match &self.0 {
            Inner::Directory(directory) => {
                return chmodat(directory, ".", mode, AtFlags::empty());
            }
            Inner::Named { directory, name, .. } => (directory, name),
        };
        if matches!(self.0, Inner::Named { kind: FileType::RegularFile, .. }) {
            match self.open(OFlags::RDONLY) {
                Ok(file) => return fchmod(file, mode),
                Err(Errno::ACCESS) => {}
                Err(error) => return Err(error),
            }
        }
        self.check_name()?;
        chmodat(directory, name, mode, AtFlags::SYMLINK_NOFOLLOW)
    }

    pub(crate) fn set_times(&self, times: &Timestamps) -> rustix::io::Result<()> {
        match &self.0 {
            Inner::Directory(directory) => utimensat(directory, ".", times, AtFlags::empty()),
            Inner::Named { directory, name, .. } => {
                self.check_name()?;
                utimensat(directory, name, times, AtFlags::SYMLINK_NOFOLLOW)
            }
        }
    }

    /// Gives it another name, which nothing has.
    pub(crate) fn link(&self, directory: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
        let Inner::Named { directory: from, name: old, id, .. } = &self.0 else {
            return Err(Errno::PERM);
        };
        linkat(from, old, directory, name, AtFlags::empty())?;
        let made = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if identity(&made) == *id {
            return Ok(());
        }
        // Something else had its name by then, and is not to have another.
        unlinkat(directory, name, AtFlags::empty())?;
        Err(Errno::NOENT)
    }

    /// Whether it has its name still.
    fn check_name(&self) -> rustix::io::Result<()> {
        let Inner::Named { directory, name, id, .. } = &self.0 else { return Ok(()) };
        let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if identity(&stat) == *id { Ok(()) } else { Err(Errno::NOENT) }
    }
}

/// Nothing that must be there for handles is missing.
pub(crate) fn check_handles() -> rustix::io::Result<()> {
    Ok(())
}

/// A new file without a name: there are none here.
pub(crate) fn nameless(
    _directory: BorrowedFd<'_>,
    _mode: Mode,
) -> rustix::io::Result<Option<OwnedFd>> {
    Ok(None)
}

/// Gives a file without a name one: there are none here.
pub(crate) fn give_name(
    _file: BorrowedFd<'_>,
    _directory: BorrowedFd<'_>,
    _name: &OsStr,
) -> rustix::io::Result<()> {
    Err(Errno::OPNOTSUPP)
}

/// The same file without the right to write it, by the name that it has now; `None` if it can't be read.
pub(crate) fn without_writing(
    file: BorrowedFd<'_>,
    name: Option<(BorrowedFd<'_>, &OsStr)>,
) -> rustix::io::Result<Option<OwnedFd>> {
    let Some((directory, name)) = name else { return Ok(None) };
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(directory, name, flags, Mode::empty()) {
        Ok(read) if identity(&fstat(&read)?) == identity(&fstat(file)?) => Ok(Some(read)),
        Err(Errno::ACCESS) => Ok(None),
        opened => opened.and(Err(Errno::NOENT)),
    }
}

/// What is opened without following a link was replaced by one, or by what is no directory.
fn of_replaced(error: Errno) -> Errno {
    match error {
        Errno::LOOP | Errno::MLINK | Errno::NOTDIR => Errno::NOENT,
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::path::Path;

    use rustix::fs::{Timespec, UTIME_OMIT};
    use tempfile::TempDir;

    use super::*;

    struct Place {
        path: TempDir,
        directory: fs::File,
    }

    impl Place {
        fn new() -> Self {
            let path = tempfile::tempdir().expect("a directory");
            let directory = fs::File::open(path.path()).expect("opened");
            Self { path, directory }
        }

        fn at(&self, name: &str) -> PathBuf {
            self.path.path().join(name)
        }

        fn look(&self, name: &str) -> Handle {
            Handle::look(self.directory.as_fd(), name.as_ref()).expect("is there").0
        }

        fn link(&self, handle: &Handle, name: &str) -> rustix::io::Result<()> {
            handle.link(self.directory.as_fd(), name.as_ref())
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).expect("is there").permissions().mode() & 0o777
    }

    fn times() -> Timestamps {
        let modified = Timespec { tv_sec: 1000, tv_nsec: 0 };
        let omitted = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        Timestamps { last_access: omitted, last_modification: modified }
    }

    #[test]
    fn what_has_the_name_is_read_and_changed() {
        let place = Place::new();
        fs::write(place.at("file"), "content").expect("written");
        fs::create_dir(place.at("directory")).expect("made");
        symlink("file", place.at("link")).expect("made");

        let file = place.look("file");
        assert_eq!(file.directory().map(drop), Err(Errno::ACCESS));
        file.check_writable().expect("may be written");
        file.set_mode(Mode::from_raw_mode(0o640)).expect("set");
        file.set_times(&times()).expect("set");
        let info = fs::metadata(place.at("file")).expect("is there");
        assert_eq!((mode(&place.at("file")), info.mtime()), (0o640, 1000));
        place.link(&file, "second").expect("linked");
        assert_eq!(fs::read(place.at("second")).expect("read"), b"content");
        assert_eq!(place.link(&file, "link"), Err(Errno::EXIST));
        let opened = file.open(OFlags::RDONLY).expect("opened");
        assert_eq!(std::io::read_to_string(fs::File::from(opened)).expect("read"), "content");
        assert!(file.keep().is_some());

        let directory = place.look("directory");
        directory.check_writable().expect("may be written");
        directory.set_mode(Mode::from_raw_mode(0o750)).expect("set");
        directory.set_times(&times()).expect("set");
        let info = fs::metadata(place.at("directory")).expect("is there");
        assert_eq!((mode(&place.at("directory")), info.mtime()), (0o750, 1000));
        assert_eq!(place.link(&directory, "third"), Err(Errno::PERM));
        assert_eq!(directory.link_target(), Err(Errno::INVAL));
        directory.open(OFlags::RDONLY | OFlags::DIRECTORY).expect("opened");
        let inside = directory.directory().expect("a directory");
        assert!(matches!(Handle::look(inside, "no".as_ref()), Err(Errno::NOENT)));
        directory.into_directory().expect("a directory");

        let link = place.look("link");
        assert_eq!(link.link_target(), Ok("file".into()));
        assert_eq!(link.open(OFlags::RDONLY).map(drop), Err(Errno::NOENT));
        link.set_times(&times()).expect("set");
        assert_eq!(fs::symlink_metadata(place.at("link")).expect("is there").mtime(), 1000);
        assert!(link.keep().is_none());
        let root = Handle::of_directory(place.directory.as_fd()).expect("a handle");
        let [root, found] = [root.on_file_system(), place.look("file").on_file_system()]
            .map(|file| identity(&fstat(file).expect("is there")));
        assert_eq!(root, found);
    }

    #[test]
    fn what_took_the_name_meanwhile_is_left_alone() {
        let place = Place::new();
        let replacements: [fn(&Path); 3] = [
            |path| fs::write(path, "other").expect("written"),
            |path| symlink("secret", path).expect("made"),
            |path| fs::create_dir(path).expect("made"),
        ];
        fs::write(place.at("secret"), "secret").expect("written");
        let mode_before = mode(&place.at("secret"));
        for replace in replacements {
            fs::write(place.at("file"), "content").expect("written");
            let file = place.look("file");
            fs::rename(place.at("file"), place.at("away")).expect("renamed");
            replace(&place.at("file"));
            let info = fs::symlink_metadata(place.at("file")).expect("is there");
            let gone = Err(Errno::NOENT);
            assert_eq!(file.open(OFlags::RDONLY).map(drop), gone);
            assert_eq!(file.check_writable(), gone);
            assert_eq!(file.set_mode(Mode::RUSR), gone);
            assert_eq!(file.set_times(&times()), gone);
            assert!(place.link(&file, "second").is_err() && !place.at("second").exists());
            assert!(place.at("second").symlink_metadata().is_err());
            assert!(file.keep().is_none());
            let now = fs::symlink_metadata(place.at("file")).expect("is there");
            assert_eq!((now.mode(), now.mtime()), (info.mode(), info.mtime()));
            assert_eq!(mode(&place.at("secret")), mode_before);
            match info.is_dir() {
                true => fs::remove_dir(place.at("file")).expect("removed"),
                false => fs::remove_file(place.at("file")).expect("removed"),
            }
        }
        symlink("a", place.at("link")).expect("made");
        let link = place.look("link");
        fs::remove_file(place.at("link")).expect("removed");
        fs::write(place.at("keeps-the-number"), "").expect("written");
        symlink("b", place.at("link")).expect("made");
        assert_eq!(link.link_target(), Err(Errno::NOENT));
    }

    #[test]
    fn a_new_file_has_a_name_and_loses_the_right_to_be_written() {
        let place = Place::new();
        check_handles().expect("nothing is needed");
        let directory = place.directory.as_fd();
        assert!(nameless(directory, Mode::RUSR).expect("there are none").is_none());
        let mut file = fs::File::create(place.at("file")).expect("made");
        file.write_all(b"content").expect("written");
        let named = |name: &'static str| Some((directory, OsStr::new(name)));
        assert_eq!(give_name(file.as_fd(), directory, "b".as_ref()), Err(Errno::OPNOTSUPP));
        assert!(without_writing(file.as_fd(), None).expect("it has no name").is_none());
        let read = without_writing(file.as_fd(), named("file")).expect("opened").expect("readable");
        assert_eq!(std::io::read_to_string(fs::File::from(read)).expect("read"), "content");
        fs::write(place.at("other"), "").expect("written");
        let other = without_writing(file.as_fd(), named("other"));
        assert_eq!(other.map(drop), Err(Errno::NOENT));
    }
}
