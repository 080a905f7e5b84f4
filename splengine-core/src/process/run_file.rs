//! The runs that are going on, in a file: after a crash, what they have left running is found by it.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use crate::lock::once_free;
use crate::process::tag::Tag;
use crate::process::tree::kill_tagged_now;

/// The file of one executor, which is locked for as long as its process lives. Removed when dropped, if no run is in
/// it.
///
/// Each run has a place of 8 bytes, which holds its tag while it is going on, and zero else. It is written before the
/// run's first process starts, and not synced: it need only outlive this process, as its runs do.
#[derive(Debug)]
pub(crate) struct RunFile {
    file: File,
    path: PathBuf,
    places: Mutex<Places>,
    has_failed: AtomicBool,
}

#[derive(Debug, Default)]
struct Places {
    free: Vec<u64>,
    /// How many there are in all.
    count: u64,
}

/// Note of one run, taken out when dropped.
#[derive(Debug)]
pub(crate) struct RunNote {
    file: Arc<RunFile>,
    place: u64,
}

impl RunFile {
    /// Ends what runs have left running whose executors were killed, and begins a file in `directory`, which is made
    /// where it is missing. Returns it with the number of processes that were ended. Blocks.
    pub(crate) fn open(directory: &Path) -> io::Result<(Arc<Self>, usize)> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let ended = end_abandoned(directory)?;
        for _ in 0..TRIES {
            let mut random = [0; 8];
            getrandom::fill(&mut random).map_err(io::Error::other)?;
            let path = directory.join(format!("{PREFIX}{:016x}", u64::from_ne_bytes(random)));
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
            // Another that begins may take it for one of a dead executor until it is locked.
            let is_locked = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
            if is_locked && file.metadata()?.nlink() > 0 {
                let (places, has_failed) = (Mutex::default(), AtomicBool::new(false));
                return Ok((Arc::new(Self { file, path, places, has_failed }), ended));
            }
        }
        Err(io::Error::new(io::ErrorKind::WouldBlock, "others remove each file that is made"))
    }

    /// Notes a run that is about to start.
    pub(crate) fn note(self: &Arc<Self>, tag: Tag) -> RunNote {
        let place = {
            let mut places = self.places();
            places.free.pop().unwrap_or_else(|| {
                places.count += 1;
                places.count - 1
            })
        };
        self.write(place, tag.number());
        RunNote { file: Arc::clone(self), place }
    }

    /// No run fails for the sake of its note.
    fn write(&self, place: u64, number: u64) {
        let written = self.file.write_all_at(&number.to_le_bytes(), place * PLACE_BYTES);
        if let Err(error) = written
            && !self.has_failed.swap(true, Relaxed)
        {
            let file = self.path.display();
            tracing::warn!(%error, %file, "runs can't be noted: after a crash they may be left running");
        }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RunFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Drop for RunNote {
    fn drop(&mut self) {
        self.file.write(self.place, 0);
        self.file.places().free.push(self.place);
    }
}

/// Ends what is left of the runs in files that no process holds, and removes the files.
fn end_abandoned(directory: &Path) -> io::Result<usize> {
    let mut ended = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let path = entry.path();
        let Some(mut file) = open(&path)? else { continue };
        let locked = once_free(
            || flock(&file, FlockOperation::NonBlockingLockExclusive),
            |error| *error == Errno::WOULDBLOCK,
        );
        match locked {
            Ok(()) => {}
            // Another executor, which lives.
            Err(Errno::WOULDBLOCK) => continue,
            Err(error) => return Err(error.into()),
        }
        let mut bytes = Vec::new();
        Read::by_ref(&mut file).take(MAX_BYTES).read_to_end(&mut bytes)?;
        let numbers = bytes.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
        let tags: HashSet<Tag> = numbers.filter_map(Tag::from_number).collect();
        ended += kill_tagged_now(&tags);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(ended)
}

/// A file of notes. Commands run as the same user, and may put something else in its place, which is let be.
fn open(path: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => {
            tracing::warn!(error = %io::Error::from(error), file = %path.display(), "no file of runs");
            return Ok(None);
        }
    };
    if file.metadata()?.is_file() {
        return Ok(Some(file));
    }
    tracing::warn!(file = %path.display(), "no file of runs, since it is no file");
    Ok(None)
}

const PREFIX: &str = "runs-";
const PLACE_BYTES: u64 = 8;
/// So much of a file is read.
const MAX_BYTES: u64 = 1 << 20;
const TRIES: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(file: &RunFile) -> Vec<u64> {
        let bytes = fs::read(&file.path).expect("there");
        bytes.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect()
    }

    #[test]
    fn what_is_going_on_is_in_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let directory = dir.path().join("a/b");
        let (file, _) = RunFile::open(&directory).expect("opened");
        let [one, other, third] = [(); 3].map(|()| Tag::new());
        let (first, second) = (file.note(one), file.note(other));
        assert_eq!(tags(&file), [one.number(), other.number()]);
        drop(first);
        let again = file.note(third);
        assert_eq!(tags(&file), [third.number(), other.number()], "the place is free again");
        drop((second, again));
        assert_eq!(tags(&file), [0, 0]);
        // One that lives is left alone.
        let (beside, _) = RunFile::open(&directory).expect("opened");
        assert!(file.path.exists());
        // What is no file of runs is let be.
        let mut names =
            ["fifo", "dir", "link"].map(|name| directory.join(format!("{PREFIX}{name}")));
        rustix::fs::mkfifoat(rustix::fs::CWD, &names[0], Mode::RWXU).expect("made");
        fs::create_dir(&names[1]).expect("made");
        std::os::unix::fs::symlink("nowhere", &names[2]).expect("made");
        drop(RunFile::open(&directory).expect("opened"));
        names.rotate_left(1);
        fs::remove_dir(&names[0]).expect("there");
        names[1..].iter().for_each(|name| fs::remove_file(name).expect("there"));
        drop((file, beside));
        assert_eq!(fs::read_dir(&directory).expect("there").count(), 0);
    }
}
