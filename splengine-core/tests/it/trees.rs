use std::path::{Path, PathBuf};
use std::time::Duration;

use splengine_core::execute::Background;
use splengine_core::local::CgroupMode;
use splengine_core::{Reason, Request, Run};
use tokio::time::Instant;

use crate::skipped::{Need, skip};
use crate::support::*;

/// Children that got away from their parent in every way there is, each of whom writes its number.
const ESCAPES: &str = r"
    sleep 61 & echo $!
    setsid sleep 62 & echo $!
    (setsid sh -c 'echo $$; exec sleep 63' &)
    (env -i setsid /bin/sh -c '(/bin/sh -c \'echo $$; trap : TERM; while :; do /bin/sleep 0.1; done\' &)' &)
    trap '' TERM
    (setsid sh -c 'trap \'\' TERM; echo $$; while :; do sleep 0.1; done' &)
";

fn escapes() -> String {
    // A quote inside single quotes, the way sh wants it.
    ESCAPES.replace(r"\'", r"'\''")
}

async fn five_pids(run: &mut Run) -> Vec<u32> {
    let mut text = String::new();
    while text.lines().count() < 5 || !text.ends_with('\n') {
        text += &read_until(run, "\n").await;
    }
    text.lines().map(|line| line.parse().expect("a number")).collect()
}

fn left(pids: &[u32]) -> Vec<u32> {
    pids.iter().copied().filter(|pid| is_alive(*pid)).collect()
}

#[tokio::test]
async fn nobody_escapes_a_timeout() {
    for mode in modes() {
        let bench = bench_with(mode.clone(), |builder| builder);
        let request = sh(&format!("{}\nwhile :; do sleep 0.1; done", escapes()));
        let mut run = bench.start(request.timeout(Duration::from_secs(10))).await;
        let pids = five_pids(&mut run).await;
        assert_eq!(left(&pids), pids, "all run before");
        let end = run.capture().await.end;
        assert_eq!(end.reason, Reason::TimedOut);
        assert_eq!(left(&pids), [0u32; 0], "{mode:?}");
        assert_eq!(bench.engine.stats().leftovers, 0);
    }
}

#[tokio::test]
async fn nobody_escapes_a_cancellation() {
    for mode in modes() {
        let bench = bench_with(mode.clone(), |builder| builder);
        let mut run = bench.start(sh(&format!("{}\nsleep 60", escapes()))).await;
        let pids = five_pids(&mut run).await;
        run.stopper().stop();
        assert_eq!(run.capture().await.end.reason, Reason::Cancelled);
        assert_eq!(left(&pids), [0u32; 0], "{mode:?}");
    }
}

#[tokio::test]
async fn nobody_is_left_after_a_plain_exit() {
    for mode in modes() {
        let bench = bench_with(mode.clone(), |builder| builder);
        // The leader goes only when the others have written their numbers to the file.
        let script = format!(
            "({}) > pids 2>/dev/null\n\
             while [ $(wc -l < pids) -lt 5 ]; do sleep 0.02; done; cat pids",
            escapes()
        );
        let captured = bench.run(sh(&script)).await;
        assert_eq!((captured.end.reason, captured.end.exit_code), (Reason::Exited, 0));
        let pids: Vec<u32> =
            text(&captured.stdout).lines().map(|line| line.parse().expect("a number")).collect();
        assert_eq!(pids.len(), 5);
        assert_eq!(left(&pids), [0u32; 0], "{mode:?}");
        assert!(bench.engine.stats().swept >= 5);
        assert_eq!(bench.engine.stats().leftovers, 0);
    }
}

