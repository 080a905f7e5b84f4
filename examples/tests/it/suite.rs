//! The conformance suite of servers, run on each of them by a client of its protocol.

mod avro;
mod http;
mod ssh;
mod text;
mod ws;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use splengine_avro::AvroServer;
use splengine_core::auth::SharedAuthenticator;
use splengine_core::net::{ListenAddr, Listener, Server, bind};
use splengine_core::testing::conformance::ServerCheck::{self, *};
use splengine_core::testing::conformance::{
    ClientError, Outcome, ServerClient, ServerReport, ServerSetup, ServerSuite, ServerViolation,
    TestUser,
};
use splengine_http::HttpServer;
use splengine_ssh::{HostKeys, SshServer};
use splengine_ws::WsServer;
use tokio::net::TcpListener;

use self::avro::AvroClient;
use self::http::HttpClient;
use self::ssh::SshClient;
use self::text::TextClient;
use self::ws::WsClient;
use custom_adapter::TextServer;

#[path = "../../custom_adapter.rs"]
#[expect(dead_code, reason = "its `main` is for the example")]
mod custom_adapter;
#[path = "../../embed_in_axum.rs"]
#[expect(dead_code, reason = "its `main` is for the example")]
mod embed_in_axum;

/// What a server passed all other checks than.
fn skipped(report: Result<ServerReport, ServerViolation>) -> Vec<ServerCheck> {
    report.unwrap_or_else(|violation| panic!("{violation}")).skipped
}

