use tokio::time::timeout;

use super::*;

const MIB: usize = 1 << 20;

async fn waits(reservation: &mut Reservation, bytes: usize) -> bool {
    timeout(Duration::from_millis(20), reservation.resize(bytes)).await.is_err()
}

#[tokio::test]
async fn what_went_beyond_the_bound_comes_back_within_it() {
    let budget = MemoryBudget::new(4 * MIB);
    let mut large = budget.reservation();
    large.try_resize(10 * MIB).expect("one may go beyond");
    let mut other = budget.reservation();
    other.try_resize(4 * MIB).expect("within the bound");
    let mut third = budget.reservation();
    assert!(third.try_resize(10 * MIB).is_err(), "one goes beyond already");
    drop(other);
    large.try_resize(MIB).expect("it is less");
    assert_eq!(budget.available(), 3 * MIB);
    third.try_resize(10 * MIB).expect("none goes beyond any more");
    large.try_resize(MIB / 2).expect("it is less");
    drop((large, third));
    assert_eq!(budget.available(), 4 * MIB);
}

#[tokio::test(start_paused = true)]
async fn what_one_holds_another_waits_for() {
    let budget = MemoryBudget::new(MIB);
    let [mut first, mut second, mut third] =
        [(); 3].map(|()| budget.reservation().allowance(64 << 10));
    let own = 64 << 10;
    assert!(!waits(&mut first, own + (900 << 10)).await);
    assert!(!waits(&mut second, own).await);
    // One may go beyond, as far as it likes, and no other.
    assert!(!waits(&mut second, own + (200 << 10)).await);
    assert!(!waits(&mut second, 16 * MIB).await);
    assert!(waits(&mut third, own + (200 << 10)).await);
    assert!(waits(&mut first, 16 * MIB).await);
    second.resize(0).await;
    assert!(!waits(&mut first, 16 * MIB).await);
    assert!(waits(&mut third, own + (200 << 10)).await);
    drop(first);
    assert!(!waits(&mut third, own + MIB).await);
    assert_eq!(budget.available(), 0);
    third.resize(own + MIB / 2).await;
    assert_eq!(budget.available(), MIB / 2);
    drop(third);
    assert_eq!(budget.available(), MIB);
}