#[tokio::test]
async fn a_child_may_take_the_grace_though_its_parent_did_not() {
    for mode in modes() {
        let bench = bench_with(mode, |builder| builder.grace(Duration::from_secs(30)));
        let script = "(trap 'sleep 0.3; echo saved > saved; exit' TERM; echo ready; \
                      while :; do sleep 0.02; done) & wait";
        let mut run = bench.start(sh(script)).await;
        read_until(&mut run, "ready").await;
        run.stopper().stop();
        let end = run.capture().await.end;
        assert_eq!(end.reason, Reason::Cancelled);
        assert!(bench.root.path().join("saved").exists());
    }
}

/// A shell that outlived its command for a moment would go on with the next one.
#[tokio::test]
async fn who_is_stopped_does_not_go_on_with_its_next_command() {
    let bench = bench();
    for _ in 0..16 {
        let script = "for i in $(seq 100); do sleep 61 & done; echo up; sleep 61; echo went on";
        let mut run = bench.start(sh(script)).await;
        assert_eq!(read_until(&mut run, "\n").await, "up\n");
        run.stopper().stop();
        assert_eq!(text(&run.capture().await.stdout), "");
    }
}

#[tokio::test]
async fn strangers_are_never_hit() {
    let bench = bench_with(CgroupMode::Off, |builder| builder);
    // Children of this very process, which the engine did not start.
    let mut stranger = std::process::Command::new("sleep").arg("60").spawn().expect("starts");
    let mut quick =
        std::process::Command::new("sh").args(["-c", "exit 5"]).spawn().expect("starts");
    let mut kept = bench.start(sh("setsid sleep 60 & echo $!").background(Background::Keep)).await;
    let kept_pid: u32 = read_until(&mut kept, "\n").await.trim().parse().expect("a number");
    kept.capture().await;
    let mut other = bench.start(sh("setsid sleep 60 & echo $!; wait")).await;
    let other_pid: u32 = read_until(&mut other, "\n").await.trim().parse().expect("a number");

    let end =
        bench.run(sh("sleep 60 & setsid sleep 60 & sleep 60").timeout(Duration::from_millis(300)));
    assert_eq!(end.await.end.reason, Reason::TimedOut);

    assert!(is_alive(stranger.id()) && is_alive(kept_pid) && is_alive(other_pid));
    assert_eq!(quick.wait().expect("not reaped by the engine").code(), Some(5));
    bench.run(sh(&format!("kill {kept_pid}"))).await;
    stranger.kill().expect("still there");
    stranger.wait().expect("not reaped by the engine");
}

#[tokio::test]
async fn orphans_of_a_long_run_are_reaped_while_it_lasts() {
    let bench = bench_with(CgroupMode::Off, |builder| builder);
    let script = "for i in 1 2 3; do (sh -c 'echo $$; sleep 0.1' &); done; sleep 0.5; \
                  echo all; exec sleep 60";
    let mut run = bench.start(sh(script)).await;
    let mut text = read_until(&mut run, "all").await;
    // Who is late is an orphan all the same.
    while text.lines().count() < 4 || !text.ends_with('\n') {
        text += &read_until(&mut run, "\n").await;
    }
    let pids: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    assert_eq!(pids.len(), 3);
    eventually("no zombie is left", || {
        pids.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists())
    })
    .await;
}

