use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::execute::output::Queue;
use crate::execute::{BoxFuture, Execute, ExecuteError, Exit};
use crate::testing::conformance::case::{Case, Violation};
use crate::testing::{Observer, Ran, TestCommand};

/// A command that is polled by its test.
pub(super) struct Running<'a> {
    pub(super) case: &'a Case,
    pub(super) observer: Observer,
    execution: BoxFuture<'a, Result<Exit, ExecuteError>>,
    patience: Duration,
}

impl<'a> Running<'a> {
    pub(super) fn new(
        executor: &'a impl Execute,
        case: &'a Case,
        command: TestCommand,
        patience: Duration,
    ) -> Self {
        let (command, stdin, output, cancel, observer) = command.parts();
        let execution = Box::pin(executor.execute(command, stdin, output, cancel));
        Self { case, observer, execution, patience }
    }

    pub(super) fn queue(&self) -> &Arc<Queue> {
        &self.observer.queue
    }

    /// Runs on until there is what is looked for, `what` in words.
    pub(super) async fn until(
        &mut self,
        what: &str,
        mut look: impl FnMut(&Queue) -> bool,
    ) -> Result<(), Violation> {
        let begun = Instant::now();
        while !look(&self.observer.queue) {
            self.pass(LOOK, what).await?;
            if begun.elapsed() > self.patience {
                let problem = format!("is not there after {:?}: {what}", self.patience);
                return Err(self.case.violation(problem));
            }
        }
        Ok(())
    }

    /// Runs on for some time.
    pub(super) async fn pass(&mut self, time: Duration, what: &str) -> Result<(), Violation> {
        tokio::select! {
            result = &mut self.execution => {
                let problem = format!("returned {result:?} before there was this: {what}");
                Err(self.case.violation(problem))
            }
            () = sleep(time) => Ok(()),
        }
    }

    /// Reads at least so many bytes.
    pub(super) async fn read(&mut self, bytes: usize) -> Result<(), Violation> {
        let Self { case, observer, execution, patience } = self;
        let reading = async {
            let mut read = 0;
            while read < bytes {
                tokio::select! {
                    (_, data) = observer.next() => read += data.len(),
                    result = &mut *execution => {
                        let problem = format!("returned {result:?} and was to print without an end");
                        return Err(case.violation(problem));
                    }
                }
            }
            Ok(())
        };
        let late = |_| case.violation("does not print on when its output is read again");
        timeout(*patience, reading).await.map_err(late)?
    }

    /// Runs to the end of it, reading.
    pub(super) async fn whole(self) -> Result<(Ran, Arc<Queue>), Violation> {
        let queue = Arc::clone(self.queue());
        let Self { case, observer, execution, patience } = self;
        let late = |_| case.violation(format!("has not returned after {patience:?}"));
        Ok((timeout(patience, observer.watch(execution)).await.map_err(late)?, queue))
    }

    /// Runs to the end of it, which something brings about, without reading.
    pub(super) async fn ends(
        &mut self,
        within: Duration,
        why: &str,
    ) -> Result<Result<Exit, ExecuteError>, Violation> {
        timeout(within, &mut self.execution).await.map_err(|_| {
            let problem = format!("has not returned {within:?} after {why}");
            self.case.violation(problem)
        })
    }

    /// Drops the future, and leaves the other end.
    pub(super) fn abandon(self) -> Observer {
        self.observer
    }
}

/// Time between two looks at something.
const LOOK: Duration = Duration::from_millis(5);
