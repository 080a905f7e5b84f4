//! Servers that are run and ended together.

use std::net::SocketAddr;
use std::time::Duration;

use splengine_core::engine::Servers;
use splengine_core::net::{ConnectionLimits, ListenAddr, Server, bind, serve_connections};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::support::{bench, sh};

/// Says a word to whoever connects.
struct Greeter {
    listener: TcpListener,
    local_addr: SocketAddr,
    word: &'static str,
}

impl Greeter {
    async fn open(word: &'static str) -> Self {
        let (listener, local_addr) = bind("127.0.0.1:0").await.expect("an address");
        Self { listener, local_addr, word }
    }
}

impl Server for Greeter {
    fn local_addr(&self) -> ListenAddr {
        self.local_addr.into()
    }

    async fn run_until(self, shutdown: impl Future<Output = ()> + Send + 'static) {
        let (limits, max_linger) = (ConnectionLimits::new(), Duration::from_secs(5));
        serve_connections(self.listener, limits, max_linger, shutdown, |mut connection, _| {
            let word = self.word;
            Some(async move { connection.write_all(word.as_bytes()).await })
        })
        .await;
    }
}

async fn greeting(address: SocketAddr) -> std::io::Result<String> {
    let mut heard = String::new();
    TcpStream::connect(address).await?.read_to_string(&mut heard).await?;
    Ok(heard)
}

#[tokio::test]
async fn servers_serve_until_the_engine_is_drained() {
    let bench = bench();
    let run = bench.start(sh("exec sleep 600")).await;
    let servers = Servers::new().add(Greeter::open("one").await).add(Greeter::open("two").await);
    let addresses = servers.local_addrs().map(|address| address.tcp().expect("of TCP"));
    let addresses: Vec<SocketAddr> = addresses.collect();
    let [one, two] = addresses[..] else { panic!("{addresses:?}") };

    let (signal, told) = oneshot::channel::<()>();
    let serving = tokio::spawn({
        let engine = bench.engine.clone();
        async move {
            let signal = async { drop(told.await) };
            servers.run_until(signal, &engine, Duration::from_secs(3600)).await;
        }
    });
    assert_eq!(greeting(one).await.expect("served"), "one");
    assert_eq!(greeting(two).await.expect("served"), "two");

    signal.send(()).expect("it is waited for");
    bench.engine.closed().await;
    // What runs has an hour, and clients are served for as long.
    assert_eq!(greeting(one).await.expect("served"), "one");
    assert!(!serving.is_finished());

    drop(run);
    timeout(Duration::from_secs(30), serving).await.expect("in time").expect("no panic");
    assert_eq!(bench.engine.stats().running, 0);
    for address in [one, two] {
        greeting(address).await.expect_err("nobody listens");
    }
}

#[tokio::test]
async fn servers_end_at_once_where_they_are_no_longer_run() {
    let bench = bench();
    let servers = Servers::new().add(Greeter::open("one").await);
    let one = servers.local_addrs().next().and_then(|address| address.tcp()).expect("it has one");
    {
        let pending = std::future::pending();
        let running = servers.run_until(pending, &bench.engine, Duration::ZERO);
        tokio::select! {
            () = running => panic!("nobody has told them to end"),
            heard = greeting(one) => assert_eq!(heard.expect("served"), "one"),
        }
    }
    // Their tasks are gone with the next turn of the runtime.
    let closed = async {
        while greeting(one).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(30), closed).await.expect("in time");
    assert!(bench.engine.is_open());
}

#[tokio::test]
#[should_panic(expected = "on purpose")]
async fn a_panic_of_a_server_is_not_lost() {
    struct Panics;

    impl Server for Panics {
        fn local_addr(&self) -> ListenAddr {
            ListenAddr::Tcp(([127, 0, 0, 1], 0).into())
        }

        async fn run_until(self, _: impl Future<Output = ()> + Send + 'static) {
            panic!("on purpose");
        }
    }

    let bench = bench();
    let pending = std::future::pending();
    Servers::new().add(Panics).run_until(pending, &bench.engine, Duration::ZERO).await;
}
