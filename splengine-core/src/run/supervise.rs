//! One run, from its permit to its end record.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::execute::cancel::CancelSource;
use crate::execute::output::Queue;
use crate::execute::{BoxFuture, Cancel, End, ExecuteError, Exit, Reason};
use crate::os::{ExitStatus, Signal, Usage};
use crate::quota::InputReservation;
use crate::run::admission::RunPermit;
use crate::run::executions::Listed;
use crate::run::runner::Runner;
use crate::run::shutdown_stage::ShutdownStage;

/// What a run has time for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// All of it.
    pub(crate) timeout: Duration,
    /// To print nothing.
    pub(crate) idle_timeout: Option<Duration>,
    /// From the word to stop until it is given up.
    pub(crate) obey_within: Duration,
}

/// Drives a run in a task of its own, so that nobody's dropped future leaves it half-made. One that
/// is over at once is spared the task.
pub(crate) fn spawn(
    mut ending: RunGuard,
    mut execution: BoxFuture<'static, Result<Exit, ExecuteError>>,
    stopped: Cancel,
    times: Times,
) {
    let mut unheard = Context::from_waker(Waker::noop());
    // Of a panic the queue's readers are told, as they are of one in the task.
    let first = catch_unwind(AssertUnwindSafe(|| execution.as_mut().poll(&mut unheard)));
    match first {
        Ok(Poll::Ready(result)) => ending.end(Some(result)),
        // The task polls it anew, and is the one that is woken.
        Ok(Poll::Pending) => {
            let begun = Instant::now();
            ending.begun = Some(begun);
            tokio::spawn(async move {
                let supervised = supervise(&ending, execution, &stopped, begun, times);
                let result = supervised.await;
                ending.end(result);
            });
        }
        Err(_) => {}
    }
}

