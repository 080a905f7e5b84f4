use std::fmt;
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use redb::backends::FileBackend;
use redb::{Database, DatabaseError, ReadableDatabase, TableDefinition};

use crate::lock::{FileLock, LockError};
use crate::quota::ReleasedSpace;
use crate::store::reserve::Reserve;
use crate::store::{Change, MemoryStore, Rows, Store, StoreFault};

/// A [`Store`] in one file, by the crate `redb`. One process uses it at a time.
///
/// Beside the file `NAME` are `NAME.lock`, which names the process that uses it; `NAME.exists`, which
/// shows that there was a store if its file is lost; and `NAME.reserve`, which reserves [some
/// space](Self::DEFAULT_RESERVE_BYTES) on the disk: when the disk is full the store uses that space, so
/// that accepted batches can be cancelled, ended and resumed; new work is refused until there is space
/// for the reserve again. All of them are mode 0600.
///
/// ```
/// use splengine_core::store::{Change, RedbStore, Store, StoreFault};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// let path = directory.path().join("batches.redb");
/// let store = RedbStore::open(&path)?;
/// store.commit(&[Change::set(*b"key", *b"value")])?;
/// drop(store);
/// assert_eq!(RedbStore::open(&path)?.get(b"key")?.as_deref(), Some(&b"value"[..]));
///
/// // A store that is gone is not taken for a new one.
/// std::fs::remove_file(&path)?;
/// assert!(matches!(RedbStore::open(&path), Err(StoreFault::Damaged(_))));
/// # Ok(())
/// # }
/// ```
pub struct RedbStore {
    path: PathBuf,
    /// `None` after a failure, until it could be opened again.
    database: RwLock<Option<Database>>,
    reserve: Reserve,
    /// Number of the device that it is on.
    device: u64,
    _lock: FileLock,
}

impl RedbStore {
    /// Space that is reserved on the disk for a store, in bytes: 8 MiB.
    pub const DEFAULT_RESERVE_BYTES: u64 = 8 << 20;

    /// Opens the store in this file, which is made when there was none, with its directory. Blocks
    /// for up to 2 seconds while another process uses it: a child that a killed process was just
    /// starting holds its files a moment longer. Reads the whole file, to find damage before anything
    /// is done with it.
    ///
    /// # Errors
    ///
    /// - [`StoreFault::InUse`]: another process uses it.
    /// - [`StoreFault::Damaged`]: it is not what was written; also when the file is gone or empty
    ///   though there was a store. It is left as it is. [`SalvagedStore`](crate::store::SalvagedStore)
    ///   reads what can be read.
    /// - [`StoreFault::Full`], [`StoreFault::Io`]: the disk is full, or the file can't be opened or
    ///   read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreFault> {
        Self::open_with_reserve(path, Self::DEFAULT_RESERVE_BYTES)
    }

    /// Opens a store as [`open`](Self::open) does, with another reserve than the default; 0 reserves
    /// nothing.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_with_reserve(path: impl AsRef<Path>, bytes: u64) -> Result<Self, StoreFault> {
        let path = path.as_ref();
        if let Some(directory) = path.parent() {
            use std::os::unix::fs::DirBuilderExt as _;
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let lock = lock(path)?;
        let reserve = Reserve::new(beside(path, "reserve"), bytes);
        let database = loop {
            match found(path) {
                // It must be possible on a full disk.
                Err(StoreFault::Full) if reserve.release() => {}
                found => break found?,
            }
        };
        let store = Self {
            path: path.to_owned(),
            database: RwLock::new(Some(database)),
            reserve,
            device: path.metadata()?.dev(),
            _lock: lock,
        };
        // So that reading never meets a table that is not there.
        store.commit(&[])?;
        if let Err(error) = store.reserve.restore() {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "there is no room on the disk for the store's reserve");
        }
        Ok(store)
    }

    fn with<T>(
        &self,
        work: impl Fn(&Database) -> Result<T, Box<redb::Error>>,
    ) -> Result<T, StoreFault> {
        {
            let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
            match database.as_ref().map(&work) {
                Some(Ok(done)) => return Ok(done),
                // After a failed write it answers nothing more until it is opened anew.
                Some(Err(error)) if !matches!(*error, redb::Error::PreviousIo) => {
                    return Err(fault(*error));
                }
                _ => {}
            }
        }
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        *database = None;
        let opened = database.insert(open(&self.path, false)?);
        work(opened).map_err(|error| fault(*error))
    }

    fn write(&self, changes: &[Change]) -> Result<(), StoreFault> {
        self.with(|database| write(database, changes))
    }
}

impl Store for RedbStore {
    fn commit(&self, changes: &[Change]) -> Result<(), StoreFault> {
        loop {
            match self.write(changes) {
                Err(StoreFault::Full) if self.reserve.release() => {}
                written => return written,
            }
        }
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        self.with(|database| get(database, key))
    }

    fn scan(
        &self,
        from: &[u8],
        until: &[u8],
        backwards: bool,
        most: usize,
    ) -> Result<Rows, StoreFault> {
        if from >= until {
            return Ok(Vec::new());
        }
        self.with(|database| scan(database, from, until, backwards, most))
    }

    fn accepts(&self) -> Result<(), StoreFault> {
        self.reserve.restore()
    }

    fn released_space(&self) -> Option<ReleasedSpace> {
        let bytes = self.reserve.released_bytes();
        (bytes > 0).then(|| ReleasedSpace::new(self.device, bytes))
    }
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStore").field("path", &self.path).finish_non_exhaustive()
    }
}

