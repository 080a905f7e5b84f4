use russh::client::AuthResult;

use crate::support::{Client, PATIENCE, Setup, TestServer, key, until};
use crate::users::with_passwords;

#[tokio::test]
async fn who_guesses_passwords_is_blocked() {
    let server = TestServer::with(Setup { users: with_passwords, ..Setup::default() }).await;
    let before = server.login().await;
    let mut guesses = 0;
    'connections: for _ in 0..20 {
        let Ok(mut client) = Client::begin(Default::default(), server.socket().await).await else {
            break;
        };
        for _ in 0..3 {
            let guess = format!("guess-{guesses}");
            let told = client.handle.authenticate_password("bob", guess);
            let Ok(Ok(told)) = tokio::time::timeout(PATIENCE, told).await else {
                continue 'connections;
            };
            assert!(matches!(told, AuthResult::Failure { .. }));
            guesses += 1;
        }
    }
    assert!((5..20).contains(&guesses), "{guesses}");
    let late = Client::begin(Default::default(), server.socket().await).await;
    assert!(late.is_err(), "whatever it would show");
    assert_eq!(before.run("echo in").await.told().0, "in\n", "who is in stays");
    let stats = server.engine.stats();
    assert_eq!(stats.blocked_addresses, 1);
    assert!(stats.authentications_refused > 0);
}

#[tokio::test]
async fn keys_that_are_offered_first_are_no_failures() {
    let server = TestServer::open().await;
    for _ in 0..10 {
        let mut client = server.connect().await;
        for _ in 0..3 {
            assert!(!client.shows("alice", &key()).await);
        }
        assert!(client.shows("alice", &server.key).await);
    }
    assert!(server.engine.stats().authentication_failures.is_empty());
    // A login that fails as a whole is one.
    let mut client = server.connect().await;
    assert!(!client.shows("alice", &key()).await);
    drop(client);
    let failures = || server.engine.stats().authentication_failures;
    until("it is counted", || failures() == [("ssh", 1)]).await;
    // Who asks for the key of the server alone has tried nothing.
    drop(server.connect().await);
    drop(server.login().await);
    assert_eq!(failures(), [("ssh", 1)]);
}
