//! Programs that were written a moment ago.

use std::fs::{self, OpenOptions as StdOptions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use splengine_core::Request;
use splengine_core::files::{FilePolicy, OpenOptions};
use splengine_core::local::CgroupMode;

use crate::support::{Bench, bench, bench_with, caller, sh, text};

fn bench_with_files() -> Bench {
    bench_with(CgroupMode::Auto, |builder| builder).with_files()
}

impl Bench {
    fn with_files(self) -> Self {
        let policy = FilePolicy::new();
        let executor = splengine_core::LocalExecutor::new(self.root.path()).expect("set up");
        let engine = splengine_core::Engine::builder(executor).files(policy).build();
        Self { engine: engine.expect("built"), root: self.root }
    }

    fn make_program(&self, name: &str) {
        let path = self.root.path().join(name);
        fs::write(&path, "#!/bin/sh\n").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
    }
}

/// Nothing of ours holds it open by the time that its writer is told so: a shell of the caller's, which
/// tries only once, can run it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_written_can_be_run_beside_others_who_start_programs() {
    let bench = bench_with_files();
    let bench = Arc::new(bench);
    bench.make_program("replaced");
    bench.make_program("opened");
    let is_over = Arc::new(AtomicBool::new(false));
    let others: Vec<_> = (0..4)
        .map(|_| {
            let (bench, is_over) = (Arc::clone(&bench), Arc::clone(&is_over));
            tokio::spawn(async move {
                while !is_over.load(Relaxed) {
                    bench.run(Request::new("true")).await;
                }
            })
        })
        .collect();
    let (alice, files) = (caller("alice"), bench.engine.files());
    for number in 0..100 {
        let script = format!("#!/bin/sh\necho {number}\n");
        files.replace(&alice, Path::new("replaced"), script.as_bytes()).await.expect("replaced");
        let options = OpenOptions::new().write().truncate();
        let file = files.open(&alice, Path::new("opened"), options).await.expect("opened");
        file.write_at(0, Bytes::from(script)).await.expect("written");
        file.close().await;
        for script in ["./replaced", "./opened"] {
            let ran = bench.run(sh(script)).await;
            let shown = (text(&ran.stdout), text(&ran.stderr));
            assert_eq!(shown, (format!("{number}\n").as_str(), ""), "{script}");
        }
    }
    is_over.store(true, Relaxed);
    for other in others {
        other.await.expect("no panic");
    }
}

#[tokio::test]
async fn a_program_that_is_being_written_is_waited_for_a_moment() {
    let bench = bench();
    bench.make_program("tool");
    let open =
        || StdOptions::new().append(true).open(bench.root.path().join("tool")).expect("open");
    let run = async || {
        let writer = open();
        let closing = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            drop(writer);
        });
        let started = bench.engine.execute(&caller("alice"), Request::new("./tool")).await;
        closing.join().expect("closed");
        started
    };
    // Where this machine is busy with others, it may not be closed within that moment.
    let mut tries = 0..20;
    let started = loop {
        match run().await {
            Ok(run) => break run,
            Err(refusal) => assert!(tries.next().is_some(), "{refusal}"),
        }
    };
    assert!(started.capture().await.end.success());

    let writer = open();
    let refusal = bench.refusal(Request::new("./tool")).await;
    assert!(refusal.to_string().contains("being written"), "{refusal}");
    drop(writer);
}