/// The number of runs, which `SPLENGINE_TEST_RUNS` sets; CI runs 10,000.
fn runs(default: usize) -> usize {
    std::env::var("SPLENGINE_TEST_RUNS").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_runs_that_orphan_children_lose_no_code_and_leave_no_zombie() {
    let bench = bench_with(CgroupMode::Off, |builder| builder.max_running(8));
    // By names of their own, since other tests of this process leave zombies whose engines are gone.
    for (program, name) in [("/bin/sh", SHELL), ("/bin/sleep", SLEEP)] {
        let copied = std::process::Command::new("cp")
            .arg(program)
            .arg(bench.root.path().join(name))
            .status();
        assert!(copied.expect("starts").success());
    }
    let count = runs(1000);
    let mut tasks = tokio::task::JoinSet::new();
    let mut outstanding = 0;
    for i in 0..count {
        let engine = bench.engine.clone();
        let code = i % 200;
        tasks.spawn(async move {
            let script = format!("(./{SLEEP} 0 &) ; (setsid ./{SLEEP} 5 &) ; exit {code}");
            let request = Request::new(format!("./{SHELL} -c")).arg(script);
            let run = engine.execute(&caller("alice"), request).await.expect("starts");
            assert_eq!(run.capture().await.end.exit_code, i32::try_from(code).expect("small"));
        });
        outstanding += 1;
        if outstanding == 16 {
            tasks.join_next().await.expect("one is there").expect("no code is lost");
            outstanding -= 1;
        }
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no code is lost");
    }
    assert_eq!(bench.engine.stats().leftovers, 0);
    eventually("no zombie is left", || zombies_named(SLEEP) == 0 && zombies_named(SHELL) == 0)
        .await;
}

const SHELL: &str = "orphaning-sh";
const SLEEP: &str = "orphaned-sleep";

fn zombies_named(name: &str) -> usize {
    let own = format!(" {} ", std::process::id());
    std::fs::read_dir("/proc")
        .expect("listed")
        .flatten()
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok())
        .filter(|stat| {
            stat.contains(&format!("({name}) Z "))
                && stat.split(") Z").nth(1).is_some_and(|rest| rest.starts_with(&own))
        })
        .count()
}

#[tokio::test]
async fn a_run_in_a_runtime_that_ends_is_killed() {
    let root = tempfile::tempdir().expect("a directory");
    let path = root.path().to_owned();
    let pid = std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("built");
        runtime.block_on(async {
            let executor = splengine_core::LocalExecutor::new(&path).expect("set up");
            let engine = splengine_core::Engine::builder(executor).build().expect("built");
            let request =
                Request::new("sh -c").arg("echo $$; trap '' TERM; while :; do sleep 1; done");
            let mut run = engine.execute(&caller("alice"), request).await.expect("starts");
            read_until(&mut run, "\n").await.trim().parse::<u32>().expect("a number")
        })
    })
    .join()
    .expect("no panic");
    eventually("the process is gone", || !is_alive(pid)).await;
}

const NO_CGROUP: &str = "runs get no cgroup of their own here";

/// The cgroup that a run is in, as a directory, if runs get one here.
async fn cgroup_of_a_run(bench: &Bench) -> Option<PathBuf> {
    let captured = bench.run(Request::new("cat /proc/self/cgroup")).await;
    let path = text(&captured.stdout).lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("Linux has it");
    let mount =
        mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?.split(' ').nth(1)?;
    // Where processes are counted they are in a group below that of the run.
    let path = path.strip_suffix("/counted").unwrap_or(path);
    path.contains("splengine-").then(|| Path::new(mount).join(path))
}

/// However many runs leave something behind that nobody hears of any more.
#[tokio::test]
async fn what_runs_left_in_the_background_takes_no_descriptors() {
    let bench = bench_with(CgroupMode::Auto, |builder| builder);
    let Some(group) = cgroup_of_a_run(&bench).await else {
        return skip(Need::Cgroup, NO_CGROUP);
    };
    let own = group.parent().expect("the engine's own");
    let open = || {
        let all = std::fs::read_dir("/proc/self/fd").expect("Linux has it").flatten();
        let links = all.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        links.filter(|link| link.starts_with(own) && link != own).count()
    };
    let before = open();
    assert!(before > 0, "an empty one is kept for the next run");
    let mut sleepers = Vec::new();
    for _ in 0..40 {
        let script = "sleep 600 </dev/null >/dev/null 2>&1 & echo $!";
        let captured = bench.run(sh(script).background(Background::Keep)).await;
        sleepers.push(text(&captured.stdout).trim().parse::<u32>().expect("a number"));
    }
    assert!(bench.run(sh("true")).await.end.success());
    assert!(sleepers.iter().all(|pid| is_alive(*pid)));
    assert!(open() <= before, "{} descriptors, before {before}", open());
    // Once they have ended their groups are removed, a part of them at the end of each run.
    let kill =
        format!("kill {}", sleepers.iter().map(u32::to_string).collect::<Vec<_>>().join(" "));
    bench.run(sh(&kill)).await;
    let groups = || {
        let entries = std::fs::read_dir(own).expect("reads").flatten();
        entries.filter(|entry| entry.path().is_dir()).count()
    };
    let begun = Instant::now();
    while groups() > 1 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} are left", groups());
        bench.run(sh("true")).await;
    }
}

