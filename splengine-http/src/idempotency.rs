//! Requests that are done no more than once, by their `Idempotency-Key`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{MatchedPath, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body::Body as _;
use splengine_core::quota::Reservation;
use splengine_core::{Caller, UserName};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::answers::AnswerBudgets;
use crate::headers::{IDEMPOTENCY_KEY, idempotency_key};
use crate::problem::Problem;

/// The answers to requests that had a key, kept in memory for a day: at most 10,000, and 64 MiB of
/// them. Over that, answers of the caller who has most of them, with their guests, are forgotten first.
#[derive(Debug, Clone, Default)]
pub(crate) struct IdempotencyCache(Arc<Mutex<CacheState>>);

/// To whom a request is accounted, and its key.
type CallerKey = (UserName, String);

#[derive(Debug, Default)]
struct CacheState {
    entries: HashMap<CallerKey, Entry>,
    next: u64,
    /// Those that are done, in the order of their making.
    done: BTreeMap<u64, CallerKey>,
    /// What each has of them.
    of_callers: HashMap<UserName, CallerAnswers>,
    /// The sum of their answers.
    bytes: usize,
}

/// The answers of one caller.
#[derive(Debug, Default)]
struct CallerAnswers {
    numbers: BTreeSet<u64>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    /// Of the request, so that another one is noticed.
    sum: u64,
    /// In the order of their making.
    number: u64,
    since: Instant,
    answer: watch::Receiver<Option<KeptAnswer>>,
    /// What its answer takes, once it is done.
    bytes: usize,
}

impl CacheState {
    /// Notes that a request is done, whose answer takes so many bytes.
    fn finish(&mut self, name: &CallerKey, number: u64, bytes: usize) {
        let Some(entry) = self.entries.get_mut(name).filter(|entry| entry.number == number) else {
            return;
        };
        entry.bytes = bytes;
        self.done.insert(number, name.clone());
        let of_caller = self.of_callers.entry(name.0.clone()).or_default();
        of_caller.numbers.insert(number);
        of_caller.bytes += bytes;
        self.bytes += bytes;
    }

    /// Forgets one that is done.
    fn forget(&mut self, number: u64) {
        let Some(name) = self.done.remove(&number) else { return };
        let entry = self.entries.remove(&name);
        let bytes = entry.map_or(0, |entry| entry.bytes);
        self.bytes -= bytes;
        if let Some(of_caller) = self.of_callers.get_mut(&name.0) {
            of_caller.numbers.remove(&number);
            of_caller.bytes -= bytes;
            if of_caller.numbers.is_empty() {
                self.of_callers.remove(&name.0);
            }
        }
    }

    /// Forgets answers that are old, or beyond the bounds.
    fn trim(&mut self) {
        while let Some((number, name)) = self.done.first_key_value()
            && self.entries.get(name).is_none_or(|entry| entry.since.elapsed() >= MAX_AGE)
        {
            self.forget(*number);
        }
        loop {
            let callers = self.of_callers.values();
            let heaviest = if self.bytes > MAX_BYTES {
                callers.max_by_key(|answers| answers.bytes)
            } else if self.done.len() > MAX_ANSWERS {
                callers.max_by_key(|answers| answers.numbers.len())
            } else {
                return;
            };
            let Some(oldest) = heaviest.and_then(|answers| answers.numbers.first()) else { return };
            self.forget(*oldest);
        }
    }
}

#[derive(Debug, Clone)]
enum KeptAnswer {
    Answer { status: StatusCode, headers: HeaderMap, body: Bytes },
    TooLarge,
}

impl KeptAnswer {
    fn size(&self) -> usize {
        match self {
            Self::Answer { body, .. } => body.len(),
            Self::TooLarge => 0,
        }
    }

