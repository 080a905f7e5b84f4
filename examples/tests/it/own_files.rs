//! What the server reads its settings and secrets from, where that lies below root.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};
use syn::{Field, GenericArgument, Meta, PathArguments, Type};

use crate::reload::login;
use crate::server::*;
use crate::settings_reference::tables;

fn ask(addr: &str, method: &str, path: &str, body: &str) -> u16 {
    let length = body.len();
    let request = format!(
        "{method} /api/v1{path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\
         Authorization: Bearer {ALICE}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    http(addr, &request).expect("an answer").0
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
}

#[test]
fn what_the_settings_name_is_hidden_and_warned_of() {
    let root = tempfile::tempdir().expect("a directory");
    let at = |path: &str| root.path().join(path);
    for directory in ["keys", "conf", "data"] {
        fs::create_dir(at(directory)).expect("made");
    }
    write(&at("tokens"), &format!("alice={ALICE}\n"), 0o600);
    write(&at("passwords"), "", 0o600);
    let outside = tempfile::tempdir().expect("a directory");
    symlink(root.path(), outside.path().join("link")).expect("linked");
    let config = format!(
        "[ssh]\npasswords = {:?}\nhost-keys = [{:?}, {:?}]\n",
        outside.path().join("link/passwords").display().to_string(),
        at("conf/host_key").display().to_string(),
        outside.path().join("other_key").display().to_string(),
    );
    let config = format!("{config}[avro]\naddress = \"unix:{}\"\n", at("conf/avro").display());
    write(&at("conf/config.toml"), &config, 0o600);
    fs::hard_link(at("tokens"), at("data/second")).expect("linked");

    let mut command = example("all-in-one");
    command.current_dir(root.path()).env("SPLENGINE_SSH", "127.0.0.1:0");
    command.env_remove("SPLENGINE_AVRO");
    command.args(["--http", "127.0.0.1:0", "--ws", "unix:data/ws,mode=0660", "--tokens", "tokens"]);
    command.args(["--authorized-keys", "keys", "--config", "conf/config.toml"]);
    let server = Server::start(&mut command);
    let addr = addr_of(&server.ready);

    for path in [
        "tokens",
        "data/second",
        "passwords",
        "conf/config.toml",
        "conf/host_key",
        "conf/avro",
        "data/ws",
        "runtime/ssh",
    ] {
        assert_eq!(ask(&addr, "GET", &format!("/files/{path}"), ""), 404, "{path}");
    }
    for path in ["conf/avro", "data/ws"] {
        assert!(at(path).exists(), "{path}");
        let status = ask(&addr, "DELETE", &format!("/files/{path}"), "");
        assert!(matches!(status, 403 | 404), "{path}: {status}");
        assert!(at(path).exists(), "{path}");
    }
    for path in
        ["data/ws", "keys/mallory", "tokens", "data/second", "conf/config.toml", "runtime/x"]
    {
        let status = ask(&addr, "PUT", &format!("/files/{path}"), "x");
        assert!(matches!(status, 403 | 404 | 409), "{path}: {status}");
    }
    assert!(fs::read_dir(at("keys")).expect("read").next().is_none());
    for path in ["keys", "runtime/ssh", "runtime/batches", "runtime/sessions"] {
        let body = format!("{{\"command\":\"pwd\",\"workdir\":\"{path}\"}}");
        assert_eq!(ask(&addr, "POST", "/execute", &body), 422, "{path}");
    }
    assert_eq!(ask(&addr, "PUT", "/files/data/mine", "x"), 201);

    server.signal(Signal::TERM);
    let (_, _, log) = server.wait();
    for setting in [
        "--tokens",
        "--authorized-keys",
        "--config",
        "[ssh] passwords",
        "[ssh] host-keys",
        "--ws",
        "`avro` in conf/config.toml",
    ] {
        let warned = log.lines().any(|line| line.contains("WARN") && line.contains(setting));
        assert!(warned, "{setting}: {log}");
    }
    assert!(log.contains("move it out of root") && !log.contains(ALICE), "{log}");
    assert!(!log.contains("other_key"), "it does not lie below root: {log}");
}

/// A setting that names a path is hidden from callers, or stands here with the reason.
#[test]
fn each_path_of_the_settings_is_hidden_or_meant_for_callers() {
    const FOR_CALLERS: [(&str, &str); 6] = [
        ("args.root", "what callers are served"),
        ("file.root", "what callers are served"),
        ("args.program", "callers run it"),
        ("args.shell", "callers run it"),
        ("file.shell", "callers run it"),
        ("program.path", "callers run it"),
    ];
    let args = include_str!("../../all_in_one/args.rs");
    let file = include_str!("../../all_in_one/file.rs");
    let own_files = include_str!("../../all_in_one/own_files.rs");
    let gather = own_files.split_once("fn gather(").expect("it is there").1;
    let gather: String =
        gather.split("\n    }\n").next().expect("a body").split_whitespace().collect();
    let mut paths = Vec::new();
    let of_paths = ["DIR", "FILE", "PATH", "ADDR"].map(|kind| format!("value_name = \"{kind}\""));
    for (_, fields) in tables(args) {
        let is_path = |field: &&Field| {
            field.attrs.iter().any(|attribute| match &attribute.meta {
                Meta::List(list) => {
                    let tokens = list.tokens.to_string();
                    of_paths.iter().any(|wanted| tokens.contains(wanted))
                }
                _ => false,
            })
        };
        paths.extend(fields.iter().filter(is_path).map(|field| format!("args.{}", ident(field))));
    }
    for (table, fields) in tables(file) {
        let table = table.strip_suffix("Table").map_or("file".to_owned(), str::to_lowercase);
        let is_path = |field: &&Field| {
            holds(&field.ty, "PathBuf")
                || ["address", "shell", "path"].contains(&&*ident(field))
                    && holds(&field.ty, "String")
        };
        paths
            .extend(fields.iter().filter(is_path).map(|field| format!("{table}.{}", ident(field))));
    }
    assert!(paths.len() >= 20, "{paths:?}");
    for path in &paths {
        let is_hidden = gather
            .split(path.as_str())
            .skip(1)
            .any(|rest| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_'));
        let reason = FOR_CALLERS.iter().find(|(meant, _)| meant == path);
        assert!(
            is_hidden != reason.is_some(),
            "`gather` of own_files.rs and `{path}` ({reason:?})"
        );
    }
    for (meant, _) in FOR_CALLERS {
        assert!(paths.iter().any(|path| path == meant), "there is no `{meant}`");
    }
}

fn ident(field: &Field) -> String {
    field.ident.as_ref().expect("a name").to_string()
}

/// Whether a value of this type is one of the type with this name, or has some.
fn holds(of: &Type, name: &str) -> bool {
    let Type::Path(of) = of else { return false };
    let last = of.path.segments.last().expect("a type");
    let PathArguments::AngleBracketed(arguments) = &last.arguments else {
        return last.ident == name;
    };
    arguments.args.iter().any(|inner| match inner {
        GenericArgument::Type(inner) => holds(inner, name),
        _ => false,
    })
}

#[test]
fn root_itself_holds_no_keys() {
    let root = tempfile::tempdir().expect("a directory");
    let mut command = example("all-in-one");
    command.arg("--root").arg(root.path()).arg("--authorized-keys").arg(root.path());
    let output = refusal(command.args(["--http", "127.0.0.1:0", "--ws", "off"]));
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    let named = error.contains("error: --authorized-keys: ");
    assert!(named && error.contains("outside root"), "{error}");
}

#[test]
fn what_the_server_keeps_is_its_own_users_alone() {
    let root = tempfile::tempdir().expect("a directory");
    let runtime = root.path().join("runtime");
    fs::create_dir(&runtime).expect("made");
    fs::set_permissions(&runtime, fs::Permissions::from_mode(0o755)).expect("set");
    let mut command = example("all-in-one");
    command.arg("--root").arg(root.path()).args(["--http", "127.0.0.1:0", "--ws", "off"]);
    let server = Server::start(command.args(["--token", &format!("alice={ALICE}")]));
    let mut left = vec![runtime];
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path).expect("there");
        assert_eq!(metadata.permissions().mode() & 0o077, 0, "{}", path.display());
        if metadata.is_dir() {
            left.extend(fs::read_dir(&path).expect("read").flatten().map(|entry| entry.path()));
        }
    }
    server.signal(Signal::TERM);
    let (_, _, log) = server.wait();
    assert!(log.contains("was open to other users"), "{log}");
}

