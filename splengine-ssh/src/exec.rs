//! A command on a channel without a terminal.

use splengine_core::execute::{SplitError, Stdin};
use splengine_core::{Engine, ErrorKind, Event, ExecuteError, Request};

use crate::channel_writer::{Disconnected, Exit, MISUSE, REFUSED, Reply};
use crate::context::{Controls, ExecContext};
use crate::spill_buffer::SpillReader;

/// Runs what is asked for to its end. Dropping the future cancels it.
pub(crate) async fn run(
    engine: &Engine,
    place: &ExecContext,
    mut request: Request,
    input: SpillReader,
    mut controls: Controls,
    reply: &Reply,
) -> Result<Exit, Disconnected> {
    for (name, value) in &place.env {
        request = request.env(name, value);
    }
    for (name, value) in &place.server_env {
        request = request.server_env(name, value);
    }
    if let Some(session) = &place.session {
        request = request.session_id(session);
    }
    let started = engine.execute(&place.caller, request.stdin(Stdin::reader(input))).await;
    let mut run = match started {
        Ok(run) => run,
        Err(error) => return Ok(reply.refuse(&error.to_string(), code(&error)).await),
    };
    let stopper = run.stopper();
    let passing_on = async {
        while let Some(signal) = controls.signals.recv().await {
            stopper.signal(signal);
        }
        std::future::pending().await
    };
    let printing = async {
        loop {
            match run.next().await {
                Some(Event::Output { stream, data }) => reply.send(stream, data).await?,
                Some(Event::End(end)) => return Ok(Exit::from(&end)),
                Some(_) => {}
                None => return Err(Disconnected),
            }
        }
    };
    let exit = tokio::select! {
        exit = printing => exit?,
        never = passing_on => never,
    };
    Ok(reply.finish(exit).await)
}

/// As a shell tells of a command that it can't run or read; else by the kind of the error.
pub(crate) fn code(error: &ExecuteError) -> u32 {
    match error {
        ExecuteError::Split(SplitError::Operator(_)) => MISUSE,
        _ => error
            .exit_code()
            .and_then(|code| u32::try_from(code).ok())
            .unwrap_or_else(|| code_of(error.kind())),
    }
}

/// The exit status of a command that did not run: 255 where the engine refused it, and 254 where it failed.
fn code_of(kind: ErrorKind) -> u32 {
    match kind {
        ErrorKind::Internal => 254,
        _ => REFUSED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_kind_is_told_as_success_or_as_a_programs_own_end() {
        for &kind in ErrorKind::ALL {
            let expected = if kind == ErrorKind::Internal { 254 } else { 255 };
            assert_eq!(code_of(kind), expected, "{kind:?}");
        }
    }

    #[test]
    fn what_shells_have_a_status_for_is_told_by_that() {
        for (error, expected) in [
            (ExecuteError::Split(SplitError::Operator("`|`")), MISUSE),
            (ExecuteError::ProgramNotFound("a".to_owned()), 127),
            (ExecuteError::ProgramUnusable { program: "a".to_owned(), problem: "" }, 126),
            (ExecuteError::NoSession("a".to_owned()), REFUSED),
            (ExecuteError::internal("a fault"), 254),
        ] {
            assert_eq!(code(&error), expected, "{error}");
        }
    }
}
