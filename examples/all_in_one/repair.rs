//! Export and repair of a store of batches that no server uses.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use serde_json::{Value, json};
use splengine_core::batch::{SalvagedBatch, StepInfo, salvage_batches};
use splengine_core::store::{SalvagedStore, StoreFault};

use crate::file::File;
use crate::settings::{UsageError, batches_dir, root, store_error};

/// With this word the readable batches are printed.
const EXPORT: &str = "export-batches";
/// With this one a damaged store is replaced by one that holds what is readable.
const REPAIR: &str = "repair-batches";

#[derive(Debug, Parser)]
#[command(
    name = "all-in-one",
    disable_version_flag = true,
    about = "Reads or repairs the store of batches below a root that no server uses: \
    `export-batches` prints each readable batch as a line of JSON, with the files of its output; \
    `repair-batches` moves a damaged store aside and makes a new one of what is readable."
)]
struct RepairArgs {
    /// `export-batches` or `repair-batches`
    word: String,
    /// The server's root [default: as the server's]
    #[arg(long, value_name = "DIR", env = "SPLENGINE_ROOT")]
    root: Option<PathBuf>,
    /// The server's TOML file
    #[arg(long, value_name = "FILE", env = "SPLENGINE_CONFIG")]
    config: Option<PathBuf>,
}

/// Does what the first argument asks for; `None` when that is for the server.
pub(crate) fn run() -> Option<Result<(), UsageError>> {
    let word = std::env::args_os().nth(1)?;
    let is_export = word == EXPORT;
    if !is_export && word != REPAIR {
        return None;
    }
    let args = match RepairArgs::try_parse() {
        Ok(args) => args,
        Err(error) if error.use_stderr() => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            return Some(Err(UsageError::new("arguments", line.trim_start_matches("error: "))));
        }
        Err(error) => error.exit(),
    };
    // The library that reads the file panics on some damage, and is caught.
    std::panic::set_hook(Box::new(|_| {}));
    Some(if is_export { export(args) } else { repair(args) })
}

fn opened(args: RepairArgs) -> Result<(PathBuf, SalvagedStore), UsageError> {
    let file = args.config.as_deref().map(File::read).transpose()?.unwrap_or_default();
    let root = root(args.root.or(file.root), "--root")?;
    let directory = batches_dir(&root);
    if !directory.is_dir() {
        return Err(UsageError::new(&directory.display().to_string(), "there are no batches"));
    }
    let store = SalvagedStore::open(directory.join("batches.redb"))
        .map_err(|error| store_error(&root, &error))?;
    for problem in store.problems() {
        let _ = writeln!(std::io::stderr(), "damaged: {problem}");
    }
    Ok((directory, store))
}

fn export(args: RepairArgs) -> Result<(), UsageError> {
    let (directory, store) = opened(args)?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut written = Ok(());
    let (mut count, mut damaged) = (0_u64, 0_u64);
    let told = salvage_batches(&store, &directory.join("output"), |batch| {
        count += 1;
        damaged += u64::from(!batch.problems.is_empty());
        if written.is_ok() {
            written = writeln!(out, "{}", json_of(&batch));
        }
    });
    told.map_err(|error| store_fault(&directory, &error))?;
    written
        .and_then(|()| out.flush())
        .map_err(|error| UsageError::caused("standard output", &error))?;
    let _ = writeln!(std::io::stderr(), "{count} batches, of which {damaged} are damaged");
    Ok(())
}

fn repair(args: RepairArgs) -> Result<(), UsageError> {
    let (directory, store) = opened(args)?;
    let repaired = store.repair().map_err(|error| store_fault(&directory, &error))?;
    let rows = repaired.rows;
    let moved = repaired.damaged.map_or_else(
        || "there was no file before".to_owned(),
        |path| format!("the store as it was is {}", path.display()),
    );
    let text = format!("the new store holds {rows} rows; {moved}\n");
    let _ = std::io::stderr().write_all(text.as_bytes());
    Ok(())
}

fn store_fault(directory: &std::path::Path, error: &StoreFault) -> UsageError {
    UsageError::caused(&directory.display().to_string(), error)
}

/// Times are in milliseconds since 1970.
fn json_of(batch: &SalvagedBatch) -> Value {
    let mut json = match &batch.record {
        None => json!({}),
        Some(record) => {
            let info = &record.info;
            json!({
                "user": info.user.as_str(),
                "name": info.name,
                "kind": info.kind,
                "state": info.state.name(),
                "created": millis(info.created),
                "started": info.started.map(millis),
                "ended": info.ended.map(millis),
                "exitCode": info.exit_code,
                "steps": record.steps.iter().map(step).collect::<Vec<_>>(),
            })
        }
    };
    json["batchId"] = json!(batch.id.as_str());
    json["outputs"] = batch.outputs.iter().map(|path| path.display().to_string()).collect();
    json["problems"] = json!(batch.problems);
    json
}

fn step(step: &StepInfo) -> Value {
    json!({
        "id": step.id,
        "command": step.command,
        "state": step.state.name(),
        "attempt": step.attempt,
        "reason": step.reason.map(|reason| reason.name()),
        "problem": step.problem,
        "exitCode": step.exit_code,
        "signal": step.signal,
        "started": step.started.map(millis),
        "ended": step.ended.map(millis),
        "stdoutBytes": step.stdout_bytes,
        "stderrBytes": step.stderr_bytes,
    })
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
