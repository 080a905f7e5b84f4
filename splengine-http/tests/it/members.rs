//! The members of a step, and what a batch's record and events tell of what became of them.

use serde_json::{Value, json};

use crate::support::{JSON, TOKEN, TestServer, batch_server, eventually, is_alive, sh, step, with};

/// The data of a batch's events of one kind.
async fn events(server: &TestServer, batch: &str, kind: &str) -> Vec<Value> {
    let stream = server.ask("GET", &format!("{batch}/events"), None).await;
    let text = stream.text().to_owned();
    let blocks = text.split("\n\n").filter(|block| {
        block.lines().any(|line| line.strip_prefix("event:").is_some_and(|it| it.trim() == kind))
    });
    blocks
        .filter_map(|block| block.lines().find_map(|line| line.strip_prefix("data:")))
        .map(|data| serde_json::from_str(data.trim()).expect("JSON"))
        .collect()
}

#[tokio::test]
async fn a_gap_of_standard_error_is_told_everywhere() {
    let server = batch_server().await;
    let gap = json!({"at": 500, "bytes": 4005});
    let loud = with(step("loud", "seq 1000 2000 >&2"), json!({"outputLimit": 1000}));
    let batch = server.submit(&json!({"steps": [loud]})).await;
    let record = server.over(&batch).await;
    let step = &record["steps"][0];
    assert_eq!((&step["stderrGap"], &step["stdoutGap"]), (&gap, &Value::Null), "{record}");
    let ended = events(&server, &batch, "ended").await;
    assert_eq!(ended.len(), 1, "{ended:?}");
    assert_eq!(ended[0]["stderrGap"], gap, "{ended:?}");
    let download = server.ask("GET", &format!("{batch}/steps/loud/stderr"), None).await;
    assert_eq!(download.header("stderr-gap"), Some("at=500, bytes=4005"));
    assert_eq!(download.header("stdout-gap"), None);

    let request = with(sh("seq 1000 2000 >&2"), json!({"outputLimit": 1000}));
    assert_eq!(server.run(&request).await["stderrGap"], gap);
    let body = request.to_string();
    let headers = [TOKEN, JSON, "Accept: application/x-ndjson"];
    let stream = server.post("/execute", &headers, body.as_bytes()).await;
    let exit = stream.text().lines().last().expect("an end").to_owned();
    let exit: Value = serde_json::from_str(&exit).expect("JSON");
    assert_eq!((&exit["event"], &exit["stderrGap"]), (&json!("exit"), &gap), "{exit}");
}

#[tokio::test]
async fn what_a_step_used_is_told() {
    let server = batch_server().await;
    let busy = step("busy", "n=0; while [ $n -lt 20000 ]; do n=$((n+1)); done");
    let batch = server.submit(&json!({"steps": [busy]})).await;
    let record = server.over(&batch).await;
    let ended = events(&server, &batch, "ended").await;
    for told in [&record["steps"][0], &ended[0]] {
        assert!(told["cpuTime"].as_u64().is_some_and(|time| time > 0), "{told}");
        // Where the kernel tells.
        for member in ["peakMemory", "processes"] {
            assert!(told[member].is_null() || told[member].is_u64(), "{told}");
        }
    }
}

/// Retried is what is named, and no other failure.
#[tokio::test]
async fn a_failure_that_is_not_named_is_not_tried_again() {
    let server = batch_server().await;
    let tries = |id: &str, on: Value| {
        with(step(id, "exit 75"), json!({"retries": 1, "retryOn": on, "dependsOn": []}))
    };
    let batch = server
        .submit(&json!({"steps": [
            tries("other", json!({"exitCodes": [9]})),
            tries("named", json!({"exitCodes": [9, 75]})),
            tries("reason", json!({"reasons": ["timedOut"]})),
        ]}))
        .await;
    let record = server.over(&batch).await;
    let attempts: Vec<_> = (0..3).map(|at| record["steps"][at]["attempt"].clone()).collect();
    assert_eq!(attempts, [json!(1), json!(2), json!(1)], "{record}");
}

