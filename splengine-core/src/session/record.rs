//! The stored record of a session, and the information that callers get from it.

use std::ffi::OsString;
use std::io;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::ids::SavedId;
use crate::os::{ExitStatus, Signal};
use crate::session::recording::RecordingMark;
use crate::session::{SavedInfo, SessionInfo, SessionState};
use crate::terminal::Size;
use crate::text::hex;
use crate::time::time;

/// What is known of a session, as it is written down.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) session_id: String,
    pub(crate) user: String,
    pub(crate) name: Option<String>,
    pub(crate) title: String,
    /// Milliseconds since 1970, as all times here.
    pub(crate) created: u64,
    pub(crate) last_activity: u64,
    pub(crate) saved: u64,
    pub(crate) cols: u16,
    pub(crate) rows: u16,
    #[serde(with = "crate::session::os_strings")]
    pub(crate) argv: Vec<OsString>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) workdir: Option<String>,
    /// The exit code and signal, once it has ended.
    pub(crate) exit: Option<(i32, Option<i32>)>,
    pub(crate) restored: bool,
    /// State from which the engine that adopts its program continues.
    pub(crate) resume: ResumePoint,
}

/// State of a session, for the engine that continues it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ResumePoint {
    pub(crate) epoch: String,
    /// The offset that the screen stands for.
    pub(crate) offset: u64,
    /// So much of what lies before it did not come from the program.
    #[serde(rename = "lead")]
    pub(crate) synthetic_bytes: u64,
    /// What the executor finds the program by.
    pub(crate) mark: Option<String>,
    pub(crate) recording: Option<RecordingMark>,
    pub(crate) inputs: Vec<KnownInput>,
    /// How long there has been an engine for it, and for how long nobody did anything, in
    /// milliseconds. An earlier version did not write them.
    #[serde(default)]
    pub(crate) age: Option<u64>,
    #[serde(default)]
    pub(crate) idle: Option<u64>,
}

/// How far a client's input has come.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct KnownInput {
    pub(crate) client: String,
    pub(crate) user: String,
    pub(crate) next: u64,
    /// Its last bytes, in Base64.
    pub(crate) tail: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) format: String,
    pub(super) version: u64,
    pub(super) length: u64,
    pub(super) sha256: String,
}

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

    /// Without what is only read again from the disk, by whoever goes on with the session or loads it.
    pub(crate) fn described(self) -> Self {
        Self { argv: Vec::new(), env: Vec::new(), resume: ResumePoint::default(), ..self }
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

    /// What lies before `screen` in a file: the header and the record.
    pub(crate) fn head(&self, screen: &[u8]) -> io::Result<Vec<u8>> {
        let mut text = serde_json::to_vec(self)?;
        text.push(b'\n');
        let header = Header {
            format: FORMAT.to_owned(),
            version: VERSION,
            length: (text.len() + screen.len()) as u64,
            sha256: hex(&Sha256::new().chain_update(&text).chain_update(screen).finalize()),
        };
        let mut head = serde_json::to_vec(&header)?;
        head.push(b'\n');
        head.extend_from_slice(&text);
        Ok(head)
    }
}

pub(super) const FORMAT: &str = "splengine-session";
pub(super) const VERSION: u64 = 1;
