use std::fmt::Debug;
use std::thread;

use crate::store::{Change, Rows, Store, StoreFault};

/// Conformance tests of a [`Store`]: what the engine relies on when it keeps batches in it.
///
/// | checked | |
/// |---|---|
/// | commits | all changes are made, in their order; values may be empty or 1 MiB long, keys 1 KiB; to remove an absent key is no error |
/// | scans | keys are in the order of their bytes; from the first bound on, and before the second; the first ones, or backwards the last ones; no more than asked for |
/// | several threads | no commit is lost; a scan finds all changes of a commit, or none |
/// | [`durable`](Self::durable) stores | opened a second time they say [`StoreFault::InUse`]; closed and opened again they have all rows |
///
/// A full disk, power cuts and [`Store::accepts`] are not checked.
///
/// ```
/// use splengine_core::store::MemoryStore;
/// use splengine_core::testing::conformance::StoreSuite;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// StoreSuite::new(|| Ok(MemoryStore::new())).run()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use]
pub struct StoreSuite<F> {
    open: F,
    is_durable: bool,
}

/// Failure of a store to do what the engine relies on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreViolation {
    /// A call has failed.
    #[error("{call} failed")]
    Failed {
        /// Name of the call.
        call: &'static str,
        /// Error that it returned.
        #[source]
        source: StoreFault,
    },
    /// A rule was broken.
    #[error("{rule}: {problem}")]
    Broken {
        /// Rule that the store has broken.
        rule: &'static str,
        /// Description of what happened.
        problem: String,
    },
}

impl<S: Store, F: Fn() -> Result<S, StoreFault>> StoreSuite<F> {
    /// Creates a suite of a store that `open` opens. It is called more than once; the first time the store is empty.
    pub fn new(open: F) -> Self {
        Self { open, is_durable: false }
    }

    /// Checks that the rows outlive a store that is dropped, and that one which is open can't be opened again.
    /// Default: neither is checked.
    pub fn durable(mut self) -> Self {
        self.is_durable = true;
        self
    }

    /// Runs all checks, which takes some seconds on a disk. Blocks.
    ///
    /// # Errors
    ///
    /// [`StoreViolation`], the first that is found.
    pub fn run(self) -> Result<(), StoreViolation> {
        let store = self.open()?;
        commits(&store)?;
        scans(&store)?;
        threads(&store)?;
        if !self.is_durable {
            return Ok(());
        }
        let rule = "a store that is open can't be opened again";
        match (self.open)() {
            Err(StoreFault::InUse { .. }) => {}
            Err(error) => return Err(broken(rule, format!("it says: {error}"))),
            Ok(_) => return Err(broken(rule, "it was opened")),
        }
        let before = all(&store)?;
        drop(store);
        let after = all(&self.open()?)?;
        let rule = "rows outlive a store that is dropped";
        check(rule, after.len(), before.len())?;
        check(rule, after == before, true)
    }

    fn open(&self) -> Result<S, StoreViolation> {
        (self.open)().map_err(|source| StoreViolation::Failed { call: "opening", source })
    }
}

fn commits(store: &impl Store) -> Result<(), StoreViolation> {
    check("an absent key has no value", get(store, b"a")?, None)?;
    commit(store, &[])?;
    let long = (vec![b'k'; 1 << 10], vec![b'v'; 1 << 20]);
    commit(
        store,
        &[
            Change::set(*b"a", *b"1"),
            Change::set(*b"b", Vec::new()),
            Change::set(long.0.clone(), long.1.clone()),
            Change::remove(*b"absent"),
        ],
    )?;
    check("a value that was set is there", get(store, b"a")?.as_deref(), Some(&b"1"[..]))?;
    check("a value may be empty", get(store, b"b")?.as_deref(), Some(&b""[..]))?;
    let rule = "a key may have 1 KiB, and a value 1 MiB";
    check(rule, get(store, &long.0)?.map(|value| value == long.1), Some(true))?;
    let changes = [
        Change::set(*b"a", *b"2"),
        Change::set(*b"a", *b"3"),
        Change::remove(*b"b"),
        Change::remove(long.0.clone()),
        Change::set(*b"c", *b"4"),
        Change::remove(*b"c"),
    ];
    commit(store, &changes)?;
    check("changes are made in their order", get(store, b"a")?.as_deref(), Some(&b"3"[..]))?;
    for removed in [b"b", &long.0[..], b"c"] {
        check("a key that was removed is absent", get(store, removed)?, None)?;
    }
    commit(store, &[Change::remove(*b"a")])
}