/// The header of HTTP with a user's token.
fn bearer(user: TestUser) -> Option<String> {
    Some(
        user.token().map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n")),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn http() {
    let dir = tempfile::tempdir().expect("a directory");
    let suite = ServerSuite::new(dir.path(), async |setup: ServerSetup| {
        let server = HttpServer::builder(setup.engine).authenticate(setup.users);
        let server = server.bind("127.0.0.1:0").await?.connection_limits(setup.connections);
        let client = HttpClient { addr: server.local_addr(), prefix: "", login: bearer };
        Ok((server, client))
    });
    assert_eq!(skipped(suite.run().await), [Terminal]);
}

#[tokio::test(flavor = "multi_thread")]
async fn http_on_a_unix_socket() {
    let dir = tempfile::tempdir().expect("a directory");
    // The server of one check may still be ending when that of the next is opened.
    let count = AtomicUsize::new(0);
    let suite = ServerSuite::new(dir.path(), async |setup: ServerSetup| {
        let server = HttpServer::builder(setup.engine).authenticate(setup.users);
        let path = dir.path().join(format!("{}.sock", count.fetch_add(1, Relaxed)));
        let listener = Listener::bind_unix(&path, 0o600).await?;
        let server = server.listen(listener)?.connection_limits(setup.connections);
        let client = HttpClient { addr: server.local_addr(), prefix: "", login: bearer };
        Ok((server, client))
    });
    assert_eq!(skipped(suite.run().await), [Terminal]);
}

#[tokio::test(flavor = "multi_thread")]
async fn websocket() {
    let dir = tempfile::tempdir().expect("a directory");
    let suite = ServerSuite::new(dir.path(), async |setup: ServerSetup| {
        let server = WsServer::builder(setup.engine).authenticate(setup.users);
        let server = server.bind("127.0.0.1:0").await?.connection_limits(setup.connections);
        let client = WsClient {
            addr: server.local_addr().tcp().expect("TCP"),
            path: "/terminal",
            login: bearer,
        };
        Ok((server, client))
    });
    let made = [Unauthenticated, MissingScope, Connections, Terminal];
    let others = ServerCheck::ALL.iter().copied().filter(|check| !made.contains(check));
    assert_eq!(skipped(suite.run().await), others.collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn avro() {
    let dir = tempfile::tempdir().expect("a directory");
    let suite = ServerSuite::new(dir.path(), async |setup: ServerSetup| {
        let server = AvroServer::builder(setup.engine).authenticate(setup.users);
        let server = server.bind("127.0.0.1:0").await?.connection_limits(setup.connections);
        let client = AvroClient(server.local_addr().tcp().expect("TCP"));
        Ok((server, client))
    });
    assert_eq!(skipped(suite.run().await), [Terminal]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh() {
    let dir = tempfile::tempdir().expect("a directory");
    let host = HostKeys::open_or_create(dir.path().join("host_key")).expect("made");
    let suite = ServerSuite::new(dir.path(), async |setup: ServerSetup| {
        // The time to log in is a setting of its own.
        let server = SshServer::builder(setup.engine)
            .authenticate(setup.users)
            .connection_limits(setup.connections)
            .login_grace(Duration::from_secs(10));
        let server = server.bind("127.0.0.1:0", &host).await?;
        let client = SshClient(server.local_addr().tcp().expect("TCP"));
        Ok((server, client))
    });
    assert_eq!(skipped(suite.run().await), [Batch]);
}

#[tokio::test(flavor = "multi_thread")]
async fn custom_adapter() {
    let dir = tempfile::tempdir().expect("a directory");
    let suite = ServerSuite::new(dir.path(), async |setup: ServerSetup| {
        let (listener, local_addr) = bind("127.0.0.1:0").await?;
        let users = SharedAuthenticator::new(setup.users);
        let (engine, limits) = (setup.engine, setup.connections);
        let server = TextServer { listener, local_addr, engine, users, limits };
        Ok((server, TextClient(local_addr)))
    });
    assert_eq!(skipped(suite.run().await), [Terminal, Files, Batch]);
}

/// An application of axum, as a server.
struct Application {
    listener: TcpListener,
    local_addr: SocketAddr,
    router: axum::Router,
}

impl Server for Application {
    fn local_addr(&self) -> ListenAddr {
        self.local_addr.into()
    }

    async fn run_until(self, shutdown: impl Future<Output = ()> + Send + 'static) {
        let serving = axum::serve(self.listener, self.router).with_graceful_shutdown(shutdown);
        serving.await.expect("it never fails");
    }
}

/// A client of an application that lets in by cookies, and knows all users that have names.
struct ApplicationClient {
    http: HttpClient,
    ws: WsClient,
}

impl ServerClient for ApplicationClient {
    async fn execute(
        &self,
        user: TestUser,
        argv: &[&str],
        stdin: &[u8],
    ) -> Result<Outcome, ClientError> {
        self.http.execute(user, argv, stdin).await
    }

    async fn terminal(&self, user: TestUser, input: &str) -> Result<Outcome, ClientError> {
        self.ws.terminal(user, input).await
    }

    async fn batch(&self, user: TestUser, steps: &[&[&str]]) -> Result<Outcome, ClientError> {
        self.http.batch(user, steps).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_in_axum() {
    let login = |user| match user {
        TestUser::Alice | TestUser::Bob => Some(format!("Cookie: login={}\r\n", user.name())),
        TestUser::Anonymous => Some(String::new()),
        _ => None,
    };
    let dir = tempfile::tempdir().expect("a directory");
    let suite = ServerSuite::new(dir.path(), async |setup: ServerSetup| {
        let (listener, local_addr) = bind("127.0.0.1:0").await?;
        let router = embed_in_axum::app(&setup.engine);
        let http = HttpClient { addr: local_addr.into(), prefix: "/spl", login };
        let ws = WsClient { addr: local_addr, path: "/spl/ws/terminal", login };
        Ok((Application { listener, local_addr, router }, ApplicationClient { http, ws }))
    });
    // The application accepts the connections itself, and every user of it has the same rights.
    let report = suite.without(Connections).run().await;
    assert_eq!(skipped(report), [MissingScope, Connections, Files]);
}

#[test]
fn each_kind_has_a_code_in_the_custom_adapter() {
    use splengine_core::ErrorKind;
    for kind in ErrorKind::ALL {
        let may_succeed =
            matches!(kind, ErrorKind::Unavailable | ErrorKind::CallerLimit | ErrorKind::NoRoom);
        let codes = if may_succeed { 400..500 } else { 500..600 };
        assert!(codes.contains(&custom_adapter::code(*kind)), "{kind:?}");
    }
}
