//! A batch's results as an object container file (specification 1.12, "Object Container Files").

use std::sync::LazyLock;

use apache_avro::{Codec, DeflateSettings, Schema, Writer};
use bytes::Bytes;
use splengine_core::batch::{BatchInfo, BatchResults, StepResult};
use splengine_core::execute::Gap;

use crate::datum::{Datum as _, write_long, write_sized};
use crate::messages::long;
use crate::protocol::ours;
use crate::records;

/// A container file that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("the container file can't be written")]
pub struct ContainerError(#[source] apache_avro::Error);

/// A batch's results as a container file (`.avro`, `application/avro`): one record of the
/// protocol's type `StepResult` a step, in their order, compressed with `deflate`. It has no bound
/// of its own: what there is to write is [bounded](splengine_core::Batches::results).
///
/// Takes the processor for as long as the compression of all that takes: not for a thread that
/// serves others.
///
/// ```
/// use splengine_avro::results_container;
/// use splengine_core::batch::BatchPolicy;
/// use splengine_core::store::MemoryStore;
/// use splengine_core::{BatchRequest, Caller, Engine, LocalExecutor, Step};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let outputs = tempfile::tempdir()?;
/// # let policy = BatchPolicy::new(MemoryStore::new(), outputs.path());
/// # let engine = Engine::builder(LocalExecutor::new(".")?).batches(policy).build()?;
/// # let alice = Caller::new("alice")?.with_all_scopes();
/// let batches = engine.batches();
/// let request = BatchRequest::new().step(Step::new("echo hello"));
/// let id = batches.submit(&alice, request, None).await?.record.info.id;
/// batches.wait(&alice, &id).await?;
/// let results = batches.results(&alice, &id).await?;
/// let file = tokio::task::spawn_blocking(move || results_container(&results)).await??;
/// assert!(file.starts_with(b"Obj\x01"));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`ContainerError`] when `apache-avro` can't write it, which nothing that a step prints brings
/// about.
pub fn results_container(results: &BatchResults) -> Result<Vec<u8>, ContainerError> {
    let codec = Codec::Deflate(DeflateSettings::default());
    let head = Writer::with_codec(&SCHEMA, Vec::new(), codec).and_then(Writer::into_inner);
    let mut file = head.map_err(ContainerError)?;
    // The head ends with the marker that is to end each block. It is a new one for each file, so
    // that no step can print it.
    let marker = file[file.len() - MARKER..].to_vec();
    let (mut rows, mut count) = (Vec::new(), 0);
    let mut steps = results.steps.iter().peekable();
    while let Some(step) = steps.next() {
        row(&results.info, step).write(&mut rows);
        count += 1;
        if rows.len() >= BLOCK || steps.peek().is_none() {
            codec.compress(&mut rows).map_err(ContainerError)?;
            write_long(count, &mut file);
            write_sized(&rows, &mut file);
            file.extend_from_slice(&marker);
            rows.clear();
            count = 0;
        }
    }
    Ok(file)
}

fn row(batch: &BatchInfo, result: &StepResult) -> records::StepResult {
    let step = records::StepRecord::from(result.step.clone());
    // One that lies beyond what there was room for is not in it.
    let gap = |gap: Option<Gap>, data: &Bytes| {
        gap.filter(|gap| gap.at <= data.len() as u64).map(|gap| long(gap.at))
    };
    records::StepResult {
        batch_id: batch.id.to_string(),
        id: step.id,
        command: step.command,
        depends_on: step.depends_on,
        state: step.state,
        attempt: step.attempt,
        reason: step.reason,
        problem: step.problem,
        exit_code: step.exit_code,
        signal: step.signal,
        started: step.started,
        ended: step.ended,
        duration: step.duration,
        stdout: result.stdout.clone(),
        stderr: result.stderr.clone(),
        stdout_bytes: step.stdout_bytes,
        stderr_bytes: step.stderr_bytes,
        stdout_truncated: step.stdout_truncated || result.stdout_cut,
        stderr_truncated: step.stderr_truncated || result.stderr_cut,
        stdout_gap: gap(result.step.stdout_gap, &result.stdout),
        stderr_gap: gap(result.step.stderr_gap, &result.stderr),
    }
}

static SCHEMA: LazyLock<Schema> =
    LazyLock::new(|| ours().declared.schema("StepResult").expect("a test says that it is there"));

const MARKER: usize = 16;
/// A block is closed once it holds so many bytes, before compression.
const BLOCK: usize = 64 << 10;
