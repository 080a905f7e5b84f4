use std::collections::HashSet;
use std::net::Ipv4Addr;

use proptest::prelude::*;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// The default.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

async fn stream() -> Arc<Stream> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("bound");
    Arc::new(Stream::from(TcpStream::connect(address).await.expect("connected")))
}

fn address(last: u8) -> Network {
    Network::Ip(Ipv4Addr::new(127, 0, 0, last).into())
}

/// Another one each time.
fn anybody() -> UserName {
    static USERS: AtomicU64 = AtomicU64::new(0);
    format!("user-{}", USERS.fetch_add(1, Relaxed)).parse().expect("a name")
}

fn is_evicted(place: &TableEntry) -> bool {
    let evicted = std::pin::pin!(place.evicted());
    evicted.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
}

/// A connection whose client may send something.
async fn pair() -> (Arc<Stream>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("bound");
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (Arc::new(Stream::from(accepted.expect("accepted").0)), client.expect("connected"))
}

fn enters(
    table: &Arc<Table>,
    stream: &Arc<Stream>,
    progress: &Arc<Progress>,
    last: u8,
) -> TableEntry {
    table.enter(stream, progress, address(last), Duration::ZERO).expect("there is a place")
}

fn enter(table: &Arc<Table>, stream: &Arc<Stream>, last: u8) -> TableEntry {
    enters(table, stream, &Progress::new(), last)
}

#[tokio::test]
async fn an_address_has_its_share_of_silent_connections() {
    let stream = stream().await;
    let (unread, mut client) = pair().await;
    client.write_all(b"GET").await.expect("sent");
    unread.ready(tokio::io::Interest::READABLE).await.expect("readable");
    tokio::time::pause();
    let table = Table::new(ConnectionLimits::new().max_unauthenticated_per_address(2));
    let (busy, read) = (Progress::new(), Progress::new());
    busy.active.send_replace(1);
    let at_work = enters(&table, &stream, &busy, 1);
    let is_unread = enter(&table, &unread, 1);
    let was_read = enters(&table, &stream, &read, 1);
    let [silent, second, other] = [1, 1, 2].map(|last| enter(&table, &stream, last));
    let all = [&at_work, &is_unread, &was_read, &silent, &second, &other];
    table.trim();
    assert_eq!(all.map(is_evicted), [false; 6], "they are new");
    tokio::time::advance(SILENT_AFTER).await;
    read.has_read();
    table.trim();
    assert_eq!(all.map(is_evicted), [false, false, false, true, true, false]);
    busy.active.send_replace(0);
    table.trim();
    assert_eq!(all.map(is_evicted), [true, false, false, false, false, false]);
    is_unread.set_authenticated(&anybody());
    let new = enter(&table, &stream, 1);
    let newest = enter(&table, &stream, 1);
    tokio::time::advance(MAX_AGE - SILENT_AFTER).await;
    read.has_read();
    table.trim();
    assert!(is_evicted(&was_read), "it has had its time");
    assert!(![&is_unread, &new, &newest].map(is_evicted).contains(&true));
}

#[tokio::test]
async fn who_does_not_read_the_answer_is_silent_too() {
    let stream = stream().await;
    tokio::time::pause();
    let table = Table::new(ConnectionLimits::new().max_unauthenticated_per_address(1));
    let (stalled, sending) = (Progress::new(), Progress::new());
    let all = [&stalled, &sending].map(|progress| {
        progress.active.send_replace(1);
        enters(&table, &stream, progress, 1)
    });
    tokio::time::advance(STALL_TIMEOUT - SILENT_AFTER).await;
    table.trim();
    assert_eq!([&all[0], &all[1]].map(is_evicted), [false; 2]);
    tokio::time::advance(SILENT_AFTER).await;
    sending.has_read();
    table.trim();
    assert_eq!([&all[0], &all[1]].map(is_evicted), [true, false]);
}

