//! What servers do for those who may.

use std::fs;

use crate::error::ErrorKind;
use crate::execute::Reason;
use crate::testing::conformance::server::check::Fail;
use crate::testing::conformance::server::opened::{Opened, not_done};
use crate::testing::conformance::{ClientError, Outcome, ServerClient, TestUser};

use TestUser::{Alice, Bob};

pub(super) async fn exit_code<C: ServerClient>(it: &Opened<C>) -> Result<(), Fail> {
    for code in [0, 7, 255] {
        let script = format!("exit {code}");
        let outcome = it.run(Alice, &["sh", "-c", &script], b"").await?;
        ended(&script, &outcome, code, Reason::Exited)?;
    }
    Ok(())
}

pub(super) async fn signal<C: ServerClient>(it: &Opened<C>) -> Result<(), Fail> {
    let script = "kill -KILL $$";
    let outcome = it.run(Alice, &["sh", "-c", script], b"").await?;
    ended(script, &outcome, 128 + 9, Reason::Signaled)
}

pub(super) async fn streams<C: ServerClient>(it: &Opened<C>) -> Result<(), Fail> {
    let script = r"printf 'a\377b\n\000c'; printf 'aside\n' >&2";
    let outcome = it.run(Alice, &["sh", "-c", script], b"").await?;
    same("standard output", &outcome.stdout, b"a\xffb\n\0c")?;
    same("standard error", &outcome.stderr, b"aside\n")?;
    let outcome = it.run(Alice, &["seq", "20000"], b"").await?;
    let all: String = (1..=20_000).map(|number| format!("{number}\n")).collect();
    same("standard output of `seq 20000`", &outcome.stdout, all.as_bytes())?;
    same("standard error of `seq 20000`", &outcome.stderr, b"")
}