fn scans(store: &impl Store) -> Result<(), StoreViolation> {
    // In order.
    let keys: [&[u8]; 7] = [b"\0", b"\0\0", b"a", b"a\0", b"aa", b"b", b"\xff\xff"];
    // Written in another.
    let order = [3, 0, 6, 1, 5, 2, 4];
    let changes = order.map(|place| Change::set(keys[place], [place as u8]));
    commit(store, &changes)?;
    let bounds: [&[u8]; 6] = [b"", b"\0\0", b"a", b"aa", b"c", b"\xff\xff\xff"];
    for from in bounds {
        for until in bounds {
            for most in [0, 1, 2, usize::MAX] {
                for backwards in [false, true] {
                    let within = |key: &&&[u8]| from <= **key && **key < until;
                    let mut expected: Vec<&[u8]> = keys.iter().filter(within).copied().collect();
                    if backwards {
                        expected.reverse();
                    }
                    expected.truncate(most);
                    let found = scan(store, from, until, backwards, most)?;
                    let found: Vec<&[u8]> = found.iter().map(|(key, _)| &key[..]).collect();
                    let rule = "a scan gives the keys within its bounds, in order";
                    check(rule, found, expected)?;
                }
            }
        }
    }
    let rows = all(store)?;
    let is_own = rows.iter().enumerate().all(|(place, (_, value))| *value == [place as u8]);
    check("a scan gives each key its value", is_own, true)
}

fn threads(store: &impl Store) -> Result<(), StoreViolation> {
    let write = |thread: u8| -> Result<(), StoreViolation> {
        for number in 0..COMMITS {
            let key = |name: &str| format!("thread/{name}").into_bytes();
            let own = format!("own/{thread}/{number}");
            let value = vec![thread, number];
            let changes = [
                Change::set(key("first"), value.clone()),
                Change::set(own, Vec::new()),
                Change::set(key("last"), value),
            ];
            commit(store, &changes)?;
            let rows = scan(store, b"thread/", b"thread0", false, usize::MAX)?;
            let values: Vec<_> = rows.iter().map(|(_, value)| value).collect();
            let is_whole = matches!(values[..], [first, last] if first == last);
            check("a scan finds all changes of a commit, or none", is_whole, true)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|thread| scope.spawn(move || write(thread))).collect();
        threads.into_iter().try_for_each(|thread| {
            let panicked = |_| broken("calls don't panic", "one has");
            thread.join().map_err(panicked)?
        })
    })?;
    let own = scan(store, b"own/", b"own0", false, usize::MAX)?.len();
    check("no commit of several threads is lost", own, usize::from(THREADS) * usize::from(COMMITS))
}

const THREADS: u8 = 4;
/// Of each.
const COMMITS: u8 = 25;

fn check<T: PartialEq + Debug>(
    rule: &'static str,
    found: T,
    expected: T,
) -> Result<(), StoreViolation> {
    if found == expected {
        return Ok(());
    }
    Err(broken(rule, format!("found {found:?}, expected {expected:?}")))
}

fn broken(rule: &'static str, problem: impl Into<String>) -> StoreViolation {
    StoreViolation::Broken { rule, problem: problem.into() }
}

fn commit(store: &impl Store, changes: &[Change]) -> Result<(), StoreViolation> {
    let failed = |source| StoreViolation::Failed { call: "`commit`", source };
    store.commit(changes).map_err(failed)
}

fn get(store: &impl Store, key: &[u8]) -> Result<Option<Vec<u8>>, StoreViolation> {
    store.get(key).map_err(|source| StoreViolation::Failed { call: "`get`", source })
}

fn scan(
    store: &impl Store,
    from: &[u8],
    until: &[u8],
    backwards: bool,
    most: usize,
) -> Result<Rows, StoreViolation> {
    let failed = |source| StoreViolation::Failed { call: "`scan`", source };
    store.scan(from, until, backwards, most).map_err(failed)
}

fn all(store: &impl Store) -> Result<Rows, StoreViolation> {
    scan(store, b"", &[0xff; 8], false, usize::MAX)
}
