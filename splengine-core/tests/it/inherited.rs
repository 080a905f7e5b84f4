//! What programs inherit from the process that embeds the engine, and what they don't.

use std::io::Write as _;
use std::process::{Command, Stdio};

use rustix::process::{Resource, Rlimit, getpriority_process, getrlimit, setrlimit};
use splengine_core::local::LocalExecutorBuilder;
use splengine_core::{Engine, LocalExecutor, Request};

use crate::skipped::{Need, skip};
use crate::support::*;

async fn printed(
    configure: impl FnOnce(LocalExecutorBuilder) -> LocalExecutorBuilder,
    script: &str,
) -> String {
    let root = tempfile::tempdir().expect("a directory");
    let executor = configure(LocalExecutor::builder(root.path())).build().expect("set up");
    let engine = Engine::builder(executor).build().expect("built");
    let run = engine.execute(&caller("alice"), sh(script)).await.expect("starts");
    text(&run.capture().await.stdout).trim().to_owned()
}

/// This test process's own, which whoever runs it may have changed.
fn own_nice() -> i32 {
    getpriority_process(None).expect("it has one")
}

fn own_oom_score_adj() -> i32 {
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").expect("Linux has it");
    own.trim().parse().expect("a number")
}

#[tokio::test]
async fn what_is_configured_is_what_programs_have() {
    let mask = printed(|builder| builder.umask(0o7026), "umask; echo >made; ls -l made").await;
    assert!(mask.starts_with("0026\n-rw-r-----"), "{mask}");
    let files = printed(|builder| builder.open_files(77), "ulimit -Sn; ulimit -Sn 78").await;
    assert_eq!(files, "77", "and it can be raised");
    let (own_oom, own_nice) = (own_oom_score_adj(), own_nice());
    let oom = printed(|builder| builder.oom_score_adj(321), "cat /proc/self/oom_score_adj").await;
    assert_eq!(oom, own_oom.max(321).to_string());
    let nice = printed(|builder| builder.nice(7), "nice").await;
    assert_eq!(nice, own_nice.max(7).to_string());
    assert_eq!((own_oom_score_adj(), self::own_nice()), (own_oom, own_nice), "its own stay");
}

const LINE: &str = "a program has: ";
const OWN_LINE: &str = "the engine's OOM score: ";
/// An OOM score of an engine that is to outlive its runs.
const PREFERRED: i32 = -100;

/// An engine with more than usual, as [`wrapped`] starts it: prints what a program has.
#[test]
#[ignore = "it is not a test, but what another starts"]
fn main_of_a_preferred_engine() {
    let set = |resource: Resource, soft: u64| {
        let Rlimit { maximum, .. } = getrlimit(resource);
        setrlimit(resource, Rlimit { current: Some(soft), maximum }).expect("within the hard one");
    };
    set(Resource::Nofile, 300);
    let root = tempfile::tempdir().expect("a directory");
    let builder = LocalExecutor::builder(root.path());
    // As a server does that has many connections.
    set(Resource::Nofile, 400);
    set(Resource::Core, getrlimit(Resource::Core).maximum.unwrap_or(1 << 40));
    // Not each host lets it.
    let _ = std::fs::write("/proc/self/oom_score_adj", PREFERRED.to_string());
    writeln!(std::io::stdout(), "{OWN_LINE}{}", own_oom_score_adj()).expect("it is read");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let engine = Engine::builder(builder.build().expect("set up")).build().expect("built");
        let script = "ulimit -Sn; ulimit -Sc; nice; ionice; chrt -p $$ | head -1; \
                      grep CapAmb: /proc/self/status; cat /proc/self/oom_score_adj";
        let request = Request::new("sh -c").arg(script);
        let run = engine.execute(&caller("alice"), request).await.expect("starts");
        for line in text(&run.capture().await.stdout).lines() {
            writeln!(std::io::stdout(), "{LINE}{line}").expect("it is read");
        }
    });
}

/// A command with everything that takes privileges, or without; `None` where it can't be had here.
fn wrapped(with_privileges: bool) -> Option<Command> {
    let wrapper = [
        "setpriv",
        "--inh-caps",
        "+kill",
        "--ambient-caps",
        "+kill",
        "chrt",
        "-r",
        "5",
        "ionice",
        "-c1",
        "-n0",
        "nice",
        "-n",
        "-3",
    ];
    let own = std::env::current_exe().expect("known");
    if !with_privileges {
        return Some(Command::new(own));
    }
    let wrap = || {
        let mut command = Command::new(wrapper[0]);
        command.args(&wrapper[1..]);
        command
    };
    let tried = wrap().arg("true").stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success()).then(|| {
        let mut command = wrap();
        command.arg(own);
        command
    })
}

#[test]
fn programs_have_no_more_than_usual_of_what_the_engine_has() {
    for with_privileges in [false, true] {
        let Some(mut command) = wrapped(with_privileges) else {
            skip(Need::Privileges, "there can be no engine that is preferred to others here");
            continue;
        };
        let words = ["--exact", "inherited::main_of_a_preferred_engine", "--ignored"];
        let output = command.args(words).arg("--nocapture").output().expect("starts");
        let told = String::from_utf8_lossy(&output.stdout);
        let has: Vec<&str> =
            told.lines().filter_map(|line| line.split_once(LINE)).map(|(_, has)| has).collect();
        assert_eq!(has.first(), Some(&"300"), "open files: {told}");
        assert_eq!(has.get(1), Some(&"0"), "core dumps: {told}");
        if with_privileges {
            // That of the engine, by which it is preferred to this process, but none below 0.
            let nice = (own_nice() - 3).max(0).to_string();
            assert_eq!(has.get(2), Some(&&*nice), "nice: {told}");
            assert!(has.get(3).is_some_and(|class| class.starts_with("none")), "disks: {told}");
            assert!(has.get(4).is_some_and(|policy| policy.ends_with("SCHED_OTHER")), "{told}");
            let none = has.get(5).and_then(|line| line.split_ascii_whitespace().nth(1));
            assert!(none.is_some_and(|set| set.trim_matches('0').is_empty()), "ambient: {told}");
        }
        let own = told.lines().find_map(|line| line.split_once(OWN_LINE)).expect("told").1;
        let own: i32 = own.parse().expect("a number");
        assert_eq!(has.get(6), Some(&&*own.max(0).to_string()), "OOM score: {told}");
        if own != PREFERRED {
            skip(Need::OomScore, "an engine may not be killed later than others here");
        }
    }
}
