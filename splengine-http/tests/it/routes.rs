//! The routes, and the OpenAPI document that tells of them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::support::{complete_server, server};

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

#[tokio::test]
async fn unknown_parameters_are_refused_on_every_route() {
    let server = complete_server().await;
    let document = server.get("/openapi.json").await.json();
    let paths = document["paths"].as_object().expect("paths");
    let mut routes: Vec<(String, String)> = Vec::new();
    for (path, operations) in paths {
        let methods = operations.as_object().expect("operations").keys();
        routes.extend(methods.map(|method| (method.to_uppercase(), path.clone())));
    }
    // Of the undocumented ones `/` and `/api/v1/files` only redirect.
    for (method, path) in
        [("POST", "/execute"), ("GET", "/info"), ("GET", "/metrics"), ("GET", "/openapi.json")]
    {
        routes.push((method.to_owned(), path.to_owned()));
    }
    let command = json!({"command": "true"});
    for (method, path) in routes {
        // A file is looked for, and the name of a stream read, before the query.
        let path = path.replace("/files/{path}", "/files/a").replace("{stream}", "stdout");
        let path = path.replace(['{', '}'], "");
        // These take nothing but JSON, and find that out before they read the query.
        let takes_json = path.ends_with("/execute") || path == "/api/v1/batches";
        let body = (method == "POST" && takes_json).then_some(&command);
        let refused = server.ask(&method, &format!("{path}?nonsense=1"), body).await;
        let told = refused.text();
        assert_eq!(refused.status, 400, "{method} {path}: {told}");
        assert!(told.contains("unknown parameter `nonsense`"), "{method} {path}: {told}");
    }
}
