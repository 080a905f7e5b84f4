//! One connection, in either framing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::FutureExt as _;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use splengine_core::auth::CredentialSource;
use splengine_core::net::{Closing, ConnectionHandle};
use splengine_core::quota::Reservation;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, sleep_until, timeout};

use crate::answer::refusal;
use crate::call_turns::WaitingCalls;
use crate::framing::Frames;
use crate::handshake::Received;
use crate::output::Unsent;
use crate::responder::{Memory, Origin, Presented, Recognised, Responder};

/// What is known of a connection before its first message.
pub(crate) struct Accepted {
    pub(crate) handle: ConnectionHandle,
    pub(crate) source: CredentialSource,
    pub(crate) closing: Closing,
    /// How many of its calls are worked at, where they can be told apart.
    pub(crate) max_calls: usize,
}

/// Serves a connection until its client goes, breaks a bound or falls silent in the middle of
/// something. What its calls are at is cancelled with it.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    responder: &Responder,
    mut frames: Frames,
    mut input: BytesMut,
    stream: S,
    accepted: Accepted,
) -> io::Result<()> {
    let options = &responder.options;
    let Accepted { handle, source, mut closing, max_calls } = accepted;
    let most_calls = if frames.is_netty() { max_calls } else { 1 };
    let mut conversation = responder.conversation(false);
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut calls = FuturesUnordered::new();
    let waiting_calls = WaitingCalls::default();
    // The message whose client's protocol is being parsed, one at most; and once it is, that message.
    let mut learning = FuturesUnordered::new();
    let mut learned = None;
    // How many bytes it takes.
    let mut waiting = 0;
    // Where the last call was worked at that was over at once, for the next.
    let mut spare = None;
    let mut output = Unsent::default();
    // Whose end is the connection's, and whose memory what it reads takes, once it is known.
    let recognised = Recognised::default();
    let mut reserved = share(responder, &recognised);
    let mut is_unknown = true;
    let opened = Instant::now();
    let mut revoked: Option<Pin<Box<dyn Future<Output = ()> + Send>>> = None;
    let mut is_open = false;
    // Since when a message is on its way, and since when answers are.
    let (mut half_read, mut unread) = (None, None);
    // TLS may keep the last of what was written.
    let mut is_flushed = true;
    // How many calls were over at once since others had their turn.
    let mut at_once = 0_usize;
    // Until when a client that says no more is answered.
    let mut last_answers = None;
    // When the last answer went out, and whether the client is one that asks on at once.
    let (mut answered, mut is_prompt) = (opened, false);
    loop {
        let has_room = loop {
            let has_room = calls.len() < most_calls
                && output.len() < MAX_OUTPUT_BYTES
                && learning.is_empty()
                && !waiting_calls.are_too_many()
                && !closing.is_closing();
            if !has_room {
                break false;
            }
            if at_once >= AT_ONCE {
                at_once = 0;
                tokio::task::yield_now().await;
            }
            if handle.is_authenticated() {
                conversation.keep();
            }
            let (serial, opened) = if let Some(learned) = learned.take() {
                waiting = 0;
                learned
            } else {
                let next =
                    frames.next(&mut input).map_err(|_| invalid("a message breaks a bound"))?;
                let Some((serial, message)) = next else { break true };
                half_read = None;
                if !is_open {
                    // It may lie idle from now on, while it is in nobody's way.
                    drop(handle.begin());
                    is_open = true;
                }
                let received = conversation
                    .open(message)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                match received {
                    Received::Opened(opened) => (serial, opened),
                    Received::Unknown(mut unknown) => {
                        waiting = unknown.size();
                        let caller = recognised.get().cloned();
                        let (activity, source) = (handle.begin(), source.clone());
                        learning.push(async move {
                            let _activity = activity;
                            let parsed =
                                responder.parse(&mut unknown, &source, caller.as_ref()).await;
                            (serial, unknown, parsed)
                        });
                        break false;
                    }
                }
            };
            match opened.call {
                Some((client, call)) => {
                    // Until it was worked at, its memory is held apart from what is read next.
                    let memory = (call.len() > ALLOWANCE).then(|| {
                        let next = share(responder, &recognised);
                        let mut reservation = std::mem::replace(&mut reserved, next);
                        // It holds that much, and only gives back the rest.
                        let _ = reservation.resize(call.len()).now_or_never();
                        let is_callers = !is_unknown;
                        is_unknown = recognised.get().is_none();
                        Box::new(Memory { reservation, is_callers })
                    });
                    let uncounted = if memory.is_some() { 0 } else { call.len() };
                    let waits = Some(waiting_calls.begin(uncounted));
                    let shown = (!handle.is_authenticated()).then(|| {
                        Box::new(Presented {
                            connection: Some(handle.clone()),
                            recognised: Some(Arc::clone(&recognised)),
                            ..Presented::default()
                        })
                    });
                    let work = responder.clone().respond(
                        client,
                        call,
                        opened.answer,
                        opened.is_answered,
                        Origin { source: source.clone(), shown, memory, waits },
                    );
                    let work = work.map(move |answer| (serial, answer));
                    let mut work = in_place(&mut spare, work);
                    // What is over at once is answered without a place among those that wait, which
                    // poll it anew and are the ones that are woken.
                    let first = work.poll_unpin(&mut Context::from_waker(Waker::noop()));
                    match first {
                        Poll::Ready((serial, answer)) => {
                            if let Some(answer) = answer {
                                output.write(&frames, serial, answer);
                            }
                            spare = Some(work);
                            at_once += 1;
                            // The client can work at these while we do at the rest.
                            if output.len() >= PIECE
                                && let Some(written) = writer.write(&output).now_or_never()
                            {
                                output.advance(written?);
                                is_flushed = false;
                                unread = None;
                                answered = Instant::now();
                            }
                        }
                        Poll::Pending => calls.push(work),
                    }
                }
                None => output.write(&frames, serial, opened.answer),
            }
        };
        if revoked.is_none()
            && let Some(caller) = recognised.get().filter(|caller| caller.is_revocable()).cloned()
        {
            revoked = Some(Box::pin(async move { caller.revoked().await }));
        }
        let says_no_more = closing.is_closing() || last_answers.is_some();
        let learns = !learning.is_empty() && !closing.is_closing();
        if says_no_more && calls.is_empty() && !learns && output.is_empty() && is_flushed {
            return Ok(());
        }
        // What is left lying here is not the client's fault.
        half_read =
            (has_room && frames.is_midway(&input)).then(|| half_read.unwrap_or_else(Instant::now));
        if output.is_empty() && is_flushed {
            unread = None;
        } else {
            unread.get_or_insert_with(Instant::now);
        }
        // Its turn has a time of its own.
        let handshake = (!conversation.is_established() && learning.is_empty())
            .then(|| opened + options.handshake_timeout);
        let overdue = [half_read, unread].into_iter().flatten().min();
        let overdue = overdue.map(|since| since + options.frame_timeout);
        let overdue = [handshake, overdue, last_answers].into_iter().flatten().min();
        // Even where nothing more is worked at, a client that goes is noticed.
        let reads = last_answers.is_none() && (has_room || input.len() < READ_AHEAD);
        input.reserve(if reads { READ } else { 0 });
        if is_unknown && recognised.get().is_some() {
            reserved = share(responder, &recognised);
            is_unknown = false;
        }
        let holds = frames.gathered() + input.len() + waiting + READ;
        let eager = is_prompt && calls.is_empty() && output.is_empty() && is_flushed;
        tokio::select! {
            // All answers that are ready go out in one piece.
            biased;
            // Where they are not taken, those that come are not waited for.
            Some((serial, answer)) = calls.next(),
                if !calls.is_empty() && output.len() < MAX_OUTPUT_BYTES => {
                if let Some(answer) = answer {
                    output.write(&frames, serial, answer);
                }
            }
            Some((serial, unknown, parsed)) = learning.next(), if !learning.is_empty() => {
                learned = Some((serial, conversation.learn(unknown, parsed)));
            }
            written = async {
                match output.is_empty() {
                    true => writer.flush().await.map(|()| 0),
                    false => writer.write(&output).await,
                }
            }, if !output.is_empty() || !is_flushed => {
                is_flushed = output.is_empty();
                output.advance(written?);
                unread = None;
                answered = Instant::now();
            }
            read = async {
                reserved.resize(holds).await;
                read(&mut reader, &mut input, eager).await
            }, if reads => {
                if read? == 0 {
                    last_answers = Some(Instant::now() + LAST_ANSWERS);
                }
                is_prompt = answered.elapsed() < PROMPT;
            }
            () = waiting_calls.fewer(), if waiting_calls.are_too_many() => {}
            () = closing.closed(), if !closing.is_closing() => {}
            () = async {
                match &mut revoked {
                    Some(revoked) => revoked.await,
                    None => std::future::pending().await,
                }
            }, if last_answers.is_none() => {
                tracing::info!("a connection is closed: its caller's credentials were taken back");
                last_answers = Some(Instant::now() + LAST_ANSWERS);
            }
            () = sleep_until(overdue.unwrap_or(opened)), if overdue.is_some() => {
                let is_halfway = half_read.map(|since| since + options.frame_timeout) == overdue;
                let shortage = reserved.shortage().filter(|_| is_halfway);
                if let Some(shortage) = shortage.filter(|_| conversation.is_established()) {
                    let answer = refusal(&shortage.into());
                    output.write(&frames, frames.serial(), answer);
                    let last = say_last(&mut reader, &mut writer, &output);
                    let _ = timeout(LAST_ANSWERS, last).await;
                }
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
}

/// A reservation from the share of the connection's caller, or from that of unauthenticated clients.
fn share(responder: &Responder, recognised: &Recognised) -> Reservation {
    let share = match recognised.get() {
        Some(caller) => responder.budgets.of(caller.accounted_user()),
        None => responder.unknown.clone(),
    };
    share.reservation().allowance(ALLOWANCE)
}

/// Writes the last answers, and throws away what comes until the client closes: a connection that is
/// closed with something unread is reset, and the answers may be lost.
async fn say_last(
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
    answers: &[u8],
) -> io::Result<()> {
    writer.write_all(answers).await?;
    writer.shutdown().await?;
    tokio::io::copy(reader, &mut tokio::io::sink()).await?;
    Ok(())
}

/// Reads what comes next; eagerly, where the client is about to ask: falling asleep and being woken
/// takes longer than such a client does.
async fn read<R: AsyncRead + Unpin>(
    reader: &mut R,
    input: &mut BytesMut,
    eager: bool,
) -> io::Result<usize> {
    let begun = Instant::now();
    while eager && begun.elapsed() < EAGER {
        if let Some(read) = reader.read_buf(input).now_or_never() {
            return read;
        }
        tokio::task::yield_now().await;
    }
    reader.read_buf(input).await
}

/// Puts `work` where other work was, if there is such a place.
fn in_place<F>(spare: &mut Option<Pin<Box<F>>>, work: F) -> Pin<Box<F>> {
    match spare.take() {
        Some(mut place) => {
            place.set(work);
            place
        }
        None => Box::pin(work),
    }
}

fn invalid(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// Beyond it no further call is read.
const MAX_OUTPUT_BYTES: usize = 256 << 10;
/// Of answers that are ready, so many bytes go out while more calls are worked at.
const PIECE: usize = 8 << 10;
/// As far as that is a client that leaves is noticed, whatever it leaves behind.
const READ_AHEAD: usize = 1 << 20;
const READ: usize = 16 << 10;
/// Of what a connection holds, so much is not counted.
const ALLOWANCE: usize = 64 << 10;
/// After so many calls that were over at once others of the runtime's tasks have their turn.
const AT_ONCE: usize = 128;
/// A client that has closed its half of the connection may still read, or be gone: so long its
/// calls are worked at.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// Who asks on within this time after an answer is waited for eagerly the next time.
const PROMPT: Duration = Duration::from_micros(200);
/// For so long.
const EAGER: Duration = Duration::from_micros(50);
