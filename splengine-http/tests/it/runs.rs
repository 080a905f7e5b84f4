use std::time::Duration;

use serde_json::{Value, json};

use crate::support::*;

#[tokio::test]
async fn a_run_is_answered_whole() {
    let server = server().await;
    for path in ["/execute", "/api/v1/execute"] {
        let body = sh("echo out; echo err >&2; exit 3").to_string();
        let response = server.post(path, &[TOKEN, JSON], body.as_bytes()).await;
        assert_eq!(response.status, 200);
        assert_eq!(response.header("content-type"), Some("application/json"));
        let mut json = response.json();
        let session_id = json["sessionId"].take();
        assert!(session_id.as_str().expect("text").starts_with("spl-alice-"));
        assert!(json["duration"].take().is_u64());
        assert!(json["cpuTime"].take().is_u64() && json["peakMemory"].is_null());
        // Null where there is no cgroup that counts them.
        assert!([json!(1), Value::Null].contains(&json["processes"].take()));
        assert_eq!(
            json,
            json!({
                "success": false, "exitCode": 3, "stdout": "out\n", "stderr": "err\n",
                "duration": null, "sessionId": null, "reason": "exited", "signal": null,
                "stdoutBytes": 4, "stderrBytes": 4,
                "stdoutTruncated": false, "stderrTruncated": false,
                "stdoutGap": null, "stderrGap": null, "cpuTime": null, "peakMemory": null,
                "processes": null,
            })
        );
    }
}

#[tokio::test]
async fn every_member_counts() {
    let server = server().await;
    std::fs::create_dir(server.root.path().join("data")).expect("made");
    let request = json!({
        "command": "sh", "args": ["-c", "pwd; echo $K; cat; sleep 60 & echo $SPL_SESSION_ID"],
        "workdir": "data", "env": {"K": "V"}, "stdin": "aW5wdXQ=", "stdinEncoding": "base64",
        "timeout": 30000, "outputLimit": 100_000, "outputEncoding": "utf8", "background": "kill",
        "async": false, "sessionId": null, "limits": {"openFiles": 50}, "slowReader": "wait",
    });
    let result = server.run(&request).await;
    let lines: Vec<&str> = result["stdout"].as_str().expect("text").lines().collect();
    assert!(lines[0].ends_with("/data"));
    assert_eq!(lines[1], "V");
    assert_eq!(lines[2], format!("input{}", result["sessionId"].as_str().expect("text")));
}

#[tokio::test]
async fn null_is_the_same_as_nothing() {
    let server = server().await;
    let request = json!({
        "command": "echo hi", "args": null, "workdir": null, "sessionId": null, "env": null,
        "stdin": null, "stdinEncoding": null, "timeout": null, "outputLimit": null,
        "outputEncoding": null, "background": null, "async": null, "limits": null,
        "slowReader": null,
    });
    assert_eq!(server.run(&request).await["stdout"], "hi\n");
}

#[tokio::test]
async fn bytes_that_are_no_text() {
    let server = server().await;
    let script = r"printf 'a\000\377\303'";
    assert_eq!(server.run(&sh(script)).await["stdout"], "a\0\u{fffd}\u{fffd}");
    let exact = server.run(&with(sh(script), json!({"outputEncoding": "base64"}))).await;
    assert_eq!(exact["stdout"], "YQD/ww==");
    assert_eq!(exact["stdoutBytes"], 4);
}

#[tokio::test]
async fn over_the_output_limit_both_ends_are_kept() {
    let server = server().await;
    let request = with(sh("printf abcdefgh"), json!({"outputLimit": 4}));
    let result = server.run(&request).await;
    assert_eq!(result["stdout"], "abgh");
    assert_eq!((&result["stdoutBytes"], &result["stdoutTruncated"]), (&json!(8), &json!(true)));
    assert_eq!(result["stdoutGap"], json!({"at": 2, "bytes": 4}));
    assert_eq!((&result["stderrGap"], &result["success"]), (&json!(null), &json!(true)));
}

#[tokio::test]
async fn secrets_are_masked_and_silence_is_bounded() {
    let server = server().await;
    let more = json!({"env": {"TOKEN": "hunter2"}, "mask": ["TOKEN"], "idleTimeout": 3000});
    let result = server.run(&with(sh("echo $TOKEN; sleep 600"), more)).await;
    assert_eq!((&result["stdout"], &result["reason"]), (&json!("***\n"), &json!("timedOut")));
    let unknown = with(sh("true"), json!({"mask": ["TOKEN"]}));
    assert!(server.execute(&unknown).await.problem(400).contains("`mask`"));
    let input = "Content-Type: application/octet-stream";
    let response = server.post("/execute?command=cat&idleTimeout=0", &[TOKEN, input], b"").await;
    assert!(response.problem(400).contains("`idleTimeout`"));
}

