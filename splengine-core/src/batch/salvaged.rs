//! Batches that are read without an engine: for export, and to see what a repair keeps.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::batch::BatchRecord;
use crate::batch::record::record;
use crate::batch::records::{JobSpec, StepRow, Summary, key};
use crate::ids::BatchId;
use crate::store::{Rows, Store, StoreFault};

/// Remains of one batch. Got from [`salvage_batches`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SalvagedBatch {
    /// Id of the batch.
    pub id: BatchId,
    /// The batch with its steps; `None` if too little of it can be read.
    pub record: Option<BatchRecord>,
    /// The files of what its steps printed, in the order of their names, which are
    /// `STEP-ATTEMPT.STREAM` with steps numbered from 1.
    pub outputs: Vec<PathBuf>,
    /// Parts of it that can't be read, in words.
    pub problems: Vec<String>,
}

/// Calls `each` for all batches of which `store` or the directory `outputs` has something, the oldest
/// first, whether they are over or not. Nothing is changed. No engine may use the store meanwhile.
/// Blocks.
///
/// ```no_run
/// use std::path::Path;
/// use splengine_core::batch::salvage_batches;
/// use splengine_core::store::SalvagedStore;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = SalvagedStore::open("/var/lib/my-server/batches.redb")?;
/// salvage_batches(&store, Path::new("/var/lib/my-server/outputs"), |batch| {
///     let state = batch.record.map(|record| record.info.state);
///     println!("{}: {state:?}, {} files", batch.id, batch.outputs.len());
/// })?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`StoreFault`] when the store can't be read at all. Faults of a single batch are listed in it. A
/// [`SalvagedStore`](crate::store::SalvagedStore) never fails here.
pub fn salvage_batches(
    store: &dyn Store,
    outputs: &Path,
    mut each: impl FnMut(SalvagedBatch),
) -> Result<(), StoreFault> {
    let mut all: BTreeMap<BatchId, Vec<PathBuf>> = BTreeMap::new();
    for kind in [key::SUMMARIES, key::RECIPES] {
        let mut from = vec![kind, 0];
        loop {
            let rows = store.scan(&from, &[kind, 1], false, ROWS_AT_ONCE)?;
            for (key, _) in &rows {
                if let Some(id) = key::last_part(key).and_then(|id| id.parse().ok()) {
                    all.entry(id).or_default();
                }
            }
            let Some((last, _)) = rows.last() else { break };
            from.clone_from(last);
            from.push(0);
        }
    }
    for entry in std::fs::read_dir(outputs).into_iter().flatten().flatten() {
        let id = entry.file_name().to_str().and_then(|name| name.parse::<BatchId>().ok());
        let Some(id) = id else { continue };
        let files = std::fs::read_dir(entry.path()).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = files.map(|file| file.path()).collect();
        files.retain(|file| {
            file.extension().is_some_and(|kind| kind == "stdout" || kind == "stderr")
        });
        files.sort();
        all.entry(id).or_default().extend(files);
    }
    for (id, outputs) in all {
        let mut problems = Vec::new();
        let record = read(store, &id, &mut problems)?;
        each(SalvagedBatch { id, record, outputs, problems });
    }
    Ok(())
}

fn read(
    store: &dyn Store,
    id: &BatchId,
    problems: &mut Vec<String>,
) -> Result<Option<BatchRecord>, StoreFault> {
    let summary: Option<Summary> = get(store, &key::summary(id), "its summary", problems)?;
    let recipe: Option<JobSpec> = get(store, &key::recipe(id), "what it is to run", problems)?;
    let mut steps = Vec::new();
    let mut from = key::step(id, 0);
    loop {
        let rows: Rows = store.scan(&from, &key::step(id, u32::MAX), false, ROWS_AT_ONCE)?;
        for (key, value) in &rows {
            let place = key.last_chunk().map(|bytes| u32::from_be_bytes(*bytes));
            let row: Option<StepRow> = serde_json::from_slice(value).ok();
            match place.zip(row) {
                Some(step) => steps.push(step),
                None => problems.push("a step can't be read".to_owned()),
            }
        }
        let Some((last, _)) = rows.last() else { break };
        from.clone_from(last);
        from.push(0);
    }
    let Some((summary, recipe)) = summary.zip(recipe) else { return Ok(None) };
    let record = record(id, &summary, &recipe, steps);
    if record.is_err() {
        problems.push("what it is to run can't be read".to_owned());
    }
    Ok(record.ok())
}

fn get<T: DeserializeOwned>(
    store: &dyn Store,
    key: &[u8],
    what: &str,
    problems: &mut Vec<String>,
) -> Result<Option<T>, StoreFault> {
    let found = store.get(key)?;
    let read = found.and_then(|value| serde_json::from_slice(&value).ok());
    if read.is_none() {
        problems.push(format!("{what} can't be read"));
    }
    Ok(read)
}

const ROWS_AT_ONCE: usize = 1024;
