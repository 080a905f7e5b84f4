use splengine_avro::AvroServer;
use splengine_core::auth::{Secret, StaticTokens};
use splengine_core::{Caller, Engine};
use tokio::net::TcpStream;

use crate::client::{Actor, Client, execute, with_token};

/// A call that shows `token`.
fn shown(token: &str) -> Vec<u8> {
    with_token(&execute("word"), token)
}

#[tokio::test]
async fn who_guesses_tokens_is_blocked() {
    let engine = Engine::builder(Actor).build().expect("built");
    let mut tokens = StaticTokens::new();
    let alice = Caller::new("alice").expect("a name").with_all_scopes();
    tokens.insert(&Secret::new("alices-very-long-token"), alice).expect("long enough");
    let builder = AvroServer::builder(engine.clone()).authenticate(tokens);
    let server = builder.bind("127.0.0.1:0").await.expect("bound");
    let addr = server.local_addr().tcp().expect("of TCP");
    tokio::spawn(server.run_until(std::future::pending()));
    let connect = async || {
        let mut client = Client::new(TcpStream::connect(addr).await.expect("connects"));
        client.shake_hands().await;
        client
    };
    let mut before = connect().await;
    before.send(0, &shown("alices-very-long-token")).await;
    assert_eq!(before.result().await.1.stdout, "word");
    let mut guesser = connect().await;
    let mut guesses = 0;
    let refused = loop {
        guesser.send(guesses, &shown(&format!("guess-{guesses}-of-some-length"))).await;
        let answer = String::from_utf8_lossy(&guesser.answer().await.1).into_owned();
        if !answer.contains("UNAUTHENTICATED") {
            break answer;
        }
        guesses += 1;
        assert!(guesses < 50, "never refused");
    };
    assert!(refused.contains("RESOURCE_EXHAUSTED"), "{refused}");
    assert!(guesses >= 5, "{guesses}");
    let mut late = connect().await;
    late.send(0, &shown("alices-very-long-token")).await;
    let answer = late.answer().await.1;
    assert!(String::from_utf8_lossy(&answer).contains("RESOURCE_EXHAUSTED"));
    before.send(1, &shown("alices-very-long-token")).await;
    assert_eq!(before.result().await.1.stdout, "word");
    let failures = engine.stats().authentication_failures;
    assert_eq!(failures, [("avro", u64::from(guesses))]);
}