#[tokio::test(start_paused = true)]
async fn a_share_never_takes_the_whole() {
    let budget = MemoryBudget::new(MIB);
    let share = budget.share(MIB / 4);
    let (mut first, mut second, mut third) =
        (share.reservation(), share.reservation(), share.reservation());
    assert!(!waits(&mut first, MIB / 4).await);
    assert_eq!((share.available(), budget.available()), (0, MIB * 3 / 4));
    assert!(!waits(&mut second, MIB / 8).await);
    assert!(waits(&mut third, 4096).await);
    assert!(!waits(&mut budget.reservation(), MIB / 2).await);
    drop((first, second));
    assert_eq!((share.available(), budget.available()), (MIB / 4, MIB));
    assert!(!waits(&mut third, 4096).await);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_says_whose_memory_is_used_up() {
    const WAIT: Duration = Duration::from_secs(5);
    let user = |name: &str| name.parse().expect("a name");
    let budget = MemoryBudget::new(MIB);
    let budgets = CallerBudgets::new(&budget);
    let mut held = Vec::new();
    let mut reserve = async |name| {
        let mut reservation = budgets.of(&user(name)).reservation();
        let reserved = reservation.resize_within(MIB / 2, WAIT).await;
        assert_eq!(reserved.err(), reservation.shortage());
        if reserved.is_ok() {
            held.push(reservation);
        }
        reserved
    };
    // Half of it, and one beyond.
    assert_eq!(reserve("alice").await, Ok(()));
    assert_eq!(reserve("alice").await, Ok(()));
    assert_eq!(reserve("alice").await, Err(MemoryError::CallerLimit));
    // One beyond the whole.
    assert_eq!(reserve("bob").await, Ok(()));
    assert_eq!(reserve("carol").await, Err(MemoryError::Unavailable));
    // Nor would it help alice if hers were free.
    assert_eq!(reserve("alice").await, Err(MemoryError::Unavailable));
    // The same at once.
    let mut late = budgets.of(&user("dora")).reservation();
    assert_eq!(late.try_resize(4096), Err(MemoryError::Unavailable));
    held.truncate(2);
    assert_eq!(late.try_resize(0), Ok(()));
    let mut own = budgets.of(&user("alice")).reservation();
    assert_eq!(own.try_resize(4096), Err(MemoryError::CallerLimit));
    held.clear();
    assert_eq!(own.try_resize(MIB / 4), Ok(()));
    assert_eq!(budget.available(), MIB * 3 / 4);
    drop(own);
    assert_eq!(budget.available(), MIB);
    assert_eq!(budgets.of(&user("alice")).available(), MIB / 2);
}

#[tokio::test(start_paused = true)]
async fn a_caller_waits_until_others_leave_more() {
    let budget = MemoryBudget::new(MIB);
    let budgets = CallerBudgets::new(&budget);
    let [alice, bob] = ["alice", "bob"].map(|name| budgets.of(&name.parse().expect("a name")));
    let mut first = alice.reservation();
    assert!(!waits(&mut first, MIB / 2).await);
    assert_eq!((alice.available(), bob.available()), (0, MIB / 4));
    // One beyond the share; what is beyond counts as well.
    let (mut beyond, mut second) = (bob.reservation(), bob.reservation());
    assert!(!waits(&mut beyond, MIB * 3 / 8).await);
    assert!(waits(&mut second, 4096).await);
    assert_eq!(second.shortage(), Some(MemoryError::CallerLimit));
    let waiting = tokio::spawn(async move {
        second.resize(MIB / 8).await;
        second
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished());
    first.resize(0).await;
    let second = timeout(Duration::from_secs(60), waiting).await.expect("woken").expect("ends");
    assert_eq!(budget.available(), MIB / 2);
    // Whoever went beyond is within it now, and another may.
    beyond.resize(MIB / 8).await;
    let mut other = bob.reservation();
    assert!(!waits(&mut other, MIB / 2).await);
    drop((first, beyond, second, other));
    assert_eq!((bob.available(), budget.available()), (MIB / 2, MIB));
    assert!(budgets.callers.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_moved_to_another_share_is_reserved_once_of_all() {
    let budget = MemoryBudget::new(MIB);
    let (first, second) = (budget.share(MIB), budget.share(MIB / 2));
    let mut reservation = first.reservation().allowance(4096);
    reservation.resize(MIB).await;
    // All that there is, and all that goes beyond a share.
    reservation.move_to(&second, Duration::from_secs(5)).await.expect("it goes beyond");
    assert_eq!((first.available(), budget.available()), (MIB, 4096));
    let mut refused = first.reservation();
    refused.resize(4096).await;
    let moved = refused.move_to(&second, Duration::from_secs(5)).await;
    assert_eq!(moved, Ok(()), "there is memory of that share");
    assert_eq!(second.available(), MIB / 2 - 4096);
    refused.resize(0).await;
    reservation.resize(8192).await;
    // What is left of it comes back within the share.
    assert_eq!((second.available(), budget.available()), (MIB / 2 - 4096, MIB - 4096));
    let mut most = second.reservation();
    most.resize(MIB / 2 - 4096).await;
    let mut beyond = second.reservation();
    beyond.resize(MIB / 8).await;
    let mut late = first.reservation();
    late.resize(MIB / 4).await;
    let moved = late.move_to(&second, Duration::from_secs(5)).await;
    assert_eq!(moved, Err(MemoryError::Unavailable));
    assert_eq!(first.available(), MIB * 3 / 4);
    drop((reservation, most, beyond, late));
    assert_eq!((first.available(), second.available()), (MIB, MIB / 2));
    assert_eq!(budget.available(), MIB);
}