/// Also where its network has most of them.
#[tokio::test]
async fn no_new_connection_is_closed_in_a_shortage() {
    let stream = stream().await;
    tokio::time::pause();
    let table = Table::new(ConnectionLimits::new());
    assert!(!table.make_room(Duration::ZERO), "there is none");
    let old = enter(&table, &stream, 1);
    assert!(!table.make_room(Duration::ZERO), "it is new");
    tokio::time::advance(SILENT_AFTER).await;
    let new = [2, 2, 2].map(|last| enter(&table, &stream, last));
    assert!(table.make_room(Duration::ZERO));
    assert!(is_evicted(&old));
    assert!(!table.make_room(Duration::ZERO), "the others are new");
    assert_eq!(new.each_ref().map(is_evicted), [false; 3]);
}

#[tokio::test]
async fn who_has_most_makes_room_for_one_more() {
    let stream = stream().await;
    let table = Table::new(ConnectionLimits::new().max_unauthenticated(4));
    let busy = Progress::new();
    busy.active.send_replace(1);
    let lone = enter(&table, &stream, 1);
    let at_work = enters(&table, &stream, &busy, 2);
    let [second, third] = [2, 2].map(|last| enter(&table, &stream, last));
    let new = enter(&table, &stream, 3);
    let all = [&lone, &at_work, &second, &third, &new];
    assert_eq!(all.map(is_evicted), [false, false, true, false, false]);
    let newer = enter(&table, &stream, 4);
    assert_eq!(all.map(is_evicted), [false, false, false, true, false]);
    // Everybody has one: any that has sent nothing makes room.
    let newest = enter(&table, &stream, 5);
    let silent = [&lone, &new, &newer].map(is_evicted);
    assert_eq!(silent.iter().filter(|is_evicted| **is_evicted).count(), 1);
    assert!(![&at_work, &newest].map(is_evicted).contains(&true));
}

#[tokio::test]
async fn the_authenticated_fill_all_places_and_the_next_one_waits() {
    let stream = stream().await;
    let table = Table::new(ConnectionLimits::new().max_connections(2));
    let is_free = || {
        let place = std::pin::pin!(table.has_place());
        place.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
    };
    let first = enter(&table, &stream, 1);
    let second = enter(&table, &stream, 1);
    assert!(is_free(), "an unauthenticated one makes room");
    first.set_authenticated(&anybody());
    second.set_authenticated(&anybody());
    assert!(!is_free());
    // One that was upgraded is counted elsewhere.
    second.set_served();
    assert!(is_free());
    let third = enter(&table, &stream, 1);
    third.set_authenticated(&anybody());
    assert!(!is_free());
    second.leave();
    assert!(!is_free());
    first.leave();
    first.leave();
    assert!(is_free());
    third.leave();
    let state = table.lock();
    assert_eq!((state.places, state.leaving, state.waiting_count), (0, 0, 0));
}

#[tokio::test]
async fn of_one_caller_only_their_share_is_kept() {
    let stream = stream().await;
    let table = Table::new(ConnectionLimits::new().max_connections(4));
    let mallory = "mallory".parse().expect("a name");
    let [first, second, third, upgraded] = [1; 4].map(|last| {
        let place = enter(&table, &stream, last);
        place.set_authenticated(&mallory);
        place
    });
    upgraded.set_served();
    assert_eq!(table.lock().places, 3, "one that was upgraded is counted elsewhere");
    let [fourth, fifth] = [2; 2].map(|last| enter(&table, &stream, last));
    fifth.set_authenticated(&anybody());
    let all = [&first, &second, &third, &upgraded, &fourth, &fifth];
    assert_eq!(all.map(is_evicted), [false, false, true, false, false, false]);
    // With what is given back another is kept.
    first.leave();
    let sixth = enter(&table, &stream, 1);
    sixth.set_authenticated(&mallory);
    assert!(sixth.stage().is_kept);
}