    fn into_response(self) -> Result<Response, Problem> {
        let Self::Answer { status, headers, body } = self else {
            let detail = "this was done already, and its answer was too large to be kept (over 4 MiB), or there was no memory \
                          for it; a new \
                          request needs a new Idempotency-Key";
            return Err(Problem::new(StatusCode::CONFLICT, detail));
        };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}

/// Under which key a request came, if under any, and what it asks for, so that another one under its key
/// is noticed.
pub(crate) struct IdempotentRequest(Option<(String, DefaultHasher)>);

impl IdempotentRequest {
    /// Of a request whose body is still to be added, if it has one.
    pub(crate) fn of(parts: &Parts) -> Result<Self, Problem> {
        let Some(key) = idempotency_key(&parts.headers)? else { return Ok(Self(None)) };
        let mut hasher = DefaultHasher::new();
        (parts.method.as_str(), parts.uri.path(), parts.uri.query()).hash(&mut hasher);
        Ok(Self(Some((key.to_owned(), hasher))))
    }

    /// The same with its body. For a large one that takes time.
    pub(crate) fn with_body(mut self, body: &[u8]) -> Self {
        if let Some((_, hasher)) = &mut self.0 {
            body.hash(hasher);
        }
        self
    }

    /// Does `work`, no more than once where there is a key.
    pub(crate) async fn once(
        self,
        cache: &IdempotencyCache,
        answers: &AnswerBudgets,
        caller: &Caller,
        work: impl Future<Output = Result<Response, Problem>> + Send + 'static,
    ) -> Result<Response, Problem> {
        match self.0 {
            Some((key, hasher)) => {
                let memory = answers.reserve(caller, 0)?;
                cache.once(caller, &key, hasher.finish(), memory, work).await
            }
            None => work.await,
        }
    }
}

impl IdempotencyCache {
    /// Does `work` and gives its answer, or that of the same request before. Once begun it is done to
    /// its end, whether its client waits for it or not, but not for a caller who is revoked. What was
    /// refused was not done, and may be asked for again.
    async fn once(
        &self,
        caller: &Caller,
        key: &str,
        sum: u64,
        memory: Reservation,
        work: impl Future<Output = Result<Response, Problem>> + Send + 'static,
    ) -> Result<Response, Problem> {
        let name = caller_key(caller, key);
        let (tell, told) = watch::channel(None);
        let number = match self.look_up(&name, sum, told)? {
            Lookup::New(number) => number,
            Lookup::Known(mut answer) => {
                // Whatever it holds is not needed while another is waited for.
                drop(work);
                let kept = answer.wait_for(Option::is_some).await;
                let kept = kept.ok().and_then(|kept| kept.clone());
                return kept
                    .ok_or_else(|| {
                        let detail = "the request with this Idempotency-Key, which this one waited \
                                  for, was refused; try again";
                        Problem::new(StatusCode::CONFLICT, detail)
                    })?
                    .into_response();
            }
        };
        // Forgets it unless it was done.
        let begun = RequestInProgress { cache: self.clone(), name, number, is_done: false };
        let caller = caller.clone();
        let done = tokio::spawn(async move {
            let mut begun = begun;
            let Some(answer) = caller.unless_revoked(work).await else {
                return Err(Problem::new(
                    StatusCode::UNAUTHORIZED,
                    "your credentials were taken back",
                ));
            };
            let (parts, body) = answer?.into_parts();
            begun.is_done = true;
            let (whole, body) = keep(body, memory).await?;
            let mut headers = parts.headers.clone();
            headers.insert(REPLAYED, HeaderValue::from_static("true"));
            let kept = whole.map_or(KeptAnswer::TooLarge, |body| KeptAnswer::Answer {
                status: parts.status,
                headers,
                body,
            });
            let bytes = kept.size();
            tell.send_replace(Some(kept));
            let mut state = begun.cache.lock();
            state.finish(&begun.name, begun.number, bytes);
            state.trim();
            drop(state);
            Ok(Response::from_parts(parts, body))
        });
        done.await.unwrap_or_else(|_| Err(failed()))
    }

