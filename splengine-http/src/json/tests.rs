use proptest::prelude::*;

use splengine_core::batch::RetryOn;
use splengine_core::{BatchRequest, Request, Step};

use super::*;
use crate::dto::ExecuteRequestDto;
use crate::dto_batch_requests::BatchRequestDto;
use crate::dto_sessions::SessionRequestDto;

fn detail(body: &str) -> String {
    match parse::<ExecuteRequestDto>(body.as_bytes()) {
        Ok(_) => "taken".to_owned(),
        Err(problem) => problem.detail().to_owned(),
    }
}

#[test]
fn whole_numbers_are_taken_in_every_form() {
    for (number, expected) in [
        ("30000.0", Some("30000")),
        ("3e4", Some("30000")),
        ("3E+4", Some("30000")),
        ("0.3e5", Some("30000")),
        ("300000e-1", Some("30000")),
        ("1.50e1", Some("15")),
        ("-3e0", Some("-3")),
        ("0.0", Some("0")),
        ("-0.0", Some("0")),
        ("0e999999999999", Some("0")),
        ("1e19", Some("10000000000000000000")),
        ("1e20", None),
        ("1e999999999999999999999", None),
        ("1.5", None),
        ("3", None),
        ("1e-1", None),
        ("01.0", None),
        (".5e1", None),
        ("1.e1", None),
        ("1e", None),
        ("1e+", None),
        ("--1.0", None),
        ("1.0.0", None),
    ] {
        assert_eq!(whole_number(number.as_bytes()).as_deref(), expected, "{number}");
    }
}

#[test]
fn strings_are_left_alone() {
    let text = br#"{"a\"1.0": "2e3 \\", "b": [1.0,-2e1 ,3.5]}"#;
    let plain = br#"{"a\"1.0": "2e3 \\", "b": [1,-20 ,3.5]}"#;
    assert_eq!(plain_whole_numbers(text).as_ref(), plain);
    for unfinished in [&b"\"1.0"[..], b"\"\\", b"\"", b"-", b"1e"] {
        assert_eq!(plain_whole_numbers(unfinished).as_ref(), unfinished);
    }
}

/// A list, or an object, of so many elements.
fn list(count: usize, element: &str) -> String {
    format!("[{}]", vec![element; count].join(","))
}

fn object(count: usize) -> String {
    let members: Vec<String> = (0..count).map(|number| format!("\"v{number}\":\"\"")).collect();
    format!("{{{}}}", members.join(","))
}

/// What a body with one element more than there may be of a member is refused with.
fn refusal<T: DeserializeOwned>(body: impl Fn(usize) -> String, max: usize) -> String {
    assert!(parse::<T>(body(max).as_bytes()).is_ok(), "{max} of them are taken");
    let problem = parse::<T>(body(max + 1).as_bytes()).err().expect("one more is not");
    assert_eq!(problem.status(), StatusCode::UNPROCESSABLE_ENTITY);
    problem.detail().to_owned()
}

#[test]
fn no_member_has_more_elements_than_core_takes() {
    let lists = [
        ("args", Request::MAX_ARGS, "\"\""),
        ("mask", Request::MAX_MASKED_VARIABLES, "\"\""),
        ("dependsOn", Step::MAX_DEPENDENCIES, "\"\""),
        ("retryOn.exitCodes", RetryOn::MAX_EXIT_CODES, "7"),
        ("retryOn.reasons", RetryOn::MAX_REASONS, "\"lost\""),
    ];
    let expected = |path: &str, max: usize| {
        let pointer = path.replace("steps[0]", "steps/0").replace('.', "/");
        format!("`{path}` has more than {max} elements, the maximum (at /{pointer})")
    };
    for (member, max, element) in lists {
        let value = |count| list(count, element);
        let inside = |count| match member.split_once('.') {
            Some((outer, inner)) => format!("\"{outer}\":{{\"{inner}\":{}}}", value(count)),
            None => format!("\"{member}\":{}", value(count)),
        };
        let of_step = |count| format!("{{\"steps\":[{{\"command\":\"a\",{}}}]}}", inside(count));
        let told = refusal::<BatchRequestDto>(of_step, max);
        assert_eq!(told, expected(&format!("steps[0].{member}"), max));
        if ["args", "mask"].contains(&member) {
            let of_run = |count| format!("{{\"command\":\"a\",{}}}", inside(count));
            assert_eq!(refusal::<ExecuteRequestDto>(of_run, max), expected(member, max));
        }
        if member == "args" {
            let of_session = |count| format!("{{{}}}", inside(count));
            assert_eq!(refusal::<SessionRequestDto>(of_session, max), expected(member, max));
        }
    }
    let max = Request::MAX_VARIABLES;
    let env = |count| format!("{{\"command\":\"a\",\"env\":{}}}", object(count));
    assert_eq!(refusal::<ExecuteRequestDto>(env, max), expected("env", max));
    assert_eq!(refusal::<SessionRequestDto>(env, max), expected("env", max));
    let of_step = |count| format!("{{\"steps\":[{}]}}", env(count));
    assert_eq!(refusal::<BatchRequestDto>(of_step, max), expected("steps[0].env", max));
    let max = BatchRequest::MAX_LABELS;
    let labels = |count| format!("{{\"steps\":[],\"labels\":{}}}", object(count));
    assert_eq!(refusal::<BatchRequestDto>(labels, max), expected("labels", max));
}

