//! The bytes that callers' files hold, and the bound on them.
//!
//! A file belongs to whoever wrote to it last through the engine; an attribute of it says so. Their
//! sizes are counted when the engine is built. From then on each change is, by those that make it:
//! they hold what they change as [`Tracked`]. What programs remove or write is seen when all is
//! counted again, which is done before a caller is refused.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{FileType, Stat, fstat, ftruncate};
use rustix::io::Errno;
use tokio::time::Instant;

use crate::files::error::shown;
use crate::files::resolve::Entry as Name;
use crate::files::{FileError, owner_of, set_owner, visit_owned};
use crate::os::{Handle, Identity, identity};
use crate::user_name::UserName;

/// The bytes that each caller's files hold.
#[derive(Debug)]
pub(crate) struct Usage {
    max_bytes: u64,
    root: OwnedFd,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    bytes: HashMap<UserName, u64>,
    /// Files that are held by this process; what the attribute says is read here instead.
    held: HashMap<Identity, OpenFileUse>,
    /// Directories that are being renamed.
    moving: usize,
    /// While all is being counted.
    recount: Option<Recount>,
    counted: Instant,
    /// How long that took.
    took: Duration,
}

/// A file that is open, or about to lose a name.
#[derive(Debug)]
struct OpenFileUse {
    holders: usize,
    owner: Option<UserName>,
    /// As large as it is, or as those who write to it are allowed to make it.
    size: u64,
    is_directory: bool,
}

#[derive(Debug, Default)]
struct Recount {
    found: HashMap<UserName, u64>,
    /// Files that were held since it began, and what they were left at.
    touched: HashMap<Identity, Option<(UserName, u64)>>,
    /// A whole directory may have gone from where nobody had looked yet to where somebody had.
    may_miss: bool,
}

/// A file or a directory that is held. When nobody holds it any more, it counts with its size then;
/// one without a name with none.
#[derive(Debug)]
pub(crate) struct Tracked {
    file: OwnedFd,
    /// `None` where nothing is bounded.
    usage: Option<(Arc<Usage>, Identity)>,
}

/// A directory is being renamed.
pub(crate) struct Moving(Arc<Usage>);

impl Usage {
    /// Counts all below `root`. Like all access to a disk, this may block, and for long.
    pub(crate) fn count(root: OwnedFd, max_bytes: u64) -> Arc<Self> {
        let state = State {
            bytes: HashMap::new(),
            held: HashMap::new(),
            moving: 0,
            recount: None,
            counted: Instant::now(),
            took: Duration::ZERO,
        };
        let usage = Arc::new(Self { max_bytes, root, state: Mutex::new(state) });
        usage.lock().recount = Some(Recount::default());
        if !usage.walk() {
            tracing::warn!(
                "not all files below root could be looked at: callers may hold more than is counted"
            );
        }
        usage
    }

    /// Counts anew, unless that was done just now; whether it was.
    fn count_again(&self) -> bool {
        let mut state = self.lock();
        let rest = (state.took * REST_FACTOR).max(MIN_REST);
        if state.recount.is_some() || state.counted.elapsed() < rest {
            return false;
        }
        let touched = state.held.keys().map(|id| (*id, None)).collect();
        let recount = Recount { touched, may_miss: state.moving > 0, ..Recount::default() };
        state.recount = Some(recount);
        drop(state);
        self.walk();
        true
    }

    /// Counts, after it was noted that this is done; whether all was found.
    fn walk(&self) -> bool {
        let begun = Instant::now();
        let is_complete = visit_owned(self.root.as_fd(), |owned| {
            if let Some(recount) = &mut self.lock().recount
                && !recount.touched.contains_key(&owned.id)
            {
                let sum = recount.found.entry(owned.owner).or_default();
                *sum = sum.saturating_add(cost(owned.size));
            }
        });
        let mut state = self.lock();
        let Some(mut recount) = state.recount.take() else { return false };
        for (id, left) in recount.touched {
            let now = state.held.get(&id).map(OpenFileUse::charge).unwrap_or(left);
            if let Some((owner, bytes)) = now {
                let sum = recount.found.entry(owner).or_default();
                *sum = sum.saturating_add(bytes);
            }
        }
        if recount.may_miss || !is_complete {
            for (owner, bytes) in &state.bytes {
                let sum = recount.found.entry(owner.clone()).or_default();
                *sum = (*sum).max(*bytes);
            }
        }
        state.bytes = recount.found;
        (state.counted, state.took) = (Instant::now(), begun.elapsed());
        is_complete
    }