#[tokio::test]
async fn how_it_ended_is_told() {
    // Long enough for it to end when it is told to, whatever else this machine does.
    let grace = Duration::from_secs(30);
    let server = server_with(|engine| engine.grace(grace), |http| http).await;
    let result = server.run(&with(sh("sleep 60"), json!({"timeout": 200}))).await;
    assert_eq!(result["reason"], "timedOut");
    assert_eq!((&result["exitCode"], &result["signal"]), (&json!(124), &json!("SIGTERM")));
    let result = server.run(&sh("kill -SEGV $$")).await;
    assert_eq!(result["reason"], "signaled");
    assert_eq!((&result["exitCode"], &result["signal"]), (&json!(139), &json!("SIGSEGV")));
}

#[tokio::test]
async fn a_failure_takes_the_status_that_was_asked_for() {
    let server = server().await;
    let post = async |script: &str, path: &str| {
        server.post(path, &[TOKEN, JSON], sh(script).to_string().as_bytes()).await
    };
    let failed = post("echo out; exit 3", "/execute?failStatus=500").await;
    assert_eq!(failed.status, 500);
    assert_eq!(failed.header("content-type"), Some("application/json"));
    assert_eq!(failed.json()["exitCode"], 3);
    assert_eq!(failed.json()["stdout"], "out\n");
    assert_eq!(failed.json()["error"], "the command exited with code 3");
    let fine = post("echo out", "/execute?failStatus=500").await;
    assert_eq!((fine.status, fine.json().get("error")), (200, None));
    for bad in ["200", "600", "x", "", "500&failStatus=501"] {
        let refused = post("true", &format!("/execute?failStatus={bad}")).await;
        assert!(refused.problem(400).contains("failStatus"));
    }
}

#[tokio::test]
async fn clients_of_nifi_and_kafka_are_served_as_they_are() {
    let program = splengine_core::execute::Program::at("echo");
    let server = server_with(|engine| engine.program(program), |http| http).await;
    std::fs::create_dir_all(server.root.path().join("spl/runtime/kafka-session")).expect("made");
    for (body, stdout) in [
        (
            r#"{"command": "data transform", "args": ["--input=${filename}"]}"#,
            "data transform --input=${filename}\n",
        ),
        (
            r#"{"command": "data process", "args": ["--input=…", "--output=/tmp/processed"], "workdir": "/spl/runtime/kafka-session"}"#,
            "data process --input=… --output=/tmp/processed\n",
        ),
        (r#"{"command": "console log \"Hello from NiFi\""}"#, "console log Hello from NiFi\n"),
    ] {
        let response = server.post("/execute", &[TOKEN, JSON], body.as_bytes()).await;
        assert_eq!(response.json()["stdout"], stdout);
    }
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_run() {
    let server = server().await;
    let file = server.root.path().join("pid");
    for accept in ["application/json", "application/x-ndjson", "text/event-stream"] {
        let mut connection = server.connect().await;
        let script = sh("echo $$ > pid.new; mv pid.new pid; exec sleep 60").to_string();
        let accept = format!("Accept: {accept}");
        connection.post("/execute", &[TOKEN, JSON, &accept], script.as_bytes()).await;
        eventually("it runs", || file.exists()).await;
        let pid =
            std::fs::read_to_string(&file).expect("written").trim().parse().expect("a number");
        std::fs::remove_file(&file).expect("removed");
        assert!(is_alive(pid));
        drop(connection);
        eventually("its process is gone", || !is_alive(pid)).await;
    }
}

#[tokio::test]
async fn no_character_is_made_of_both_sides_of_a_gap() {
    let server = server().await;
    let script = r"printf '\342\202....\254z'";
    let result = server.run(&with(sh(script), json!({"outputLimit": 4}))).await;
    assert_eq!(result["stdout"], "\u{fffd}\u{fffd}z");
    let exact = json!({"outputLimit": 4, "outputEncoding": "base64"});
    assert_eq!(server.run(&with(sh(script), exact)).await["stdout"], "4oKseg==");
}
