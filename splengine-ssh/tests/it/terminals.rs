//! Sessions in terminals.

use russh::{Pty, Sig};
use splengine_core::session::SessionState;

use crate::support::{Client, Running, TestServer, gone, until};

/// A terminal of this size on a new channel, for which nothing is started yet.
async fn terminal(client: &Client, cols: u32, rows: u32, modes: &[(Pty, u32)]) -> Running {
    let mut running = Running(client.channel().await);
    let asked = running.0.request_pty(true, "vt220", cols, rows, 0, 0, modes).await;
    asked.expect("sent");
    assert!(running.is_granted().await);
    running
}

async fn shell(client: &Client) -> Running {
    let mut running = terminal(client, 80, 24, &[]).await;
    running.0.request_shell(true).await.expect("sent");
    assert!(running.is_granted().await);
    running
}

async fn in_terminal(client: &Client, command: &str) -> Running {
    let mut running = terminal(client, 80, 24, &[]).await;
    running.0.exec(true, command).await.expect("sent");
    assert!(running.is_granted().await);
    running
}

#[tokio::test]
async fn a_terminal_is_as_the_client_says_before_its_program_starts() {
    let server = TestServer::open().await;
    let client = server.login().await;
    let modes = [(Pty::VINTR, 7), (Pty::VERASE, 8), (Pty::ECHO, 0), (Pty::IXON, 0)];
    let mut running = terminal(&client, 91, 37, &modes).await;
    let script = "echo term $TERM; stty size; stty -a; echo over; exit 4";
    running.0.exec(true, format!("sh -c '{script}'")).await.expect("sent");
    assert!(running.is_granted().await);
    let ran = running.ended().await;
    let (stdout, stderr, exit) = ran.told();
    assert_eq!((stderr, exit), ("", "4"));
    // Nothing clears what the client's own terminal shows.
    assert!(stdout.starts_with("term vt220\r\n37 91\r\n"), "{stdout:?}");
    for mode in ["intr = ^G", "erase = ^H", " -echo ", " -ixon ", " icrnl "] {
        assert!(stdout.contains(mode), "{mode} in {stdout}");
    }
    assert!(stdout.ends_with("over\r\n"), "{stdout:?}");
}

#[tokio::test]
async fn a_shell_without_a_command_is_a_login_shell() {
    let server = TestServer::open().await;
    let client = server.login().await;
    let mut running = Running(client.channel().await);
    running.0.request_pty(false, "vt100", 80, 24, 0, 0, &[]).await.expect("sent");
    running.0.request_shell(false).await.expect("sent");
    running.types("tr '\\0' '|' < /proc/$$/cmdline\n").await;
    running.shows("/bin/sh|-l|").await;
}

#[tokio::test]
async fn a_window_that_changes_is_heard_of() {
    let server = TestServer::open().await;
    let client = server.login().await;
    let traps = "trap \"stty size\" WINCH; trap \"exit 9\" INT";
    let script = format!("sh -c '{traps}; echo ready; while :; do sleep 0.01; done'");
    let mut running = in_terminal(&client, &script).await;
    running.shows("ready").await;
    running.0.window_change(100, 50, 0, 0).await.expect("sent");
    running.shows("50 100").await;
    // Of many the last one counts.
    for cols in 101..=300 {
        running.0.window_change(cols, 51, 0, 0).await.expect("sent");
    }
    running.shows("51 300").await;
    // A signal is the key for it.
    running.0.signal(Sig::INT).await.expect("sent");
    assert_eq!(running.ended().await.exit.as_deref(), Some("9"));
    // Before anything is started it counts as well.
    let mut running = terminal(&client, 80, 24, &[]).await;
    running.0.window_change(66, 33, 0, 0).await.expect("sent");
    running.0.exec(true, "stty size").await.expect("sent");
    assert!(running.is_granted().await);
    assert_eq!(running.ended().await.told(), ("33 66\r\n", "", "0"));
    // What has no size gets a usual one.
    let mut running = terminal(&client, 0, 0, &[]).await;
    running.0.exec(true, "stty size").await.expect("sent");
    assert!(running.is_granted().await);
    assert_eq!(running.ended().await.told(), ("24 80\r\n", "", "0"));
}

#[tokio::test]
async fn the_end_of_a_terminals_program_is_told() {
    let server = TestServer::open().await;
    let client = server.login().await;
    let ran = in_terminal(&client, "sh -c 'kill -KILL $$'").await.ended().await;
    assert_eq!(ran.told(), ("", "", "KILL"));
    let ran = in_terminal(&client, "no-such-program").await.ended().await;
    let (stdout, stderr, exit) = ran.told();
    assert_eq!((stdout, exit), ("", "127"));
    assert!(stderr.contains("no-such-program") && stderr.ends_with("\r\n"), "{stderr:?}");
    // The end of what the client sends is not the end of the session.
    let mut running = shell(&client).await;
    running.types("while [ ! -e go ]; do sleep 0.01; done; exit 6\n").await;
    running.0.eof().await.expect("sent");
    running.shows("exit 6").await;
    std::fs::write(server.root().join("go"), "").expect("written");
    assert_eq!(running.ended().await.exit.as_deref(), Some("6"));
}

