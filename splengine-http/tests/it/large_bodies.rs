//! Bodies that take time to be parsed or written.

use std::time::Duration;

use axum::body::Body;
use http::{Request, StatusCode};
use splengine_core::batch::BatchPolicy;
use splengine_core::files::FilePolicy;
use splengine_core::quota::LargeWork;
use splengine_core::session::SessionPolicy;
use splengine_core::store::MemoryStore;
use splengine_core::{BatchRequest, Caller, Engine, LocalExecutor, SessionRequest, Step};
use splengine_http::HttpServer;
use tokio::time::timeout;
use tower::ServiceExt as _;

use crate::sharing::is_shared;
use crate::support::tokens;

/// What does not wait is done by then.
const SHORT: Duration = Duration::from_millis(50);

#[tokio::test]
async fn while_a_large_body_is_parsed_others_are_served() {
    let root = tempfile::tempdir().expect("a directory");
    let executor = LocalExecutor::new(root.path()).expect("set up");
    let engine = Engine::builder(executor).build().expect("fine");
    let service = HttpServer::builder(engine).authenticate(tokens()).into_service();
    let args = vec!["argument"; 50_000];
    let command = serde_json::json!({"command": "true", "args": args, "mask": ["NOTHING"]});
    let session = serde_json::json!({"command": "'", "args": args});
    for (path, body) in
        [("/api/v1/execute", command.to_string()), ("/api/v1/sessions", session.to_string())]
    {
        let refused = async || {
            let request = Request::post(path)
                .header("Host", "localhost")
                .header("Authorization", "Bearer alices-very-long-token")
                .header("Content-Type", "application/json")
                .body(Body::from(body.clone()))
                .expect("fine");
            let answer = service.clone().oneshot(request).await.expect("answers");
            assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{path}");
        };
        // Whatever else this machine does.
        let mut tries = 0..20;
        while !is_shared(refused(), 4).await {
            assert!(tries.next().is_some(), "{path}");
        }
    }
}

#[tokio::test]
async fn while_a_large_record_is_written_others_are_served() {
    let root = tempfile::tempdir().expect("a directory");
    let policy = BatchPolicy::new(MemoryStore::new(), root.path().join("batches"));
    let engine = Engine::builder(LocalExecutor::new(root.path()).expect("set up"));
    let engine = engine.batches(policy).build().expect("fine");
    let alice = Caller::new("alice").expect("a user name").with_all_scopes();
    let args = vec!["argument"; 10_000];
    let request =
        (0..4).fold(BatchRequest::new(), |all, _| all.step(Step::new("true").args(args.clone())));
    let batches = engine.batches();
    let id = batches.submit(&alice, request, None).await.expect("accepted").record.info.id;
    batches.wait_info(&alice, &id).await.expect("runs");
    let service = HttpServer::builder(engine).authenticate(tokens()).into_service();
    let path = format!("/api/v1/batches/{id}");
    for method in ["GET", "DELETE"] {
        let asked = async || {
            let request = Request::builder()
                .method(method)
                .uri(&path)
                .header("Host", "localhost")
                .header("Authorization", "Bearer alices-very-long-token")
                .body(Body::empty())
                .expect("fine");
            let answer = service.clone().oneshot(request).await.expect("answers");
            assert_eq!(answer.status(), StatusCode::OK, "{method}");
        };
        // Whatever else this machine does.
        let mut tries = 0..20;
        while !is_shared(asked(), 8).await {
            assert!(tries.next().is_some(), "{method}");
        }
    }
}

#[tokio::test]
async fn while_a_large_directory_is_listed_others_are_served() {
    let root = tempfile::tempdir().expect("a directory");
    for number in 0..10_000 {
        std::fs::File::create(root.path().join(format!("file-{number}"))).expect("made");
    }
    let engine = Engine::builder(LocalExecutor::new(root.path()).expect("set up"));
    let engine = engine.files(FilePolicy::new()).build().expect("fine");
    let service = HttpServer::builder(engine).authenticate(tokens()).into_service();
    let listed = async || {
        let request = Request::get("/api/v1/files/?limit=10000")
            .header("Host", "localhost")
            .header("Authorization", "Bearer alices-very-long-token")
            .body(Body::empty())
            .expect("fine");
        let answer = service.clone().oneshot(request).await.expect("answers");
        assert_eq!(answer.status(), StatusCode::OK);
    };
    // Whatever else this machine does.
    let mut tries = 0..20;
    while !is_shared(listed(), 8).await {
        assert!(tries.next().is_some());
    }
}

/// A list is put together under the permit of its caller, of whom the others wait for nothing.
#[tokio::test]
async fn a_list_waits_for_the_turn_of_its_caller() {
    let root = tempfile::tempdir().expect("a directory");
    let batches = BatchPolicy::new(MemoryStore::new(), root.path().join("batches"));
    let sessions = SessionPolicy::new().shell(["/bin/sh"]).store(root.path().join("sessions"));
    let engine = Engine::builder(LocalExecutor::new(root.path()).expect("set up"))
        .files(FilePolicy::new())
        .batches(batches)
        .sessions(sessions);
    let engine = engine.build().expect("fine");
    let alice = Caller::new("alice").expect("a user name").with_all_scopes();
    let session = engine.sessions().create(&alice, SessionRequest::new()).await.expect("runs");
    let shares = format!("/api/v1/sessions/{}/shares", session.id);
    let service = HttpServer::builder(engine.clone()).authenticate(tokens()).into_service();
    let list = |path: &str, token: &str| {
        let request = Request::get(path)
            .header("Host", "localhost")
            .header("Authorization", format!("Bearer {token}"))
            .body(Body::empty())
            .expect("fine");
        let answer = service.clone().oneshot(request);
        async move {
            let answer = answer.await.expect("answers");
            assert_eq!(answer.status(), StatusCode::OK);
            answer
        }
    };
    let work = engine.large_work();
    let permit = || work.permit(alice.user(), LargeWork::MAX_PAGE_BYTES);
    for (path, others) in [
        ("/api/v1/batches", true),
        ("/api/v1/files/", true),
        ("/api/v1/executions", true),
        ("/api/v1/sessions", false),
        ("/api/v1/saved-sessions", false),
        (shares.as_str(), false),
    ] {
        let held = permit().await.expect("her turn");
        let mut waiting = Box::pin(list(path, "alices-very-long-token"));
        assert!(timeout(SHORT, &mut waiting).await.is_err(), "{path}");
        if others {
            list(path, "erik-has-files-too").await;
        }
        assert!(timeout(SHORT, &mut waiting).await.is_err(), "{path}");
        drop(held);
        let answer = waiting.await;
        // It lies there for its client to read it, and the next has its turn.
        timeout(Duration::from_secs(60), permit()).await.expect("at once").expect("her turn");
        drop(answer);
        // One whose client leaves holds up nobody.
        let held = permit().await.expect("her turn");
        assert!(timeout(SHORT, list(path, "alices-very-long-token")).await.is_err(), "{path}");
        drop(held);
        list(path, "alices-very-long-token").await;
    }
    engine.sessions().end(&alice, &session.id).await.expect("ends");
}
