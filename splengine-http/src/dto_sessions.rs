//! The wire types of sessions.

use std::collections::BTreeMap;
use std::time::SystemTime;

use humantime::format_rfc3339_millis;
use serde::{Deserialize, Serialize};
use splengine_core::auth::Access;
use splengine_core::execute::ExitStatus;
use splengine_core::session::{SavedInfo, SessionInfo, ShareInfo};
use splengine_core::terminal::Size;
use splengine_core::{Request, SessionRequest};
use utoipa::ToSchema;

use crate::bounded;
use crate::problem::Problem;

/// A session to be made. All members may be left out: a shell in root, 80 by 24.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
#[schema(as = SessionRequest)]
pub(crate) struct SessionRequestDto {
    /// Another command than the shell, split into words as a POSIX shell would; one with unquoted
    /// operators of a shell is refused.
    command: Option<String>,
    /// Has the command run by the shell, where that is allowed here.
    shell: Option<bool>,
    /// Further words, taken verbatim.
    #[serde(default, deserialize_with = "bounded::list::<{ Request::MAX_ARGS }, _, _>")]
    args: Option<Vec<String>>,
    /// Where it begins, below root.
    workdir: Option<String>,
    /// Variables for its environment.
    #[serde(default, deserialize_with = "bounded::map::<{ Request::MAX_VARIABLES }, _, _>")]
    env: Option<BTreeMap<String, String>>,
    /// Columns, 1 to 1000.
    #[schema(minimum = 1, maximum = 1000)]
    cols: Option<u64>,
    /// Rows, 1 to 500.
    #[schema(minimum = 1, maximum = 500)]
    rows: Option<u64>,
    /// What to call it.
    name: Option<String>,
    /// A saved session to load, or one that is lost.
    from: Option<String>,
}

impl SessionRequestDto {
    pub(crate) fn into_request(self) -> Result<SessionRequest, Problem> {
        let mut request = SessionRequest::new();
        if let Some(command) = self.command {
            request = request.command(command).use_shell(self.shell.unwrap_or_default());
        }
        request = request.args(self.args.unwrap_or_default());
        if let Some(workdir) = self.workdir {
            request = request.workdir(workdir);
        }
        for (name, value) in self.env.unwrap_or_default() {
            request = request.env(name, value);
        }
        if self.cols.is_some() || self.rows.is_some() {
            let default = Size::default();
            let letters = |count: Option<u64>, default| {
                count.map_or(default, |count| u16::try_from(count).unwrap_or(u16::MAX))
            };
            let cols = letters(self.cols, default.cols());
            let rows = letters(self.rows, default.rows());
            let size = Size::new(cols, rows).ok_or_else(|| {
                let (field, most) = if (1..=Size::MAX.cols()).contains(&cols) {
                    ("rows", Size::MAX.rows())
                } else {
                    ("cols", Size::MAX.cols())
                };
                Problem::malformed(format!("`{field}` must be from 1 to {most}"))
            })?;
            request = request.size(size);
        }
        if let Some(name) = self.name {
            request = request.name(name);
        }
        if let Some(from) = self.from {
            request = request.restore(&from);
        }
        Ok(request)
    }
}

/// A session.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Session)]
pub(crate) struct SessionDto {
    session_id: String,
    /// Whose it is.
    user: String,
    /// What its owner calls it.
    name: Option<String>,
    /// What its program calls itself.
    title: String,
    created: String,
    /// When something was last typed or printed in it.
    last_activity: String,
    cols: u16,
    rows: u16,
    /// The present directory of its shell.
    workdir: Option<String>,
    /// How many are attached.
    clients: usize,
    /// `running`, `exited`, or `lost` with the engine that ran it.
    state: &'static str,
    /// 128+n when a signal ended it; null while it runs.
    exit_code: Option<i32>,
    /// The signal that ended it.
    signal: Option<String>,
    /// Whether it was loaded from a saved one.
    restored: bool,
    /// Whether it is being recorded.
    recording: bool,
}

