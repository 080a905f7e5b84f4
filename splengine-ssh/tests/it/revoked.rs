//! Who is let in no longer while they are there.

use std::fs;
use std::sync::OnceLock;

use splengine_core::auth::{AccountList, Accounts, Scopes};
use splengine_ssh::Users;

use crate::support::{Setup, TestServer, key, until};

#[tokio::test]
async fn who_has_fewer_rights_is_sent_away() {
    static ACCOUNTS: OnceLock<Accounts> = OnceLock::new();
    let accounts = ACCOUNTS.get_or_init(|| Accounts::new(AccountList::new()));
    let users =
        |users: Users, _: &std::path::Path| users.accounts(ACCOUNTS.get().expect("set").clone());
    let server = TestServer::with(Setup { users, ..Setup::default() }).await;
    let mut alice = server.login().await;
    let bobs = server.new_user("bob", "");
    let bob = server.login_as("bob", &bobs).await;
    let mut running = alice.start("sh -c 'echo $$; exec sleep 600'").await;
    let pid = running.line().await;
    accounts.replace(AccountList::new().user("alice".parse().expect("a name"), Scopes::NONE));
    assert!(alice.over().await.contains("taken back"));
    crate::support::gone(&pid).await;
    assert_eq!(bob.run("echo still").await.told().0, "still\n");
    // She may log in, and do nothing.
    let alice = server.login().await;
    assert_eq!(alice.run("echo no").await.told().2, "255");
}

#[tokio::test]
async fn who_would_be_let_in_no_longer_is_sent_away_when_asked_again() {
    static USERS: OnceLock<Users> = OnceLock::new();
    let users = |users: Users, _: &std::path::Path| USERS.get_or_init(|| users).clone();
    let server = TestServer::with(Setup { users, ..Setup::default() }).await;
    let users = USERS.get().expect("set");
    let [bobs, carols, daves] = [("bob", ""), ("carol", "no-pty"), ("dave", "")]
        .map(|(user, options)| server.new_user(user, options));
    let alice = server.login().await;
    let mut bob = server.login_as("bob", &bobs).await;
    let mut carol = server.login_as("carol", &carols).await;
    let dave = server.login_as("dave", &daves).await;
    // Another key, other terms, and a file that nobody can trust.
    server.let_in("bob", &key(), "");
    server.let_in("carol", &carols, "command=\"echo forced\"");
    server.let_in("dave", &key(), "");
    let file = server.root().parent().expect("a directory").join("keys/dave");
    let mode = std::os::unix::fs::PermissionsExt::from_mode;
    fs::set_permissions(&file, mode(0o666)).expect("set");
    assert_eq!(bob.run("echo still").await.told().0, "still\n", "until it is asked");
    users.recheck();
    assert!(bob.over().await.contains("taken back"));
    assert!(carol.over().await.contains("taken back"));
    for client in [&alice, &dave] {
        assert_eq!(client.run("echo still").await.told().0, "still\n");
    }
    // And the next time, once it can be read again.
    fs::set_permissions(&file, mode(0o600)).expect("set");
    users.recheck();
    until("dave is gone", || dave.handle.is_closed()).await;
    assert_eq!(alice.run("echo still").await.told().0, "still\n");
}
