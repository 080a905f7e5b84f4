//! One call, from its message to its answer.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use splengine_core::auth::{CredentialSource, Credentials, SharedAuthenticator};
use splengine_core::batch::BatchRecord;
use splengine_core::net::ConnectionHandle;
use splengine_core::quota::{CallerBudgets, MemoryBudget, Reservation};
use splengine_core::{Caller, Engine, Reason, Run};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::builder::Options;
use crate::datum::{Datum, Reader, Symbols as _};
use crate::error::Failure;
use crate::handshake::{Conversation, Unknown};
use crate::messages::{batch_jobs, batches, files, run, service, sessions};
use crate::metadata::{Echo, Metadata};
use crate::parse_queue::{ParseQueue, Requester};
use crate::peer_protocols::{ClientMessage, ClientProtocol, Clients};
use crate::records::{self, ErrorCode, RunResult};

/// What all connections share.
#[derive(Debug, Clone)]
pub(crate) struct Responder(Arc<Shared>);

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    authenticator: SharedAuthenticator,
    clients: Arc<Clients>,
    parse_queue: ParseQueue,
    /// The shares of callers in what messages hold that are being read or worked at.
    pub(crate) budgets: CallerBudgets,
    /// The part of all that which clients have of whom nobody is recognised yet.
    pub(crate) unknown: MemoryBudget,
    /// The shares of callers in what answers hold that are not sent yet.
    answers: CallerBudgets,
    pub(crate) options: Options,
}

/// Who a request is from, as far as that is known without its call. Of a socket nothing is.
#[derive(Debug, Default)]
pub(crate) struct Presented {
    /// Whoever nests the server may know already.
    pub(crate) caller: Option<Caller>,
    /// Who was recognised by the request's head, unless the call itself shows something else.
    pub(crate) by_head: Option<Caller>,
    /// Where it is noted who was recognised first.
    pub(crate) recognised: Option<Recognised>,
    /// The connection, if nobody was recognised on it yet.
    pub(crate) connection: Option<ConnectionHandle>,
}

/// Where a call comes from, and what it brings.
pub(crate) struct Origin {
    pub(crate) source: CredentialSource,
    pub(crate) shown: Option<Box<Presented>>,
    /// That of its message, if it is large.
    pub(crate) memory: Option<Box<Memory>>,
}

/// Who was recognised first on a connection: what it reads takes memory of their share, and it ends
/// when they are revoked.
pub(crate) type Recognised = Arc<OnceLock<Caller>>;

/// The memory of a large message, held until its call was worked at.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) reservation: Reservation,
    /// Whether it is of its caller's share, and not of the part of clients that nobody knows.
    pub(crate) is_callers: bool,
}

/// How long memory is waited for once it is known whose share it is of.
const MEMORY_TIMEOUT: Duration = Duration::from_secs(5);
/// An answer of no more bytes is not counted.
pub(crate) const MIN_ANSWER_BYTES: usize = 64 << 10;

/// A call that was let in.
pub(crate) struct CallContext<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) options: &'a Options,
    pub(crate) caller: Caller,
    pub(crate) deadline: Option<Instant>,
    memory: &'a AnswerMemory<'a>,
}

/// Memory that is reserved for an answer before it is made.
struct AnswerMemory<'a> {
    budgets: &'a CallerBudgets,
    reserved: Mutex<Option<Reservation>>,
}

/// A call that nobody was asked for yet.
struct Call<'a> {
    name: &'a str,
    message: &'a ClientMessage,
    parameters: Bytes,
}

/// What is to be done for a call: answered with this, if it is answered at all.
type Reply = Option<Written>;

/// An answer that is written, and the memory that is reserved for it until it was sent, if it is large.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) bytes: Vec<u8>,
    pub(crate) memory: Option<Reservation>,
}

impl From<Vec<u8>> for Written {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, memory: None }
    }
}

impl std::ops::Deref for Responder {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Responder {
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
        let answers = CallerBudgets::new(&engine.memory_budget(options.max_buffered));
        let shared = Shared {
            engine,
            authenticator,
            clients,
            parse_queue,
            budgets,
            unknown,
            answers,
            options,
        };
        Self(Arc::new(shared))
    }

