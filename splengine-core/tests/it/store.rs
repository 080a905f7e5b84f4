use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use splengine_core::quota::ReleasedSpace;
use splengine_core::store::{Change, MemoryStore, Rows, Store, StoreFault};
use tokio::sync::oneshot;

/// A store that outlives its engine, and does what a test tells it to.
#[derive(Clone, Default)]
pub(crate) struct TestStore(Arc<State>);

#[derive(Default)]
struct State {
    rows: MemoryStore,
    is_full: AtomicBool,
    refuses_work: AtomicBool,
    largest_commit: AtomicUsize,
    gate: Mutex<Option<Gate>>,
    released: Mutex<Option<ReleasedSpace>>,
}

/// What holds up a scan that has read already, until it is let go.
struct Gate {
    of: String,
    has_read: oneshot::Sender<()>,
    go: mpsc::Receiver<()>,
}

impl TestStore {
    /// Whether commits fail.
    pub(crate) fn fill(&self, is_full: bool) {
        self.0.is_full.store(is_full, Ordering::SeqCst);
    }

    /// Whether no new work is taken.
    pub(crate) fn refuse_work(&self, refuses: bool) {
        self.0.refuses_work.store(refuses, Ordering::SeqCst);
    }

    /// How many rows were written at once at most since this was asked last.
    pub(crate) fn take_largest_commit(&self) -> usize {
        self.0.largest_commit.swap(0, Ordering::SeqCst)
    }

    /// Tells of space that was given back, and takes no new work then.
    pub(crate) fn release(&self, space: Option<ReleasedSpace>) {
        *self.0.released.lock().unwrap_or_else(PoisonError::into_inner) = space;
    }

    /// Holds up the next scan of a batch; resolves when it has read, and lets go of it by the sender.
    pub(crate) fn hold_scan(&self, of: &str) -> (oneshot::Receiver<()>, mpsc::Sender<()>) {
        let (has_read, reads) = oneshot::channel();
        let (goes, go) = mpsc::channel();
        let gate = Gate { of: of.to_owned(), has_read, go };
        *self.0.gate.lock().expect("no panic") = Some(gate);
        (reads, goes)
    }
}

impl Store for TestStore {
    fn commit(&self, changes: &[Change]) -> Result<(), StoreFault> {
        if self.0.is_full.load(Ordering::SeqCst) {
            return Err(StoreFault::Full);
        }
        self.0.largest_commit.fetch_max(changes.len(), Ordering::SeqCst);
        self.0.rows.commit(changes)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        self.0.rows.get(key)
    }

    fn scan(
        &self,
        from: &[u8],
        until: &[u8],
        backwards: bool,
        most: usize,
    ) -> Result<Rows, StoreFault> {
        // The engine looks for old batches as well, whenever it comes to that.
        let is_of =
            |gate: &mut Gate| from.windows(gate.of.len()).any(|part| part == gate.of.as_bytes());
        let gate = self.0.gate.lock().expect("no panic").take_if(is_of);
        let rows = self.0.rows.scan(from, until, backwards, most);
        if let Some(Gate { has_read, go, .. }) = gate {
            has_read.send(()).expect("somebody waits");
            go.recv_timeout(Duration::from_secs(30)).expect("let go");
        }
        rows
    }

    fn accepts(&self) -> Result<(), StoreFault> {
        let refuses = self.0.refuses_work.load(Ordering::SeqCst);
        if refuses || self.released_space().is_some() { Err(StoreFault::Full) } else { Ok(()) }
    }

    fn released_space(&self) -> Option<ReleasedSpace> {
        *self.0.released.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
