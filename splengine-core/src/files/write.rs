//! Files that are written whole.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::auth::Caller;
use crate::blocking::blocking;
use crate::files::atomic_write::{Condition, Replacement};
use crate::files::error::shown;
use crate::files::{FileError, FileInfo, Files, OpenFile, OpenOptions, Replaced, ServedFiles};

impl Files {
    /// Writes a whole file, or one in place of another, with that one's permission bits. Others see
    /// the old or the new one, never a part, even after a crash; until it is in place, it has no
    /// name; or, where the file system has no such files, one that no caller reaches.
    ///
    /// # Errors
    ///
    /// As [all methods](Files#errors); [`FileError::IsDirectory`], [`FileError::TooLarge`];
    /// [`FileError::Content`] when `content` can't be read to its end; [`FileError::CallerLimit`] and
    /// [`FileError::Full`] when too many files are open to be written. Then nothing has changed.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, there is the old or the new one.
    pub async fn replace(
        &self,
        caller: &Caller,
        path: &Path,
        content: impl AsyncRead + Send,
    ) -> Result<FileInfo, FileError> {
        Ok(self.replace_if(caller, path, |_| true, content).await?.info)
    }

    /// Replaces a file as [`replace`](Self::replace) does, if `condition` is true of what has the
    /// name, if anything has: before anything is read from `content`, and again when the file takes
    /// its place. Between that look and the change no other one comes that is made here; one by a
    /// program may, unless nothing had the name.
    ///
    /// ```
    /// use std::path::Path;
    /// use splengine_core::files::{FileError, FilePolicy};
    /// use splengine_core::{Caller, Engine, LocalExecutor};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let root = tempfile::tempdir()?;
    /// # let root = root.path();
    /// # let policy = FilePolicy::new();
    /// # let engine = Engine::builder(LocalExecutor::new(root)?).files(policy).build()?;
    /// # let (files, alice) = (engine.files(), Caller::new("alice")?.with_all_scopes());
    /// let path = Path::new("/settings");
    /// let seen = files.replace(&alice, path, &b"a = 1"[..]).await?.revision();
    /// // Only if nobody has changed it since it was read.
    /// let unchanged = move |info: Option<&splengine_core::files::FileInfo>| {
    ///     info.is_some_and(|info| info.revision() == seen)
    /// };
    /// files.replace_if(&alice, path, unchanged, &b"a = 2, b = 3"[..]).await?;
    /// let refused = files.replace_if(&alice, path, unchanged, &b"a = 4"[..]).await;
    /// assert!(matches!(refused, Err(FileError::Changed { .. })));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`replace`](Self::replace); [`FileError::Changed`] when the condition is not true.
    ///
    /// # Cancel safety
    ///
    /// As of [`replace`](Self::replace).
    pub async fn replace_if(
        &self,
        caller: &Caller,
        path: &Path,
        condition: impl Fn(Option<&FileInfo>) -> bool + Send + 'static,
        content: impl AsyncRead + Send,
    ) -> Result<Replaced, FileError> {
        let mut replacement = self.begin(caller, path, None, Box::new(condition)).await?;
        let mut content = pin!(content);
        let mut buffer = Vec::new();
        loop {
            buffer.clear();
            buffer.reserve(OpenFile::MAX_READ);
            while buffer.len() < OpenFile::MAX_READ {
                let rest = (OpenFile::MAX_READ - buffer.len()) as u64;
                let read = (&mut content).take(rest).read_buf(&mut buffer).await;
                if read.map_err(FileError::Content)? == 0 {
                    break;
                }
            }
            if buffer.is_empty() {
                return blocking(move || replacement.finish()).await;
            }
            let written = blocking(move || {
                replacement.write(&buffer)?;
                Ok::<_, FileError>((replacement, buffer))
            });
            (replacement, buffer) = written.await?;
        }
    }

    /// Copies the content of the file `from` to the file `to`, with the same permission bits if that is
    /// new; in one step, as [`replace`](Self::replace) does.
    ///
    /// # Errors
    ///
    /// As [all methods](Files#errors); [`FileError::Exists`] when something has the name `to` and
    /// `replace` is false; [`FileError::IsDirectory`], [`FileError::TooLarge`];
    /// [`FileError::CallerLimit`] and [`FileError::Full`] when too many files are open.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, there is the old or the new one.
    pub async fn copy(
        &self,
        caller: &Caller,
        from: &Path,
        to: &Path,
        replace: bool,
    ) -> Result<Replaced, FileError> {
        self.copy_if(caller, from, to, replace, |_| true).await
    }

    /// Copies a file as [`copy`](Self::copy) does, if `condition` is true of the file that is
    /// copied.
    ///
    /// # Errors
    ///
    /// As [`copy`](Self::copy); [`FileError::Changed`] when the condition is not true.
    ///
    /// # Cancel safety
    ///
    /// As of [`copy`](Self::copy).
    pub async fn copy_if(
        &self,
        caller: &Caller,
        from: &Path,
        to: &Path,
        replace: bool,
        condition: impl FnOnce(&FileInfo) -> bool,
    ) -> Result<Replaced, FileError> {
        let source = self.open(caller, from, OpenOptions::new().read()).await?;
        let info = source.info().await?;
        if !condition(&info) {
            return Err(FileError::Changed { path: shown(from) });
        }
        let is_free = move |present: Option<&FileInfo>| replace || present.is_none();
        let exists = |error| match error {
            FileError::Changed { path } => FileError::Exists { path },
            error => error,
        };
        let begun = self.begin(caller, to, Some(info.mode), Box::new(is_free)).await;
        let mut replacement = begun.map_err(exists)?;
        let mut at = 0;
        loop {
            let data = source.read_at(at, OpenFile::MAX_READ).await?;
            if data.is_empty() {
                return blocking(move || replacement.finish()).await.map_err(exists);
            }
            at += data.len() as u64;
            let written = blocking(move || {
                replacement.write(&data)?;
                Ok::<_, FileError>(replacement)
            });
            replacement = written.await?;
        }
    }

    async fn begin(
        &self,
        caller: &Caller,
        path: &Path,
        mode: Option<u32>,
        condition: Condition,
    ) -> Result<Replacement, FileError> {
        let permit = self.shared(caller)?.writers.permit(caller.user())?;
        let begin = move |shared: &Arc<ServedFiles>, path: &Path| {
            Replacement::begin(shared, path, mode, condition, permit)
        };
        self.with(caller, path, begin).await
    }
}