#[test]
fn no_body_has_more_members_than_it_may() {
    let step = |args| format!("{{\"command\":\"a\",\"args\":{}}}", list(args, "\"\""));
    // Each list is within its bound; a comma within a text is none between members.
    let body = |steps| {
        format!("{{\"steps\":{},\"name\":\"{}\"}}", list(steps, &step(100_000)), ",".repeat(9))
    };
    assert!(parse::<BatchRequestDto>(body(2).as_bytes()).is_ok());
    let problem = parse::<BatchRequestDto>(body(3).as_bytes()).map(drop).expect_err("refused");
    assert_eq!(problem.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(problem.detail(), "the body has more than 262144 members and elements, the maximum");
    let commas = "x,".repeat(MAX_MEMBERS);
    assert!(parse::<ExecuteRequestDto>(format!("{{\"command\":\"{commas}\"}}").as_bytes()).is_ok());
}

#[test]
fn what_is_wrong_is_said_in_words_with_its_place() {
    for (body, expected) in [
        (
            r#"{"command":"a","background":true}"#,
            "`background` must be `kill` or `keep`, not true (at /background)",
        ),
        (
            r#"{"command":"a","background":"maybe"}"#,
            "`background` must be `kill` or `keep`, not `maybe` (at /background)",
        ),
        (
            r#"{"command":"a","background":[]}"#,
            "`background` must be `kill` or `keep`, not a list (at /background)",
        ),
        (r#"{"command":1}"#, "`command` must be a string, not the number 1 (at /command)"),
        (r#"{"command":null}"#, "`command` must be a string, not null (at /command)"),
        (
            r#"{"command":"a","args":[1]}"#,
            "`args[0]` must be a string, not the number 1 (at /args/0)",
        ),
        (
            r#"{"command":"a","env":{"a/b":1.5}}"#,
            "`env.a/b` must be a string, not the number 1.5 (at /env/a~1b)",
        ),
        (
            r#"{"command":"a","timeout":"secret"}"#,
            "`timeout` must be a whole number, 0 or more, not a string (at /timeout)",
        ),
        (
            r#"{"command":"a","timeout":1.5}"#,
            "`timeout` must be a whole number, 0 or more, not the number 1.5 (at /timeout)",
        ),
        ("{}", "`command` is missing (at /command)"),
        (r#"{"command":"a","command":"b"}"#, "`command` stands twice (at /command)"),
        ("null", "the body is not a request: it must be an object with `command`, not null"),
    ] {
        assert_eq!(detail(body), expected, "{body}");
    }
    let unknown = detail(r#"{"command":"a","limits":{"cpu":1}}"#);
    let beginning = "`limits.cpu` is out of place: unknown field `cpu`; there is: `cpuTime`";
    assert!(unknown.starts_with(beginning), "{unknown}");
    assert!(unknown.ends_with("(at /limits/cpu)"), "{unknown}");
    for body in ["", "{", r#"{"command":"\ud800"}"#, r#"{"command": tru}"#, r#"{"a":1} x"#] {
        assert_ne!(detail(body), "taken", "{body}");
    }
    assert!(detail("{").starts_with("the body is not JSON"));
    assert_eq!(detail("\u{feff}{\"command\":\"a\",\"timeout\":3e4}"), "taken");
}

proptest! {
    #[test]
    fn a_whole_number_keeps_its_value(number in any::<u64>(), zeros in 0usize..4, shift in 0u32..6) {
        let fraction = "0".repeat(zeros + 1);
        prop_assert_eq!(
            whole_number(format!("{number}.{fraction}").as_bytes()),
            Some(number.to_string())
        );
        let scaled = u128::from(number) * 10u128.pow(shift);
        prop_assert_eq!(
            whole_number(format!("{scaled}e-{shift}").as_bytes()),
            Some(number.to_string())
        );
    }

    #[test]
    fn what_is_json_stays_json(text in "[0-9eE+.\"\\\\ ,:{}\\[\\]-]{0,40}") {
        let plain = plain_whole_numbers(text.as_bytes());
        let parsed = serde_json::from_slice::<Value>(&plain);
        if let Ok(before) = serde_json::from_str::<Value>(&text) {
            let after = parsed.expect("still JSON");
            prop_assert!(same(&before, &after), "{} became {}", before, after);
        } else {
            prop_assert!(parsed.is_err());
        }
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}
