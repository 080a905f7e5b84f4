use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::execute::{Command, Execute};
use crate::testing::conformance::case::{Case, Does, Violation};
use crate::testing::conformance::rules::{Rules, written};

/// Conformance tests of an executor, over commands that it knows.
///
/// | command | checked |
/// |---|---|
/// | any but the last | [`check`](Execute::check) accepts it; [`started`](crate::execute::Output::started) is called once; nothing is written after the return |
/// | [`prints`](Self::prints) | its output is whole and in order at the return; it exits with 0; a working directory outside root is refused |
/// | [`exits`](Self::exits) | its exit code |
/// | [`reads`](Self::reads) | it gets its standard input, in whatever pieces that comes, and the end of it |
/// | [`floods`](Self::floods) | output that is not read holds it up; a reader that comes later lets it print on; it can be stopped while it is held up, and when its reader is gone |
/// | [`sleeps`](Self::sleeps) | it ends within its grace and 10 s of a request to stop, within 10 s of a kill, also when the request came first and when input never ends; its exit is [`stopped`](crate::execute::Exit::stopped). When the future of [`execute`](Execute::execute) is dropped, it drops its input and output and does not [run](Self::is_running) any more |
/// | [`refuses`](Self::refuses) | `check` and `execute` refuse it alike, and it is not started |
///
/// Rules without a command are not checked; nor are terminals, limits and recovery.
///
/// ```
/// use splengine_core::LocalExecutor;
/// use splengine_core::testing::conformance::Suite;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let executor = LocalExecutor::new(".")?;
/// Suite::new(&executor)
///     .prints(["seq", "3"], "1\n2\n3\n")
///     .exits(["sh", "-c", "exit 7"], 7)
///     .reads(["tr", "a-z", "A-Z"], "hello", "HELLO")
///     .floods(["yes"])
///     .sleeps(["sleep", "600"])
///     .refuses(["no-such-program"])
///     .run()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct Suite<'a, E> {
    rules: Rules<'a, E>,
    cases: Vec<Case>,
}

impl<'a, E: Execute> Suite<'a, E> {
    /// Creates a suite without commands.
    pub fn new(executor: &'a E) -> Self {
        let patience = Duration::from_secs(60);
        Self {
            rules: Rules { executor, is_running: None, change: None, patience },
            cases: Vec::new(),
        }
    }

    /// Adds a command that prints this to standard output, and exits with 0.
    pub fn prints(
        self,
        argv: impl IntoIterator<Item = impl Into<OsString>>,
        stdout: impl Into<Bytes>,
    ) -> Self {
        self.case(argv, Does::Prints(stdout.into()))
    }

    /// Adds a command that exits with this code.
    pub fn exits(self, argv: impl IntoIterator<Item = impl Into<OsString>>, code: i32) -> Self {
        self.case(argv, Does::Exits(code))
    }

    /// Adds a command that reads its standard input to the end, prints `stdout` when that was `stdin`, and
    /// exits with 0.
    pub fn reads(
        self,
        argv: impl IntoIterator<Item = impl Into<OsString>>,
        stdin: impl Into<Bytes>,
        stdout: impl Into<Bytes>,
    ) -> Self {
        self.case(argv, Does::Reads { stdin: stdin.into(), stdout: stdout.into() })
    }

    /// Adds a command that prints to standard output without an end, or at least 4 MiB.
    pub fn floods(self, argv: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.case(argv, Does::Floods)
    }

    /// Adds a command that runs for longer than any test, reads nothing and prints nothing. A command
    /// that ignores requests to end may be added, too: it has to be killed after its grace, 1 s here.
    pub fn sleeps(self, argv: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.case(argv, Does::Sleeps)
    }

    /// Adds a command that the executor does not know, or can't run.
    pub fn refuses(self, argv: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.case(argv, Does::IsRefused)
    }

    fn case(mut self, argv: impl IntoIterator<Item = impl Into<OsString>>, does: Does) -> Self {
        self.cases.push(Case { argv: argv.into_iter().map(Into::into).collect(), does });
        self
    }

    /// Sets the function that tells whether a command of [`sleeps`](Self::sleeps) runs: a search of the host's
    /// processes, a counter of a worker. It is called every 5 ms for as long as it is waited for, and must
    /// not block. Default: none, and a command is over once it has dropped its input and output.
    pub fn is_running(mut self, look: impl Fn() -> bool + Send + Sync + 'a) -> Self {
        self.rules.is_running = Some(Box::new(look));
        self
    }

    /// Changes each command before it is run, for executors that want some user or variable. Default: as
    /// [`TestCommand`](crate::testing::TestCommand) makes them, with a grace of 1 s.
    pub fn with(mut self, change: impl Fn(&mut Command) + Send + Sync + 'a) -> Self {
        self.rules.change = Some(Box::new(change));
        self
    }

    /// Sets how long to wait for what the engine sets no limit to: checks, starts, output, and the ends of
    /// commands that end by themselves. Default: 60 s.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.rules.patience = patience;
        self
    }

    /// Runs all commands, one after the other. It needs tokio's timers, and a clock that is not paused.
    ///
    /// # Errors
    ///
    /// [`Violation`], the first that is found.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops that of the command that runs.
    pub async fn run(self) -> Result<(), Violation> {
        let mut returned = Vec::new();
        for case in &self.cases {
            let runs = self.rules.check(case).await?;
            returned.extend(runs.into_iter().map(|run| (case, run)));
        }
        // Commands that were run since gave the earlier ones the time to do so.
        for (case, (queue, before)) in returned {
            let late = written(&queue) - before;
            if late > 0 {
                return Err(case.violation(format!("wrote {late} bytes after it had returned")));
            }
        }
        Ok(())
    }
}

impl<E> fmt::Debug for Suite<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Suite").field("cases", &self.cases).finish_non_exhaustive()
    }
}
