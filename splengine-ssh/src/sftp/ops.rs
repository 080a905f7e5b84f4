//! The implementation of each request.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use splengine_core::files::{FileInfo, OpenOptions, SetAttributes};
use splengine_core::{Caller, Files};
use tokio::sync::Mutex as AsyncMutex;

use crate::sftp::handles::{Directory, Handle, Handles};
use crate::sftp::longname::long_name;
use crate::sftp::packet::{Answer, Attributes, Entry, MAX_DATA, Request, time};
use crate::sftp::status::{Code, Refusal};

/// How a client's requests are taken.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// It names a link before what it leads to.
    pub(crate) links_first: bool,
    /// Nothing may be changed.
    pub(crate) read_only: bool,
    /// Where relative paths begin; root where it is empty.
    pub(crate) directory: PathBuf,
}

impl Options {
    /// Those of a command, as sshd takes it: `internal-sftp [-R] [-d DIRECTORY]`. `None` where it is
    /// another command.
    pub(crate) fn parse(command: &str) -> Option<Self> {
        let words = splengine_core::execute::split_words(command).ok()?;
        let mut words = words.iter().filter_map(|word| word.to_str());
        (words.next() == Some("internal-sftp")).then_some(())?;
        let mut options = Self::default();
        while let Some(word) = words.next() {
            match word {
                "-R" => options.read_only = true,
                "-d" => options.directory = words.next()?.into(),
                // Logs are ours.
                "-e" => {}
                "-f" | "-l" => drop(words.next()?),
                _ => return None,
            }
        }
        Some(options)
    }
}

/// One client, as its requests need it.
#[derive(Debug)]
pub(crate) struct Client {
    files: Files,
    caller: Caller,
    options: Options,
    handles: Handles,
}

