//! What steps print: a file for each stream of each run.

use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cap_std::ambient_authority;
use cap_std::fs::{Dir, DirBuilder, DirBuilderExt as _, OpenOptions, OpenOptionsExt as _};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::batch::BatchError;
use crate::batch::gap::GapSearch;
use crate::batch::journal::Journal;
use crate::batch::log::LogEntry;
use crate::batch::records::{StepRow, now};
use crate::batch::registry;
use crate::blocking::blocking;
use crate::execute::{Gap, Stream};
use crate::ids::BatchId;
use crate::quota::{BelowFloor, CallerLargeWork, DiskReserve};

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
    /// The order in which its streams were printed, and the times: [`LogEntry`]s.
    Index,
}

impl From<Stream> for Part {
    fn from(stream: Stream) -> Self {
        Self::Stream(stream)
    }
}

fn name_of(step: u32, attempt: u32, part: Part) -> String {
    let part = match part {
        Part::Stream(Stream::Stdout) => "stdout",
        Part::Stream(Stream::Stderr) => "stderr",
        Part::Index => "index",
    };
    format!("{}-{attempt}.{part}", step + 1)
}

/// The files of one run, made when something is printed.
pub(crate) struct OutputWriter {
    outputs: Outputs,
    id: BatchId,
    step: u32,
    attempt: u32,
    files: [Option<Arc<std::fs::File>>; 2],
    index: Option<Arc<std::fs::File>>,
    /// How much was written to each stream's.
    pub(crate) written: [u64; 2],
    indexed: u64,
    /// Where in each a part is missing.
    pub(crate) gaps: [Option<u64>; 2],
    /// Why the rest is not kept.
    pub(crate) problem: Option<&'static str>,
    reserve: DiskReserve,
    quota: OutputQuota,
}

/// The part of the room for output that a run takes.
#[derive(Clone)]
pub(crate) struct OutputQuota {
    pub(crate) registry: Arc<registry::Registry>,
    pub(crate) live: Arc<registry::LiveBatch>,
    pub(crate) reserve: DiskReserve,
}

impl OutputQuota {
    fn take(&self, bytes: u64) -> Result<(), &'static str> {
        self.registry.take_output(&self.live, bytes)
    }
}

impl OutputWriter {
    pub(crate) fn new(
        outputs: Outputs,
        id: BatchId,
        step: u32,
        attempt: u32,
        quota: OutputQuota,
    ) -> Self {
        let reserve = quota.reserve.clone();
        Self {
            outputs,
            id,
            step,
            attempt,
            files: [None, None],
            index: None,
            written: [0; 2],
            indexed: 0,
            gaps: [None; 2],
            problem: None,
            reserve,
            quota,
        }
    }

    /// How many bytes it has written.
    pub(crate) fn bytes(&self) -> u64 {
        self.written.iter().sum::<u64>() + self.indexed
    }

    /// Writes what the step printed. What can't be written is missing, as is all that comes after
    /// it; [`problem`](Self::problem) says why, and the step goes on.
    pub(crate) async fn write(&mut self, stream: Stream, data: Bytes) {
        if self.problem.is_some() {
            self.skip(stream);
            return;
        }
        let length = data.len() as u64;
        let entry = LogEntry { time: now(), stream, is_gap: false, length };
        if let Err(problem) = self.quota.take(length + LogEntry::SIZE as u64) {
            tracing::warn!(batch = %self.id, problem, "what a step prints is not kept");
            self.problem = Some(problem);
            self.skip(stream);
            return;
        }
        let mut written = self.try_write(entry, data.clone()).await;
        for _ in 0..SHORTAGE_TRIES {
            if !written.as_ref().is_err_and(is_shortage) {
                break;
            }
            // The step waits for us meanwhile.
            sleep(SHORTAGE_PAUSE).await;
            written = self.try_write(entry, data.clone()).await;
        }
        match written {
            Ok((file, index)) => {
                self.files[stream as usize] = Some(file);
                self.index = Some(index);
                self.written[stream as usize] += length;
                self.indexed += LogEntry::SIZE as u64;
            }
            Err(error) => {
                tracing::warn!(%error, batch = %self.id, "what a step prints can't be kept");
                self.problem = Some(match error.kind() {
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                        "the rest of what it printed is not kept: the disk is nearly full"
                    }
                    _ => "the rest of what it printed is not kept: it can't be written",
                });
                self.skip(stream);
            }
        }
    }

    async fn try_write(&self, entry: LogEntry, data: Bytes) -> io::Result<Files> {
        let stream = entry.stream;
        let (reserve, before) = (self.reserve.clone(), self.written[stream as usize]);
        let (file, index) = (self.files[stream as usize].clone(), self.index.clone());
        let (outputs, id) = (self.outputs.clone(), self.id.clone());
        let name = name_of(self.step, self.attempt, stream.into());
        let index_name = name_of(self.step, self.attempt, Part::Index);
        let indexed = self.indexed;
        blocking(move || {
            if outputs.check_space(&reserve, data.len() as u64).is_err() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let file = match file {
                Some(file) => file,
                None => Arc::new(outputs.create(&id, &name)?),
            };
            if let Err(error) = (&*file).write_all(&data) {
                // What is known to be there is there, and no more.
                cut(&file, before)?;
                return Err(error);
            }
            let added = (|| {
                let index = match index {
                    Some(index) => index,
                    None => Arc::new(outputs.create(&id, &index_name)?),
                };
                if let Err(error) = (&*index).write_all(&entry.to_bytes()) {
                    cut(&index, indexed)?;
                    return Err(error);
                }
                Ok(index)
            })();
            match added {
                Ok(index) => Ok((file, index)),
                Err(error) => {
                    cut(&file, before)?;
                    Err(error)
                }
            }
        })
        .await
    }

    /// Here a part is missing.
    pub(crate) fn skip(&mut self, stream: Stream) {
        self.gaps[stream as usize].get_or_insert(self.written[stream as usize]);
    }

    /// Here a part of so many bytes was left out, over the limit.
    pub(crate) async fn leave_out(&mut self, stream: Stream, bytes: u64) {
        self.skip(stream);
        let entry = LogEntry { time: now(), stream, is_gap: true, length: bytes };
        let Some(index) = self.index.clone() else { return };
        if self.problem.is_some() || self.quota.take(LogEntry::SIZE as u64).is_err() {
            return;
        }
        let indexed = self.indexed;
        let noted = blocking(move || {
            let written = (&*index).write_all(&entry.to_bytes());
            // A part of an entry would shift all that follow.
            written.or_else(|error| cut(&index, indexed).and(Err(error)))
        });
        match noted.await {
            Ok(()) => self.indexed += LogEntry::SIZE as u64,
            Err(error) => tracing::warn!(%error, batch = %self.id, "a gap can't be noted"),
        }
    }
}