#[tokio::test]
async fn a_busy_connection_beyond_a_share_goes_for_others_at_once_and_for_its_caller_later() {
    let stream = stream().await;
    let table = Table::new(ConnectionLimits::new().max_connections(4));
    let mallory = "mallory".parse().expect("a name");
    let busy = Progress::new();
    busy.active.send_replace(1);
    let (idle, waited) = (Progress::new(), BUSY_TIMEOUT - Duration::from_millis(1));
    let [_first, _second, third, fourth] = [&busy, &busy, &busy, &idle].map(|progress| {
        let place = enters(&table, &stream, progress, 1);
        place.set_authenticated(&mallory);
        place
    });
    let enter = |last, waited| {
        let place = table.enter(&stream, &busy, address(last), waited)?;
        place.set_authenticated(&mallory);
        Some(place)
    };
    // Nothing is worked at on the younger one.
    let fifth = enter(1, Duration::ZERO).expect("an idle one goes");
    assert_eq!([&third, &fourth, &fifth].map(is_evicted), [false, true, false]);
    assert!(enter(1, waited).is_none());
    assert_eq!([&third, &fifth].map(is_evicted), [false; 2]);
    let sixth = enter(2, Duration::ZERO).expect("it is from elsewhere");
    assert_eq!([&third, &fifth, &sixth].map(is_evicted), [true, false, false]);
    assert!(enter(2, waited).is_some(), "there is one from elsewhere");
    assert_eq!([&fifth, &sixth].map(is_evicted), [true, false]);
    assert!(enter(2, waited).is_none());
    let seventh = enter(2, BUSY_TIMEOUT).expect("it has waited");
    assert_eq!([&sixth, &seventh].map(is_evicted), [true, false]);
    // For want of descriptors nobody knows from where the next one is.
    assert!(!table.make_room(waited));
    assert!(table.make_room(BUSY_TIMEOUT));
}

/// Neither for it, nor for one that has just come.
#[tokio::test]
async fn while_there_are_busy_ones_beyond_a_share_no_new_connection_is_closed() {
    let stream = stream().await;
    tokio::time::pause();
    let table = Table::new(ConnectionLimits::new().max_connections(4));
    let (mallory, busy) = ("mallory".parse().expect("a name"), Progress::new());
    busy.active.send_replace(1);
    let all = [1; 3].map(|last| {
        let place = enters(&table, &stream, &busy, last);
        place.set_authenticated(&mallory);
        place
    });
    assert!(!all[2].stage().is_kept);
    let new = enter(&table, &stream, 1);
    assert!(table.enter(&stream, &busy, address(1), Duration::ZERO).is_none());
    tokio::time::advance(SILENT_AFTER).await;
    assert!(table.enter(&stream, &busy, address(1), Duration::ZERO).is_some());
    assert_eq!([&all[0], &all[2], &new].map(is_evicted), [false, false, true]);
}

#[tokio::test]
async fn whoever_waits_for_a_place_is_told_of_one_at_which_nothing_is_worked_any_more() {
    let table = Table::new(ConnectionLimits::new().max_connections(2));
    let enter = |stream| crate::net::Connection::enter(&stream, address(1), Duration::ZERO, &table);
    let mallory = crate::auth::Caller::new("mallory").expect("a name");
    let [_kept, busy] = [enter(stream().await), enter(stream().await)].map(|connection| {
        let connection = connection.expect("there is a place");
        connection.handle().set_authenticated(&mallory);
        (connection.handle().begin(), connection)
    });
    let late = stream().await;
    let mut placed = std::pin::pin!(table.may_have_place());
    let mut told = || {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        placed.as_mut().poll(&mut cx).is_ready()
    };
    assert!(enter(Arc::clone(&late)).is_none());
    assert!(!told());
    let (activity, _connection) = busy;
    drop(activity);
    assert!(told());
    assert!(enter(late).is_some());
}