impl Request {
    /// Whether it changes nothing, so that it may be done beside others that do not either.
    pub(crate) fn is_read_only(&self) -> bool {
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

impl Request {
    /// Whether it would change a file or a directory.
    fn changes(&self) -> bool {
        match self {
            Self::Open { flags, .. } => flags & !READ_FLAG != 0,
            Self::Opendir { .. }
            | Self::Readdir { .. }
            | Self::Close { .. }
            | Self::Fsync { .. } => false,
            other => !other.is_read_only(),
        }
    }
}

impl Client {
    pub(crate) fn new(files: Files, caller: Caller, options: Options) -> Self {
        Self { files, caller, options, handles: Handles::default() }
    }

    pub(crate) async fn answer(&self, request: Request) -> Answer {
        self.perform(request).await.unwrap_or_else(Answer::Refused)
    }

    async fn perform(&self, request: Request) -> Result<Answer, Refusal> {
        let (files, caller, handles) = (&self.files, &self.caller, &self.handles);
        if self.options.read_only && request.changes() {
            return Err(Refusal::new(Code::PermissionDenied, "files can only be read here"));
        }
        match request {
            Request::Open { path, flags, attributes } => {
                handles.check_room()?;
                let file = files.open(caller, &self.at(&path)?, options(flags, attributes)).await?;
                return Ok(Answer::Handle(handles.insert(Handle::File(file))));
            }
            Request::Opendir { path } => {
                handles.check_room()?;
                let directory = match self.next_to_root(&path) {
                    Some(next) => {
                        let info = files.stat(caller, Path::new("/")).await?;
                        Directory::Above(info, Some(next))
                    }
                    None => Directory::Listing(files.list(caller, &self.at(&path)?).await?),
                };
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
            Request::Stat { path } | Request::Lstat { path } if self.is_above(&path) => {
                let root = files.stat(caller, Path::new("/")).await?;
                return Ok(Answer::Attributes(root));
            }
            Request::Stat { path } => {
                return Ok(Answer::Attributes(files.stat(caller, &self.at(&path)?).await?));
            }
            Request::Lstat { path } => {
                return Ok(Answer::Attributes(files.stat_link(caller, &self.at(&path)?).await?));
            }
            Request::Fstat { handle } => {
                return Ok(Answer::Attributes(match handles.get(&handle)? {
                    Handle::File(file) => file.info().await?,
                    Handle::Directory(directory) => match &*directory.lock().await {
                        Directory::Listing(listing) => listing.info().await?,
                        Directory::Above(info, _) => info.clone(),
                    },
                }));
            }
            Request::Setstat { path, attributes } => {
                let path = self.at(&path)?;
                let changes = changes(attributes, || files.stat(caller, &path)).await?;
                files.set(caller, &path, changes).await?;
            }
            Request::Lsetstat { path, attributes } => {
                let path = self.at(&path)?;
                let changes = changes(attributes, || files.stat_link(caller, &path)).await?;
                files.set_link(caller, &path, changes).await?;
            }
            Request::Fsetstat { handle, attributes } => {
                let file = handles.file(&handle)?;
                file.set(changes(attributes, || file.info()).await?).await?;
            }
            Request::Remove { path } => files.remove_file(caller, &self.at(&path)?).await?,
            Request::Mkdir { path, attributes } => {
                files.make_directory(caller, &self.at(&path)?, attributes.permissions).await?;
            }
            Request::Rmdir { path } => files.remove_directory(caller, &self.at(&path)?).await?,
            Request::Realpath { path } => return self.canonical(&path).await,
            Request::ExpandPath { path } => return self.canonical(&expanded(&path)?).await,
            Request::Hardlink { from, to } => {
                files.hard_link(caller, &self.at(&from)?, &self.at(&to)?).await?;
            }
            Request::CopyData { from, offset, length, to, at } => {
                let (from, to) = (handles.file(&from)?, handles.file(&to)?);
                let source = from.info().await?;
                if source.is_same_file(&to.info().await?) {
                    return Err(Refusal::new(Code::Failure, "a file can't be copied into itself"));
                }
                // What is appended meanwhile is not copied: it may be what another copy of this one
                // appends, and there would be no end to either.
                let left = source.size.saturating_sub(offset);
                let length = if length == 0 { left } else { length.min(left) };
                let mut done = 0;
                while done < length {
                    let most = usize::try_from(length - done).unwrap_or(MAX_DATA).min(MAX_DATA);
                    let data = from.read_at(offset.saturating_add(done), most).await?;
                    if data.is_empty() {
                        break;
                    }
                    let count = data.len() as u64;
                    to.write_at(at.saturating_add(done), data).await?;
                    done += count;
                }
            }
            Request::Rename { from, to } => self.rename(&from, &to, false).await?,
            Request::PosixRename { from, to } => self.rename(&from, &to, true).await?,
            Request::Readlink { path } => {
                let target = files.read_link(caller, &self.at(&path)?).await?;
                return Ok(Answer::Path(files.to_host(target)));
            }
            Request::Symlink { target, path } => {
                let (target, path) =
                    if self.options.links_first { (path, target) } else { (target, path) };
                files.symlink(caller, &target, &self.at(&path)?).await?;
            }
            Request::Statvfs { path } => {
                let place = if self.is_above(&path) { PathBuf::from("/") } else { self.at(&path)? };
                return Ok(Answer::Space(files.space(caller, &place).await?));
            }
            Request::Fstatvfs { handle } => {
                return Ok(Answer::Space(match handles.get(&handle)? {
                    Handle::File(file) => file.space().await?,
                    Handle::Directory(directory) => match &*directory.lock().await {
                        Directory::Listing(listing) => listing.space().await?,
                        Directory::Above(..) => files.space(caller, Path::new("/")).await?,
                    },
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
        let now = SystemTime::now();
        let with_long_name = |name: OsString, info: FileInfo| {
            let long_name = long_name(&name, &info, now);
            Entry { name, long_name, info }
        };
        let entries: Vec<_> = match &mut *directory.lock().await {
            Directory::Listing(listing) => {
                let read = listing.next_few(MAX_ENTRIES).await?.into_iter();
                read.map(|entry| with_long_name(entry.name, entry.info)).collect()
            }
            Directory::Above(info, next) => {
                next.take().map(|next| with_long_name(next, info.clone())).into_iter().collect()
            }
        };
        if entries.is_empty() {
            return Err(Refusal::new(Code::Eof, "the directory has ended"));
        }
        Ok(Answer::Entries(entries))
    }

    async fn canonical(&self, path: &Path) -> Result<Answer, Refusal> {
        if let Some(above) = self.files.above_root(&self.options.directory.join(path)) {
            return Ok(Answer::Path(above));
        }
        let place = self.files.canonical(&self.caller, &self.at(path)?).await?;
        Ok(Answer::Path(self.files.to_host(place)))
    }

    async fn rename(&self, from: &Path, to: &Path, replace: bool) -> Result<(), Refusal> {
        let (from, to) = (self.at(from)?, self.at(to)?);
        Ok(self.files.rename(&self.caller, &from, &to, replace).await?)
    }

    /// Clients name files as commands do: by their paths on the host, or from root.
    fn at(&self, path: &Path) -> Result<PathBuf, Refusal> {
        let from_start = self.options.directory.join(path);
        Ok(self.files.from_host(&from_start)?)
    }

    /// Whether it is a directory on the way to root, which clients look for that go down to theirs
    /// step by step.
    fn is_above(&self, path: &Path) -> bool {
        self.files.above_root(&self.options.directory.join(path)).is_some()
    }

    /// Of a directory on the way to root, the name in it that leads there: all that it shows. People who
    /// go up find their way back, and learn nothing else of the host.
    fn next_to_root(&self, path: &Path) -> Option<OsString> {
        let above = self.files.above_root(&self.options.directory.join(path))?;
        let root = self.files.to_host("/".into());
        let next = root.strip_prefix(above).ok()?.components().next()?;
        Some(next.as_os_str().to_owned())
    }
}

/// A user's own directory is root.
fn expanded(path: &Path) -> Result<PathBuf, Refusal> {
    match path.as_os_str().as_bytes() {
        [b'~'] => Ok(PathBuf::new()),
        [b'~', b'/', ..] => Ok(path.strip_prefix("~").unwrap_or(path).to_owned()),
        [b'~', ..] => {
            Err(Refusal::new(Code::Failure, "users have no directories of their own here"))
        }
        _ => Ok(path.to_owned()),
    }
}

fn options(flags: u32, attributes: Attributes) -> OpenOptions {
    let mut options = OpenOptions::new();
    // What is to be made without more is made as if it were to be written.
    let flags = if flags & (READ_FLAG | 0x02 | 0x04) == 0 { flags | 0x02 } else { flags };
    for (flag, set) in [
        (READ_FLAG, OpenOptions::read as fn(OpenOptions) -> OpenOptions),
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
async fn changes<F>(
    attributes: Attributes,
    now: impl FnOnce() -> F,
) -> Result<SetAttributes, Refusal>
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
    let changes = SetAttributes::new();
    let changes = attributes.size.into_iter().fold(changes, SetAttributes::size);
    let changes = attributes.permissions.into_iter().fold(changes, SetAttributes::mode);
    Ok(match attributes.times {
        Some((accessed, modified)) => changes.accessed(time(accessed)).modified(time(modified)),
        None => changes,
    })
}

/// `SSH_FXF_READ`
const READ_FLAG: u32 = 0x01;
/// Of one answer, which 255-byte names then fill to 64 KiB.
const MAX_ENTRIES: usize = 100;
