//! Output of a session's program: logged, recorded and drawn.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use crate::session::live_session::LiveSession;

impl LiveSession {
    /// Takes in what the program printed, and gives what a terminal answers to it.
    pub(crate) async fn printed(self: &Arc<Self>, mut data: Bytes) -> Vec<u8> {
        let mut replies = Vec::new();
        while !data.is_empty() {
            // Who wants to see the screen waits until all that is in the log is drawn.
            let most = if self.is_costly.load(Relaxed) { COSTLY_BYTES } else { CHEAP_BYTES };
            let piece = data.split_to(most.min(data.len()));
            let length = piece.len();
            let (answers, cells) = self.take_in(piece, 0).await;
            replies.extend(answers);
            // The next piece will be like this one.
            self.is_costly.store(cells > COSTLY_CELLS * length, Relaxed);
        }
        replies
    }

    /// Takes in what brings a terminal back to its defaults, as if the program had printed it. Like
    /// [`printed`](Self::printed), it is for the task that reads the terminal alone.
    pub(crate) async fn reset(self: &Arc<Self>) {
        let data = Bytes::from_static(RESET);
        let synthetic_bytes = data.len() as u64;
        self.take_in(data, synthetic_bytes).await;
    }

    /// Returns a terminal's answers, and what it has cost to draw `data`, in cells. `synthetic_bytes`: so many
    /// of these bytes did not come from the terminal.
    async fn take_in(self: &Arc<Self>, data: Bytes, synthetic_bytes: u64) -> (Vec<u8>, usize) {
        let offset = self.state().log.end().offset;
        self.record(|recorder| recorder.output(offset, &data));
        {
            let mut state = self.state();
            state.log.push(data);
            state.synthetic_bytes += synthetic_bytes;
            state.touch();
        }
        self.wake();
        tokio::select! {
            biased;
            () = self.discarded() => (Vec::new(), 0),
            drawn = self.draw() => drawn,
        }
    }

    async fn draw(self: &Arc<Self>) -> (Vec<u8>, usize) {
        let drawn = self.with_screen(false, |live, painted| {
            let replies = painted.screen.take_replies();
            let mut state = live.state();
            state.cursor_queries = painted.screen.cursor_queries();
            if state.title != painted.screen.title() {
                state.title = painted.screen.title().to_owned();
                state.versions.title += 1;
                drop(state);
                live.wake();
            }
            (replies, std::mem::take(&mut painted.spent))
        });
        let drawn = drawn.await;
        if self.record(|recorder| Ok(recorder.wants_keyframe())) == Some(true) {
            self.record_keyframe().await;
        }
        drawn
    }

    /// Adds the screen to the recording. Where there is no memory to draw it, it is put off.
    async fn record_keyframe(self: &Arc<Self>) {
        match self.try_snapshot_to_store().await {
            Ok((_, size, screen)) => self.record(|recorder| recorder.keyframe(size, screen)),
            Err(_) => self.record(|recorder| {
                recorder.put_off_keyframe();
                Ok(())
            }),
        };
    }
}

/// Ends whatever sequence is open, then: a soft reset (DECSTR), the normal screen, no reports of the
/// mouse, of the window's focus and of pastes, the default character set. What is on the screen stays.
const RESET: &[u8] =
    b"\x18\x1b[?47l\x1b[!p\x1b[?9l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1004l\x1b[?1005l\
    \x1b[?1006l\x1b[?1015l\x1b[?1016l\x1b[?2004l\x1b[?5l\x1b[?7h\x1b[?25h\x1b>\x1b(B\x0f\x1b[m";
/// Cost of drawing a byte, in cells, above which output is taken in by `COSTLY_BYTES` at a time.
const COSTLY_CELLS: usize = 256;
const COSTLY_BYTES: usize = 1 << 10;
/// So much of other output is taken in at a time: its cost is known only then.
const CHEAP_BYTES: usize = 8 << 10;
