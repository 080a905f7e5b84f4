//! The parsing of protocols that are not known yet, which takes time and memory that nobody has shown
//! credentials for: off the runtime's workers, few at a time, one at a time of each address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use splengine_core::auth::CredentialSource;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::peer_protocols::{ClientProtocol, Clients};
use crate::protocol::Hash;

/// Where protocols wait to be parsed, of all connections of a server.
#[derive(Debug)]
pub(crate) struct ParseQueue {
    clients: Arc<Clients>,
    permits: Arc<Semaphore>,
    /// Those that wait or are parsed, by the address they come from.
    addresses: Arc<Mutex<HashMap<Requester, Address>>>,
}

/// Whose protocol it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Requester {
    /// A client that was authenticated on this connection.
    Authenticated,
    /// Anybody else, by the address, or the network of 64 bits in IPv6. Those whose address is not
    /// known share one place.
    Address(Option<IpAddr>),
    /// Anybody of this uid, through a UNIX socket.
    Uid(u32),
}

#[derive(Debug)]
struct Address {
    turn: Arc<Semaphore>,
    present: usize,
}

/// A place in the queue, given back when dropped.
#[derive(Debug)]
struct QueueSlot {
    addresses: Arc<Mutex<HashMap<Requester, Address>>>,
    requester: Requester,
}

impl ParseQueue {
    pub(crate) fn new(clients: Arc<Clients>) -> Self {
        let permits = Arc::new(Semaphore::new(MAX_PARSING));
        Self { clients, permits, addresses: Arc::default() }
    }