pub(super) async fn stdin<C: ServerClient>(it: &Opened<C>) -> Result<(), Fail> {
    let all: Vec<u8> = (0..100_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    for input in [&all[..], b""] {
        let outcome = it.run(Alice, &["cat"], input).await?;
        ended("cat", &outcome, 0, Reason::Exited)?;
        same("what `cat` read from standard input", &outcome.stdout, input)?;
    }
    Ok(())
}

pub(super) async fn arguments<C: ServerClient>(it: &Opened<C>) -> Result<(), Fail> {
    let words = ["two  words", "it's", "\"$HOME\"", "*", "\\", "", "-x", "; exit 3", "gr\u{fc}n"];
    let argv: Vec<_> = ["printf", "<%s>"].into_iter().chain(words).collect();
    let outcome = it.run(Alice, &argv, b"").await?;
    let printed: String = words.iter().map(|word| format!("<{word}>")).collect();
    same("what the arguments were printed as", &outcome.stdout, printed.as_bytes())
}

pub(super) async fn identity<C: ServerClient>(it: &Opened<C>) -> Result<(), Fail> {
    let of = async |user: TestUser| {
        let script = "printf %s \"$SPL_SESSION_ID\"";
        let outcome = it.run(user, &["sh", "-c", script], b"").await?;
        let printed = String::from_utf8_lossy(&outcome.stdout).into_owned();
        let expected = format!("spl-{}-", user.name());
        if printed.starts_with(&expected) {
            return Ok(());
        }
        Fail::violation(format!(
            "a command of {} ran with the session `{printed}`, expected one that begins with \
             `{expected}`",
            user.name()
        ))
    };
    let (alice, bob) = tokio::join!(of(Alice), of(Bob));
    alice.and(bob)
}

pub(super) async fn concurrency<C: ServerClient>(it: &Opened<C>) -> Result<(), Fail> {
    let script = "touch begun; while [ ! -e go ]; do sleep 0.02; done";
    let argv = ["sh", "-c", script];
    let mut waiting = Box::pin(it.within(it.client.execute(Alice, &argv, b"")));
    it.begun(&mut waiting, "begun").await?;
    let other = ["touch", "go"];
    let (waited, other) = tokio::join!(waiting, it.run(Bob, &other, b""));
    other?;
    match waited {
        Ok(outcome) => ended("a loop", &outcome, 0, Reason::Exited),
        Err(error) => Err(not_done("a command", Alice, &error)),
    }
}

pub(super) async fn terminal<C: ServerClient>(it: &Opened<C>) -> Result<(), Fail> {
    let input = "printf '<%s>' $((6 * 7)); exit 7\n";
    let outcome = it.within(it.client.terminal(Alice, input)).await;
    let outcome = outcome.map_err(|error| not_done("a terminal", Alice, &error))?;
    ended("the shell", &outcome, 7, Reason::Exited)?;
    let shown = String::from_utf8_lossy(&outcome.stdout);
    match shown.contains("<42>") {
        true => Ok(()),
        false => Fail::violation(format!("the terminal showed {shown:?}, expected `<42>` in it")),
    }
}

pub(super) async fn files<C: ServerClient>(it: &Opened<C>) -> Result<(), Fail> {
    let data = b"bytes \xff\0\n";
    let written = it.within(it.client.write_file(Alice, "note", data)).await;
    written.map_err(|error| not_done("a write", Alice, &error))?;
    same("the file as it is on disk", &fs::read(it.root.join("note")).unwrap_or_default(), data)?;
    let read = it.within(it.client.read_file(Alice, "note")).await;
    same(
        "the file as it is read",
        &read.map_err(|error| not_done("a read", Alice, &error))?,
        data,
    )?;

    let missing = it.within(it.client.read_file(Alice, "nowhere")).await;
    refused("a read of a file that there is not", missing, ErrorKind::NotFound)?;
    let secret = it.root.with_file_name("outside");
    fs::write(&secret, "secret").map_err(|error| Fail::Violation(error.to_string()))?;
    match it.within(it.client.read_file(Alice, "../outside")).await {
        Ok(_) => Fail::violation("`../outside` was read, expected a refusal: it is outside root"),
        Err(_) => Ok(()),
    }
}

pub(super) async fn batch<C: ServerClient>(it: &Opened<C>) -> Result<(), Fail> {
    let steps: [&[&str]; 2] = [&["printf", "one "], &["sh", "-c", "printf two; exit 3"]];
    let outcome = it.within(it.client.batch(Alice, &steps)).await;
    let outcome = outcome.map_err(|error| not_done("a batch", Alice, &error))?;
    if outcome.exit_code != 3 {
        let code = outcome.exit_code;
        return Fail::violation(format!("the batch ended with code {code}, expected 3"));
    }
    same("the output of all steps", &outcome.stdout, b"one two")
}

/// Fails unless a command ended so.
pub(super) fn ended(
    what: &str,
    outcome: &Outcome,
    exit_code: i32,
    reason: Reason,
) -> Result<(), Fail> {
    let (code, told) = (outcome.exit_code, outcome.reason);
    if code != exit_code {
        return Fail::violation(format!("`{what}` ended with code {code}, expected {exit_code}"));
    }
    match told.filter(|told| *told != reason) {
        Some(told) => Fail::violation(format!(
            "`{what}` ended for the reason `{}`, expected `{}`",
            told.name(),
            reason.name()
        )),
        None => Ok(()),
    }
}

/// Fails unless bytes are these.
fn same(what: &str, bytes: &[u8], expected: &[u8]) -> Result<(), Fail> {
    if bytes == expected {
        return Ok(());
    }
    let shown = |bytes: &[u8]| {
        let (beginning, length) = (&bytes[..bytes.len().min(100)], bytes.len());
        format!("\"{}\" ({length} bytes)", beginning.escape_ascii())
    };
    Fail::violation(format!("{what} is {}, expected {}", shown(bytes), shown(expected)))
}

/// Fails unless a call was refused with a code that stands for `kind`; gives what was told.
pub(super) fn refused<T>(
    what: &str,
    result: Result<T, ClientError>,
    kind: ErrorKind,
) -> Result<String, Fail> {
    let expected = format!("expected a refusal as `{}`", kind.name());
    match result {
        Ok(_) => Fail::violation(format!("{what} was done, {expected}")),
        Err(ClientError::Unsupported) => Err(Fail::Unsupported),
        Err(ClientError::Refused { kinds, message }) if kinds.contains(&kind) => Ok(message),
        Err(error) => Fail::violation(format!("{what}: {error}, {expected}")),
    }
}
