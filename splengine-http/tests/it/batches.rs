use std::convert::Infallible;
use std::time::Duration;

use serde_json::{Value, json};
use splengine_core::batch::{BatchResults, StepResult};
use splengine_http::HttpServer;
use tokio::time::Instant;

use crate::client::Response;
use crate::sharing::processor_time;
use crate::support::{TOKEN, TestServer, batch_server, batch_server_as, eventually, step, with};

impl TestServer {
    async fn problem(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, String) {
        told(&self.ask(method, path, body).await)
    }
}

fn told(response: &Response) -> (u16, String) {
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
    (response.status, response.json()["error"].as_str().expect("a text").to_owned())
}

/// The ids and the data of server-sent events.
fn events(text: &str) -> Vec<(u64, Value)> {
    let blocks = text.split("\n\n").filter(|block| block.contains("data: "));
    blocks
        .map(|block| {
            let line = |name: &str| {
                block.lines().find_map(|line| line.strip_prefix(name)).expect("a field")
            };
            let data: Value = serde_json::from_str(line("data: ")).expect("JSON");
            assert_eq!((&data["event"], &data["type"]), (&json!(line("event: ")), &data["event"]));
            (line("id: ").parse().expect("a number"), data)
        })
        .collect()
}

#[tokio::test]
async fn a_batch_from_its_beginning_to_its_end() {
    let server = batch_server().await;
    let request = json!({"name": "mine", "steps": [
        step("build", "echo built; echo warned >&2"),
        step("test", "cat; exit 4").as_object().map(|step| {
            let mut step = step.clone();
            step.insert("stdin".into(), json!("aGkA"));
            step.insert("stdinEncoding".into(), json!("base64"));
            step
        }),
        {"command": "echo mended", "runIf": "always"},
        {"command": "true", "dependsOn": ["test"]},
    ]});
    let batch = server.submit(&request).await;
    let text = server.ask("GET", &format!("{batch}/events"), None).await.text().to_owned();
    let all = events(&text);
    assert!(all.iter().map(|(id, _)| *id).eq(1..=all.len() as u64));
    assert_eq!(all[0].1["event"], "queued");
    let last = &all[all.len() - 1].1;
    assert_eq!((&last["event"], &last["state"]), (&json!("finished"), &json!("failed")));
    let ended = all.iter().find(|(_, event)| event["event"] == "ended" && event["step"] == "test");
    let ended = &ended.expect("an end").1;
    assert_eq!((&ended["state"], &ended["exitCode"]), (&json!("failed"), &json!(4)));

    let headers = "Last-Event-ID: 3\r\n";
    let path = format!("{batch}/events");
    let rest = server.ask_with("GET", &path, headers, None).await;
    assert_eq!(rest.header("content-type"), Some("text/event-stream"));
    assert_eq!(events(rest.text()), all[3..]);
    let wrong = server.ask_with("GET", &path, "Last-Event-ID: x\r\n", None).await;
    assert_eq!(told(&wrong).0, 400);
    // Whoever has the last event need not come back; nobody has one after it.
    let done =
        server.ask_with("GET", &path, &format!("Last-Event-ID: {}\r\n", all.len()), None).await;
    assert_eq!((done.status, done.text()), (204, ""));
    let beyond = format!("Last-Event-ID: {}\r\n", all.len() + 1);
    let refused = server.ask_with("GET", &path, &beyond, None).await.problem(400);
    assert!(refused.contains("`Last-Event-ID`"), "{refused}");
    let none = server.ask_with("GET", &path, "Last-Event-ID:\r\n", None).await;
    assert_eq!(events(none.text()), all);

    let record = server.ask("GET", &batch, None).await.json();
    for (member, value) in [
        ("name", json!("mine")),
        ("user", json!("alice")),
        ("state", json!("failed")),
        ("exitCode", json!(4)),
        ("lastEvent", json!(all.len())),
    ] {
        assert_eq!(record[member], value, "{member}");
    }
    assert_eq!(record["counts"]["failed"], 1);
    let states: Vec<&Value> =
        record["steps"].as_array().expect("a list").iter().map(|step| &step["state"]).collect();
    assert_eq!(states, ["succeeded", "failed", "succeeded", "skipped"]);
    assert_eq!(record["steps"][3]["reason"], "a step before it failed");
    assert_eq!(record["steps"][2]["dependsOn"], json!(["test"]));
    assert_eq!(record["steps"][0]["stdoutBytes"], 6);

    let output = server.ask("GET", &format!("{batch}/steps/test/stdout"), None).await;
    assert_eq!((output.status, output.text()), (200, "hi\0"));
    assert_eq!(output.header("accept-ranges"), Some("bytes"));
    let path = format!("{batch}/steps/build/stdout");
    let part = server.ask_with("GET", &path, "Range: bytes=2-3\r\n", None).await;
    assert_eq!((part.status, part.text()), (206, "il"));
    assert_eq!(part.header("content-range"), Some("bytes 2-3/6"));
    let part = server.ask_with("GET", &path, "Range: bytes=6-\r\n", None).await;
    assert_eq!(part.status, 416);
    let followed = server.ask("GET", &format!("{path}?follow=true&offset=2"), None).await;
    assert_eq!((followed.status, followed.text()), (200, "ilt\n"));
    let errors = server.ask("GET", &format!("{batch}/steps/build/stderr"), None).await;
    assert_eq!(errors.text(), "warned\n");
}

