//! The parsing of protocols that are not known yet, which takes time and memory that nobody has shown
//! credentials for: off the runtime's workers, few at a time, one at a time of each caller or address.

use std::sync::Arc;
use std::time::Duration;

use splengine_core::UserName;
use splengine_core::auth::Network;
use splengine_core::quota::{KeyedPermit, KeyedSemaphore, KeyedSemaphoreError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::peer_protocols::{ClientProtocol, Clients};
use crate::protocol::Hash;

/// Where protocols wait to be parsed, of all connections of a server.
#[derive(Debug)]
pub(crate) struct ParseQueue {
    clients: Arc<Clients>,
    unauthenticated: Turns<Network>,
    authenticated: Turns<UserName>,
}

/// Whose protocol is parsed.
#[derive(Debug, Clone)]
pub(crate) enum ParseKey {
    /// Of a client that was not authenticated before.
    Network(Network),
    User(UserName),
}

/// Turns of each key, and of all of them.
#[derive(Debug)]
struct Turns<K> {
    of_key: KeyedSemaphore<K>,
    permits: Arc<Semaphore>,
}

impl ParseQueue {
    pub(crate) fn new(clients: Arc<Clients>) -> Self {
        Self { clients, unauthenticated: Turns::new(), authenticated: Turns::new() }
    }

    /// Parses a protocol once it is its turn: of each `key` one at a time. Others are then known by it, too.
    ///
    /// # Errors
    ///
    /// For people: when it is not its turn within `wait`, or too many wait already.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, so is the place in the queue; what is being parsed holds its
    /// permit to the end.
    pub(crate) async fn parse(
        &self,
        key: ParseKey,
        hash: Hash,
        text: String,
        wait: Duration,
    ) -> Result<Arc<ClientProtocol>, String> {
        match key {
            ParseKey::Network(network) => {
                let turn =
                    self.unauthenticated.turn(network.site(), "from your address", wait).await?;
                self.parse_now(turn, hash, text, None).await
            }
            ParseKey::User(user) => {
                let turn = self.authenticated.turn(user.clone(), "of yours", wait).await?;
                self.parse_now(turn, hash, text, Some(user)).await
            }
        }
    }

    async fn parse_now<T: Send + 'static>(
        &self,
        turn: T,
        hash: Hash,
        text: String,
        user: Option<UserName>,
    ) -> Result<Arc<ClientProtocol>, String> {
        // Another may have brought the same meanwhile.
        if let Some(known) = self.clients.get(&hash) {
            return Ok(known);
        }
        let parsed = tokio::task::spawn_blocking(move || {
            let protocol = ClientProtocol::new(&text);
            drop(turn);
            protocol
        });
        let protocol = match parsed.await {
            Ok(protocol) => Arc::new(protocol),
            Err(error) => {
                tracing::error!(%error, "a client's protocol was not parsed");
                Arc::new(ClientProtocol::refused(hash, "the engine failed to parse it"))
            }
        };
        self.clients.add(Arc::clone(&protocol), user);
        Ok(protocol)
    }
}

impl<K: std::hash::Hash + Eq + Clone> Turns<K> {
    fn new() -> Self {
        let of_key = KeyedSemaphore::bounded(1, MAX_WAITING_PER_KEY, MAX_WAITING);
        Self { of_key, permits: Arc::new(Semaphore::new(MAX_PARSING)) }
    }

    async fn turn(
        &self,
        key: K,
        whose: &str,
        wait: Duration,
    ) -> Result<(OwnedSemaphorePermit, KeyedPermit<K>), String> {
        let mut turn = self.of_key.enter(key).map_err(|error| {
            let of = if let KeyedSemaphoreError::OfKey { .. } = error { whose } else { "in all" };
            format!("too many others {of} wait to be parsed; try again later")
        })?;
        let turns = async {
            turn.wait().await;
            Arc::clone(&self.permits).acquire_owned().await.ok()
        };
        match timeout(wait, turns).await {
            Ok(Some(permit)) => Ok((permit, turn)),
            _ => Err("others were parsed for too long; try again later".to_owned()),
        }
    }
}

