//! How many connections may be at the door before anybody knows who they are.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The connections that have not authenticated yet.
#[derive(Debug)]
pub(crate) struct Startups {
    limits: Limits,
    state: Mutex<State>,
}

/// As sshd's `MaxStartups` and `PerSourceMaxStartups`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// From so many on connections are refused at random.
    pub(crate) begin: usize,
    /// All of them, from so many on.
    pub(crate) full: usize,
    pub(crate) of_address: usize,
}

#[derive(Debug, Default)]
struct State {
    all: usize,
    of_address: HashMap<IpAddr, usize>,
}

/// A connection among them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Startup {
    startups: Arc<Startups>,
    source: IpAddr,
}

impl Startups {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, state: Mutex::default() })
    }

    /// Lets a connection in, or not; `luck` is evenly spread from 0 to 1.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr, luck: f64) -> Option<Startup> {
        let source = source(address);
        let mut state = self.lock();
        let of_address = state.of_address.get(&source).copied().unwrap_or(0);
        if of_address >= self.limits.of_address || luck < self.refused_share(state.all) {
            return None;
        }
        state.all += 1;
        *state.of_address.entry(source).or_default() += 1;
        Some(Startup { startups: Arc::clone(self), source })
    }

    /// Which share of connections is refused while there are `count`: 30 in 100 at the beginning,
    /// all at the end, and evenly more between.
    fn refused_share(&self, count: usize) -> f64 {
        let Limits { begin, full, .. } = self.limits;
        if count >= full {
            return 1.0;
        }
        if count < begin {
            return 0.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "connections are few")]
        let way = (count - begin) as f64 / (full - begin) as f64;
        RATE + (1.0 - RATE) * way
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Startup {
    fn drop(&mut self) {
        let mut state = self.startups.lock();
        state.all -= 1;
        if let Some(count) = state.of_address.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                state.of_address.remove(&self.source);
            }
        }
    }
}

/// One customer has 2^64 addresses of IPv6 at the least.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let mut octets = address.octets();
            octets[8..].fill(0);
            IpAddr::V6(octets.into())
        }
        address => address,
    }
}

const RATE: f64 = 0.3;

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [127, 0, 0, last].into()
    }

    #[test]
    fn one_address_leaves_room_for_others() {
        let startups = Startups::new(Limits { begin: 100, full: 100, of_address: 3 });
        let held: Vec<_> = (0..10).filter_map(|_| startups.enter(address(1), 0.5)).collect();
        assert_eq!(held.len(), 3);
        assert!(startups.enter(address(2), 0.5).is_some());
        drop(held);
        assert!(startups.enter(address(1), 0.5).is_some());
        assert!(startups.lock().of_address.is_empty());
    }

    #[test]
    fn the_fuller_it_is_the_more_are_refused() {
        let startups = Startups::new(Limits { begin: 10, full: 20, of_address: 100 });
        let shares = [9, 10, 15, 20].map(|count| startups.refused_share(count));
        assert_eq!(shares.map(|share| (share * 100.0).round()), [0.0, 30.0, 65.0, 100.0]);
        let held: Vec<_> = (0..30).filter_map(|_| startups.enter(address(1), 0.999)).collect();
        assert_eq!(held.len(), 20, "the lucky ones");
        assert!(startups.enter(address(2), 0.999_999).is_none());
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let of = |text: &str| source(text.parse().expect("an address"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8::1"));
        assert_eq!(of("::ffff:127.0.0.1"), address(1));
    }
}