/// Takes what was written beyond `length` away, so that the next write follows that.
fn cut(mut file: &std::fs::File, length: u64) -> io::Result<()> {
    file.set_len(length)?;
    file.seek(io::SeekFrom::Start(length)).map(drop)
}

/// That of a stream, and the index of both.
type Files = (Arc<std::fs::File>, Arc<std::fs::File>);

/// Of descriptors or memory, which passes.
fn is_shortage(error: &io::Error) -> bool {
    let passing = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EAGAIN];
    error.raw_os_error().is_some_and(|code| passing.contains(&code))
}

/// For a minute in all.
const SHORTAGE_TRIES: u32 = 600;
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

/// Output of one run of a step, which may still grow.
///
/// ```
/// use splengine_core::BatchError;
/// use splengine_core::batch::StepOutput;
///
/// /// Copies what a run of a step prints while it prints it, until that is over.
/// async fn follow(output: &StepOutput, mut to: impl std::io::Write) -> Result<(), BatchError> {
///     let mut offset = 0;
///     while output.grows(offset).await? {
///         let data = output.read(offset, 64 << 10).await?;
///         to.write_all(&data).map_err(|error| BatchError::Internal(error.into()))?;
///         offset += data.len() as u64;
///     }
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone)]
pub struct StepOutput {
    outputs: Outputs,
    /// While its batch is driven.
    live: Option<OutputInProgress>,
    id: BatchId,
    step: u32,
    attempt: u32,
    /// How often the step was run, as far as was known when this was made.
    last_attempt: u32,
    pub(crate) part: Part,
    pub(crate) gap: GapSearch,
}

/// Where to find out what becomes of the step, and when to look. Does not keep the batch from being
/// over: whoever follows it when the engine shuts down is told.
#[derive(Clone)]
struct OutputInProgress {
    journal: Journal,
    work: CallerLargeWork,
    changed: watch::Receiver<u64>,
    printed: watch::Receiver<()>,
}

impl OutputInProgress {
    /// What is written of the step now.
    async fn row(&self, of: &StepOutput) -> Result<StepRow, BatchError> {
        self.journal.step(&of.id, of.step, &self.work).await
    }
}

impl std::fmt::Debug for OutputInProgress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").finish_non_exhaustive()
    }
}

impl StepOutput {
    pub(crate) fn new(
        outputs: Outputs,
        live: Option<(Journal, CallerLargeWork, Arc<registry::LiveBatch>)>,
        id: BatchId,
        step: u32,
        (attempt, last_attempt): (u32, u32),
        stream: Stream,
    ) -> Self {
        let live = live.map(|(journal, work, live)| OutputInProgress {
            journal,
            work,
            changed: live.changed.subscribe(),
            printed: live.printed.subscribe(),
        });
        let (part, gap) = (stream.into(), GapSearch::default());
        Self { outputs, live, id, step, attempt, last_attempt, part, gap }
    }

