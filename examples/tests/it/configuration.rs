use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;
use splengine_core::execute::LimitKind;
use tempfile::TempDir;

use crate::server::*;

fn write(dir: &TempDir, name: &str, text: &str, mode: u32) -> String {
    let path = dir.path().join(name);
    std::fs::write(&path, text).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
    path.to_str().expect("text").to_owned()
}

#[test]
fn what_is_wrong_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let count = std::cell::Cell::new(0);
    let file = |text: &str| {
        count.set(count.get() + 1);
        write(&dir, &format!("{}.toml", count.get()), text, 0o600)
    };
    let open_tokens = write(&dir, "open", "alice=alices-very-long-token\n", 0o644);
    let tokens = write(&dir, "tokens", "alice=alices-very-long-token\n", 0o600);
    let open_keys = dir.path().join("keys");
    std::fs::create_dir(&open_keys).expect("made");
    std::fs::set_permissions(&open_keys, std::fs::Permissions::from_mode(0o777)).expect("set");
    let open_keys = open_keys.to_str().expect("text").to_owned();
    let no_keys = dir.path().join("nobody");
    std::fs::create_dir(&no_keys).expect("made");
    let no_keys = no_keys.to_str().expect("text").to_owned();
    let no_tokens = write(&dir, "none", "# users\n", 0o600);
    let open_config = "token = [\"alice=alices-very-long-token\"]";
    let open_config = write(&dir, "open.toml", open_config, 0o644);
    let open_host_key = file(&format!("[ssh]\nhost-keys = [\"{open_tokens}\"]"));
    let bad_tokens = write(&dir, "bad", "# users\nalice=short\n", 0o600);
    let cases: Vec<(Vec<String>, &str)> = [
        (vec!["--no-such-flag"], "--no-such-flag"),
        (vec!["--root", "/no/such/dir"], "--root /no/such/dir"),
        (vec!["--http", "nonsense"], "--http nonsense"),
        (vec!["--http", "127.0.0.1:99999"], "--http"),
        (vec!["--http", "0.0.0.0:0"], "credentials"),
        (vec!["--http", "0.0.0.0:0", "--anonymous", "guest"], "credentials"),
        (
            vec!["--http", "0.0.0.0:0", "--anonymous", "guest", "--authorized-keys", "/keys"],
            "credentials",
        ),
        (vec!["--ssh", "0.0.0.0:0", "--tokens", &tokens], "give --authorized-keys"),
        (vec!["--ssh", "127.0.0.1:0", "--authorized-keys", "/no/such/keys"], "--authorized-keys"),
        (vec!["--ssh", "127.0.0.1:0", "--authorized-keys", &open_keys], "--authorized-keys"),
        (
            vec!["--ssh", "127.0.0.1:0", "--authorized-keys", &no_keys, "--config", &open_host_key],
            "[ssh] host-keys",
        ),
        (
            vec!["--ssh", "127.0.0.1:0", "--config", &file("[ssh]\npasswords = \"/no/such\"")],
            "[ssh] passwords",
        ),
        (vec!["--config", &file("[ssh]\nhost-key = []")], "line 2"),
        (vec!["--config", &file("[commands]\nmax-background-runs = -1")], "line 2"),
        (vec!["--tokens", &no_tokens], "holds no token"),
        (vec!["--token", "alice"], "--token"),
        (vec!["--token", "alice=short"], "--token"),
        (vec!["--token", "al ice=alices-very-long-token"], "--token"),
        (vec!["--token", "alice=another-very-long-token alices-very-long-token"], "scope"),
        (vec!["alice=alices-very-long-token"], "arguments"),
        (vec!["--tokn=alice=alices-very-long-token"], "--tokn"),
        (vec!["--token", "alice=alices-very-long-token,bob=alices-very-long-token"], "`bob`"),
        (vec!["--root"], "--root"),
        (vec!["--tokens", "/no/such/file"], "--tokens /no/such/file"),
        (vec!["--tokens", &open_tokens], "chmod 600"),
        (vec!["--tokens", &bad_tokens], "line 2"),
        (vec!["--token", "alice=sha256:0123"], "64 hexadecimal"),
        (
            vec!["--token", "bob=alices-very-long-token execute,bob=alices-very-long-token"],
            "different scopes",
        ),
        (vec!["--config", &file("[users.alice]\nscopes = [\"all\"]")], "[users.alice]"),
        (vec!["--config", &file("[users.\"a b\"]\nscopes = []")], "[users.a b]"),
        (vec!["--config", &file("[users.alice]\nscope = []")], "line 2"),
        (vec!["--anonymous", "a b"], "--anonymous"),
        (vec!["--grace", "soon"], "--grace"),
        (vec!["--program", "/no/such/program"], "--program /no/such/program"),
        (vec!["--program", "./relative"], "--program ./relative"),
        (vec!["--program", "no-such-program"], "--program no-such-program"),
        (vec!["--program", &bad_tokens], "not executable"),
        (vec!["--config", &open_config], "chmod 600"),
        (vec!["--config", &file("http = \"nonsense\"")], "`http` in "),
        (vec!["--config", &file("[ws]\npublic-url = \"console.example\"")], "[ws] public-url"),
        (vec!["--config", &file("[ws]\npublic-url = \"http://a/#b\"")], "[ws] public-url"),
        (vec!["--config", &file("[http]\nmax-connections = 0")], "line 2"),
        (vec!["--config", &file("[http]\nmax-connections = 9000000000000000000")], "line 2"),
        (vec!["--config", &file("[environment]\ninherit = [\"SPL*\"]")], "inherit"),
        (vec!["--config", &file("[environment]\nset = { \"A=B\" = \"\" }")], "set.A=B"),
        (vec!["--config", "/no/such/file"], "--config /no/such/file"),
        (vec!["--config", &file("nonsense")], "line 1"),
        (vec!["--config", &file("\nunknown = 1")], "unknown"),
        (vec!["--config", &file("[limits]\nmax-runing = 1")], "max-runing"),
        (vec!["--config", &file("[limits]\nmax-running = \"many\"")], "line 2"),
        (vec!["--config", &file("[limits]\nmax-running = 0")], "[limits]"),
        (vec!["--config", &file("[http]\nmax-conections = 1")], "max-conections"),
        (vec!["--config", &file("[disk]\nflor = 1")], "flor"),
        (vec!["--config", &file("[http]\nallow-origins = [\"*\"]")], "allow-origins"),
        (vec!["--config", &file("[http]\nbase-path = \"engine\"")], "[http] base-path: `engine`"),
        (vec!["--config", &file("[program]\nfailure = { stdout = \"(\" }")], "failure.stdout"),
        (vec!["--config", &file("[guessing]\nexempt = [\"10.0.0.0/33\"]")], "[guessing] exempt"),
        (vec!["--config", &file("[cgroup]\nmode = \"/no/such/cgroup\"")], "/no/such/cgroup"),
    ]
    .into_iter()
    .map(|(args, culprit)| (args.into_iter().map(str::to_owned).collect(), culprit))
    .collect();
    for (args, culprit) in cases {
        let mut command = example("all-in-one");
        let from_file = culprit.starts_with("`http`");
        if !from_file && !args.iter().any(|arg| arg == "--http") {
            command.args(["--http", "127.0.0.1:0", "--ws", "127.0.0.1:0"]);
        }
        let output = refusal(command.args(&args).env("RUST_LOG", "off"));
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
        assert!(error.contains(culprit), "{args:?}: {error}");
        assert!(error.starts_with("error: ") && error.lines().count() == 1, "{args:?}: {error}");
        assert!(
            !error.contains("alices-very-long-token") && !error.contains("panicked"),
            "{error}"
        );
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn what_is_wrong_is_named_after_where_it_stands() {
    for (name, value, culprit) in [
        ("SPLENGINE_HTTP", "nonsense", "SPLENGINE_HTTP nonsense: "),
        ("SPLENGINE_GRACE", "soon", "SPLENGINE_GRACE soon: "),
        ("SPLENGINE_ROOT", "/no/such/dir", "SPLENGINE_ROOT /no/such/dir: "),
        ("SPLENGINE_PROGRAM", "/no/such/program", "SPLENGINE_PROGRAM /no/such/program: "),
        ("SPLENGINE_TOKEN", "alices-very-long-token", "SPLENGINE_TOKEN: "),
        ("SPLENGINE_AUTHORIZED_KEYS", "/keys", "SPLENGINE_HTTP 0.0.0.0:0: "),
        ("SPLENGINE_ANONYMOUS", "a b", "SPLENGINE_ANONYMOUS: "),
    ] {
        let mut command = example("all-in-one");
        let only_keys = name == "SPLENGINE_AUTHORIZED_KEYS";
        command.env("SPLENGINE_HTTP", if only_keys { "0.0.0.0:0" } else { "127.0.0.1:0" });
        command.env("RUST_LOG", "off").env(name, value);
        let output = refusal(&mut command);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {error}");
        assert!(error.starts_with(&format!("error: {culprit}")), "{name}: {error}");
        assert!(!error.contains("alices-very-long-token"), "{error}");
    }
}

#[test]
fn an_address_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let addr = taken.local_addr().expect("bound").to_string();
    let output = refusal(example("all-in-one").args(["--http", &addr]));
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains(&format!("--http: can't listen on {addr}: ")), "{error}");
}

