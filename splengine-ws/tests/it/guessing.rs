use serde_json::json;

use crate::support::{ALICE, How, server};

#[tokio::test]
async fn who_guesses_is_blocked_at_login_upgrade_and_first_frame() {
    let server = server().await;
    let own = format!("http://{}", server.addr);
    let mut guesses = 0;
    let refused = loop {
        let body = json!({"token": format!("guess-{guesses}-of-some-length")}).to_string();
        let answer = server.http("POST /login HTTP/1.1", &body).await;
        if !answer.starts_with("HTTP/1.1 401") {
            break answer;
        }
        guesses += 1;
        assert!(guesses < 50, "never refused");
    };
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    assert!(refused.contains("retry-after: ") && !refused.contains("guess-"), "{refused}");
    assert!(guesses >= 5, "{guesses}");
    assert_eq!(server.refusal(&[("authorization", ALICE)]).await, 429);
    let headers = [("origin", own.as_str())];
    let mut client = server.open(How { headers: &headers, ..How::default() }).await.expect("opens");
    client.send(json!({"type": "hello", "ticket": "ticket-wrong"})).await;
    assert_eq!(client.frame("error").await["code"], "throttled");
    assert_eq!(client.closed().await, 4429);
    let failures = server.engine.stats().authentication_failures;
    assert_eq!(failures, [("ws", guesses)]);
    assert!(server.http("GET /me HTTP/1.1", "").await.starts_with("HTTP/1.1 401"));
}

#[tokio::test]
async fn tickets_are_guessed_no_faster() {
    let server = server().await;
    let own = format!("http://{}", server.addr);
    let headers = [("origin", own.as_str())];
    for guess in 0..50 {
        let how = How { headers: &headers, ..How::default() };
        let mut client = server.open(how).await.expect("opens");
        client.send(json!({"type": "hello", "ticket": format!("ticket-{guess}")})).await;
        match client.closed().await {
            4401 => {}
            4429 => {
                assert!(guess >= 5, "{guess}");
                return;
            }
            other => panic!("{other}"),
        }
    }
    panic!("never refused");
}
