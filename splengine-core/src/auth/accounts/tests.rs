use proptest::prelude::*;

use super::*;
use crate::auth::Scope;
use crate::auth::Secret;

fn user(name: &str) -> UserName {
    name.parse().expect("a name")
}

fn hash(number: u8) -> TokenHash {
    TokenHash::of(&Secret::new(format!("token-with-number-{number}"))).expect("well-formed")
}

fn scopes(scopes: &[Scope]) -> Scopes {
    scopes.iter().copied().collect()
}

fn by_token(accounts: &Accounts, number: u8) -> Option<Caller> {
    TokenHash::find(&Secret::new(format!("token-with-number-{number}")), &accounts.read().tokens)
        .map(Account::caller)
}

fn list(tokens: &[(u8, &str, &[Scope])]) -> AccountList {
    let mut list = AccountList::new();
    for (number, name, of_token) in tokens {
        list.token(hash(*number), user(name), scopes(of_token)).expect("taken");
    }
    list
}

#[test]
fn rights_come_from_one_source() {
    let all = list(&[
        (1, "alice", &[Scope::Execute]),
        (2, "alice", &[Scope::Files]),
        (3, "bob", &[Scope::Execute, Scope::Sessions]),
    ]);
    assert_eq!(all.rights(&user("alice")), scopes(&[Scope::Execute, Scope::Files]));
    assert_eq!(all.rights(&user("carol")), Scopes::USER, "named nowhere");
    assert_eq!(all.users_with_excess_scopes().count(), 0);

    let bounded = all
        .user(user("bob"), scopes(&[Scope::Watch, Scope::Files]))
        .others(scopes(&[Scope::Files, Scope::Watch]));
    assert_eq!(bounded.rights(&user("alice")), scopes(&[Scope::Files]));
    assert_eq!(bounded.rights(&user("bob")), scopes(&[Scope::Watch, Scope::Files]));
    assert_eq!(bounded.rights(&user("carol")), scopes(&[Scope::Files, Scope::Watch]));
    let users_with_excess_scopes: Vec<_> =
        bounded.users_with_excess_scopes().map(UserName::as_str).collect();
    assert_eq!(users_with_excess_scopes, ["alice", "bob"]);
    let accounts = Accounts::new(bounded);
    let of_token = |number| by_token(&accounts, number).expect("there").scopes();
    assert_eq!(of_token(1), Scopes::NONE);
    assert_eq!(of_token(3), scopes(&[Scope::Watch]), "of `sessions` that is left");
}

#[test]
fn one_token_is_one_users() {
    let mut all = list(&[(1, "alice", &[Scope::Execute])]);
    all.token(hash(1), user("alice"), scopes(&[Scope::Execute])).expect("the same again");
    let other = all.token(hash(1), user("bob"), Scopes::ALL);
    assert_eq!(other, Err(TokenError::Shared(user("alice"), user("bob"))));
    assert_eq!(
        all.token(hash(1), user("alice"), Scopes::ALL),
        Err(TokenError::Twice(user("alice")))
    );
}

#[test]
fn to_lose_the_last_token_gives_no_rights() {
    let accounts = Accounts::new(list(&[(1, "alice", &[Scope::Watch])]));
    let alice = accounts.caller(&user("alice"));
    assert!(alice.may(Scope::Watch) && !alice.may(Scope::Execute));
    for _ in 0..2 {
        accounts.replace(list(&[(2, "bob", &[])]));
        assert!(alice.is_revoked());
        assert_eq!(accounts.caller(&user("alice")).scopes(), Scopes::NONE);
        assert_eq!(accounts.caller(&user("carol")).scopes(), Scopes::USER, "who never had one");
    }
    accounts.replace(list(&[]).user(user("alice"), scopes(&[Scope::Files])));
    assert_eq!(accounts.caller(&user("alice")).scopes(), scopes(&[Scope::Files]));
    accounts.replace(list(&[(3, "alice", &[Scope::Execute])]));
    assert_eq!(accounts.caller(&user("alice")).scopes(), scopes(&[Scope::Execute]));
}

