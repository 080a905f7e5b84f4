//! The memory that an engine and all of its servers share.

use splengine_core::quota::{CallerBudgets, MemoryError};
use splengine_core::{Caller, Engine, LocalExecutor, Request, UserName};

const MIB: usize = 1 << 20;

fn engine(max_buffered_bytes: usize) -> Engine {
    let executor = LocalExecutor::new(".").expect("an executor");
    Engine::builder(executor).max_buffered_bytes(max_buffered_bytes).build().expect("an engine")
}

fn user(name: &str) -> UserName {
    name.parse().expect("a name")
}

#[tokio::test]
async fn what_a_caller_holds_of_all_budgets_is_bounded_together() {
    let engine = engine(8 * MIB);
    let [bodies, answers] = [(); 2].map(|()| CallerBudgets::new(&engine.memory_budget(8 * MIB)));
    let (alice, bob) = (user("alice"), user("bob"));
    let mut body = bodies.of(&alice).reservation();
    body.try_resize(3 * MIB).expect("less than half of all");
    let mut answer = answers.of(&alice).reservation();
    answer.try_resize(3 * MIB).expect("one reservation may go beyond");
    for budgets in [&bodies, &answers] {
        let refused = budgets.of(&alice).reservation().try_resize(MIB);
        assert_eq!(refused, Err(MemoryError::CallerLimit));
        budgets.of(&bob).reservation().try_resize(MIB).expect("half of what alice leaves");
    }
    drop(answer);
    answers.of(&alice).reservation().try_resize(MIB).expect("half of all again");
}

#[tokio::test]
async fn who_is_not_known_has_a_part_of_all_and_moves_it_to_their_share() {
    let engine = engine(8 * MIB);
    let budget = engine.memory_budget(8 * MIB);
    let callers = CallerBudgets::new(&budget);
    let mut message = budget.share(2 * MIB).reservation();
    message.try_resize(MIB).expect("within the share");
    let alice = user("alice");
    let timeout = std::time::Duration::from_secs(20);
    message.move_to(&callers.of(&alice), timeout).await.expect("within alice's share");
    assert_eq!(callers.of(&alice).available(), 3 * MIB);
    assert_eq!(budget.available(), 7 * MIB, "it stays a part of all");
    let mut other = CallerBudgets::new(&engine.memory_budget(8 * MIB)).of(&alice).reservation();
    other.try_resize(3 * MIB).expect("up to half of all");
    let mut third = callers.of(&alice).reservation();
    third.try_resize(MIB).expect("one reservation may go beyond");
    assert!(callers.of(&alice).reservation().try_resize(MIB).is_err(), "alice has their half");
}

#[tokio::test]
async fn captured_output_takes_of_the_memory_of_the_engine() {
    let engine = engine(2 * MIB);
    let alice = Caller::from(user("alice")).with_all_scopes();
    let budgets = CallerBudgets::new(&engine.memory_budget(2 * MIB));
    let printing = || Request::new("head -c 1000000 /dev/zero");
    let whole = engine.execute(&alice, printing()).await.expect("runs").capture().await;
    assert_eq!(whole.stdout.len(), 1_000_000);
    assert!(budgets.of(alice.user()).reservation().try_resize(MIB).is_ok(), "one goes beyond");
    let mut held = budgets.of(alice.user()).reservation();
    drop(whole);
    held.try_resize(MIB).expect("half of all");
    let cut = engine.execute(&alice, printing()).await.expect("runs").capture().await;
    assert!(cut.end.stdout_truncated, "there is no memory for the middle of it");
}