    /// Another part of the same run.
    pub(crate) fn part(&self, part: Part) -> Self {
        Self { part, gap: GapSearch::default(), ..self.clone() }
    }

    /// Number of the run that printed it, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Names what it is a part of: the batch, the step, the run and the stream. What was read from
    /// an offset once is the same as long as this is, and more may follow it.
    #[must_use]
    pub fn revision(&self) -> String {
        format!("{}-{}", self.id, name_of(self.step, self.attempt, self.part))
    }

    /// Returns whether this run of the step is over, so that nothing more is printed.
    ///
    /// # Errors
    ///
    /// [`BatchError::Internal`] when that can't be found out.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn is_over(&self) -> Result<bool, BatchError> {
        match &self.live {
            Some(live) => Ok(self.has_ended(&live.row(self).await?)),
            None => Ok(true),
        }
    }

    /// The gap that the record of the step tells, which is that of its last run, once that is over.
    pub(crate) async fn recorded_gap(&self) -> Result<Option<Option<Gap>>, BatchError> {
        let (Part::Stream(stream), Some(live)) = (self.part, &self.live) else { return Ok(None) };
        let row = live.row(self).await?;
        let is_recorded = row.attempt == self.attempt && row.ended.is_some();
        Ok(is_recorded.then(|| row.gap(stream)))
    }

    fn has_ended(&self, row: &StepRow) -> bool {
        row.attempt > self.attempt
            || (row.attempt == self.attempt && row.ended.is_some())
            || row.state().is_final()
    }

    /// Returns the number of bytes that there are now.
    ///
    /// # Errors
    ///
    /// [`BatchError::Internal`] when the file can't be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn length(&self) -> Result<u64, BatchError> {
        let (outputs, id, name) = self.place();
        let length = blocking(move || outputs.read(&id, &name)?.metadata()).await;
        match length {
            Ok(metadata) => Ok(metadata.len()),
            // Nothing was printed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(BatchError::Internal(error.into())),
        }
    }

    /// Reads at most `most` bytes from `offset` on; none where there are no more now.
    ///
    /// # Errors
    ///
    /// [`BatchError::Internal`] when the file can't be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn read(&self, offset: u64, most: usize) -> Result<Bytes, BatchError> {
        let (outputs, id, name) = self.place();
        let read = blocking(move || {
            // So far no file reaches.
            if offset.checked_add(most as u64).is_none_or(|end| end > i64::MAX as u64) {
                return Ok(Bytes::new());
            }
            let file = outputs.read(&id, &name)?;
            let mut buffer = vec![0; most];
            let length = file.read_at(&mut buffer, offset)?;
            buffer.truncate(length);
            Ok::<_, io::Error>(Bytes::from(buffer))
        });
        match read.await {
            Ok(bytes) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Bytes::new()),
            Err(error) => Err(BatchError::Internal(error.into())),
        }
    }

    /// Waits until there is something beyond `offset`; `false` when there never will be, since this
    /// run of the step is over.
    ///
    /// # Errors
    ///
    /// [`BatchError::Internal`] when that can't be found out.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn grows(&self, offset: u64) -> Result<bool, BatchError> {
        let Some(mut live) = self.live.clone() else {
            return Ok(self.length().await? > offset);
        };
        loop {
            live.changed.borrow_and_update();
            live.printed.borrow_and_update();
            let row = live.row(self).await?;
            let is_over = self.has_ended(&row);
            if self.length().await? > offset {
                return Ok(true);
            }
            if is_over {
                return Ok(false);
            }
            tokio::select! {
                told = live.changed.changed() => if told.is_err() {
                    return Ok(self.length().await? > offset);
                },
                told = live.printed.changed() => if told.is_err() {
                    return Ok(self.length().await? > offset);
                },
            }
        }
    }

    /// Waits until the step is run again after this run, and gives what that run prints; `None` when
    /// it isn't, since the step is over or the engine shuts down.
    ///
    /// # Errors
    ///
    /// [`BatchError::Internal`] when that can't be found out.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn next_run(&self) -> Result<Option<Self>, BatchError> {
        if self.attempt < self.last_attempt {
            return Ok(Some(self.run_after()));
        }
        let Some(mut live) = self.live.clone() else { return Ok(None) };
        let mut is_driven = true;
        loop {
            live.changed.borrow_and_update();
            let row = live.row(self).await?;
            if row.attempt > self.attempt {
                return Ok(Some(self.run_after()));
            }
            if row.state().is_final() || !is_driven {
                return Ok(None);
            }
            is_driven = live.changed.changed().await.is_ok();
        }
    }

    /// The same of the run after this one.
    fn run_after(&self) -> Self {
        Self { attempt: self.attempt + 1, gap: GapSearch::default(), ..self.clone() }
    }

    fn place(&self) -> (Outputs, BatchId, String) {
        let name = name_of(self.step, self.attempt, self.part);
        (self.outputs.clone(), self.id.clone(), name)
    }
}