#[tokio::test]
async fn a_step_is_followed_until_it_ends() {
    let server = batch_server().await;
    let script = "echo x >>tries; while [ ! -e go ]; do sleep 0.01; done; echo run $(wc -l <tries); \
                  [ $(wc -l <tries) = 3 ]";
    let mut flaky = step("flaky", script);
    flaky["retries"] = json!(5);
    flaky["retryDelay"] = json!(20);
    let batch = server.submit(&json!({"steps": [flaky]})).await;
    let mut connection = server.connect().await;
    let path = format!("{batch}/steps/flaky/stdout?follow=true");
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n{TOKEN}\r\n\r\n");
    connection.send(request.as_bytes()).await;
    assert_eq!(connection.head().await.0, 200);
    std::fs::write(server.root.path().join("go"), "").expect("writes");
    let followed = connection.chunks().await;
    assert_eq!(String::from_utf8_lossy(&followed), "run 1\nrun 2\nrun 3\n");
}

/// No client puts the parts of two runs together that asks for them as it should, and who follows
/// goes on from what it has counted, over all runs.
#[tokio::test]
async fn the_runs_of_a_step_are_told_apart() {
    let server = batch_server().await;
    let script = "echo x >>tries; echo run $(wc -l <tries); [ $(wc -l <tries) = 2 ]";
    let path = server.output_of(with(step("flaky", script), json!({"retries": 1}))).await;
    let get = async |query: &str, headers: &str| {
        server.ask_with("GET", &format!("{path}{query}"), headers, None).await
    };

    let first = get("?attempt=1", "").await;
    assert_eq!((first.status, first.text(), first.header("attempt")), (200, "run 1\n", Some("1")));
    let last = get("", "").await;
    assert_eq!((last.status, last.text(), last.header("attempt")), (200, "run 2\n", Some("2")));
    let tag = |response: &Response| response.header("etag").expect("a tag").to_owned();
    let (first, last) = (tag(&first), tag(&last));
    assert_ne!(first, last);
    // Equal output of another stream, step or batch is another thing.
    let equal = json!({"dependsOn": []});
    let both = ["a", "b"].map(|id| with(step(id, "echo; echo >&2"), equal.clone()));
    let mut tags = std::collections::HashSet::new();
    for _ in 0..2 {
        let batch = server.submit(&json!({"steps": &both})).await;
        server.over(&batch).await;
        for part in ["a/stdout", "a/stderr", "b/stdout", "b/stderr"] {
            let output = server.ask("GET", &format!("{batch}/steps/{part}"), None).await;
            assert_eq!((output.status, output.text()), (200, "\n"), "{part}");
            tags.insert(tag(&output));
        }
    }
    assert_eq!(tags.len(), 8);

    let same = get("", &format!("Range: bytes=4-\r\nIf-Range: {last}\r\n")).await;
    assert_eq!((same.status, same.text(), same.header("etag")), (206, "2\n", Some(last.as_str())));
    let other = get("", &format!("Range: bytes=4-\r\nIf-Range: {first}\r\n")).await;
    assert_eq!((other.status, other.text()), (200, "run 2\n"));
    assert_eq!(get("", &format!("If-Match: {first}\r\n")).await.status, 412);
    // Who does not say what they have already are not given what follows it.
    let blind = get("", "Range: bytes=4-\r\n").await;
    assert_eq!((blind.status, blind.text()), (200, "run 2\n"));
    for (query, headers, part) in [
        ("?attempt=2", "Range: bytes=4-\r\n", "2\n"),
        ("?attempt=1", "Range: bytes=4-\r\n", "1\n"),
        ("", "Range: bytes=0-2\r\n", "run"),
        ("", "Range: bytes=-2\r\n", "2\n"),
    ] {
        let known = get(query, headers).await;
        assert_eq!((known.status, known.text()), (206, part), "{query} {headers}");
    }
    assert_eq!(get("", &format!("If-None-Match: {last}\r\n")).await.status, 304);

    for (query, followed) in [
        ("?follow=true", "run 2\n"),
        ("?follow=true&attempt=1", "run 1\nrun 2\n"),
        ("?follow=true&offset=4", "1\nrun 2\n"),
        ("?follow=true&offset=10", "2\n"),
        ("?follow=true&offset=12", ""),
        ("?follow=true&attempt=2&offset=4", "2\n"),
    ] {
        assert_eq!(get(query, "").await.text(), followed, "{query}");
    }
    let text = get("?follow=true&attempt=1", "Accept: text/plain\r\n").await;
    assert_eq!(text.text(), "run 1\n\n--- attempt 2 ---\nrun 2\n");
    assert_eq!((text.header("attempt"), text.status), (Some("1"), 200));

    for (query, status) in [("?attempt=3", 404), ("?attempt=0", 400), ("?attempt=x", 400)] {
        assert_eq!(
            server.problem("GET", &format!("{path}{query}"), None).await.0,
            status,
            "{query}"
        );
    }
}