    /// A directory is about to be renamed, until this is dropped.
    pub(crate) fn moving(self: &Arc<Self>) -> Moving {
        let mut state = self.lock();
        state.moving += 1;
        if let Some(recount) = &mut state.recount {
            recount.may_miss = true;
        }
        Moving(Arc::clone(self))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        self.0.lock().moving -= 1;
    }
}

impl OpenFileUse {
    /// Who is charged for it, and with how much.
    fn charge(&self) -> Option<(UserName, u64)> {
        Some((self.owner.clone()?, self.cost()))
    }

    fn cost(&self) -> u64 {
        cost(self.size)
    }
}

impl Tracked {
    /// Holds an open file, which may be open as a path only.
    pub(crate) fn new(
        usage: Option<&Arc<Usage>>,
        file: OwnedFd,
        path: &Path,
    ) -> Result<Self, FileError> {
        let Some(usage) = usage else { return Ok(Self { file, usage: None }) };
        let stat = fstat(&file).map_err(FileError::of(path))?;
        let id = identity(&stat);
        let mut state = usage.lock();
        match state.held.entry(id) {
            Entry::Occupied(mut held) => held.get_mut().holders += 1,
            Entry::Vacant(place) => {
                let owner = match owner_of(&file) {
                    // Some program took the right to read it: what it holds is told by a count.
                    Err(Errno::ACCESS) => None,
                    owner => owner.map_err(FileError::of(path))?,
                };
                let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                let size = if is_directory { 0 } else { size_of(&stat) };
                place.insert(OpenFileUse { holders: 1, owner, size, is_directory });
                if let Some(recount) = &mut state.recount {
                    recount.touch(id, None);
                }
            }
        }
        drop(state);
        Ok(Self { file, usage: Some((Arc::clone(usage), id)) })
    }

    /// Holds the same file by another descriptor; the one before is closed.
    pub(crate) fn hold_by(&mut self, file: OwnedFd) {
        self.file = file;
    }

    /// Holds what has a name, if anything has.
    pub(crate) fn of_name(
        usage: Option<&Arc<Usage>>,
        name: &Name,
        path: &Path,
    ) -> Result<Option<Self>, FileError> {
        if usage.is_none() {
            return Ok(None);
        }
        match Handle::look(name.directory.as_fd(), &name.name) {
            Ok((handle, _)) => handle.keep().map(|file| Self::new(usage, file, path)).transpose(),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(FileError::of_errno(path, error)),
        }
    }

    /// Whether what it holds is counted.
    pub(crate) fn is_counted(&self) -> bool {
        self.usage.is_some()
    }

    /// Makes it a caller's, with room for it up to `end`: before anything is written.
    pub(crate) fn claim(&self, user: &UserName, end: u64, path: &Path) -> Result<(), FileError> {
        self.charge(user, |size| size.max(end), path)
    }

    /// The same with room for `bytes` more than there is.
    pub(crate) fn claim_more(
        &self,
        user: &UserName,
        bytes: u64,
        path: &Path,
    ) -> Result<(), FileError> {
        self.charge(user, |size| size.saturating_add(bytes), path)
    }

    fn charge(
        &self,
        user: &UserName,
        size: impl Fn(u64) -> u64,
        path: &Path,
    ) -> Result<(), FileError> {
        let Some((usage, id)) = &self.usage else { return Ok(()) };
        if self.try_charge(usage, *id, user, &size, path)?
            || (usage.count_again() && self.try_charge(usage, *id, user, &size, path)?)
        {
            return Ok(());
        }
        Err(FileError::OverQuota { path: shown(path), limit: usage.max_bytes })
    }

