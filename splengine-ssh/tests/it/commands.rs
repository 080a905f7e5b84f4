//! Commands without a terminal.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use russh::{Sig, client};
use splengine_core::Scope;
use splengine_core::auth::{AccountList, Accounts, Scopes};
use splengine_core::engine::EngineBuilder;
use splengine_core::execute::Program;
use tokio::time::sleep;

use crate::support::{Running, Setup, TestServer, gone};

#[tokio::test]
async fn a_command_tells_what_it_printed_and_how_it_ended() {
    let server = TestServer::open().await;
    let client = server.login().await;
    let ran = client.run("sh -c 'echo out; echo err >&2; exit 7'").await;
    assert_eq!(ran.told(), ("out\n", "err\n", "7"));
    assert_eq!(client.run("true").await.told(), ("", "", "0"));
    assert_eq!(client.run("sh -c 'exit 255'").await.told(), ("", "", "255"));
    assert_eq!(client.run("sh -c 'kill -TERM $$'").await.told(), ("", "", "TERM"));
    assert_eq!(client.run("sh -c 'kill -USR2 $$'").await.told(), ("", "", "Custom(\"USR2\")"));
    // No shell has had it before the program.
    let ran = client.run(r#"printf '%s|' 'a  b' $HOME "it's" * ';' a\ b"#).await;
    assert_eq!(ran.told().0, "a  b|$HOME|it's|*|;|a b|");
    let ran = client.run("sh -c 'printf \"\\377\\000\\r\\n\"'").await;
    assert_eq!(ran.stdout, b"\xff\0\r\n", "bytes stay what they are");
}

#[tokio::test]
async fn a_command_reads_what_its_client_sends() {
    let server = TestServer::open().await;
    let client = server.login().await;
    // Before the command is asked for, and after.
    let mut running = Running(client.channel().await);
    running.types("early ").await;
    running.0.exec(true, "cat").await.expect("sent");
    assert!(running.is_granted().await);
    running.types("late").await;
    running.0.eof().await.expect("sent");
    assert_eq!(running.ended().await.told(), ("early late", "", "0"));
    assert_eq!(client.run("cat").await.told(), ("", "", "0"));
}

#[tokio::test]
async fn what_can_not_run_is_said_in_words() {
    let server =
        TestServer::with(Setup { engine: |engine| engine.max_waiting(0), ..Setup::default() });
    let server = server.await;
    std::fs::write(server.root().join("data.txt"), "no program").expect("written");
    let client = server.login().await;
    for (command, code, words) in [
        (&b"no-such-program x"[..], "127", "no-such-program"),
        (b"./data.txt", "126", "data.txt"),
        (b"an 'open quote", "255", "quote"),
        (b"", "255", "there is no command to run"),
        (b"  \n ", "255", "there is no command to run"),
        // A line that goes on, and does not.
        (b"\\\n", "255", ""),
        (b"scp -t", "255", "scp"),
    ] {
        let ran = client.run(command).await;
        let (stdout, stderr, exit) = ran.told();
        assert_eq!((stdout, exit), ("", code), "{stderr}");
        assert!(stderr.contains(words) && stderr.ends_with('\n'), "{stderr}");
        assert!(!stderr.contains('\r'), "{stderr}");
    }
    // Only one thing runs on a channel, and it can't be asked for another.
    let mut running = client.start("sh -c 'echo $$; exec sleep 1000'").await;
    let pid = running.line().await;
    for _ in 0..2 {
        running.0.exec(true, "echo again").await.expect("sent");
        assert!(!running.is_granted().await);
    }
    running.0.request_pty(true, "vt100", 80, 24, 0, 0, &[]).await.expect("sent");
    assert!(!running.is_granted().await);
    running.0.set_env(true, "LANG", "C").await.expect("sent");
    assert!(!running.is_granted().await);
    // It still ends with its channel.
    running.0.close().await.expect("sent");
    gone(&pid).await;
}

#[tokio::test]
async fn arguments_need_not_be_utf8() {
    let server = TestServer::open().await;
    let name = OsStr::from_bytes(b"caf\xe9.txt");
    std::fs::write(server.root().join(name), "found").expect("written");
    let client = server.login().await;
    let ran = client.run(&b"cat 'caf\xe9.txt'"[..]).await;
    assert_eq!(ran.told(), ("found", "", "0"));
    let ran = client.run(&b"printf %s \xff\\\xfe\"\xe4\""[..]).await;
    assert_eq!(ran.stdout, b"\xff\xfe\xe4");
    // In a terminal.
    let running = Running(client.channel().await);
    running.0.request_pty(false, "vt100", 80, 24, 0, 0, &[]).await.expect("sent");
    running.0.exec(false, &b"cat caf\xe9.txt"[..]).await.expect("sent");
    assert_eq!(granted(running).await, ("found".to_owned(), "0".to_owned()));
    // A program that is not there, and one that a key is bound to.
    let ran = client.run(&b"no-such-\xff"[..]).await;
    assert_eq!(ran.told().2, "127");
    let key = server.new_user("bob", "command=\"env\"");
    let ran = server.login_as("bob", &key).await.run(&b"\xff"[..]).await;
    let (stdout, stderr, exit) = ran.told();
    assert_eq!((stdout, exit), ("", "2"));
    assert!(stderr.contains("UTF-8"), "{stderr}");
}

#[tokio::test]
async fn what_sees_whether_it_gets_in_and_adds_keys_is_answered() {
    let server = TestServer::open().await;
    let client = server.login().await;
    assert_eq!(client.run("exit").await.told(), ("", "", "0"));
    assert_eq!(client.run("exit 3").await.told(), ("", "", "3"));
    // The beginning of what ssh-copy-id sends.
    let ran = client.run("exec sh -c 'cd; cat >> \".ssh/authorized_keys\" || exit 1'").await;
    let (stdout, stderr, exit) = ran.told();
    assert_eq!((stdout, exit), ("", "1"));
    assert!(stderr.contains("operator") && stderr.contains("`alice`"), "{stderr}");
    // To a program of its own it is a command like any other.
    let server = TestServer::with(Setup {
        engine: |engine| engine.program(Program::at("/bin/echo")),
        ..Setup::default()
    });
    let ran = server.await.login().await.run("exit").await;
    assert_eq!(ran.told(), ("exit\n", "", "0"));
}

#[tokio::test]
async fn operators_of_a_shell_are_refused() {
    let server = TestServer::open().await;
    let kept = server.root().join("kept");
    std::fs::write(&kept, "").expect("written");
    let client = server.login().await;
    for command in ["rm -f kept; ls", "rm -f kept && ls", "rm -f kept\nls", "rm -f kept $(ls)"] {
        let ran = client.run(command).await;
        let (stdout, stderr, exit) = ran.told();
        assert_eq!((stdout, exit), ("", "2"), "{stderr}");
        assert!(stderr.contains("sh -c") && stderr.ends_with('\n'), "{stderr}");
        // The same with a terminal.
        let running = Running(client.channel().await);
        running.0.request_pty(false, "vt100", 80, 24, 0, 0, &[]).await.expect("sent");
        running.0.exec(false, command).await.expect("sent");
        let ran = granted(running).await;
        assert_eq!((&*ran.0, &*ran.1), (&*format!("{}\r\n", stderr.trim_end()), "2"));
    }
    assert!(kept.exists(), "nothing ran");
    assert_eq!(client.run("exec echo 'a; b'").await.told(), ("a; b\n", "", "0"));
}

#[tokio::test]
async fn a_shell_reads_each_command_where_that_is_allowed() {
    let setup = Setup {
        engine: |engine| engine.shell_commands(true),
        users: |users, _| {
            let scopes = Scopes::NONE.with(Scope::Execute).with(Scope::Files);
            let list = AccountList::new().user("bob".parse().expect("a name"), scopes);
            users.accounts(Accounts::new(list))
        },
        ..Setup::default()
    };
    let server = TestServer::with(setup).await;
    let client = server.login().await;
    let ran = client.run("echo a; echo $((1+1)) >&2 && exit 4").await;
    assert_eq!(ran.told(), ("a\n", "2\n", "4"));
    let running = Running(client.channel().await);
    running.0.request_pty(false, "vt100", 80, 24, 0, 0, &[]).await.expect("sent");
    running.0.exec(false, "tty -s && echo yes; exit 5").await.expect("sent");
    assert_eq!(granted(running).await, ("yes\r\n".to_owned(), "5".to_owned()));
    // Nobody who may have no sessions.
    let bob = server.new_user("bob", "");
    let ran = server.login_as("bob", &bob).await.run("echo a; echo b").await;
    assert_eq!(ran.told().2, "2");
    let key = server.new_user("carol", "command=\"echo got $SSH_ORIGINAL_COMMAND; exit 3\"");
    let ran = server.login_as("carol", &key).await.run("a b").await;
    assert_eq!(ran.told(), ("got a b\n", "", "3"));
}

#[tokio::test]
async fn a_keys_command_that_a_shell_would_complete_is_refused() {
    let server = TestServer::open().await;
    let key = server.new_user("bob", "command=\"echo $SSH_ORIGINAL_COMMAND\"");
    let ran = server.login_as("bob", &key).await.run("a b").await;
    let (stdout, stderr, exit) = ran.told();
    assert_eq!((stdout, exit), ("", "2"));
    assert!(stderr.contains("SSH_ORIGINAL_COMMAND") && stderr.contains("sh -c"), "{stderr}");
    let key = server.new_user("bob", "command=\"sh -c 'echo got $SSH_ORIGINAL_COMMAND'\"");
    let ran = server.login_as("bob", &key).await.run("a; b").await;
    assert_eq!(ran.told(), ("got a; b\n", "", "0"));
}

#[tokio::test]
async fn all_is_read_before_the_end_however_slowly() {
    let server = TestServer::open().await;
    let config = client::Config {
        window_size: 64 << 10,
        maximum_packet_size: 32 << 10,
        channel_buffer_size: 1,
        ..client::Config::default()
    };
    let mut client = server.connect_with(config).await;
    assert!(client.shows("alice", &server.key).await);
    let script = "head -c 8388608 /dev/zero; head -c 100000 /dev/zero >&2; echo end; exit 3";
    let mut running = client.start(format!("sh -c '{script}'")).await;
    let mut seen = Vec::new();
    // Slowly, and then all that is left.
    while seen.len() < 1 << 20 {
        if let Some(russh::ChannelMsg::Data { data }) = running.next().await {
            seen.extend_from_slice(&data);
        }
        sleep(Duration::from_millis(10)).await;
    }
    let rest = running.ended().await;
    seen.extend_from_slice(&rest.stdout);
    assert_eq!((seen.len(), rest.stderr.len()), (8_388_612, 100_000));
    assert!(seen.ends_with(b"\0end\n"));
    assert_eq!(rest.exit.as_deref(), Some("3"));
}

#[tokio::test]
async fn a_signal_reaches_the_whole_group() {
    let server = TestServer::open().await;
    let client = server.login().await;
    for (signal, name) in [(Sig::INT, "INT"), (Sig::USR1, "USR1"), (Sig::HUP, "HUP")] {
        // A shell and its child wait for it.
        let child = format!(
            "trap \\\"echo child; exit\\\" {name}; echo ready; while :; do sleep 0.01; done"
        );
        let script = format!("trap 'echo parent; exit 3' {name}; sh -c \"{child}\"; echo no");
        let mut running = client.start(["sh -c ", &quoted(&script)].concat()).await;
        running.shows("ready\n").await;
        running.0.signal(signal).await.expect("sent");
        let ran = running.ended().await;
        let (stdout, _, exit) = ran.told();
        assert_eq!((stdout, exit), ("child\nparent\n", "3"), "{name}");
    }
    let mut running = client.start("sh -c 'echo ready; exec sleep 1000'").await;
    running.shows("ready").await;
    // One that is not known does nothing.
    running.0.signal(Sig::Custom("NONE@nowhere".to_owned())).await.expect("sent");
    running.0.signal(Sig::KILL).await.expect("sent");
    assert_eq!(running.ended().await.told(), ("", "", "KILL"));
}

#[tokio::test]
async fn a_command_ends_with_its_channel_and_its_connection() {
    let server = TestServer::open().await;
    let client = server.login().await;
    let script = "sh -c 'sleep 1000 & echo $$ $!; wait'";
    let mut first = client.start(script).await;
    let mut second = client.start(script).await;
    let (of_first, of_second) = (first.line().await, second.line().await);
    first.0.close().await.expect("sent");
    for pid in of_first.split(' ') {
        gone(pid).await;
    }
    assert_eq!(client.run("echo others live").await.told().0, "others live\n");
    assert!(std::path::Path::new("/proc").join(of_second.split(' ').next().expect("two")).exists());
    // As by a cable that is pulled: nobody says goodbye.
    drop((first, second, client));
    for pid in of_second.split(' ') {
        gone(pid).await;
    }
}

/// All that was printed, and how it ended, of a channel whose requests wanted no answers.
async fn granted(running: Running) -> (String, String) {
    let ran = running.ended().await;
    let (stdout, stderr, exit) = ran.told();
    ([stdout, stderr].concat(), exit.to_owned())
}

fn quoted(script: &str) -> String {
    format!("'{}'", script.replace('\'', r"'\''"))
}

#[tokio::test]
async fn a_command_knows_its_client() {
    knows_its_client(TestServer::open().await).await;
    // What requests may set does not bound what the server sets by itself.
    let engine = |engine: EngineBuilder| engine.request_env(["A"]);
    knows_its_client(TestServer::with(Setup { engine, ..Setup::default() }).await).await;
}

async fn knows_its_client(server: TestServer) {
    let client = server.login().await;
    let ran = client.run("env").await;
    let vars: Vec<&str> = ran.told().0.lines().collect();
    let var = |name: &str| {
        let found = vars.iter().find_map(|var| var.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("no {name} in {vars:?}"))
    };
    let port = server.addr.port().to_string();
    let client_words: Vec<&str> = var("SSH_CLIENT").split(' ').collect();
    assert_eq!([client_words[0], client_words[2]], ["127.0.0.1", &port]);
    let all = format!("127.0.0.1 {} 127.0.0.1 {port}", client_words[1]);
    assert_eq!(var("SSH_CONNECTION"), all);
    assert_eq!(var("SHELL"), "/bin/sh");
    assert!(!vars.iter().any(|var| var.starts_with("SSH_TTY=")), "there is no terminal");
    let running = Running(client.channel().await);
    running.0.request_pty(false, "vt100", 80, 24, 0, 0, &[]).await.expect("sent");
    running.0.exec(false, "sh -c 'echo $SSH_TTY; tty; echo $TERM'").await.expect("sent");
    let (told, _) = granted(running).await;
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].starts_with("/dev/pts/") && lines[0] == lines[1], "{told}");
    assert_eq!(lines[2], "vt100");
}

