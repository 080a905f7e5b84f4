//! Who is let in, and what for.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use argon2::password_hash::PasswordHasher as _;
use argon2::{Algorithm, Argon2, Params, Version};
use russh::MethodKind;
use russh::client::{AuthResult, KeyboardInteractiveAuthResponse as Answer};
use russh::keys::PrivateKey;
use splengine_core::auth::{
    AccountList, Accounts, AuthError, Authenticator, CredentialKind, CredentialSource, Credentials,
    Scopes,
};
use splengine_core::{Caller, Engine, LocalExecutor, Scope, SessionRequest};
use splengine_ssh::{HostKeys, OpenError, SshServer, Users};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::support::{Client, PATIENCE, Running, Setup, TestServer, key, public};

#[tokio::test]
async fn a_server_is_not_opened_with_files_that_cant_be_used() {
    let dir = tempfile::tempdir().expect("a directory");
    let (bad, path) = (dir.path().join("bad"), |name: &str| dir.path().join(name));
    fs::write(&bad, "# a comment\nnonsense\n").expect("written");
    let keys = HostKeys::open_or_create(path("host_key")).expect("made");
    let engine = Engine::builder(LocalExecutor::new(dir.path()).expect("set up"));
    let engine = engine.build().expect("built");
    for (users, words) in [
        (Users::new().authorized_keys(path("none")), "none`"),
        (Users::new().authorized_keys(&bad), "bad` is not a directory"),
        (Users::new().trusted_ca(&bad), "bad`, line 2: "),
        (Users::new().revoked_keys(&bad), "bad`, line 2: "),
        (Users::new().passwords(&bad), "bad`, line 2: "),
        (Users::new().authorized_keys(dir.path()).trusted_ca(&bad), "bad`, line 2: "),
    ] {
        let checked = users.check().expect_err(words).to_string();
        assert!(checked.contains(words), "{words}: {checked}");
        let builder = SshServer::builder(engine.clone()).users(users.clone());
        let bound = builder.bind("127.0.0.1:0", &keys).await.expect_err(words);
        assert_eq!(bound.to_string(), checked);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let builder = SshServer::builder(engine.clone()).users(users);
        let refused = builder.listen(listener, &keys).expect_err(words);
        assert!(matches!(refused, OpenError::Users(_)), "{refused}");
    }
    let builder = SshServer::builder(engine).users(Users::new());
    let refused = builder.bind("192.0.2.1:1", &keys).await.expect_err("not ours");
    assert!(matches!(refused, OpenError::Bind(_)), "{refused}");
}

#[tokio::test]
async fn only_who_is_known_is_let_in() {
    let server = TestServer::open().await;
    let bob = server.new_user("bob", "");
    for (user, key) in [
        ("carol", &server.key),
        ("alice", &key()),
        ("alice", &bob),
        ("", &bob),
        ("../keys/bob", &bob),
        ("+bob", &bob),
    ] {
        assert!(!server.connect().await.shows(user, key).await, "{user}");
    }
    let mut client = server.connect().await;
    // Another key is taken after a wrong one, and for another user too.
    assert!(!client.shows("alice", &bob).await);
    assert!(client.shows("bob", &bob).await);
    assert_eq!(client.run("echo in").await.told().0, "in\n");
    // What files say counts from the next login on.
    server.let_in("bob", &key(), "");
    assert!(!server.connect().await.shows("bob", &bob).await);
    assert_eq!(client.run("echo still").await.told().0, "still\n");
    let bob = server.new_user("bob", "expiry-time=\"20200101Z\"");
    assert!(!server.connect().await.shows("bob", &bob).await);
    let bob = server.new_user("bob", "from=\"192.0.2.1\"");
    assert!(!server.connect().await.shows("bob", &bob).await);
    let bob = server.new_user("bob", "from=\"192.0.2.1,127.0.0.0/8\"");
    assert!(server.connect().await.shows("bob", &bob).await);
}

