//! Programs that lower the limits by which their run is known, as anybody may, and leave its session
//! and their parents as well.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit, setsid};
use splengine_core::execute::Background;
use splengine_core::local::CgroupMode;
use splengine_core::{Reason, Request};

use crate::support::*;

/// What the tests' scripts start as `$HIDE`: lowers the limits to `$LOCKS` and `$RSS` and runs
/// `$THEN` in a shell.
#[test]
#[ignore = "it is not a test, but what the others start"]
fn main_of_the_hider() {
    for (name, resource) in [("LOCKS", Resource::Locks), ("RSS", Resource::Rss)] {
        if let Some(limit) = std::env::var(name).ok().and_then(|limit| limit.parse().ok()) {
            let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
            setrlimit(resource, limit).expect("anybody may lower a limit");
        }
    }
    if std::env::var_os("SETSID").is_some_and(|setsid| !setsid.is_empty()) {
        setsid().expect("no group leader");
    }
    let then = std::env::var_os("THEN").expect("a script");
    panic!("{}", std::process::Command::new("/bin/sh").arg("-c").arg(then).exec());
}

/// `sh -c script`, in which `hide NAME SETSID THEN` writes its number into the file of its name and
/// hides (instead of the shell that it is called in), in a session of its own if `SETSID` is not empty, and `hidden NAME...` waits until these
/// have, or are gone: the runs of other tests may end them as soon as they are strays.
fn hiding(script: &str) -> Request {
    let own = std::env::current_exe().expect("known");
    let own = own.to_str().expect("text");
    let script = format!(
        r#"HIDE='{own} --exact escapes::main_of_the_hider --ignored --nocapture'
        export LOCKS=1000 RSS=1000
        hide() {{
            export SETSID="$2" THEN="$3"
            exec sh -c "echo \$\$ >$1; exec $HIDE >/dev/null"
        }}
        hidden() {{
            for name in "$@"; do
                while ! [ -s $name ]; do sleep 0.02; done
                limits=/proc/$(cat $name)/limits
                while [ -e $limits ] && ! grep -q "file locks  *$LOCKS " $limits; do sleep 0.02; done
            done
        }}
        {script}"#
    );
    sh(&script)
}

/// Each leaves in another way.
const ESCAPES: &str = r#"
    hide group '' 'exec sleep 301' &
    RSS= hide locks 1 'exec sleep 302' &
    hide session 1 'exec sleep 303' &
    (hide orphan '' 'exec sleep 304' &)
    (hide stray 1 'exec env -i sleep 305' &)
    (hide above 1 'trap "" TERM; sleep 306 & echo $! >below; wait; wait' &)
    hidden group locks session orphan stray above
    while ! [ -s below ] && [ -e /proc/$(cat above) ]; do sleep 0.02; done
"#;
const NAMES: [&str; 7] = ["group", "locks", "session", "orphan", "stray", "above", "below"];

/// The number that one has written; `None` if it was ended before.
fn number(root: &Path, name: &str) -> Option<u32> {
    std::fs::read_to_string(root.join(name)).ok()?.trim().parse().ok()
}

fn left(root: &Path) -> Vec<&'static str> {
    let is_left = |name: &&str| number(root, name).is_some_and(is_alive);
    NAMES.into_iter().filter(is_left).collect()
}

#[tokio::test]
async fn nobody_hides_from_the_end_of_a_run() {
    for mode in modes() {
        for last in ["exit 3", "export THEN='echo all; exec sleep 300'; exec $HIDE"] {
            let bench = bench_with(mode.clone(), |builder| builder);
            let request = hiding(&format!("{ESCAPES}\n{last}"));
            let mut run = bench.start(request).await;
            if !last.starts_with("exit") {
                read_until(&mut run, "all").await;
                run.stopper().stop();
            }
            let end = run.capture().await.end;
            let wanted = if last.starts_with("exit") { Reason::Exited } else { Reason::Cancelled };
            assert_eq!(end.reason, wanted);
            assert_eq!(left(bench.root.path()), [""; 0], "{mode:?}, {last}");
            assert_eq!(bench.engine.stats().leftovers, 0);
        }
    }
}

#[tokio::test]
async fn nobody_hides_from_a_timeout_and_a_drain() {
    for mode in modes() {
        let bench = bench_with(mode.clone(), |builder| builder);
        let mut run = bench.start(hiding(&format!("{ESCAPES}\necho all; sleep 300"))).await;
        read_until(&mut run, "all").await;
        bench.engine.drain(Duration::ZERO).await;
        assert_eq!(run.capture().await.end.reason, Reason::Cancelled);
        assert_eq!(left(bench.root.path()), [""; 0], "{mode:?}, drained");

        let bench = bench_with(mode.clone(), |builder| builder);
        // It may end before all have written, on a busy machine.
        let script = format!("{ESCAPES}\nsleep 300");
        let run = bench.start(hiding(&script).timeout(Duration::from_secs(5))).await;
        assert_eq!(run.capture().await.end.reason, Reason::TimedOut);
        assert_eq!(left(bench.root.path()), [""; 0], "{mode:?}, timed out");
    }
}

/// Its limits, as `/proc/PID/limits` has them.
fn limits_of(pid: u32) -> (String, String) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("is there");
    let hard = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).expect("listed");
        line[name.len()..].split_ascii_whitespace().nth(1).expect("a limit").to_owned()
    };
    (hard("Max file locks"), hard("Max resident set"))
}

