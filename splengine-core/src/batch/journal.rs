//! Reading and writing what is kept of batches.

use std::sync::{Arc, Mutex, PoisonError, mpsc as std_mpsc};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use crate::batch::BatchError;
use crate::batch::record::Names;
use crate::batch::records::{EventRow, JobSpec, StepRow, Summary, key};
use crate::blocking::blocking;
use crate::fresh::Fresh;
use crate::ids::BatchId;
use crate::quota::CallerLargeWork;
use crate::store::{Change, Rows, Store, StoreFault};

/// A [`Store`], written by one thread: what several batches change at the same time goes to the
/// disk together.
#[derive(Clone)]
pub(crate) struct Journal {
    store: Arc<dyn Store>,
    writes: std_mpsc::SyncSender<Write>,
    /// Why the last write failed, if it did.
    failed: Arc<Mutex<Option<Arc<StoreFault>>>>,
    /// Why the store can't be written, if so.
    fault: Arc<Fresh<Option<Arc<StoreFault>>>>,
}

struct Write {
    changes: Vec<Change>,
    done: oneshot::Sender<Result<(), Arc<StoreFault>>>,
}

impl Journal {
    pub(crate) fn new(store: Arc<dyn Store>) -> std::io::Result<Self> {
        let (writes, queue) = std_mpsc::sync_channel::<Write>(WAITING_WRITES);
        let (writing, failed) = (Arc::clone(&store), Arc::default());
        let noting: Arc<Mutex<Option<Arc<StoreFault>>>> = Arc::clone(&failed);
        std::thread::Builder::new().name("splengine-store".to_owned()).spawn(move || {
            while let Ok(first) = queue.recv() {
                let mut all = vec![first];
                all.extend(queue.try_iter().take(WAITING_WRITES));
                let fault = write(&*writing, all);
                *noting.lock().unwrap_or_else(PoisonError::into_inner) = fault;
            }
        })?;
        Ok(Self { store, writes, failed, fault: Arc::default() })
    }

    /// Makes all of these changes or none; when it returns they are on disk.
    pub(crate) async fn commit(&self, changes: Vec<Change>) -> Result<(), Arc<StoreFault>> {
        let (done, told) = oneshot::channel();
        let gone = || Arc::new(StoreFault::Io(std::io::Error::other("the store's thread is gone")));
        let mut write = Write { changes, done };
        loop {
            match self.writes.try_send(write) {
                Ok(()) => return told.await.unwrap_or_else(|_| Err(gone())),
                Err(std_mpsc::TrySendError::Full(back)) => {
                    write = back;
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
                Err(std_mpsc::TrySendError::Disconnected(_)) => return Err(gone()),
            }
        }
    }

    /// Whether there is room for new work.
    pub(crate) async fn accepts(&self) -> Result<(), BatchError> {
        let store = Arc::clone(&self.store);
        match blocking(move || store.accepts()).await.map_err(Arc::new) {
            Ok(()) => Ok(()),
            Err(fault) => {
                // Whoever asks now is told what this one is.
                self.fault.set(Some(Arc::clone(&fault))).await;
                Err(fault.into())
            }
        }
    }

    /// Why nothing can be written at the moment, if so. Looks once a second at most, however often
    /// it is asked; if the last write failed, by another one.
    pub(crate) async fn fault(&self) -> Option<Arc<StoreFault>> {
        let look = async {
            let store = Arc::clone(&self.store);
            let fault = blocking(move || store.accepts()).await.err().map(Arc::new);
            let failed = || self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            if fault.is_none() && failed().is_some() {
                return self.commit(vec![Change::remove(key::probe())]).await.err();
            }
            fault
        };
        self.fault.get(look).await
    }

    pub(crate) async fn summary(&self, id: &BatchId) -> Result<Option<Summary>, BatchError> {
        self.get(key::summary(id)).await
    }

    pub(crate) async fn recipe(
        &self,
        id: &BatchId,
        work: &CallerLargeWork,
    ) -> Result<JobSpec, BatchError> {
        self.get_large(key::recipe(id), work).await?.ok_or(BatchError::Damaged)
    }

    /// What is told of a batch's steps that never changes.
    pub(crate) async fn names(
        &self,
        id: &BatchId,
        work: &CallerLargeWork,
    ) -> Result<Names, BatchError> {
        let recipe = self.recipe(id, work).await?;
        work.run(recipe.text.len(), move || Names::of(&recipe)).await
    }

    pub(crate) async fn step(
        &self,
        id: &BatchId,
        step: u32,
        work: &CallerLargeWork,
    ) -> Result<StepRow, BatchError> {
        Ok(self.get_large(key::step(id, step), work).await?.unwrap_or_default())
    }

    /// The rows of all steps that are not as they were at the beginning.
    pub(crate) async fn steps(
        &self,
        id: &BatchId,
        work: &CallerLargeWork,
    ) -> Result<Vec<(u32, StepRow)>, BatchError> {
        let rows = self.scan_all(key::step(id, 0), key::step(id, u32::MAX)).await?;
        parse_rows(rows, |key| key.last_chunk().map(|bytes| u32::from_be_bytes(*bytes)), work).await
    }

    /// At most `most` events that come after `after`.
    pub(crate) async fn events(
        &self,
        id: &BatchId,
        after: u64,
        most: usize,
        work: &CallerLargeWork,
    ) -> Result<Vec<(u64, EventRow)>, BatchError> {
        let from = key::event(id, after.saturating_add(1));
        let rows = self.scan(from, key::event(id, u64::MAX), false, most).await?;
        parse_rows(rows, |key| key.last_chunk().map(|bytes| u64::from_be_bytes(*bytes)), work).await
    }

    /// A row that is never large.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        key: Vec<u8>,
    ) -> Result<Option<T>, BatchError> {
        self.get_bytes(key).await?.map(|value| parse(&value)).transpose()
    }