    /// Whether there was room for it.
    fn try_charge(
        &self,
        usage: &Usage,
        id: Identity,
        user: &UserName,
        size: impl Fn(u64) -> u64,
        path: &Path,
    ) -> Result<bool, FileError> {
        let mut state = usage.lock();
        let used = state.used(user);
        let Some(held) = state.held.get_mut(&id) else { return Ok(true) };
        let is_own = held.owner.as_ref() == Some(user);
        let size = size(held.size);
        let (before, now) = (if is_own { held.cost() } else { 0 }, cost(size));
        let would_be = used.saturating_sub(before).saturating_add(now);
        if now > before && would_be > usage.max_bytes {
            return Ok(false);
        }
        let mut other = None;
        if !is_own {
            set_owner(&self.file, user).map_err(|error| match error {
                Errno::OPNOTSUPP => FileError::impossible(path, NO_ATTRIBUTES),
                error => FileError::of_errno(path, error),
            })?;
            other = held.charge();
            held.owner = Some(user.clone());
        }
        held.size = size;
        state.set_used(user, would_be);
        if let Some((other, bytes)) = other {
            state.change(&other, bytes, 0);
        }
        Ok(true)
    }

    /// Cuts it to `size` bytes, or fills it up with zeros, which takes room.
    pub(crate) fn resize(&self, user: &UserName, size: u64, path: &Path) -> Result<(), FileError> {
        let is_larger = size > size_of(&fstat(&self.file).map_err(FileError::of(path))?);
        if is_larger {
            self.claim(user, size, path)?;
        }
        ftruncate(&self.file, size).map_err(FileError::of(path))?;
        if let Some((usage, id)) = self.usage.as_ref().filter(|_| !is_larger) {
            usage.lock().settle(*id, size);
        }
        Ok(())
    }
}

impl State {
    fn used(&self, user: &UserName) -> u64 {
        self.bytes.get(user).copied().unwrap_or_default()
    }

    fn set_used(&mut self, user: &UserName, bytes: u64) {
        match bytes {
            0 => drop(self.bytes.remove(user)),
            _ => drop(self.bytes.insert(user.clone(), bytes)),
        }
    }

    /// Counts `now` instead of `before` for a user's file.
    fn change(&mut self, user: &UserName, before: u64, now: u64) {
        let used = self.used(user).saturating_sub(before).saturating_add(now);
        self.set_used(user, used);
    }

    /// Counts a file with this size from now on.
    fn settle(&mut self, id: Identity, size: u64) {
        let Some(held) = self.held.get_mut(&id) else { return };
        let before = held.charge();
        held.size = size;
        if let Some((owner, bytes)) = before {
            self.change(&owner, bytes, cost(size));
        }
    }

    fn release(&mut self, id: Identity, file: BorrowedFd<'_>) {
        let Some(held) = self.held.get_mut(&id) else { return };
        held.holders -= 1;
        if held.holders > 0 {
            return;
        }
        let Some(held) = self.held.remove(&id) else { return };
        let stat = fstat(file).ok();
        let mut left = held.charge();
        if let (Some((owner, bytes)), Some(stat)) = (&mut left, stat) {
            let now = match stat.st_nlink {
                0 => 0,
                _ if held.is_directory => cost(0),
                _ => cost(size_of(&stat)),
            };
            self.change(owner, *bytes, now);
            *bytes = now;
        }
        if let Some(recount) = &mut self.recount {
            recount.touch(id, left);
        }
    }
}

impl Recount {
    fn touch(&mut self, id: Identity, left: Option<(UserName, u64)>) {
        if self.touched.len() < MAX_TOUCHED || self.touched.contains_key(&id) {
            self.touched.insert(id, left);
        } else {
            self.may_miss = true;
        }
    }
}

impl AsFd for Tracked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        if let Some((usage, id)) = &self.usage {
            usage.lock().release(*id, self.file.as_fd());
        }
    }
}

/// What a file takes of most file systems: whole blocks, and one for itself.
fn cost(size: u64) -> u64 {
    size.checked_next_multiple_of(BLOCK_BYTES).unwrap_or(u64::MAX).saturating_add(BLOCK_BYTES)
}

fn size_of(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or_default()
}

const NO_ATTRIBUTES: &str = "is on a file system that can't note whose it is, as the quota demands";
const BLOCK_BYTES: u64 = 4096;
/// After a count there is none for so many times as long as it took, and [`MIN_REST`] at least.
const REST_FACTOR: u32 = 20;
const MIN_REST: Duration = Duration::from_millis(500);
/// Maximum number of files that are held during a count and told apart; beyond it, the count lowers
/// nobody's sum.
const MAX_TOUCHED: usize = 65_536;
