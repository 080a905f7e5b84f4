//! The directory of what steps print: a file for each stream of each run.

use std::io;
use std::path::Path;
use std::sync::Arc;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, DirBuilder, DirBuilderExt as _, OpenOptions, OpenOptionsExt as _};

use crate::execute::Stream;
use crate::ids::BatchId;
use crate::quota::{BelowFloor, DiskReserve};

/// The directory of all of them.
#[derive(Debug, Clone)]
pub(crate) struct Outputs(Arc<Dir>);

impl Outputs {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        Ok(Self(Arc::new(Dir::open_ambient_dir(path, ambient_authority())?)))
    }

    /// Blocks, as all of these.
    pub(crate) fn create(&self, id: &BatchId, name: &str) -> io::Result<std::fs::File> {
        match self.0.create_dir_with(id.as_str(), DirBuilder::new().mode(0o700)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        Ok(self.0.open_dir(id.as_str())?.open_with(name, &options)?.into_std())
    }

    pub(crate) fn read(&self, id: &BatchId, name: &str) -> io::Result<std::fs::File> {
        Ok(self.0.open_dir(id.as_str())?.open(name)?.into_std())
    }

    /// What a run of a step printed on a stream.
    pub(crate) fn read_stream(
        &self,
        id: &BatchId,
        step: u32,
        attempt: u32,
        stream: Stream,
    ) -> io::Result<std::fs::File> {
        self.read(id, &name_of(step, attempt, stream.into()))
    }

    /// For writing over what is there.
    pub(crate) fn reopen(&self, id: &BatchId, name: &str) -> io::Result<std::fs::File> {
        let mut options = OpenOptions::new();
        options.write(true);
        Ok(self.0.open_dir(id.as_str())?.open_with(name, &options)?.into_std())
    }

    pub(crate) fn unlink(&self, id: &BatchId, name: &str) -> io::Result<()> {
        self.0.open_dir(id.as_str())?.remove_file(name)
    }

    /// Has the names of a batch's files, and its own, on disk.
    pub(crate) fn sync(&self, id: &BatchId) -> io::Result<()> {
        self.0.open(id.as_str())?.sync_all()?;
        self.0.open(".")?.sync_all()
    }

    /// Whether so many bytes more may be written, by the floor of free space.
    pub(crate) fn check_space(&self, reserve: &DiskReserve, bytes: u64) -> Result<(), BelowFloor> {
        reserve.check(&*self.0, bytes)
    }

    pub(crate) fn remove(&self, id: &str) {
        if let Err(error) = crate::flat_dir::remove(&self.0, id)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, batch = id, "the output of a batch can't be removed");
        }
    }

    /// The directories that there are.
    pub(crate) fn all(&self) -> Vec<String> {
        let Ok(entries) = self.0.entries() else { return Vec::new() };
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }
}

/// What there is of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Stream(Stream),
    /// The order in which its streams were printed, and the times: [`LogEntry`](super::log_entry::LogEntry)s.
    Index,
}

impl From<Stream> for Part {
    fn from(stream: Stream) -> Self {
        Self::Stream(stream)
    }
}

/// The name of its file.
pub(crate) fn name_of(step: u32, attempt: u32, part: Part) -> String {
    let part = match part {
        Part::Stream(Stream::Stdout) => "stdout",
        Part::Stream(Stream::Stderr) => "stderr",
        Part::Index => "index",
    };
    format!("{}-{attempt}.{part}", step + 1)
}
