//! Servers whose stores of batches are used by others, lost or damaged.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::server::*;

fn root() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn store(root: &TempDir) -> PathBuf {
    root.path().join("runtime/batches/batches.redb")
}

fn command(root: &Path) -> Command {
    let mut command = example("all-in-one");
    command.arg("--root").arg(root).args(["--http", "127.0.0.1:0", "--ws", "off"]);
    command.args(["--token", &format!("alice={ALICE}")]);
    command
}

/// A server whose root holds a batch that is over, and has ended; gives the batch's id.
fn used(root: &TempDir) -> String {
    let server = Server::start(&mut command(root.path()));
    let addr = addr_of(&server.ready);
    let batch = json!({"name": "kept", "steps": [
        {"id": "one", "command": "echo printed", "env": {"SECRET": "hush-hush"}},
        {"id": "two", "command": "false"},
    ]});
    let (status, answer) = ask(&addr, "POST /api/v1/batches?wait=true", &batch.to_string());
    assert_eq!(status, 200, "{answer}");
    let (_, list) = ask(&addr, "GET /api/v1/batches", "");
    let list: Value = serde_json::from_str(&list).expect("JSON");
    server.signal(Signal::TERM);
    assert_eq!(server.wait().0, Some(0));
    list["batches"][0]["batchId"].as_str().expect("an id").to_owned()
}

fn refused(output: &Output, words: &[&str]) {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(output.stdout.is_empty(), "it was ready: {output:?}");
    for word in words {
        assert!(error.contains(word), "no `{word}` in {error}");
    }
}

fn tool(word: &str, root: &TempDir) -> Output {
    outcome(example("all-in-one").arg(word).arg("--root").arg(root.path()))
}

