//! The start of a run that has its permit.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::auth::Caller;
use crate::execute::cancel::CancelSource;
use crate::execute::capture::CaptureBudget;
use crate::execute::output::Queue;
use crate::execute::{
    Cancel, Command, End, ExecuteError, HeadTail, Reading, Reason, Request, Run, SlowReader, Stdin,
};
use crate::run::admission::{Permit, RunPermit};
use crate::run::executions::Listed;
use crate::run::resolve::Terms;
use crate::run::runner::Runner;
use crate::run::supervise::{self, RunGuard};

/// Both ends of the word to stop.
pub(crate) type Control = (CancelSource, Cancel);

impl Runner {
    /// Runs a command of about `bytes` for somebody who waited for the permit elsewhere, and may hold on to
    /// it.
    pub(crate) async fn launch(
        self: &Arc<Self>,
        caller: &Caller,
        bytes: usize,
        request: impl FnOnce() -> Request + Send + 'static,
        permit: Arc<Permit>,
        mark: Option<String>,
    ) -> Result<Run, ExecuteError> {
        let (resolver, asker) = (Arc::clone(self), caller.clone());
        let resolve = move || {
            let mut request = request();
            let terms = resolver.resolve(&asker, None, &mut request);
            terms.map(|terms| (terms, request))
        };
        let work = self.large_work.of(caller.accounted_user(), None);
        let (mut terms, mut request) = work.run(bytes, resolve).await?;
        terms.command.mark = mark;
        let control = CancelSource::new();
        let run = self.run(terms, &mut request, RunPermit::Shared(permit), control, None);
        self.started(run).await
    }

    /// What the request comes to, without running it.
    pub(crate) fn command(
        &self,
        caller: &Caller,
        mut request: Request,
    ) -> Result<Command, ExecuteError> {
        Ok(self.resolve(caller, None, &mut request)?.command)
    }

    pub(crate) fn run(
        self: &Arc<Self>,
        terms: Terms,
        request: &mut Request,
        permit: RunPermit,
        (source, cancel): Control,
        listed: Option<Listed>,
    ) -> Run {
        let Terms { command, times, secrets, held, accounted_user } = terms;
        let memory = CaptureBudget { budgets: self.captures.clone(), user: accounted_user };
        let scan = self.policy.program.failure_scan();
        let (output, queue) = Queue::new(request.slow_reader, scan, secrets);
        let default_limit = self.policy.default_output_limit;
        let session_id = command.session_id.clone();
        let run = Run(Box::new(Reading {
            execution_id: listed.as_ref().map(|listed| listed.id.clone()),
            output_limit: request.output_limit,
            kept: request
                .output_limit
                .map(|limit| [(); 2].map(|()| HeadTail::new(limit, memory.stream()))),
            memory: Some(memory),
            ..Reading::new(Arc::clone(&queue), source.clone(), session_id, default_limit)
        }));
        let stdin = std::mem::replace(&mut request.stdin, Stdin::null());
        let executor = Arc::clone(&self.executor);
        let execution = executor.execute_boxed(command, stdin, output, cancel.clone());
        let mut ending = RunGuard::new(Arc::clone(self), queue, source, permit, listed);
        ending.held = held;
        supervise::spawn(ending, execution, cancel, times);
        run
    }

    /// A run that is over before it could begin, since it was cancelled.
    pub(crate) fn never_run(&self, terms: Terms, source: CancelSource, listed: &Listed) -> Run {
        let (_, queue) = Queue::new(SlowReader::Wait, None, None);
        let reason = source.reason().unwrap_or(Reason::Cancelled);
        queue.finish(Ok(End::never_begun(reason)));
        let default_limit = self.policy.default_output_limit;
        Run(Box::new(Reading {
            execution_id: Some(listed.id.clone()),
            was_begun: false,
            ..Reading::new(queue, source, terms.command.session_id, default_limit)
        }))
    }

    pub(crate) async fn started(&self, run: Run) -> Result<Run, ExecuteError> {
        run.0.queue.wait_started().await?;
        self.counters.started.fetch_add(1, Relaxed);
        Ok(run)
    }
}
