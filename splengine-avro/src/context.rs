//! The state that all connections share, and that of an authenticated call.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use splengine_core::auth::{CredentialSource, Credentials, SharedAuthenticator};
use splengine_core::quota::{CallerBudgets, LargeWork, LargeWorkPermit, MemoryBudget, Reservation};
use splengine_core::{Caller, Engine, Run};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::call_turns::CallTurns;
use crate::error::Failure;
use crate::handshake::{Conversation, Unknown};
use crate::parse_queue::{ParseKey, ParseQueue};
use crate::peer_protocols::{ClientProtocol, Clients};
use crate::records::ErrorCode;

/// What is set up once for all connections.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) interfaces: BTreeMap<String, String>,
    pub(crate) max_frame: usize,
    pub(crate) max_buffered: usize,
    pub(crate) handshake_timeout: Duration,
    pub(crate) frame_timeout: Duration,
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) engine: Engine,
    authenticator: SharedAuthenticator,
    clients: Arc<Clients>,
    parse_queue: ParseQueue,
    /// The shares of callers in what messages hold that are being read or worked at.
    pub(crate) budgets: CallerBudgets,
    /// The part of all that which clients have of whom nobody is recognised yet.
    pub(crate) unknown: MemoryBudget,
    /// The shares of callers in what answers hold that are not sent yet.
    pub(crate) answers: CallerBudgets,
    /// The shares of callers in what calls hold that wait for events, apart from answers.
    pub(crate) followers: CallerBudgets,
    pub(crate) call_turns: CallTurns,
    pub(crate) options: Options,
}

/// A call that was let in.
pub(crate) struct CallContext<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) options: &'a Options,
    pub(crate) caller: Caller,
    pub(crate) deadline: Option<Instant>,
    pub(crate) memory: &'a AnswerMemory<'a>,
    pub(crate) followers: &'a CallerBudgets,
}

/// Memory that is reserved for an answer before it is made.
pub(crate) struct AnswerMemory<'a> {
    pub(crate) budgets: &'a CallerBudgets,
    pub(crate) reserved: Mutex<Option<Reservation>>,
    /// The turn of a caller for whom a list is put together, until memory for its answer is reserved.
    pub(crate) turn: Mutex<Option<LargeWorkPermit>>,
}

impl Context {
    pub(crate) fn new(
        engine: Engine,
        authenticator: SharedAuthenticator,
        options: Options,
    ) -> Self {
        let clients = Arc::new(Clients::new());
        let budget = engine.memory_budget(options.max_buffered);
        let unknown = budget.share(options.max_buffered / 4);
        let parse_queue = ParseQueue::new(Arc::clone(&clients));
        let budgets = CallerBudgets::new(&budget);
        let others = || CallerBudgets::new(&engine.memory_budget(options.max_buffered));
        let (answers, followers) = (others(), others());
        Self {
            engine,
            authenticator,
            clients,
            parse_queue,
            budgets,
            unknown,
            answers,
            followers,
            call_turns: CallTurns::default(),
            options,
        }
    }

    pub(crate) fn conversation(&self, is_stateless: bool) -> Conversation {
        Conversation::new(Arc::clone(&self.clients), is_stateless)
    }

    /// Parses the protocol of a client that is not known yet, in its turn; the error is for people.
    pub(crate) async fn parse(
        &self,
        message: &mut Unknown,
        source: &CredentialSource,
        caller: Option<&Caller>,
    ) -> Result<Arc<ClientProtocol>, String> {
        let wait = self.options.handshake_timeout;
        let key = match caller {
            Some(caller) => ParseKey::User(caller.accounted_user().clone()),
            None => ParseKey::Network(source.network()),
        };
        let text = std::mem::take(&mut message.text);
        self.parse_queue.parse(key, message.hash, text, wait).await
    }

    /// What a client is known by that shows `shown`.
    pub(crate) fn or_of_connection(
        &self,
        shown: Credentials,
        source: &CredentialSource,
    ) -> Credentials {
        shown.or_of_connection(source, &self.authenticator)
    }

    /// Who asks, by what they showed.
    pub(crate) async fn caller(
        &self,
        shown: Credentials,
        source: &CredentialSource,
    ) -> Result<Caller, Failure> {
        Ok(self.engine.authenticate(&self.authenticator, shown, source).await?)
    }
}

