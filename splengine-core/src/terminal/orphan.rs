use crate::ids::SessionId;
use crate::terminal::Terminal;

/// A session of which an engine did not see the end.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Orphan {
    /// Id of the session.
    pub session_id: SessionId,
    /// The [mark](crate::Session::mark) of its terminal.
    pub mark: Option<String>,
    /// Number of bytes that its program printed and that are known;
    /// [`Session::read`](crate::Session::read) is to go on behind them.
    pub read: u64,
}

/// A session's terminal, taken over.
#[derive(Debug)]
pub struct Reattached {
    pub(crate) terminal: Terminal,
    pub(crate) lost: u64,
}

impl Reattached {
    /// States that `terminal` is the session's, and reads on where it is known to.
    #[must_use]
    pub fn new(terminal: Terminal) -> Self {
        Self { terminal, lost: 0 }
    }

    /// Sets how many bytes that were printed in between could not be kept. Default: none.
    #[must_use]
    pub fn lost(mut self, bytes: u64) -> Self {
        self.lost = bytes;
        self
    }
}
