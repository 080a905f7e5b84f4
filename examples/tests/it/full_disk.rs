//! A server whose disk is really full: a small file system of its own.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::server::*;
use crate::skipped::{Need, skip};

/// A file system of so many bytes, in a mount namespace that a process holds.
struct SmallDisk {
    holder: Child,
    directory: TempDir,
}

impl SmallDisk {
    /// Or why there can be none here.
    fn mount(bytes: u64) -> Result<Self, String> {
        let directory = tempfile::tempdir().expect("a directory");
        let script = "mount -t tmpfs -o size=$0 none \"$1\" && mkdir \"$1/root\" && echo mounted && exec sleep 600";
        let mut holder = Command::new("unshare")
            .args(["--mount", "sh", "-c", script, &bytes.to_string()])
            .arg(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let mut line = String::new();
        let stdout = holder.stdout.take().expect("was piped");
        BufReader::new(stdout).read_line(&mut line).expect("reads");
        if line.is_empty() {
            let output = holder.wait_with_output().expect("ends");
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ok(Self { holder, directory })
    }

    /// Where the server has its root.
    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// Runs a command where there is this file system. It stays the same process.
    fn enter(&self, command: &Command) -> Command {
        let mut entered = Command::new("nsenter");
        entered.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id()));
        entered.arg("--").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => entered.env(name, value),
                None => entered.env_remove(name),
            };
        }
        entered
    }

    fn server(&self, config: &Path) -> Server {
        let mut command = example("all-in-one");
        command.arg("--root").arg(self.root()).args(["--http", "127.0.0.1:0", "--ws", "off"]);
        command.args(["--token", &format!("alice={ALICE}"), "--config"]).arg(config);
        Server::start(&mut self.enter(&command))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn parsed(answer: &str) -> Value {
    serde_json::from_str(answer).unwrap_or_else(|_| panic!("not JSON: {answer}"))
}

fn put(addr: &str, name: &str, bytes: usize) -> (u16, String) {
    ask(addr, &format!("PUT /api/v1/files/{name}"), &"x".repeat(bytes))
}

/// A batch of one step, and its record once it is over.
fn run(addr: &str, step: &Value) -> Value {
    let batch = json!({"steps": [step]}).to_string();
    let (status, answer) = ask(addr, "POST /api/v1/batches", &batch);
    assert_eq!(status, 202, "{answer}");
    over(addr, parsed(&answer)["batchId"].as_str().expect("an id"))
}

fn over(addr: &str, id: &str) -> Value {
    let mut record = Value::Null;
    eventually("the batch is over", || {
        let (status, answer) = ask(addr, &format!("GET /api/v1/batches/{id}"), "");
        assert_eq!(status, 200, "{answer}");
        record = parsed(&answer);
        !record["ended"].is_null()
    });
    record
}

#[test]
fn what_callers_write_ends_before_the_disk_is_full_and_batches_go_on() {
    const MIB: usize = 1 << 20;
    let disk = match SmallDisk::mount(48 << 20) {
        Ok(disk) => disk,
        Err(reason) => {
            let reason = format!("there can be no small file system here: {reason}");
            return skip(Need::Mount, reason);
        }
    };
    let settings = tempfile::tempdir().expect("a directory");
    let config = settings.path().join("config.toml");
    std::fs::write(&config, format!("[disk]\nfloor = {}\n", 4 * MIB)).expect("written");
    let server = disk.server(&config);
    let addr = addr_of(&server.ready);

    // One batch's output takes what there is but the floor, and its record says so.
    let print =
        json!({"id": "print", "command": "head -c 60000000 /dev/zero", "outputLimit": 64 * MIB});
    let record = run(&addr, &print);
    assert_eq!(record["state"], "succeeded", "{record}");
    assert!(record.to_string().contains("the disk is nearly full"), "{record}");
    assert!(record["steps"][0]["stdoutGap"].is_object(), "{record}");
    // Files are refused, too.
    let (status, problem) = put(&addr, "file", MIB);
    assert_eq!(status, 507, "{problem}");
    assert!(problem.contains("the disk is nearly full"), "{problem}");

    // A submit works, and so it does after all of the rest was taken by a command, which nothing holds.
    let wait = "for i in $(seq 2400); do [ -e go ] && exit; sleep 0.05; done; exit 1";
    let batch = |id: &str| {
        json!({"steps": [
            {"id": id, "command": "sh -c", "args": [wait], "rerunOnRestart": true},
            {"id": "then", "command": "echo went"},
        ]})
        .to_string()
    };
    let submit = |batch: &str| {
        let (status, answer) = ask(&addr, "POST /api/v1/batches", batch);
        assert_eq!(status, 202, "{answer}");
        parsed(&answer)["batchId"].as_str().expect("an id").to_owned()
    };
    let mut accepted = vec![submit(&batch("below-the-floor"))];
    let fill = json!({"command": "sh -c", "args": ["cat /dev/zero >fill"]}).to_string();
    let (status, filled) = post(&addr, ALICE, &fill).expect("an answer");
    assert_eq!((status, parsed(&filled)["exitCode"].as_i64()), (200, Some(1)), "{filled}");
    accepted.push(submit(&batch("on-a-full-disk")));
    // It was written into the store's reserve, which is for what was accepted.
    let mut refusal = None;
    eventually("no batch is accepted", || {
        let (status, answer) = ask(&addr, "POST /api/v1/batches", &batch("too-late"));
        if status == 202 {
            accepted.push(parsed(&answer)["batchId"].as_str().expect("an id").to_owned());
            return false;
        }
        refusal = Some((status, answer));
        true
    });
    let (status, problem) = refusal.expect("it was refused");
    assert_eq!(status, 507, "{problem}");
    assert!(problem.contains("no room left on the disk"), "{problem}");
    let (status, ready) = get(&addr, "/ready");
    assert!(status == 503 && ready.contains("no room left on the disk"), "{status} {ready}");

    // All of that is durable: the next server starts on the full disk.
    server.signal(Signal::KILL);
    drop(server);
    let server = disk.server(&config);
    let addr = addr_of(&server.ready);
    for id in &accepted {
        let (status, answer) = ask(&addr, &format!("GET /api/v1/batches/{id}"), "");
        assert_eq!(status, 200, "{answer}");
        assert!(parsed(&answer)["ended"].is_null(), "{answer}");
    }

    // With room again all of it works.
    assert_eq!(ask(&addr, "DELETE /api/v1/files/fill", "").0, 204);
    let purge =
        format!("DELETE /api/v1/batches/{}?purge=true", record["batchId"].as_str().expect("an id"));
    let (status, answer) = ask(&addr, &purge, "");
    assert!([200, 204].contains(&status), "{status} {answer}");
    assert_eq!(put(&addr, "go", MIB).0, 201);
    for id in &accepted {
        let record = over(&addr, id);
        assert_eq!(record["state"], "succeeded", "{record}");
    }
    let record = run(&addr, &json!({"id": "print", "command": "head -c 1000000 /dev/zero"}));
    assert_eq!(record["steps"][0]["stdoutBytes"], 1_000_000, "{record}");
    assert!(record["steps"][0]["stdoutGap"].is_null(), "{record}");
    eventually("it is ready", || get(&addr, "/ready").0 == 200);
    server.signal(Signal::TERM);
    assert_eq!(server.wait().0, Some(0));
}
