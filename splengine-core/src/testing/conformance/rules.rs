use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fmt, io};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, sleep, timeout};

use crate::error::ErrorKind;
use crate::execute::output::Queue;
use crate::execute::{Command, Execute, ExecuteError, Exit, ExitStatus};
use crate::run::ABANDON_AFTER;
use crate::testing::TestCommand;
use crate::testing::conformance::case::{Case, Does, Violation};
use crate::testing::conformance::running::Running;

pub(super) type Change<'a> = Box<dyn Fn(&mut Command) + Send + Sync + 'a>;
pub(super) type Look<'a> = Box<dyn Fn() -> bool + Send + Sync + 'a>;

/// An executor that is checked, and what is told of it.
pub(super) struct Rules<'a, E> {
    pub(super) executor: &'a E,
    pub(super) is_running: Option<Look<'a>>,
    pub(super) change: Option<Change<'a>>,
    pub(super) patience: Duration,
}

/// The output of runs that have returned, and how much was written by then.
pub(super) type Returned = Vec<(Arc<Queue>, u64)>;

impl<E: Execute> Rules<'_, E> {
    pub(super) async fn check(&self, case: &Case) -> Result<Returned, Violation> {
        match &case.does {
            Does::IsRefused => return self.is_refused(case).await.map(|()| Vec::new()),
            _ => self.is_accepted(case).await?,
        }
        match &case.does {
            Does::Prints(stdout) => {
                let returned = self.ends(case, self.command(case), Some(stdout), 0).await?;
                self.stays_in_root(case).await?;
                Ok(returned)
            }
            Does::Exits(code) => self.ends(case, self.command(case), None, *code).await,
            Does::Reads { stdin, stdout } => {
                let whole = self.command(case).stdin(stdin.clone());
                let mut returned = self.ends(case, whole, Some(stdout), 0).await?;
                let pieces = self.command(case).stdin_reader(Pieces(stdin.clone()));
                returned.append(&mut self.ends(case, pieces, Some(stdout), 0).await?);
                Ok(returned)
            }
            Does::Floods => self.is_held_up(case).await,
            Does::Sleeps => {
                let returned = self.stops(case).await?;
                self.ends_when_dropped(case).await?;
                Ok(returned)
            }
            Does::IsRefused => Ok(Vec::new()),
        }
    }

    fn command(&self, case: &Case) -> TestCommand {
        let command = TestCommand::new(&case.argv).with(|command| command.grace = GRACE);
        match &self.change {
            Some(change) => command.with(|command| change(command)),
            None => command,
        }
    }

    fn start<'c>(&'c self, case: &'c Case, command: TestCommand) -> Running<'c> {
        Running::new(self.executor, case, command, self.patience)
    }

    async fn checked(&self, case: &Case) -> Result<Result<(), ExecuteError>, Violation> {
        let command = self.command(case).command();
        let late = |_| case.violation(format!("is not checked after {:?}", self.patience));
        timeout(self.patience, self.executor.check(&command)).await.map_err(late)
    }

    async fn is_accepted(&self, case: &Case) -> Result<(), Violation> {
        let refused = |error| case.violation(format!("is refused by `check`: {error}"));
        self.checked(case).await?.map_err(refused)
    }

    /// A command that ends by itself.
    async fn ends(
        &self,
        case: &Case,
        command: TestCommand,
        stdout: Option<&Bytes>,
        code: i32,
    ) -> Result<Returned, Violation> {
        let (ran, queue) = self.start(case, command).whole().await?;
        let exit = match ran.exit {
            Ok(exit) => exit,
            Err(error) => return Err(case.violation(format!("did not run: {error}"))),
        };
        if ran.starts != 1 {
            let problem = format!("called `Output::started` {} times, not once", ran.starts);
            return Err(case.violation(problem));
        }
        if let Some(stdout) = stdout
            && ran.stdout != stdout
        {
            let (printed, all) = (shown(&ran.stdout), shown(stdout));
            return Err(case.violation(format!("printed {printed} until it returned, not {all}")));
        }
        if exit.status() != ExitStatus::Code(code) {
            return Err(case.violation(format!("ended with {:?}, not {code}", exit.status())));
        }
        if exit.is_stopped() {
            return Err(case.violation("was not told to stop, and is reported as stopped"));
        }
        Ok(returned(queue))
    }

    async fn stays_in_root(&self, case: &Case) -> Result<(), Violation> {
        let command = self.command(case).workdir("../../..");
        let (ran, _) = self.start(case, command).whole().await?;
        match ran.exit {
            Err(error) if ran.starts == 0 && error.kind() != ErrorKind::Internal => Ok(()),
            Err(error) => Err(case.violation(format!(
                "failed in a directory outside root, which was to be refused: {error}"
            ))),
            Ok(_) => Err(case.violation("was run with `../../..` as its directory, outside root")),
        }
    }

    async fn is_refused(&self, case: &Case) -> Result<(), Violation> {
        let Err(told) = self.checked(case).await? else {
            return Err(case.violation("is accepted by `check`, and was to be refused"));
        };
        let (ran, _) = self.start(case, self.command(case)).whole().await?;
        match ran.exit {
            Ok(exit) => Err(case.violation(format!(
                "is refused by `check` ({told}), but was run, and ended with {:?}",
                exit.status()
            ))),
            Err(_) if ran.starts > 0 => {
                Err(case.violation("called `Output::started`, though it was refused"))
            }
            Err(error) if error.to_string() != told.to_string() => Err(case.violation(format!(
                "is refused by `check` since {told}, but by `execute` since {error}"
            ))),
            Err(_) => Ok(()),
        }
    }

    async fn is_held_up(&self, case: &Case) -> Result<Returned, Violation> {
        let mut read = self.start(case, self.command(case));
        read.until(FULL, Queue::is_full).await?;
        read.pass(HELD, "a reader").await?;
        let waiting = read.queue().queued();
        if waiting > MAX_WAITING {
            let problem = format!(
                "wrote on while its output was not read: {waiting} bytes of it wait for a reader"
            );
            return Err(case.violation(problem));
        }
        read.read(MUCH).await?;
        read.until(FULL, Queue::is_full).await?;
        read.observer.stop();
        self.has_stopped(&mut read, "the request to stop, with its output full").await?;

        let mut unread = self.start(case, self.command(case));
        unread.until(FULL, Queue::is_full).await?;
        unread.queue().abandon();
        unread.observer.stop();
        self.has_stopped(&mut unread, "the request to stop, with its reader gone").await?;
        let both = [read, unread].map(|run| returned(Arc::clone(run.queue())));
        Ok(both.into_iter().flatten().collect())
    }

    async fn stops(&self, case: &Case) -> Result<Returned, Violation> {
        let mut returned_runs = Returned::new();
        // Input that never ends is no reason to run on.
        let asked = self.command(case).stdin_reader(Endless::new().0);
        let mut asked = self.start(case, asked);
        self.runs(&mut asked).await?;
        asked.observer.stop();
        self.has_stopped(&mut asked, "the request to stop").await?;
        returned_runs.append(&mut returned(Arc::clone(asked.queue())));

        let killed = self.command(case).with(|command| command.grace = Duration::from_hours(1));
        let mut killed = self.start(case, killed);
        self.runs(&mut killed).await?;
        killed.observer.kill();
        self.has_stopped(&mut killed, "the request to kill").await?;
        returned_runs.append(&mut returned(Arc::clone(killed.queue())));

        let mut early = self.start(case, self.command(case));
        early.observer.stop();
        self.has_stopped(&mut early, "a request to stop that came first").await?;
        returned_runs.append(&mut returned(Arc::clone(early.queue())));
        Ok(returned_runs)
    }

    /// Waits until a command of `sleeps` runs.
    async fn runs(&self, run: &mut Running<'_>) -> Result<(), Violation> {
        run.until("a call of `Output::started`", |queue| queue.starts() > 0).await?;
        match &self.is_running {
            Some(look) => run.until("a program that `is_running` sees", |_| look()).await,
            None => Ok(()),
        }
    }

    async fn has_stopped(&self, run: &mut Running<'_>, why: &str) -> Result<(), Violation> {
        let case = run.case;
        match run.ends(GRACE + ABANDON_AFTER, why).await? {
            Ok(exit) if exit.is_stopped() => {}
            Ok(exit) => return Err(case.violation(not_stopped(why, exit))),
            // What did not start is not lost.
            Err(_) if run.queue().starts() == 0 => {}
            Err(error) => {
                return Err(case.violation(format!("failed after {why}, and is lost: {error}")));
            }
        }
        self.is_over(case, why).await
    }

    async fn is_over(&self, case: &Case, why: &str) -> Result<(), Violation> {
        let is_over = || self.is_running.as_ref().is_none_or(|look| !look());
        eventually(is_over).await.map_err(|()| case.violation(format!("still runs after {why}")))
    }

    async fn ends_when_dropped(&self, case: &Case) -> Result<(), Violation> {
        let (stdin, held) = Endless::new();
        let mut run = self.start(case, self.command(case).stdin_reader(stdin));
        self.runs(&mut run).await?;
        let observer = run.abandon();
        let why = "its future was dropped";
        // The observer has the other one.
        eventually(|| Arc::strong_count(&observer.queue) == 1)
            .await
            .map_err(|()| case.violation(format!("holds its `Output` after {why}")))?;
        eventually(|| held.strong_count() == 0)
            .await
            .map_err(|()| case.violation(format!("holds its `Stdin` after {why}")))?;
        self.is_over(case, why).await
    }
}