#[tokio::test]
async fn who_waits_gets_it_all_at_once() {
    let server = batch_server().await;
    let request = json!({"steps": [
        step("one", "echo out 1; echo err 1 >&2"),
        {"command": "printf '\\377'", "outputEncoding": "base64"},
        step("bad", "echo out 3; exit 9"),
        {"command": "echo never"},
    ]});
    let answer = server.ask("POST", "/api/v1/batches?wait=true", Some(&request)).await;
    let result = answer.json();
    assert_eq!(answer.status, 200, "{result}");
    assert_eq!((&result["exitCode"], &result["success"]), (&json!(9), &json!(false)));
    assert_eq!(result["stdout"], "out 1\n\u{fffd}out 3\n", "as text, since not all are base64");
    assert_eq!(result["stderr"], "err 1\n");
    assert_eq!(result["steps"][0]["stdout"], "out 1\n");
    assert_eq!(result["steps"][1]["stdout"], "/w==");
    assert!(result["duration"].as_u64().is_some());
    assert_eq!(result["state"], "failed");
}

/// Who does not want to hang for ever is told in time.
#[tokio::test]
async fn who_waits_for_some_time_is_answered_then() {
    let server = batch_server().await;
    let request = json!({"labels": {"kind": "wait"}, "steps": [
        step("slow", "while [ ! -e go ]; do sleep 0.01; done; echo done"),
    ]});
    let late = server.ask("POST", "/api/v1/batches?wait=1", Some(&request)).await;
    assert_eq!(late.status, 202, "{}", late.text());
    let place = late.header("location").expect("a place").to_owned();
    assert_eq!(late.json()["steps"][0]["id"], "slow");
    std::fs::write(server.root.path().join("go"), "").expect("writes");
    let over = server.ask("POST", "/api/v1/batches?wait=60", Some(&request)).await;
    assert_eq!((over.status, &over.json()["stdout"]), (200, &json!("done\n")));
    for wait in ["0", "3601", "x", "-1"] {
        let path = format!("/api/v1/batches?wait={wait}");
        let (status, text) = server.problem("POST", &path, Some(&request)).await;
        assert!(status == 400 && text.contains("`wait` must be true, false"), "{text}");
    }

    // Asked for without steps, by label and state, and removed.
    server.over(&place).await;
    let summary = server.ask("GET", &format!("{place}?steps=false"), None).await.json();
    assert_eq!((&summary["steps"], &summary["state"]), (&Value::Null, &json!("succeeded")));
    assert_eq!(summary["labels"], json!({"kind": "wait"}));
    let count = async |query: &str| {
        let list = server.ask("GET", &format!("/api/v1/batches?{query}"), None).await.json();
        list["batches"].as_array().expect("a list").len()
    };
    assert_eq!(count("label=kind%3Dwait&state=succeeded&state=failed").await, 2);
    assert_eq!(count("label=kind=other").await, 0);
    assert_eq!(count("state=failed,cancelled").await, 0);
    assert_eq!(count("state=failed,succeeded").await, 2);
    assert_eq!(server.problem("GET", "/api/v1/batches?label=kind", None).await.0, 400);
    let gone = server.ask("DELETE", &format!("{place}?purge=true"), None).await;
    assert_eq!((gone.status, gone.text()), (204, ""));
    assert_eq!(server.problem("GET", &place, None).await.0, 404);
}