#[test]
fn a_flag_outranks_the_environment_and_that_the_file() {
    let dir = tempfile::tempdir().expect("a directory");
    for name in ["flag", "environment", "file"] {
        std::fs::create_dir(dir.path().join(name)).expect("made");
    }
    let path =
        |name: &str| dir.path().join(name).canonicalize().expect("there").display().to_string();
    let config = format!(
        "root = {:?}\nhttp = \"127.0.0.1:0\"\ntoken = [\"alice={ALICE}\"]\ngrace = 1\n",
        path("file")
    );
    let config = write(&dir, "config.toml", &config, 0o600);
    for (environment, flag, root) in [
        (None, None, "file"),
        (Some("environment"), None, "environment"),
        (Some("environment"), Some("flag"), "flag"),
    ] {
        let mut command = example("all-in-one");
        command.args(["--config", &config]);
        if let Some(name) = environment {
            command.env("SPLENGINE_ROOT", path(name));
        }
        if let Some(name) = flag {
            command.args(["--root", &path(name)]);
        }
        let server = Server::start(&mut command);
        let answer =
            post(&addr_of(&server.ready), ALICE, r#"{"command": "pwd -P"}"#).expect("an answer").1;
        assert!(answer.contains(&format!("{}\\n", path(root))), "{answer}");
    }
}

#[test]
fn the_file_reaches_everything() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = r#"
        [program]
        path = "env"
        refuse-arguments = ["@@"]
        [limits]
        max-timeout = 60000
        output = 10
        max-output = 20
        open-files = 60
        max-open-files = 70
        [environment]
        inherit = ["PATH"]
        set = { GIVEN = "yes" }
        request = ["ASKED"]
        [commands]
        max-background-runs = 0
        [http]
        max-body = 1000
        [cgroup]
        mode = "off"
    "#;
    let config = write(&dir, "config.toml", config, 0o600);
    let all = all_in_one(&["--config", &config]);
    let result = all.run(&json!({"command": "sh -c", "args": ["ulimit -n; echo $GIVEN$ASKED$CARGO_PKG_NAME"], "env": {"ASKED": "!"}}));
    assert_eq!(result["stdout"], "60\nyes!\n");
    assert_eq!(all.run(&json!({"command": "seq 9000"}))["stdout"], "1\n2\n9000\n");
    for (body, status) in [
        (json!({"command": "true", "timeout": 60_001}), 422),
        (json!({"command": "true", "background": "keep"}), 503),
        (json!({"command": "true", "outputLimit": 21}), 422),
        (json!({"command": "true", "limits": {"openFiles": 71}}), 422),
        (json!({"command": "true", "env": {"OTHER": "x"}}), 422),
        (json!({"command": "echo", "args": ["@@"]}), 422),
        (json!({"command": "true", "stdin": "x".repeat(1000)}), 413),
    ] {
        let (have, answer) = post(&all.addr, ALICE, &body.to_string()).expect("an answer");
        assert_eq!(have, status, "{answer}");
    }
}