    /// Parses a protocol once it is its turn.
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
        requester: Requester,
        hash: Hash,
        text: String,
        wait: Duration,
    ) -> Result<Arc<ClientProtocol>, String> {
        let (place, turn) = self.enter(requester)?;
        let turns = async {
            let turn = match turn {
                Some(turn) => turn.acquire_owned().await.ok(),
                None => None,
            };
            (turn, Arc::clone(&self.permits).acquire_owned().await.ok())
        };
        let Ok(held) = timeout(wait, turns).await else {
            return Err("others were parsed for too long; try again later".to_owned());
        };
        // Another may have brought the same meanwhile.
        if let Some(known) = self.clients.get(&hash) {
            return Ok(known);
        }
        let parsed = tokio::task::spawn_blocking(move || {
            let protocol = ClientProtocol::new(&text);
            drop((held, place));
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

    fn enter(&self, requester: Requester) -> Result<(QueueSlot, Option<Arc<Semaphore>>), String> {
        let too_many = |of| format!("too many others {of} wait to be parsed; try again later");
        let mut addresses = lock(&self.addresses);
        let all: usize = addresses.values().map(|address| address.present).sum();
        if all >= MAX_WAITING {
            return Err(too_many("in all"));
        }
        let address = addresses
            .entry(requester)
            .or_insert_with(|| Address { turn: Arc::new(Semaphore::new(1)), present: 0 });
        let turn = (requester != Requester::Authenticated).then(|| Arc::clone(&address.turn));
        if turn.is_some() && address.present >= MAX_WAITING_PER_ADDRESS {
            return Err(too_many("from your address"));
        }
        address.present += 1;
        let place = QueueSlot { addresses: Arc::clone(&self.addresses), requester };
        Ok((place, turn))
    }
}

impl Requester {
    pub(crate) fn of(source: &CredentialSource, is_authenticated: bool) -> Self {
        if is_authenticated {
            return Self::Authenticated;
        }
        if let Some(peer) = source.unix_peer() {
            return Self::Uid(peer.uid);
        }
        Self::Address(source.address().map(|address| match address.to_canonical() {
            IpAddr::V6(ip) => {
                let network = u128::from(ip) & !u128::from(u64::MAX);
                IpAddr::V6(Ipv6Addr::from(network))
            }
            ip @ IpAddr::V4(_) => ip,
        }))
    }
}

impl Drop for QueueSlot {
    fn drop(&mut self) {
        let mut addresses = lock(&self.addresses);
        if let Some(address) = addresses.get_mut(&self.requester) {
            address.present -= 1;
            if address.present == 0 {
                addresses.remove(&self.requester);
            }
        }
    }
}

fn lock(
    addresses: &Mutex<HashMap<Requester, Address>>,
) -> MutexGuard<'_, HashMap<Requester, Address>> {
    addresses.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Maximum number of protocols that are parsed at once.
const MAX_PARSING: usize = 1;
/// Maximum number of protocols that wait or are parsed, of one address.
const MAX_WAITING_PER_ADDRESS: usize = 128;
/// Maximum number of protocols that wait or are parsed, in all.
const MAX_WAITING: usize = 512;

#[cfg(test)]
mod tests {
    use splengine_core::auth::UnixPeer;

    use super::*;
    use crate::protocol::hash_of;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(60);
    const TEXT: &str = r#"{"protocol": "P"}"#;

    fn queue() -> ParseQueue {
        ParseQueue::new(Arc::new(Clients::new()))
    }

    fn requester(last: u8) -> Requester {
        let address = IpAddr::from([192, 0, 2, last]);
        Requester::of(&CredentialSource::new("avro", Some(address)), false)
    }

    async fn parse(
        queue: &ParseQueue,
        requester: Requester,
        wait: Duration,
    ) -> Result<Arc<ClientProtocol>, String> {
        queue.parse(requester, hash_of(TEXT), TEXT.to_owned(), wait).await
    }

    #[tokio::test]
    async fn who_waits_is_served_once_it_is_its_turn() {
        let queue = queue();
        let busy = Arc::clone(&queue.permits).acquire_owned().await.expect("it is open");
        let problem = parse(&queue, requester(1), SHORT).await.expect_err("another is parsed");
        assert!(problem.contains("too long"), "{problem}");
        let waiting = parse(&queue, requester(1), LONG);
        let mut waiting = std::pin::pin!(waiting);
        assert!(timeout(SHORT, &mut waiting).await.is_err());
        drop(busy);
        waiting.await.expect("its turn");
        assert!(lock(&queue.addresses).is_empty());
    }

    #[tokio::test]
    async fn of_an_address_one_is_parsed_at_a_time() {
        let queue = queue();
        let (place, turn) = queue.enter(requester(1)).expect("none waits");
        let turn = turn.expect("it has turns").acquire_owned().await.expect("it is open");
        parse(&queue, requester(1), SHORT).await.expect_err("another of its address is parsed");
        parse(&queue, requester(2), LONG).await.expect("another address");
        parse(&queue, Requester::Authenticated, LONG).await.expect("a known client");
        drop((place, turn));
        parse(&queue, requester(1), LONG).await.expect("its turn");
    }

    #[tokio::test]
    async fn only_so_many_wait() {
        let queue = queue();
        let places = |last, count: usize| -> Vec<_> {
            (0..count).map(|_| queue.enter(requester(last)).expect("there is room")).collect()
        };
        let mut all = vec![places(1, MAX_WAITING_PER_ADDRESS)];
        let problem = parse(&queue, requester(1), LONG).await.expect_err("no more of these");
        assert!(problem.contains("from your address"), "{problem}");
        parse(&queue, requester(2), LONG).await.expect("another address");
        for last in 2..=(MAX_WAITING / MAX_WAITING_PER_ADDRESS) as u8 {
            all.push(places(last, MAX_WAITING_PER_ADDRESS));
        }
        let problem = parse(&queue, requester(99), LONG).await.expect_err("no more at all");
        assert!(problem.contains("in all"), "{problem}");
        drop(all);
        assert!(lock(&queue.addresses).is_empty());
    }

    #[test]
    fn addresses_of_one_network_are_one_requester() {
        let source =
            |ip: &str| CredentialSource::new("avro", Some(ip.parse().expect("an address")));
        let of = |ip: &str| Requester::of(&source(ip), false);
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(Requester::of(&source("::1"), true), Requester::Authenticated);
        let unix = |uid, pid| CredentialSource::unix("avro", UnixPeer::new(uid, 1, Some(pid)));
        assert_eq!(Requester::of(&unix(7, 1), false), Requester::of(&unix(7, 2), false));
        assert_ne!(Requester::of(&unix(7, 1), false), Requester::of(&unix(8, 1), false));
    }
}
