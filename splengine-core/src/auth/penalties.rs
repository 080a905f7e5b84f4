//! Penalties for failed authentications: of the address that they come from, and of the user whose
//! password is tried. Pure: the time is an argument.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

use crate::auth::{AddressRange, Client, Network};

/// Measures against guessing credentials, as by sshd's `PerSourcePenalties`: each failed
/// authentication costs the address that it comes from a penalty, penalties add up and run off with
/// time, and an address over a bound is blocked until its penalty has run off.
///
/// An IPv4 address counts alone, IPv6 addresses by their network of 64 bits, and clients of a UNIX
/// socket by their uid. The 16,384 addresses with
/// the largest penalties are kept; beyond that the address with the smallest one is forgotten.
///
/// ```
/// use std::time::Duration;
///
/// use splengine_core::auth::GuessingPolicy;
///
/// let proxy = "10.1.2.3".parse()?;
/// let policy = GuessingPolicy::new().penalty(Duration::from_secs(2)).exempt([proxy]);
/// # drop(policy);
/// # Ok::<(), splengine_core::auth::ParseAddressRangeError>(())
/// ```
#[derive(Debug, Clone)]
pub struct GuessingPolicy {
    penalty: Duration,
    threshold: Duration,
    max_penalty: Duration,
    exempt: Vec<AddressRange>,
}

impl GuessingPolicy {
    /// Makes a policy with the defaults: a penalty of 5 s, a block from 30 s on and of 60 s at most, no
    /// exemption.
    #[must_use]
    pub fn new() -> Self {
        Self {
            penalty: Duration::from_secs(5),
            threshold: Duration::from_secs(30),
            max_penalty: Duration::from_secs(60),
            exempt: Vec::new(),
        }
    }

    /// Sets the penalty of one failed authentication, default 5 s. One that shows what has failed from
    /// the same address just before guesses nothing, and costs a fifth of it: a script with an old
    /// token that tries once a second is never blocked. Zero switches penalties and delays off;
    /// failures are still logged and counted.
    #[must_use]
    pub fn penalty(mut self, penalty: Duration) -> Self {
        self.penalty = penalty;
        self
    }

    /// Sets the sum of penalties from which on an address is blocked, default 30 s: five failures
    /// within a minute only delay their answers.
    #[must_use]
    pub fn threshold(mut self, threshold: Duration) -> Self {
        self.threshold = threshold;
        self
    }

    /// Sets the maximum sum of penalties, and so the maximum time for which an address is blocked, at
    /// least the [threshold](Self::threshold), default 60 s.
    #[must_use]
    pub fn max_penalty(mut self, max: Duration) -> Self {
        self.max_penalty = max;
        self
    }

    /// Sets addresses that get no penalties, default none: reverse proxies that bound guesses
    /// themselves, whose clients would all be blocked for what one of them does. Failures from
    /// there are logged and counted, and their number is not bounded.
    #[must_use]
    pub fn exempt(mut self, ranges: impl IntoIterator<Item = AddressRange>) -> Self {
        self.exempt.extend(ranges);
        self
    }
}

impl Default for GuessingPolicy {
    fn default() -> Self {
        Self::new()
    }
}

/// What became of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Penalised {
    /// How long the answer is held back.
    pub(crate) delay: Duration,
    /// For how long the address is blocked, if it is by this very failure.
    pub(crate) blocked_for: Option<Duration>,
}

/// The penalties of addresses and users.
#[derive(Debug)]
pub(crate) struct Penalties {
    policy: GuessingPolicy,
    addresses: Expiring<Network, Address>,
    users: Expiring<u64, ()>,
    /// From where users have shown their passwords.
    known: Expiring<(u64, Network), ()>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Address {
    is_blocked: bool,
    /// Fingerprints of what failed last.
    failed: [Option<u64>; REMEMBERED],
    next: usize,
}

impl Penalties {
    pub(crate) fn new(policy: GuessingPolicy) -> Self {
        let (addresses, users, known) = (Expiring::new(), Expiring::new(), Expiring::new());
        Self { policy, addresses, users, known }
    }

