//! Updates of a session for its clients.

use bytes::Bytes;

use crate::auth::Access;
use crate::os::ExitStatus;
use crate::quota::MemoryError;
use crate::terminal::Size;
use crate::user_name::UserName;

/// Update of a session, for one client. The order of updates is that of their events.
///
/// ```
/// use std::io::Write;
/// use splengine_core::session::Update;
///
/// /// Shows an update on a terminal; returns whether it is the last.
/// fn show(terminal: &mut impl Write, update: &Update) -> std::io::Result<bool> {
///     match update {
///         Update::Output { data, .. } | Update::Snapshot { data, .. } => terminal.write_all(data)?,
///         Update::Title(title) => write!(terminal, "\x1b]2;{title}\x07")?,
///         Update::Exit(_) | Update::Closed(_) => return Ok(true),
///         _ => {}
///     }
///     Ok(false)
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Update {
    /// Output of the program.
    Output {
        /// Number of bytes that the program had printed before.
        offset: u64,
        /// The bytes; never empty, at most 64 KiB.
        data: Bytes,
    },
    /// The whole screen, in place of all output before.
    Snapshot {
        /// Number of bytes that the program had printed.
        offset: u64,
        /// The size that it is for.
        size: Size,
        /// Escape bytes that reset a terminal of any state and draw everything. Their memory is reserved
        /// until the last copy of them is dropped.
        data: Bytes,
    },
    /// The terminal's size from here on.
    Size(Size),
    /// Title that the program has set.
    Title(String),
    /// Clients that are attached.
    Presence(Vec<ClientInfo>),
    /// Change of the client in control, by its id.
    Control {
        /// Id of the client in control; `None` when there is none.
        controller: Option<String>,
        /// `true` if this client is in control.
        you: bool,
    },
    /// Notice for the client.
    Notice(Notice),
    /// The program has ended, and all of its output was given. The last update.
    Exit(ExitStatus),
    /// End of this attachment: the client is sent away. The last update.
    Closed(Closed),
}

/// Client of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientInfo {
    /// Id of the client.
    pub id: String,
    /// User of the client.
    pub user: UserName,
    /// Right of the client.
    pub access: Access,
    /// `true` for the client that gets this update.
    pub you: bool,
}

/// Notice for a client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// The client was too far behind and gets the screen instead of what it missed.
    Resynced,
    /// The session will be ended unless something happens in it.
    IdleWarning {
        /// Number of seconds until then.
        seconds: u64,
    },
    /// The recording has stopped; the session continues.
    RecordingStopped {
        /// `limit`, `diskFull` or `failed`.
        reason: &'static str,
    },
    /// There is no memory for a screen of the size that the clients' windows come to: the terminal keeps
    /// the one that it has.
    SizeRefused {
        /// Size that it would have had.
        size: Size,
        /// Description of which memory is used up, and what to do.
        reason: String,
    },
    /// The engine shuts down.
    Restart,
}

/// Reason for which a client is sent away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Closed {
    /// The session was ended by a limit on its idleness or age.
    Expired,
    /// The share that let it in was taken back, or expired.
    Revoked,
    /// The credentials by which its caller was recognised were taken back
    /// ([`Caller::is_revoked`](crate::Caller::is_revoked)).
    CredentialsRevoked,
    /// The engine shuts down; whether the program continues is a setting of the engine.
    Restart,
    /// The client has attached again.
    Replaced,
    /// There was no memory for the screen for 5 s: screens that are drawn and not read yet take all of
    /// it.
    Memory(MemoryError),
}