#[tokio::test]
async fn an_engine_ends_what_a_dead_one_left_and_nothing_of_a_living_one() {
    let living = bench_with(CgroupMode::Auto, |builder| builder);
    let Some(group) = cgroup_of_a_run(&living).await else {
        return skip(Need::Cgroup, NO_CGROUP);
    };
    let mut run = living.start(sh("echo begun; read line; echo still here").stdin(never())).await;
    read_until(&mut run, "begun").await;

    // What a killed engine leaves: a directory that nobody has locked, with processes in it.
    let parent = group.parent().and_then(Path::parent).expect("the engine's own, and its parent");
    let left = parent.join(format!("splengine-{:016x}", std::process::id()));
    // The engines of other tests look for such ones, too: not before it is complete.
    let lock = loop {
        std::fs::create_dir_all(&left).expect("made");
        let lock = std::fs::File::open(&left).and_then(|lock| lock.lock().map(|()| lock));
        if let Ok(lock) = lock
            && left.exists()
        {
            break lock;
        }
    };
    let mut orphan = sleeper_in(&left.join("run-0"));
    drop(lock);
    // One that only has such a name.
    let alike = parent.join(format!("splengine-test.{}", std::process::id()));
    let mut stranger = sleeper_in(&alike);

    let other = bench_with(CgroupMode::Auto, |builder| builder);
    assert!(other.run(sh("true")).await.end.success());
    // It may be another test's engine that is at it.
    eventually("it is removed", || !left.exists()).await;
    assert!(!orphan.wait().expect("ours").success(), "it was killed");
    assert_eq!(stranger.try_wait().expect("ours"), None, "it was let be");
    stranger.kill().expect("ended");
    stranger.wait().expect("ours");
    std::fs::remove_dir(&alike).expect("it is empty");
    assert!(living.run(sh("true")).await.end.success());
    run.stopper().stop();
    assert_eq!(run.capture().await.end.reason, Reason::Cancelled);
}

fn sleeper_in(cgroup: &Path) -> std::process::Child {
    std::fs::create_dir_all(cgroup).expect("made");
    let sleeper = std::process::Command::new("sleep").arg("60").spawn().expect("starts");
    std::fs::write(cgroup.join("cgroup.procs"), sleeper.id().to_string()).expect("moved");
    sleeper
}

/// As an operator does, or whoever looks after containers: the engine then lives in such a cgroup,
/// or its runs do.
#[tokio::test]
async fn a_cgroup_that_was_killed_once_kills_nobody_later() {
    let bench = bench_with(CgroupMode::Auto, |builder| builder);
    let Some(group) = cgroup_of_a_run(&bench).await else {
        return skip(Need::Cgroup, NO_CGROUP);
    };
    std::fs::write(group.join("cgroup.kill"), "1").expect("killed");
    assert_eq!(cgroup_of_a_run(&bench).await, Some(group), "it is used again");
    let captured = bench.run(sh("exit 7")).await;
    assert_eq!((captured.end.reason, captured.end.exit_code), (Reason::Exited, 7));
}

/// Input that neither comes nor ends.
fn never() -> splengine_core::execute::Stdin {
    let (writer, reader) = tokio::io::duplex(1);
    std::mem::forget(writer);
    splengine_core::execute::Stdin::reader(reader)
}