    fn look_up(
        &self,
        name: &CallerKey,
        sum: u64,
        told: watch::Receiver<Option<KeptAnswer>>,
    ) -> Result<Lookup, Problem> {
        let mut state = self.lock();
        if let Some(known) = state.entries.get(name).filter(|known| known.since.elapsed() < MAX_AGE)
        {
            if known.sum != sum {
                let detail = "this Idempotency-Key was used for another request";
                return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail));
            }
            return Ok(Lookup::Known(known.answer.clone()));
        }
        if let Some(old) = state.entries.get(name).map(|entry| entry.number) {
            state.forget(old);
        }
        let number = state.next;
        state.next += 1;
        let entry = Entry { sum, number, since: Instant::now(), answer: told, bytes: 0 };
        state.entries.insert(name.clone(), entry);
        Ok(Lookup::New(number))
    }

    fn lock(&self) -> MutexGuard<'_, CacheState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Lookup {
    New(u64),
    Known(watch::Receiver<Option<KeptAnswer>>),
}

/// The name under which the requests of a caller are known. Guests have keys of their own.
fn caller_key(caller: &Caller, key: &str) -> CallerKey {
    let key = match caller.guest() {
        Some(_) => format!("{}\n{key}", caller.user()),
        None => key.to_owned(),
    };
    (caller.accounted_user().clone(), key)
}

/// A request that is being done.
struct RequestInProgress {
    cache: IdempotencyCache,
    name: CallerKey,
    number: u64,
    is_done: bool,
}

impl Drop for RequestInProgress {
    fn drop(&mut self) {
        if !self.is_done {
            let mut state = self.cache.lock();
            if state.entries.get(&self.name).is_some_and(|entry| entry.number == self.number) {
                state.entries.remove(&self.name);
            }
        }
    }
}

/// Reads an answer to keep it: gives all of it, if it is not too large to be kept and there is memory to
/// read it; and what is to be answered. Of one that is written while it is taken no more is read than
/// that.
async fn keep(body: Body, mut memory: Reservation) -> Result<(Option<Bytes>, Body), Problem> {
    if body.size_hint().exact().is_some() {
        // It lies in memory already.
        let body = to_bytes(body, usize::MAX).await.map_err(|_| failed())?;
        let kept = (body.len() <= MAX_ANSWER_BYTES).then(|| body.clone());
        return Ok((kept, Body::from(body)));
    }
    let (mut pieces, mut length) = (Vec::new(), 0);
    let mut rest = body.into_data_stream();
    while let Some(piece) = rest.next().await {
        let piece = piece.map_err(|_| failed())?;
        length += piece.len();
        pieces.push(piece);
        if length > MAX_ANSWER_BYTES || memory.try_resize(length).is_err() {
            let rest = stream::iter(pieces).map(Ok).chain(rest);
            // What was read is reserved until the answer was written.
            let rest = rest.map(move |piece| {
                let _reserved = &memory;
                piece
            });
            return Ok((None, Body::from_stream(rest)));
        }
    }
    let body = Bytes::from(pieces.concat());
    Ok((Some(body.clone()), Body::from(body)))
}

fn failed() -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the server failed to answer")
}

