//! Taking over the sessions that an engine before this one left running.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use tokio::time::Instant;

use crate::blocking::blocking;
use crate::execute::command_bytes;
use crate::ids::{SessionId, random_text};
use crate::session::Recording;
use crate::session::Sessions;
use crate::session::input_queue::InputSequence;
use crate::session::live_session::{Launch, LiveSession, ResumeData, SessionInit};
use crate::session::live_state::InputSender;
use crate::session::record::{KnownInput, Record};
use crate::session::recording::Recorder;
use crate::session::registry::Registry;
use crate::session::store::SessionFiles;
use crate::session::tasks;
use crate::terminal::{Orphan, Reattached};
use crate::time::time;

/// Takes over what the executor can; gives how many sessions go on.
pub(crate) async fn adopt_all(sessions: &Sessions) -> usize {
    let registry = &sessions.registry;
    let mut left = Vec::new();
    let mut states = Vec::new();
    if let Some(store) = registry.store.clone() {
        let lost = registry.all_lost();
        let found = blocking(move || {
            let states = lost.into_iter().filter_map(|record| {
                let id: SessionId = record.session_id.parse().ok()?;
                let files = store.session(&id).ok()?;
                let (record, screen) = files.state().ok()?;
                Some((id, record, screen.into_bytes().ok()?, files))
            });
            states.collect::<Vec<_>>()
        });
        for (id, record, screen, files) in found.await {
            let point = &record.resume;
            left.push(Orphan {
                session_id: id.clone(),
                mark: point.mark.clone(),
                read: point.offset.saturating_sub(point.synthetic_bytes),
            });
            states.push((id, record, screen, files));
        }
    }
    let mut count = 0;
    let answers = sessions.runner.executor.adopt_boxed(left).await;
    for ((id, record, screen, files), answer) in states.into_iter().zip(answers) {
        if let Some(adopted) = answer {
            tracing::info!(session = %id, "going on with a session");
            go_on(registry, id, record, screen, files, adopted).await;
            count += 1;
        }
    }
    registry.trim_lost();
    count
}

async fn go_on(
    registry: &Arc<Registry>,
    id: SessionId,
    record: Record,
    mut screen: Vec<u8>,
    files: SessionFiles,
    adopted: Reattached,
) {
    let Reattached { terminal, lost } = adopted;
    let Ok(user) = record.user.parse() else {
        terminal.kill();
        return;
    };
    let bytes = command_bytes(&record.argv, &record.env);
    let size = record.size();
    let (age, idle) = ages(&record);
    let (recorder, files) = recorder(registry, &record, files).await;
    let point = record.resume;
    let offset = point.offset + lost;
    let epoch = if lost == 0 {
        point.epoch
    } else {
        screen.extend_from_slice(AFTER_LOSS);
        random_text()
    };
    if let Err(error) = terminal.resize(size) {
        tracing::debug!(%error, session = %id, "a terminal can't be resized");
    }
    let memory = registry.screens.reserve_always(&user, size);
    let held = registry.hold_command_anyway(&user, bytes);
    let scrollback = registry.policy.scrollback;
    let next = |screen: &mut Bytes| Ok::<_, Infallible>(std::mem::take(screen));
    let drawing =
        registry.render_pool.redrawn(size, scrollback, screen.into(), next, |drawn, _| drawn);
    let drawn = drawing.await;
    let (live, typed) = LiveSession::new(
        SessionInit {
            id,
            user,
            name: record.name,
            created: time(record.created),
            epoch,
            offset,
            size,
            terminal,
            memory,
            launch: Launch {
                _held: held,
                argv: record.argv,
                env: record.env,
                workdir: record.workdir,
            },
            screen: drawn.ok(),
            restored: record.restored,
            first: None,
            recorder,
            adopted: Some(ResumeData {
                synthetic_bytes: point.synthetic_bytes,
                last_activity: time(record.last_activity),
                age,
                idle,
                inputs: inputs(point.inputs),
            }),
        },
        Arc::clone(&registry.policy),
        registry.render_pool.clone(),
    );
    let place = registry.slot_anyway(&live.user);
    registry.insert(&live);
    // What was written down of it before still holds.
    drop(tasks::start(&live, typed, Some(files), place, Arc::clone(&registry.io)));
}

/// The recording, continued if there was one.
async fn recorder(
    registry: &Registry,
    record: &Record,
    files: SessionFiles,
) -> (Option<Recorder>, SessionFiles) {
    let Some(mark) = record.resume.recording else { return (None, files) };
    if registry.policy.recording == Recording::Off {
        return (None, files);
    }
    let most = registry.policy.max_recording;
    let before = SystemTime::now().duration_since(time(record.created)).unwrap_or_default();
    let (id, size) = (record.session_id.clone(), record.size());
    blocking(move || {
        let opened = files.open_recording();
        let resumed =
            opened.and_then(|(cast, keys)| Recorder::resume(cast, keys, most, size, mark, before));
        if let Err(error) = &resumed {
            tracing::warn!(%error, session = id, "a recording can't be gone on with");
        }
        (resumed.ok(), files)
    })
    .await
}

fn inputs(known: Vec<KnownInput>) -> VecDeque<InputSender> {
    let now = Instant::now();
    let known = known.into_iter().filter_map(|known| {
        let tail = BASE64_STANDARD.decode(known.tail).ok()?;
        Some(InputSender {
            name: known.client,
            user: known.user.parse().ok()?,
            sequence: InputSequence::restore(known.next, tail),
            unnamed: false,
            left: Some(now),
        })
    });
    known.collect()
}

/// How old a session is, and for how long idle, by the clock of the engine that wrote it down, which
/// does not jump. What went by since then does not count: the wall clock, which alone could tell, may
/// have been set anew, and would end the session.
fn ages(record: &Record) -> (Duration, Duration) {
    let since = |then| record.saved.saturating_sub(then);
    let age = record.resume.age.unwrap_or_else(|| since(record.created));
    let idle = record.resume.idle.unwrap_or_else(|| since(record.last_activity));
    (Duration::from_millis(age), Duration::from_millis(idle))
}

/// Ends whatever sequence was begun before the loss (CAN), and resets colours.
const AFTER_LOSS: &[u8] = b"\x18\x1b[0m";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_jumps_makes_no_session_older() {
        let year = 365 * 24 * 3600 * 1000;
        let mut record =
            Record { created: 50 * year, last_activity: 50 * year, ..Record::default() };
        record.resume.age = Some(5000);
        record.resume.idle = Some(2000);
        let known = (Duration::from_secs(5), Duration::from_secs(2));
        for saved in [0, 50 * year, 90 * year] {
            record.saved = saved;
            assert_eq!(ages(&record), known, "{saved}");
        }
        // As an earlier version wrote it.
        record.resume.age = None;
        record.resume.idle = None;
        record.saved = 0;
        assert_eq!(ages(&record), (Duration::ZERO, Duration::ZERO));
        record.saved = record.created + 3000;
        assert_eq!(ages(&record), (Duration::from_secs(3), Duration::from_secs(3)));
    }
}
