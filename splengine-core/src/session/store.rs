//! Sessions on disk.
//!
//! One directory, used by one engine at a time:
//!
//! - `<session id>/state`: the session as it was a moment ago, to be told of after a crash;
//! - `<session id>/recording.cast` and `<session id>/keyframes`: its recording;
//! - `saved/<saved id>`: what was saved on purpose;
//! - `damaged/<session id>`: the files of a session whose `state` could not be read, kept for whoever
//!   can make something of them.
//!
//! A record is one line of JSON (format, version, checksum), a line of JSON (what is known of the
//! session), and the bytes that draw its screen. It is written beside its place and moved there.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, DirBuilder, DirBuilderExt as _, OpenOptions, OpenOptionsExt as _};

use crate::ids::{SavedId, SessionId, random_text};
use crate::lock::{FileLock, LockError};
use crate::session::record::Record;
use crate::session::saved_index::{SavedBounds, SavedIndex};
use crate::session::stored::StoredScreen;
use crate::session::{SavedInfo, SessionError};
use crate::user_name::UserName;

/// The directory of an engine's sessions.
#[derive(Debug)]
pub(crate) struct Store {
    dir: Dir,
    saved: Dir,
    index: Mutex<SavedIndex>,
    /// Held as long as this engine lives.
    _lock: FileLock,
}

impl Store {
    /// Opens and locks the directory, which is made when it is not there. Blocks for up to 2 seconds
    /// while another engine uses it.
    pub(crate) fn open(path: &Path) -> Result<Self, LockError> {
        let failed = LockError::Io;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let dir = Dir::open_ambient_dir(path, ambient_authority()).map_err(failed)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let lock = dir.open_with(".lock", &options).map_err(failed)?.into_std();
        let lock = FileLock::acquire(lock)?;
        make_dir(&dir, SAVED).map_err(failed)?;
        let saved = dir.open_dir(SAVED).map_err(failed)?;
        Ok(Self { dir, saved, index: Mutex::default(), _lock: lock })
    }

    /// The files of one session, made when they are not there.
    pub(crate) fn session(&self, id: &SessionId) -> io::Result<SessionFiles> {
        make_dir(&self.dir, id.as_str())?;
        Ok(SessionFiles { dir: self.dir.open_dir(id.as_str())? })
    }

