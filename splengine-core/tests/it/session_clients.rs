//! Bounds on the clients of one session: guests leave places to its owner.

use std::time::Duration;

use splengine_core::auth::Access;
use splengine_core::session::{Attach, Attachment, ClientsOf, SessionPolicy};
use splengine_core::{Caller, Engine, ErrorKind, LocalExecutor, SessionError, SessionRequest};

use crate::support::caller;

fn engine(policy: SessionPolicy) -> Engine {
    let executor = LocalExecutor::new(std::env::temp_dir()).expect("set up");
    let grace = Duration::from_millis(500);
    Engine::builder(executor).grace(grace).sessions(policy).build().expect("built")
}

/// A guest of a share of its own.
fn invited(engine: &Engine, owner: &Caller, session: &str) -> Caller {
    let (sessions, minute) = (engine.sessions(), Duration::from_secs(60));
    let (_, ticket) = sessions.share(owner, session, Access::View, minute).expect("shared");
    sessions.redeem(&ticket).expect("valid")
}

/// Attaches clients until one is refused.
fn attach_all(
    engine: &Engine,
    who: &Caller,
    session: &str,
) -> (Vec<Attachment>, ClientsOf, usize, SessionError) {
    let mut attached = Vec::new();
    loop {
        match engine.sessions().attach(who, session, Attach::new(Access::View)) {
            Ok(attachment) => attached.push(attachment),
            Err(error) => {
                let SessionError::ClientsFull { of, limit } = error else { panic!("{error}") };
                return (attached, of, limit, error);
            }
        }
        assert!(attached.len() < 1000, "there is no bound");
    }
}

#[tokio::test]
async fn guests_leave_places_of_a_session_to_its_owner() {
    let engine = engine(SessionPolicy::new());
    let alice = caller("alice");
    let session = engine.sessions().create(&alice, SessionRequest::new().command("cat")).await;
    let id = session.expect("starts").id;
    let id = id.as_str();

    let first = invited(&engine, &alice, id);
    let (mut held, of, limit, error) = attach_all(&engine, &first, id);
    assert_eq!((held.len(), of, limit), (8, ClientsOf::Share, 8));
    assert_eq!(error.kind(), ErrorKind::CallerLimit);
    assert!(error.to_string().contains("your share"), "{error}");

    // However many shares there are, a quarter of the places is left.
    for _ in 1..6 {
        held.extend(attach_all(&engine, &invited(&engine, &alice, id), id).0);
    }
    assert_eq!(held.len(), 48);
    let (none, of, limit, error) = attach_all(&engine, &invited(&engine, &alice, id), id);
    assert!(none.is_empty());
    assert_eq!((of, limit), (ClientsOf::Guests, 48));
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("kept for its owner"), "{error}");

    let (own, of, limit, error) = attach_all(&engine, &alice, id);
    assert_eq!((own.len(), of, limit), (16, ClientsOf::Session, 64));
    assert!(error.to_string().contains("revoke a share"), "{error}");

    // A client that leaves gives its place back.
    held.truncate(7);
    assert_eq!(attach_all(&engine, &first, id).0.len(), 1);
    drop((held, own));
    engine.sessions().end(&alice, id).await.expect("ends");
}

#[tokio::test]
async fn the_owner_of_a_session_with_few_places_has_one() {
    for (max_clients, guests) in [(1, 0), (2, 1), (3, 2), (4, 3), (5, 3)] {
        let engine = engine(SessionPolicy::new().max_clients(max_clients));
        let alice = caller("alice");
        let session = engine.sessions().create(&alice, SessionRequest::new().command("cat")).await;
        let id = session.expect("starts").id;
        let guest = invited(&engine, &alice, id.as_str());
        let (held, ..) = attach_all(&engine, &guest, id.as_str());
        let (own, ..) = attach_all(&engine, &alice, id.as_str());
        assert_eq!((held.len(), own.len()), (guests, max_clients - guests));
        drop((held, own));
        engine.sessions().end(&alice, &id).await.expect("ends");
    }
}
