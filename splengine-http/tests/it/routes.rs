//! The routes, and the OpenAPI document that tells of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::server;

/// Paths that the document leaves out: other addresses of what it has, and what belongs to no API.
const UNDOCUMENTED: [&str; 6] =
    ["/", "/api/v1/files", "/execute", "/info", "/metrics", "/openapi.json"];

const METHODS: [&str; 5] = ["DELETE", "GET", "PATCH", "POST", "PUT"];

/// The paths of the router, which tells them in its source only.
fn paths_of_router() -> BTreeSet<String> {
    let source = include_str!("../../src/router.rs");
    let routes = source.split(".route(").skip(1).map(str::trim_start);
    let paths = routes.filter_map(|route| route.strip_prefix('"')?.split('"').next());
    paths.map(|path| path.replace("{*", "{")).collect()
}

#[tokio::test]
async fn the_document_has_every_route_and_no_other() {
    let server = server().await;
    let document = server.get("/openapi.json").await.json();
    let documented: BTreeMap<String, BTreeSet<String>> = document["paths"]
        .as_object()
        .expect("paths")
        .iter()
        .map(|(path, operations)| {
            let methods = operations.as_object().expect("operations").keys();
            (path.clone(), methods.map(|method| method.to_uppercase()).collect())
        })
        .collect();
    let mut paths: BTreeSet<String> = documented.keys().cloned().collect();
    paths.extend(UNDOCUMENTED.map(str::to_owned));
    assert_eq!(
        paths_of_router(),
        paths,
        "the routes of src/router.rs, and those of src/openapi.rs"
    );

    for (path, documented) in documented {
        // Nobody is let in without a token: nothing is changed by asking.
        let example = path.replace(['{', '}'], "");
        let mut answered = BTreeSet::new();
        for method in METHODS {
            let request =
                format!("{method} {example} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
            let mut connection = server.connect().await;
            connection.send(request.as_bytes()).await;
            let response = connection.response().await;
            assert!(response.status != 404, "{method} {path}: {}", response.text());
            if response.status != 405 {
                answered.insert(method.to_owned());
            }
        }
        assert_eq!(answered, documented, "the methods of {path}");
    }
    let metrics = server.get("/metrics").await.text().to_owned();
    assert!(metrics.contains("method=\"PUT\""), "{metrics}");
    assert!(!metrics.contains("method=\"other\""), "src/metrics.rs names every method:\n{metrics}");
}
