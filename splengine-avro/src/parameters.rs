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
    /// The number of bytes that take time to be read: none of data that is taken as it is written.
    pub(crate) fn work_bytes(&self) -> usize {
        let takes_data = matches!(self.name, "writeFile" | "writeSession" | "writeStepInput");
        let is_ours = || self.client.message(self.name).is_ok_and(|(_, message)| message.is_ours());
        if takes_data && is_ours() { 0 } else { self.written.len() }
    }

    /// Reads all of them: apart from the runtime's workers with a `permit` for what is large, of which the
    /// result is dropped there as well, unless it is taken.
    pub(crate) async fn read<T: Send + 'static>(
        self,
        permit: &LargeWorkPermit,
        read: impl FnOnce(&mut Reader) -> Result<T, DatumError> + Send + 'static,
    ) -> Result<T, Unread> {
        if self.work_bytes() < LargeWork::MIN_BYTES {
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
    // What is not as our own schema has it takes more than its size to read.
    let mut reader = message.parameters(name, written).map_err(Unread::Malformed)?;
    let unreadable = |error: DatumError| {
        Unread::Malformed(format!("the parameters of `{name}` can't be read: {error}"))
    };
    let value = read(&mut reader).map_err(unreadable)?;
    reader.finish().map_err(unreadable)?;
    Ok(value)
}
