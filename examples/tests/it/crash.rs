//! Batches over the sudden ends of their server.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::server::*;

struct Bench {
    root: TempDir,
}

impl Bench {
    fn start(&self) -> (Server, String) {
        self.start_with(&[])
    }

    fn start_with(&self, more: &[&str]) -> (Server, String) {
        let mut command = example("all-in-one");
        command.args(more);
        command.arg("--root").arg(self.root.path());
        command.args(["--http", "127.0.0.1:0", "--ws", "off"]);
        command.args(["--token", &format!("alice={ALICE}")]);
        let server = Server::start(&mut command);
        let addr = addr_of(&server.ready);
        (server, addr)
    }

    /// How often each step was really run, as it wrote down itself.
    fn runs(&self) -> HashMap<String, u64> {
        let text = std::fs::read_to_string(self.root.path().join("runs")).unwrap_or_default();
        let mut runs = HashMap::new();
        for line in text.lines() {
            *runs.entry(line.to_owned()).or_insert(0) += 1;
        }
        runs
    }
}

/// Submits under a key; `None` when the server died before it answered.
fn submit(addr: &str, key: &str, batch: &Value) -> Option<String> {
    let body = batch.to_string();
    let request = format!(
        "POST /api/v1/batches HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {ALICE}\r\n\
         Content-Type: application/json\r\nIdempotency-Key: {key}\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (status, answer) = http(addr, &request).ok()?;
    assert_eq!(status, 202, "{answer}");
    let record: Value = serde_json::from_str(&answer).expect("JSON");
    Some(record["batchId"].as_str().expect("an id").to_owned())
}

fn record(addr: &str, id: &str) -> Value {
    let (status, answer) = ask(addr, &format!("GET /api/v1/batches/{id}"), "");
    assert_eq!(status, 200, "{answer}");
    serde_json::from_str(&answer).expect("JSON")
}

fn is_over(record: &Value) -> bool {
    record["state"] != "queued" && record["state"] != "running"
}

/// A batch of steps that write down their names when they run.
fn load(name: &str) -> Value {
    let step = |id: &str, rest: &str| json!({"id": id, "command": "sh -c", "args": [format!("echo {name}/{id} >>runs; {rest}")]});
    let with = |mut step: Value, members: Value| {
        let more = members.as_object().expect("an object").clone();
        step.as_object_mut().expect("an object").extend(more);
        step
    };
    json!({"name": name, "parallelism": 3, "steps": [
        step("a", "true"),
        step("b", "sleep 0.01"),
        with(step("c", "sleep 0.02"), json!({"dependsOn": [], "runIf": "always"})),
        with(step("d", "sleep 0.01"), json!({"dependsOn": ["a"], "retries": 2, "runIf": "always"})),
        with(step("e", "true"), json!({"dependsOn": ["c"], "rerunOnRestart": true, "runIf": "always"})),
        with(step("f", "true"), json!({"dependsOn": ["b", "d", "e"], "runIf": "always"})),
    ]})
}

#[test]
fn a_server_killed_at_any_moment_loses_nothing_and_runs_nothing_twice() {
    let kills = std::env::var("SPLENGINE_TEST_RUNS").ok().and_then(|runs| runs.parse().ok());
    let kills: u32 = kills.unwrap_or(12);
    let bench = Bench { root: tempfile::tempdir().expect("a directory") };
    let mut accepted: BTreeMap<String, String> = BTreeMap::new();
    let mut unanswered: Vec<String> = Vec::new();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    // On a busy machine few are accepted before a kill: then there are more kills.
    for kill in 0..kills * 20 {
        if kill >= kills && accepted.len() > kills as usize {
            break;
        }
        let (server, addr) = bench.start();
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let moment = Duration::from_micros(random % 60_000);
        let killer = std::thread::spawn(move || {
            std::thread::sleep(moment);
            server.signal(Signal::KILL);
            assert_eq!(server.wait().0, None);
        });
        // What got no answer is asked for again, under the same key.
        for key in std::mem::take(&mut unanswered) {
            match submit(&addr, &key, &load(&key)) {
                Some(id) => {
                    accepted.insert(key, id);
                }
                None => unanswered.push(key),
            }
        }
        for number in 0..200 {
            let key = format!("k{kill}-{number}");
            match submit(&addr, &key, &load(&key)) {
                Some(id) => {
                    accepted.insert(key, id);
                }
                None => {
                    unanswered.push(key);
                    break;
                }
            }
        }
        killer.join().expect("killed");
    }
    assert!(accepted.len() > kills as usize, "no load: {}", accepted.len());

    let (server, addr) = bench.start();
    for key in unanswered {
        let id = submit(&addr, &key, &load(&key)).expect("an answer");
        accepted.insert(key, id);
    }
    // They are many, and it may be the last one that is asked for first.
    let mut looks = 0..30_000;
    for id in accepted.values() {
        while !is_over(&record(&addr, id)) {
            looks.next().expect("all are over in time");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    let runs = bench.runs();
    let mut lost = 0;
    for (name, id) in &accepted {
        let record = record(&addr, id);
        assert_eq!(record["name"], name.as_str());
        for step in record["steps"].as_array().expect("a list") {
            let id = step["id"].as_str().expect("an id");
            let ran = runs.get(&format!("{name}/{id}")).copied().unwrap_or(0);
            let attempts = step["attempt"].as_u64().expect("a number");
            let state = step["state"].as_str().expect("a state");
            assert!(ran <= attempts, "{name}/{id} ran {ran} times: {step}");
            match state {
                "succeeded" => assert!(ran >= 1, "{name}/{id}: {step}"),
                "failed" => {
                    assert_eq!(step["reason"], "lost", "{name}/{id}: {step}");
                    lost += 1;
                }
                "skipped" => assert_eq!(ran, 0, "{name}/{id}: {step}"),
                other => panic!("{name}/{id} is {other}"),
            }
            let again = matches!(id, "d" | "e");
            assert!(again || attempts <= 1, "{name}/{id} was run again: {step}");
            assert!(id != "e" || state == "succeeded", "{name}/{id}: {step}");
        }
        let (_, text) = ask(&addr, &format!("GET /api/v1/batches/{id}/events"), "");
        let ids: Vec<u64> =
            text.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect();
        assert!(ids.iter().copied().eq(1..=ids.len() as u64), "{name}: {ids:?}");
        assert_eq!(record["lastEvent"], ids.len());
    }
    // Else the kills met nothing that ran.
    assert!(lost > 0 || kills < 50, "no step was ever lost");
    server.signal(Signal::TERM);
    assert_eq!(server.wait().0, Some(0));
}

#[test]
fn a_step_of_a_killed_server_is_lost_with_its_processes() {
    let bench = Bench { root: tempfile::tempdir().expect("a directory") };
    let (server, addr) = bench.start();
    // It leaves its process group, its session and its parent, and does not want to end.
    let script = "trap '' HUP TERM; setsid sh -c 'echo $$ >pid; exec sleep 600' & wait";
    let batch = json!({"steps": [
        {"id": "long", "command": "sh -c", "args": [script]},
        {"id": "after", "command": "echo went on", "runIf": "always"},
    ]});
    let id = submit(&addr, "long", &batch).expect("an answer");
    let file = bench.root.path().join("pid");
    let pid = || std::fs::read_to_string(&file).ok()?.trim().parse::<u32>().ok();
    eventually("it runs", || pid().is_some());
    let pid = pid().expect("it runs");
    server.signal(Signal::KILL);
    assert_eq!(server.wait().0, None);
    assert!(lives(pid));
    let (_server, addr) = bench.start();
    assert!(!lives(pid));
    eventually("it is over", || is_over(&record(&addr, &id)));
    let record = record(&addr, &id);
    assert_eq!((&record["state"], &record["exitCode"]), (&json!("failed"), &json!(125)));
    let long = &record["steps"][0];
    assert_eq!((&long["state"], &long["reason"]), (&json!("failed"), &json!("lost")));
    assert_eq!(record["steps"][1]["state"], "succeeded");
}

/// Lowers the limits that runs are known by, as anybody may, and runs `$THEN` in a session of its
/// own; started by the test below.
#[test]
#[ignore = "it is not a test, but what another starts"]
fn main_of_the_hider() {
    use std::os::unix::process::CommandExt as _;

    use rustix::process::{Resource, Rlimit, setrlimit, setsid};
    for resource in [Resource::Locks, Resource::Rss] {
        let limit = Rlimit { current: Some(1000), maximum: Some(1000) };
        setrlimit(resource, limit).expect("anybody may lower a limit");
    }
    setsid().expect("no group leader");
    let then = std::env::var_os("THEN").expect("a script");
    panic!("{}", std::process::Command::new("/bin/sh").arg("-c").arg(then).exec());
}

/// Files that the script's processes write their numbers to.
const HIDING: [&str; 3] = ["child", "stray", "below"];

/// Starts one process below a command's program, one that leaves it, and one below that.
fn hiding_script() -> String {
    let own = std::env::current_exe().expect("known");
    let hide = format!(
        "{} --exact crash::main_of_the_hider --ignored --nocapture",
        own.to_str().expect("text")
    );
    format!(
        "THEN='echo $$ >child; exec sleep 600' {hide} &
         (THEN='echo $$ >stray; sh -c \"echo \\$\\$ >below; exec env -i sleep 600\"; exit' {hide} &)
         wait"
    )
}

#[test]
fn an_execution_of_a_killed_server_is_ended_by_the_next() {
    for mode in ["off", "auto"] {
        let bench = Bench { root: tempfile::tempdir().expect("a directory") };
        let config = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(config.path(), format!("[cgroup]\nmode = \"{mode}\"\n")).expect("writes");
        let config = ["--config", config.path().to_str().expect("text")];
        let (server, addr) = bench.start_with(&config);
        let body = |script: &str, background: &str| {
            json!({"command": "sh -c", "args": [script], "background": background}).to_string()
        };
        // Once a run is over, what it has kept is let be.
        let kept = body("sleep 600 >/dev/null 2>&1 & echo $! >kept", "keep");
        assert_eq!(ask(&addr, "POST /api/v1/execute", &kept).0, 200);
        let runs = body(&hiding_script(), "kill");
        let asked = std::thread::spawn(move || {
            let head = format!(
                "POST /api/v1/execute HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {ALICE}\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                runs.len()
            );
            http(&addr, &(head + &runs))
        });
        let pid = |name: &str| {
            let text = std::fs::read_to_string(bench.root.path().join(name)).ok()?;
            text.trim().parse::<u32>().ok()
        };
        eventually("all run", || HIDING.iter().all(|name| pid(name).is_some()));
        server.signal(Signal::KILL);
        assert_eq!(server.wait().0, None);
        drop(asked.join().expect("no panic"));
        assert!(HIDING.iter().all(|name| pid(name).is_some_and(lives)));
        let (server, _addr) = bench.start_with(&config);
        for name in HIDING {
            assert!(!pid(name).is_some_and(lives), "{name} is left with cgroups {mode}");
        }
        let kept = pid("kept").filter(|pid| lives(*pid)).expect("it continues");
        let kept = i32::try_from(kept).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(kept.expect("a number"), Signal::KILL).expect("it lives");
        server.signal(Signal::TERM);
        assert_eq!(server.wait().0, Some(0));
    }
}

#[test]
fn processes_of_a_killed_server_that_hide_are_ended_by_the_next() {
    let bench = Bench { root: tempfile::tempdir().expect("a directory") };
    // A killed server's cgroups are ended by the next one as a whole, with all processes in them.
    let config = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(config.path(), "[cgroup]\nmode = \"off\"\n").expect("writes");
    let config = ["--config", config.path().to_str().expect("text")];
    let (server, addr) = bench.start_with(&config);
    let batch = json!({"steps": [{"id": "long", "command": "sh -c", "args": [hiding_script()]}]});
    let id = submit(&addr, "long", &batch).expect("an answer");
    let pid = |name: &str| {
        let text = std::fs::read_to_string(bench.root.path().join(name)).ok()?;
        text.trim().parse::<u32>().ok()
    };
    let names = HIDING;
    eventually("all run", || names.iter().all(|name| pid(name).is_some()));
    server.signal(Signal::KILL);
    assert_eq!(server.wait().0, None);
    assert!(names.iter().all(|name| pid(name).is_some_and(lives)));
    let (_server, addr) = bench.start_with(&config);
    for name in names {
        assert!(!pid(name).is_some_and(lives), "{name} is left");
    }
    eventually("it is over", || is_over(&record(&addr, &id)));
}
