//! A kind of batch of one's own, whose steps are not known beforehand: a `BatchJob`.
//!
//!     cargo run --example custom-job

#![expect(clippy::print_stdout, reason = "it speaks to a person")]

use std::error::Error;

use splengine_core::batch::{BatchPolicy, JobAction, JobEvent, Outcome};
use splengine_core::execute::Stream;
use splengine_core::store::RedbStore;
use splengine_core::{BatchJob, Caller, Engine, LocalExecutor, Step};

/// Takes a command, and runs it with 1, 2, 3, … as its last word until it fails: as many steps as
/// it takes. The engine writes down what happens; after a crash it makes the job anew from the same
/// text and tells it all that again, so the job keeps nothing of its own.
struct CountUp {
    command: String,
    steps: Vec<Step>,
}

impl CountUp {
    fn new(command: &str) -> Result<Self, String> {
        if command.is_empty() {
            return Err("must be a command".to_owned());
        }
        Ok(Self { command: command.to_owned(), steps: Vec::new() })
    }

    fn next(&mut self) -> Vec<JobAction> {
        let number = (self.steps.len() + 1).to_string();
        self.steps.push(Step::new(&self.command).args([number]));
        vec![JobAction::Start { step: self.steps.len() - 1 }]
    }
}

impl BatchJob for CountUp {
    fn steps(&self) -> &[Step] {
        &self.steps
    }

    fn on_event(&mut self, event: JobEvent) -> Vec<JobAction> {
        match event {
            JobEvent::Begun | JobEvent::Ended { outcome: Outcome::Succeeded, .. } => self.next(),
            JobEvent::Ended { .. } => vec![JobAction::Finish],
            JobEvent::Cancelled => {
                let last = self.steps.len().saturating_sub(1);
                vec![JobAction::Stop { step: last }]
            }
            _ => Vec::new(),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let root = tempfile::tempdir()?;
    let store = RedbStore::open(root.path().join("batches.redb"))?;
    let policy = BatchPolicy::new(store, root.path().join("output")).kind("countUp", CountUp::new);
    let engine = Engine::builder(LocalExecutor::new(root.path())?).batches(policy).build()?;
    // Goes on with whatever an engine before this one left; here there is none.
    engine.resume().await;

    let alice = Caller::new("alice")?.with_all_scopes();
    let batches = engine.batches();
    // `test` fails as soon as its number is no longer below 4.
    let submitted = batches.submit_job(&alice, "countUp", "sh -c 'echo $0; test $0 -lt 4'", None);
    let id = submitted.await?.record.info.id;
    let record = batches.wait(&alice, &id).await?;
    for step in &record.steps {
        let output = batches.output(&alice, &id, &step.id, Stream::Stdout, None).await?;
        let text = output.read(0, 100).await?;
        let line = String::from_utf8_lossy(&text);
        println!("step {}: {} after printing {}", step.id, step.state.name(), line.trim_end());
    }
    println!("{}", record.info.state.name());
    Ok(())
}