fn write(database: &Database, changes: &[Change]) -> Result<(), Box<redb::Error>> {
    let transaction = database.begin_write().map_err(boxed)?;
    {
        let mut table = transaction.open_table(ROWS).map_err(boxed)?;
        for Change { key, value } in changes {
            match value {
                Some(value) => table.insert(&key[..], &value[..]).map_err(boxed)?,
                None => table.remove(&key[..]).map_err(boxed)?,
            };
        }
    }
    transaction.commit().map_err(boxed)
}

fn get(database: &Database, key: &[u8]) -> Result<Option<Vec<u8>>, Box<redb::Error>> {
    let transaction = database.begin_read().map_err(boxed)?;
    let table = transaction.open_table(ROWS).map_err(boxed)?;
    Ok(table.get(key).map_err(boxed)?.map(|value| value.value().to_vec()))
}

pub(super) fn scan(
    database: &impl ReadableDatabase,
    from: &[u8],
    until: &[u8],
    backwards: bool,
    most: usize,
) -> Result<Rows, Box<redb::Error>> {
    let transaction = database.begin_read().map_err(boxed)?;
    let table = transaction.open_table(ROWS).map_err(boxed)?;
    let mut range = table.range(from..until).map_err(boxed)?;
    let mut found = Vec::new();
    while found.len() < most {
        let next = if backwards { range.next_back() } else { range.next() };
        let Some(row) = next else { break };
        let (key, value) = row.map_err(boxed)?;
        found.push((key.value().to_vec(), value.value().to_vec()));
    }
    Ok(found)
}

/// The lock of the store in `path`.
pub(super) fn lock(path: &Path) -> Result<FileLock, StoreFault> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(beside(path, "lock"))?;
    FileLock::acquire(file).map_err(|error| match error {
        LockError::Held { pid } => StoreFault::InUse { pid },
        LockError::Io(error) => error.into(),
    })
}

/// The database in `path`; a new one where there never was one.
fn found(path: &Path) -> Result<Database, StoreFault> {
    let mark = beside(path, "exists");
    let damaged = |what: &str| StoreFault::Damaged(format!("`{}` {what}", path.display()));
    match path.metadata() {
        // It takes its place only once it is whole.
        Ok(metadata) if metadata.len() == 0 => {
            return Err(damaged("is empty, which no store ever is"));
        }
        Ok(metadata) => {
            if metadata.permissions().mode() & 0o077 != 0 {
                std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if mark.exists() {
                let what = format!(
                    "is gone, though there was a store; put it back, or remove `{}` to begin anew",
                    mark.display()
                );
                return Err(damaged(&what));
            }
            let new = make(path, &MemoryStore::new())?;
            std::fs::rename(new, path)?;
            sync_directory(path)?;
        }
        Err(error) => return Err(error.into()),
    }
    let database = open(path, true)?;
    if !mark.exists() {
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&mark)?;
        sync_directory(path)?;
    }
    Ok(database)
}

/// Makes a store that holds what is in `rows`, beside its place, and gives where it is.
pub(super) fn make(path: &Path, rows: &dyn Store) -> Result<PathBuf, StoreFault> {
    let new = beside(path, "new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    let database = create(options.open(&new)?, false)?;
    let mut from = vec![0];
    loop {
        let rows = rows.scan(&from, &[0xff; 8], false, ROWS_AT_ONCE)?;
        let changes: Vec<Change> =
            rows.into_iter().map(|(key, value)| Change::set(key, value)).collect();
        write(&database, &changes).map_err(|error| fault(*error))?;
        let Some(last) = changes.last() else { break };
        from.clone_from(&last.key);
        from.push(0);
    }
    database.close().map_err(|error| fault(error.into()))?;
    Ok(new)
}

pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => File::open(directory)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// The file whose name is that of the store with `suffix`.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

fn open(path: &Path, is_checked: bool) -> Result<Database, StoreFault> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    create(file, is_checked).map_err(|fault| match fault {
        StoreFault::Damaged(what) => StoreFault::Damaged(format!("`{}`: {what}", path.display())),
        fault => fault,
    })
}

fn create(file: File, is_checked: bool) -> Result<Database, StoreFault> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(is_checked);
    let backend = FileBackend::new(file).map_err(|error| fault(error.into()))?;
    builder.create_with_backend(backend).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => StoreFault::InUse { pid: None },
        error => fault(error.into()),
    })
}

fn boxed(error: impl Into<redb::Error>) -> Box<redb::Error> {
    Box::new(error.into())
}

pub(super) fn fault(error: redb::Error) -> StoreFault {
    match error {
        redb::Error::Io(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            StoreFault::Damaged(error.to_string())
        }
        redb::Error::Io(error) => error.into(),
        redb::Error::Corrupted(what) => StoreFault::Damaged(what),
        redb::Error::UpgradeRequired(version) => {
            StoreFault::Damaged(format!("it has the file format {version}"))
        }
        error @ (redb::Error::TableTypeMismatch { .. }
        | redb::Error::TypeDefinitionChanged { .. }
        | redb::Error::RepairAborted) => StoreFault::Damaged(error.to_string()),
        error => StoreFault::Io(io::Error::other(error)),
    }
}

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
const CACHE_BYTES: usize = 16 << 20;
const ROWS_AT_ONCE: usize = 4096;