#[test]
fn to_be_named_no_more_gives_no_rights() {
    let watch = scopes(&[Scope::Watch]);
    let accounts = Accounts::new(AccountList::new().user(user("alice"), watch));
    assert_eq!(accounts.caller(&user("alice")).scopes(), watch);
    accounts.replace(AccountList::new());
    assert_eq!(accounts.caller(&user("alice")).scopes(), Scopes::NONE);
}

#[test]
fn nothing_of_a_token_is_shown() {
    let all = list(&[(1, "alice", &[])]);
    let text = format!("{all:?} {:?} {:?}", Accounts::new(all.clone()), hash(1));
    assert!(!text.contains(&hash(1).to_string()[8..20]), "{text}");
}

#[test]
fn who_is_forgotten_was_nobody_any_more() {
    let accounts = Accounts::new(AccountList::new());
    let kept = accounts.caller(&user("alice"));
    for number in 0..3 * MAX_IDLE_USERS {
        drop(accounts.caller(&user(&format!("user-{number}"))));
    }
    assert!(accounts.read().users.len() <= MAX_IDLE_USERS);
    accounts.replace(AccountList::new().user(user("alice"), Scopes::NONE));
    assert!(kept.is_revoked());
    assert_eq!(accounts.read().users.len(), 1);
}

/// Of three users, each of whom may have a line of their own, and four tokens.
fn any_list() -> impl Strategy<Value = AccountList> {
    let any_scopes = || {
        (0..1_u8 << Scope::ALL.len()).prop_map(|bits| {
            Scope::ALL
                .iter()
                .copied()
                .filter(move |scope| bits & (1 << *scope as u8) != 0)
                .collect::<Scopes>()
        })
    };
    let users = prop::collection::btree_map(0..3_u8, any_scopes(), 0..3);
    let tokens = prop::collection::btree_map(0..4_u8, (0..3_u8, any_scopes()), 0..4);
    let anonymous = prop::option::of(0..3_u8);
    (users, tokens, any_scopes(), anonymous).prop_map(|(users, tokens, others, anonymous)| {
        let name = |number: u8| user(&format!("user-{number}"));
        let mut list = AccountList::new().others(others);
        for (number, scopes) in users {
            list = list.user(name(number), scopes);
        }
        for (number, (of, scopes)) in tokens {
            list.token(hash(number), name(of), scopes).expect("taken");
        }
        match anonymous {
            Some(number) => list.allow_anonymous(name(number)),
            None => list,
        }
    })
}

fn everybody(accounts: &Accounts) -> Vec<Option<Caller>> {
    let tokens = (0..4).map(|number| by_token(accounts, number));
    let users = (0..3).map(|number| Some(accounts.caller(&user(&format!("user-{number}")))));
    let nobody = accounts.read().anonymous.as_ref().map(Account::caller);
    tokens.chain(users).chain([nobody]).collect()
}

proptest! {
    #[test]
    fn who_has_less_is_revoked_and_nobody_else(lists in prop::collection::vec(any_list(), 2..5)) {
        let accounts = Accounts::new(lists[0].clone());
        for list in &lists[1..] {
            let before = everybody(&accounts);
            accounts.replace(list.clone());
            for (before, after) in before.iter().zip(everybody(&accounts)) {
                let Some(before) = before else { continue };
                let goes_on = after.as_ref().is_some_and(|after| {
                    before.user() == after.user() && before.scopes().is_within(after.scopes())
                });
                prop_assert_eq!(before.is_revoked(), !goes_on);
                prop_assert!(after.is_none_or(|after| !after.is_revoked()));
            }
        }
        for caller in everybody(&accounts).into_iter().flatten() {
            prop_assert!(caller.scopes().is_within(accounts.read().list.rights(caller.user())));
        }
    }
}