    /// The files of all sessions that there are some of, where they can be opened.
    pub(crate) fn sessions(&self) -> io::Result<Vec<(SessionId, io::Result<SessionFiles>)>> {
        let mut sessions = Vec::new();
        for entry in self.dir.entries()? {
            let entry = entry?;
            if let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                sessions.push((id, entry.open_dir().map(|dir| SessionFiles { dir })));
            }
        }
        Ok(sessions)
    }

    pub(crate) fn remove_session(&self, id: &SessionId) {
        if let Err(error) = crate::flat_dir::remove(&self.dir, id.as_str())
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, session = %id, "the files of a session can't be removed");
        }
    }

    /// Moves the files of a session whose state can't be read to where nothing touches them, and gives
    /// the name of the directory that they are in.
    pub(crate) fn set_aside(&self, id: &SessionId) -> io::Result<String> {
        make_dir(&self.dir, DAMAGED)?;
        let mut aside = format!("{DAMAGED}/{id}");
        if self.dir.try_exists(&aside)? {
            aside = format!("{aside}.{}", random_text());
        }
        self.dir.rename(id.as_str(), &self.dir, &aside)?;
        Ok(aside)
    }

    /// How many sessions' files were set aside, by this process or those before, and are there yet.
    pub(crate) fn set_aside_count(&self) -> io::Result<usize> {
        match self.dir.read_dir(DAMAGED) {
            Ok(entries) => Ok(entries.count()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Reads the records of all that is saved, once, and returns what can't be read, and why. The bytes
    /// that draw screens are not read, so that it takes no longer the larger they are: what is damaged in
    /// these is told when one is loaded.
    pub(crate) fn index_saved(&self) -> io::Result<Vec<(SavedId, SessionError)>> {
        let mut unreadable = Vec::new();
        for entry in self.saved.entries()? {
            let entry = entry?;
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            match self.saved(&id).and_then(|(record, _)| info_of(&record, &id)) {
                Ok(info) => {
                    let bytes = entry.metadata().map_or(0, |metadata| metadata.len());
                    self.index().insert(info, bytes);
                }
                Err(error) => unreadable.push((id, error)),
            }
        }
        Ok(unreadable)
    }

    /// Why nothing can be written, if so: finds out by doing it.
    pub(crate) fn probe(&self) -> io::Result<()> {
        let written = open_new(&self.dir, PROBE).and_then(|mut file| file.write_all(&[0; 4096]));
        // One that nobody waited for any more may have removed it.
        let removed = match self.dir.remove_file(PROBE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        };
        written.and(removed)
    }

    /// Writes down a session on purpose, where there are bounds only within these.
    ///
    /// # Errors
    ///
    /// [`SessionError::CallerLimit`], and those of the disk.
    pub(crate) fn save(
        &self,
        record: &Record,
        screen: &[u8],
        bounds: Option<SavedBounds>,
    ) -> Result<SavedInfo, SessionError> {
        let info = info_of(record, &SavedId::new())?;
        let head = record.head(screen).map_err(SessionError::of_io)?;
        let bytes = (head.len() + screen.len()) as u64;
        self.index().reserve(&info.user, bytes, bounds)?;
        let written = write(&self.saved, info.id.as_str(), &[&head, screen], true);
        let mut index = self.index();
        index.release(&info.user, bytes);
        written.map_err(SessionError::of_io)?;
        index.insert(info.clone(), bytes);
        Ok(info)
    }

    /// Opens a saved session of any user.
    pub(crate) fn saved(&self, id: &SavedId) -> Result<(Record, StoredScreen), SessionError> {
        let opened = StoredScreen::open(&self.saved, id.as_str());
        if matches!(opened, Err(SessionError::NoSaved(_))) {
            // Somebody has removed it by hand.
            self.index().remove(id);
        }
        opened
    }

    /// Returns what is known of a saved session without reading it, whoever it belongs to; `None` for
    /// one that is not in the index, or whose file was removed by hand.
    pub(crate) fn saved_info(&self, id: &SavedId) -> Option<SavedInfo> {
        let info = self.index().get(id).cloned()?;
        if self.saved.try_exists(id.as_str()).is_ok_and(|exists| !exists) {
            self.index().remove(id);
            return None;
        }
        Some(info)
    }

    /// Returns whether a saved session may belong to `user`: `false` if it is known to be another's.
    pub(crate) fn may_be_of(&self, id: &SavedId, user: &UserName) -> bool {
        self.index().owner(id).is_none_or(|owner| owner == user)
    }

    /// Returns the saved sessions of `user`, without a look at the disk.
    pub(crate) fn saved_of(&self, user: &UserName) -> Vec<SavedInfo> {
        self.index().saved_of(user)
    }

    pub(crate) fn remove_saved(&self, id: &SavedId) -> io::Result<()> {
        // It may hold variables with secrets. What the file system makes of that is its own.
        let opened = self.saved.open_with(id.as_str(), OpenOptions::new().write(true));
        if let Ok(file) = opened {
            let _ = crate::flat_dir::wipe(&file.into_std());
        }
        self.saved.remove_file(id.as_str())?;
        self.index().remove(id);
        Ok(())
    }

    fn index(&self) -> MutexGuard<'_, SavedIndex> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The files of one session.
#[derive(Debug)]
pub(crate) struct SessionFiles {
    dir: Dir,
}

impl SessionFiles {
    pub(crate) fn write_state(&self, record: &Record, screen: &[u8]) -> io::Result<()> {
        write(&self.dir, STATE, &[&record.head(screen)?, screen], false)
    }

    pub(crate) fn state(&self) -> Result<(Record, StoredScreen), SessionError> {
        StoredScreen::open(&self.dir, STATE)
    }

    /// New files for a recording and its keyframes.
    pub(crate) fn new_recording(&self) -> io::Result<(File, File)> {
        Ok((open_new(&self.dir, CAST)?, open_new(&self.dir, KEYFRAMES)?))
    }

    /// A recording and its keyframes, to be continued.
    pub(crate) fn open_recording(&self) -> io::Result<(File, File)> {
        let open = |name| {
            let file = self.dir.open_with(name, OpenOptions::new().read(true).write(true))?;
            Ok::<_, io::Error>(file.into_std())
        };
        Ok((open(CAST)?, open(KEYFRAMES)?))
    }

    /// The recording and its keyframes.
    pub(crate) fn recording(&self) -> io::Result<(File, File)> {
        let open = |name| self.dir.open(name).map(|file| file.into_std());
        Ok((open(CAST)?, open(KEYFRAMES)?))
    }
}

fn make_dir(dir: &Dir, name: &str) -> io::Result<()> {
    match dir.create_dir_with(name, DirBuilder::new().mode(0o700)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn open_new(dir: &Dir, name: &str) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    Ok(dir.open_with(name, &options)?.into_std())
}

fn info_of(record: &Record, id: &SavedId) -> Result<SavedInfo, SessionError> {
    record.saved_info(id.clone()).ok_or(SessionError::Damaged("it names no user"))
}

fn write(dir: &Dir, name: &str, parts: &[&[u8]], sync: bool) -> io::Result<()> {
    let beside = format!(".{}", random_text());
    let written = (|| {
        let mut file = open_new(dir, &beside)?;
        for part in parts {
            file.write_all(part)?;
        }
        if sync {
            file.sync_all()?;
        }
        dir.rename(&beside, dir, name)
    })();
    if written.is_err() {
        let _ = dir.remove_file(&beside);
    }
    written
}

const SAVED: &str = "saved";
const DAMAGED: &str = "damaged";
const PROBE: &str = ".probe";
const STATE: &str = "state";
const CAST: &str = "recording.cast";
const KEYFRAMES: &str = "keyframes";
