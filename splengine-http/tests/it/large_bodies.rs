//! Bodies that take time to be parsed.

use std::time::Duration;

use axum::body::Body;
use http::{Request, StatusCode};
use splengine_core::{Engine, LocalExecutor};
use splengine_http::HttpServer;
use tokio::time::Instant;
use tower::ServiceExt as _;

use crate::support::tokens;

/// Does `work`, and returns whether others were served meanwhile: whether no more than a quarter of it
/// went by without them.
async fn is_shared(work: impl Future<Output = ()>) -> bool {
    let (begun, mut last, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
    let mut others = async || {
        loop {
            tokio::task::yield_now().await;
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
    };
    tokio::select! {
        () = work => {}
        () = others() => {}
    }
    longest.max(last.elapsed()) < begun.elapsed() / 4
}

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
                .header("Authorization", "Bearer alices-very-long-token")
                .header("Content-Type", "application/json")
                .body(Body::from(body.clone()))
                .expect("fine");
            let answer = service.clone().oneshot(request).await.expect("answers");
            assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{path}");
        };
        // Whatever else this machine does.
        let mut shared = false;
        for _ in 0..20 {
            shared |= is_shared(refused()).await;
        }
        assert!(shared, "{path}");
    }
}