/// The id of the only session of `user`.
fn only(server: &TestServer, user: &str) -> String {
    let sessions = server.sessions(user);
    assert_eq!(sessions.len(), 1);
    sessions[0].id.to_string()
}

#[tokio::test]
async fn a_session_is_shared_and_outlives_its_clients() {
    let server = TestServer::open().await;
    let client = server.login().await;
    let mut first = shell(&client).await;
    first.types("X=kept; echo $SPL_SESSION_ID wo''rd\n").await;
    let seen = first.shows(" word").await;
    let id = only(&server, "alice");
    assert!(seen.contains(&format!("{id} word")), "{seen}");
    // Another client, by the name.
    let other = server.login_as(&format!("alice+{id}"), &server.key).await;
    let mut second = shell(&other).await;
    second.shows("word").await;
    second.types("echo from sec''ond\n").await;
    second.shows("from second").await;
    first.shows("from second").await;
    first.types("echo from fi''rst\n").await;
    second.shows("from first").await;
    // A third by a variable, on the first one's connection.
    let mut third = terminal(&client, 80, 24, &[]).await;
    third.0.set_env(true, "SPL_SESSION_ID", id.as_str()).await.expect("sent");
    assert!(third.is_granted().await);
    third.0.request_shell(true).await.expect("sent");
    assert!(third.is_granted().await);
    third.shows("from first").await;
    until("all are attached", || server.sessions("alice")[0].clients == 3).await;
    assert_eq!(only(&server, "alice"), id);
    // A channel that is closed, and connections that are gone, leave it running.
    third.0.close().await.expect("sent");
    until("one is detached", || server.sessions("alice")[0].clients == 2).await;
    drop((first, second, third, client, other));
    until("all are detached", || server.sessions("alice")[0].clients == 0).await;
    assert_eq!(server.sessions("alice")[0].state, SessionState::Running);
    let again = server.login_as(&format!("alice+{id}"), &server.key).await;
    let with_command = terminal(&again, 80, 24, &[]).await;
    with_command.0.exec(false, "echo no").await.expect("sent");
    let ran = with_command.ended().await;
    assert!(ran.told().0.is_empty() && ran.told().1.contains("leave out the command"), "{ran:?}");
    let mut again = shell(&again).await;
    again.types("echo $X and go''ne; exit 3\n").await;
    again.shows("kept and gone").await;
    assert_eq!(again.ended().await.exit.as_deref(), Some("3"));
}

#[tokio::test]
async fn nobody_hears_of_a_session_that_is_not_theirs() {
    let server = TestServer::open().await;
    let client = server.login().await;
    let mut own = shell(&client).await;
    own.types("echo rea''dy\n").await;
    own.shows("ready").await;
    let id = only(&server, "alice");
    let bob = server.new_user("bob", "");
    let strange = "spl-alice-00000000000000000000000000";
    for asked in [id.as_str(), strange, "../x", "spl-alice+x"] {
        let client = server.login_as(&format!("bob+{asked}"), &bob).await;
        let (stdout, stderr, exit) = ("", format!("no such session: {asked}\r\n"), "255");
        let ran = shell(&client).await.ended().await;
        assert_eq!(ran.told(), (stdout, &*stderr, exit));
        // A command is not run there either.
        let ran = client.run("echo inside").await;
        let (stdout, _, exit) = ran.told();
        assert_eq!((stdout, exit), ("", "255"), "{asked}");
    }
    assert!(server.sessions("bob").is_empty());
    own.types("echo st''ill\n").await;
    own.shows("still").await;
}

#[tokio::test]
async fn a_key_that_may_only_look_does_nothing_else() {
    let server = TestServer::open().await;
    let client = server.login().await;
    let mut own = shell(&client).await;
    own.types("stty -echo; echo rea''dy\n").await;
    own.shows("ready").await;
    let id = only(&server, "alice");
    let key = crate::support::key();
    server.let_in("alice", &key, "view-only");
    let viewer = server.login_as(&format!("alice+{id}"), &key).await;
    let mut view = shell(&viewer).await;
    view.shows("ready").await;
    view.types("echo typed > file; echo ty''ped\n").await;
    view.0.window_change(50, 50, 0, 0).await.expect("sent");
    // What is typed after it by who may: all of the viewer's would be there by then.
    until("it is attached", || server.sessions("alice")[0].clients == 2).await;
    own.types("echo n''ow; cat file; stty size\n").await;
    let seen = view.shows("24 80").await;
    assert!(seen.contains("now") && !seen.contains("typed"), "{seen}");
    assert!(!server.root().join("file").exists());
    // Nothing is made, run, or copied.
    let viewer = server.login_as("alice", &key).await;
    let ran = shell(&viewer).await.ended().await;
    assert_eq!((&ran.stdout[..], ran.exit.as_deref()), (&b""[..], Some("255")));
    for command in ["echo no", "sh -c 'echo no'"] {
        let ran = viewer.run(command).await;
        let (stdout, stderr, exit) = ran.told();
        assert_eq!((stdout, exit), ("", "255"));
        assert!(!stderr.is_empty());
    }
    assert_eq!(server.sessions("alice").len(), 1);
}

