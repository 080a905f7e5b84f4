use apache_avro::Reader;
use apache_avro::types::Value;
use splengine_avro::results_container;
use splengine_core::batch::{BatchPolicy, BatchResults};
use splengine_core::execute::{Cancel, Command, Exit, ExitStatus, Output, Stdin, Stream};
use splengine_core::store::MemoryStore;
use splengine_core::{BatchRequest, Caller, Engine, Execute, ExecuteError, Step};

/// Prints its second word as often as its first says; with a third it fails.
struct Printer;

impl Execute for Printer {
    async fn execute(
        &self,
        command: Command,
        _: Stdin,
        output: Output,
        _: Cancel,
    ) -> Result<Exit, ExecuteError> {
        output.started();
        let words = command.text_argv()?;
        let text = words[1].repeat(words[0].parse().expect("a number"));
        let _ = output.write(Stream::Stdout, text.into()).await;
        let _ = output.write(Stream::Stderr, vec![0xff].into()).await;
        Ok(Exit::new(ExitStatus::Code(if command.argv.len() > 2 { 3 } else { 0 })))
    }
}

async fn results(request: BatchRequest) -> BatchResults {
    let outputs = tempfile::tempdir().expect("a directory");
    let policy = BatchPolicy::new(MemoryStore::new(), outputs.path());
    let engine = Engine::builder(Printer).batches(policy).build().expect("built");
    let alice = Caller::new("alice").expect("a user name").with_all_scopes();
    let batches = engine.batches();
    let submitted = batches.submit(&alice, request, None).await.expect("accepted");
    let id = submitted.record.info.id;
    batches.wait(&alice, &id).await.expect("over");
    batches.results(&alice, &id).await.expect("gathered")
}

/// The rows, each as its fields' names and values.
fn rows(file: &[u8]) -> Vec<Vec<(String, Value)>> {
    let reader = Reader::new(file).expect("a container file");
    let schema = reader.writer_schema().name().expect("a record").to_string();
    assert_eq!(schema, "com.splectrum.rpc.StepResult");
    let fields = |value| match value {
        Ok(Value::Record(fields)) => fields,
        other => panic!("no record: {other:?}"),
    };
    reader.map(fields).collect()
}

fn field(row: &[(String, Value)], name: &str) -> Value {
    let value = row.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    match value.unwrap_or_else(|| panic!("{name} is there")) {
        Value::Union(_, value) => *value,
        value => value,
    }
}

#[tokio::test]
async fn each_step_is_a_record() {
    let request = BatchRequest::new()
        .step(Step::new("1 out").id("one"))
        .step(Step::new("5 0123456789").id("gap").output_limit(4))
        .step(Step::new("1 bad fails"))
        .step(Step::new("1 never"));
    let results = results(request).await;
    let file = results_container(&results).expect("written");
    let rows = rows(&file);
    assert_eq!(rows.len(), 4);
    let bytes = |text: &[u8]| Value::Bytes(text.to_vec());
    let text = |text: &str| Value::String(text.to_owned());
    for (place, name, value) in [
        (0, "batchId", text(results.info.id.as_str())),
        (0, "id", text("one")),
        (0, "command", text("1 out")),
        (0, "state", Value::Enum(4, "succeeded".to_owned())),
        (0, "reason", Value::Enum(1, "exited".to_owned())),
        (0, "exitCode", Value::Int(0)),
        (0, "stdout", bytes(b"out")),
        (0, "stderr", bytes(b"\xff")),
        (0, "stdoutBytes", Value::Long(3)),
        (0, "stdoutTruncated", Value::Boolean(false)),
        (0, "stdoutGap", Value::Null),
        (1, "dependsOn", Value::Array(vec![text("one")])),
        (1, "stdout", bytes(b"0189")),
        (1, "stdoutBytes", Value::Long(50)),
        (1, "stdoutTruncated", Value::Boolean(true)),
        (1, "stdoutGap", Value::Long(2)),
        (2, "exitCode", Value::Int(3)),
        (3, "state", Value::Enum(6, "skipped".to_owned())),
        (3, "problem", text("a step before it failed")),
        (3, "exitCode", Value::Null),
        (3, "started", Value::Null),
    ] {
        assert_eq!(field(&rows[place], name), value, "{name} of step {place}");
    }
    assert!(matches!(field(&rows[0], "started"), Value::TimestampMillis(1..)));
    assert!(matches!(field(&rows[0], "duration"), Value::Long(0..)));
    // A marker that is known beforehand could be printed.
    assert_ne!(results_container(&results).expect("written"), file);
}

#[tokio::test]
async fn much_is_cut_into_blocks_and_told_to_be_cut() {
    // The last has no room for all that is kept of it, and its gap lies beyond what it has.
    let first = Step::new("10485760 a");
    let second = Step::new("20971520 b").output_limit(15 << 20);
    let small = (0..100).map(|number| Step::new("1000 x").id(format!("small-{number}")));
    let request = small.fold(BatchRequest::new().parallelism(1), BatchRequest::step);
    let request = request.step(first).step(second).step(Step::new("1 c"));
    let results = results(request).await;
    let file = results_container(&results).expect("written");
    let marker = &file[file.len() - 16..];
    let markers = file.windows(16).filter(|window| *window == marker).count();
    assert!((4..=8).contains(&markers), "{markers}");
    let rows = rows(&file);
    assert_eq!(rows.len(), 103);
    assert!(rows[..100].iter().all(|row| field(row, "stdout") == Value::Bytes(vec![b'x'; 1000])));
    let Value::Bytes(data) = field(&rows[101], "stdout") else { panic!("bytes") };
    assert_eq!(data, vec![b'b'; (6 << 20) - 100_000]);
    assert!(results.steps[101].step.stdout_gap.is_some_and(|gap| gap.at > 6 << 20));
    assert_eq!(field(&rows[101], "stdoutGap"), Value::Null);
    assert_eq!(field(&rows[101], "stdoutTruncated"), Value::Boolean(true));
    assert_eq!(field(&rows[100], "stdoutTruncated"), Value::Boolean(false));
    assert_eq!(field(&rows[102], "stdout"), Value::Bytes(Vec::new()));
    assert_eq!(field(&rows[102], "stdoutTruncated"), Value::Boolean(true));
}
