use std::time::Duration;

use splengine_core::engine::BuildError;
use splengine_core::execute::{LimitKind, Signal};
use splengine_core::{ErrorKind, Limits, Reason};

use crate::support::*;

#[tokio::test]
async fn each_limit_reaches_the_program() {
    let bench = bench();
    for (kind, value, option, shown) in [
        (LimitKind::CpuTime, 1500, "-t", "2"),
        (LimitKind::AddressSpace, 512 << 20, "-v", "524288"),
        (LimitKind::OpenFiles, 77, "-n", "77"),
        (LimitKind::FileSize, 512 * 9, "-f", "9"),
    ] {
        let request = sh(&format!("ulimit {option}")).limits(Limits::default().with(kind, value));
        let captured = bench.run(request).await;
        assert_eq!(text(&captured.stdout).trim(), shown, "{kind:?}");
    }
}

#[tokio::test]
async fn processor_time_and_file_size_end_a_run() {
    let bench = bench();
    let busy = sh("while :; do :; done").limits(Limits::default().with(LimitKind::CpuTime, 1000));
    let end = bench.run(busy).await.end;
    assert_eq!(end.reason, Reason::Signaled);
    assert_eq!(end.signal.map(|signal| signal.to_string()).as_deref(), Some("SIGXCPU"));

    let writer = sh("exec head -c 100000 /dev/zero > file")
        .limits(Limits::default().with(LimitKind::FileSize, 1000));
    let end = bench.run(writer).await.end;
    assert_eq!(end.signal, Signal::from_number(25), "SIGXFSZ");
    assert_eq!(std::fs::metadata(bench.root.path().join("file")).expect("made").len(), 1000);
}

/// Without a memory cgroup it is refused, with one it bounds what is used, not what is reserved.
#[tokio::test]
async fn a_limit_of_memory_bounds_no_address_space() {
    for mode in modes() {
        let bench = bench_with(mode, |builder| builder);
        let request = sh("ulimit -v").limits(Limits::default().with(LimitKind::Memory, 512 << 20));
        if bench.engine.enforces(LimitKind::Memory) {
            assert_eq!(text(&bench.run(request).await.stdout).trim(), "unlimited");
        } else {
            let refusal = bench.refusal(request).await.to_string();
            assert!(refusal.contains("enforced: cpuTime") && refusal.contains("addressSpace"));
        }
    }
}

#[tokio::test]
async fn what_cannot_be_enforced_is_refused() {
    let bench = bench();
    for &kind in LimitKind::ALL {
        let enough = if kind == LimitKind::OpenFiles { 100 } else { 1 << 30 };
        let request = sh("true").limits(Limits::default().with(kind, enough));
        if bench.engine.enforces(kind) {
            assert!(bench.run(request).await.end.success(), "{kind:?}");
        } else {
            let refusal = bench.refusal(request).await;
            assert_eq!(refusal.kind(), ErrorKind::Impossible);
            assert!(refusal.to_string().contains(kind.name()), "{refusal}");
        }
    }
}

#[tokio::test]
async fn an_unenforceable_default_is_refused_at_once() {
    struct Nothing;
    impl splengine_core::Execute for Nothing {
        async fn execute(
            &self,
            _: splengine_core::execute::Command,
            _: splengine_core::execute::Stdin,
            _: splengine_core::execute::Output,
            _: splengine_core::execute::Cancel,
        ) -> Result<splengine_core::execute::Exit, splengine_core::ExecuteError> {
            Ok(splengine_core::execute::Exit::new(splengine_core::execute::ExitStatus::Code(0)))
        }
    }
    let limits = Limits::default().with(LimitKind::Memory, 1);
    let built = splengine_core::Engine::builder(Nothing).max_limits(limits).build();
    assert!(matches!(built, Err(BuildError::NotEnforced(LimitKind::Memory))));
}

#[tokio::test]
async fn more_than_the_maximum_is_refused_not_clamped() {
    let bench = bench_with(Default::default(), |builder| {
        builder
            .max_timeout(Duration::from_secs(10))
            .max_output_limit(1000)
            .default_output_limit(1000)
            .max_limits(Limits::default().with(LimitKind::OpenFiles, 100))
            .default_limits(Limits::default().with(LimitKind::OpenFiles, 50))
    });
    for (request, culprit) in [
        (sh("true").timeout(Duration::from_secs(11)), "timeout"),
        (sh("true").output_limit(1001), "output_limit"),
        (sh("true").limits(Limits::default().with(LimitKind::OpenFiles, 101)), "openFiles"),
    ] {
        let refusal = bench.refusal(request).await;
        assert_eq!(refusal.kind(), ErrorKind::Impossible);
        assert!(refusal.to_string().contains(culprit), "{refusal}");
    }
    assert_eq!(text(&bench.run(sh("ulimit -n")).await.stdout), "50\n");
    assert_eq!(
        bench.refusal(sh("true").timeout(Duration::ZERO)).await.kind(),
        ErrorKind::Malformed
    );
}