impl From<SessionInfo> for SessionDto {
    fn from(info: SessionInfo) -> Self {
        Self {
            session_id: info.id.to_string(),
            user: info.user.to_string(),
            name: info.name,
            title: info.title,
            created: rfc3339(info.created),
            last_activity: rfc3339(info.last_activity),
            cols: info.size.cols(),
            rows: info.size.rows(),
            workdir: info.workdir,
            clients: info.clients,
            state: info.state.name(),
            exit_code: info.exit.map(ExitStatus::exit_code),
            signal: info.exit.and_then(ExitStatus::signal).map(|signal| signal.to_string()),
            restored: info.restored,
            recording: info.recording,
        }
    }
}

/// The caller's sessions, the newest first.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SessionList)]
pub(crate) struct SessionListDto {
    pub(crate) sessions: Vec<SessionDto>,
}

/// What to change of a session.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object with `name`")]
#[schema(as = SessionChange)]
pub(crate) struct SessionChangeDto {
    /// What to call it; null for nothing.
    pub(crate) name: Option<String>,
}

/// How to save a session.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
#[schema(as = SaveRequest)]
pub(crate) struct SaveRequestDto {
    /// What to call it; the session's own name when left out.
    pub(crate) name: Option<String>,
}

/// A saved session.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SavedSession)]
pub(crate) struct SavedDto {
    pub(crate) saved_id: String,
    /// The session that was saved.
    session_id: String,
    user: String,
    name: Option<String>,
    created: String,
    cols: u16,
    rows: u16,
    workdir: Option<String>,
}

impl From<SavedInfo> for SavedDto {
    fn from(info: SavedInfo) -> Self {
        Self {
            saved_id: info.id.to_string(),
            session_id: info.session_id.to_string(),
            user: info.user.to_string(),
            name: info.name,
            created: rfc3339(info.created),
            cols: info.size.cols(),
            rows: info.size.rows(),
            workdir: info.workdir,
        }
    }
}

/// The caller's saved sessions, the newest first.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SavedSessionList)]
pub(crate) struct SavedListDto {
    pub(crate) saved_sessions: Vec<SavedDto>,
}

/// What to let others do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Access)]
pub(crate) enum AccessDto {
    #[default]
    View,
    Control,
}

impl From<AccessDto> for Access {
    fn from(dto: AccessDto) -> Self {
        match dto {
            AccessDto::View => Self::View,
            AccessDto::Control => Self::Control,
        }
    }
}

impl From<Access> for AccessDto {
    fn from(access: Access) -> Self {
        if access == Access::Control { Self::Control } else { Self::View }
    }
}

/// A right to give away.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object with `access`")]
#[schema(as = ShareRequest)]
pub(crate) struct ShareRequestDto {
    /// `view` when left out.
    pub(crate) access: Option<AccessDto>,
    /// For how long, in milliseconds; an hour when left out, 30 days at most.
    #[schema(minimum = 1)]
    pub(crate) expires_in: Option<u64>,
}

/// A right given away, with the ticket that works once.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = NewShare)]
pub(crate) struct NewShareDto {
    pub(crate) share_id: String,
    pub(crate) access: AccessDto,
    pub(crate) expires: String,
    /// For the first frame of a WebSocket.
    pub(crate) ticket: String,
    /// For a person's browser. The ticket stands behind `#`, which browsers keep to themselves.
    pub(crate) url: String,
}

/// A right given away.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Share)]
pub(crate) struct ShareDto {
    share_id: String,
    access: AccessDto,
    expires: String,
    /// Whether its ticket was shown.
    used: bool,
}

impl From<ShareInfo> for ShareDto {
    fn from(info: ShareInfo) -> Self {
        Self {
            share_id: info.id.to_string(),
            access: info.access.into(),
            expires: rfc3339(info.expires),
            used: info.used,
        }
    }
}

/// A session's shares.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ShareList)]
pub(crate) struct ShareListDto {
    pub(crate) shares: Vec<ShareDto>,
}

/// Which shares to take back.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
#[schema(as = TakeBack)]
pub(crate) struct TakeBackDto {
    /// The share with this ticket; all when left out.
    pub(crate) ticket: Option<String>,
}

/// A ticket that stands for the caller, once, for 30 seconds.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Ticket)]
pub(crate) struct TicketDto {
    pub(crate) ticket: String,
}

pub(crate) fn rfc3339(time: SystemTime) -> String {
    format_rfc3339_millis(time).to_string()
}