/// What there is of a run that has returned.
fn returned(queue: Arc<Queue>) -> Returned {
    let written = written(&queue);
    vec![(queue, written)]
}

/// The bytes that were written so far.
pub(super) fn written(queue: &Queue) -> u64 {
    queue.totals().0.iter().sum()
}

fn not_stopped(why: &str, exit: Exit) -> String {
    format!("ended with {:?} after {why}, but is not reported as `Exit::stopped`", exit.status())
}

/// The beginning of an output.
fn shown(data: &[u8]) -> impl fmt::Display {
    let text = String::from_utf8_lossy(&data[..data.len().min(200)]).into_owned();
    format!("{text:?} ({} bytes)", data.len())
}

/// Looks until it is so, for as long as the engine waits for what was told to stop.
async fn eventually(mut look: impl FnMut() -> bool) -> Result<(), ()> {
    let begun = Instant::now();
    while !look() {
        if begun.elapsed() > GRACE + ABANDON_AFTER {
            return Err(());
        }
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Input that comes in small pieces.
struct Pieces(Bytes);

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = self.0.len().min(buffer.remaining()).min(7);
        buffer.put_slice(&self.0[..length]);
        self.0.advance(length);
        Poll::Ready(Ok(()))
    }
}

/// Input that never comes, and never ends.
struct Endless {
    _held: Arc<()>,
}

impl Endless {
    /// With what tells whether it is held.
    fn new() -> (Self, Weak<()>) {
        let held = Arc::new(());
        let weak = Arc::downgrade(&held);
        (Self { _held: held }, weak)
    }
}

impl AsyncRead for Endless {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

const FULL: &str = "an output that is full";
/// Time to end after the request to.
const GRACE: Duration = Duration::from_secs(1);
/// Time in which what is not held up would write on.
const HELD: Duration = Duration::from_millis(250);
/// Maximum number of bytes that wait for a reader: the queue, and writes that were under way.
const MAX_WAITING: usize = (256 + 1024) << 10;
/// Number of bytes that are read of what prints without an end.
const MUCH: usize = 512 << 10;
