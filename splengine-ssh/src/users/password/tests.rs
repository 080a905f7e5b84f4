use argon2::{CustomizedPasswordHasher as _, Version};

use super::*;
use crate::users::testing::{Dir, chmod};

fn hash_with(algorithm: &str, params: Params, password: &str) -> String {
    let version = Some(Version::V0x13.into());
    Argon2::default()
        .hash_password_customized(
            password.as_bytes(),
            b"salty salt",
            Some(algorithm),
            version,
            params,
        )
        .expect("a hash")
        .to_string()
}

fn hash(password: &str) -> String {
    hash_with("argon2id", Params::new(64, 1, 1, None).expect("fits"), password)
}

fn error(line: &str) -> PasswordLineError {
    parse(line).expect_err(line)
}

#[tokio::test]
async fn the_right_password_lets_in() {
    let dir = Dir::new();
    let path = dir.write("p", &format!("# ours\n\nalice:{}\n bob:{}\r\n", hash("a ü"), hash("b")));
    let passwords = Passwords::new(path.clone());
    let verify =
        async |user: &str, password: &str| passwords.verify(user, &Secret::new(password)).await;
    assert!(verify("alice", "a ü").await.is_ok());
    assert!(verify("bob", "b").await.is_ok());
    for (user, password) in
        [("alice", "b"), ("bob", "a ü"), ("carol", "b"), ("carol", "a ü"), ("", "b"), ("a/b", "b")]
    {
        assert_eq!(verify(user, password).await, Err(Refusal::Password), "{user} {password}");
    }
    for password in ["", &"x".repeat(MAX_PASSWORD_BYTES + 1)] {
        assert_eq!(
            verify("alice", password).await,
            Err(Refusal::PasswordLength { max_bytes: MAX_PASSWORD_BYTES })
        );
    }
    // What is written later counts, with what is wrong in it left out.
    dir.write("p", &format!("nonsense\nalice:{}\nalice:{}", hash("new"), hash("newer")));
    assert!(verify("alice", "new").await.is_ok());
    assert_eq!(verify("alice", "newer").await, Err(Refusal::Password));
    assert_eq!(verify("bob", "b").await, Err(Refusal::Password));
    let error = Passwords::new(path.clone()).check().expect_err("malformed").to_string();
    assert!(error.contains("/p`, line 1: it is not `user:$argon2id$"), "{error}");
    dir.write("p", &format!("alice:{}\nalice:{}", hash("new"), hash("newer")));
    let error = Passwords::new(path.clone()).check().expect_err("twice").to_string();
    assert!(error.contains("/p`, line 2: its user has a line already"), "{error}");
    chmod(&path, 0o666);
    assert_eq!(verify("alice", "new").await, Err(Refusal::Files));
    dir.write("p", "");
    assert_eq!(verify("alice", "new").await, Err(Refusal::Password));
}

#[test]
fn a_stranger_costs_as_much_as_a_user() {
    let known: Vec<_> = ["alice", "bob", "carol"]
        .iter()
        .map(|user| parse(&format!("{user}:{}", hash(user))).expect("a line"))
        .collect();
    for lot in 0..6 {
        let (picked, is_own) = pick(&known, lot, "mallory").expect("somebody's");
        assert!(!is_own && *picked == known[lot as usize % 3].1);
        let (picked, is_own) = pick(&known, lot, "bob").expect("bob's");
        assert!(is_own && *picked == known[1].1);
        let user = known[lot as usize % 3].0.as_str();
        let of_another = check(&known, lot, "mallory", &Secret::new(user));
        assert_eq!(of_another, Err(Refusal::Password), "though it matches");
    }
    assert!(pick(&[], 3, "mallory").is_none());
}

#[tokio::test]
async fn no_more_than_so_many_wait() {
    let dir = Dir::new();
    let path = dir.write("p", &format!("alice:{}", hash("a")));
    let passwords = Passwords::new(path);
    let all = u32::try_from(AT_ONCE + WAITING).expect("few");
    let held = passwords.places.acquire_many(all).await.expect("open");
    assert_eq!(passwords.verify("alice", &Secret::new("a")).await, Err(Refusal::Busy));
    drop(held);
    assert!(passwords.verify("alice", &Secret::new("a")).await.is_ok());
}

#[test]
fn hashes_are_of_argon2id_and_within_bounds() {
    let good = format!("alice:{}", hash("hunter2"));
    assert!(parse(&good).is_ok());
    for bad in ["alice", "alice:", "alice:x", "alice:hunter2", "-a:$argon2id$v=19", ":$argon2id"] {
        assert_eq!(error(bad), PasswordLineError::Form, "{bad}");
    }
    let params = |m, t, p, length| Params::new(m, t, p, length).expect("fits");
    for other in ["argon2i", "argon2d"] {
        let hash = hash_with(other, params(64, 1, 1, None), "x");
        assert_eq!(error(&format!("a:{hash}")), PasswordLineError::Algorithm);
    }
    assert_eq!(error("a:$2b$12$abcdefgh"), PasswordLineError::Form);
    let short = hash_with("argon2id", params(64, 1, 1, Some(12)), "x");
    assert_eq!(error(&format!("a:{short}")), PasswordLineError::Bounds);
    for (from, to, expected) in [
        ("v=19", "v=16", PasswordLineError::Version),
        ("$v=19", "", PasswordLineError::Version),
        ("m=64", "m=1048577", PasswordLineError::Bounds),
        ("t=1", "t=65", PasswordLineError::Bounds),
        ("p=1", "p=17", PasswordLineError::Bounds),
        ("p=1", "p=1,keyid=AAAA", PasswordLineError::Bounds),
        ("m=64", "m=4294967295", PasswordLineError::Bounds),
        ("p=1", "p=1,x=1", PasswordLineError::Bounds),
    ] {
        assert_eq!(error(&good.replace(from, to)), expected, "{to}");
    }
    assert!(parse(&good.replace("m=64,t=1,p=1", "m=1048576,t=64,p=16")).is_ok());
}