/// Refuses a key where a request of a route of ours would be done again all the same.
pub(crate) async fn refuse_unheeded_key(request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    // Before it comes what the routers around this one have matched.
    let is_heeded =
        request.method() == Method::POST && HEEDED.iter().any(|own| path.ends_with(own));
    match check_key(&request, is_heeded) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// Refuses a key, which no route here heeds.
pub(crate) async fn refuse_key(request: Request, next: Next) -> Response {
    match check_key(&request, false) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn check_key(request: &Request, is_heeded: bool) -> Result<(), Problem> {
    if request.method().is_safe() || !request.headers().contains_key(IDEMPOTENCY_KEY) {
        return Ok(());
    }
    if !is_heeded {
        let detail = "`Idempotency-Key` can't be heeded here, leave it out: it is for POST to \
                      execute, batches, rerun, sessions (and save and input) and files";
        return Err(Problem::malformed(detail));
    }
    idempotency_key(request.headers()).map(drop)
}

/// The routes of POST that are done once under a key.
const HEEDED: [&str; 8] = [
    "/execute",
    "/api/v1/execute",
    "/api/v1/batches",
    "/api/v1/batches/{id}/rerun",
    "/api/v1/sessions",
    "/api/v1/sessions/{id}/save",
    "/api/v1/sessions/{id}/input",
    "/api/v1/files/{*path}",
];
pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const MAX_AGE: Duration = Duration::from_hours(24);
const MAX_ANSWERS: usize = 10_000;
const MAX_BYTES: usize = 64 << 20;
/// Largest answer that is kept.
const MAX_ANSWER_BYTES: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use splengine_core::auth::Access;
    use splengine_core::session::SessionPolicy;
    use splengine_core::{Engine, LocalExecutor, SessionRequest};

    use super::*;

    fn user(name: &str) -> UserName {
        name.parse().expect("a name")
    }

    /// Has a request done whose answer takes so many bytes.
    fn finish(state: &mut CacheState, name: CallerKey, bytes: usize) -> u64 {
        let number = state.next;
        state.next += 1;
        let answer = watch::channel(None).1;
        let entry = Entry { sum: 0, number, since: Instant::now(), answer, bytes: 0 };
        state.entries.insert(name.clone(), entry);
        state.finish(&name, number, bytes);
        state.trim();
        number
    }

    #[tokio::test]
    async fn answers_of_who_has_most_are_forgotten_first() {
        let mut state = CacheState::default();
        let bobs = finish(&mut state, (user("bob"), "only".to_owned()), 1);
        for number in 0..MAX_ANSWERS {
            finish(&mut state, (user("alice"), number.to_string()), 1);
        }
        assert!(state.done.contains_key(&bobs), "the one who has one keeps it");
        assert_eq!((state.done.len(), state.entries.len()), (MAX_ANSWERS, MAX_ANSWERS));
        assert_eq!(state.bytes, MAX_ANSWERS);
        let oldest = (user("alice"), "0".to_owned());
        assert!(!state.entries.contains_key(&oldest));
        // By what they take, too.
        let large = finish(&mut state, (user("carol"), "large".to_owned()), MAX_BYTES);
        assert!(!state.done.contains_key(&large) && state.done.contains_key(&bobs));
        assert_eq!(state.bytes, MAX_ANSWERS);
    }

    #[tokio::test]
    async fn guests_have_keys_of_their_own_which_count_for_their_host() {
        let root = tempfile::tempdir().expect("a directory");
        let policy = SessionPolicy::new().store(root.path().join("sessions"));
        let engine = Engine::builder(LocalExecutor::new(root.path()).expect("set up"));
        let engine = engine.sessions(policy).build().expect("fine");
        let (alice, sessions) =
            (Caller::new("alice").expect("a name").with_all_scopes(), engine.sessions());
        let request = SessionRequest::new().command("cat");
        let id = sessions.create(&alice, request).await.expect("runs").id;
        let guest = || {
            let shared = sessions.share(&alice, id.as_str(), Access::Control, MAX_AGE);
            sessions.redeem(&shared.expect("shared").1).expect("a guest")
        };
        let guests = [guest(), guest()];
        let [own, one, other] = [&alice, &guests[0], &guests[1]].map(|who| caller_key(who, "key"));
        assert!(own != one && own != other && one != other, "{own:?} {one:?} {other:?}");
        // Together they have most, though bob has more than each of them.
        let mut state = CacheState::default();
        for number in 0..MAX_ANSWERS / 2 - 1 {
            finish(&mut state, (user("bob"), number.to_string()), 1);
        }
        for number in 0..MAX_ANSWERS / 2 + 10 {
            finish(&mut state, caller_key(&guests[number % 2], &number.to_string()), 1);
        }
        let count_of = |name| state.of_callers[&user(name)].numbers.len();
        assert_eq!(count_of("bob"), MAX_ANSWERS / 2 - 1);
        assert_eq!(count_of("alice"), MAX_ANSWERS / 2 + 1);
        sessions.end(&alice, id.as_str()).await.expect("ends");
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_forgotten_after_a_day() {
        let mut state = CacheState::default();
        let old = finish(&mut state, (user("alice"), "old".to_owned()), 7);
        tokio::time::advance(MAX_AGE).await;
        let new = finish(&mut state, (user("alice"), "new".to_owned()), 5);
        assert!(!state.done.contains_key(&old) && state.done.contains_key(&new));
        assert_eq!((state.bytes, state.of_callers.len()), (5, 1));
    }
}
