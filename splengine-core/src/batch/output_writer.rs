//! Writing what a run of a step prints.

use std::io::{self, Seek as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use crate::batch::log_entry::LogEntry;
use crate::batch::outputs::{Outputs, Part, name_of};
use crate::batch::records::now;
use crate::batch::registry;
use crate::blocking::blocking;
use crate::execute::Stream;
use crate::ids::BatchId;
use crate::quota::DiskReserve;

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

    /// Keeps no more, since the engine ends and the disk takes nothing.
    pub(crate) fn give_up(&mut self, stream: Stream) {
        if self.problem.replace(STUCK).is_none() {
            tracing::warn!(batch = %self.id, "what a step prints is not kept in time");
        }
        self.skip(stream);
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

const STUCK: &str =
    "the rest of what it printed is not kept: the disk did not take it before the engine ended";
/// For a minute in all.
const SHORTAGE_TRIES: u32 = 600;
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);