/// Polls the execution to its end, and tells it to stop when its time has come. `None` when it
/// did not obey.
async fn supervise(
    ending: &RunGuard,
    mut execution: BoxFuture<'static, Result<Exit, ExecuteError>>,
    stopped: &Cancel,
    begun: Instant,
    times: Times,
) -> Option<Result<Exit, ExecuteError>> {
    let source = &ending.source;
    let timer = async {
        let time_limit = async {
            match begun.checked_add(times.timeout) {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let silence = async {
            match times.idle_timeout {
                Some(limit) => ending.queue.idle(limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = time_limit => {}
            () = silence => {}
        }
        source.stop(Reason::TimedOut);
    };
    let shutdown = async {
        let mut shutdown = ending.runner.shutdown.subscribe();
        // The sender lives as long as the runner that this task holds: the waits can't fail.
        let _ = shutdown.wait_for(|shutdown| *shutdown >= ShutdownStage::Stopping).await;
        source.stop(Reason::Cancelled);
        let _ = shutdown.wait_for(|shutdown| *shutdown == ShutdownStage::Killing).await;
        source.kill(Reason::Cancelled);
    };
    let disobedience = async {
        stopped.stop_requested().await;
        sleep(times.obey_within).await;
    };
    let mut timer = std::pin::pin!(timer);
    let mut shutdown = std::pin::pin!(shutdown);
    let mut disobedience = std::pin::pin!(disobedience);
    let (mut time_is_up, mut shut_down) = (false, false);
    loop {
        tokio::select! {
            biased;
            result = &mut execution => return Some(result),
            () = &mut timer, if !time_is_up => time_is_up = true,
            () = &mut shutdown, if !shut_down => shut_down = true,
            () = &mut disobedience => return None,
        }
    }
}

/// What becomes of a run that has ended. Ends its queue even if the executor panics, so that no
/// reader waits for ever.
pub(crate) struct RunGuard {
    runner: Arc<Runner>,
    queue: Arc<Queue>,
    source: CancelSource,
    /// Until it has ended.
    permit: Option<RunPermit>,
    listed: Option<Listed>,
    /// When it was first waited for.
    begun: Option<Instant>,
    /// The memory of its words and variables, where that is counted.
    pub(crate) held: Option<InputReservation>,
}

impl RunGuard {
    pub(crate) fn new(
        runner: Arc<Runner>,
        queue: Arc<Queue>,
        source: CancelSource,
        permit: RunPermit,
        listed: Option<Listed>,
    ) -> Self {
        Self { runner, queue, source, permit: Some(permit), listed, begun: None, held: None }
    }

    fn end(mut self, result: Option<Result<Exit, ExecuteError>>) {
        self.queue.flush();
        let end = record(&self.runner, &self.queue, &self.source, result, self.begun);
        // A caller that is told of the end may ask for the next run at once: the place is free by then.
        self.permit = None;
        self.listed = None;
        self.held = None;
        self.queue.finish(end);
    }
}

impl Drop for RunGuard {
    fn drop(&mut self) {
        if self.permit.is_some() {
            self.queue.finish(Err(ExecuteError::internal("the executor panicked")));
        }
    }
}

fn record(
    runner: &Runner,
    queue: &Queue,
    source: &CancelSource,
    result: Option<Result<Exit, ExecuteError>>,
    begun: Option<Instant>,
) -> Result<End, ExecuteError> {
    let started = match (queue.started_at(), &result) {
        (None, Some(Err(_))) => return result.expect("just matched").map(|_| unreachable!()),
        (started, _) => started.or(begun).unwrap_or_else(Instant::now),
    };
    let begun = begun.unwrap_or(started);
    let counters = &runner.counters;
    let ([stdout_bytes, stderr_bytes], failure_told) = queue.totals();
    let stopped_for = source.reason().unwrap_or(Reason::Cancelled);
    let usage = match &result {
        Some(Ok(exit)) => exit.usage,
        _ => Usage::default(),
    };
    let (reason, exit_code, signal) = match result {
        Some(Ok(exit)) => {
            counters.kills.fetch_add(u64::from(exit.killed), Relaxed);
            counters.swept.fetch_add(u64::from(exit.swept), Relaxed);
            counters.leftovers.fetch_add(u64::from(exit.leftovers), Relaxed);
            verdict(exit, stopped_for, failure_told)
        }
        Some(Err(error)) => {
            let source: &dyn std::error::Error = &error;
            tracing::error!(error = source, "what became of an execution isn't known");
            (Reason::Lost, Reason::Lost.exit_code(), None)
        }
        None => {
            tracing::error!("the executor did not end an execution that was told to stop");
            (stopped_for, stopped_for.exit_code(), None)
        }
    };
    let duration = started.elapsed();
    counters.spawn.observe(started.saturating_duration_since(begun));
    counters.run.observe(duration);
    counters.stdout_bytes.fetch_add(stdout_bytes, Relaxed);
    counters.stderr_bytes.fetch_add(stderr_bytes, Relaxed);
    counters.count_end(reason);
    counters.count_cpu_time(usage.cpu_time.unwrap_or_default());
    Ok(End {
        reason,
        exit_code,
        signal,
        duration,
        stdout_bytes,
        stderr_bytes,
        usage,
        ..End::never_begun(Reason::Lost)
    })
}

/// The table of ends: the reason, the exit code and the signal that a run is reported with.
pub(crate) fn verdict(
    exit: Exit,
    stopped_for: Reason,
    failure_told: bool,
) -> (Reason, i32, Option<Signal>) {
    let signal = match exit.status {
        ExitStatus::Code(_) => None,
        ExitStatus::Signal(signal) => Some(signal),
    };
    if exit.stopped {
        return (stopped_for, stopped_for.exit_code(), signal);
    }
    if exit.out_of_memory {
        return (Reason::OutOfMemory, Reason::OutOfMemory.exit_code(), signal);
    }
    match exit.status {
        ExitStatus::Code(0) if failure_told => (Reason::Exited, 1, None),
        ExitStatus::Code(code) => (Reason::Exited, code, None),
        ExitStatus::Signal(signal) => (Reason::Signaled, 128 + signal.number(), Some(signal)),
    }
}

/// From the word to kill to giving a run up.
pub(crate) const ABANDON_AFTER: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_as_the_table_says() {
        let segv = Signal::from_number(11).expect("in range");
        let code = |code| Exit::new(ExitStatus::Code(code));
        let signal = |signal| Exit::new(ExitStatus::Signal(signal));
        for (exit, stopped_for, told, expected) in [
            (code(0), Reason::Cancelled, false, (Reason::Exited, 0, None)),
            (code(7), Reason::Cancelled, true, (Reason::Exited, 7, None)),
            (code(0), Reason::Cancelled, true, (Reason::Exited, 1, None)),
            (signal(segv), Reason::Cancelled, false, (Reason::Signaled, 139, Some(segv))),
            (
                signal(Signal::TERM).stopped(),
                Reason::TimedOut,
                false,
                (Reason::TimedOut, 124, Some(Signal::TERM)),
            ),
            (code(0).stopped(), Reason::TimedOut, false, (Reason::TimedOut, 124, None)),
            (
                signal(Signal::KILL).stopped().killed(),
                Reason::Cancelled,
                false,
                (Reason::Cancelled, 130, Some(Signal::KILL)),
            ),
            (
                signal(Signal::KILL).out_of_memory(),
                Reason::Cancelled,
                false,
                (Reason::OutOfMemory, 137, Some(Signal::KILL)),
            ),
        ] {
            assert_eq!(verdict(exit, stopped_for, told), expected);
        }
    }
}