#[test]
fn each_limit_of_a_run_can_be_set() {
    let dir = tempfile::tempdir().expect("a directory");
    let kebab = |kind: LimitKind| {
        let letter = |letter: char| match letter.is_uppercase() {
            true => format!("-{}", letter.to_ascii_lowercase()),
            false => letter.to_string(),
        };
        kind.name().chars().map(letter).collect::<String>()
    };
    let config = |name: &str, limits: &str| {
        let text = format!("[cgroup]\nmode = \"off\"\n[limits]\n{limits}");
        write(&dir, name, &text, 0o600)
    };
    let refusal_of = |name: &str, limits: &str| {
        let mut command = example("all-in-one");
        command.args(["--http", "127.0.0.1:0", "--ws", "127.0.0.1:0"]);
        let output = refusal(command.args(["--config", &config(name, limits)]));
        String::from_utf8(output.stderr).expect("a text")
    };
    let mut limits = String::new();
    let all = all_in_one(&["--config", &config("none", "")]);
    let (_, info) = ask(&all.addr, "GET /info", "");
    for &kind in LimitKind::ALL {
        let key = kebab(kind);
        let error = refusal_of(&key, &format!("{key} = 9\nmax-{key} = 8"));
        assert!(error.contains(&format!("`max-{key}`, which is 8")), "{kind:?}: {error}");
        let is_enforced = info.contains(&format!("\"limits.{}\"", kind.name()));
        if is_enforced {
            limits += &format!("{key} = 7\nmax-{key} = 8\n");
            continue;
        }
        for setting in [&key, &format!("max-{key}")] {
            let error = refusal_of(setting, &format!("{setting} = 7"));
            let expected = format!("`{}` can't be enforced", kind.name());
            assert!(error.contains(&expected), "{setting}: {error}");
        }
    }
    let all = all_in_one(&["--config", &config("limits", &limits)]);
    for &kind in LimitKind::ALL.iter().filter(|kind| limits.contains(&kebab(**kind))) {
        let body = json!({"command": "true", "limits": {kind.name(): 9}});
        let (status, answer) = post(&all.addr, ALICE, &body.to_string()).expect("an answer");
        assert_eq!(status, 422, "{kind:?}: {answer}");
        assert!(answer.contains("over the maximum of 8"), "{kind:?}: {answer}");
    }
}