#[tokio::test]
async fn steps_take_all_members_that_there_are() {
    let server = batch_server().await;
    let request = json!({"timeout": 60000, "failFast": "soon", "steps": [
        {"id": "x", "command": "sh -c 'exit 75'", "retries": 1,
            "retryOn": {"exitCodes": [75], "reasons": ["timedOut", "lost"]}, "allowFailure": true,
            "env": {"K": "V"}, "check": "early"},
        {"id": "y", "command": "./none", "check": "late", "allowFailure": true},
    ]});
    let batch = server.submit(&request).await;
    let record = server.over(&batch).await;
    assert_eq!((&record["state"], &record["exitCode"]), (&json!("succeeded"), &json!(0)));
    let steps = &record["steps"];
    assert_eq!((&steps[0]["attempt"], &steps[0]["env"]), (&json!(2), &json!(["K"])));
    assert_eq!(steps[0]["args"], json!([]));
    assert_eq!(steps[1]["error"], "step `y`: program `./none` was not found");
    let wrong =
        json!({"steps": [{"command": "true", "retries": 1, "retryOn": {"reasons": ["x"]}}]});
    assert_eq!(server.problem("POST", "/api/v1/batches", Some(&wrong)).await.0, 400);
}

#[tokio::test]
async fn both_streams_come_as_one_log() {
    let server = batch_server().await;
    let mut both =
        step("x", "echo out; while [ ! -e go ]; do sleep 0.01; done; printf 'b\\377d' >&2");
    both["retries"] = json!(0);
    let batch = server.submit(&json!({"steps": [both]})).await;
    let path = format!("{batch}/steps/x/log");
    let mut connection = server.connect().await;
    let request = format!(
        "GET {path}?follow=true HTTP/1.1\r\nHost: test\r\nAccept: application/x-ndjson\r\n\
         {TOKEN}\r\n\r\n"
    );
    connection.send(request.as_bytes()).await;
    assert_eq!(connection.head().await.0, 200);
    let first: Value =
        serde_json::from_slice(&connection.chunk().await.expect("a piece")).expect("JSON");
    assert_eq!((&first["stream"], &first["data"]), (&json!("stdout"), &json!("out\n")));
    assert_eq!(first["attempt"], 1);
    std::fs::write(server.root.path().join("go"), "").expect("writes");
    let text = String::from_utf8(connection.chunks().await).expect("text");
    let pieces: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(pieces.iter().all(|piece| piece["stream"] == "stderr"), "{text}");
    let data: String = pieces.iter().filter_map(|piece| piece["data"].as_str()).collect();
    assert_eq!(data, "b\u{fffd}d");

    let log = server.ask("GET", &path, None).await;
    assert_eq!(log.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(log.header("attempt"), Some("1"));
    let body = String::from_utf8_lossy(&log.body).into_owned();
    let lines: Vec<(&str, &str)> =
        body.lines().map(|line| line.split_once(' ').expect("a time")).collect();
    assert_eq!(lines[0].1, "stdout out");
    assert!(lines[1].1.starts_with("stderr b"), "{body}");
    assert!(lines[0].0.ends_with('Z') && lines[0].0 <= lines[1].0, "{body}");
    let wrong = server.ask_with("GET", &path, "Accept: image/png\r\n", None).await;
    assert_eq!(told(&wrong).0, 406);
    assert_eq!(server.problem("GET", &format!("{path}?attempt=2"), None).await.0, 404);
}

#[tokio::test]
async fn steps_read_from_each_other_and_from_clients() {
    let server = batch_server().await;
    let batch = server
        .submit(&json!({"steps": [
            {"id": "ask", "command": "sh -c 'echo >up; cat; echo bye >&2'", "stdin": "open"},
            {"id": "out", "command": "cat", "stdinFrom": {"step": "ask"}},
            {"id": "err", "command": "cat", "stdinFrom": {"step": "ask", "stream": "stderr"}},
            {"id": "text", "command": "cat", "stdin": "open", "stdinEncoding": "utf8"},
        ]}))
        .await;
    eventually("it runs", || server.root.path().join("up").exists()).await;
    let kind = "Content-Type: application/octet-stream";
    let path = format!("{batch}/steps/ask/stdin");
    assert_eq!(server.post(&path, &[TOKEN, kind], b"hello ").await.status, 204);
    assert_eq!(server.post(&path, &[TOKEN, "Content-Type: text/plain"], b"x").await.status, 415);
    let other = format!("{batch}/steps/out/stdin");
    assert_eq!(told(&server.post(&other, &[TOKEN, kind], b"x").await).0, 409);
    let end = format!("{path}?end=true");
    assert_eq!(server.post(&end, &[TOKEN, kind], b"world").await.status, 204);
    let record = server.over(&batch).await;
    assert_eq!(record["state"], "succeeded", "{record}");
    for (step, printed) in
        [("ask", "hello world"), ("out", "hello world"), ("err", "bye\n"), ("text", "open")]
    {
        let output = server.ask("GET", &format!("{batch}/steps/{step}/stdout"), None).await;
        assert_eq!(output.text(), printed, "{step}");
    }
    let (status, text) = told(&server.post(&path, &[TOKEN, kind], b"late").await);
    assert_eq!((status, text.as_str()), (409, "this step does not run"));
}

/// `open` is a word of steps alone.
#[tokio::test]
async fn the_input_of_an_execution_is_text_whether_it_is_waited_for_or_not() {
    let server = batch_server().await;
    let mut request = json!({"command": "cat", "stdin": "open", "timeout": 60_000});
    assert_eq!(server.run(&request).await["stdout"], "open");
    request["async"] = json!(true);
    let accepted = server.ask("POST", "/execute", Some(&request)).await;
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let batch = accepted.header("location").expect("a place");
    assert_eq!(server.over(batch).await["state"], "succeeded");
    let printed = server.ask("GET", &format!("{batch}/steps/1/stdout"), None).await;
    assert_eq!(printed.text(), "open");
}

/// A server with two forms of results of its own, one of which always fails.
async fn server_with_forms() -> TestServer {
    batch_server_as(|http| {
        let lines = |results: &BatchResults| {
            let line = |result: &StepResult| {
                format!("{}:{}", result.step.id, String::from_utf8_lossy(&result.stdout))
            };
            Ok::<_, Infallible>(results.steps.iter().map(line).collect::<String>())
        };
        let broken = |_: &BatchResults| Err::<Vec<u8>, _>(std::fmt::Error);
        http.results_as("text/x-lines", "lines", lines).results_as("text/x-broken", "none", broken)
    })
    .await
}

#[tokio::test]
async fn results_come_in_the_form_that_is_asked_for() {
    let server = server_with_forms().await;
    let steps = json!({"steps": [step("one", "echo 1"), step("bytes", "printf '\\377'")]});
    let whole = server.ask("POST", "/api/v1/batches?wait=true", Some(&steps)).await.json();
    let id = whole["batchId"].as_str().expect("an id");
    let path = format!("/api/v1/batches/{id}/results");
    let json = server.ask("GET", &path, None).await;
    assert_eq!((json.status, json.json()), (200, whole.clone()));
    let exact = server.ask("GET", &format!("{path}?outputEncoding=base64"), None).await.json();
    assert_eq!((&exact["stdout"], &exact["steps"][1]["stdout"]), (&json!("MQr/"), &json!("/w==")));

    let lines = "one:1\nbytes:\u{fffd}";
    for accept in ["text/x-lines", "text/*", "*/*;q=0.1, TEXT/X-Lines", "image/png, text/x-lines"] {
        let headers = format!("Accept: {accept}\r\n");
        let file = server.ask_with("GET", &path, &headers, None).await;
        assert_eq!((file.status, file.text()), (200, lines), "{accept}");
        assert_eq!(file.header("content-type"), Some("text/x-lines"));
        let name = format!("attachment; filename=\"{id}.lines\"");
        assert_eq!(file.header("content-disposition"), Some(name.as_str()));
    }
    for accept in ["*/*", "application/*", "text/x-lines;q=0.5, application/json"] {
        let headers = format!("Accept: {accept}\r\n");
        assert_eq!(server.ask_with("GET", &path, &headers, None).await.json(), whole, "{accept}");
    }
    for accept in ["text/html", "text/x-lines;q=0", "text/x-line"] {
        let headers = format!("Accept: {accept}\r\n");
        let refused = server.ask_with("GET", &path, &headers, None).await.problem(406);
        assert!(
            refused.ends_with("application/json or text/x-lines or text/x-broken"),
            "{refused}"
        );
    }
    let broken = server.ask_with("GET", &path, "Accept: text/x-broken\r\n", None).await;
    assert_eq!(broken.problem(500), "the results can't be told in this form");
    for (path, status) in [
        (format!("{path}?outputEncoding=hex"), 400),
        (format!("{path}?encoding=utf8"), 400),
        ("/api/v1/batches/batch-00000000000000000000000000000000/results".to_owned(), 404),
    ] {
        server.ask("GET", &path, None).await.problem(status);
    }
    let document = server.get("/openapi.json").await.json();
    for operation in
        ["/paths/~1api~1v1~1batches/post", "/paths/~1api~1v1~1batches~1{id}~1results/get"]
    {
        let content =
            &document.pointer(operation).expect("it is there")["responses"]["200"]["content"];
        assert!(content.get("text/x-lines").is_some(), "{operation}: {content}");
    }
}

#[tokio::test]
async fn who_waits_may_ask_for_a_form_too() {
    let server = server_with_forms().await;
    let steps = json!({"steps": [step("one", "echo 1; echo >>runs"), step("bad", "exit 3")]});
    let waiting = "/api/v1/batches?wait=true";
    let refused = server.ask_with("POST", waiting, "Accept: text/html\r\n", Some(&steps)).await;
    refused.problem(406);
    assert!(!server.root.path().join("runs").exists());
    let file = server.ask_with("POST", waiting, "Accept: text/x-lines\r\n", Some(&steps)).await;
    assert_eq!((file.status, file.text()), (200, "one:1\nbad:"));
    // Whoever does not wait is told of the batch, and that in JSON.
    let headers = "Accept: text/x-lines\r\n";
    let slow = json!({"steps": [step("slow", "sleep 600")]});
    let accepted = server.ask_with("POST", "/api/v1/batches", headers, Some(&slow)).await;
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let batch = accepted.header("location").expect("a place");
    for headers in [headers, ""] {
        let early = server.ask_with("GET", &format!("{batch}/results"), headers, None).await;
        assert_eq!(early.problem(409), "the batch is not over");
    }
    server.ask("DELETE", batch, None).await;
    let file = server.ask_with("GET", &format!("{batch}/results"), headers, None).await;
    assert_eq!((file.status, file.text()), (200, "slow:"));
}

#[test]
#[should_panic(expected = "`Avro` is no media type")]
fn a_form_needs_a_media_type() {
    let engine =
        splengine_core::Engine::builder(splengine_core::LocalExecutor::new(".").expect("set up"));
    let builder = HttpServer::builder(engine.build().expect("built"));
    let _ = builder.results_as("Avro", "avro", |_| Ok::<_, Infallible>("none"));
}

#[tokio::test]
async fn one_command_may_be_a_batch() {
    let server = batch_server().await;
    let request = json!({"command": "sh -c", "args": ["echo $K; cat"], "env": {"K": "V"},
        "stdin": "read", "async": true});
    let headers = "Idempotency-Key: again\r\n";
    let accepted = server.ask_with("POST", "/execute", headers, Some(&request)).await;
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let batch = accepted.header("location").expect("a place").to_owned();
    let again = server.ask_with("POST", "/execute", headers, Some(&request)).await;
    assert_eq!(again.header("location"), Some(batch.as_str()));
    server.ask("GET", &format!("{batch}/events"), None).await;
    let output = server.ask("GET", &format!("{batch}/steps/1/stdout"), None).await;
    assert_eq!(output.text(), "V\nread");
    let other = json!({"command": "true", "async": true});
    let refused = server.ask_with("POST", "/execute", headers, Some(&other)).await;
    assert_eq!(told(&refused).0, 422);
}

#[tokio::test]
async fn batches_are_listed_rerun_and_cancelled() {
    let server = batch_server().await;
    let mut all = Vec::new();
    for command in ["true", "false", "true"] {
        let batch = server.submit(&json!({"steps": [{"command": command}]})).await;
        server.ask("GET", &format!("{batch}/events"), None).await;
        all.insert(0, batch);
    }
    let places = |page: &Value| -> Vec<String> {
        let batches = page["batches"].as_array().expect("a list").iter();
        batches
            .map(|batch| format!("/api/v1/batches/{}", batch["id"].as_str().expect("an id")))
            .collect()
    };
    let first = server.ask("GET", "/api/v1/batches?limit=2", None).await.json();
    assert_eq!(places(&first), all[..2]);
    let cursor = first["cursor"].as_str().expect("a cursor");
    let rest =
        server.ask("GET", &format!("/api/v1/batches?limit=2&cursor={cursor}"), None).await.json();
    assert_eq!((places(&rest), &rest["cursor"]), (all[2..].to_vec(), &Value::Null));
    let failed = server.ask("GET", "/api/v1/batches?state=failed", None).await.json();
    assert_eq!(places(&failed), [all[1].clone()]);

    let again = server.ask("POST", &format!("{}/rerun?only=failed", all[1]), None).await;
    assert_eq!(again.status, 202, "{}", again.text());
    assert_eq!(
        format!("/api/v1/batches/{}", again.json()["rerunOf"].as_str().expect("an id")),
        all[1]
    );
    let place = again.header("location").expect("a place");
    server.ask("GET", &format!("{place}/events"), None).await;
    let refused = server.problem("POST", &format!("{}/rerun?only=failed", all[0]), None).await;
    assert_eq!(refused, (409, "no step of this batch failed".to_owned()));

    let slow = json!({"steps": [step("slow", "sleep 600"), {"command": "true"}]});
    let slow = server.submit(&slow).await;
    // Of one that is over it is told a moment before it is counted no more.
    eventually("one is open", || server.engine.batches().open_count() == 1).await;
    let metrics = server.ask("GET", "/metrics", None).await;
    assert!(metrics.text().contains("splengine_batches_open 1\n"), "{}", metrics.text());
    let cancelled = server.ask("DELETE", &slow, None).await;
    assert_eq!((cancelled.status, &cancelled.json()["state"]), (200, &json!("cancelled")));
    assert_eq!(server.ask("GET", &slow, None).await.json()["state"], "cancelled");
}

#[tokio::test]
async fn a_bad_request_is_told_what_is_wrong() {
    let server = batch_server().await;
    for (request, status, text) in [
        (json!({}), 400, "steps"),
        (json!({"steps": []}), 400, "`steps` must hold at least one step"),
        (json!({"steps": [{"command": 7}]}), 400, "`steps[0].command`"),
        // They are counted before anything is made of them.
        (json!({"steps": vec![7; 10_001]}), 400, "`steps` are over the maximum of 10000"),
        (json!({"steps": vec![7; 10_000]}), 400, "`steps[0]` must be"),
        (json!({"steps": [{"command": "true", "async": true}]}), 400, "unknown field `async`"),
        (json!({"steps": [{"command": "true"}], "failFast": "later"}), 400, "`failFast`"),
        (
            json!({"steps": [{"command": "true", "stdin": "%", "stdinEncoding": "base64"}]}),
            400,
            "`steps[0].stdin` is not base64",
        ),
        (
            json!({"steps": [{"command": "nowhere-to-be-found"}]}),
            422,
            "step `1`: program `nowhere-to-be-found` was not found",
        ),
        (
            json!({"steps": [{"id": "a", "command": "true", "dependsOn": ["b"]}, {"id": "b", "command": "true"}]}),
            422,
            "step `a`: `dependsOn` makes a circle: a -> b -> a",
        ),
        (json!({"steps": [{"command": "true", "workdir": "../.."}]}), 422, "step `1`: workdir"),
        (json!({"steps": [{"command": "true; true"}]}), 400, "step `1`: `command`"),
        (json!({"steps": [{"command": "true", "shell": true}]}), 422, "step `1`: `shell`"),
    ] {
        let refused = server.problem("POST", "/api/v1/batches", Some(&request)).await;
        assert!(refused.0 == status && refused.1.contains(text), "{request}: {refused:?}");
    }
    for (path, status) in [
        ("/api/v1/batches/nothing", 404),
        ("/api/v1/batches/batch-00000000000000000000000000000000", 404),
        ("/api/v1/batches?limit=0", 400),
        ("/api/v1/batches?state=lost", 400),
        ("/api/v1/batches?page=2", 400),
        ("/api/v1/batches?cursor=x", 400),
    ] {
        assert_eq!(server.problem("GET", path, None).await.0, status, "{path}");
    }
    let batch = server.submit(&json!({"steps": [{"command": "true"}]})).await;
    for (path, status) in [
        ("steps/2/stdout", 404),
        ("steps/1/stdlog", 404),
        ("steps/1/stdout?follow=maybe", 400),
        ("steps/1/stdout?offset=1", 400),
    ] {
        assert_eq!(
            server.problem("GET", &format!("{batch}/{path}"), None).await.0,
            status,
            "{path}"
        );
    }
    // Whoever may not execute may not see, either.
    let mut connection = server.connect().await;
    let bob = TOKEN.replace("alices-very-long-token", "bob-may-do-nothing");
    let request = format!("GET {batch} HTTP/1.1\r\nHost: test\r\n{bob}\r\n\r\n");
    connection.send(request.as_bytes()).await;
    assert_eq!(told(&connection.response().await).0, 403);
}

#[tokio::test]
async fn without_a_store_there_are_none() {
    let server = crate::support::server().await;
    let refused = server.problem("POST", "/api/v1/batches", Some(&json!({"steps": []}))).await;
    assert_eq!(refused, (404, "this engine keeps no batches".to_owned()));
    let request = json!({"command": "true", "async": true});
    assert_eq!(server.problem("POST", "/execute", Some(&request)).await.0, 422);
}

/// What takes the processor's time in proportion to its size is not done where all others are served.
#[tokio::test]
async fn work_on_a_large_batch_holds_up_no_other_request() {
    let server = batch_server().await;
    let steps: Vec<Value> = (0..5000)
        .map(|n| json!({"id": format!("s{n}"), "command": "true", "dependsOn": []}))
        .collect();
    let body = json!({"steps": steps, "parallelism": 1});
    // A machine that stalls may make any share look large.
    for _ in 0..10 {
        let mut longest = Duration::ZERO;
        let begun = Instant::now();
        let mut asked = std::pin::pin!(server.ask("POST", "/api/v1/batches", Some(&body)));
        let answer = loop {
            // For which this thread may wait as long as the machine is busy.
            let last = processor_time();
            tokio::select! {
                biased;
                answer = &mut asked => break answer,
                () = tokio::task::yield_now() => longest = longest.max(processor_time() - last),
            }
        };
        let all = begun.elapsed();
        assert_eq!(answer.status, 202, "{}", answer.text());
        let id = answer.json()["id"].as_str().expect("an id").to_owned();
        server.ask("DELETE", &format!("/api/v1/batches/{id}"), None).await;
        if longest * 4 < all {
            return;
        }
    }
    panic!("a quarter of the time nobody else was served");
}