    pub(crate) fn conversation(&self, is_stateless: bool) -> Conversation {
        Conversation::new(Arc::clone(&self.clients), is_stateless)
    }

    /// Parses the protocol of a client that is not known yet, in its turn; the error is for people.
    pub(crate) async fn parse(
        &self,
        message: &mut Unknown,
        requester: Requester,
    ) -> Result<Arc<ClientProtocol>, String> {
        let wait = self.options.handshake_timeout;
        self.parse_queue
            .parse(requester, message.hash, std::mem::take(&mut message.text), wait)
            .await
    }

    /// Who asks, by what they showed.
    pub(crate) async fn caller(
        &self,
        shown: Credentials,
        source: &CredentialSource,
    ) -> Result<Caller, Failure> {
        Ok(self.engine.authenticate(&self.authenticator, shown, source).await?)
    }

    /// Answers a call; `answer` holds what comes before, and `is_answered` is whether a one-way
    /// call is.
    pub(crate) async fn respond(
        self,
        client: Arc<ClientProtocol>,
        message: Bytes,
        answer: Vec<u8>,
        is_answered: bool,
        origin: Origin,
    ) -> Reply {
        let mut reader = Reader::new(message);
        let mut answer = Answer { bytes: answer, echo: Echo::default() };
        let metadata = match Metadata::read(&mut reader) {
            Ok(metadata) => metadata,
            Err(error) => {
                let message = format!("the metadata of the call can't be read: {error}");
                return Some(answer.system(&Failure::invalid(message)).into());
            }
        };
        answer.echo = metadata.echo();
        let message = match reader.text() {
            // A ping, whose parameters are none.
            Ok("") => {
                return Some(answer.of::<()>(Ok(()), false).into());
            }
            Ok(name) => client.message(name),
            Err(error) => {
                let message = format!("the name of the message can't be read: {error}");
                return Some(answer.system(&Failure::invalid(message)).into());
            }
        };
        let (name, message) = match message {
            Ok(message) => message,
            Err(problem) => return Some(answer.system(&Failure::invalid(problem)).into()),
        };
        let is_answered = is_answered || !message.is_one_way;
        tracing::trace!(
            message = name,
            request = ?metadata.request_id, trace = ?metadata.trace_parent, "a call"
        );
        let asked = Call { name, message, parameters: reader.rest() };
        let (before, mut caller) = (answer.bytes.clone(), None);
        let memory = AnswerMemory { budgets: &self.answers, reserved: Mutex::default() };
        let work =
            AssertUnwindSafe(self.perform(asked, &metadata, origin, answer, &mut caller, &memory));
        let bytes = match work.catch_unwind().await {
            Ok(bytes) => bytes,
            Err(panic) => self.panicked(name, &metadata, &*panic),
        };
        if !is_answered {
            return None;
        }
        let Some(caller) = caller.filter(|_| bytes.len() > MIN_ANSWER_BYTES) else {
            return Some(bytes.into());
        };
        // Of what it took to make it, as much stays reserved as it has.
        let held = memory.reserved.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut held) = held
            && held.try_resize(bytes.len()).is_ok()
        {
            return Some(Written { bytes, memory: Some(held) });
        }
        match self.reserve(&caller, bytes.len(), only_looks(name)).await {
            Ok(memory) => Some(Written { bytes, memory: Some(memory) }),
            Err(failure) => {
                drop(bytes);
                let answer = Answer { bytes: before, echo: metadata.echo() };
                Some(answer.of::<()>(Err(failure), !is_frozen(name)).into())
            }
        }
    }

    /// Reserves the memory of an answer of a caller, which lies there until its client has read it.
    async fn reserve(
        &self,
        caller: &Caller,
        bytes: usize,
        only_looks: bool,
    ) -> Result<Reservation, Failure> {
        let user = caller.accounted_user();
        let reserved = self.answers.reserve_answer(user, bytes, !only_looks).await;
        reserved.map_err(|error| Failure::of_answer(error, !only_looks))
    }

    fn panicked(&self, name: &str, metadata: &Metadata, panic: &(dyn Any + Send)) -> Vec<u8> {
        let panic = panic.downcast_ref::<&str>().copied().unwrap_or("of another kind");
        tracing::error!(message = name, panic, "a call failed");
        let answer = Answer { bytes: Vec::new(), echo: metadata.echo() };
        answer.system(&Failure::new(ErrorCode::Internal, "the engine failed to do it"))
    }

    async fn perform(
        &self,
        asked: Call<'_>,
        metadata: &Metadata,
        origin: Origin,
        answer: Answer,
        known: &mut Option<Caller>,
        answer_memory: &AnswerMemory<'_>,
    ) -> Vec<u8> {
        let Origin { source, shown, mut memory } = origin;
        let Call { name, message, parameters } = asked;
        let is_frozen = is_frozen(name);
        let let_in = async {
            let deadline = metadata.deadline()?.and_then(|time| Instant::now().checked_add(time));
            let shown = shown.as_deref();
            let caller = match shown.and_then(|shown| shown.caller.as_ref()) {
                Some(caller) => caller.clone(),
                None => {
                    match (metadata.credentials()?, shown.and_then(|shown| shown.by_head.as_ref()))
                    {
                        (Credentials::None, Some(caller)) => caller.clone(),
                        (shown, _) => self.caller(shown, &source).await?,
                    }
                }
            };
            if let Some(connection) = shown.and_then(|shown| shown.connection.as_ref()) {
                connection.set_authenticated(&caller);
            }
            if let Some(recognised) = shown.and_then(|shown| shown.recognised.as_ref()) {
                let _ = recognised.set(caller.clone());
            }
            let (engine, options) = (&self.engine, &self.options);
            Ok(CallContext { engine, options, caller, deadline, memory: answer_memory })
        };
        let ask = match let_in.await {
            Ok(ask) => ask,
            Err(failure) => return answer.of::<()>(Err(failure), !is_frozen),
        };
        *known = Some(ask.caller.clone());
        if let Some(memory) = memory.as_mut().filter(|memory| !memory.is_callers) {
            let share = self.budgets.of(ask.caller.accounted_user());
            if let Err(error) = memory.reservation.move_to(&share, MEMORY_TIMEOUT).await {
                return answer.of::<()>(Err(error.into()), !is_frozen);
            }
        }
        // What is not as our own schema has it takes more than its size to read: not for anybody.
        let mut parameters = match message.parameters(name, parameters) {
            Ok(parameters) => parameters,
            Err(problem) => return answer.system(&Failure::invalid(problem)),
        };
        /// Reads the parameters, does it, and gives the answer.
        macro_rules! does {
            ($work:path $(, $parameter:ident)*) => { does!(of, $work $(, $parameter)*) };
            ($as:ident, $work:path $(, $parameter:ident)*) => {{
                let result = result_of!($work $(, $parameter)*);
                answer.$as(result, !is_frozen)
            }};
        }
        /// Reads the parameters, and does it.
        macro_rules! result_of {
            ($work:path $(, $parameter:ident)*) => {{
                $(let $parameter = match Datum::read(&mut parameters) {
                    Ok(value) => value,
                    Err(error) => return answer.unreadable(name, &error),
                };)*
                if let Err(error) = parameters.finish() {
                    return answer.unreadable(name, &error);
                }
                let deadline = ask.deadline;
                // Boxed, lest every call is as large as the largest.
                let work = Box::pin(ask.unless_revoked($work(&ask $(, $parameter)*)));
                // Most calls have no deadline of their own; those that do are given up at it.
                match deadline.filter(|_| !runs_itself(name)) {
                    Some(deadline) => timeout_at(deadline, work)
                        .await
                        .unwrap_or_else(|_| Err(Failure::overdue())),
                    None => work.await,
                }
            }};
        }
        /// The same, and gives the record of a batch, which may be large.
        macro_rules! gives_record {
            ($work:path $(, $parameter:ident)*) => {{
                let result = result_of!($work $(, $parameter)*);
                Box::pin(answer.of_record(&ask, result, !only_looks(name))).await
            }};
        }
        match name {
            "execute" => {
                let command = match Datum::read(&mut parameters) {
                    Ok(command) => command,
                    Err(error) => return answer.unreadable(name, &error),
                };
                if let Err(error) = parameters.finish() {
                    return answer.unreadable(name, &error);
                }
                let result = ask.unless_revoked(run::execute(&ask, command)).await;
                let size = result.as_ref().map_or(0, |(result, _)| result.size());
                answer.of_output(size, move |answer| answer.of_run(result, false)).await
            }
            "run" => {
                let request = match Datum::read(&mut parameters) {
                    Ok(request) => request,
                    Err(error) => return answer.unreadable(name, &error),
                };
                if let Err(error) = parameters.finish() {
                    return answer.unreadable(name, &error);
                }
                let result = Box::pin(ask.unless_revoked(run::run(&ask, request))).await;
                let size = result.as_ref().map_or(0, RunResult::size);
                answer.of_output(size, move |answer| answer.of_size(result, true, size)).await
            }
            "executeBatch" => does!(of_run, batch_jobs::execute, batch),
            "executeBatchDetailed" => does!(of_run, batch_jobs::execute_detailed, batch),
            "cancel" => does!(batch_jobs::cancel, job),
            "describe" => does!(service::describe),
            "keepAlive" => does!(service::keep_alive, session),
            "submitBatch" => gives_record!(batches::submit, batch),
            "getBatch" => gives_record!(batches::get, batch),
            "listBatches" => does!(batches::list, state, limit, cursor, batch_name, labels),
            "batchEvents" => does!(batches::events, batch, after, wait),
            "stepOutput" => {
                does!(batches::output, batch, step, stream, offset, wait, attempt)
            }
            "rerunBatch" => gives_record!(batches::rerun, batch, only_failed),
            "cancelBatch" => gives_record!(batches::cancel, batch),
            "purgeBatch" => does!(batches::purge, batch),
            "writeStepInput" => does!(batches::write_stdin, batch, step, data, end),
            "openSession" => does!(sessions::open, session),
            "getSession" => does!(sessions::get, session),
            "listSessions" => does!(sessions::list),
            "writeSession" => does!(sessions::write, session, data),
            "readSession" => does!(sessions::read, session, epoch, offset, most, wait),
            "resizeSession" => does!(sessions::resize, session, cols, rows),
            "saveSession" => does!(sessions::save, session, name_of_it),
            "loadSession" => does!(sessions::load, saved, cols, rows),
            "listSavedSessions" => does!(sessions::list_saved),
            "removeSavedSession" => does!(sessions::remove_saved, saved),
            "endSession" => does!(sessions::end, session),
            "statFile" => does!(files::stat, path),
            "readFile" => does!(files::read, path, offset, length),
            "writeFile" => does!(files::write, path, data, offset),
            _ => answer.system(&Failure::invalid("there is no such message")),
        }
    }
}