/// Maximum number of protocols that are parsed at once, of unauthenticated clients, and of others.
const MAX_PARSING: usize = 1;
/// Maximum number of protocols that wait or are parsed, of one address or caller.
const MAX_WAITING_PER_KEY: usize = 128;
/// Maximum number of protocols that wait or are parsed, of unauthenticated clients in all, and of others.
const MAX_WAITING: usize = 512;

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::protocol::hash_of;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(60);
    const TEXT: &str = r#"{"protocol": "P"}"#;

    fn queue() -> ParseQueue {
        ParseQueue::new(Arc::new(Clients::new()))
    }

    fn network(last: u8) -> Network {
        Network::Ip(IpAddr::from([192, 0, 2, last]))
    }

    impl From<Network> for ParseKey {
        fn from(network: Network) -> Self {
            Self::Network(network)
        }
    }

    fn user(name: &str) -> ParseKey {
        ParseKey::User(name.parse().expect("a user name"))
    }

    async fn parse(
        queue: &ParseQueue,
        key: impl Into<ParseKey>,
        wait: Duration,
    ) -> Result<Arc<ClientProtocol>, String> {
        queue.parse(key.into(), hash_of(TEXT), TEXT.to_owned(), wait).await
    }

    #[tokio::test]
    async fn who_waits_is_served_once_it_is_its_turn() {
        let queue = queue();
        let permits = Arc::clone(&queue.unauthenticated.permits);
        let busy = permits.acquire_owned().await.expect("it is open");
        let problem = parse(&queue, network(1), SHORT).await.expect_err("another is parsed");
        assert!(problem.contains("too long"), "{problem}");
        parse(&queue, user("alice"), LONG).await.expect("the turns of callers are apart");
        queue.clients.remove(&hash_of(TEXT));
        let waiting = parse(&queue, network(1), LONG);
        let mut waiting = std::pin::pin!(waiting);
        assert!(timeout(SHORT, &mut waiting).await.is_err());
        drop(busy);
        waiting.await.expect("its turn");
        assert_eq!(queue.unauthenticated.of_key.count(), 0);
    }

    #[tokio::test]
    async fn of_an_address_or_a_caller_one_is_parsed_at_a_time() {
        let queue = queue();
        let mut first = queue.unauthenticated.of_key.enter(network(1)).expect("free");
        first.wait().await;
        let alice = "alice".parse().expect("a user name");
        let mut alices = queue.authenticated.of_key.enter(alice).expect("free");
        alices.wait().await;
        parse(&queue, user("alice"), SHORT).await.expect_err("another of hers is parsed");
        parse(&queue, network(1), SHORT).await.expect_err("another of its address is parsed");
        parse(&queue, network(2), LONG).await.expect("another address");
        parse(&queue, user("bob"), LONG).await.expect("another caller");
        drop(first);
        parse(&queue, network(1), LONG).await.expect("its turn");
    }

    #[tokio::test]
    async fn only_so_many_wait() {
        let queue = queue();
        let places = |last, count: usize| -> Vec<_> {
            let of_key = &queue.unauthenticated.of_key;
            (0..count).map(|_| of_key.enter(network(last)).expect("there is room")).collect()
        };
        let mut all = vec![places(1, MAX_WAITING_PER_KEY)];
        let problem = parse(&queue, network(1), LONG).await.expect_err("no more of these");
        assert!(problem.contains("from your address"), "{problem}");
        parse(&queue, network(2), LONG).await.expect("another address");
        for last in 2..=(MAX_WAITING / MAX_WAITING_PER_KEY) as u8 {
            all.push(places(last, MAX_WAITING_PER_KEY));
        }
        let problem = parse(&queue, network(99), LONG).await.expect_err("no more at all");
        assert!(problem.contains("in all"), "{problem}");
        parse(&queue, user("alice"), LONG).await.expect("an authenticated client");
        drop(all);
        assert_eq!(queue.unauthenticated.of_key.count(), 0);
    }
}
