//! What the files of a caller may hold, by HTTP and Avro RPC.

use std::fs;

use serde_json::Value;

use crate::conformance::{CODES, avro_call, text};
use crate::server::{ALICE, all_in_one, ask, example, refusal};

#[test]
fn a_callers_files_hold_no_more_than_the_settings_say() {
    let settings = tempfile::tempdir().expect("a directory");
    let config = settings.path().join("config.toml");
    fs::write(&config, "[files]\nmax-bytes-per-caller = 12288\n").expect("written");
    let config = config.to_str().expect("UTF-8");
    let server = all_in_one(&["--config", config, "--avro", "127.0.0.1:0"]);
    let ready: Value = serde_json::from_str(&server.server.ready).expect("JSON");
    let avro = ready["avro"].as_str().and_then(|addr| addr.parse().ok()).expect("an address");

    let put =
        |name: &str, body: &str| ask(&server.addr, &format!("PUT /api/v1/files/{name}"), body);
    assert_eq!(put("a", "content").0, 201);
    let (status, problem) = put("b", &"x".repeat(5000));
    assert_eq!(status, 507, "{problem}");
    assert!(problem.contains("may hold 12288 bytes"), "{problem}");

    let mut metadata = vec![2];
    text(b"spl-authorization", &mut metadata);
    text(format!("Bearer {ALICE}").as_bytes(), &mut metadata);
    let mut call = Vec::new();
    [&b"writeFile"[..], b"b", b"content"].into_iter().for_each(|part| text(part, &mut call));
    call.push(0);
    let Err((1, mut error)) = avro_call(avro, &metadata, &call) else { panic!("it was written") };
    let code = CODES[usize::try_from(error.long()).expect("a symbol")];
    assert_eq!(code, "RESOURCE_EXHAUSTED");
    assert!(error.text().contains("may hold 12288 bytes"));

    let (status, problem) = ask(&server.addr, "DELETE /api/v1/files/a", "");
    assert_eq!(status, 204, "{problem}");
    assert!(avro_call(avro, &metadata, &call).is_ok());
}

#[test]
fn a_root_that_cannot_note_whose_files_are_is_refused_by_name() {
    let settings = tempfile::tempdir().expect("a directory");
    let config = settings.path().join("config.toml");
    let text =
        "[files]\nmax-bytes-per-caller = 1\n[batches]\nenabled = false\n[sessions]\nkeep = false\n";
    fs::write(&config, text).expect("written");
    let output = refusal(example("all-in-one").args(["--root", "/proc", "--config"]).arg(&config));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("[files] max-bytes-per-caller"), "{told}");
}
