use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use rustix::process::Signal;
use serde_json::json;
use sha2::Sha256;

use crate::server::*;

const BODY: &str = r#"{"command": "echo hi"}"#;

fn ends_well(server: Server) {
    server.signal(Signal::TERM);
    assert_eq!(server.wait().0, Some(0));
}

#[test]
fn local() {
    let output = refusal(example("local").arg("sh -c 'echo out; echo err >&2; exit 3'"));
    assert_eq!(output.status.code(), Some(3));
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
}

#[test]
fn custom_job() {
    let output = refusal(&mut example("custom-job"));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.ends_with("step 4: failed after printing 4\nfailed\n"), "{text}");
    assert_eq!(text.lines().count(), 5);
}

#[test]
fn batch_of_lines() {
    let all = all_in_one(&[]);
    let lines = "# a comment\n\necho first: $1\nprintf '<%s>' $@\necho \"in quotes: $2\"\n\
                 sh -c 'echo wrong >&2; exit 7'\necho never\n";
    let file = all.root.path().join("lines");
    std::fs::write(&file, lines).expect("writes");
    let run = |arguments: &[&str]| {
        let mut command = example("batch");
        command.arg(&file).args(["--url", &format!("http://{}", all.addr)]).args(arguments);
        refusal(command.env("TOKEN", ALICE))
    };
    let output = run(&["-a", "one two", "-a", "it's"]);
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(out, "first: one two\n<one two><it's>in quotes: it's\n");
    assert_eq!(err, "wrong\nstep 4 failed with code 7: exited\n");
    assert_eq!(output.status.code(), Some(7));
    // At once: one that fails keeps the others from nothing.
    let output = run(&["-j", "2"]);
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("never\n"), "{output:?}");
    std::fs::write(&file, "nowhere-to-be-found\n").expect("writes");
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(2));
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(err, "error: step `1`: program `nowhere-to-be-found` was not found\n");
}

#[test]
fn custom_auth() {
    let server = Server::start(example("custom-auth").env("SIGNING_KEY", "key"));
    let (addr, token) = server.ready.trim().split_once(' ').expect("both");
    assert_eq!(post(addr, token, BODY).expect("an answer").0, 200);
    let signed = |text: &str, key: &[u8]| {
        let mac = Hmac::<Sha256>::new_from_slice(key).expect("a key").chain_update(text);
        let hex: String =
            mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{text}.{hex}")
    };
    assert_eq!(post(addr, &signed("bob.99999999999", b"key"), BODY).expect("an answer").0, 200);
    for bad in [
        token.replace("alice", "mallory"),
        signed("bob.99999999999", b"another"),
        signed("bob.1000", b"key"),
        format!("{token}0"),
        "a.b.c".to_owned(),
    ] {
        assert_eq!(post(addr, &bad, BODY).expect("an answer").0, 401, "{bad}");
    }
    ends_well(server);
}

#[test]
fn custom_executor() {
    let server = Server::start(&mut example("custom-executor"));
    let addr = server.ready.trim();
    let post = |body: &str| {
        http(
            addr,
            &format!(
                "POST /execute HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            ),
        )
        .expect("an answer")
    };
    assert!(post(r#"{"command": "upper", "stdin": "loud"}"#).1.contains("\"stdout\":\"LOUD\""));
    assert!(post(r#"{"command": "count 3"}"#).1.contains("1\\n2\\n3\\n"));
    assert!(post(r#"{"command": "sleep 600", "timeout": 100}"#).1.contains("\"timedOut\""));
    // Input that it never reads holds up nothing.
    let unread = json!({"command": "sleep 600", "timeout": 100, "stdin": "x".repeat(1 << 20)});
    assert!(post(&unread.to_string()).1.contains("\"timedOut\""));
    let placed = r#"{"command": "env", "workdir": "a/b", "env": {"NAME": "value"}}"#;
    let (_, answer) = post(placed);
    assert!(answer.contains("PWD=/a/b\\n") && answer.contains("NAME=value\\n"), "{answer}");
    let (status, answer) = post(r#"{"command": "env", "workdir": "../a"}"#);
    assert!(status == 422 && answer.contains("workdir"), "{answer}");
    let large = json!({"command": "upper", "stdin": "x".repeat(1 << 20)});
    assert!(post(&large.to_string()).1.contains(&"X".repeat(1 << 20)));
    let (status, answer) = post(r#"{"command": "rm"}"#);
    assert!(status == 422 && answer.contains("program `rm` was not found"), "{answer}");
    let (status, answer) = post(r#"{"command": "upper", "limits": {"memory": 1}}"#);
    assert!(status == 422 && answer.contains("memory"), "{answer}");
    ends_well(server);
    let source = include_str!("../../custom_executor.rs");
    assert!(source.lines().count() < 215, "an executor takes no more");
}

#[test]
fn custom_adapter() {
    let root = tempfile::tempdir().expect("a directory");
    let mut command = example("custom-adapter");
    let server = Server::start(command.current_dir(root.path()).env("TOKEN", ALICE));
    let addr = server.ready.trim();
    let ask = |login: &str, command: &str| {
        let mut stream = TcpStream::connect(addr).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
        // What is refused need not be read whole.
        let _ = write!(stream, "{login}\n{command}");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    let bearer = format!("Bearer {ALICE}");
    assert_eq!(ask(&bearer, "5 tr a-z A-Z\nhello"), "stdout 5\nHELLOexited 0\n");
    let failed = ask(&bearer, "0 sh -c 'echo bad >&2; exit 3'\n");
    assert_eq!(failed, "stderr 4\nbad\nexited 3\n");
    for (login, command, answer) in [
        (
            &bearer[..],
            "0 no-such-program\n",
            "refused 504 program `no-such-program` was not found\n",
        ),
        (
            "Bearer a-guess-that-is-wrong",
            "0 touch made\n",
            "refused 530 the credentials are not valid\n",
        ),
        ("POST / HTTP/1.1", "0 touch made\n", "refused 530 credentials are required\n"),
        // Half a line is no command.
        (&bearer, &format!("0 touch made; {}", "true ".repeat(20_000)), ""),
    ] {
        assert_eq!(ask(login, command), answer, "{login}");
    }
    assert!(!root.path().join("made").exists());

    let waiting = "0 sh -c 'touch begun; while [ ! -e go ]; do sleep 0.02; done; echo whole'\n";
    let told = std::thread::scope(|scope| {
        let told = scope.spawn(|| ask(&bearer, waiting));
        eventually("it runs", || root.path().join("begun").exists());
        server.signal(Signal::INT);
        eventually("no more is taken", || ask(&bearer, "0 true\n").starts_with("refused 421 "));
        std::fs::write(root.path().join("go"), "").expect("made");
        told.join().expect("no panic")
    });
    assert_eq!(told, "stdout 6\nwhole\nexited 0\n");
    assert_eq!(server.wait().0, Some(0));
    let source = include_str!("../../custom_adapter.rs");
    assert!(source.lines().count() < 110, "a server takes no more");
}