#[test]
fn times_of_connections_and_sessions_and_the_shell_are_set() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = r#"
        [http]
        keep-alive-timeout = 7000
        [sessions]
        detached-timeout = 300
        busy-stays = false
        [commands]
        shell = true
    "#;
    let config = write(&dir, "config.toml", config, 0o600);
    let all = all_in_one(&["--config", &config]);
    let mut stream = std::net::TcpStream::connect(&all.addr).expect("connects");
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n").expect("sent");
    let mut head = String::new();
    let mut reader = std::io::BufReader::new(stream);
    while !head.ends_with("\r\n\r\n") {
        std::io::BufRead::read_line(&mut reader, &mut head).expect("a line");
    }
    assert!(head.to_ascii_lowercase().contains("\r\nkeep-alive: timeout=7\r\n"), "{head}");

    let (status, session) = ask(&all.addr, "POST /api/v1/sessions", r#"{"command": "cat"}"#);
    assert_eq!(status, 201, "{session}");
    eventually("it is ended, since nobody is attached", || {
        let list = ask(&all.addr, "GET /api/v1/sessions", "").1;
        let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
        list["sessions"]
            .as_array()
            .is_some_and(|all| all.iter().all(|one| one["state"] != "running"))
    });

    let step = json!({"command": "echo a; echo b | tr b c", "shell": true});
    assert_eq!(all.run(&step)["stdout"], "a\nc\n");
    let batch = json!({"steps": [step]}).to_string();
    let (status, record) = ask(&all.addr, "POST /api/v1/batches?wait=true", &batch);
    assert_eq!(status, 200, "{record}");
    let record: serde_json::Value = serde_json::from_str(&record).expect("JSON");
    assert_eq!(record["steps"][0]["stdout"], "a\nc\n", "{record}");
}

