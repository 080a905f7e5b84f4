//! The free space that is left to the host and to what the engine itself must write.

use std::collections::HashMap;
use std::fmt;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::fs::{CWD, Mode, StatVfs, fstat, fstatvfs, openat};
use tokio::time::Instant;

use crate::os::{SEARCH, device};

/// The floor of free space on a file system, below which no files are written for callers, no inputs and outputs of
/// batches, and no input that waits for its reader; recordings and saved sessions, which have bounds of their own, do
/// not ask. What remains is left to the
/// host, and to the engine's own records.
///
/// One floor holds for each file system that is written to. Got from
/// [`Engine::disk_reserve`](crate::Engine::disk_reserve); cheap to clone, and all clones share what
/// they know of the disk.
///
/// ```
/// use splengine_core::quota::DiskReserve;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let reserve = DiskReserve::new(16 * 1024 * 1024);
/// let directory = std::fs::File::open(std::env::temp_dir())?;
/// if reserve.check(&directory, 4096).is_ok() {
///     // There is room for 4096 bytes more.
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct DiskReserve(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `None` for the default, which depends on the size of the file system.
    floor_bytes: Option<u64>,
    /// By device number.
    known: Mutex<HashMap<u64, Known>>,
    released: OnceLock<AskReleased>,
}

/// Asks a store what it has given back of its reserve.
struct AskReleased(Box<dyn Fn() -> Option<ReleasedSpace> + Send + Sync>);

impl fmt::Debug for AskReleased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AskReleased").finish_non_exhaustive()
    }
}

/// Reserved space that a [`Store`](crate::store::Store) has released on a full disk, and will take
/// again. Until then a [`DiskReserve`] leaves as much free beyond its floor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReleasedSpace {
    /// Number of the device (`st_dev`) that the file system is on.
    pub device: u64,
    /// Size of the space, in bytes.
    pub bytes: u64,
}

impl ReleasedSpace {
    /// `bytes` of the file system on `device`.
    #[must_use]
    pub fn new(device: u64, bytes: u64) -> Self {
        Self { device, bytes }
    }
}

/// What is known of one file system.
#[derive(Debug, Clone, Copy)]
struct Known {
    at: Instant,
    floor_bytes: u64,
    /// What was free then, less what was granted since.
    free_bytes: u64,
}

/// Refusal of a write that would leave less free than the floor of a [`DiskReserve`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the disk is nearly full: {}", self.kept())]
#[non_exhaustive]
pub struct BelowFloor {
    /// The floor, in bytes.
    pub floor_bytes: u64,
    /// The floor of files, where the file system has no more of them.
    pub floor_files: Option<u64>,
}

impl BelowFloor {
    fn kept(&self) -> String {
        match self.floor_files {
            Some(files) => format!("of the files that it can hold, the last {files} are kept free"),
            None => format!("the last {} bytes of it are kept free", self.floor_bytes),
        }
    }
}

impl Known {
    /// Takes `bytes` of what is free, if that leaves `kept_bytes` more than the floor.
    fn take(&mut self, bytes: u64, kept_bytes: u64) -> bool {
        let floor_bytes = self.floor_bytes.saturating_add(kept_bytes);
        let left = self.free_bytes.checked_sub(bytes).filter(|left| *left >= floor_bytes);
        if let Some(left) = left {
            self.free_bytes = left;
        }
        left.is_some()
    }
}

impl DiskReserve {
    /// Maximum of the default floor, in bytes: 256 MiB. On a file system of less than 25 GiB the
    /// default floor is 1 % of its size.
    pub const MAX_DEFAULT_FLOOR_BYTES: u64 = 256 << 20;

    /// A floor of `floor_bytes` on every file system. 0 keeps nothing free.
    #[must_use]
    pub fn new(floor_bytes: u64) -> Self {
        Self::with_floor(Some(floor_bytes))
    }

    fn with_floor(floor_bytes: Option<u64>) -> Self {
        Self(Arc::new(Inner { floor_bytes, known: Mutex::default(), released: OnceLock::new() }))
    }

    /// Leaves free what a store has given back of its reserve, as `ask` tells. Only the first one counts.
    pub(crate) fn leave_released(
        &self,
        ask: impl Fn() -> Option<ReleasedSpace> + Send + Sync + 'static,
    ) {
        let _ = self.0.released.set(AskReleased(Box::new(ask)));
    }