#[tokio::test]
async fn nobody_passes_for_one_of_another_run() {
    let bench = bench_with(CgroupMode::Off, |builder| builder);
    let mut kept = bench.start(sh("setsid sleep 300 & echo $!").background(Background::Keep)).await;
    let kept_pid: u32 = read_until(&mut kept, "\n").await.trim().parse().expect("a number");
    kept.capture().await;
    let (locks, _) = limits_of(kept_pid);
    let script =
        format!("export LOCKS={locks} RSS=\n(hide forger 1 'exec sleep 307' &)\nhidden forger");
    assert!(bench.run(hiding(&script)).await.end.success());
    assert!(!number(bench.root.path(), "forger").is_some_and(is_alive));
    assert!(is_alive(kept_pid));
    bench.run(sh(&format!("kill {kept_pid}"))).await;
}

#[tokio::test]
async fn who_hides_is_asked_to_end_all_the_same() {
    for mode in modes() {
        let bench = bench_with(mode, |builder| builder.grace(Duration::from_secs(30)));
        let words = |name: &str| {
            format!(
                "trap \"echo saved >{name}; exit\" TERM; echo >{name}.up; while :; do sleep 0.02; done"
            )
        };
        let script = format!(
            "THEN='{}' SETSID=1 $HIDE >/dev/null &\n\
             (THEN='{}' $HIDE >/dev/null &)\n\
             while ! [ -e below.up -a -e beside.up ]; do sleep 0.02; done; echo ready\n\
             THEN='{}' exec $HIDE",
            words("below"),
            words("beside"),
            // Until it has ended the others have a parent, or its session: they are no strays, which
            // the runs of other tests may end.
            words("leader").replace(
                "echo saved",
                "while ! [ -e below -a -e beside ]; do sleep 0.02; done; echo saved"
            ),
        );
        let mut run = bench.start(hiding(&script)).await;
        read_until(&mut run, "ready").await;
        let file = |name: &str| bench.root.path().join(name);
        eventually("the leader hides", || file("leader.up").exists()).await;
        run.stopper().stop();
        let captured = run.capture().await;
        assert_eq!(captured.end.reason, Reason::Cancelled);
        for name in ["below", "beside", "leader"] {
            assert!(file(name).exists(), "{name} was not asked: {captured:?}");
        }
    }
}

#[tokio::test]
async fn hidden_zombies_are_reaped() {
    let bench = bench_with(CgroupMode::Off, |builder| builder);
    let script = "for name in a b c; do (hide $name 1 'sleep 0.1' &); done; hidden a b c; echo all";
    let is_reaped = |bench: &Bench, name: &str| {
        let pid = number(bench.root.path(), name).expect("written");
        !PathBuf::from(format!("/proc/{pid}")).exists()
    };
    let mut lasting = bench.start(hiding(&format!("{script}; exec sleep 300"))).await;
    read_until(&mut lasting, "all").await;
    eventually("they are reaped while the run lasts", || {
        ["a", "b", "c"].iter().all(|name| is_reaped(&bench, name))
    })
    .await;
    let other = bench_with(CgroupMode::Off, |builder| builder);
    let kept = other.run(hiding(script).background(Background::Keep)).await;
    assert!(kept.end.success());
    eventually("they are reaped after the run", || {
        ["a", "b", "c"].iter().all(|name| is_reaped(&other, name))
    })
    .await;
    lasting.stopper().stop();
    lasting.capture().await;
}

/// What a run may leave running on purpose, it may not hide: then it ends with the next one, or
/// with nobody running soon.
#[tokio::test]
async fn background_processes_that_hide_are_not_kept() {
    let bench = bench_with(CgroupMode::Off, |builder| builder);
    let script = "(hide stray 1 'exec sleep 308' &); hidden stray";
    assert!(bench.run(hiding(script).background(Background::Keep)).await.end.success());
    let stray = number(bench.root.path(), "stray").expect("written");
    eventually("it is ended", || !is_alive(stray)).await;
}

#[tokio::test]
async fn children_of_this_process_are_never_hit_whatever_their_limits() {
    let bench = bench_with(CgroupMode::Off, |builder| builder);
    let own = std::env::current_exe().expect("known");
    let start = |locks: &str, rss: &str, session: bool| {
        let mut command = std::process::Command::new(&own);
        command.args(["--exact", "escapes::main_of_the_hider", "--ignored", "--nocapture"]);
        command.env("THEN", "exec sleep 309").env("LOCKS", locks).env("RSS", rss);
        command.stdout(std::process::Stdio::null());
        if session {
            command.env("SETSID", "1");
        }
        command.spawn().expect("starts")
    };
    let mut children =
        [start("5", "5", false), start("5", "", true), start("", "5", true), start("", "", true)];
    let is_asleep = |pid: u32| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
        name.is_ok_and(|name| name.trim() == "sleep")
    };
    eventually("all sleep", || children.iter().all(|child| is_asleep(child.id()))).await;
    let orphan = "(hide orphan 1 'exec sleep 310' &); hidden orphan";
    // A run that ends, one that is stopped, and the look that is taken every second.
    assert!(bench.run(hiding(orphan)).await.end.success());
    let stopped = bench.start(sh("sleep 300 & setsid sleep 300")).await;
    stopped.stopper().stop();
    stopped.capture().await;
    let kept = hiding(orphan).background(Background::Keep);
    std::fs::remove_file(bench.root.path().join("orphan")).expect("is there");
    assert!(bench.run(kept).await.end.success());
    let orphan = number(bench.root.path(), "orphan").expect("written");
    eventually("the look was taken", || !is_alive(orphan)).await;
    for child in &mut children {
        assert_eq!(child.try_wait().expect("ours"), None, "it was let be");
        child.kill().expect("is there");
        assert_eq!(child.wait().expect("not reaped by the engine").code(), None);
    }
}