    /// For how long whoever is at `client` is blocked yet.
    pub(crate) fn blocked_for(&self, client: impl Into<Client>, now: Instant) -> Option<Duration> {
        let (ends, state) = self.addresses.get(client.into().network(), now)?;
        state.is_blocked.then(|| ends - now)
    }

    /// Counts a failed authentication from `client`, which showed something with this fingerprint.
    pub(crate) fn fail(
        &mut self,
        client: impl Into<Client>,
        fingerprint: u64,
        now: Instant,
    ) -> Penalised {
        let client = client.into();
        let is_exempt = match client {
            Client::Ip(address) => self.policy.exempt.iter().any(|range| range.contains(address)),
            _ => false,
        };
        if is_exempt || self.policy.penalty.is_zero() {
            return Penalised { delay: Duration::ZERO, blocked_for: None };
        }
        let source = client.network();
        let before = self.addresses.get(source, now);
        let (ends, mut state) = before.unwrap_or_else(|| (now, Address::default()));
        let penalty = if state.failed.contains(&Some(fingerprint)) {
            self.policy.penalty / REPEATED
        } else {
            state.failed[state.next] = Some(fingerprint);
            state.next = (state.next + 1) % REMEMBERED;
            self.policy.penalty
        };
        let max = self.policy.max_penalty.max(self.policy.threshold);
        let owed = (ends - now).saturating_add(penalty).min(max);
        let blocks = owed >= self.policy.threshold && !state.is_blocked;
        state.is_blocked |= blocks;
        self.addresses.set(source, now + owed, state, now);
        let delay = (owed / DELAY_SHARE).min(MAX_DELAY);
        Penalised { delay, blocked_for: blocks.then_some(owed) }
    }

    /// How long an attempt at the password of a user waits, or when to try again where too many
    /// wait already. The first few after a while wait for nothing, and so do those from where the user
    /// has come before: else whoever guesses from elsewhere would keep them out.
    pub(crate) fn attempt(
        &mut self,
        user: u64,
        client: impl Into<Client>,
        now: Instant,
    ) -> Result<Duration, Duration> {
        let is_known = self.known.get((user, client.into().network()), now).is_some();
        if is_known || self.policy.penalty.is_zero() {
            return Ok(Duration::ZERO);
        }
        // No attempt has failed: the next one that fails is penalised.
        let Some((ends, ())) = self.users.get(user, now) else { return Ok(Duration::ZERO) };
        let wait = (ends - now).saturating_sub(USER_FREE);
        if wait > MAX_USER_WAIT {
            return Err(wait - MAX_USER_WAIT);
        }
        self.users.set(user, ends + USER_INTERVAL, (), now);
        Ok(wait)
    }

    /// Counts a failed attempt at the password of a user.
    pub(crate) fn fail_user(&mut self, user: u64, now: Instant) {
        let ends = self.users.get(user, now).map_or(now, |(ends, ())| ends);
        self.users.set(user, ends + USER_INTERVAL, (), now);
    }

    /// Forgets what failed before a success, and remembers where it came from.
    pub(crate) fn succeed_user(&mut self, user: u64, client: impl Into<Client>, now: Instant) {
        self.users.remove(user);
        self.known.set((user, client.into().network()), now + KNOWN_FOR, (), now);
    }

    /// How many addresses have a penalty, and how many of them are blocked.
    pub(crate) fn counts(&mut self, now: Instant) -> (usize, usize) {
        self.addresses.expire(now);
        let all = &self.addresses.entries;
        (all.len(), all.values().filter(|(_, state)| state.is_blocked).count())
    }
}

/// Entries that end at some time, at most [`MAX_ENTRIES`]: the one that ends first goes.
#[derive(Debug)]
struct Expiring<K, V> {
    entries: HashMap<K, (Instant, V)>,
    ends: BTreeSet<(Instant, K)>,
}

impl<K: Copy + Ord + Hash, V: Copy> Expiring<K, V> {
    fn new() -> Self {
        Self { entries: HashMap::new(), ends: BTreeSet::new() }
    }

