//! Background processes that are kept, over the ends of their server.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::server::*;

/// Counts on, and prints each time: a closed pipe would end it.
const DAEMON: &str =
    "n=0; (while :; do n=$((n+1)); echo $n; echo $n >beat; sleep 0.02; done) & echo $! >pid";

struct Daemon(Pid);

impl Drop for Daemon {
    fn drop(&mut self) {
        kill_process(self.0, Signal::KILL).expect("it is there");
    }
}

#[test]
fn a_kept_daemon_outlives_its_server_and_is_let_be_by_the_next() {
    for cgroup in ["auto", "off"] {
        for end in [Signal::TERM, Signal::KILL] {
            let root = tempfile::tempdir().expect("a directory");
            let config = root.path().join("config.toml");
            std::fs::write(&config, format!("[cgroup]\nmode = \"{cgroup}\"\n")).expect("written");
            let start = || {
                let mut command = example("all-in-one");
                command.arg("--root").arg(root.path()).arg("--config").arg(&config);
                command.args(["--http", "127.0.0.1:0", "--ws", "off"]);
                command.args(["--token", &format!("alice={ALICE}")]);
                Server::start(&mut command)
            };
            let beat = || {
                let text = std::fs::read_to_string(root.path().join("beat")).unwrap_or_default();
                text.trim().parse::<u64>().unwrap_or_default()
            };
            let server = start();
            let body = json!({"command": "sh -c", "args": [DAEMON], "background": "keep"});
            let told = post(&addr_of(&server.ready), ALICE, &body.to_string()).expect("an answer");
            let told: serde_json::Value = serde_json::from_str(&told.1).expect("JSON");
            assert_eq!(told["exitCode"], 0, "{told}");
            let pid = std::fs::read_to_string(root.path().join("pid")).expect("written");
            let pid = pid.trim().parse().ok().and_then(Pid::from_raw);
            let daemon = Daemon(pid.expect("a process id"));
            server.signal(end);
            server.wait();
            let what = format!("it counts on after {end:?} with cgroup mode {cgroup}");
            let begun = beat();
            eventually(&what, || beat() > begun + 3);
            let next = start();
            let begun = beat();
            eventually(&format!("{what}, beside the next server"), || beat() > begun + 3);
            drop((next, daemon));
        }
    }
}