    /// Checks whether `bytes` more may be written to the file system that `file` is on. `file` is
    /// any open file or directory there.
    ///
    /// The kernel is asked once a second, and before every refusal; in between, what was allowed is
    /// subtracted from what was free. File systems that do not report their size count as having space.
    /// Of the files (inodes) that a file system can hold, the last 1 % are kept free, 10,000 at most. Like all
    /// access to a disk, this may block.
    ///
    /// # Errors
    ///
    /// [`BelowFloor`] when less than the floor would be left, of space or of files.
    pub fn check(&self, file: impl AsFd, bytes: u64) -> Result<(), BelowFloor> {
        let released = self.0.released.get().and_then(|ask| (ask.0)());
        if self.0.floor_bytes == Some(0) && released.is_none() {
            return Ok(());
        }
        let Ok(stat) = fstat(&file) else { return Ok(()) };
        let device = device(&stat);
        let released = released.filter(|released| released.device == device);
        let kept_bytes = released.map_or(0, |released| released.bytes);
        if self.grant(device, bytes, kept_bytes) {
            return Ok(());
        }
        let Ok(space) = fstatvfs(&file) else { return Ok(()) };
        let floor_bytes = self.floor_on(&space);
        if space.f_blocks == 0 {
            return Ok(());
        }
        let floor_files = (space.f_files / 100).min(MAX_FLOOR_FILES);
        if space.f_favail < floor_files {
            return Err(BelowFloor { floor_bytes, floor_files: Some(floor_files) });
        }
        let free_bytes = space.f_bavail.saturating_mul(space.f_frsize);
        let mut known = Known { at: Instant::now(), floor_bytes, free_bytes };
        // Whatever time passes from here on, this is what is free.
        let is_granted = known.take(bytes, kept_bytes);
        let mut all = self.lock();
        if all.len() >= MAX_KNOWN && !all.contains_key(&device) {
            all.clear();
        }
        all.insert(device, known);
        drop(all);
        match is_granted {
            true => Ok(()),
            false => {
                let floor_bytes = floor_bytes.saturating_add(kept_bytes);
                Err(BelowFloor { floor_bytes, floor_files: None })
            }
        }
    }

    /// Checks the same of the file system that `directory` is on. A directory that can't be opened
    /// counts as having space: the write itself then fails with the cause.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check).
    pub fn check_directory(&self, directory: &Path, bytes: u64) -> Result<(), BelowFloor> {
        match openat(CWD, directory, SEARCH, Mode::empty()) {
            Ok(directory) => self.check(directory, bytes),
            Err(_) => Ok(()),
        }
    }

    fn floor_on(&self, space: &StatVfs) -> u64 {
        let size = space.f_blocks.saturating_mul(space.f_frsize);
        self.0.floor_bytes.unwrap_or((size / 100).min(Self::MAX_DEFAULT_FLOOR_BYTES))
    }

    /// Takes `bytes` of what is known to be free, if that was asked for within a second and is enough.
    fn grant(&self, device: u64, bytes: u64, kept_bytes: u64) -> bool {
        let mut all = self.lock();
        let known = all.get_mut(&device).filter(|known| known.at.elapsed() < FRESH_FOR);
        known.is_some_and(|known| known.take(bytes, kept_bytes))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Known>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for DiskReserve {
    /// A floor of 256 MiB, or 1 % of the file system where that is less.
    fn default() -> Self {
        Self::with_floor(None)
    }
}

const FRESH_FOR: Duration = Duration::from_secs(1);
/// Maximum of the files that are kept free.
const MAX_FLOOR_FILES: u64 = 10_000;
/// Maximum number of file systems that are remembered.
const MAX_KNOWN: usize = 64;

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn what_would_leave_less_than_the_floor_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = File::open(directory.path()).expect("opened");
        let space = fstatvfs(&file).expect("a file system");
        let free = space.f_bavail * space.f_frsize;
        assert_eq!(DiskReserve::new(0).check(&file, u64::MAX), Ok(()));
        let reserve = DiskReserve::new(free / 2);
        assert_eq!(reserve.check(&file, 1), Ok(()));
        assert_eq!(
            reserve.check(&file, free),
            Err(BelowFloor { floor_bytes: free / 2, floor_files: None })
        );
        assert_eq!(reserve.check_directory(directory.path(), 1), Ok(()));
        assert!(reserve.check_directory(directory.path(), free).is_err());
        assert!(DiskReserve::new(u64::MAX).check(&file, 0).is_err());
    }

    #[test]
    fn what_was_allowed_counts_until_the_kernel_is_asked_again() {
        let reserve = DiskReserve::new(100);
        // Fresh for as long as this takes.
        let at = Instant::now() + FRESH_FOR * 60;
        let known = Known { at, floor_bytes: 100, free_bytes: 300 };
        reserve.lock().insert(7, known);
        assert!(reserve.grant(7, 150, 0) && !reserve.grant(7, 51, 0));
        assert!(!reserve.grant(7, 50, 1) && reserve.grant(7, 50, 0));
        assert!(!reserve.grant(7, 1, 0) && !reserve.grant(8, 1, 0));
    }

    #[test]
    fn the_default_floor_is_a_part_of_a_small_file_system() {
        let file = File::open(std::env::temp_dir()).expect("opened");
        let mut space = fstatvfs(file).expect("a file system");
        let reserve = DiskReserve::default();
        (space.f_blocks, space.f_frsize) = (1_000_000, 1000);
        assert_eq!(reserve.floor_on(&space), 10_000_000);
        space.f_blocks = u64::MAX;
        assert_eq!(reserve.floor_on(&space), DiskReserve::MAX_DEFAULT_FLOOR_BYTES);
        assert_eq!(DiskReserve::new(5).floor_on(&space), 5);
    }
}
