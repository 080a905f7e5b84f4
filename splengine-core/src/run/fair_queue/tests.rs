use proptest::prelude::*;

use super::*;

fn user(name: &str) -> UserName {
    name.parse().expect("valid")
}

fn capacity(
    running: usize,
    per_caller: usize,
    waiting: usize,
    waiting_per_caller: usize,
) -> Capacity {
    Capacity { running, running_per_caller: per_caller, waiting, waiting_per_caller }
}

#[test]
fn callers_take_turns() {
    let mut fair_queue = FairQueue::new(capacity(1, 1, 100, 100));
    let (many, single) = (user("many"), user("single"));
    assert_eq!(fair_queue.offer(&many), Offer::Run);
    for _ in 0..50 {
        assert!(matches!(fair_queue.offer(&many), Offer::Wait(_)));
    }
    let Offer::Wait(last) = fair_queue.offer(&single) else { panic!("there is no room") };
    fair_queue.release(&many).expect("somebody waits");
    let turn = fair_queue.release(&many);
    assert_eq!(turn, Some(last), "after one of the other caller's fifty");
}

#[test]
fn the_bounds_are_told_apart() {
    let mut fair_queue = FairQueue::new(capacity(1, 1, 2, 1));
    let (a, b, c) = (user("a"), user("b"), user("c"));
    assert_eq!(fair_queue.offer(&a), Offer::Run);
    assert!(matches!(fair_queue.offer(&a), Offer::Wait(_)));
    assert_eq!(fair_queue.offer(&a), Offer::CallerLimit(1));
    assert!(matches!(fair_queue.offer(&b), Offer::Wait(_)));
    assert_eq!(fair_queue.offer(&c), Offer::Full);
}

#[derive(Debug, Clone)]
enum Step {
    Offer(u8),
    Release(usize),
    Withdraw(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0u8..4).prop_map(Step::Offer),
        2 => any::<usize>().prop_map(Step::Release),
        1 => any::<usize>().prop_map(Step::Withdraw),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    #[test]
    fn bounds_hold_and_no_place_stays_free(
        steps in steps(),
        running in 1usize..5,
        per_caller in 1usize..4,
        waiting in 0usize..8,
        waiting_per_caller in 0usize..5,
    ) {
        let mut fair_queue = FairQueue::new(capacity(running, per_caller, waiting, waiting_per_caller));
        let mut runs: Vec<UserName> = Vec::new();
        let mut queue: Vec<(UserName, QueuePosition)> = Vec::new();
        for step in steps {
            match step {
                Step::Offer(n) => {
                    let user = user(&format!("u{n}"));
                    match fair_queue.offer(&user) {
                        Offer::Run => runs.push(user),
                        Offer::Wait(position) => queue.push((user, position)),
                        Offer::CallerLimit(_) | Offer::Full => {}
                    }
                }
                Step::Release(n) if !runs.is_empty() => {
                    let user = runs.swap_remove(n % runs.len());
                    if let Some(next) = fair_queue.release(&user) {
                        let place = queue.iter().position(|(_, waiting)| *waiting == next);
                        prop_assert!(place.is_some(), "only who waits is called");
                        let called = queue[place.expect("checked")].0.clone();
                        let first = queue.iter().position(|(user, _)| *user == called);
                        prop_assert_eq!(place, first, "in the order they came");
                        queue.remove(place.expect("checked"));
                        runs.push(called);
                    }
                }
                Step::Withdraw(n) if !queue.is_empty() => {
                    let (user, position) = queue.remove(n % queue.len());
                    prop_assert!(fair_queue.withdraw(&user, position));
                    prop_assert!(!fair_queue.withdraw(&user, position));
                }
                Step::Release(_) | Step::Withdraw(_) => {}
            }
            prop_assert_eq!(fair_queue.running(), runs.len());
            prop_assert_eq!(fair_queue.waiting(), queue.len());
            prop_assert!(runs.len() <= running && queue.len() <= waiting);
            for n in 0..4 {
                let user = user(&format!("u{n}"));
                let mine = runs.iter().filter(|&u| *u == user).count();
                let waits = queue.iter().filter(|(u, _)| *u == user).count();
                prop_assert!(mine <= per_caller && waits <= waiting_per_caller);
                prop_assert!(
                    waits == 0 || runs.len() == running || mine == per_caller,
                    "{} waits though it may run", user
                );
            }
        }
        for user in runs.drain(..) {
            fair_queue.release(&user);
        }
    }
}
