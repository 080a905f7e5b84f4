//! The wire types of files.

use std::ffi::OsStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use humantime::format_rfc3339_millis;
use serde::Serialize;
use splengine_core::files::{FileEntry, FileEvent, FileInfo, FileKind};
use utoipa::ToSchema;

use crate::conditions::tag_text;
use crate::file_paths::{FilePath, cursor, encoded};

/// A file or a directory.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = File)]
pub(crate) struct FileDto {
    /// Its path below root; where that is no UTF-8, with U+FFFD in the place of what is none.
    path: String,
    /// Its place, exactly.
    href: String,
    #[serde(flatten)]
    info: FileInfoDto,
}

/// What is known of a file.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = FileInfo)]
pub(crate) struct FileInfoDto {
    /// `file`, `directory`, `link` or `other`.
    kind: &'static str,
    /// Its length in bytes.
    size: u64,
    /// When it was changed last, RFC 3339.
    modified: String,
    /// Its permission bits, as four octal digits.
    mode: String,
    /// Which of all that it was and will be it is; of a file only.
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
}

/// A directory.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Directory)]
pub(crate) struct DirectoryDto {
    /// Its path below root.
    path: String,
    /// What is in it, in the order of the names' bytes.
    entries: Vec<FileEntryDto>,
    /// The cursor of the next page, if there is one.
    next_cursor: Option<String>,
}

/// Something in a directory; of a link, the link.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = FileEntry)]
pub(crate) struct FileEntryDto {
    /// Its name; where that is no UTF-8, with U+FFFD in the place of what is none.
    name: String,
    /// Its place, exactly, from the directory's.
    href: String,
    #[serde(flatten)]
    info: FileInfoDto,
}

/// A change in a directory.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = FileEvent)]
pub(crate) struct FileEventDto {
    /// `created`, `modified`, `removed`, `renamed`; `overflow`: some were lost, list the directory
    /// anew; `gone`: the directory is, and nothing follows.
    pub(crate) event: &'static str,
    /// The same as `event`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The name that changed; of what was renamed, the new one.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Its place, exactly, from the directory's; of a directory with a slash where it was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    href: Option<String>,
    /// The name that it had before.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    /// Where that was, exactly.
    #[serde(skip_serializing_if = "Option::is_none")]
    from_href: Option<String>,
}

impl FileDto {
    pub(crate) fn new(path: &FilePath, info: &FileInfo) -> Self {
        Self { path: path.text(), href: path.url(), info: info.into() }
    }
}

impl DirectoryDto {
    pub(crate) fn new(path: &FilePath, entries: Vec<FileEntry>, is_more: bool) -> Self {
        let last = entries.last().filter(|_| is_more);
        let next_cursor = last.map(|entry| cursor(&entry.name));
        let entries = entries.into_iter().map(FileEntryDto::from).collect();
        Self { path: path.text(), entries, next_cursor }
    }
}

impl From<FileEntry> for FileEntryDto {
    fn from(FileEntry { name, info, .. }: FileEntry) -> Self {
        Self {
            href: href(&name, info.kind == FileKind::Directory),
            name: name.to_string_lossy().into_owned(),
            info: (&info).into(),
        }
    }
}

impl From<&FileInfo> for FileInfoDto {
    fn from(info: &FileInfo) -> Self {
        Self {
            kind: match info.kind {
                FileKind::File => "file",
                FileKind::Directory => "directory",
                FileKind::Link => "link",
                _ => "other",
            },
            size: info.size,
            modified: format_rfc3339_millis(shown_time(info.modified)).to_string(),
            mode: format!("{:04o}", info.mode),
            etag: (info.kind == FileKind::File).then(|| tag_text(info)),
        }
    }
}

/// As far as it can be written: a program may have set any time.
fn shown_time(time: SystemTime) -> SystemTime {
    time.clamp(UNIX_EPOCH, UNIX_EPOCH + END_OF_DATES)
}

/// The last second of the year 9999.
const END_OF_DATES: Duration = Duration::from_secs(253_402_300_799);

impl From<FileEvent> for FileEventDto {
    fn from(event: FileEvent) -> Self {
        let is_directory = matches!(event, FileEvent::Created { is_directory: true, .. });
        let (event, name, from) = match event {
            FileEvent::Created { name, .. } => ("created", Some(name), None),
            FileEvent::Modified { name } => ("modified", Some(name), None),
            FileEvent::Removed { name } => ("removed", Some(name), None),
            FileEvent::Renamed { from, to } => ("renamed", Some(to), Some(from)),
            FileEvent::Gone => ("gone", None, None),
            _ => ("overflow", None, None),
        };
        Self {
            event,
            kind: event,
            href: name.as_deref().map(|name| href(name, is_directory)),
            name: name.map(|name| name.to_string_lossy().into_owned()),
            from_href: from.as_deref().map(encoded),
            from: from.map(|name| name.to_string_lossy().into_owned()),
        }
    }
}

/// A name with a colon needs no more: it is encoded, so that nobody takes it for a scheme.
fn href(name: &OsStr, is_directory: bool) -> String {
    format!("{}{}", encoded(name), if is_directory { "/" } else { "" })
}
