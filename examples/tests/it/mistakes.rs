//! Mistakes of operators, which are told with the file, the setting, and what would be right.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;

use crate::server::*;
use crate::skipped::{Need, skip};

/// What a server with this file says, and refuses to start.
fn refused(text: &str) -> String {
    refused_with(text, &["--http", "127.0.0.1:0", "--ws", "off"])
}

fn refused_with(text: &str, arguments: &[&str]) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("server.toml");
    std::fs::write(&config, text).expect("written");
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o600)).expect("set");
    let mut command = example("all-in-one");
    command.arg("--root").arg(dir.path()).arg("--config").arg(&config).args(arguments);
    let output = crate::stores::outcome(&mut command);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}: {error}");
    error.replace(config.to_str().expect("text"), "FILE")
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    for (text, told) in [
        (
            "[limits]\nmax-running = 4\nmax-running-per-caller = 5",
            "--config FILE: [limits] max-running-per-caller = 5: is more than `max-running`, which is 4",
        ),
        (
            "[limits]\nmax-running-per-caller = 65",
            "[limits] max-running-per-caller = 65: is more than `max-running`, which is 64 by default",
        ),
        ("[limits]\ntimeout = 2000\nmax-timeout = 1000", "[limits] timeout = 2000: is more than"),
        ("[limits]\nmemory = 2\nmax-memory = 1", "[limits] memory = 2: is more than `max-memory`"),
        ("[sessions]\nmax = 2\nmax-per-caller = 3", "[sessions] max-per-caller = 3: "),
        ("[batches]\nparallelism = 2000", "[batches] parallelism = 2000: "),
        ("[guessing]\nthreshold = 70000", "[guessing] threshold = 70000: "),
        ("[limits]\nmax-running = 99999999999", "[limits] max-running = 99999999999: is too much"),
        ("[batches]\nmax-steps = 0", "--config FILE: [batches] max-steps = 0: is too little"),
        ("[sessions]\nmax = 0", "[sessions] max = 0: is too little"),
    ] {
        let error = refused(text);
        assert!(error.contains(told), "{text}: {error}");
    }
}

#[test]
fn a_server_that_nobody_can_use_is_refused() {
    let error = refused_with("", &["--http", "off", "--ws", "off"]);
    assert!(error.contains("--http, --ws, --ssh and --avro: all servers are `off`"), "{error}");
}

#[test]
fn of_an_ssh_server_that_lets_nobody_in_is_warned() {
    let root = tempfile::tempdir().expect("a directory");
    let mut command = example("all-in-one");
    command.arg("--root").arg(root.path());
    let server =
        Server::start(command.args(["--http", "off", "--ws", "off", "--ssh", "127.0.0.1:0"]));
    server.signal(rustix::process::Signal::INT);
    let (code, _, log) = server.wait();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("nobody can log in to the SSH server: set --authorized-keys"), "{log}");
}

#[test]
fn of_keys_without_an_ssh_server_is_warned() {
    let root = tempfile::tempdir().expect("a directory");
    let file = root.path().join("file");
    std::fs::write(&file, "").expect("written");
    let config = root.path().join("config.toml");
    let words =
        "the SSH server is `off`: authorized keys, certificates and passwords let nobody in";
    for (setting, is_warned) in
        [("authorized-keys", true), ("ssh.trusted-ca", true), ("ssh.passwords", true), ("", false)]
    {
        let text = match setting {
            "" => String::new(),
            setting => format!("{setting} = {file:?}\n"),
        };
        std::fs::write(&config, text).expect("written");
        let mut command = example("all-in-one");
        command.arg("--root").arg(root.path()).arg("--config").arg(&config);
        command.args(["--http", "127.0.0.1:0", "--ws", "off", "--ssh", "off"]);
        let server = Server::start(command.args(["--token", &format!("alice={ALICE}")]));
        server.signal(rustix::process::Signal::TERM);
        let (code, _, log) = server.wait();
        assert_eq!((code, log.contains(words)), (Some(0), is_warned), "{setting}: {log}");
    }
}

