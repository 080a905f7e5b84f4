//! Whose credentials are taken back while they are being answered.

use serde_json::json;
use splengine_core::auth::{AccountList, Accounts, Scopes, Secret, TokenHash};

use crate::support::*;

fn alice_and_carol() -> AccountList {
    let mut list = AccountList::new();
    for (token, name) in [("alices-very-long-token", "alice"), ("carols-very-long-token", "carol")]
    {
        let hash = TokenHash::of(&Secret::new(token)).expect("well-formed");
        list.token(hash, name.parse().expect("a name"), Scopes::ALL).expect("taken");
    }
    list
}

#[tokio::test]
async fn what_is_answered_to_a_revoked_caller_ends() {
    let accounts = Accounts::new(alice_and_carol());
    let given = accounts.clone();
    let server = server_with(|engine| engine, |http| http.authenticate(given)).await;
    let script = |file: &str| sh(&format!("touch {file}; exec sleep 600")).to_string();
    let ndjson = "Accept: application/x-ndjson";
    // One that has begun to be answered, one that waits, and one of somebody else.
    let mut streamed = server.connect().await;
    streamed.post("/execute", &[TOKEN, JSON, ndjson], script("a").as_bytes()).await;
    assert_eq!(streamed.head().await.0, 200);
    let mut waiting = server.connect().await;
    waiting.post("/execute", &[TOKEN, JSON], script("b").as_bytes()).await;
    let carol = "Authorization: Bearer carols-very-long-token";
    let mut others = server.connect().await;
    others.post("/execute", &[carol, JSON, ndjson], script("c").as_bytes()).await;
    assert_eq!(others.head().await.0, 200);
    let all = ["a", "b", "c"].map(|name| server.root.path().join(name));
    eventually("they run", || all.iter().all(|file| file.exists())).await;
    assert_eq!(server.engine.stats().running, 3);

    let hash = TokenHash::of(&Secret::new("carols-very-long-token")).expect("well-formed");
    let mut list = AccountList::new();
    list.token(hash, "carol".parse().expect("a name"), Scopes::ALL).expect("taken");
    assert_eq!(accounts.replace(list), 1);

    // A stream without an end record is no success, and neither is it whole.
    let rest = streamed.rest().await;
    assert!(!rest.contains("\"exit\"") && !rest.ends_with("0\r\n\r\n"), "{rest}");
    let answer = waiting.response().await;
    assert!(answer.problem(401).contains("taken back"), "{}", answer.text());
    eventually("what they ran is over", || server.engine.stats().running == 1).await;
    assert_eq!(server.execute(&json!({"command": "true"})).await.status, 401);
    let answer = server.post("/execute", &[carol, JSON], b"{\"command\": \"true\"}").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn what_is_watched_by_a_revoked_caller_is_watched_no_longer() {
    let accounts = Accounts::new(alice_and_carol());
    let given = accounts.clone();
    let root = tempfile::tempdir().expect("a directory");
    let policy = splengine_core::files::FilePolicy::new().root(root.path());
    let server = server_with(|engine| engine.files(policy), |http| http.authenticate(given)).await;
    let mut watching = server.connect().await;
    let request =
        format!("GET /api/v1/files/?watch=true HTTP/1.1\r\nHost: test\r\n{TOKEN}\r\n\r\n");
    watching.send(request.as_bytes()).await;
    assert_eq!(watching.head().await.0, 200);
    accounts.replace(AccountList::new());
    let rest = watching.rest().await;
    assert!(!rest.ends_with("0\r\n\r\n"), "{rest}");
}
