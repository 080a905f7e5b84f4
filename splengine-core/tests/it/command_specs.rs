use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use splengine_core::auth::Access;
use splengine_core::batch::{BatchPolicy, FailFast, RetryOn, RunIf, StepCheck};
use splengine_core::execute::{Background, Limits, Stream};
use splengine_core::session::Attach;
use splengine_core::store::{MemoryStore, Store as _};
use splengine_core::{
    BatchRequest, Caller, CommandSpec, Engine, LocalExecutor, Reason, Request, SessionRequest, Step,
};
use tempfile::TempDir;

use crate::sessions::read_until;
use crate::store::TestStore;
use crate::support::{caller, text};

struct Bench {
    engine: Engine,
    alice: Caller,
    root: TempDir,
}

fn bench() -> Bench {
    let root = tempfile::tempdir().expect("a directory");
    let batches = BatchPolicy::new(MemoryStore::new(), root.path().join("runtime/batches"));
    let executor = LocalExecutor::new(root.path()).expect("set up");
    let builder = Engine::builder(executor).shell_commands(true).batches(batches);
    Bench { engine: builder.build().expect("built"), alice: caller("alice"), root }
}

impl Bench {
    async fn run(&self, spec: CommandSpec) -> String {
        let run = self.engine.execute(&self.alice, Request::from(spec)).await.expect("starts");
        text(&run.capture().await.stdout).to_owned()
    }

    async fn run_as_step(&self, spec: CommandSpec) -> String {
        let batches = self.engine.batches();
        let request = BatchRequest::new().step(Step::from(spec));
        let submitted = batches.submit(&self.alice, request, None).await.expect("accepted");
        let id = submitted.record.info.id;
        batches.wait(&self.alice, &id).await.expect("over");
        let mut results = batches.results(&self.alice, &id).await.expect("results");
        text(&results.steps.remove(0).stdout).to_owned()
    }

    /// Fails unless a session with this program prints it.
    async fn check_session(&self, spec: CommandSpec, printed: &str) {
        let sessions = self.engine.sessions();
        let request = SessionRequest::from(spec);
        let session = sessions.create(&self.alice, request).await.expect("starts");
        let attached = sessions.attach(&self.alice, &session.id, Attach::new(Access::Control));
        read_until(&mut attached.expect("attaches"), printed).await;
    }

    /// What each of the three answers to it, in this order.
    async fn refusals(&self, spec: CommandSpec) -> [String; 3] {
        let (engine, alice) = (&self.engine, &self.alice);
        let batch = BatchRequest::new().step(Step::from(spec.clone()));
        let run = engine.execute(alice, Request::from(spec.clone())).await.expect_err("refused");
        let batch = engine.batches().submit(alice, batch, None).await.expect_err("refused");
        let session = engine.sessions().create(alice, SessionRequest::from(spec)).await;
        [run.to_string(), batch.to_string(), session.expect_err("refused").to_string()]
    }
}

#[tokio::test]
async fn a_run_a_step_and_a_session_do_the_same() {
    let bench = bench();
    let below = bench.root.path().join("below");
    std::fs::create_dir(&below).expect("made");
    let script = below.join("it's a script; $0");
    // By one write, so that no snapshot comes between.
    let words = "#!/bin/sh\nprintf '%s, %s|%s\\n' \"$GREETING\" \"$1\" \"$(basename \"$PWD\")\"";
    std::fs::write(&script, words).expect("written");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("set");
    let set = |spec: CommandSpec| spec.workdir("below").env("GREETING", "hello");
    let argv = CommandSpec::argv(["./it's a script; $0", "a; b"]);
    for (spec, printed) in [
        (CommandSpec::new("printf '%s|' 'a b'").args(["c  d", "*"]).arg("'e'"), "a b|c  d|*|'e'|"),
        (CommandSpec::new("printenv GREETING"), "hello"),
        (CommandSpec::new("echo $GREETING | tr a-z").use_shell(true).arg("A-Z"), "HELLO"),
        (argv.clone(), "hello, a; b|below"),
        (argv.use_shell(true), "hello, a; b|below"),
    ] {
        let spec = set(spec);
        assert_eq!(bench.run(spec.clone()).await.trim_end(), printed);
        assert_eq!(bench.run_as_step(spec.clone()).await.trim_end(), printed);
        bench.check_session(spec, printed).await;
    }
}

