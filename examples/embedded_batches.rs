//! Batches inside one's own process, without any server, which continue after the process was killed.
//!
//!     cargo run --example embedded-batches -- state nightly 'make clean' 'make all' 'make dist'
//!
//! Runs the commands one after the other, and prints each event. If it is killed and started again with the
//! same arguments, it continues the same batch; once the batch is over, it prints how it ended, and runs
//! nothing again. Another name than `nightly` is another batch.

use std::io::Write as _;
use std::path::Path;

use splengine_core::batch::{BatchEventKind, BatchPolicy, BatchState};
use splengine_core::store::RedbStore;
use splengine_core::{BatchRequest, Caller, Engine, LocalExecutor, Step};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [state, name, commands @ ..] = &arguments[..] else {
        return Err("usage: embedded-batches DIRECTORY NAME COMMAND...".into());
    };
    let state = Path::new(state);
    let store = RedbStore::open(state.join("batches.redb"))?;
    let policy = BatchPolicy::new(store, state.join("outputs"));
    let engine = Engine::builder(LocalExecutor::new(".")?).batches(policy).build()?;
    // What a process before this one left is ended or resumed.
    let resumed = engine.resume().await;
    if resumed.has_failed {
        return Err("the store of batches can't be read".into());
    }
    let mut out = std::io::stdout();
    writeln!(out, "resumed {}", resumed.batches)?;

    let me = Caller::new("me")?.with_all_scopes();
    let batches = engine.batches();
    // A step that was cut short is run again.
    let step = |command| Step::new(command).rerun_on_restart(true);
    let request = commands.iter().fold(BatchRequest::new(), |request, command: &String| {
        request.step(step(command.as_str()))
    });
    // The same key stands for the same batch, however often it is submitted.
    let submitted = batches.submit(&me, request, Some(name)).await?;
    let id = submitted.record.info.id;

    let mut events = batches.events(&me, &id, 0).await?;
    while let Some(event) = events.next().await? {
        match event.what {
            BatchEventKind::Started { step, attempt } => {
                writeln!(out, "step {step} starts, run {attempt}")?;
            }
            BatchEventKind::Ended(step) => {
                writeln!(out, "step {} {}", step.id, step.state.name())?;
            }
            BatchEventKind::Finished { state, .. } => writeln!(out, "{}", state.name())?,
            _ => {}
        }
    }
    let info = batches.info(&me, &id).await?;
    if info.state == BatchState::Succeeded { Ok(()) } else { Err("the batch failed".into()) }
}