impl CallContext<'_> {
    /// Does what the call asks for, unless its caller is revoked before it is done: what it runs is then
    /// cancelled, as if the client had gone.
    pub(crate) async fn unless_revoked<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        self.caller.unless_revoked(work).await.unwrap_or_else(|| Err(Failure::revoked()))
    }

    /// Waits for work as long as the call's deadline lets it.
    pub(crate) async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, impl Into<Failure>>>,
    ) -> Result<T, Failure> {
        match self.deadline {
            None => work.await.map_err(Into::into),
            Some(deadline) => match timeout_at(deadline, work).await {
                Ok(done) => done.map_err(Into::into),
                Err(_) => Err(Failure::overdue()),
            },
        }
    }

    /// Waits for the right to work on so many bytes, as long as the call's deadline lets it.
    pub(crate) async fn large_work_permit(&self, bytes: usize) -> Result<LargeWorkPermit, Failure> {
        let work = self.engine.large_work();
        let permit = work.permit(self.caller.accounted_user(), bytes);
        self.unless_revoked(self.in_time(permit)).await
    }

    /// Waits for the turn of the caller to have a list put together, of which each has one at a time.
    pub(crate) async fn list_turn(&self) -> Result<(), Failure> {
        let permit = self.large_work_permit(LargeWork::MAX_PAGE_BYTES).await?;
        *self.memory.turn.lock().unwrap_or_else(PoisonError::into_inner) = Some(permit);
        Ok(())
    }

    /// Reserves memory for an answer to what was done, before it is made.
    pub(crate) async fn reserve_answer(&self, bytes: usize) -> Result<(), Failure> {
        let reserved = self.reserve_outputs(bytes).await?;
        *self.memory.reserved.lock().unwrap_or_else(PoisonError::into_inner) = Some(reserved);
        Ok(())
    }

    /// Reserves memory for an answer of a call that only looks, before what it tells is read; waits for it
    /// as long as for that of a message.
    pub(crate) async fn reserve_read(&self, bytes: usize) -> Result<(), Failure> {
        let bytes = bytes.saturating_add(ANSWER_HEAD_BYTES);
        let mut reserved = self.memory.budgets.of(self.caller.accounted_user()).reservation();
        let waits = reserved.resize_within(bytes, self.options.frame_timeout);
        waits.await.map_err(|error| Failure::of_answer(error, false))?;
        *self.memory.reserved.lock().unwrap_or_else(PoisonError::into_inner) = Some(reserved);
        Ok(())
    }

    /// Reserves memory for outputs of what was done, before they are read.
    pub(crate) async fn reserve_outputs(&self, bytes: usize) -> Result<Reservation, Failure> {
        let user = self.caller.accounted_user();
        let reserved = self.memory.budgets.reserve_answer(user, bytes, true).await;
        reserved.map_err(|error| Failure::of_answer(error, true))
    }

    /// Reserves memory for what a call holds while it waits for events.
    pub(crate) async fn reserve_follower(&self, bytes: usize) -> Result<Reservation, Failure> {
        let reserved = self.followers.reserve_answer(self.caller.accounted_user(), bytes, false);
        reserved.await.map_err(|error| Failure::of_answer(error, false))
    }

    /// The whole of a run, which the call's deadline ends as overdue.
    pub(crate) async fn whole(&self, run: Run) -> splengine_core::Captured {
        let Some(deadline) = self.deadline else { return run.capture().await };
        let stopper = run.stopper();
        let mut captured = std::pin::pin!(run.capture());
        tokio::select! {
            captured = &mut captured => return captured,
            () = sleep_until(deadline) => stopper.time_out(),
        }
        captured.await
    }
}

/// Does what takes long off the runtime's workers.
pub(crate) async fn off_workers<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Failure::new(ErrorCode::Internal, "the engine failed to do it"))
}

/// An answer of no more bytes is not counted.
pub(crate) const MIN_ANSWER_BYTES: usize = 64 << 10;
/// What stands in an answer before what was read.
const ANSWER_HEAD_BYTES: usize = 4 << 10;