#[test]
fn settings_that_are_nested_too_deep_are_refused() {
    for (begin, end) in [("[", "]"), ("{a = ", "}")] {
        for depth in [100, 100_000] {
            let text = format!("\nfiles = {}1{}\n", begin.repeat(depth), end.repeat(depth));
            let error = refused(&text);
            let told = "error: --config FILE: line 2: is nested too deep\n";
            assert_eq!(error, told, "{depth} times {begin}");
        }
    }
    let dotted = "a.".repeat(100_000);
    for text in [format!("\n{dotted}a = 1\n"), format!("\n[{dotted}a]\n")] {
        // The reader does not say where.
        assert_eq!(refused(&text), "error: --config FILE: is nested too deep\n");
    }
}

#[test]
fn a_value_of_the_file_is_told_with_its_unit() {
    for (text, told) in [
        (
            "\n[limits]\nmemory = \"1GiB\"",
            "--config FILE: line 3: invalid type: a text, expected a whole number. `memory`: Memory limit in bytes",
        ),
        (
            "[limits]\ntimeout = \"30s\"",
            "expected a whole number. `timeout`: Time limit in milliseconds",
        ),
        (
            "grace = \"30s\"",
            "line 1: invalid type: a text, expected a whole number. `grace`: Time in seconds",
        ),
        ("[http]\nmax-connections = 0", "expected a whole number of at least 1"),
        (
            "[limits]\nmax_running = 1",
            "line 2: unknown field `max_running`, expected one of `max-running`",
        ),
        (
            "[limits]\nmax-runing = 1",
            "line 2: unknown field `max-runing`, expected one of `max-running`",
        ),
        (
            "[cgroup]\nmode = \"on\"",
            "[cgroup] mode = on: is none of `auto`, `off` and the absolute path",
        ),
        ("[avro]\ncertificates = \"a.pem\"", "TLS takes both, each the path of a PEM file"),
    ] {
        let error = refused(text);
        assert!(error.contains(told), "{text}: {error}");
    }
    // What may be a token is not repeated.
    let error = refused("token = \"alice=alices-very-long-token\"");
    assert!(error.contains("expected a list, in brackets. `token`: Tokens of users"), "{error}");
    assert!(!error.contains("alices-very-long-token"), "{error}");
}

#[test]
fn a_root_that_can_not_be_entered_is_refused() {
    // Only root can become a user who may not enter a directory, and copy a program to where that user
    // may.
    if !rustix::process::geteuid().is_root() {
        return skip(Need::Root, "only root can start a server as another user");
    }
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("set");
    let root = dir.path().join("closed");
    std::fs::create_dir(&root).expect("made");
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o600)).expect("set");
    chown(&root, Some(65534), Some(65534)).expect("changed");
    let program = dir.path().join("all-in-one");
    // By another process: what this one has open to write, those may have that it starts meanwhile.
    let mut copy = std::process::Command::new("cp");
    let copied = copy.arg(example("all-in-one").get_program()).arg(&program).status();
    assert!(copied.expect("starts").success());
    let mut command = std::process::Command::new(&program);
    command.arg("--root").arg(&root).args(["--http", "127.0.0.1:0", "--ws", "off"]);
    command.args(["--ssh", "off", "--avro", "off"]).current_dir("/");
    let output = refusal(command.uid(65534).gid(65534));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("closed: can't be entered by the server's user"), "{error}");
}

#[test]
fn a_variable_that_is_no_setting_is_warned_of() {
    let root = tempfile::tempdir().expect("a directory");
    let mut command = example("all-in-one");
    command.arg("--root").arg(root.path()).args(["--http", "127.0.0.1:0", "--ws", "off"]);
    let server = Server::start(command.env("SPLENGINE_HTP", "127.0.0.1:1"));
    server.logs(1, "SPLENGINE_HTP");
}