#[test]
fn a_file_of_tokens_is_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let tokens = format!("# users\n\nbob=bobs-very-long-token execute # a note\ncarol={ALICE}x\n");
    let tokens = write(&dir, "tokens", &tokens, 0o600);
    let all = all_in_one(&["--tokens", &tokens]);
    for token in ["bobs-very-long-token", ALICE, &format!("{ALICE}x")] {
        assert_eq!(post(&all.addr, token, r#"{"command": "true"}"#).expect("an answer").0, 200);
    }
}

/// A token that `all-in-one token` has made, and what it printed beside it.
fn make_token(arguments: &[&str]) -> (String, String) {
    let output = refusal(example("all-in-one").arg("token").args(arguments));
    assert!(output.status.success(), "{output:?}");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    let (token, beside) = (text(output.stdout), text(output.stderr));
    assert!(token.ends_with('\n') && token.trim().len() >= 32, "{token}");
    (token.trim().to_owned(), beside)
}

#[test]
fn a_file_of_tokens_may_hold_hashes() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("tokens");
    let name = file.to_str().expect("text");
    let (bobs, beside) = make_token(&["bob", "execute", "--tokens", name]);
    assert_eq!(beside, "");
    // Where the last line has no end, too.
    let (carols, line) = make_token(&["carol"]);
    assert!(line.starts_with("carol=sha256:") && line.ends_with('\n'), "{line}");
    let held = std::fs::read_to_string(&file).expect("made") + line.trim_end();
    std::fs::write(&file, held).expect("written");
    let (daves, _) = make_token(&["--tokens", name, "dave", "watch", "files"]);
    assert_eq!(file.metadata().expect("there").permissions().mode() & 0o777, 0o600);
    let held = std::fs::read_to_string(&file).expect("made");
    assert_eq!(held.lines().count(), 3, "{held}");
    assert!(![&bobs, &carols, &daves].iter().any(|token| held.contains(*token)), "{held}");

    let all = all_in_one(&["--tokens", name]);
    for (token, status) in [(&bobs, 200), (&carols, 200), (&daves, 403)] {
        assert_eq!(post(&all.addr, token, r#"{"command": "true"}"#).expect("an answer").0, status);
    }
    // The hash itself lets nobody in.
    let hash = held.split_whitespace().next().and_then(|entry| entry.split_once('='));
    let hash = hash.expect("a line").1;
    for shown in [hash, hash.trim_start_matches("sha256:")] {
        assert_eq!(post(&all.addr, shown, r#"{"command": "true"}"#).expect("an answer").0, 401);
    }

    let open = write(&dir, "open", "", 0o644);
    for (arguments, culprit) in [
        (&["a b"][..], "USER"),
        (&["bob", "everything"], "SCOPE"),
        (&[], "arguments"),
        (&["bob", "--tokens", &open], "chmod 600"),
    ] {
        let output = refusal(example("all-in-one").arg("token").args(arguments));
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{error}");
        assert!(error.contains(culprit), "{error}");
    }
}

#[test]
fn users_have_no_more_than_their_scopes() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = "[users.alice]\nscopes = [\"files\"]\n[users.'*']\nscopes = [\"execute\"]\n";
    let config = write(&dir, "config.toml", config, 0o600);
    let wide = "bob=bobs-very-long-token execute files";
    let all = all_in_one(&["--config", &config, "--token", wide]);
    for (token, runs, lists) in [(ALICE, 403, 200), ("bobs-very-long-token", 200, 403)] {
        assert_eq!(post(&all.addr, token, r#"{"command": "true"}"#).expect("an answer").0, runs);
        let request = format!(
            "GET /api/v1/files/ HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {token}\r\n\
             Connection: close\r\n\r\n"
        );
        assert_eq!(http(&all.addr, &request).expect("an answer").0, lists);
    }
}

#[test]
fn the_ssh_server_is_known_by_a_key_that_stays() {
    let root = tempfile::tempdir().expect("a directory");
    let keys = root.path().join("keys");
    std::fs::create_dir(&keys).expect("made");
    let start = || {
        let mut command = example("all-in-one");
        let command = command.arg("--root").arg(root.path()).arg("--authorized-keys").arg(&keys);
        Server::start(command.args(["--http", "off", "--ws", "off", "--ssh", "127.0.0.1:0"]))
    };
    let mut server = start();
    assert!(server.ready.starts_with("{\"ready\":true,\"ssh\":\"127.0.0.1:"), "{}", server.ready);
    let path = root.path().join("runtime/ssh/host_ed25519_key");
    let key = std::fs::read(&path).expect("it was made");
    let mode = path.metadata().expect("is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.wait().0, Some(0));
    server = start();
    assert!(std::fs::read(&path).expect("still there") == key);
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.wait().0, Some(0));
}

#[test]
fn the_public_address_of_the_console_is_a_directory_that_may_use_it() {
    let root = tempfile::tempdir().expect("a directory");
    let dir = tempfile::tempdir().expect("a directory");
    let text = "[ws]\npublic-url = \"https://console.example/terminal\"";
    let config = write(&dir, "public.toml", text, 0o600);
    let mut command = example("all-in-one");
    command.arg("--root").arg(root.path()).args(["--config", &config]);
    let server = Server::start(command.args(["--http", "127.0.0.1:0", "--ws", "127.0.0.1:0"]));
    let ready: serde_json::Value = serde_json::from_str(&server.ready).expect("JSON");
    let token = ready["token"].as_str().expect("a token").to_owned();
    let ws = ready["ws"].as_str().expect("an address").to_owned();
    let body = json!({"token": token}).to_string();
    let login = |origin: &str| {
        let mut stream = std::net::TcpStream::connect(&ws).expect("connects");
        let request = format!(
            "POST /login HTTP/1.1\r\nHost: inner\r\nOrigin: {origin}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    let answer = login("https://console.example");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(login("https://another.example").starts_with("HTTP/1.1 403"));
    server.signal(rustix::process::Signal::TERM);
    let (_, _, err) = server.wait();
    assert!(err.contains("https://console.example/terminal/#token="), "{err}");
}

/// What is held of the input of executions that run, and of batches that are not over, is bounded.
#[test]
fn input_that_stays_has_the_memory_that_is_configured() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = "[limits]\nmax-input-bytes = 1000000\nmax-input-bytes-per-caller = 200000\n\
        [batches]\nmax-open-bytes = 200000\nmax-open-bytes-per-caller = 200000\n";
    let config = write(&dir, "config.toml", config, 0o600);
    let all = all_in_one(&["--config", &config]);
    let idle = |bytes: usize, asynchronous: bool| {
        let stdin = "x".repeat(bytes);
        json!({"command": "sleep 600", "stdin": stdin, "async": asynchronous}).to_string()
    };
    let (status, answer) = post(&all.addr, ALICE, &idle(150_000, true)).expect("an answer");
    assert_eq!(status, 202, "{answer}");
    let (status, answer) = post(&all.addr, ALICE, &idle(150_000, true)).expect("an answer");
    assert_eq!(status, 429, "{answer}");
    assert!(answer.contains("200000 bytes"), "{answer}");
    let (addr, body) = (all.addr.clone(), idle(150_000, false));
    // Beside one of the small ones it is refused itself, and asks again.
    std::thread::spawn(
        move || {
            while post(&addr, ALICE, &body).is_ok_and(|(status, _)| status == 429) {}
        },
    );
    let small = json!({"command": "true", "stdin": "x".repeat(100_000)}).to_string();
    for _ in 0..600 {
        let (status, answer) = post(&all.addr, ALICE, &small).expect("an answer");
        if status == 429 {
            assert!(answer.contains("200000 bytes"), "{answer}");
            return;
        }
        // The other one has not begun.
        assert_eq!(status, 200, "{answer}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("never refused");
}

/// What is held of bodies that are not complete is bounded in all.
#[test]
fn bodies_that_are_read_have_the_memory_that_is_configured() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = write(&dir, "config.toml", "[http]\nmax-buffered = 65536\n", 0o600);
    let all = all_in_one(&["--config", &config]);
    let head = format!(
        "POST /execute HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {ALICE}\r\n\
         Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
    );
    let begin = || {
        let mut stream = std::net::TcpStream::connect(&all.addr).expect("connects");
        stream.set_read_timeout(Some(std::time::Duration::from_secs(60))).expect("set");
        stream.write_all(head.as_bytes()).expect("sent");
        stream.write_all(&[b' '; 70_000]).expect("sent");
        stream
    };
    // One caller may have half of it, and one body beyond that; for more there is none.
    let (tell, told) = std::sync::mpsc::channel();
    for mut body in (0..4).map(|_| begin()) {
        let tell = tell.clone();
        std::thread::spawn(move || {
            let mut answer = [0; 12];
            body.read_exact(&mut answer).map(|()| tell.send(answer))
        });
    }
    // Others are waited for longer than this test takes.
    for _ in 0..2 {
        let answer = told.recv_timeout(std::time::Duration::from_secs(60)).expect("an answer");
        let answer = String::from_utf8_lossy(&answer);
        assert!(["HTTP/1.1 429", "HTTP/1.1 503"].contains(&&*answer), "{answer}");
    }
}
