//! Files, in pieces and whole. Names that are no text can't be told here.

use std::path::Path;

use bytes::Bytes;
use splengine_core::files::{FileInfo, OpenOptions};

use crate::context::{CallContext, MIN_ANSWER_BYTES};
use crate::error::Failure;
use crate::messages::{long, positive, timestamp};
use crate::records::{FileChunk, FileKind, FileStatus};

pub(crate) async fn stat(ask: &CallContext<'_>, path: String) -> Result<FileStatus, Failure> {
    Ok(ask.engine.files().stat(&ask.caller, Path::new(&path)).await?.into())
}

pub(crate) async fn read(
    ask: &CallContext<'_>,
    path: String,
    offset: i64,
    length: i32,
) -> Result<FileChunk, Failure> {
    let offset = positive("offset", offset)?;
    let length = positive("length", i64::from(length))?;
    let length = usize::try_from(length).unwrap_or(usize::MAX).min(MAX_CHUNK_BYTES);
    let options = OpenOptions::new().read();
    let file = ask.engine.files().open(&ask.caller, Path::new(&path), options).await?;
    let mut length = length;
    if length > MIN_ANSWER_BYTES {
        // Files of the system that have content may have no size.
        let size = Some(file.info().await?.size).filter(|size| *size > 0);
        let left = size.map_or(u64::MAX, |size| size.saturating_sub(offset));
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        length = length.min(left.max(MIN_ANSWER_BYTES));
    }
    if length > MIN_ANSWER_BYTES {
        ask.reserve_read(length).await?;
    }
    let mut data = Vec::new();
    while data.len() < length {
        let at = offset.saturating_add(data.len() as u64);
        let read = file.read_at(at, length - data.len()).await?;
        if read.is_empty() {
            break;
        }
        data.extend_from_slice(&read);
    }
    let size = file.info().await?.size;
    let at_end = offset.saturating_add(data.len() as u64) >= size;
    Ok(FileChunk { data: data.into(), offset: long(offset), size: long(size), at_end })
}

pub(crate) async fn write(
    ask: &CallContext<'_>,
    path: String,
    data: Bytes,
    offset: Option<i64>,
) -> Result<FileStatus, Failure> {
    let (files, path) = (ask.engine.files(), Path::new(&path));
    let Some(offset) = offset else {
        return Ok(files.replace(&ask.caller, path, &data[..]).await?.into());
    };
    let offset = positive("offset", offset)?;
    let file = files.open(&ask.caller, path, OpenOptions::new().write().create()).await?;
    file.write_at(offset, data).await?;
    let info = file.info().await?;
    file.close().await;
    Ok(info.into())
}

impl From<FileInfo> for FileStatus {
    fn from(info: FileInfo) -> Self {
        Self {
            kind: match info.kind {
                splengine_core::files::FileKind::File => FileKind::File,
                splengine_core::files::FileKind::Directory => FileKind::Directory,
                splengine_core::files::FileKind::Link => FileKind::Link,
                _ => FileKind::Other,
            },
            size: long(info.size),
            modified: timestamp(info.modified),
            mode: i32::try_from(info.mode).unwrap_or(i32::MAX),
        }
    }
}

/// What one answer holds at most.
const MAX_CHUNK_BYTES: usize = 1 << 20;
