//! What each request does.

use std::collections::VecDeque;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use splengine_core::{Caller, FileChanges, FileEntry, FileInfo, Files, OpenOptions};
use tokio::sync::Mutex as AsyncMutex;

use crate::sftp::handles::{Directory, Handle, Handles};
use crate::sftp::longname::long_name;
use crate::sftp::packet::{Answer, Attributes, Entry, MAX_DATA, Request, from_root, time};
use crate::sftp::status::{Code, Refusal};

/// One client, as its requests need it.
#[derive(Debug)]
pub(crate) struct Client {
    files: Files,
    caller: Caller,
    /// It names a link before what it leads to.
    links_first: bool,
    handles: Handles,
}

impl Request {
    /// Whether it changes nothing, so that it may be done beside others that do not either.
    pub(crate) fn only_looks(&self) -> bool {
        matches!(
            self,
            Self::Read { .. }
                | Self::Stat { .. }
                | Self::Lstat { .. }
                | Self::Fstat { .. }
                | Self::Realpath { .. }
                | Self::Readlink { .. }
                | Self::Statvfs { .. }
                | Self::Fstatvfs { .. }
                | Self::ExpandPath { .. }
                | Self::Limits
                | Self::Unknown
        )
    }
}

impl Client {
    pub(crate) fn new(files: Files, caller: Caller, links_first: bool) -> Self {
        Self { files, caller, links_first, handles: Handles::default() }
    }

    pub(crate) async fn answer(&self, request: Request) -> Answer {
        self.perform(request).await.unwrap_or_else(Answer::Refused)
    }

    async fn perform(&self, request: Request) -> Result<Answer, Refusal> {
        let (files, caller, handles) = (&self.files, &self.caller, &self.handles);
        match request {
            Request::Open { path, flags, attributes } => {
                handles.check_room()?;
                let file = files.open(caller, &path, options(flags, attributes)).await?;
                return Ok(Answer::Handle(handles.insert(Handle::File(file))));
            }
            Request::Opendir { path } => {
                handles.check_room()?;
                let listing = files.list(caller, &path).await?;
                let directory = Directory { listing, read: VecDeque::new() };
                let handle = Handle::Directory(Arc::new(AsyncMutex::new(directory)));
                return Ok(Answer::Handle(handles.insert(handle)));
            }
            Request::Close { handle } => match handles.remove(&handle)? {
                Handle::File(file) => file.close().await,
                directory @ Handle::Directory(_) => drop(directory),
            },
            Request::Read { handle, offset, length } => {
                let most = usize::try_from(length).unwrap_or(MAX_DATA).min(MAX_DATA);
                let data = handles.file(&handle)?.read_at(offset, most).await?;
                if data.is_empty() && most > 0 {
                    return Err(Refusal::new(Code::Eof, "the file has ended"));
                }
                return Ok(Answer::Data(data));
            }
            Request::Write { handle, offset, data } => {
                handles.file(&handle)?.write_at(offset, data).await?;
            }
            Request::Readdir { handle } => {
                return self.read_directory(&handle).await;
            }
            Request::Stat { path } => {
                return Ok(Answer::Attributes(files.stat(caller, &path).await?));
            }
            Request::Lstat { path } => {
                return Ok(Answer::Attributes(files.stat_link(caller, &path).await?));
            }
            Request::Fstat { handle } => {
                return Ok(Answer::Attributes(match handles.get(&handle)? {
                    Handle::File(file) => file.info().await?,
                    Handle::Directory(directory) => directory.lock().await.listing.info().await?,
                }));
            }
            Request::Setstat { path, attributes } => {
                let changes = changes(attributes, || files.stat(caller, &path)).await?;
                files.set(caller, &path, changes).await?;
            }
            Request::Lsetstat { path, attributes } => {
                let changes = changes(attributes, || files.stat_link(caller, &path)).await?;
                files.set_link(caller, &path, changes).await?;
            }
            Request::Fsetstat { handle, attributes } => {
                let file = handles.file(&handle)?;
                file.set(changes(attributes, || file.info()).await?).await?;
            }
            Request::Remove { path } => files.remove_file(caller, &path).await?,
            Request::Mkdir { path, attributes } => {
                files.make_directory(caller, &path, attributes.permissions).await?;
            }
            Request::Rmdir { path } => files.remove_directory(caller, &path).await?,
            Request::Realpath { path } => return self.canonical(&path).await,
            Request::ExpandPath { path } => return self.canonical(&expanded(&path)?).await,
            Request::Rename { from, to } => files.rename(caller, &from, &to, false).await?,
            Request::PosixRename { from, to } => files.rename(caller, &from, &to, true).await?,
            Request::Readlink { path } => {
                return Ok(Answer::Path(files.read_link(caller, &path).await?));
            }
            Request::Symlink { target, path } => {
                let (target, path) = if self.links_first { (path, target) } else { (target, path) };
                files.symlink(caller, &target, &path).await?;
            }
            Request::Statvfs { path } => {
                return Ok(Answer::Space(files.space(caller, &path).await?));
            }
            Request::Fstatvfs { handle } => {
                return Ok(Answer::Space(match handles.get(&handle)? {
                    Handle::File(file) => file.space().await?,
                    Handle::Directory(directory) => directory.lock().await.listing.space().await?,
                }));
            }
            Request::Fsync { handle } => handles.file(&handle)?.sync().await?,
            Request::Limits => return Ok(Answer::Limits),
            Request::Unknown => {
                return Err(Refusal::new(Code::OpUnsupported, "there is no such operation here"));
            }
        }
        Ok(Answer::Done)
    }