/// However many requests end while a connection waits for a place, and whoever's they are.
#[tokio::test]
async fn requests_that_end_are_looked_at_once_in_a_while() {
    let stream = stream().await;
    tokio::time::pause();
    let table = Table::new(ConnectionLimits::new().max_connections(4));
    let enter = |user: &UserName| {
        let connection = crate::net::Connection::enter(&stream, address(1), Duration::ZERO, &table);
        let connection = connection.expect("there is a place");
        connection.handle().set_authenticated(&crate::auth::Caller::from(user.clone()));
        // It is never without one.
        (connection.handle().begin(), connection)
    };
    let mallory: UserName = "mallory".parse().expect("a name");
    let [kept, second, surplus] = [(); 3].map(|()| enter(&mallory));
    let other = enter(&anybody());
    let mut placed = Box::pin(table.may_have_place());
    let mut looks = 0;
    let mut end_requests = |connections: &[&crate::net::Connection]| {
        for _ in 0..100 {
            connections.iter().for_each(|connection| drop(connection.handle().begin()));
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            if placed.as_mut().poll(&mut cx).is_ready() {
                looks += 1;
                placed = Box::pin(table.may_have_place());
            }
        }
        std::mem::take(&mut looks)
    };
    assert_eq!(end_requests(&[&kept.1, &second.1, &other.1]), 0, "these make no room");
    assert_eq!(end_requests(&[&surplus.1]), 1);
    assert_eq!(end_requests(&[&surplus.1]), 0, "it was just looked");
    // The timer knows milliseconds.
    let while_after = IDLE_LOOK_INTERVAL + Duration::from_millis(1);
    for _ in 0..3 {
        tokio::time::advance(while_after).await;
        assert_eq!(end_requests(&[&surplus.1]), 1);
    }
    // What has ended between two looks is seen with the next one.
    assert_eq!(end_requests(&[&surplus.1]), 0);
    tokio::time::advance(while_after).await;
    assert_eq!(end_requests(&[]), 1);
    assert_eq!(end_requests(&[]), 0);
}

#[derive(Debug, Clone)]
enum Deed {
    Enter(u8, bool, bool),
    Authenticate(usize, bool),
    Serve(usize),
    Leave(usize),
    MakeRoom,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => (0..4u8, any::<bool>(), any::<bool>())
            .prop_map(|(last, is_busy, has_waited)| Deed::Enter(last, is_busy, has_waited)),
        2 => any::<(usize, bool)>().prop_map(|(index, is_new)| Deed::Authenticate(index, is_new)),
        2 => any::<usize>().prop_map(Deed::Serve),
        2 => any::<usize>().prop_map(Deed::Leave),
        1 => Just(Deed::MakeRoom),
    ]
}

