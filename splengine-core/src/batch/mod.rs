//! Batches: steps that depend on each other, and are run to their end even if the engine is killed
//! meanwhile.
//!
//! Begin with [`BatchRequest`] and [`Step`], which say what to run and in which order, and with
//! [`Batches`], to which they are submitted. [`BatchEvents`] tells what happens, [`StepOutput`] and
//! [`StepLog`] what steps print, and [`BatchResults`] has all of that at the end. [`BatchPolicy`]
//! says where an engine keeps batches, how many and for how long; without one it has none.
//! [`BatchJob`] is for steps that are not known beforehand.

mod batches;
mod checks;
mod driver;
mod error;
mod failures;
mod format;
mod gap;
mod graph;
mod info;
mod inputs;
mod job;
mod journal;
mod key_locks;
mod list;
mod log;
mod log_entry;
mod open_stdin;
mod output;
mod output_writer;
mod outputs;
mod plan;
mod plan_record;
mod policy;
mod reads;
mod record;
mod record_memory;
mod records;
pub(crate) mod registry;
mod rerun;
mod results;
mod resume;
mod salvaged;
mod schedule;
mod stdin;
mod step_record;
mod step_run;
mod submit;

pub use batches::{BatchEvents, Batches};
pub use error::BatchError;
pub use info::{
    BatchEvent, BatchEventKind, BatchInfo, BatchList, BatchRecord, BatchState, StepCounts,
    StepInfo, StepState,
};
pub use job::{BatchJob, JobAction, JobEvent, Outcome};
pub use list::BatchFilter;
pub use log::{LogPiece, StepLog};
pub use output::StepOutput;
pub use plan::{BatchRequest, FailFast, RetryOn, RunIf, Step, StepCheck};
pub use policy::BatchPolicy;
pub(crate) use policy::OpenedBatches;
pub use results::{BatchResultReader, BatchResults, StepResult};
pub use salvaged::{SalvagedBatch, salvage_batches};
pub use submit::Submitted;
