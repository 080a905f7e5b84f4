//! The tasks that serve a session: one reads its terminal, one types, one keeps its files.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::session::Recording;
use crate::session::bounds::{IoBounds, snapshot_bytes};
use crate::session::input_queue::InputQueue;
use crate::session::live_session::{LiveSession, Typed, permits_of};
use crate::session::recording_writer::STALL_TIMEOUT;
use crate::session::registry::SessionSlot;
use crate::session::store::SessionFiles;

/// Serves `live` until its program has ended. What is returned is told, or dropped, when the session
/// has been written down once.
pub(crate) fn start(
    live: &Arc<LiveSession>,
    typed: mpsc::Receiver<Typed>,
    files: Option<SessionFiles>,
    place: SessionSlot,
    io: Arc<IoBounds>,
) -> oneshot::Receiver<()> {
    let (to, kept) = oneshot::channel();
    let typing = tokio::spawn(type_all(Arc::clone(live), typed));
    let settling = tokio::spawn(settle(Arc::clone(live)));
    tokio::spawn(record(Arc::clone(live), Arc::clone(&io)));
    let keeping = files.map(|files| tokio::spawn(keep(Arc::clone(live), files, io, to)));
    let live = Arc::clone(live);
    tokio::spawn(async move {
        read_all(&live).await;
        typing.abort();
        // Callers that wait to have more typed are told of the end.
        live.input_permits.close();
        settling.abort();
        drop(place);
        if let Some(keeping) = keeping {
            // It ends by itself, when it has written down the end.
            let _ = keeping.await;
        }
        // Callers that are told of the end find the recording whole, unless the disk is stuck.
        if let Some(writer) = &live.recording_writer {
            let _ = timeout(STALL_TIMEOUT, writer.written()).await;
        }
        live.let_go_of_terminal();
        live.state().is_settled = true;
        live.wake();
        let shrunk = tokio::select! {
            biased;
            () = live.discarded() => false,
            () = live.shrink_screen() => true,
        };
        if shrunk {
            let ended: Weak<LiveSession> = Arc::downgrade(&live);
            live.memory.note_ended(ended);
        }
    });
    kept
}

/// Reads what the program prints, to its end.
async fn read_all(live: &Arc<LiveSession>) {
    let mut buffer = Vec::new();
    let mut status = None;
    let terminal = live.terminal();
    let mut ended = std::pin::pin!(terminal.ended());
    loop {
        if status.is_none() {
            tokio::select! {
                () = pace(live) => {}
                exit = &mut ended => status = Some(exit),
            }
        }
        live.recording_room().await;
        let read = tokio::select! {
            biased;
            read = terminal.read(&mut buffer) => read,
            exit = &mut ended, if status.is_none() => {
                status = Some(exit);
                continue;
            }
            () = live.reset_asked.notified(), if status.is_none() => {
                if !buffer.is_empty() {
                    let _ = live.printed(take(&mut buffer)).await;
                }
                live.reset().await;
                continue;
            }
            // Somebody holds the terminal who does not belong to the session.
            () = sleep(LAST_OUTPUT_TIMEOUT), if status.is_some() => break,
        };
        match read {
            Ok(1..) => {
                let replies = live.printed(take(&mut buffer)).await;
                if !replies.is_empty() {
                    // A program that asks and does not read gets no more answers.
                    let _ = live.input.try_send(Typed::Reply(replies));
                }
                // However much it prints, others come in between.
                tokio::task::yield_now().await;
            }
            Ok(0) => break,
            Err(error) => {
                tracing::debug!(%error, session = %live.id, "a terminal can't be read");
                break;
            }
        }
    }
    // What a read had got that was given up.
    if !buffer.is_empty() {
        let _ = live.printed(take(&mut buffer)).await;
    }
    let status = match status {
        Some(status) => status,
        None => ended.await,
    };
    live.finish(status);
}

/// A small piece must not hold a large buffer for as long as it is kept.
fn take(buffer: &mut Vec<u8>) -> Bytes {
    if buffer.len() >= buffer.capacity() / 2 {
        Bytes::from(std::mem::take(buffer))
    } else {
        let data = Bytes::copy_from_slice(buffer);
        buffer.clear();
        if buffer.capacity() > 0 && data.len() < SMALL {
            *buffer = Vec::new();
        }
        data
    }
}

/// Waits for the client in control, if it is behind and says how far it is, for a while. For one that
/// is alone and says nothing, its socket does. One of which nothing is known yet gets a moment, once:
/// its first word may be on its way.
async fn pace(live: &LiveSession) {
    let begun = Instant::now();
    let mut deadline = begun + MAX_WAIT;
    loop {
        let drawn = live.ack_notify.notified();
        let mut drawn = std::pin::pin!(drawn);
        drawn.as_mut().enable();
        {
            let mut state = live.state();
            let end = state.log.end().offset;
            // A piece that is read now must not push out what the client has not had yet.
            let high_water = HIGH_WATER.min(state.log.capacity() / 4);
            let controller = state.controller;
            let is_alone = state.clients.len() == 1;
            let Some(client) = controller.and_then(|key| state.clients.get_mut(&key)) else {
                return;
            };
            let said = client.acked.or(client.delivered.filter(|_| is_alone));
            if client.slow || end.saturating_sub(said.unwrap_or(client.joined_at)) <= high_water {
                return;
            }
            if said.is_none() {
                if client.was_waited_for {
                    return;
                }
                deadline = deadline.min(begun + FIRST_OUTPUT_TIMEOUT);
            }
            if Instant::now() >= deadline {
                client.slow = true;
                client.was_waited_for |= said.is_none();
                return;
            }
        }
        let _ = timeout(deadline.saturating_duration_since(Instant::now()), drawn).await;
    }
}