#[tokio::test]
async fn a_signal_is_told_as_a_status_where_that_is_wanted() {
    let server = TestServer::serving(|server| server.signals_as_status(true)).await;
    let client = server.login().await;
    assert_eq!(client.run("sh -c 'kill -TERM $$'").await.told(), ("", "", "143"));
    assert_eq!(client.run("sh -c 'exit 9'").await.told(), ("", "", "9"));
}

#[tokio::test]
async fn what_runs_in_the_background_stays_where_that_is_wanted() {
    let server = TestServer::open().await;
    let script = "sh -c 'trap \"\" HUP; sleep 1000 </dev/null >/dev/null 2>&1 & echo $!'";
    let kept = server.new_user("bob", "background=\"keep\"");
    let never = server.new_user("carol", "background=\"kill\"");
    let cases = [
        ("alice", &server.key, false, false),
        ("alice", &server.key, true, true),
        ("bob", &kept, false, true),
        ("carol", &never, true, false),
    ];
    let cases = cases.into_iter().flat_map(|case| [(case, false), (case, true)]);
    for ((user, key, asks, stays), is_in_terminal) in cases {
        let client = server.login_as(user, key).await;
        let running = Running(client.channel().await);
        if asks {
            running.0.set_env(false, "SPL_BACKGROUND", "keep").await.expect("sent");
        }
        if is_in_terminal {
            running.0.request_pty(false, "vt100", 80, 24, 0, 0, &[]).await.expect("sent");
        }
        running.0.exec(false, script).await.expect("sent");
        let pid = if is_in_terminal {
            granted(running).await.0
        } else {
            running.ended().await.told().0.to_owned()
        };
        let pid = pid.trim().to_owned();
        assert!(!pid.is_empty());
        if stays {
            assert!(std::path::Path::new("/proc").join(&pid).exists(), "{user}");
            assert!(client.run(format!("kill {pid}")).await.told().2 == "0");
        }
        gone(&pid).await;
    }
}

#[tokio::test]
async fn git_packs_before_a_push_is_over() {
    let engine = |engine: EngineBuilder| engine.request_env(["A"]);
    let server = TestServer::with(Setup { engine, ..Setup::default() }).await;
    let program = server.root().join("git-receive-pack");
    std::fs::write(&program, "#!/bin/sh\nenv | grep GIT_ | sort\n").expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, mode).expect("set");
    let client = server.login().await;
    let ran = client.run("./git-receive-pack 'x.git'").await;
    assert!(ran.told().0.contains("GIT_CONFIG_COUNT=2"), "{ran:?}");
    assert!(ran.told().0.contains("GIT_CONFIG_KEY_0=gc.autoDetach"), "{ran:?}");
    assert!(ran.told().0.contains("GIT_CONFIG_VALUE_0=false"), "{ran:?}");
}