/// What came of a program that is to end by itself, and soon.
pub(crate) fn outcome(command: &mut Command) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    for _ in 0..6000 {
        if child.try_wait().expect("waits").is_some() {
            return child.wait_with_output().expect("reads");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().expect("kills");
    panic!("it does not end: {:?}", child.wait_with_output());
}

/// Of an export.
fn lines(output: &Output) -> Vec<Value> {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn a_second_server_on_a_root_does_not_start_and_names_the_first() {
    let root = root();
    let server = Server::start(&mut command(root.path()));
    let pid = std::fs::read_to_string(root.path().join("runtime/batches/batches.redb.lock"))
        .expect("a lock");
    let pid = format!("pid {}", pid.trim());
    assert_ne!(pid, "pid ");
    refused(&outcome(&mut command(root.path())), &["in use", &pid, "--root"]);
    refused(&tool("export-batches", &root), &["in use", &pid]);
    refused(&tool("repair-batches", &root), &["in use", &pid]);
    // One whose sessions are kept elsewhere meets the lock of the batches.
    let addr = addr_of(&server.ready);
    assert_eq!(get(&addr, "/ready").0, 200);
    server.signal(Signal::TERM);
    assert_eq!(server.wait().0, Some(0));
    drop(Server::start(&mut command(root.path())));
}

#[test]
fn a_store_that_was_emptied_or_lost_is_no_new_one() {
    let root = root();
    let id = used(&root);
    let output = root.path().join(format!("runtime/batches/output/{id}/1-1.stdout"));
    let whole = std::fs::read(store(&root)).expect("reads");
    let name = store(&root).display().to_string();

    std::fs::write(store(&root), b"").expect("writes");
    let words = [name.as_str(), "is empty", "export-batches", "repair-batches"];
    refused(&outcome(&mut command(root.path())), &words);
    assert_eq!(std::fs::metadata(store(&root)).expect("is there").len(), 0);

    std::fs::remove_file(store(&root)).expect("removes");
    refused(&outcome(&mut command(root.path())), &[name.as_str(), "is gone", ".exists"]);
    assert!(!store(&root).exists());

    // What is left of it is told, and put back it is whole.
    let exported = lines(&tool("export-batches", &root));
    assert_eq!(exported[0]["outputs"][0], output.display().to_string());
    std::fs::write(store(&root), whole).expect("writes");
    let server = Server::start(&mut command(root.path()));
    let (status, _) = ask(&addr_of(&server.ready), &format!("GET /api/v1/batches/{id}"), "");
    assert_eq!(status, 200);
    drop(server);

    // Whoever wants to begins anew, and the outputs stay.
    std::fs::remove_file(store(&root)).expect("removes");
    std::fs::remove_file(store(&root).with_file_name("batches.redb.exists")).expect("removes");
    let server = Server::start(&mut command(root.path()));
    let (status, _) = ask(&addr_of(&server.ready), &format!("GET /api/v1/batches/{id}"), "");
    assert_eq!(status, 404);
    assert!(output.exists());
}

#[test]
fn a_damaged_store_is_refused_exported_and_repaired() {
    let root = root();
    let id = used(&root);
    let mut bytes = std::fs::read(store(&root)).expect("reads");
    // The second root's checksum and the first page of data, whichever that is.
    let damaged = bytes.len() / 2;
    bytes[damaged..].fill(0x55);
    std::fs::write(store(&root), &bytes).expect("writes");
    let name = store(&root).display().to_string();
    let words = [name.as_str(), "damaged", "export-batches", "repair-batches"];
    refused(&outcome(&mut command(root.path())), &words);

    let exported = tool("export-batches", &root);
    let errors = String::from_utf8_lossy(&exported.stderr).into_owned();
    assert!(errors.contains("damaged: "), "{errors}");
    // At least the files of its output are told of.
    let exported = lines(&exported);
    assert_eq!(exported.len(), 1, "{exported:?}");
    assert_eq!(exported[0]["batchId"], id.as_str());
    assert_eq!(exported[0]["outputs"].as_array().map(Vec::len), Some(1));

    let repaired = tool("repair-batches", &root);
    assert_eq!(repaired.status.code(), Some(0), "{repaired:?}");
    let directory = store(&root).parent().expect("a directory").to_owned();
    let aside = std::fs::read_dir(directory)
        .expect("reads")
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with("batches.redb.damaged-"));
    let aside = aside.expect("the damaged file").path();
    assert_eq!(std::fs::read(aside).expect("reads").len(), bytes.len());
    let server = Server::start(&mut command(root.path()));
    let addr = addr_of(&server.ready);
    let batch = json!({"steps": [{"command": "true"}]}).to_string();
    assert_eq!(ask(&addr, "POST /api/v1/batches?wait=true", &batch).0, 200);
}

#[test]
fn a_whole_store_is_exported_whole_and_stays_so_when_repaired() {
    let root = root();
    let id = used(&root);
    let check = |exported: &Output| {
        assert!(!String::from_utf8_lossy(&exported.stdout).contains("hush-hush"));
        let exported = lines(exported);
        assert_eq!(exported.len(), 1, "{exported:?}");
        let batch = &exported[0];
        assert_eq!(batch["problems"], json!([]));
        assert_eq!(
            (&batch["batchId"], &batch["name"], &batch["user"], &batch["state"]),
            (&json!(id), &json!("kept"), &json!("alice"), &json!("failed"))
        );
        assert_eq!(batch["steps"][0]["command"], "echo printed");
        assert_eq!(batch["steps"][1]["exitCode"], 1);
        let file = batch["outputs"][0].as_str().expect("a path");
        assert_eq!(std::fs::read_to_string(file).expect("reads"), "printed\n");
    };
    check(&tool("export-batches", &root));
    assert_eq!(tool("repair-batches", &root).status.code(), Some(0));
    check(&tool("export-batches", &root));
    let server = Server::start(&mut command(root.path()));
    let addr = addr_of(&server.ready);
    let (status, answer) = ask(&addr, &format!("GET /api/v1/batches/{id}"), "");
    assert_eq!(status, 200, "{answer}");
}

#[test]
fn a_store_of_a_later_version_is_refused_and_left_alone() {
    let root = root();
    used(&root);
    let set = |value: &str| {
        use splengine_core::store::{Change, RedbStore, Store as _};
        let opened = RedbStore::open(store(&root)).expect("opens");
        opened.commit(&[Change::set(*b"format", value.as_bytes())]).expect("writes");
    };
    let found = || {
        use splengine_core::store::{RedbStore, Store as _};
        let value = RedbStore::open(store(&root)).expect("opens").get(b"format").expect("reads");
        String::from_utf8(value.expect("a version")).expect("text")
    };
    let newer = r#"{"major":99,"minor":7}"#;
    set(newer);
    refused(&outcome(&mut command(root.path())), &["runtime/batches", "99.7", "later version"]);
    assert_eq!(found(), newer);
    set("nonsense");
    refused(&outcome(&mut command(root.path())), &["format version"]);
}

#[test]
fn without_batches_only_if_told_so() {
    let root = root();
    used(&root);
    let config = root.path().join("config.toml");
    std::fs::write(&config, "[batches]\nenabled = false\n").expect("writes");
    let server = Server::start(command(root.path()).arg("--config").arg(&config));
    let addr = addr_of(&server.ready);
    let (_, definition) = ask(&addr, "GET /api/v1/service", "");
    let definition: Value = serde_json::from_str(&definition).expect("JSON");
    let has = |word: &str| {
        definition["capabilities"].as_array().is_some_and(|all| all.contains(&json!(word)))
    };
    assert!(has("execute") && !has("batches"), "{definition}");
    drop(server);
    // A directory that can't be used is no reason to serve without.
    let output = root.path().join("runtime/batches/output");
    std::fs::remove_dir_all(&output).expect("removes");
    std::fs::write(&output, "").expect("writes");
    let words = ["runtime/batches/output", "[batches] enabled = false"];
    refused(&outcome(&mut command(root.path())), &words);
}

#[test]
fn sessions_are_kept_by_one_server_or_by_none_that_is_told_so() {
    let root = root();
    let config = root.path().join("config.toml");
    std::fs::write(&config, "[batches]\nenabled = false\n").expect("writes");
    let start = || {
        let mut command = command(root.path());
        command.arg("--config").arg(&config);
        command
    };
    let sessions = root.path().join("runtime/sessions");
    std::fs::create_dir(sessions.parent().expect("a directory")).expect("made");
    std::fs::write(&sessions, "").expect("writes");
    refused(&outcome(&mut start()), &["runtime/sessions", "[sessions] keep = false"]);
    std::fs::remove_file(&sessions).expect("removes");

    let _server = Server::start(&mut start());
    let pid = std::fs::read_to_string(sessions.join(".lock")).expect("a lock");
    let pid = format!("pid {}", pid.trim());
    refused(&outcome(&mut start()), &["runtime/sessions", "in use", &pid, "--root"]);
}

#[test]
fn what_is_kept_of_batches_is_for_the_server_alone() {
    let root = root();
    // Under whatever umask.
    let mut shell = Command::new("sh");
    let program = example("all-in-one");
    shell.arg("-c").arg("umask 0; exec \"$0\" \"$@\"").arg(program.get_program());
    shell.arg("--root").arg(root.path()).args(["--http", "127.0.0.1:0", "--ws", "off"]);
    shell.args(["--ssh", "off", "--avro", "off", "--token", &format!("alice={ALICE}")]);
    let server = Server::start(&mut shell);
    let addr = addr_of(&server.ready);
    let batch = json!({"steps": [{"command": "echo printed"}]}).to_string();
    assert_eq!(ask(&addr, "POST /api/v1/batches?wait=true", &batch).0, 200);
    let mut left = vec![root.path().join("runtime/batches")];
    let mut files = 0;
    while let Some(path) = left.pop() {
        let metadata = path.metadata().expect("is there");
        let mode = metadata.permissions().mode() & 0o777;
        if metadata.is_dir() {
            assert_eq!(mode, 0o700, "{}", path.display());
            left.extend(path.read_dir().expect("reads").flatten().map(|entry| entry.path()));
        } else {
            assert_eq!(mode, 0o600, "{}", path.display());
            files += 1;
        }
    }
    assert!(files >= 5, "{files}");
}
