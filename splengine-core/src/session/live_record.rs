//! The stored record of a running session.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;

use crate::blocking::blocking;
use crate::os::ExitStatus;
use crate::session::live_session::LiveSession;
use crate::session::live_state::InputSender;
use crate::session::record::{KnownInput, Record, ResumePoint};
use crate::session::recording::RecordingMark;
use crate::terminal::Size;
use crate::time::millis;

impl LiveSession {
    /// Everything that it takes to tell of it, or to load it again.
    pub(crate) async fn record_of(self: &Arc<Self>) -> (Record, Bytes) {
        loop {
            let synthetic_bytes = self.state().synthetic_bytes;
            let (cursor, size, screen) = self.snapshot_to_store().await;
            // A reset in between would count as read from the terminal.
            if self.state().synthetic_bytes == synthetic_bytes {
                // After the screen, so that it has come as far at the least.
                let recording = self.recording_mark().await;
                let live = Arc::clone(self);
                let at = move || live.record_at(cursor.offset, synthetic_bytes, size, recording);
                let record = blocking(at).await;
                return (record, screen);
            }
        }
    }

    /// Everything but the screen, which stands for this offset and has this size.
    fn record_at(
        &self,
        offset: u64,
        synthetic_bytes: u64,
        size: Size,
        recording: Option<RecordingMark>,
    ) -> Record {
        let info = self.info();
        let exit = info.exit.map(|exit| match exit {
            ExitStatus::Code(code) => (code, None),
            ExitStatus::Signal(signal) => (128 + signal.number(), Some(signal.number())),
        });
        Record {
            session_id: self.id.to_string(),
            user: self.user.to_string(),
            name: info.name,
            title: info.title,
            created: millis(self.created),
            last_activity: millis(info.last_activity),
            saved: millis(SystemTime::now()),
            cols: size.cols(),
            rows: size.rows(),
            argv: self.launch.argv.clone(),
            env: self.launch.env.clone(),
            workdir: info.workdir,
            exit,
            restored: info.restored,
            resume: self.resume_point(offset, synthetic_bytes, recording),
        }
    }

    /// What is written down of it while it is open. Variables, which may be secrets, are in it only
    /// as long as another engine may go on with its program.
    pub(crate) async fn state_record(self: &Arc<Self>) -> (Record, Bytes) {
        let (mut record, screen) = self.record_of().await;
        if record.exit.is_some() || !self.terminal().outlives() {
            record.env.clear();
        }
        (record, screen)
    }

    fn resume_point(
        &self,
        offset: u64,
        synthetic_bytes: u64,
        recording: Option<RecordingMark>,
    ) -> ResumePoint {
        let state = self.state();
        let mut known: Vec<&InputSender> = state.input_sequences.iter().collect();
        // Those that are there, then those that left last.
        known.sort_by_key(|known| std::cmp::Reverse((known.left.is_none(), known.left)));
        let inputs = known.into_iter().filter_map(|known| {
            let (next, tail) = known.sequence.kept()?;
            Some(KnownInput {
                client: known.name.clone(),
                user: known.user.to_string(),
                next,
                tail: BASE64_STANDARD.encode(tail),
            })
        });
        ResumePoint {
            epoch: self.epoch.clone(),
            offset,
            synthetic_bytes,
            mark: self.terminal().mark(),
            recording,
            inputs: inputs.take(MAX_INPUTS).collect(),
            age: Some(in_millis(self.begun_at.elapsed())),
            idle: Some(in_millis(state.active.elapsed())),
        }
    }
}

fn in_millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// So many clients' inputs are written down.
const MAX_INPUTS: usize = 16;
