//! Checks of a batch before it is accepted.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::time::Duration;

use crate::auth::Caller;
use crate::batch::plan::{Step, StepCheck};
use crate::batch::{BatchError, BatchRequest, Batches, RetryOn};
use crate::error::Field;
use crate::execute::{Command, ExecuteError, Reason};
use crate::quota::CallerLargeWork;
use crate::time::duration_millis;

/// A program, the directory that it runs in, the variables that it is found by, and whether it has
/// to be there.
type Found = (OsString, Option<String>, Vec<(String, String)>, StepCheck);

/// The checks of a batch's steps.
struct StepChecks {
    batches: Batches,
    caller: Caller,
    /// Most steps of a batch differ in their arguments only.
    seen: HashSet<Found>,
    /// The place of the first step that was not looked at.
    next: usize,
}

/// A command that the executor is asked about.
struct Asked {
    /// The step's id.
    step: String,
    command: Command,
    check: StepCheck,
}

/// Checks whether the `steps` of something of `bytes` can run, now or, with [`StepCheck::Late`], once those
/// before them have; gives it back if so.
pub(crate) async fn check_steps<T: Send + 'static>(
    batches: &Batches,
    caller: &Caller,
    (work, bytes): (&CallerLargeWork, usize),
    mut of: T,
    steps: fn(&T) -> &[Step],
    default: fn(&T, usize) -> StepCheck,
) -> Result<T, BatchError> {
    let seen = HashSet::new();
    let mut checks = StepChecks { batches: batches.clone(), caller: caller.clone(), seen, next: 0 };
    loop {
        let look = move || {
            let (asked, found) = checks.look(steps(&of), |place| default(&of, place));
            // What was seen is dropped with the last of them, since that takes time.
            let is_over = found.is_err() || checks.next == steps(&of).len();
            let left = (!is_over).then_some(checks);
            match found {
                Ok(()) => (asked, Ok((of, left))),
                Err(error) => (asked, Err(error)),
            }
        };
        let (asked, found) = work.run(bytes, look).await;
        let executor = &batches.runner.executor;
        let mut refused = None;
        for Asked { step, command, check } in asked {
            match executor.check_boxed(&command).await {
                Err(error) if check == StepCheck::Late && error.can_be_mended() => {}
                Err(error) => {
                    refused = Some(BatchError::Command { step, source: Box::new(error) });
                    break;
                }
                Ok(()) => {}
            }
        }
        if let Some(error) = refused {
            work.run(bytes, move || drop(found)).await;
            return Err(error);
        }
        match found? {
            (of, None) => return Ok(of),
            (back, Some(left)) => (of, checks) = (back, left),
        }
    }
}

impl StepChecks {
    /// Looks at the steps that follow, and gives the commands that the executor is to be asked about: at
    /// most [`MAX_ASKED`], and those before the first step that is wrong.
    fn look(
        &mut self,
        steps: &[Step],
        default: impl Fn(usize) -> StepCheck,
    ) -> (Vec<Asked>, Result<(), BatchError>) {
        let mut asked = Vec::new();
        while let Some(step) = steps.get(self.next) {
            match self.look_at(self.next, step, default(self.next)) {
                Ok(found) => asked.extend(found),
                Err(error) => return (asked, Err(error)),
            }
            self.next += 1;
            if asked.len() == MAX_ASKED {
                break;
            }
        }
        (asked, Ok(()))
    }

    /// The command of a step, if none like it was seen.
    fn look_at(
        &mut self,
        place: usize,
        step: &Step,
        default: StepCheck,
    ) -> Result<Option<Asked>, BatchError> {
        let id = || step.id_at(place);
        checked_retries(step)
            .and_then(|()| checked_stdin(step))
            .map_err(|(field, problem)| BatchError::Step { step: id(), field, problem })?;
        let refused =
            |error: ExecuteError| BatchError::Command { step: id(), source: Box::new(error) };
        let runner = &self.batches.runner;
        let command: Command = runner.command(&self.caller, step.request()).map_err(refused)?;
        let check = step.0.check.unwrap_or(default);
        let program = command.argv[0].clone();
        let found = (program, command.workdir.clone(), step.0.command.env.clone(), check);
        let is_new = self.seen.insert(found);
        Ok(is_new.then(|| Asked { step: id(), command, check }))
    }
}

/// Whether it can be run again as it asks for.
fn checked_retries(step: &Step) -> Result<(), (Field, String)> {
    let data = &step.0;
    if data.retries > MAX_RETRIES {
        return Err((Field::Retries, format!("must be at most {MAX_RETRIES}")));
    }
    let max_delay = duration_millis(MAX_RETRY_DELAY);
    if data.retry_delay > max_delay {
        return Err((Field::RetryDelay, format!("must be at most {max_delay} ms")));
    }
    let Some(on) = &data.retry_on else { return Ok(()) };
    if on.is_empty() {
        return Err((Field::RetryOn, "must name an exit code or a reason".to_owned()));
    }
    let [codes, reasons] = on.counts();
    if codes > RetryOn::MAX_EXIT_CODES || reasons > RetryOn::MAX_REASONS {
        let (codes, reasons) = (RetryOn::MAX_EXIT_CODES, RetryOn::MAX_REASONS);
        return Err((
            Field::RetryOn,
            format!("must hold at most {codes} exit codes and {reasons} reasons"),
        ));
    }
    if data.retries == 0 {
        return Err((Field::RetryOn, "needs `retries`, how often it is run again".to_owned()));
    }
    if on.holds(Some(0), Some(Reason::Cancelled)) {
        let problem = "can't hold the exit code 0 or the reason cancelled";
        return Err((Field::RetryOn, problem.to_owned()));
    }
    Ok(())
}

/// Whether it has one standard input.
fn checked_stdin(step: &Step) -> Result<(), (Field, String)> {
    let data = &step.0;
    let others = usize::from(data.stdin.is_some()) + usize::from(data.stdin_open);
    if data.stdin_from.is_some() && others > 0 {
        return Err((Field::StdinFrom, "can't stand beside `stdin`".to_owned()));
    }
    if others > 1 {
        return Err((Field::Stdin, "is either open or given".to_owned()));
    }
    Ok(())
}

pub(crate) fn checked_labels(labels: &BTreeMap<String, String>) -> Result<(), BatchError> {
    let wrong = |problem| Err(BatchError::Malformed { field: Field::Labels, problem });
    if labels.len() > BatchRequest::MAX_LABELS {
        return wrong(format!("are over the maximum of {}", BatchRequest::MAX_LABELS));
    }
    for (name, value) in labels {
        let is_name = (1..=MAX_LABEL_NAME).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte));
        if !is_name {
            let shown: String = name.chars().take(80).collect();
            return wrong(format!(
                "hold the name `{shown}`, which is not 1 to {MAX_LABEL_NAME} of A-Z a-z 0-9 . _ / -"
            ));
        }
        if value.chars().count() > MAX_LABEL_VALUE || value.chars().any(char::is_control) {
            return wrong(format!(
                "hold a value of `{name}` that is over {MAX_LABEL_VALUE} characters or has a \
                 control character"
            ));
        }
    }
    Ok(())
}

/// Commands that are asked about at once, which are in memory beside their steps.
const MAX_ASKED: usize = 64;
const MAX_RETRIES: u32 = 1000;
const MAX_RETRY_DELAY: Duration = Duration::from_hours(1);
/// A year.
pub(crate) const MAX_TIMEOUT_MS: u64 = 365 * 24 * 60 * 60 * 1000;
const MAX_LABEL_NAME: usize = 63;
const MAX_LABEL_VALUE: usize = 200;
