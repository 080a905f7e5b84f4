//! The readable part of a damaged store.

mod overlay;
mod rescue;

use std::fmt;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use redb::{ConcurrencyMode, Database, ReadOnlyDatabase};

use crate::lock::FileLock;
use crate::store::redb::{beside, fault, lock, make, scan, sync_directory};
use crate::store::salvage::overlay::{Overlay, View};
use crate::store::salvage::rescue::{Rescued, rescue};
use crate::store::{Change, MemoryStore, REPAIRED, Rows, Store, StoreFault};
use crate::time::millis;

/// The readable part of the file of a damaged [`RedbStore`](crate::store::RedbStore). The file itself
/// is not changed. All rows are held in memory.
///
/// ```
/// use splengine_core::store::{Change, RedbStore, SalvagedStore, Store};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// let path = directory.path().join("batches.redb");
/// RedbStore::open(&path)?.commit(&[Change::set(*b"key", *b"value")])?;
/// let salvaged = SalvagedStore::open(&path)?;
/// assert_eq!(salvaged.get(b"key")?.as_deref(), Some(&b"value"[..]));
/// assert!(salvaged.problems().is_empty());
/// # Ok(())
/// # }
/// ```
pub struct SalvagedStore {
    path: PathBuf,
    rows: MemoryStore,
    count: usize,
    problems: Vec<String>,
    lock: FileLock,
}

/// Result of [`SalvagedStore::repair`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repaired {
    /// Path at which the damaged file is now; `None` when there was none.
    pub damaged: Option<PathBuf>,
    /// Number of rows that the new store holds.
    pub rows: usize,
}

impl SalvagedStore {
    /// Reads what can be read of the store in `path`. Blocks.
    ///
    /// # Errors
    ///
    /// - [`StoreFault::InUse`]: another process uses it.
    /// - [`StoreFault::Io`]: the file can't be opened or the disk can't be read.
    ///
    /// Damage is no error: [`problems`](Self::problems) tells of it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreFault> {
        let path = path.as_ref();
        let lock = lock(path)?;
        let Rescued { rows, problems } = match File::open(path) {
            Ok(file) if file.metadata()?.len() == 0 => {
                Rescued::nothing(format!("`{}` is empty", path.display()))
            }
            Ok(file) => best(&file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Rescued::nothing(format!("`{}` is gone", path.display()))
            }
            Err(error) => return Err(error.into()),
        };
        let count = rows.len();
        let rows = rows.into_iter().collect::<Vec<_>>().into();
        Ok(Self { path: path.to_owned(), rows, count, problems, lock })
    }

    /// Returns what could not be read, in words; empty when all was.
    #[must_use]
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Puts a new store that holds what was readable in the place of the damaged one, which is kept
    /// beside it, with `.damaged-` and the time in its name. Where not all was readable, an engine
    /// removes no output of batches that the new store does not know. Blocks.
    ///
    /// # Errors
    ///
    /// [`StoreFault`] when the new store can't be written. Then the damaged one is where it was.
    pub fn repair(self) -> Result<Repaired, StoreFault> {
        let Self { path, rows, count, problems, lock } = self;
        if !problems.is_empty() {
            // So that nothing is taken for left over that belongs to what could not be read.
            rows.commit(&[Change::set(REPAIRED, problems.join("\n"))])?;
        }
        let new = make(&path, &rows)?;
        let damaged = beside(&path, &format!("damaged-{}", millis(SystemTime::now())));
        // Where the file system has no links, the file is gone for a moment.
        let kept = match std::fs::hard_link(&path, &damaged) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(_) => {
                std::fs::rename(&path, &damaged)?;
                Some(damaged)
            }
            Ok(()) => Some(damaged),
        };
        std::fs::rename(&new, &path)?;
        sync_directory(&path)?;
        drop(lock);
        Ok(Repaired { damaged: kept, rows: count })
    }
}

impl Store for SalvagedStore {
    /// Refuses: a salvaged store can only be read.
    fn commit(&self, _: &[Change]) -> Result<(), StoreFault> {
        Err(StoreFault::Io(io::ErrorKind::ReadOnlyFilesystem.into()))
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        self.rows.get(key)
    }

    fn scan(
        &self,
        from: &[u8],
        until: &[u8],
        backwards: bool,
        most: usize,
    ) -> Result<Rows, StoreFault> {
        self.rows.scan(from, until, backwards, most)
    }
}

impl fmt::Debug for SalvagedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SalvagedStore")
            .field("path", &self.path)
            .field("rows", &self.count)
            .finish_non_exhaustive()
    }
}

enum Opened {
    Whole(Database),
    ReadOnly(ReadOnlyDatabase),
}

/// What the best view shows.
fn best(file: &File) -> Result<Rescued, StoreFault> {
    let mut best: Option<Rescued> = None;
    let views =
        [View::Whole, View::Trusting { other_root: false }, View::Trusting { other_root: true }];
    for view in views {
        let mut reader = Reader { file: file.try_clone()?, view, opened: None };
        if let Err(problem) = reader.open() {
            best.get_or_insert(Rescued::nothing(problem));
            continue;
        }
        let found =
            rescue(&mut |from, until, backwards, most| reader.scan(from, until, backwards, most));
        let is_whole = found.problems.is_empty();
        if best.as_ref().is_none_or(|best| found.rows.len() > best.rows.len()) {
            best = Some(found);
        }
        if is_whole {
            break;
        }
    }
    let mut best = best.unwrap_or_default();
    if best.rows.is_empty() && best.problems.is_empty() {
        best.problems.push("no row can be read".to_owned());
    }
    Ok(best)
}

/// Reads through one view. The crate may panic on what it did not write: then it is opened anew.
struct Reader {
    file: File,
    view: View,
    opened: Option<Opened>,
}

impl Reader {
    fn open(&mut self) -> Result<(), String> {
        let (file, view) = (&self.file, self.view);
        let opened = caught(|| {
            let overlay = Overlay::new(file.try_clone().map_err(|error| error.to_string())?, view)
                .map_err(|error| error.to_string())?;
            let mut builder = Database::builder();
            builder.set_cache_size(CACHE_BYTES);
            let opened = match view {
                View::Whole => builder.create_with_backend(overlay).map(Opened::Whole),
                View::Trusting { .. } => builder
                    .set_concurrency_mode(ConcurrencyMode::MultiWriter)
                    .open_read_only_with_backend(overlay)
                    .map(Opened::ReadOnly),
            };
            opened.map_err(|error| fault(error.into()).to_string())
        })?;
        self.opened = Some(opened);
        Ok(())
    }

    fn scan(
        &mut self,
        from: &[u8],
        until: &[u8],
        backwards: bool,
        most: usize,
    ) -> Result<Rows, String> {
        if self.opened.is_none() {
            self.open()?;
        }
        let Some(opened) = &self.opened else { return Ok(Vec::new()) };
        let read = caught(|| {
            let rows = match opened {
                Opened::Whole(database) => scan(database, from, until, backwards, most),
                Opened::ReadOnly(database) => scan(database, from, until, backwards, most),
            };
            rows.map_err(|error| error.to_string())
        });
        if read.as_ref().is_err_and(|problem| problem == NO_SENSE) {
            let opened = self.opened.take();
            let _ = caught(|| {
                drop(opened);
                Ok(())
            });
        }
        read
    }
}

fn caught<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(NO_SENSE.to_owned()))
}

/// After a panic.
const NO_SENSE: &str = "what is there makes no sense";
const CACHE_BYTES: usize = 64 << 20;