    fn get(&self, key: K, now: Instant) -> Option<(Instant, V)> {
        self.entries.get(&key).copied().filter(|(ends, _)| *ends > now)
    }

    fn set(&mut self, key: K, ends: Instant, value: V, now: Instant) {
        self.expire(now);
        self.remove(key);
        if self.entries.len() >= MAX_ENTRIES
            && let Some((_, first)) = self.ends.pop_first()
        {
            self.entries.remove(&first);
        }
        self.entries.insert(key, (ends, value));
        self.ends.insert((ends, key));
    }

    fn remove(&mut self, key: K) {
        if let Some((ends, _)) = self.entries.remove(&key) {
            self.ends.remove(&(ends, key));
        }
    }

    fn expire(&mut self, now: Instant) {
        while let Some(&(ends, key)) = self.ends.first().filter(|(ends, _)| *ends <= now) {
            self.ends.remove(&(ends, key));
            self.entries.remove(&key);
        }
    }
}

const MAX_ENTRIES: usize = 16_384;
const REMEMBERED: usize = 4;
/// A repeated failure costs so much less than a new one.
const REPEATED: u32 = 5;
/// An answer is held back for this part of what its address owes.
const DELAY_SHARE: u32 = 20;
const MAX_DELAY: Duration = Duration::from_secs(1);
/// How much a user's password may owe before attempts at it wait.
const USER_FREE: Duration = Duration::from_secs(5);
const USER_INTERVAL: Duration = Duration::from_secs(1);
const MAX_USER_WAIT: Duration = Duration::from_secs(10);
const KNOWN_FOR: Duration = Duration::from_hours(30 * 24);

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::auth::UnixPeer;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn five_mistakes_are_delayed_and_the_sixth_blocks() {
        let mut penalties = Penalties::new(GuessingPolicy::new());
        let (now, guesser) = (Instant::now(), address("192.0.2.1"));
        for guess in 1..=5 {
            let penalised = penalties.fail(guesser, guess, now);
            assert_eq!(penalised.blocked_for, None);
            assert!(penalised.delay > Duration::ZERO && penalised.delay <= SECOND);
            assert_eq!(penalties.blocked_for(guesser, now), None);
        }
        assert_eq!(penalties.fail(guesser, 6, now).blocked_for, Some(SECOND * 30));
        assert_eq!(penalties.blocked_for(guesser, now + SECOND * 10), Some(SECOND * 20));
        assert_eq!(penalties.blocked_for(address("192.0.2.2"), now), None);
        // Until all of it has run off, and then as if nothing had been.
        assert_eq!(penalties.blocked_for(guesser, now + SECOND * 29), Some(SECOND));
        assert_eq!(penalties.blocked_for(guesser, now + SECOND * 30), None);
        assert_eq!(penalties.fail(guesser, 7, now + SECOND * 30).blocked_for, None);
        assert_eq!(penalties.counts(now + SECOND * 30), (1, 0));
    }

    #[test]
    fn an_old_token_once_a_second_is_no_guesser() {
        let mut penalties = Penalties::new(GuessingPolicy::new());
        let (now, script) = (Instant::now(), address("127.0.0.1"));
        for second in 0..1000 {
            let now = now + SECOND * second;
            assert_eq!(penalties.fail(script, 1, now).blocked_for, None);
        }
        // One that does not wait is blocked all the same.
        let mut now = now + SECOND * 1000;
        let tries = (0..).take_while(|_| {
            now += SECOND / 100;
            penalties.fail(script, 1, now).blocked_for.is_none()
        });
        assert!(tries.count() < 30);
    }

    #[test]
    fn users_of_a_unix_socket_are_told_apart() {
        let mut penalties = Penalties::new(GuessingPolicy::new());
        let now = Instant::now();
        let client = |uid, pid| Client::Unix(UnixPeer::new(uid, 1, Some(pid)));
        for guess in 0..6 {
            penalties.fail(client(7, 1), guess, now);
        }
        assert!(penalties.blocked_for(client(7, 2), now).is_some());
        assert!(penalties.blocked_for(client(8, 1), now).is_none());
        assert!(penalties.blocked_for(None::<IpAddr>, now).is_none());
    }