/// Does what takes long off the runtime's workers.
pub(crate) async fn off_workers<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Failure::new(ErrorCode::Internal, "the engine failed to do it"))
}

/// Those that declare no error.
fn is_frozen(name: &str) -> bool {
    matches!(name, "execute" | "executeBatch" | "keepAlive")
}

/// Those that change nothing, so that they can be called again for the same.
fn only_looks(name: &str) -> bool {
    matches!(
        name,
        "describe"
            | "getBatch"
            | "listBatches"
            | "batchEvents"
            | "stepOutput"
            | "getSession"
            | "listSessions"
            | "readSession"
            | "listSavedSessions"
            | "statFile"
            | "readFile"
    )
}

/// Those whose commands end as overdue, and are reported, instead of being given up; and those that
/// make what stays and takes no time: given up, it would be there, and nobody knew its name.
fn runs_itself(name: &str) -> bool {
    matches!(
        name,
        "run"
            | "executeBatch"
            | "executeBatchDetailed"
            | "submitBatch"
            | "rerunBatch"
            | "openSession"
            | "loadSession"
            | "saveSession"
    )
}

impl CallContext<'_> {
    /// Does what the call asks for, unless its caller is revoked before it is done: what it runs is then
    /// cancelled, as if the client had gone.
    async fn unless_revoked<T>(
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

    /// Reserves memory for an answer to what was done, before it is made.
    pub(crate) async fn reserve_answer(&self, bytes: usize) -> Result<(), Failure> {
        let reserved = self.reserve_outputs(bytes).await?;
        *self.memory.reserved.lock().unwrap_or_else(PoisonError::into_inner) = Some(reserved);
        Ok(())
    }

    /// Reserves memory for outputs of what was done, before they are read.
    pub(crate) async fn reserve_outputs(&self, bytes: usize) -> Result<Reservation, Failure> {
        let user = self.caller.accounted_user();
        let reserved = self.memory.budgets.reserve_answer(user, bytes, true).await;
        reserved.map_err(|error| Failure::of_answer(error, true))
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

/// The answer to a message that was not read.
pub(crate) fn refusal(failure: &Failure) -> Vec<u8> {
    Answer { bytes: Vec::new(), echo: Echo::default() }.system(failure)
}

/// An answer in the making.
#[derive(Clone)]
struct Answer {
    bytes: Vec<u8>,
    echo: Echo,
}

impl Answer {
    /// A result, or a failure: one that the message declares, or as a string.
    fn of<T: Datum>(self, result: Result<T, Failure>, is_declared: bool) -> Vec<u8> {
        self.of_size(result, is_declared, 0)
    }

    /// The same of a result of about `size` bytes.
    fn of_size<T: Datum>(
        mut self,
        result: Result<T, Failure>,
        is_declared: bool,
        size: usize,
    ) -> Vec<u8> {
        self.bytes.reserve(size.saturating_add(128));
        match result {
            Ok(value) => {
                self.echo.write(&mut self.bytes);
                self.bytes.push(0);
                value.write(&mut self.bytes);
            }
            Err(failure) => {
                self.echo.error_code = Some(failure.code.symbol());
                self.echo.write(&mut self.bytes);
                self.bytes.push(1);
                if is_declared {
                    failure.write_declared(&mut self.bytes);
                } else {
                    failure.write_system(&mut self.bytes);
                }
            }
        }
        self.bytes
    }

    /// The same of what ran: for a reason that its record has no place for, but for the usual one.
    fn of_run<T: Datum>(
        mut self,
        result: Result<(T, Reason), Failure>,
        is_declared: bool,
    ) -> Vec<u8> {
        let result = result.map(|(value, reason)| {
            self.echo.reason = (reason != Reason::Exited).then(|| reason.name());
            value
        });
        self.of(result, is_declared)
    }

    /// Writes an answer with so much output, off the runtime's workers if that is large.
    async fn of_output(
        self,
        size: usize,
        write: impl FnOnce(Self) -> Vec<u8> + Send + 'static,
    ) -> Vec<u8> {
        if size <= MIN_ANSWER_BYTES {
            return write(self);
        }
        let again = self.clone();
        let written = off_workers(move || write(self)).await;
        written.unwrap_or_else(|failure| again.system(&failure))
    }

    /// Writes an answer with the record of a batch, off the runtime's workers if that is large. Of what
    /// was done the record is told without its steps where it does not get its turn.
    async fn of_record(
        self,
        ask: &CallContext<'_>,
        result: Result<BatchRecord, Failure>,
        is_done: bool,
    ) -> Vec<u8> {
        let write = |answer: Self, record: BatchRecord| {
            answer.of(Ok(records::BatchRecord::from(record)), true)
        };
        let record = match result {
            Ok(record) => record,
            Err(failure) => return self.of::<()>(Err(failure), true),
        };
        let (user, bytes) = (ask.caller.accounted_user(), record.memory_bytes());
        let (info, again) = (record.info.clone(), self.clone());
        let written = match ask.engine.large_work().permit(user, bytes).await {
            Ok(permit) => permit.run(move || write(self, record)).await,
            Err(error) => Err(error),
        };
        written.unwrap_or_else(|error| {
            if is_done {
                return write(again, info.into());
            }
            let after = Some(error.retry_after());
            let failure = Failure::of_kind(error.kind(), error.to_string(), after);
            again.of::<()>(Err(failure), true)
        })
    }

    fn system(self, failure: &Failure) -> Vec<u8> {
        self.of::<()>(Err(failure.clone()), false)
    }

    fn unreadable(self, name: &str, error: &crate::datum::DatumError) -> Vec<u8> {
        let message = format!("the parameters of `{name}` can't be read: {error}");
        self.system(&Failure::invalid(message))
    }
}
