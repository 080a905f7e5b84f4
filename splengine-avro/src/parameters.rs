//! Reading the parameters of calls.

use std::sync::Arc;

use bytes::Bytes;
use splengine_core::quota::{LargeWork, LargeWorkError, LargeWorkPermit};

use crate::datum::{DatumError, Reader};
use crate::peer_protocols::ClientProtocol;

/// What the parameters of a call are written as.
pub(crate) struct Parameters<'a> {
    pub(crate) client: &'a Arc<ClientProtocol>,
    /// The message that is called.
    pub(crate) name: &'a str,
    pub(crate) written: Bytes,
}

/// Why parameters were not read.
pub(crate) enum Unread {
    /// They are wrong; for people.
    Malformed(String),
    /// It was not their turn in time.
    Busy(LargeWorkError),
}

impl Parameters<'_> {
    /// The number of bytes that take time to be read: none of data that is taken as it is written, and of
    /// what is not written as our own schema has it those that it takes in memory.
    pub(crate) fn work_bytes(&self) -> usize {
        let takes_data = matches!(self.name, "writeFile" | "writeSession" | "writeStepInput");
        let length = self.written.len();
        match self.client.message(self.name) {
            Ok((_, message)) if message.is_ours() && takes_data => 0,
            Ok((_, message)) if message.is_ours() => length,
            Ok((name, message)) if length < LargeWork::MIN_BYTES => {
                message.cost(name, &self.written).unwrap_or(0)
            }
            _ => length,
        }
    }

    /// The memory that values of another schema than our own take until all are read, in bytes, about.
    pub(crate) async fn cost(&self, permit: &LargeWorkPermit) -> Result<usize, Unread> {
        let (name, message) = self.client.message(self.name).map_err(Unread::Malformed)?;
        if message.is_ours() {
            return Ok(0);
        }
        if self.written.len() < LargeWork::MIN_BYTES {
            return message.cost(name, &self.written).map_err(Unread::Malformed);
        }
        let (client, name) = (Arc::clone(self.client), self.name.to_owned());
        let written = self.written.clone();
        let cost =
            move || client.message(&name).and_then(|(name, message)| message.cost(name, &written));
        Box::pin(permit.run(cost)).await.map_err(Unread::Busy)?.map_err(Unread::Malformed)
    }

    /// Reads all of them, once their [cost](Self::cost) is known, of so many bytes of
    /// [work](Self::work_bytes): apart from the runtime's workers with a `permit` for what is large, of which
    /// the result is dropped there as well, unless it is taken.
    pub(crate) async fn read<T: Send + 'static>(
        self,
        permit: &LargeWorkPermit,
        work_bytes: usize,
        read: impl FnOnce(&mut Reader) -> Result<T, DatumError> + Send + 'static,
    ) -> Result<T, Unread> {
        if work_bytes < LargeWork::MIN_BYTES {
            return read_all(self.client, self.name, self.written, read);
        }
        let (client, name) = (Arc::clone(self.client), self.name.to_owned());
        let written = self.written;
        let work = permit.run(move || read_all(&client, &name, written, read));
        Box::pin(work).await.map_err(Unread::Busy)?
    }
}

fn read_all<T>(
    client: &ClientProtocol,
    name: &str,
    written: Bytes,
    read: impl FnOnce(&mut Reader) -> Result<T, DatumError>,
) -> Result<T, Unread> {
    let (name, message) = client.message(name).map_err(Unread::Malformed)?;
    let mut reader = message.parameters(name, written).map_err(Unread::Malformed)?;
    let unreadable = |error: DatumError| {
        Unread::Malformed(format!("the parameters of `{name}` can't be read: {error}"))
    };
    let value = read(&mut reader).map_err(unreadable)?;
    reader.finish().map_err(unreadable)?;
    Ok(value)
}
