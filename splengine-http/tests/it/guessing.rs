use std::net::SocketAddr;

use splengine_core::auth::{
    AuthError, Authenticator, CredentialKind, CredentialSource, Credentials,
};
use splengine_core::{Caller, Engine, LocalExecutor};
use splengine_http::HttpServer;
use tokio::net::TcpSocket;

use crate::client::Connection;
use crate::support::{JSON, TOKEN, server};

/// `alice:correct-horse`, as RFC 7617 writes it.
const BASIC: &str = "Authorization: Basic YWxpY2U6Y29ycmVjdC1ob3JzZQ==";

/// A connection from another address of this host.
async fn from(address: [u8; 4], to: SocketAddr) -> Connection {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from((address, 0))).expect("bound");
    Connection::over(socket.connect(to).await.expect("connects"))
}

#[tokio::test]
async fn who_guesses_tokens_is_blocked() {
    let server = server().await;
    let body = br#"{"command":"echo"}"#;
    let mut before = server.connect().await;
    before.post("/execute", &[TOKEN, JSON], body).await;
    assert_eq!(before.response().await.status, 200);
    let mut refused = None;
    let mut guesses = 0;
    while refused.is_none() && guesses < 50 {
        let guess = format!("Authorization: Bearer guess-{guesses}-of-some-length");
        let answer = server.post("/execute", &[&guess, JSON], body).await;
        match answer.status {
            401 => guesses += 1,
            _ => refused = Some(answer),
        }
    }
    let detail = refused.expect("refused at some time").problem(429);
    assert!(detail.contains("not valid") && !detail.contains("guess"), "{detail}");
    assert!((5..20).contains(&guesses), "{guesses}");
    server.post("/execute", &[TOKEN, JSON], body).await.problem(429);
    assert_eq!(server.get("/health").await.status, 200, "which nobody needs to log in for");
    before.post("/execute", &[TOKEN, JSON], body).await;
    assert_eq!(before.response().await.status, 200, "it had shown what is right before");
    let mut other = from([127, 0, 0, 9], server.addr).await;
    other.post("/execute", &[TOKEN, JSON], body).await;
    assert_eq!(other.response().await.status, 200);
    let metrics = server.get("/metrics").await;
    let failures =
        format!("splengine_authentication_failures_total{{server=\"http\"}} {guesses}\n");
    for line in [&failures, "authentications_refused_total 2\n", "blocked_addresses 1\n"] {
        assert!(metrics.text().contains(line), "{line}: {}", metrics.text());
    }
}

#[tokio::test]
async fn a_password_is_neither_taken_nor_counted_where_tokens_are() {
    let server = server().await;
    let body = br#"{"command":"echo"}"#;
    for _ in 0..50 {
        let detail = server.post("/execute", &[BASIC, JSON], body).await.problem(401);
        assert!(detail.contains("Bearer TOKEN"), "{detail}");
    }
    assert_eq!(server.post("/execute", &[TOKEN, JSON], body).await.status, 200);
    assert!(server.engine.stats().authentication_failures.is_empty());
}

#[tokio::test]
async fn a_password_lets_in_whom_an_authenticator_knows_by_it() {
    struct Directory;
    impl Authenticator for Directory {
        async fn authenticate(
            &self,
            credentials: Credentials,
            source: &CredentialSource,
        ) -> Result<Caller, AuthError> {
            assert_eq!((source.server(), source.address()), ("http", Some([127, 0, 0, 1].into())));
            let Credentials::Password { user, password, .. } = credentials else {
                return Err(AuthError::Missing);
            };
            if (user.as_str(), password.expose()) != ("alice", "correct-horse") {
                return Err(AuthError::Invalid);
            }
            Ok(Caller::new(&user).map_err(|_| AuthError::Invalid)?.with_all_scopes())
        }

        fn accepts(&self, kind: CredentialKind) -> bool {
            kind == CredentialKind::Password
        }
    }
    let root = tempfile::tempdir().expect("a directory");
    let executor = LocalExecutor::new(root.path()).expect("set up");
    let engine = Engine::builder(executor).build().expect("built");
    let server = HttpServer::builder(engine.clone()).authenticate(Directory).bind("127.0.0.1:0");
    let server = server.await.expect("bound");
    let addr = server.local_addr().tcp().expect("of TCP");
    tokio::spawn(server.run_until(std::future::pending()));
    let ask = async |credentials: &str| {
        let mut connection = from([127, 0, 0, 1], addr).await;
        let headers = [credentials, JSON];
        connection.post("/execute", &headers, br#"{"command":"echo hi"}"#).await;
        connection.response().await
    };
    assert_eq!(ask(BASIC).await.status, 200);
    ask("Authorization: Basic YWxpY2U6d3Jvbmc=").await.problem(401);
    ask(TOKEN).await.problem(401);
    // A token was not asked about.
    assert_eq!(engine.stats().authentication_failures, [("http", 1)]);
}