#[tokio::test]
async fn a_run_a_step_and_a_session_are_refused_for_the_same() {
    let bench = bench();
    let many = |count: usize| (0..count).map(|n| n.to_string());
    let variables = many(Request::MAX_VARIABLES + 1)
        .fold(CommandSpec::new("true"), |spec, n| spec.env(format!("V{n}"), ""));
    for (spec, words) in [
        (CommandSpec::new("true").env("A=B", ""), "has the name \"A=B\""),
        (CommandSpec::new("true").args(many(Request::MAX_ARGS + 1)), "over the maximum of 131072"),
        (variables, "over the maximum of 16384"),
        (CommandSpec::new("a; b"), "`;` outside of quotes"),
        (CommandSpec::new(" ").use_shell(true), "is empty"),
        (CommandSpec::argv(["a\0b"]), "NUL byte"),
        (CommandSpec::new("true").workdir("none"), "none"),
    ] {
        for refusal in bench.refusals(spec).await {
            assert!(refusal.contains(words), "{refusal}");
        }
    }
    for empty in [CommandSpec::argv([""; 0]), CommandSpec::argv([""]), CommandSpec::new("")] {
        bench.refusals(empty).await;
    }
}

/// As every version has written it, in this order, of which sums of idempotency keys are made.
const STORED: &str = r#"{"name":"nightly","labels":{"branch":"main"},"timeout":60000,"steps":[{"id":"a","command":"'it'\\''s'","args":["b"],"workdir":"src","timeout":1000,"idleTimeout":2000,"mask":["A"],"outputLimit":3000,"limits":{"openFiles":64},"keepsBackground":true,"dependsOn":[],"runIf":"always","retries":5,"retryDelay":6,"rerunOnRestart":true,"retryOn":{"exitCodes":[7],"reasons":["timedOut"]},"allowFailure":true,"check":"late","stdinOpen":true,"envNames":["A"]},{"command":"cat","workdir":"below","dependsOn":["a"],"runIf":"failure","check":"early","stdinFrom":{"step":"a","isStderr":true}}],"parallelism":2,"failFast":"soon","workdir":null,"sessionId":null}"#;

#[tokio::test]
async fn the_stored_form_of_a_request_stays() {
    let store = TestStore::default();
    let root = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(root.path().join("below")).expect("made");
    let batches = BatchPolicy::new(store.clone(), root.path().join("runtime/batches"));
    let executor = LocalExecutor::new(root.path()).expect("set up");
    let engine = Engine::builder(executor).batches(batches).build().expect("built");
    let spec = CommandSpec::argv(["it's", "b"]).workdir("src").background(Background::Keep);
    let failures = RetryOn::new().exit_codes([7]).reasons([Reason::TimedOut]);
    let first = Step::from(spec.env("A", "1"))
        .id("a")
        .timeout(Duration::from_secs(1))
        .idle_timeout(Duration::from_secs(2))
        .mask("A")
        .output_limit(3000)
        .limits(Limits::default().open_files(64))
        .independent()
        .run_if(RunIf::Always)
        .retries(5)
        .retry_delay(Duration::from_millis(6))
        .rerun_on_restart(true)
        .retry_on(failures)
        .allow_failure(true)
        .check(StepCheck::Late)
        .open_stdin();
    let second = Step::new("cat")
        .after(["a"])
        .run_if(RunIf::Failure)
        .check(StepCheck::Early)
        .stdin_from("a", Stream::Stderr);
    let request = BatchRequest::new()
        .name("nightly")
        .label("branch", "main")
        .timeout(Duration::from_secs(60))
        .step(first)
        .step(second)
        .parallelism(2)
        .fail_fast(FailFast::Soon)
        .workdir("below");
    let submitted = engine.batches().submit(&caller("alice"), request, None).await;
    let id = submitted.expect("accepted").record.info.id;
    let row = store.get(format!("p\0{id}").as_bytes()).expect("read").expect("a row");
    let recipe: serde_json::Value = serde_json::from_slice(&row).expect("JSON");
    assert_eq!(recipe["text"], STORED);
}