#[tokio::test]
async fn nothing_is_asked_for_before_a_login() {
    let server = TestServer::open().await;
    let client = server.connect().await;
    let opened = timeout(Duration::from_secs(5), client.handle.channel_open_session()).await;
    assert!(!matches!(opened, Ok(Ok(_))));
    assert_eq!(server.login().await.run("echo in").await.told().0, "in\n");
}

#[tokio::test]
async fn who_tries_too_often_is_sent_away() {
    let server = TestServer::open().await;
    let mut client = server.connect().await;
    let mut tries = 0;
    while !client.handle.is_closed() {
        assert!(!client.shows("alice", &key()).await);
        tries += 1;
        assert!(tries < 20);
    }
    assert!((6..=8).contains(&tries), "{tries}");
    client.over().await;
}

/// Runs `command` as bob by `key`.
async fn run(
    server: &TestServer,
    key: &Arc<PrivateKey>,
    command: &str,
) -> (String, String, String) {
    let client = server.login_as("bob", key).await;
    let ran = client.run(command).await;
    let (stdout, stderr, exit) = ran.told();
    (stdout.to_owned(), stderr.to_owned(), exit.to_owned())
}

#[tokio::test]
async fn a_key_may_be_for_one_command() {
    let server = TestServer::open().await;
    let script = r#"command="sh -c 'echo forced: $SSH_ORIGINAL_COMMAND'""#;
    let key = server.new_user("bob", script);
    assert_eq!(run(&server, &key, "ls 'a  b'").await.0, "forced: ls 'a b'\n");
    let client = server.login_as("bob", &key).await;
    // Whatever else is asked for.
    let mut running = Running(client.channel().await);
    running.0.request_shell(true).await.expect("sent");
    assert!(running.is_granted().await);
    assert_eq!(running.ended().await.told(), ("forced:\n", "", "0"));
    let mut running = Running(client.channel().await);
    running.0.request_subsystem(true, "sftp").await.expect("sent");
    assert!(running.is_granted().await);
    assert_eq!(running.ended().await.told().0, "forced: internal-sftp\n");
    let mut running = Running(client.channel().await);
    running.0.request_pty(true, "vt100", 80, 24, 0, 0, &[]).await.expect("sent");
    assert!(running.is_granted().await);
    running.0.exec(true, "anything").await.expect("sent");
    assert!(running.is_granted().await);
    assert_eq!(running.ended().await.told().0, "forced: anything\r\n");
    // Be it a session that runs already.
    let bob = Caller::new("bob").expect("a name").with_all_scopes();
    let session = server.engine.sessions().create(&bob, SessionRequest::new()).await.expect("made");
    let id = session.id.to_string();
    let by_name = server.login_as(&format!("bob+{id}"), &key).await;
    for by_variable in [false, true] {
        let mut running = Running(if by_variable { &client } else { &by_name }.channel().await);
        if by_variable {
            running.0.set_env(true, "SPL_SESSION_ID", id.as_str()).await.expect("sent");
            assert!(running.is_granted().await);
        }
        running.0.request_pty(true, "vt100", 80, 24, 0, 0, &[]).await.expect("sent");
        assert!(running.is_granted().await);
        running.0.request_shell(true).await.expect("sent");
        assert!(running.is_granted().await);
        assert_eq!(running.ended().await.told(), ("forced:\r\n", "", "0"));
    }
    // A client can't say itself what it asked for.
    let mut running = Running(client.channel().await);
    running.0.set_env(true, "SSH_ORIGINAL_COMMAND", "mine").await.expect("sent");
    assert!(!running.is_granted().await);
    // An empty one runs nothing at all.
    let key = server.new_user("bob", r#"command="""#);
    assert_eq!(
        run(&server, &key, "echo no").await,
        (String::new(), "there is no command to run\n".to_owned(), "255".to_owned())
    );
}

#[tokio::test]
async fn a_key_may_be_for_files_alone() {
    for has_files in [true, false] {
        let server = TestServer::with(Setup { has_files, ..Setup::default() }).await;
        let key = server.new_user("bob", r#"command="internal-sftp",restrict"#);
        let client = server.login_as("bob", &key).await;
        let mut running = client.start("rm -rf /").await;
        // SSH_FXP_INIT of version 3, and the answer to it.
        running.types(b"\0\0\0\x05\x01\0\0\0\x03").await;
        let answer = running.next().await;
        let russh::ChannelMsg::Data { data } = answer.expect("an answer") else {
            panic!("no data");
        };
        assert_eq!(data[4..9], *b"\x02\0\0\0\x03");
    }
}

#[tokio::test]
async fn variables_are_taken_from_a_short_list() {
    let server = TestServer::with(Setup {
        engine: |engine| {
            engine.request_env(["LANG", "LC_*", "OF_KEY", "FOO", "LD_PRELOAD", "PATH", "SSH_*"])
        },
        server: |server| server.accept_env(["LANG", "LC_*", "TZ", "LD_*", "PATH", "SPL_*"]),
        ..Setup::default()
    })
    .await;
    let options = r#"environment="OF_KEY=yes",environment="UNKNOWN=no",environment="LANG=of key""#;
    let key = server.new_user("bob", options);
    let client = server.login_as("bob", &key).await;
    let mut running = Running(client.channel().await);
    let long = "x".repeat(5000);
    let long_name = format!("LC_{}", "x".repeat(1000));
    for (name, value, taken) in [
        ("LANG", "of client", true),
        ("LC_ALL", "C", true),
        // The engine accepts it, the server does not.
        ("FOO", "no", false),
        // The server would accept it, the engine does not.
        ("TZ", "no", false),
        // Whatever anybody says.
        ("LD_PRELOAD", "/no.so", false),
        ("PATH", "/no", false),
        ("SPL_USER", "no", false),
        ("LC_LONG", &long, false),
        (&long_name, "no", false),
        ("SPL_SESSION_ID", &long, false),
        ("LC_=", "no", false),
        ("", "no", false),
    ] {
        running.0.set_env(true, name, value).await.expect("sent");
        assert_eq!(running.is_granted().await, taken, "{name}");
    }
    // No more than so many of them.
    let mut most = 2;
    loop {
        running.0.set_env(true, format!("LC_{most}"), "x").await.expect("sent");
        if !running.is_granted().await {
            break;
        }
        most += 1;
        assert!(most < 1000);
    }
    running.0.exec(true, "env").await.expect("sent");
    assert!(running.is_granted().await);
    let ran = running.ended().await;
    let (stdout, _, exit) = ran.told();
    assert_eq!(exit, "0");
    let has = |line: &str| stdout.lines().any(|found| found == line);
    assert!(has("OF_KEY=yes") && has("LANG=of key") && has("LC_ALL=C"), "{stdout}");
    for name in ["FOO=", "UNKNOWN=", "TZ=no", "LD_PRELOAD=", "PATH=/no", "LC_LONG="] {
        assert!(!stdout.lines().any(|line| line.starts_with(name)), "{name} in {stdout}");
    }
}

pub(crate) fn with_passwords(users: Users, dir: &Path) -> Users {
    let params = Params::new(64, 1, 1, None).expect("fits");
    let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash = hasher.hash_password_with_salt(b"open sesame", b"salty salt").expect("a hash");
    let file = dir.join("passwords");
    fs::write(&file, format!("bob:{hash}\n")).expect("written");
    users.passwords(file)
}

/// What a client is told it may try, which shows nothing.
async fn methods(client: &mut Client) -> Vec<MethodKind> {
    match client.handle.authenticate_none("bob").await.expect("an answer") {
        AuthResult::Failure { remaining_methods, .. } => remaining_methods.to_vec(),
        AuthResult::Success => panic!("let in"),
    }
}

/// Types `password` where it is asked for.
async fn types(client: &mut Client, password: &str) -> Answer {
    let handle = &mut client.handle;
    let asked = handle.authenticate_keyboard_interactive_start("bob", None).await;
    match asked.expect("an answer") {
        Answer::InfoRequest { prompts, .. } => {
            assert_eq!((prompts.len(), prompts[0].echo), (1, false));
            let answer = vec![password.to_owned()];
            let told = handle.authenticate_keyboard_interactive_respond(answer);
            timeout(PATIENCE, told).await.expect("in time").expect("an answer")
        }
        other => other,
    }
}

#[tokio::test]
async fn passwords_let_in_where_they_are_switched_on() {
    let server = TestServer::with(Setup { users: with_passwords, ..Setup::default() }).await;
    let mut client = server.connect().await;
    let on = [MethodKind::PublicKey, MethodKind::Password, MethodKind::KeyboardInteractive];
    assert_eq!(methods(&mut client).await, on);
    for (user, password) in [("bob", "wrong"), ("alice", "open sesame"), ("bob", "")] {
        let told = client.handle.authenticate_password(user, password).await;
        let AuthResult::Failure { remaining_methods, .. } = told.expect("an answer") else {
            panic!("let in: {user} {password}");
        };
        assert_eq!(remaining_methods.to_vec(), on, "one may try again");
    }
    let told = client.handle.authenticate_password("bob", "open sesame").await;
    assert!(told.expect("an answer").success());
    assert_eq!(client.run("echo in").await.told().0, "in\n");
    let mut client = server.connect().await;
    assert!(matches!(types(&mut client, "wrong").await, Answer::Failure { .. }));
    assert!(matches!(types(&mut client, "open sesame").await, Answer::Success));
    assert_eq!(client.run("echo in").await.told().0, "in\n");

    let server = TestServer::open().await;
    let mut client = server.connect().await;
    assert_eq!(methods(&mut client).await, [MethodKind::PublicKey]);
    let told = client.handle.authenticate_password("bob", "open sesame").await;
    assert!(!told.is_ok_and(|told| told.success()));
    let mut client = server.connect().await;
    assert!(matches!(types(&mut client, "open sesame").await, Answer::Failure { .. }));
}

/// Users called after the only scope that they have.
fn narrow(users: Users, _: &Path) -> Users {
    let list = Scope::ALL.iter().fold(AccountList::new(), |list, scope| {
        list.user(scope.name().parse().expect("a name"), Scopes::NONE.with(*scope))
    });
    users.accounts(Accounts::new(list))
}

/// What is run for a key's owner, and on a terminal.
#[tokio::test]
async fn a_user_has_no_more_than_the_own_scopes() {
    let server = TestServer::with(Setup { users: narrow, ..Setup::default() }).await;
    for &scope in Scope::ALL {
        let key = server.new_user(scope.name(), "");
        let client = server.login_as(scope.name(), &key).await;
        let run = async |command: &str| client.run(command).await;
        let ran = run("echo in").await;
        let (stdout, stderr, exit) = ran.told();
        if scope == Scope::Execute {
            assert_eq!((stdout, stderr, exit), ("in\n", "", "0"));
        } else {
            assert_eq!((stdout, exit), ("", "255"), "{scope:?}");
            assert!(stderr.contains("`execute`"), "{scope:?}: {stderr}");
        }
        // What moves files by a program takes both.
        let ran = run("rsync --server --sender -e.L . .").await;
        let (stdout, stderr, exit) = ran.told();
        assert_eq!((stdout, exit), ("", "255"), "{scope:?}");
        let missing = if scope == Scope::Files { "`execute`" } else { "`files`" };
        assert!(stderr.contains(missing), "{scope:?}: {stderr}");
        // A shell without a terminal, and a terminal.
        for in_terminal in [false, true] {
            let mut running = Running(client.channel().await);
            if in_terminal {
                running.0.request_pty(true, "vt100", 80, 24, 0, 0, &[]).await.expect("sent");
                assert!(running.is_granted().await);
            }
            running.0.request_shell(true).await.expect("sent");
            assert!(running.is_granted().await);
            if in_terminal && scope == Scope::Sessions {
                running.types("exit 7\n").await;
                assert_eq!(running.ended().await.exit.as_deref(), Some("7"));
                continue;
            }
            let ran = running.ended().await;
            let (stdout, stderr, exit) = ran.told();
            assert_eq!((stdout, exit), ("", "255"), "{scope:?}");
            assert!(stderr.contains("scope `"), "{scope:?}: {stderr}");
        }
        // What a key forces is no way around.
        let key = server.new_user(scope.name(), r#"command="echo forced""#);
        let client = server.login_as(scope.name(), &key).await;
        let exit = if scope == Scope::Execute { "0" } else { "255" };
        assert_eq!(client.run("anything").await.told().2, exit, "{scope:?}");
    }
}

/// Knows one key, of a user with rights of their own, and one password.
#[derive(Clone)]
struct Directory {
    key: String,
    is_out: Arc<AtomicBool>,
}

impl Authenticator for Directory {
    async fn authenticate(
        &self,
        credentials: Credentials,
        source: &CredentialSource,
    ) -> Result<Caller, AuthError> {
        assert_eq!((source.server(), source.address()), ("ssh", Some([127, 0, 0, 1].into())));
        let known = match &credentials {
            Credentials::PublicKey { user, key, .. } => {
                (user.as_str(), key) == ("CORP\\dora", &self.key)
                    && !self.is_out.load(Ordering::Relaxed)
            }
            Credentials::Password { user, password, .. } => {
                (user.as_str(), password.expose()) == ("CORP\\dora", "open sesame")
            }
            _ => panic!("nothing else is shown over SSH: {credentials:?}"),
        };
        let dora = Caller::new("dora").expect("a name").with(Scope::Execute);
        if known { Ok(dora) } else { Err(AuthError::Invalid) }
    }

    fn accepts(&self, kind: CredentialKind) -> bool {
        kind == CredentialKind::PublicKey || kind == CredentialKind::Password
    }
}

#[tokio::test]
async fn an_authenticator_lets_in_whom_the_files_do_not_know() {
    static USERS: OnceLock<Users> = OnceLock::new();
    let doras = key();
    let directory = Directory { key: public(&doras).trim().to_owned(), is_out: Arc::default() };
    let users = Users::new().authenticator(directory.clone());
    let users = USERS.get_or_init(|| users);
    let mine = |_: Users, dir: &Path| {
        let users = USERS.get().expect("set").clone();
        users.authorized_keys(dir.join("keys"))
    };
    let server = TestServer::with(Setup { users: mine, ..Setup::default() }).await;

    // By the files, as before, and by what the authenticator knows.
    let alice = server.login().await;
    assert_eq!(alice.run("echo hello").await.told().0, "hello\n");
    let mut dora = server.login_as("CORP\\dora", &doras).await;
    assert_eq!(dora.run("echo hello").await.told().0, "hello\n");
    let mut by_password = server.connect().await;
    let told = by_password.handle.authenticate_password("CORP\\dora", "open sesame").await;
    assert!(told.expect("answered").success());
    // Whoever the authenticator says that she is.
    let mut running = dora.start("sh -c 'echo; exec sleep 600'").await;
    running.line().await;
    let caller = Caller::new("dora").expect("a name").with(Scope::Execute);
    assert_eq!(server.engine.executions(&caller).expect("may ask").len(), 1);

    for (user, key) in [("CORP\\dora", &key()), ("bob", &doras)] {
        assert!(!server.connect().await.shows(user, key).await, "{user}");
    }
    let mut wrong = server.connect().await;
    let told = wrong.handle.authenticate_password("CORP\\dora", "wrong").await;
    assert!(!told.expect("answered").success());

    // It is asked again, about keys.
    directory.is_out.store(true, Ordering::Relaxed);
    users.recheck();
    assert!(dora.over().await.contains("taken back"));
    assert_eq!(by_password.run("echo still").await.told().0, "still\n");
    assert_eq!(alice.run("echo still").await.told().0, "still\n");
}
