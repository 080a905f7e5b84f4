//! What is told of a session from what was written down.

use crate::execute::{ExitStatus, Signal};
use crate::id::SavedId;
use crate::screen::Screen;
use crate::session::store::{Record, time};
use crate::session::{SavedInfo, SessionInfo, SessionState, Size};

impl Record {
    pub(crate) fn size(&self) -> Size {
        Size::clamped(self.cols, self.rows)
    }

    pub(crate) fn info(&self) -> Option<SessionInfo> {
        let exit = self.exit.map(|(code, signal)| {
            signal.and_then(Signal::from_number).map_or(ExitStatus::Code(code), ExitStatus::Signal)
        });
        Some(SessionInfo {
            id: self.session_id.parse().ok()?,
            user: self.user.parse().ok()?,
            name: self.name.clone(),
            title: self.title.clone(),
            created: time(self.created),
            last_activity: time(self.last_activity),
            size: self.size(),
            workdir: self.workdir.clone(),
            clients: 0,
            state: SessionState::Lost,
            exit,
            restored: self.restored,
            recording: false,
        })
    }

    pub(crate) fn saved_info(&self, id: SavedId) -> Option<SavedInfo> {
        Some(SavedInfo {
            id,
            session_id: self.session_id.parse().ok()?,
            user: self.user.parse().ok()?,
            name: self.name.clone(),
            created: time(self.saved),
            size: self.size(),
            workdir: self.workdir.clone(),
        })
    }
}

/// Its screen, drawn again.
pub(crate) fn redrawn(record: &Record, screen: &[u8], scrollback: usize) -> Screen {
    let mut redrawn = Screen::new(record.cols, record.rows, scrollback);
    redrawn.feed(screen);
    redrawn
}
