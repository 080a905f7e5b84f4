//! The commands of `ssh user+@host`: lists sessions, and ends them.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::time::SystemTime;

use humantime::format_rfc3339_seconds;
use splengine_core::execute::{Stream, split_words};
use splengine_core::session::SessionInfo;
use splengine_core::{Caller, Engine};

use crate::channel_writer::{Disconnected, Exit, REFUSED, Reply};

/// Lists the caller's sessions, or ends those that `command` names.
pub(crate) async fn run(
    engine: &Engine,
    caller: &Caller,
    command: &OsStr,
    in_terminal: bool,
    reply: &Reply,
) -> Result<Exit, Disconnected> {
    let words = split_words(command).unwrap_or_default();
    let words: Vec<&str> = words.iter().map(|word| word.to_str().unwrap_or_default()).collect();
    let (told, code) = match words.as_slice() {
        ["list"] => (table(&engine.sessions().list(caller), SystemTime::now()), 0),
        ["end", ids @ ..] if !ids.is_empty() => {
            let mut problems = String::new();
            for id in ids {
                if let Err(error) = engine.sessions().end(caller, *id).await {
                    let _ = writeln!(problems, "{error}");
                }
            }
            let code = u32::from(!problems.is_empty());
            (problems, code)
        }
        _ => return Ok(reply.refuse(USAGE, REFUSED).await),
    };
    let stream = if code == 0 { Stream::Stdout } else { Stream::Stderr };
    let told = if in_terminal { told.replace('\n', "\r\n") } else { told };
    reply.send(stream, told.into()).await?;
    Ok(reply.finish(Exit::Code(code)).await)
}

/// One line a session, the newest first, after a line of what stands there.
fn table(sessions: &[SessionInfo], now: SystemTime) -> String {
    let mut table =
        format!("{:<56} {:<8} {:>7} {:<20} {}\n", "ID", "STATE", "CLIENTS", "CREATED", "NAME");
    for session in sessions {
        let name = session.name.as_deref().unwrap_or(&session.title);
        // Titles are what programs made them.
        let name: String = name.chars().filter(|c| !c.is_control()).take(MAX_NAME_CHARS).collect();
        let _ = writeln!(
            table,
            "{:<56} {:<8} {:>7} {:<20} {name}",
            session.id.as_str(),
            session.state.name(),
            session.clients,
            format_rfc3339_seconds(session.created.min(now)).to_string(),
        );
    }
    table
}

const USAGE: &str = "wanted is nothing or `list`, which lists your sessions, or `end ID…`, which ends \
                     some; USER+ID@HOST attaches to one";
const MAX_NAME_CHARS: usize = 60;