#[tokio::test]
async fn a_key_without_terminals_gets_none() {
    let server = TestServer::open().await;
    for options in ["no-pty", "restrict"] {
        let key = server.new_user("bob", options);
        let client = server.login_as("bob", &key).await;
        let mut running = Running(client.channel().await);
        running.0.request_pty(true, "vt100", 80, 24, 0, 0, &[]).await.expect("sent");
        assert!(!running.is_granted().await, "{options}");
        // A command runs, without one.
        running.0.exec(true, "tty").await.expect("sent");
        assert!(running.is_granted().await);
        running.0.eof().await.expect("sent");
        assert_eq!(running.ended().await.told(), ("not a tty\n", "", "1"));
        // So does a shell.
        let mut running = Running(client.channel().await);
        running.0.request_shell(true).await.expect("sent");
        assert!(running.is_granted().await);
        running.types("echo by a shell\nexit 2\n").await;
        assert_eq!(running.ended().await.told(), ("by a shell\n", "", "2"));
    }
    let key = server.new_user("bob", "restrict,pty");
    let client = server.login_as("bob", &key).await;
    let mut running = in_terminal(&client, "tty").await;
    running.shows("/dev/pts/").await;
}

#[tokio::test]
async fn a_command_in_a_terminal_ends_when_its_client_hangs_up() {
    let server = TestServer::open().await;
    let ids = || server.sessions("alice").into_iter().map(|info| info.id.to_string());
    let client = server.login().await;
    let mut running = in_terminal(&client, "sh -c 'echo $$; exec sleep 1000'").await;
    let pid = running.line().await;
    drop((running, client));
    gone(pid.trim()).await;
    until("it is not listed", || ids().count() == 0).await;
    // One that asks to stay does, and so does one to which somebody else is attached.
    let client = server.login().await;
    let mut staying = terminal(&client, 80, 24, &[]).await;
    staying.0.set_env(true, "SPL_BACKGROUND", "keep").await.expect("sent");
    assert!(staying.is_granted().await);
    staying.0.exec(true, "cat").await.expect("sent");
    assert!(staying.is_granted().await);
    until("it is listed", || ids().count() == 1).await;
    let kept = only(&server, "alice");
    let mut shared = in_terminal(&client, "sh -c 'echo ready; cat'").await;
    shared.shows("ready").await;
    let id = ids().find(|id| *id != kept).expect("two");
    let other = server.login_as(&format!("alice+{id}"), &server.key).await;
    let mut other = shell(&other).await;
    other.types("echoed\r").await;
    other.shows("echoed").await;
    staying.0.close().await.expect("sent");
    shared.0.close().await.expect("sent");
    let clients = |id: &str| {
        let info = server.sessions("alice").into_iter().find(|info| info.id.as_str() == id);
        info.map(|info| info.clients)
    };
    until("both have hung up", || clients(&kept) == Some(0) && clients(&id) == Some(1)).await;
    other.types("again\r").await;
    other.shows("again").await;
    assert_eq!(clients(&kept), Some(0));
}

#[tokio::test]
async fn sessions_are_listed_and_ended() {
    let server = TestServer::open().await;
    let client = server.login().await;
    let mut shell = shell(&client).await;
    let told = shell.shows("hanging up leaves it running").await;
    let id = only(&server, "alice");
    assert!(told.contains(&id), "{told}");
    let alone = server.login_as("alice+", &server.key).await;
    let running = Running(alone.channel().await);
    running.0.request_shell(false).await.expect("sent");
    let ran = running.ended().await;
    let (stdout, stderr, exit) = ran.told();
    assert_eq!((stderr, exit), ("", "0"));
    let lines: Vec<&str> = stdout.lines().collect();
    assert!(
        lines.len() == 2 && lines[0].starts_with("ID ") && lines[1].starts_with(&id),
        "{stdout}"
    );
    for (command, code) in [("end", "255"), ("ls", "255"), ("end none", "1")] {
        assert_eq!(alone.run(command).await.told().2, code, "{command}");
    }
    // Nobody else sees or ends it.
    let bob = server.new_user("bob", "");
    let bob = server.login_as("bob+", &bob).await;
    assert_eq!(bob.run("list").await.told().0.lines().count(), 1);
    assert_eq!(bob.run(format!("end {id}")).await.told().2, "1");
    assert_eq!(server.sessions("alice").len(), 1);
    assert_eq!(alone.run(format!("end {id}")).await.told(), ("", "", "0"));
    assert_eq!(server.sessions("alice").len(), 0);
}