    async fn get_large<T: DeserializeOwned + Send + 'static>(
        &self,
        key: Vec<u8>,
        work: &CallerLargeWork,
    ) -> Result<Option<T>, BatchError> {
        let Some(value) = self.get_bytes(key).await? else { return Ok(None) };
        work.run(value.len(), move || parse(&value).map(Some)).await
    }

    async fn get_bytes(&self, key: Vec<u8>) -> Result<Option<Vec<u8>>, BatchError> {
        let store = Arc::clone(&self.store);
        Ok(blocking(move || store.get(&key)).await?)
    }

    pub(crate) async fn scan(
        &self,
        from: Vec<u8>,
        until: Vec<u8>,
        backwards: bool,
        most: usize,
    ) -> Result<Rows, BatchError> {
        let store = Arc::clone(&self.store);
        Ok(blocking(move || store.scan(&from, &until, backwards, most)).await?)
    }

    /// All of them, read a part at a time, so that writers are not held up.
    pub(crate) async fn scan_all(
        &self,
        mut from: Vec<u8>,
        until: Vec<u8>,
    ) -> Result<Rows, BatchError> {
        let mut all = Vec::new();
        loop {
            let rows = self.scan(from, until.clone(), false, SCAN_ROWS).await?;
            let is_last = rows.len() < SCAN_ROWS;
            all.extend(rows);
            match all.last() {
                Some((key, _)) if !is_last => {
                    from = key.clone();
                    from.push(0);
                }
                _ => return Ok(all),
            }
        }
    }
}

/// The rows, with what `part_of` makes of their keys.
async fn parse_rows<K: Send + 'static, T: DeserializeOwned + Send + 'static>(
    rows: Rows,
    part_of: impl Fn(&[u8]) -> Option<K> + Send + 'static,
    work: &CallerLargeWork,
) -> Result<Vec<(K, T)>, BatchError> {
    let bytes = rows.iter().map(|(_, value)| value.len()).sum();
    let parse = move || {
        let row = |(key, value): (Vec<u8>, Vec<u8>)| {
            Ok((part_of(&key).ok_or(BatchError::Damaged)?, parse(&value)?))
        };
        rows.into_iter().map(row).collect()
    };
    work.run(bytes, parse).await
}

/// Writes all of them together, or where that fails each by itself: what is wrong with one must not
/// cost another. Returns why the last of them failed, if it did.
fn write(store: &dyn Store, all: Vec<Write>) -> Option<Arc<StoreFault>> {
    let together: Vec<Change> = all.iter().flat_map(|write| &write.changes).cloned().collect();
    if all.len() > 1 && store.commit(&together).is_ok() {
        for Write { done, .. } in all {
            let _ = done.send(Ok(()));
        }
        return None;
    }
    let mut fault = None;
    for Write { changes, done } in all {
        let written = store.commit(&changes).map_err(Arc::new);
        fault = written.as_ref().err().cloned();
        let _ = done.send(written);
    }
    fault
}

pub(crate) fn set(key: Vec<u8>, value: &impl Serialize) -> Change {
    // Plain data, which has a form in JSON.
    Change::set(key, serde_json::to_vec(value).unwrap_or_default())
}

fn parse<T: DeserializeOwned>(value: &[u8]) -> Result<T, BatchError> {
    serde_json::from_slice(value).map_err(|error| {
        tracing::error!(%error, "a record of a batch can't be read");
        BatchError::Damaged
    })
}

/// Beyond so many a writer waits.
const WAITING_WRITES: usize = 256;
const SCAN_ROWS: usize = 1024;
