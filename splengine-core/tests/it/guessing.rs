use std::net::IpAddr;
use std::time::Duration;

use splengine_core::auth::{
    AuthError, CredentialSource, Credentials, GuessingPolicy, Revocation, Secret, StaticTokens,
};
use splengine_core::{Caller, Engine, LocalExecutor};
use tokio::task::JoinSet;
use tokio::time::{Instant, advance};

const RIGHT: &str = "alices-very-long-token";

struct Bench {
    engine: Engine,
    tokens: StaticTokens,
}

impl Bench {
    fn new(policy: GuessingPolicy) -> Self {
        let executor = LocalExecutor::new(std::env::temp_dir()).expect("set up");
        let engine = Engine::builder(executor).guessing(policy).build().expect("built");
        let mut tokens = StaticTokens::new();
        let alice = Caller::new("alice").expect("a name").with_all_scopes();
        tokens.insert(&Secret::new(RIGHT), alice).expect("long enough");
        Self { engine, tokens }
    }

    async fn show(&self, token: &str, source: &CredentialSource) -> Result<Caller, AuthError> {
        let shown = Credentials::Bearer(Secret::new(token));
        self.engine.authenticate(&self.tokens, shown, source).await
    }

    /// Until it is refused; says how often it was not.
    async fn guess(&self, source: &CredentialSource) -> usize {
        for guess in 0..1000 {
            match self.show(&format!("guess-{guess}"), source).await {
                Err(AuthError::Invalid) => {}
                Err(AuthError::Throttled { retry_after, .. }) => {
                    assert!(retry_after <= Duration::from_secs(60), "{retry_after:?}");
                    return guess;
                }
                other => panic!("{other:?}"),
            }
        }
        panic!("never refused")
    }
}

fn from(last: u8) -> CredentialSource {
    CredentialSource::new("http", Some([192, 0, 2, last].into()))
}

