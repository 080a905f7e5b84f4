//! How many files the server may have open, and the size of those that it reads its settings from.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Command;

use serde_json::{Value, json};

use crate::server::{ALICE, AllInOne, Server, addr_of, ask, example, refusal};

#[test]
fn the_server_may_open_more_files_than_its_commands() {
    let root = tempfile::tempdir().expect("a directory");
    let all_in_one = example("all-in-one");
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -Sn 256; echo >pid $$; exec \"$0\" \"$@\""]);
    command.arg(all_in_one.get_program()).arg("--root").arg(root.path()).current_dir(root.path());
    command.args(["--http", "127.0.0.1:0", "--ws", "off", "--ssh", "off", "--avro", "off"]);
    command.args(["--token", &format!("alice={ALICE}")]).env("RUST_LOG", "info");
    let server = Server::start(&mut command);
    let pid = fs::read_to_string(root.path().join("pid")).expect("written");
    let limits = fs::read_to_string(format!("/proc/{}/limits", pid.trim())).expect("it runs");
    let open_files = limits.lines().find(|line| line.starts_with("Max open files")).expect("one");
    let numbers: Vec<&str> = open_files.split_whitespace().skip(3).collect();
    assert!(numbers[0] != "256" && numbers[0] == numbers[1], "{open_files}");
    server.logs(1, "the limit of open files was raised");
    let addr = addr_of(&server.ready);
    let server = AllInOne { server, root, addr };
    let run: Value = server.run(&json!({"command": "sh -c 'ulimit -Sn'"}));
    assert_eq!(run["stdout"], "256\n", "{run}");
}

/// Each run takes several descriptors, and all at once there are not enough of them.
#[test]
fn steps_wait_out_a_shortage_of_descriptors() {
    let root = tempfile::tempdir().expect("a directory");
    let all_in_one = example("all-in-one");
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 120; exec \"$0\" \"$@\""]);
    command.arg(all_in_one.get_program()).arg("--root").arg(root.path()).current_dir(root.path());
    command.args(["--http", "127.0.0.1:0", "--ws", "off", "--ssh", "off", "--avro", "off"]);
    command.args(["--token", &format!("alice={ALICE}")]);
    let server = Server::start(&mut command);
    let addr = addr_of(&server.ready);
    let steps: Vec<_> = (0..60)
        .map(|_| json!({"command": "sh -c 'sleep 0.3; echo done'", "dependsOn": []}))
        .collect();
    let batch = json!({"parallelism": 60, "steps": steps}).to_string();
    let (status, record) = ask(&addr, "POST /api/v1/batches?wait=60", &batch);
    assert_eq!(status, 200, "{record}");
    let record: Value = serde_json::from_str(&record).expect("JSON");
    assert_eq!(record["state"], "succeeded", "{record}");
    for step in record["steps"].as_array().expect("a list") {
        assert_eq!((&step["attempt"], &step["stdoutBytes"]), (&json!(1), &json!(5)), "{step}");
    }
}

#[test]
fn a_file_of_settings_that_is_too_large_is_refused() {
    let settings = tempfile::tempdir().expect("a directory");
    let path = settings.path().join("large");
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    file.and_then(|file| file.set_len((16 << 20) + 1)).expect("made");
    for flag in ["--config", "--tokens"] {
        let output = refusal(example("all-in-one").arg(flag).arg(&path));
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(flag) && told.contains("is larger than 16777216 bytes"), "{told}");
    }
}
