//! An answer on its way to bytes.

use splengine_core::Reason;
use splengine_core::batch::BatchRecord;
use splengine_core::quota::Reservation;

use crate::context::{CallContext, MIN_ANSWER_BYTES, off_workers};
use crate::datum::{Datum, Symbols as _};
use crate::error::Failure;
use crate::metadata::Echo;
use crate::records;

/// An answer that is written, and the memory that is reserved for it until it was sent, if it is large.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) bytes: Vec<u8>,
    pub(crate) memory: Option<Reservation>,
}

impl From<Vec<u8>> for Written {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, memory: None }
    }
}

/// The answer to a message that was not read.
pub(crate) fn refusal(failure: &Failure) -> Vec<u8> {
    Answer { bytes: Vec::new(), echo: Echo::default() }.system(failure)
}

/// An answer in the making.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) bytes: Vec<u8>,
    pub(crate) echo: Echo,
}

impl Answer {
    /// A result, or a failure: one that the message declares, or as a string.
    pub(crate) fn of<T: Datum>(self, result: Result<T, Failure>, is_declared: bool) -> Vec<u8> {
        self.of_size(result, is_declared, 0)
    }

    /// The same of a result of about `size` bytes.
    pub(crate) fn of_size<T: Datum>(
        mut self,
        result: Result<T, Failure>,
        is_declared: bool,
        size: usize,
    ) -> Vec<u8> {
        self.bytes.reserve(size.saturating_add(128));
        match result {
            Ok(value) => {
                self.echo.write(&mut self.bytes);
                self.bytes.push(0);
                value.write(&mut self.bytes);
            }
            Err(failure) => {
                self.echo.error_code = Some(failure.code.symbol());
                self.echo.write(&mut self.bytes);
                self.bytes.push(1);
                if is_declared {
                    failure.write_declared(&mut self.bytes);
                } else {
                    failure.write_system(&mut self.bytes);
                }
            }
        }
        self.bytes
    }

    /// The same of what ran: for a reason that its record has no place for, but for the usual one.
    pub(crate) fn of_run<T: Datum>(
        mut self,
        result: Result<(T, Reason), Failure>,
        is_declared: bool,
    ) -> Vec<u8> {
        let result = result.map(|(value, reason)| {
            self.echo.reason = (reason != Reason::Exited).then(|| reason.name());
            value
        });
        self.of(result, is_declared)
    }

    /// Writes an answer with so much output, off the runtime's workers if that is large.
    pub(crate) async fn of_output(
        self,
        size: usize,
        write: impl FnOnce(Self) -> Vec<u8> + Send + 'static,
    ) -> Vec<u8> {
        if size <= MIN_ANSWER_BYTES {
            return write(self);
        }
        let again = self.clone();
        let written = off_workers(move || write(self)).await;
        written.unwrap_or_else(|failure| again.system(&failure))
    }

    /// Writes an answer with the record of a batch, off the runtime's workers if that is large. Of what
    /// was done the record is told without its steps where it does not get its turn.
    pub(crate) async fn of_record(
        self,
        ask: &CallContext<'_>,
        result: Result<BatchRecord, Failure>,
        is_done: bool,
    ) -> Vec<u8> {
        let write = |answer: Self, record: BatchRecord| {
            answer.of(Ok(records::BatchRecord::from(record)), true)
        };
        let record = match result {
            Ok(record) => record,
            Err(failure) => return self.of::<()>(Err(failure), true),
        };
        let (user, bytes) = (ask.caller.accounted_user(), record.memory_bytes());
        let (info, again) = (record.info.clone(), self.clone());
        let written = match ask.engine.large_work().permit(user, bytes).await {
            Ok(permit) => permit.run(move || write(self, record)).await,
            Err(error) => Err(error),
        };
        written.unwrap_or_else(|error| {
            if is_done {
                return write(again, info.into());
            }
            again.of::<()>(Err(error.into()), true)
        })
    }

    pub(crate) fn system(self, failure: &Failure) -> Vec<u8> {
        self.of::<()>(Err(failure.clone()), false)
    }
}