    async fn read_directory(&self, handle: &[u8]) -> Result<Answer, Refusal> {
        let directory = self.handles.directory(handle)?;
        let mut directory = directory.lock().await;
        if directory.read.is_empty() {
            directory.read = directory.listing.next().await?.into();
        }
        if directory.read.is_empty() {
            return Err(Refusal::new(Code::Eof, "the directory has ended"));
        }
        let count = directory.read.len().min(MAX_ENTRIES);
        let now = SystemTime::now();
        let with_long_name = |FileEntry { name, info, .. }| {
            let long_name = long_name(&name, &info, now);
            Entry { name, long_name, info }
        };
        Ok(Answer::Entries(directory.read.drain(..count).map(with_long_name).collect()))
    }

    async fn canonical(&self, path: &Path) -> Result<Answer, Refusal> {
        Ok(Answer::Path(self.files.canonical(&self.caller, &from_root(path)).await?))
    }
}

/// A user's own directory is root.
fn expanded(path: &Path) -> Result<PathBuf, Refusal> {
    match path.as_os_str().as_bytes() {
        [b'~'] => Ok("/".into()),
        [b'~', b'/', ..] => Ok(Path::new("/").join(path.strip_prefix("~").unwrap_or(path))),
        [b'~', ..] => {
            Err(Refusal::new(Code::Failure, "users have no directories of their own here"))
        }
        _ => Ok(path.to_owned()),
    }
}

fn options(flags: u32, attributes: Attributes) -> OpenOptions {
    let mut options = OpenOptions::new();
    for (flag, set) in [
        (0x01, OpenOptions::read as fn(OpenOptions) -> OpenOptions),
        (0x02, OpenOptions::write),
        (0x04, OpenOptions::append),
        (0x08, OpenOptions::create),
        (0x10, OpenOptions::truncate),
        (0x08 | 0x20, OpenOptions::create_new),
    ] {
        if flags & flag == flag {
            options = set(options);
        }
    }
    attributes.permissions.into_iter().fold(options, OpenOptions::mode)
}

/// Owners can't be changed; clients that name those that a file has anyway are not held up.
async fn changes<F>(attributes: Attributes, now: impl FnOnce() -> F) -> Result<FileChanges, Refusal>
where
    F: Future<Output = Result<FileInfo, splengine_core::FileError>>,
{
    if let Some(owner) = attributes.owner {
        let now = now().await?;
        if owner != (now.uid, now.gid) {
            let message = "the owner and the group of a file can't be changed here";
            return Err(Refusal::new(Code::PermissionDenied, message));
        }
    }
    let changes = FileChanges::new();
    let changes = attributes.size.into_iter().fold(changes, FileChanges::size);
    let changes = attributes.permissions.into_iter().fold(changes, FileChanges::mode);
    Ok(match attributes.times {
        Some((accessed, modified)) => changes.accessed(time(accessed)).modified(time(modified)),
        None => changes,
    })
}

/// Of one answer, which 255-byte names then fill to 64 KiB.
const MAX_ENTRIES: usize = 100;