proptest! {
    #[test]
    fn every_place_is_given_back_once(deeds in prop::collection::vec(deed(), 0..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("set up");
        runtime.block_on(async {
            let stream = stream().await;
            let limits = ConnectionLimits::new().max_connections(6).max_unauthenticated(4);
            let table = Table::new(limits.clone());
            let (mut places, mut authenticated) = (Vec::new(), HashSet::new());
            for deed in deeds {
                let at = |index: usize| (!places.is_empty()).then(|| index % places.len());
                match deed {
                    Deed::Enter(last, is_busy, has_waited) => {
                        let progress = Progress::new();
                        progress.active.send_replace(usize::from(is_busy));
                        let waited = if has_waited { BUSY_TIMEOUT } else { Duration::ZERO };
                        let place = table.enter(&stream, &progress, address(last), waited);
                        let state = table.lock();
                        if place.is_none() {
                            prop_assert_eq!(state.places, 6);
                            prop_assert!(!has_waited || state.surplus.is_empty());
                            prop_assert!(!state.surplus.is_empty() || state.waiting_count == 0);
                        }
                        places.extend(place);
                    }
                    Deed::Authenticate(index, is_new) => if let Some(at) = at(index) {
                        let place: &TableEntry = &places[at];
                        let mallory = "mallory".parse().expect("a name");
                        place.set_authenticated(&if is_new { anybody() } else { mallory });
                        if place.stage().is_kept {
                            authenticated.insert(place.number);
                        }
                    },
                    Deed::Serve(index) => if let Some(at) = at(index) {
                        places[at].set_served();
                    },
                    Deed::Leave(index) => if let Some(at) = at(index) {
                        places.swap_remove(at).leave();
                    },
                    Deed::MakeRoom => drop(table.make_room(Duration::ZERO)),
                }
                let state = table.lock();
                prop_assert!(state.waiting_count <= 4);
                prop_assert!(state.places <= 6, "{} places", state.places);
                let waiting: usize = state.waiting.values().map(BTreeMap::len).sum();
                prop_assert_eq!(waiting, state.waiting_count);
                prop_assert!(waiting + state.surplus.len() <= state.places);
                drop(state);
                for place in places.iter().filter(|place| authenticated.contains(&place.number)) {
                    prop_assert!(!is_evicted(place), "an authenticated one has to go");
                }
            }
            for place in places {
                place.leave();
            }
            let state = table.lock();
            prop_assert_eq!((state.places, state.leaving, state.waiting_count), (0, 0, 0));
            prop_assert!(state.surplus.is_empty());
            prop_assert!((0..6).map(|_| table.shares.take(&anybody())).collect::<Result<Vec<_>, _>>().is_ok());
            let counts = limits.counters.snapshot();
            prop_assert_eq!((counts.open, counts.unauthenticated), (0, 0));
            Ok(())
        })?;
    }
}

/// Who needs some round trips to authenticate is not pushed out by networks that each connect once.
#[tokio::test]
async fn of_many_networks_the_one_that_is_silent_for_longest_makes_room() {
    let stream = stream().await;
    tokio::time::pause();
    let table = Table::new(ConnectionLimits::new().max_unauthenticated(20));
    let begun = Progress::new();
    let first = enters(&table, &stream, &begun, 1);
    let mut others = Vec::new();
    for last in 2..=200 {
        tokio::time::advance(Duration::from_millis(10)).await;
        // Its round trips.
        if last % 10 == 0 {
            begun.has_read();
        }
        let progress = Progress::new();
        others.push(enters(&table, &stream, &progress, last));
        // Some begin something, and leave it there.
        if last % 2 == 0 {
            progress.has_read();
        }
    }
    assert!(!is_evicted(&first));
    let evicted: Vec<bool> = others.iter().map(is_evicted).collect();
    assert_eq!(evicted.iter().filter(|is_evicted| **is_evicted).count(), 180);
    assert!(evicted[..170].iter().all(|is_evicted| *is_evicted), "{evicted:?}");
}

/// A site has 65,536 networks of IPv6.
#[tokio::test]
async fn networks_of_one_site_make_room_for_others() {
    let stream = stream().await;
    let table = Table::new(ConnectionLimits::new().max_unauthenticated(6));
    let enter = |network: Network| {
        let place = table.enter(&stream, &Progress::new(), network, Duration::ZERO);
        place.expect("there is a place")
    };
    let mut others: Vec<_> = (1..=2).map(|_| enter(address(1))).collect();
    let of_site = |number: u16| {
        Network::Ip(std::net::Ipv6Addr::new(0x2001, 0xdb8, 1, number, 0, 0, 0, 0).into())
    };
    let places: Vec<_> = (1..=20).map(|number| enter(of_site(number))).collect();
    assert_eq!(places.iter().filter(|place| is_evicted(place)).count(), 16);
    others.push(enter(address(2)));
    assert!(!others.iter().any(is_evicted));
    assert_eq!(places.iter().filter(|place| is_evicted(place)).count(), 1, "one more");
}