#[tokio::test(start_paused = true)]
async fn guesses_are_delayed_and_then_refused() {
    let bench = Bench::new(GuessingPolicy::new());
    let begun = Instant::now();
    bench.show("guess", &from(1)).await.expect_err("wrong");
    assert!(begun.elapsed() >= Duration::from_millis(200), "the answer is held back");
    assert!(begun.elapsed() <= Duration::from_secs(1));
    assert!((5..10).contains(&bench.guess(&from(1)).await));
    // On every server, even with what is right.
    let elsewhere = CredentialSource::new("avro", from(1).address());
    let refused = bench.show(RIGHT, &elsewhere).await;
    assert!(matches!(refused, Err(AuthError::Throttled { .. })), "{refused:?}");
    assert!(bench.engine.blocked_for(&elsewhere).is_some());
    assert!(bench.show(RIGHT, &from(2)).await.is_ok(), "others are not");
    let stats = bench.engine.stats();
    let [("http", failures)] = stats.authentication_failures[..] else { panic!("{stats:?}") };
    assert!((6..11).contains(&failures), "{failures}");
    assert_eq!((stats.authentications_refused, stats.blocked_addresses), (3, 1));
    advance(Duration::from_secs(60)).await;
    assert!(bench.show(RIGHT, &from(1)).await.is_ok(), "and not for ever");
    assert_eq!(bench.engine.stats().penalised_addresses, 0);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_has_shown_what_is_right_goes_on_with_that() {
    let bench = Bench::new(GuessingPolicy::new());
    let before = from(1);
    assert!(bench.show(RIGHT, &before).await.is_ok());
    bench.guess(&from(1)).await;
    assert!(bench.show(RIGHT, &before).await.is_ok());
    let guess = bench.show("another-guess", &before).await;
    assert!(matches!(guess, Err(AuthError::Throttled { .. })), "{guess:?}");
    assert!(bench.show(RIGHT, &before).await.is_ok());
    assert!(bench.show(RIGHT, &from(1)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn nothing_that_is_shown_is_no_guess() {
    let everyone = Caller::new("guest").expect("a name").with_all_scopes();
    let mut bench = Bench::new(GuessingPolicy::new());
    for _ in 0..100 {
        let nothing = bench.engine.authenticate(&bench.tokens, Credentials::None, &from(1)).await;
        assert!(matches!(nothing, Err(AuthError::Missing)), "{nothing:?}");
    }
    assert!(bench.show(RIGHT, &from(1)).await.is_ok());
    assert!(bench.engine.stats().authentication_failures.is_empty());
    bench.guess(&from(1)).await;
    bench.tokens = std::mem::take(&mut bench.tokens).allow_anonymous(everyone);
    let nothing = bench.engine.authenticate(&bench.tokens, Credentials::None, &from(1)).await;
    assert!(nothing.is_ok());
}

#[tokio::test(start_paused = true)]
async fn exempt_addresses_are_counted_only() {
    let proxy: IpAddr = [192, 0, 2, 1].into();
    let bench = Bench::new(GuessingPolicy::new().exempt([proxy.into()]));
    for guess in 0..100 {
        bench.show(&format!("guess-{guess}"), &from(1)).await.expect_err("wrong");
    }
    assert!(bench.show(RIGHT, &from(1)).await.is_ok());
    assert_eq!(bench.engine.stats().authentication_failures, [("http", 100)]);
}

#[tokio::test(start_paused = true)]
async fn who_was_taken_out_is_nobody() {
    let bench = Bench::new(GuessingPolicy::new());
    let revocation = Revocation::new();
    let bob = Caller::new("bob").expect("a name").with_all_scopes().revocable(&revocation);
    let mut tokens = StaticTokens::new();
    tokens.insert(&Secret::new("bobs-very-long-token"), bob).expect("long enough");
    let shown = Credentials::Bearer(Secret::new("bobs-very-long-token"));
    assert!(bench.engine.authenticate(&tokens, shown.clone(), &from(1)).await.is_ok());
    revocation.revoke();
    let refused = bench.engine.authenticate(&tokens, shown, &from(1)).await;
    assert!(matches!(refused, Err(AuthError::Invalid)), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn one_users_password_is_guessed_slowly_from_wherever() {
    let bench = Bench::new(GuessingPolicy::new());
    let wrong = async |user: &str, last| {
        let password = Secret::new(format!("guess-{last}"));
        let check = async { Err::<(), _>(AuthError::Invalid) };
        bench.engine.check_password(user, &password, &from(last), check).await
    };
    let begun = Instant::now();
    for last in 0..100 {
        let refused = wrong("alice", last).await;
        assert!(matches!(refused, Err(AuthError::Invalid)), "{refused:?}");
    }
    let elapsed = begun.elapsed();
    assert!(elapsed >= Duration::from_secs(90), "{elapsed:?}");
    // Others do not wait, and who knows it waits a bounded time and then is in.
    let begun = Instant::now();
    wrong("bob", 200).await.expect_err("wrong");
    assert!(begun.elapsed() <= Duration::from_secs(1));
    let right = Secret::new("right");
    let known = bench.engine.check_password("alice", &right, &from(201), async { Ok(()) }).await;
    assert!(known.is_ok());
    assert!(begun.elapsed() <= Duration::from_secs(12), "{:?}", begun.elapsed());
    let all_at_once = async || {
        let mut attempts = JoinSet::new();
        for last in 0..200 {
            let (engine, password) = (bench.engine.clone(), Secret::new(format!("guess-{last}")));
            attempts.spawn(async move {
                let check = async { Err::<(), _>(AuthError::Invalid) };
                engine.check_password("carol", &password, &from(last), check).await
            });
        }
        let refused = |attempt: &Result<_, _>| matches!(attempt, Err(AuthError::Throttled { .. }));
        attempts.join_all().await.iter().filter(|attempt| refused(attempt)).count()
    };
    assert!(all_at_once().await > 150, "few are looked at at once, and few more wait");
}