#[tokio::test]
async fn the_next_try_waits_for_as_long_as_is_asked() {
    let server = batch_server().await;
    let tries = |id: &str, more: Value| {
        with(with(step(id, "exit 1"), json!({"retries": 2, "dependsOn": []})), more)
    };
    let batch = server
        .submit(&json!({"steps": [
            tries("patient", json!({"retryDelay": 600_000})),
            tries("usual", json!({})),
        ]}))
        .await;
    let mut record = Value::Null;
    for _ in 0..6000 {
        record = server.ask("GET", &batch, None).await.json();
        if record["steps"][1]["state"] == "failed" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let tried = |at: usize| (&record["steps"][at]["state"], &record["steps"][at]["attempt"]);
    assert_eq!(tried(1), (&json!("failed"), &json!(3)), "{record}");
    assert_eq!(tried(0), (&json!("retrying"), &json!(1)), "{record}");
}

#[tokio::test]
async fn limits_of_a_step_and_of_the_whole_are_held() {
    let server = batch_server().await;
    let apart = |step: Value, more: Value| with(with(step, json!({"dependsOn": []})), more);
    let batch = server
        .submit(&json!({"steps": [
            apart(step("silent", "echo up; sleep 600"), json!({"idleTimeout": 3000})),
            apart(step("files", "ulimit -Sn"), json!({"limits": {"openFiles": 33}})),
            apart(step("masked", "echo \"=$K=\""), json!({"env": {"K": "hidden-value"}, "mask": ["K"]})),
            apart(step("kept", "sleep 600 >/dev/null 2>&1 & echo $!"), json!({"background": "keep"})),
        ]}))
        .await;
    server.over(&batch).await;
    let results = server.ask("GET", &format!("{batch}/results"), None).await.json();
    let step = |at: usize| &results["steps"][at];
    assert_eq!((&step(0)["reason"], &step(0)["exitCode"]), (&json!("timedOut"), &json!(124)));
    assert_eq!(step(0)["stdout"], "up\n");
    assert_eq!(step(1)["stdout"], "33\n");
    assert_eq!(step(2)["stdout"], "=***=\n");
    let log = server.ask("GET", &format!("{batch}/steps/masked/log"), None).await;
    assert!(log.text().contains("=***=") && !log.text().contains("hidden"), "{}", log.text());
    let pid: u64 =
        step(3)["stdout"].as_str().and_then(|pid| pid.trim().parse().ok()).expect("a pid");
    assert!(is_alive(pid));
    server.run(&sh(&format!("kill {pid}"))).await;
    eventually("it is gone", || !is_alive(pid)).await;

    let long = json!({"timeout": 300, "steps": [step_that_sleeps("long")]});
    let record = server.over(&server.submit(&long).await).await;
    assert_eq!(
        (&record["state"], &record["exitCode"]),
        (&json!("failed"), &json!(124)),
        "{record}"
    );
}

fn step_that_sleeps(id: &str) -> Value {
    step(id, "sleep 600")
}

#[tokio::test]
async fn a_batch_is_found_by_its_name_and_purged_when_it_is_over() {
    let server = batch_server().await;
    let always = with(step("always", "sleep 600"), json!({"runIf": "always"}));
    let steps = json!([step_that_sleeps("long"), always]);
    let batch = server.submit(&json!({"name": "nightly", "steps": steps})).await;
    let found = async |name: &str| {
        let list = server.ask("GET", &format!("/api/v1/batches?name={name}"), None).await.json();
        list["batches"].as_array().expect("a list").len()
    };
    assert_eq!((found("nightly").await, found("other").await), (1, 0));
    let purged = server.ask("DELETE", &format!("{batch}?purge=true"), None).await;
    assert_eq!(purged.status, 409, "{}", purged.text());
    // The first one lets the step run that always does, the second one ends that, too.
    let begun = async |id: &str| {
        for _ in 0..6000 {
            let record = server.ask("GET", &batch, None).await.json();
            let steps = record["steps"].as_array().expect("a list");
            if steps.iter().any(|step| step["id"] == id && step["state"] == "running") {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("{id} never runs");
    };
    begun("long").await;
    let first = async { server.ask("DELETE", &batch, None).await.status };
    let second = async {
        begun("always").await;
        server.ask("DELETE", &batch, None).await.status
    };
    // Both are answered once it is over.
    assert_eq!(tokio::join!(first, second), (200, 200));
    let record = server.over(&batch).await;
    assert_eq!(record["state"], "cancelled", "{record}");
    assert_eq!(record["steps"][1]["reason"], "cancelled", "{record}");
    let purged = server.ask("DELETE", &format!("{batch}?purge=true"), None).await;
    assert_eq!(purged.status, 204, "{}", purged.text());
    assert_eq!(server.ask("GET", &batch, None).await.status, 404);
}

#[tokio::test]
async fn pieces_of_a_log_tell_their_times() {
    let server = batch_server().await;
    let batch = server.submit(&json!({"steps": [step("x", "echo out; echo err >&2")]})).await;
    let record = server.over(&batch).await;
    let headers = "Accept: application/x-ndjson\r\n";
    let log = server.ask_with("GET", &format!("{batch}/steps/x/log"), headers, None).await;
    let pieces: Vec<Value> =
        log.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let times: Vec<&str> = pieces.iter().filter_map(|piece| piece["time"].as_str()).collect();
    assert_eq!(times.len(), pieces.len(), "{pieces:?}");
    let step = &record["steps"][0];
    let [started, ended] = ["started", "ended"].map(|name| step[name].as_str().expect("a time"));
    for time in times {
        assert!(started <= time && time <= ended, "{started} {time} {ended}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_body_is_pointed_to() {
    let server = batch_server().await;
    for (path, body, pointer) in [
        ("/execute", json!({"command": 7}), "/command"),
        ("/execute", json!({"command": "true", "env": {"K": 1}}), "/env/K"),
        (
            "/api/v1/batches",
            json!({"steps": [{"command": "true", "retries": "x"}]}),
            "/steps/0/retries",
        ),
    ] {
        let answer = server.ask("POST", path, Some(&body)).await;
        let problem = answer.json();
        assert_eq!((answer.status, &problem["pointer"]), (400, &json!(pointer)), "{problem}");
    }
}