/// Whatever has been done, and whatever umask the server was started with.
#[tokio::test]
async fn all_that_the_server_keeps_is_its_own_users_alone() {
    let root = tempfile::tempdir().expect("a directory");
    let settings = tempfile::tempdir().expect("a directory");
    let (keys, config) = (settings.path().join("keys"), settings.path().join("config.toml"));
    fs::create_dir(&keys).expect("made");
    let key = ssh_key(keys.join("alice"));
    write(&config, "[sessions]\nsurvive = true\nrecording = \"output-and-input\"\n", 0o600);
    let program = example("all-in-one");
    let mut shell = std::process::Command::new("sh");
    shell.arg("-c").arg("umask 0; exec \"$0\" \"$@\"").arg(program.get_program());
    shell.arg("--root").arg(root.path()).args(["--http", "127.0.0.1:0", "--ws", "127.0.0.1:0"]);
    shell.args(["--ssh", "127.0.0.1:0", "--avro", "off", "--shell", "/bin/sh"]);
    shell.arg("--config").arg(&config).arg("--authorized-keys").arg(&keys);
    shell.args(["--token", &format!("alice={ALICE}"), "--grace", "1"]).env("RUST_LOG", "warn");
    let server = Server::start(&mut shell);
    let ready: Value = serde_json::from_str(&server.ready).expect("JSON");
    let addr = |server: &str| ready[server].as_str().expect("an address").to_owned();

    let asked = |request: &str, body: &Value, wanted: u16| {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, answer) = crate::server::ask(&addr("http"), request, &body);
        assert_eq!(status, wanted, "{request}: {answer}");
        serde_json::from_str::<Value>(&answer).unwrap_or_default()
    };
    let session = asked("POST /api/v1/sessions", &json!({}), 201);
    let session = format!("/api/v1/sessions/{}", session["sessionId"].as_str().expect("an id"));
    let input = format!("POST {session}/input");
    assert_eq!(crate::server::ask(&addr("http"), &input, "echo re''member\n").0, 204);
    let saved = asked(&format!("POST {session}/save"), &json!({"name": "kept"}), 201);
    assert!(saved["savedId"].is_string(), "{saved}");
    let batch = json!({"steps": [{"command": "echo printed"}]});
    asked("POST /api/v1/batches?wait=true", &batch, 200);
    let body = json!({"token": ALICE}).to_string();
    let request = format!(
        "POST /login HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        addr("ws"),
        body.len()
    );
    assert_eq!(http(&addr("ws"), &request).expect("an answer").0, 200);
    let client = login(&addr("ssh"), &key, "alice").await;
    // What its program does not read is kept on disk.
    let channel = client.channel_open_session().await.expect("a channel");
    channel.exec(true, "sleep 600").await.expect("sent");
    within("all is taken", channel.data(&vec![b'x'; 8 << 20][..])).await.expect("sent");

    let runtime = root.path().join("runtime");
    for kept in [
        "logins",
        "sessions/holder.sock",
        "ssh/host_ed25519_key",
        "ssh/unread",
        "batches/batches.redb",
        "sessions",
    ] {
        eventually(kept, || runtime.join(kept).exists());
    }
    let id = session.rsplit('/').next().expect("an id");
    eventually("it is kept", || runtime.join(format!("sessions/{id}/state")).exists());
    let (mut left, mut files) = (vec![runtime], Vec::new());
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path).expect("there");
        let mode = metadata.permissions().mode() & 0o7777;
        let wanted = if metadata.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, wanted, "{} has {mode:o}", path.display());
        if metadata.is_dir() {
            left.extend(fs::read_dir(&path).expect("read").flatten().map(|entry| entry.path()));
        } else {
            files.push(path);
        }
    }
    assert!(files.len() >= 12, "{files:#?}");
    asked(&format!("DELETE {session}"), &Value::Null, 204);
    server.signal(Signal::TERM);
    let waited = tokio::task::spawn_blocking(|| server.wait().0).await;
    assert_eq!(waited.expect("no panic"), Some(0));
}
