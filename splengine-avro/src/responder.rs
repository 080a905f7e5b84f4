//! One call, from its message to its answer.

use std::any::Any;
use std::ops::Deref;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use splengine_core::auth::{CredentialSource, Credentials, SharedAuthenticator};
use splengine_core::net::ConnectionHandle;
use splengine_core::quota::{LargeWork, Reservation};
use splengine_core::{Caller, Engine, ExecuteError, Scope};
use tokio::time::{Instant, timeout_at};

use crate::answer::{Answer, Written};
use crate::call_turns::{WaitingCall, needs_no_turn};
use crate::context::{AnswerMemory, CallContext, Context, MIN_ANSWER_BYTES, Options};
use crate::datum::{Datum, Reader};
use crate::error::Failure;
use crate::messages::{batch_jobs, batches, files, run, service, sessions};
use crate::metadata::{Echo, Metadata};
use crate::parameters::{Parameters, Unread};
use crate::peer_protocols::ClientProtocol;
use crate::records::{ErrorCode, RunResult};

/// What answers the calls of all connections. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Responder(Arc<Context>);

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
    /// Until it is at its turn, it counts for its connection.
    pub(crate) waits: Option<WaitingCall>,
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

/// What is to be done for a call: answered with this, if it is answered at all.
type Reply = Option<Written>;

impl Deref for Responder {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.0
    }
}