    #[test]
    fn exempt_addresses_owe_nothing() {
        let proxies = ["10.0.0.0/8", "::1"].map(|text| text.parse().expect("a range"));
        let mut penalties = Penalties::new(GuessingPolicy::new().exempt(proxies));
        let now = Instant::now();
        for guess in 0..100 {
            for proxy in ["10.1.2.3", "::ffff:10.1.2.3", "::1"].map(address) {
                let free = Penalised { delay: Duration::ZERO, blocked_for: None };
                assert_eq!(penalties.fail(proxy, guess, now), free);
            }
        }
        assert_eq!(penalties.counts(now), (0, 0));
    }

    #[test]
    fn whoever_owes_least_is_forgotten_first() {
        let mut penalties = Penalties::new(GuessingPolicy::new());
        let (now, guesser) = (Instant::now(), address("192.0.2.1"));
        for guess in 0..6 {
            penalties.fail(guesser, guess, now);
        }
        for other in 0..40_000_u32 {
            penalties.fail(Some(IpAddr::V4((0x0a00_0000 + other).into())), 1, now);
        }
        assert_eq!(penalties.counts(now), (MAX_ENTRIES, 1));
        assert_eq!(penalties.addresses.ends.len(), MAX_ENTRIES);
        assert!(penalties.blocked_for(guesser, now).is_some());
    }

    #[test]
    fn attempts_at_one_users_password_are_spaced() {
        let mut penalties = Penalties::new(GuessingPolicy::new());
        let (now, from) = (Instant::now(), address("192.0.2.1"));
        assert_eq!(penalties.attempt(1, from, now), Ok(Duration::ZERO));
        for _ in 0..5 {
            penalties.fail_user(1, now);
        }
        let waits: Vec<_> = (0..20).map_while(|_| penalties.attempt(1, from, now).ok()).collect();
        assert_eq!(waits, (0..=10).map(|wait| SECOND * wait).collect::<Vec<_>>());
        assert_eq!(penalties.attempt(1, from, now), Err(SECOND));
        assert_eq!(penalties.attempt(2, from, now), Ok(Duration::ZERO));
        assert!(penalties.attempt(1, from, now + SECOND).is_ok());
        penalties.succeed_user(1, from, now);
        assert_eq!(penalties.attempt(1, from, now), Ok(Duration::ZERO));
        for _ in 0..100 {
            penalties.fail_user(1, now);
        }
        assert!(penalties.attempt(1, address("192.0.2.2"), now).is_err());
        assert_eq!(penalties.attempt(1, from, now), Ok(Duration::ZERO), "from where they come");
    }

    proptest! {
        /// Whatever the order of attempts: a bounded number of guesses in a time, and no block is
        /// longer than the longest.
        #[test]
        fn the_rate_of_guesses_is_bounded(pauses in prop::collection::vec(0_u64..20_000, 1..300)) {
            let mut penalties = Penalties::new(GuessingPolicy::new());
            let (begin, guesser) = (Instant::now(), address("192.0.2.1"));
            let (mut now, mut guesses) = (begin, 0_u32);
            for (guess, pause) in (0..).zip(pauses) {
                now += Duration::from_millis(pause);
                match penalties.blocked_for(guesser, now) {
                    Some(left) => prop_assert!(left <= SECOND * 60),
                    None => {
                        penalties.fail(guesser, guess, now);
                        guesses += 1;
                    }
                }
                prop_assert_eq!(penalties.addresses.entries.len(), penalties.addresses.ends.len());
            }
            let bound = 6.0 + (now - begin).as_secs_f64() / 5.0;
            prop_assert!(f64::from(guesses) <= bound + 1.0, "{guesses} in {:?}", now - begin);
        }
    }
}
