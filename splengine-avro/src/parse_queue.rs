//! The parsing of protocols that are not known yet, which takes time and memory that nobody has shown
//! credentials for: off the runtime's workers, few at a time, one at a time of each address.

use std::sync::Arc;
use std::time::Duration;

use splengine_core::auth::Network;
use splengine_core::quota::{KeyedTurn, KeyedTurns, KeyedTurnsError};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::peer_protocols::{ClientProtocol, Clients};
use crate::protocol::Hash;

/// Where protocols wait to be parsed, of all connections of a server.
#[derive(Debug)]
pub(crate) struct ParseQueue {
    clients: Arc<Clients>,
    permits: Arc<Semaphore>,
    unauthenticated: KeyedTurns<Network>,
    /// Of clients that were authenticated on their connections, each of which has one message at a time.
    authenticated: KeyedTurns<()>,
}

/// A protocol that waits, or is parsed.
enum Waiting {
    Unauthenticated(KeyedTurn<Network>),
    Authenticated { _turn: KeyedTurn<()> },
}

impl ParseQueue {
    pub(crate) fn new(clients: Arc<Clients>) -> Self {
        let permits = Arc::new(Semaphore::new(MAX_PARSING));
        let unauthenticated = KeyedTurns::bounded(1, MAX_WAITING_PER_ADDRESS, MAX_WAITING);
        let authenticated = KeyedTurns::bounded(MAX_WAITING, MAX_WAITING, MAX_WAITING);
        Self { clients, permits, unauthenticated, authenticated }
    }

    /// Parses a protocol once it is its turn: of each `network` one at a time; none is given of a client that was
    /// authenticated.
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
        network: Option<Network>,
        hash: Hash,
        text: String,
        wait: Duration,
    ) -> Result<Arc<ClientProtocol>, String> {
        let mut waiting = self.enter(network)?;
        let turns = async {
            if let Waiting::Unauthenticated(turn) = &mut waiting {
                turn.wait().await;
            }
            Arc::clone(&self.permits).acquire_owned().await.ok()
        };
        let Ok(permit) = timeout(wait, turns).await else {
            return Err("others were parsed for too long; try again later".to_owned());
        };
        // Another may have brought the same meanwhile.
        if let Some(known) = self.clients.get(&hash) {
            return Ok(known);
        }
        let parsed = tokio::task::spawn_blocking(move || {
            let protocol = ClientProtocol::new(&text);
            drop((permit, waiting));
            protocol
        });
        match parsed.await {
            Ok(protocol) => Ok(Arc::new(protocol)),
            Err(error) => {
                tracing::error!(%error, "a client's protocol was not parsed");
                Ok(Arc::new(ClientProtocol::refused(hash, "the engine failed to parse it")))
            }
        }
    }

    fn enter(&self, network: Option<Network>) -> Result<Waiting, String> {
        let entered = match network {
            None => self.authenticated.enter(()).map(|turn| Waiting::Authenticated { _turn: turn }),
            Some(network) => self.unauthenticated.enter(network).map(Waiting::Unauthenticated),
        };
        entered.map_err(|error| {
            let of = match error {
                KeyedTurnsError::OfKey { .. } if network.is_some() => "from your address",
                _ => "in all",
            };
            format!("too many others {of} wait to be parsed; try again later")
        })
    }
}

/// Maximum number of protocols that are parsed at once.
const MAX_PARSING: usize = 1;
/// Maximum number of protocols that wait or are parsed, of one address.
const MAX_WAITING_PER_ADDRESS: usize = 128;
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

    fn network(last: u8) -> Option<Network> {
        Some(Network::Ip(IpAddr::from([192, 0, 2, last])))
    }

    async fn parse(
        queue: &ParseQueue,
        network: Option<Network>,
        wait: Duration,
    ) -> Result<Arc<ClientProtocol>, String> {
        queue.parse(network, hash_of(TEXT), TEXT.to_owned(), wait).await
    }

    #[tokio::test]
    async fn who_waits_is_served_once_it_is_its_turn() {
        let queue = queue();
        let busy = Arc::clone(&queue.permits).acquire_owned().await.expect("it is open");
        let problem = parse(&queue, network(1), SHORT).await.expect_err("another is parsed");
        assert!(problem.contains("too long"), "{problem}");
        let waiting = parse(&queue, network(1), LONG);
        let mut waiting = std::pin::pin!(waiting);
        assert!(timeout(SHORT, &mut waiting).await.is_err());
        drop(busy);
        waiting.await.expect("its turn");
        assert_eq!(queue.unauthenticated.count(), 0);
    }

    #[tokio::test]
    async fn of_an_address_one_is_parsed_at_a_time() {
        let queue = queue();
        let mut first = queue.unauthenticated.enter(network(1).expect("an address")).expect("free");
        first.wait().await;
        parse(&queue, network(1), SHORT).await.expect_err("another of its address is parsed");
        parse(&queue, network(2), LONG).await.expect("another address");
        parse(&queue, None, LONG).await.expect("an authenticated client");
        drop(first);
        parse(&queue, network(1), LONG).await.expect("its turn");
    }

    #[tokio::test]
    async fn only_so_many_wait() {
        let queue = queue();
        let places = |last, count: usize| -> Vec<_> {
            (0..count).map(|_| queue.enter(network(last)).expect("there is room")).collect()
        };
        let mut all = vec![places(1, MAX_WAITING_PER_ADDRESS)];
        let problem = parse(&queue, network(1), LONG).await.expect_err("no more of these");
        assert!(problem.contains("from your address"), "{problem}");
        parse(&queue, network(2), LONG).await.expect("another address");
        for last in 2..=(MAX_WAITING / MAX_WAITING_PER_ADDRESS) as u8 {
            all.push(places(last, MAX_WAITING_PER_ADDRESS));
        }
        let problem = parse(&queue, network(99), LONG).await.expect_err("no more at all");
        assert!(problem.contains("in all"), "{problem}");
        parse(&queue, None, LONG).await.expect("an authenticated client");
        drop(all);
        assert_eq!(queue.unauthenticated.count(), 0);
    }
}