impl Responder {
    pub(crate) fn new(
        engine: Engine,
        authenticator: SharedAuthenticator,
        options: Options,
    ) -> Self {
        Self(Arc::new(Context::new(engine, authenticator, options)))
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
        let asked = Parameters { client: &client, name, written: reader.rest() };
        let (before, mut caller) = (answer.bytes.clone(), None);
        let (reserved, turn) = (Mutex::default(), Mutex::default());
        let memory = AnswerMemory { budgets: &self.answers, reserved, turn };
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
        match self.reserve(&caller, bytes.len(), is_read_only(name)).await {
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
        is_read_only: bool,
    ) -> Result<Reservation, Failure> {
        let user = caller.accounted_user();
        let reserved = self.answers.reserve_answer(user, bytes, !is_read_only).await;
        reserved.map_err(|error| Failure::of_answer(error, !is_read_only))
    }

    fn panicked(&self, name: &str, metadata: &Metadata, panic: &(dyn Any + Send)) -> Vec<u8> {
        let panic = panic.downcast_ref::<&str>().copied().unwrap_or("of another kind");
        tracing::error!(message = name, panic, "a call failed");
        let answer = Answer { bytes: Vec::new(), echo: metadata.echo() };
        answer.system(&Failure::new(ErrorCode::Internal, "the engine failed to do it"))
    }

    async fn perform(
        &self,
        parameters: Parameters<'_>,
        metadata: &Metadata,
        origin: Origin,
        answer: Answer,
        known: &mut Option<Caller>,
        answer_memory: &AnswerMemory<'_>,
    ) -> Vec<u8> {
        let Origin { source, shown, mut memory, waits } = origin;
        let name = parameters.name;
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
            let (memory, followers) = (answer_memory, &self.followers);
            Ok(CallContext { engine, options, caller, deadline, memory, followers })
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
        let turn = if needs_no_turn(name) {
            None
        } else {
            let turn = self.call_turns.turn(ask.caller.accounted_user());
            match ask.unless_revoked(ask.in_time(turn)).await {
                Ok(turn) => Some(turn),
                Err(failure) => return answer.of::<()>(Err(failure), !is_frozen),
            }
        };
        // One that needs none counts for its connection until it is over.
        let _waits = waits.filter(|_| turn.is_none());
        if let Err(failure) = check_scope(name, &ask.caller) {
            return answer.of::<()>(Err(failure), !is_frozen);
        }
        let (length, work) = (parameters.written.len(), parameters.work_bytes());
        let permit = match ask.large_work_permit(work).await {
            Ok(permit) => permit,
            Err(failure) => return answer.of::<()>(Err(failure), !is_frozen),
        };
        let unread = |answer: Answer, unread| match unread {
            Unread::Malformed(problem) => answer.system(&Failure::invalid(problem)),
            Unread::Busy(error) => answer.of::<()>(Err(error.into()), !is_frozen),
        };
        let cost = match parameters.cost(&permit).await {
            Ok(cost) => cost,
            Err(error) => return unread(answer, error),
        };
        // Its values take memory beside the message until they are read.
        let (mut of_message, mut of_values) =
            (memory.as_mut().map(|held| &mut held.reservation), None);
        if cost >= LargeWork::MIN_BYTES {
            let new = || self.budgets.of(ask.caller.accounted_user()).reservation();
            let held = of_message.as_deref_mut();
            let held = held.unwrap_or_else(|| of_values.insert(new()));
            if let Err(error) = held.try_resize(length + cost) {
                return answer.of::<()>(Err(error.into()), !is_frozen);
            }
        }
        /// Reads the parameters.
        macro_rules! read {
            ($($read:expr),*) => {{
                let read = parameters.read(&permit, work, |_from| Ok(($($read(_from)?,)*))).await;
                drop(of_values);
                if cost >= LargeWork::MIN_BYTES && let Some(held) = of_message {
                    // Less is always there.
                    let _ = held.try_resize(length);
                }
                match read {
                    Ok(read) => read,
                    Err(error) => return unread(answer, error),
                }
            }};
        }
        /// Waits for what a call does.
        macro_rules! done {
            ($work:expr) => {{
                let deadline = ask.deadline;
                // Boxed, lest every call is as large as the largest.
                let work = Box::pin(ask.unless_revoked($work));
                // Most calls have no deadline of their own; those that do are given up at it.
                match deadline.filter(|_| !outlives_deadline(name)) {
                    Some(deadline) => {
                        timeout_at(deadline, work).await.unwrap_or_else(|_| Err(Failure::overdue()))
                    }
                    None => work.await,
                }
            }};
        }
        /// Reads the parameters, and does it.
        macro_rules! result_of {
            ($work:path $(, $parameter:ident)*) => {{
                let ($($parameter,)*) = read!($({
                    let $parameter = Datum::read;
                    $parameter
                }),*);
                drop(permit);
                done!($work(&ask $(, $parameter)*))
            }};
        }
        /// The same of a message that may be large: what is asked for is made of it under the same permit as
        /// it is read, which goes along.
        macro_rules! result_of_large {
            ($work:path, $asked_of:path) => {{
                let (asked,) = read!(|from: &mut Reader| Datum::read(from).map($asked_of));
                done!(async { $work(&ask, asked?, permit).await })
            }};
        }
        /// Reads the parameters, does it, and gives the answer.
        macro_rules! does {
            ($work:path $(, $parameter:ident)*) => {{
                let result = result_of!($work $(, $parameter)*);
                answer.of(result, !is_frozen)
            }};
        }
        /// The same, and gives the record of a batch, which may be large.
        macro_rules! gives_record {
            ($result:expr) => {{
                let result = $result;
                Box::pin(answer.of_record(&ask, result, !is_read_only(name))).await
            }};
        }
        match name {
            "execute" => {
                let result = result_of_large!(run::execute, run::command);
                let size = result.as_ref().map_or(0, |(result, _)| result.size());
                answer.of_output(size, move |answer| answer.of_run(result, false)).await
            }
            "run" => {
                let result = result_of_large!(run::run, run::request);
                let size = result.as_ref().map_or(0, RunResult::size);
                answer.of_output(size, move |answer| answer.of_size(result, true, size)).await
            }
            "executeBatch" => {
                let result = result_of_large!(batch_jobs::execute, batch_jobs::job);
                let size = result.as_ref().map_or(0, |(result, _)| result.size());
                answer.of_output(size, move |answer| answer.of_run(result, false)).await
            }
            "executeBatchDetailed" => {
                let result = result_of_large!(batch_jobs::execute_detailed, batch_jobs::job);
                let size = result.as_ref().map_or(0, |(result, _)| result.size());
                answer.of_output(size, move |answer| answer.of_run(result, true)).await
            }
            "cancel" => does!(batch_jobs::cancel, job),
            "describe" => does!(service::describe),
            "keepAlive" => does!(service::keep_alive, session),
            "submitBatch" => gives_record!(result_of_large!(batches::submit, batches::asked)),
            "getBatch" => gives_record!(result_of!(batches::get, batch)),
            "listBatches" => does!(batches::list, state, limit, cursor, batch_name, labels),
            "batchEvents" => does!(batches::events, batch, after, wait),
            "stepOutput" => {
                does!(batches::output, batch, step, stream, offset, wait, attempt)
            }
            "rerunBatch" => gives_record!(result_of!(batches::rerun, batch, only_failed)),
            "cancelBatch" => gives_record!(result_of!(batches::cancel, batch)),
            "purgeBatch" => does!(batches::purge, batch),
            "writeStepInput" => does!(batches::write_stdin, batch, step, data, end),
            "openSession" => {
                let result = result_of_large!(sessions::open, sessions::asked);
                answer.of(result, true)
            }
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

/// Refuses a call that takes a right which its caller lacks, before its parameters are read, which may take
/// much. Whatever else it takes is known only then.
fn check_scope(name: &str, caller: &Caller) -> Result<(), Failure> {
    let scope = match name {
        "execute" | "run" | "executeBatch" | "executeBatchDetailed" | "submitBatch" => {
            Scope::Execute
        }
        "openSession" => Scope::Sessions,
        "writeFile" => Scope::Files,
        _ => return Ok(()),
    };
    if caller.may(scope) {
        return Ok(());
    }
    let (user, scope) = (caller.user().to_string(), scope.name());
    Err(ExecuteError::Forbidden { user, scope }.into())
}

/// Those that declare no error.
fn is_frozen(name: &str) -> bool {
    matches!(name, "execute" | "executeBatch" | "keepAlive")
}

/// Those that change nothing, so that they can be called again for the same.
fn is_read_only(name: &str) -> bool {
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
fn outlives_deadline(name: &str) -> bool {
    matches!(
        name,
        "execute"
            | "run"
            | "executeBatch"
            | "executeBatchDetailed"
            | "submitBatch"
            | "rerunBatch"
            | "openSession"
            | "loadSession"
            | "saveSession"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::protocol;

    #[test]
    fn every_message_is_sorted() {
        let protocol: Value = serde_json::from_str(protocol::text()).expect("JSON");
        let messages = protocol["messages"].as_object().expect("an object");
        for (name, message) in messages {
            assert_eq!(is_frozen(name), message.get("errors").is_none(), "{name}");
            let changes = CHANGING.contains(&name.as_str());
            assert_ne!(
                is_read_only(name),
                changes || outlives_deadline(name),
                "{name}: looks or changes?"
            );
            assert!(!(changes && outlives_deadline(name)), "{name}: is it given up at a deadline?");
        }
    }

    /// Those that change something, and are given up at a deadline.
    const CHANGING: [&str; 10] = [
        "cancel",
        "cancelBatch",
        "endSession",
        "keepAlive",
        "purgeBatch",
        "removeSavedSession",
        "resizeSession",
        "writeFile",
        "writeSession",
        "writeStepInput",
    ];
}
