//! Lines of the log that clients cause, which are bounded.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{DefaultGuard, set_default};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::support::{Client, TestServer, key};

/// How often the log says what, from [`Log::begin`] on, of what is done on this thread.
#[derive(Clone, Default)]
struct Counted(Arc<Mutex<BTreeMap<String, u64>>>);

struct Log {
    begun: Instant,
    counted: Counted,
    _guard: DefaultGuard,
}

impl Log {
    fn begin() -> Self {
        let counted = Counted::default();
        Self { begun: Instant::now(), _guard: set_default(counted.clone()), counted }
    }

    /// How many lines begin so.
    fn lines(&self, beginning: &str) -> u64 {
        let counted = self.counted.0.lock().unwrap_or_else(PoisonError::into_inner);
        let those = counted.iter().filter(|(message, _)| message.starts_with(beginning));
        those.map(|(_, count)| count).sum()
    }

    /// `most` lines in each ten seconds.
    fn most(&self, most: u64) -> u64 {
        most * (1 + self.begun.elapsed().as_secs() / 10)
    }
}

impl Subscriber for Counted {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::INFO
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        struct Message(String);
        impl Visit for Message {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counted.entry(message.0).or_default() += 1;
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn clients_without_a_common_algorithm_do_not_fill_the_log() {
    let log = Log::begin();
    let server = TestServer::open().await;
    for _ in 0..40 {
        let preferred = russh::Preferred {
            kex: vec![russh::kex::DH_G14_SHA1].into(),
            ..russh::Preferred::default()
        };
        let config = russh::client::Config { preferred, ..russh::client::Config::default() };
        assert!(Client::begin(config, server.socket().await).await.is_err());
    }
    let line = "a client has no algorithm in common";
    crate::support::until("some are logged", || log.lines(line) > 0).await;
    // The end of each connection is its own task's.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert!(log.lines(line) <= log.most(20), "{}", log.lines(line));
}

#[tokio::test]
async fn keys_that_are_refused_do_not_fill_the_log() {
    let log = Log::begin();
    let server = TestServer::open().await;
    let stranger = key();
    let mut clients = tokio::task::JoinSet::new();
    for last in 1..=30 {
        let (stream, stranger) = (server.socket_from([127, 0, 9, last]).await, stranger.clone());
        clients.spawn(async move {
            let config = russh::client::Config::default();
            let mut client = Client::begin(config, stream).await.expect("a handshake");
            assert!(!client.shows("alice", &stranger).await);
        });
    }
    clients.join_all().await;
    let lines = log.lines("refused over SSH");
    assert!(lines > 0 && lines <= log.most(20), "{lines}");
    assert!(server.login().await.run("true").await.exit.is_some());
}

#[tokio::test]
async fn forwardings_that_are_refused_do_not_fill_the_log() {
    let log = Log::begin();
    let server = TestServer::open().await;
    let bob = server.new_user("bob", "");
    let client = server.login().await;
    for port in 1..=30 {
        let opened = client.handle.channel_open_direct_tcpip("127.0.0.1", port, "127.0.0.1", 1);
        assert!(opened.await.is_err());
    }
    // A new connection begins with no lines of its own.
    let again = server.login().await;
    let channel = again.channel().await;
    for _ in 0..10 {
        channel.agent_forward(true).await.expect("sent");
    }
    let line = "a forwarding is refused";
    let lines = log.lines(line);
    assert!(lines > 0 && lines <= log.most(20), "{lines}");
    // Others have lines of their own.
    let other = server.login_as("bob", &bob).await;
    let opened = other.handle.channel_open_direct_tcpip("127.0.0.1", 1, "127.0.0.1", 1);
    assert!(opened.await.is_err());
    assert!(log.lines(line) > lines);
}

#[tokio::test]
async fn channels_do_not_fill_the_log() {
    let log = Log::begin();
    let server = TestServer::open().await;
    let client = server.login().await;
    for _ in 0..220 {
        let channel = client.channel().await;
        channel.request_subsystem(true, "sftp").await.expect("sent");
        channel.close().await.expect("sent");
    }
    assert!(client.run("true").await.exit.is_some());
    let lines = log.lines("a channel begins");
    assert!(lines > 0 && lines <= log.most(200), "{lines}");
    let ends = log.lines("a channel has ended") + log.lines("a channel's client is gone");
    assert!(ends <= lines, "{ends} of {lines}");
}
