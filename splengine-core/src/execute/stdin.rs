use std::fmt;
use std::pin::Pin;

use bytes::Bytes;
use tokio::io::AsyncRead;

/// Standard input of a command.
///
/// ```
/// use splengine_core::execute::Stdin;
/// use splengine_core::{Caller, Engine, LocalExecutor, Request};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
/// # let alice = Caller::new("alice")?.with_all_scopes();
/// let request = Request::new("tr a-z A-Z").stdin(Stdin::bytes("hello"));
/// assert_eq!(engine.execute(&alice, request).await?.capture().await.stdout, "HELLO");
///
/// // A reader, such as a socket or a file of tokio's, is read as fast as the program reads.
/// let request = Request::new("wc -c").stdin(Stdin::reader(&b"hello"[..]));
/// assert_eq!(engine.execute(&alice, request).await?.capture().await.stdout, "5\n");
/// # Ok(())
/// # }
/// ```
pub struct Stdin(pub(crate) StdinSource);

pub(crate) enum StdinSource {
    Null,
    Bytes(Bytes),
    Reader(Pin<Box<dyn AsyncRead + Send>>),
}

impl Stdin {
    /// Returns an empty standard input: `/dev/null`.
    #[must_use]
    pub fn null() -> Self {
        Self(StdinSource::Null)
    }

    /// Makes a standard input of these bytes, followed by the end of file.
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self(StdinSource::Bytes(bytes.into()))
    }

    /// Makes a standard input of what `reader` gives, as it comes. It is read no faster than the program
    /// takes it. A read error is not reported: the program sees the end of file.
    pub fn reader(reader: impl AsyncRead + Send + 'static) -> Self {
        Self(StdinSource::Reader(Box::pin(reader)))
    }

    /// Returns whether there is nothing to read.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self.0, StdinSource::Null)
    }

    /// Returns the whole input as a reader, for an [`Execute`](crate::Execute) that copies it somewhere.
    #[must_use]
    pub fn into_reader(self) -> Pin<Box<dyn AsyncRead + Send>> {
        match self.0 {
            StdinSource::Null => Box::pin(tokio::io::empty()),
            StdinSource::Bytes(bytes) => Box::pin(std::io::Cursor::new(bytes)),
            StdinSource::Reader(reader) => reader,
        }
    }
}

impl fmt::Debug for Stdin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            StdinSource::Null => "Stdin(null)",
            StdinSource::Bytes(_) => "Stdin(bytes)",
            StdinSource::Reader(_) => "Stdin(reader)",
        })
    }
}