/// Types what clients send.
async fn type_all(live: Arc<LiveSession>, mut typed: mpsc::Receiver<Typed>) {
    let mut weave = InputQueue::default();
    loop {
        let wake_at = weave.wake_at();
        tokio::select! {
            biased;
            item = typed.recv() => match item {
                Some(Typed::Client(client, data)) => weave.push(client, data),
                Some(Typed::Left(client)) => weave.leave(client),
                Some(Typed::Reply(data)) => type_one(&live, &data, false).await,
                None => return,
            },
            () = sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => {}
        }
        while let Some(data) = weave.pop(Instant::now()) {
            type_one(&live, &data, true).await;
            live.input_permits.add_permits(permits_of(&data));
        }
    }
}

/// Gives the terminal the size that its clients come to: once for all that they say within a short
/// time.
async fn settle(live: Arc<LiveSession>) {
    loop {
        live.resized.notified().await;
        sleep(SETTLE).await;
        live.settle_size();
    }
}

async fn type_one(live: &LiveSession, data: &[u8], by_client: bool) {
    // What was typed after a change of size is for a program that knows of it.
    if by_client && live.resize_pending.load(Relaxed) {
        live.settle_size();
    }
    if by_client
        && live.policy.recording == Recording::OutputAndInput
        && live.terminal().status().echo
    {
        live.recording_room().await;
        live.record(|recorder| recorder.input(data));
    }
    if let Err(error) = live.terminal().write(data).await {
        tracing::debug!(%error, session = %live.id, "nobody reads what is typed");
    }
}

/// Writes the recording, to its end.
async fn record(live: Arc<LiveSession>, io: Arc<IoBounds>) {
    let Some(writer) = &live.recording_writer else { return };
    tokio::select! {
        biased;
        written = writer.write_all(&io) => {
            if let Err(stopped) = written {
                live.stop_recording(stopped);
            }
        }
        () = live.discarded() => live.discard_recording(),
    }
}

/// Writes down how the session stands, soon after every change, so that little is lost with the
/// engine.
async fn keep(
    live: Arc<LiveSession>,
    files: SessionFiles,
    io: Arc<IoBounds>,
    told: oneshot::Sender<()>,
) {
    let files = Arc::new(files);
    let mut told = Some(told);
    let mut changed = live.subscribe();
    loop {
        changed.borrow_and_update();
        let has_ended = live.state().end.is_some();
        let begun = Instant::now();
        let mut memory = io.write_memory(&live.user);
        let state = async {
            let cells = live.with_screen(false, |_, painted| painted.screen.cells()).await;
            memory.wait_for(snapshot_bytes(cells)).await;
            let (record, screen) = live.state_record().await;
            (record, screen, io.write_turn().await)
        };
        let (record, screen, turn) = tokio::select! {
            biased;
            () = live.discarded() => return,
            record = state => record,
        };
        let files = Arc::clone(&files);
        let written = tokio::task::spawn_blocking(move || {
            let _held = (memory, turn);
            files.write_state(&record, &screen)
        });
        if let Ok(Err(error)) = written.await {
            tracing::warn!(%error, session = %live.id, "the state of a session can't be kept");
        }
        if let Some(told) = told.take() {
            let _ = told.send(());
        }
        if has_ended || changed.changed().await.is_err() {
            return;
        }
        // A large screen is not written down all the time.
        let pause = (begun.elapsed() * KEEP_PAUSE_FACTOR).clamp(KEEP_EVERY, MAX_KEEP_PAUSE);
        // The end is stored at once, since a caller may wait for it.
        let _ = timeout(pause, async {
            while live.state().end.is_none() {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        })
        .await;
    }
}

/// A client in control that is so many bytes behind is waited for.
const HIGH_WATER: u64 = 256 << 10;
const LAST_OUTPUT_TIMEOUT: Duration = Duration::from_millis(500);
const MAX_WAIT: Duration = Duration::from_secs(10);
const FIRST_OUTPUT_TIMEOUT: Duration = Duration::from_millis(100);
const SETTLE: Duration = Duration::from_millis(50);
const KEEP_EVERY: Duration = Duration::from_millis(100);
/// Pause before the session is written down again, as a multiple of the time that it took.
const KEEP_PAUSE_FACTOR: u32 = 10;
const MAX_KEEP_PAUSE: Duration = Duration::from_secs(2);
const SMALL: usize = 4 << 10;
