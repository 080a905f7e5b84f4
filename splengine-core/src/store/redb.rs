use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use redb::{Database, DatabaseError, ReadableDatabase as _, TableDefinition};

use crate::lock::once_free;
use crate::store::{Change, Rows, Store, StoreFault};

/// A [`Store`] in one file, by the crate `redb`. One process uses it at a time.
pub struct RedbStore {
    path: PathBuf,
    /// `None` after a failure, until it could be opened again.
    database: RwLock<Option<Database>>,
}

impl RedbStore {
    /// The store in this file, which is made when it is not there, with its directory. Blocks for up
    /// to 2 seconds while another process uses it: what a killed one was just starting holds its
    /// files a moment longer.
    ///
    /// # Errors
    ///
    /// [`StoreFault`] when it can't be had, is damaged, or another process uses it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreFault> {
        let path = path.as_ref();
        if let Some(directory) = path.parent() {
            use std::os::unix::fs::DirBuilderExt as _;
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let database = once_free(|| open(path), |fault| matches!(fault, StoreFault::InUse))?;
        let store = Self { path: path.to_owned(), database: RwLock::new(Some(database)) };
        // So that reading never meets a table that is not there.
        store.commit(&[])?;
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
        let opened = database.insert(open(&self.path)?);
        work(opened).map_err(|error| fault(*error))
    }
}

impl Store for RedbStore {
    fn commit(&self, changes: &[Change]) -> Result<(), StoreFault> {
        self.with(|database| {
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
        })
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        self.with(|database| {
            let transaction = database.begin_read().map_err(boxed)?;
            let table = transaction.open_table(ROWS).map_err(boxed)?;
            Ok(table.get(key).map_err(boxed)?.map(|value| value.value().to_vec()))
        })
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
        self.with(|database| {
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
        })
    }
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStore").field("path", &self.path).finish_non_exhaustive()
    }
}

fn open(path: &Path) -> Result<Database, StoreFault> {
    let opened = Database::builder().set_cache_size(CACHE_BYTES).create(path);
    opened.map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => StoreFault::InUse,
        error => fault(error.into()),
    })
}

fn boxed(error: impl Into<redb::Error>) -> Box<redb::Error> {
    Box::new(error.into())
}

fn fault(error: redb::Error) -> StoreFault {
    match error {
        redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
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
