//! Terminal sessions, for those who ask now and then.

use std::time::Duration;

use bytes::Bytes;
use splengine_core::quota::LargeWorkPermit;
use splengine_core::terminal::Size;

use crate::context::CallContext;
use crate::datum::named;
use crate::error::Failure;
use crate::messages::{int, long, positive, timestamp};
use crate::records::{SavedSession, SessionInfo, SessionOutput, SessionRequest, SessionState};

/// What a call of `openSession` asks for.
pub(crate) fn asked(asked: SessionRequest) -> Result<splengine_core::SessionRequest, Failure> {
    let mut request = splengine_core::SessionRequest::new();
    if let Some(command) = asked.command {
        request = request.command(command);
    } else if !asked.args.is_empty() {
        return Err(Failure::invalid("`args` need a `command`"));
    }
    request = request.args(asked.args);
    if let Some(workdir) = asked.workdir {
        request = request.workdir(workdir);
    }
    request =
        asked.env.into_iter().fold(request, |request, (name, value)| request.env(name, value));
    if let Some(size) = optional_size(asked.cols, asked.rows)? {
        request = request.size(size);
    }
    if let Some(name) = asked.name {
        request = request.name(name);
    }
    Ok(request)
}

pub(crate) async fn open(
    ask: &CallContext<'_>,
    request: splengine_core::SessionRequest,
    permit: LargeWorkPermit,
) -> Result<SessionInfo, Failure> {
    let request = request.large_work_permit(permit);
    Ok(ask.engine.sessions().create(&ask.caller, request).await?.into())
}

pub(crate) async fn load(
    ask: &CallContext<'_>,
    saved: String,
    cols: Option<i32>,
    rows: Option<i32>,
) -> Result<SessionInfo, Failure> {
    let mut request = splengine_core::SessionRequest::new().restore(&saved);
    if let Some(size) = optional_size(cols, rows)? {
        request = request.size(size);
    }
    Ok(ask.engine.sessions().create(&ask.caller, request).await?.into())
}

pub(crate) async fn get(ask: &CallContext<'_>, session: String) -> Result<SessionInfo, Failure> {
    Ok(ask.engine.sessions().get(&ask.caller, &session)?.into())
}

pub(crate) async fn list(ask: &CallContext<'_>) -> Result<Vec<SessionInfo>, Failure> {
    ask.list_turn().await?;
    Ok(ask.engine.sessions().list(&ask.caller).into_iter().map(Into::into).collect())
}

pub(crate) async fn write(
    ask: &CallContext<'_>,
    session: String,
    data: Bytes,
) -> Result<(), Failure> {
    Ok(ask.engine.sessions().input(&ask.caller, &session, data).await?)
}

pub(crate) async fn read(
    ask: &CallContext<'_>,
    session: String,
    epoch: Option<String>,
    offset: i64,
    most: i32,
    wait: i64,
) -> Result<SessionOutput, Failure> {
    let offset = positive("offset", offset)?;
    let most = positive("maxBytes", i64::from(most))?;
    let wait = Duration::from_millis(positive("waitMs", wait)?);
    let from = epoch.as_deref().map(|epoch| (epoch, offset));
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let read = ask.engine.sessions().read(&ask.caller, &session, from, most, wait).await?;
    Ok(SessionOutput {
        epoch: read.epoch,
        offset: long(read.offset),
        next: long(read.next),
        data: read.data,
        screen: read.is_screen,
        session: read.info.into(),
        over: read.is_over,
    })
}

pub(crate) async fn resize(
    ask: &CallContext<'_>,
    session: String,
    cols: i32,
    rows: i32,
) -> Result<SessionInfo, Failure> {
    let size = size(cols, rows)?;
    Ok(ask.engine.sessions().resize(&ask.caller, &session, size)?.into())
}

pub(crate) async fn save(
    ask: &CallContext<'_>,
    session: String,
    name: Option<String>,
) -> Result<SavedSession, Failure> {
    Ok(ask.engine.sessions().save(&ask.caller, &session, name).await?.into())
}

pub(crate) async fn list_saved(ask: &CallContext<'_>) -> Result<Vec<SavedSession>, Failure> {
    ask.list_turn().await?;
    let saved = ask.engine.sessions().list_saved(&ask.caller).await?;
    Ok(saved.into_iter().map(Into::into).collect())
}

pub(crate) async fn remove_saved(ask: &CallContext<'_>, saved: String) -> Result<(), Failure> {
    Ok(ask.engine.sessions().remove_saved(&ask.caller, &saved).await?)
}

pub(crate) async fn end(ask: &CallContext<'_>, session: String) -> Result<(), Failure> {
    Ok(ask.engine.sessions().end(&ask.caller, &session).await?)
}

fn optional_size(cols: Option<i32>, rows: Option<i32>) -> Result<Option<Size>, Failure> {
    match (cols, rows) {
        (None, None) => Ok(None),
        (cols, rows) => size(cols.unwrap_or(80), rows.unwrap_or(24)).map(Some),
    }
}

fn size(cols: i32, rows: i32) -> Result<Size, Failure> {
    let side = |field: &str, number: i32| {
        u16::try_from(number)
            .ok()
            .filter(|number| *number > 0)
            .ok_or_else(|| Failure::invalid(format!("`{field}` must be from 1 to {}", u16::MAX)))
    };
    Ok(Size::clamped(side("cols", cols)?, side("rows", rows)?))
}

impl From<splengine_core::session::SessionInfo> for SessionInfo {
    fn from(info: splengine_core::session::SessionInfo) -> Self {
        let signal = info.exit.and_then(splengine_core::execute::ExitStatus::signal);
        Self {
            session_id: info.id.to_string(),
            user: info.user.to_string(),
            name: info.name,
            title: info.title,
            created: timestamp(info.created),
            last_activity: timestamp(info.last_activity),
            cols: i32::from(info.size.cols()),
            rows: i32::from(info.size.rows()),
            workdir: info.workdir,
            clients: int(info.clients as u64),
            state: named(info.state.name()).unwrap_or(SessionState::Unknown),
            exit_code: info.exit.map(splengine_core::execute::ExitStatus::exit_code),
            signal: signal.map(|signal| signal.to_string()),
        }
    }
}

impl From<splengine_core::session::SavedInfo> for SavedSession {
    fn from(info: splengine_core::session::SavedInfo) -> Self {
        Self {
            saved_id: info.id.to_string(),
            session_id: info.session_id.to_string(),
            name: info.name,
            created: timestamp(info.created),
            cols: i32::from(info.size.cols()),
            rows: i32::from(info.size.rows()),
            workdir: info.workdir,
        }
    }
}
